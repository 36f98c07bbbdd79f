//! The handle by which an upstream knows a session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::derive::{framed, half, mac, subkey};

/// The assertion's `sid`: HMAC of the audience under a key made of the session's own seed, 16 bytes as base64url.
///
/// No key of the gateway takes part, so it stays the same for the life of the session whatever keys are rotated. It need
/// not: who holds the store finds the account of every assertion by its `sub` anyway, and who does not lacks the seed.
#[must_use]
pub fn sid(sid_seed: &[u8; 16], audience: &str) -> String {
    let key = subkey(sid_seed, "sekisho/sid/v1");
    URL_SAFE_NO_PAD.encode(half(mac(&key, &framed(&[audience.as_bytes()]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_one_for_each_session_and_audience() {
        // Computed with Python's hmac and hashlib.
        let one = sid(&[1; 16], "https://console.internal");
        assert_eq!(one, "SIz-7nI2FngU-tnoFQz8sA");
        assert_ne!(one, sid(&[2; 16], "https://console.internal"));
        assert_ne!(one, sid(&[1; 16], "https://other.internal"));
    }
}
