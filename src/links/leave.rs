//! Links that lead off the site: over a page of ours whose URL holds no token, so that no Referer does.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use subtle::ConstantTimeEq as _;
use url::Url;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};

/// The page that off-site links lead to.
pub(super) const LEAVE_PATH: &str = "/_sekisho/leave";
/// How long a link stays good: as long as somebody may read one page.
const LIFETIME: Duration = Duration::from_hours(1);
/// Longest target, in bytes; a longer one gets a link to the page alone, which then knows no way on.
const MAX_TARGET: usize = 2048;
/// Bytes of expiry and of the truncated HMAC (RFC 2104 §5).
const EXPIRY: usize = 8;
const TAG: usize = 16;

/// What is escaped in a query value: all but the unreserved set and `/` (RFC 3986 §3.4).
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Makes and opens the URLs of `/_sekisho/leave`: signed, so that it leads nowhere that no upstream named.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`; it holds a key, whose copy in ring is not wiped.
pub struct LeaveLinks(hmac::Key);

/// Where a leave link leads: an absolute http or https URL.
pub struct Target(Url);

impl Target {
    /// The URL: ASCII, without white space, quotes or angle brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The host, an international name in its ASCII form: what a person decides by.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl LeaveLinks {
    /// The longest query of [`Self::issue`], in bytes, every byte of the target escaped.
    pub const LONGEST_FIELDS: usize = 64 + 3 * MAX_TARGET;

    /// With a key of this process: after a restart the page with the link has to be opened again.
    #[must_use]
    pub fn new(entropy: &dyn Entropy) -> Self {
        let key = Zeroizing::new(random::<32>(entropy));
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()))
    }

    /// The local URL, path and query, that stands for the absolute URL `target` for an hour from `now`.
    #[must_use]
    pub fn issue(&self, target: &str, now: Timestamp) -> String {
        if target.len() > MAX_TARGET {
            return LEAVE_PATH.to_owned();
        }
        let expiry = now.plus(LIFETIME).unix_millis().to_be_bytes();
        let seal = URL_SAFE_NO_PAD.encode([&expiry[..], &self.tag(expiry, target)[..]].concat());
        format!("{LEAVE_PATH}?s={seal}&u={}", utf8_percent_encode(target, QUERY_VALUE))
    }

    /// The target, where this key made the query and it has not expired at `now`. Keys beside ours are not looked at:
    /// a form that leads off the site brings its fields along.
    #[must_use]
    pub fn open(&self, query: Option<&str>, now: Timestamp) -> Option<Target> {
        let query = query?.as_bytes();
        let first = |key: &str| form_urlencoded::parse(query).find(|(k, _)| k == key).map(|(_, value)| value);
        let (seal, target) = (first("s")?, first("u")?);
        let seal: [u8; EXPIRY + TAG] = URL_SAFE_NO_PAD.decode(&*seal).ok()?.try_into().ok()?;
        let (expiry, tag) = seal.split_first_chunk::<EXPIRY>()?;
        let ours: bool = self.tag(*expiry, &target).as_slice().ct_eq(tag).into();
        if !ours || now >= Timestamp::from_unix_millis(i64::from_be_bytes(*expiry)) {
            return None;
        }
        let url = Url::parse(&target).ok()?;
        matches!(url.scheme(), "http" | "https").then_some(Target(url))
    }

    /// Over the expiry, whose length is fixed, and the target.
    fn tag(&self, expiry: [u8; EXPIRY], target: &str) -> [u8; TAG] {
        let mac = hmac::sign(&self.0, &[&expiry[..], target.as_bytes()].concat());
        let mut out = [0; TAG];
        for (to, from) in out.iter_mut().zip(mac.as_ref()) {
            *to = *from;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(LeaveLinks: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    const NOW: Timestamp = Timestamp::from_unix_millis(1_795_530_117_042);

    fn links(seed: u64) -> LeaveLinks {
        LeaveLinks::new(&SeededEntropy::new(seed))
    }

    fn opened(query: &str, now: Timestamp) -> Option<String> {
        links(1).open(Some(query), now).map(|target| target.as_str().to_owned())
    }

    #[test]
    fn a_link_opens_for_an_hour() {
        let target = "http://other.example/a?b=%E3%81%82&s=1&u=2#c";
        let issued = links(1).issue(target, NOW);
        let query = issued.strip_prefix("/_sekisho/leave?").unwrap();
        assert_eq!(opened(query, NOW).as_deref(), Some(target));
        assert_eq!(opened(&format!("{query}&q=word&u=http://evil.example/&s=x"), NOW).as_deref(), Some(target));
        assert_eq!(opened(query, NOW.plus(LIFETIME)), None);
        assert!(links(2).open(Some(query), NOW).is_none(), "another key");
    }

    #[test]
    fn nothing_else_opens() {
        let issued = links(1).issue("http://other.example/", NOW);
        let query = issued.split_once('?').unwrap().1;
        let (seal, target) = query.split_once('&').unwrap();
        for forged in [
            "",
            "u=http://evil.example/",
            seal,
            target,
            &format!("{seal}&u=http://evil.example/"),
            &format!("u=http://evil.example/&{query}"),
            &format!("s=&{target}"),
            &format!("{}&{target}", seal.replace("s=A", "s=B")),
            &format!("{seal}A&{target}"),
        ] {
            assert_eq!(opened(forged, NOW), None, "{forged}");
        }
        assert!(links(1).open(None, NOW).is_none());
        let script = links(1).issue("javascript:alert(1)", NOW);
        assert_eq!(opened(script.split_once('?').unwrap().1, NOW), None, "only the web is left to");
    }

    #[test]
    fn a_target_too_long_for_a_url_leads_to_the_page_alone() {
        assert_eq!(links(1).issue(&format!("http://other.example/{}", "a".repeat(MAX_TARGET)), NOW), LEAVE_PATH);
    }
}
