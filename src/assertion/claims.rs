//! What an assertion says, and for how long; pure.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;

/// How long an assertion is valid.
pub const LIFETIME: Duration = Duration::from_mins(1);

/// The value of `typ` (explicit typing, RFC 8725 §3.11).
pub(super) const TYPE: &str = "sekisho-assertion+jwt";

/// How strong the sign-in was, and by what: the handset alone.
const DEVICE: (&str, &[&str]) = ("urn:sekisho:acr:device", &["carrier"]);
/// The handset and a PIN.
const DEVICE_PIN: (&str, &[&str]) = ("urn:sekisho:acr:device+pin", &["carrier", "pin"]);

/// What is asserted of a session, to one audience.
pub struct Claims<'a> {
    /// The upstream's configured audience.
    pub audience: &'a str,
    /// How the upstream knows the account.
    pub subject: &'a str,
    /// Per-audience handle of the session.
    pub sid: &'a str,
    /// When the handset signed in; or, where that counts, when the PIN was typed.
    pub auth_time: Timestamp,
    /// Whether the PIN was typed in the session, and counts.
    pub with_pin: bool,
}

/// The claim set as it is signed. Times are whole seconds since the Unix epoch (RFC 7519 §2, `NumericDate`).
#[derive(Serialize)]
pub(super) struct ClaimSet<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: &'a str,
    sid: &'a str,
    auth_time: i64,
    acr: &'static str,
    amr: &'static [&'static str],
}

impl<'a> ClaimSet<'a> {
    /// Valid from `now`, for [`LIFETIME`].
    pub(super) fn new(issuer: &'a str, claims: &Claims<'a>, jti: &'a str, now: Timestamp) -> Self {
        let (acr, amr) = if claims.with_pin { DEVICE_PIN } else { DEVICE };
        Self {
            iss: issuer,
            aud: claims.audience,
            sub: claims.subject,
            iat: now.unix_seconds(),
            nbf: now.unix_seconds(),
            exp: now.plus(LIFETIME).unix_seconds(),
            jti,
            sid: claims.sid,
            auth_time: claims.auth_time.unix_seconds(),
            acr,
            amr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_set_is_the_contracts() {
        let claims = Claims {
            audience: "https://console.internal",
            subject: "5f0c",
            sid: "c2lk",
            auth_time: Timestamp::from_unix_millis(1_700_000_000_999),
            with_pin: false,
        };
        let now = Timestamp::from_unix_millis(1_700_000_100_500);
        let set = ClaimSet::new("https://admin.example.jp", &claims, "anRp", now);
        assert_eq!(
            serde_json::to_value(set).unwrap(),
            serde_json::json!({
                "iss": "https://admin.example.jp", "aud": "https://console.internal", "sub": "5f0c",
                "iat": 1_700_000_100, "nbf": 1_700_000_100, "exp": 1_700_000_160,
                "jti": "anRp", "sid": "c2lk", "auth_time": 1_700_000_000,
                "acr": "urn:sekisho:acr:device", "amr": ["carrier"],
            })
        );
        let set = ClaimSet::new("", &Claims { with_pin: true, ..claims }, "", now);
        assert_eq!((set.acr, set.amr), ("urn:sekisho:acr:device+pin", &["carrier", "pin"][..]));
    }
}
