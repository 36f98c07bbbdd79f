//! Which cookies are the gateway's, in both directions; pure.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{COOKIE, Entry, HeaderValue};

use crate::edge::cookie_pairs;
use crate::session::SessionCookie;

/// Cuts the gateway's and the carriers' cookies out, and joins what HTTP/2 split (RFC 9113 §8.2.3). The other
/// cookies keep their bytes and their order.
pub(super) fn clean_cookies(fields: &mut HeaderMap, is_reserved: impl Fn(&str) -> bool) {
    let is_kept = |pair: &&[u8]| {
        let name = cookie_name(pair);
        !is_gateway_cookie(name) && !std::str::from_utf8(name).is_ok_and(&is_reserved)
    };
    let Entry::Occupied(mut lists) = fields.entry(COOKIE) else { return };
    let mut each = lists.iter();
    if let (Some(one), None) = (each.next(), each.next())
        && cookie_pairs(one.as_bytes()).all(|pair| is_kept(&pair))
    {
        return;
    }
    let mut joined: Vec<u8> = Vec::new();
    for list in lists.iter() {
        for (index, pair) in cookie_pairs(list.as_bytes()).filter(is_kept).enumerate() {
            if joined.is_empty() {
                joined.extend_from_slice(pair.trim_ascii_start());
            } else if index == 0 {
                joined.extend_from_slice(b"; ");
                joined.extend_from_slice(pair.trim_ascii_start());
            } else {
                joined.push(b';');
                joined.extend_from_slice(pair);
            }
        }
    }
    let value = HeaderValue::from_maybe_shared(Bytes::from(joined)).ok();
    match value.filter(|value| !value.is_empty()) {
        Some(value) => lists.insert(value),
        None => lists.remove(),
    };
}

/// The name of a `name=value` pair; of a nameless one (`=x=y`) the name that a browser would send back.
pub(super) fn cookie_name(pair: &[u8]) -> &[u8] {
    pair.split(|b| *b == b'=').map(<[u8]>::trim_ascii).find(|part| !part.is_empty()).unwrap_or_default()
}

/// Whether a cookie is the gateway's own.
pub(super) fn is_gateway_cookie(name: &[u8]) -> bool {
    SessionCookie::NAMES.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_cookies_are_cut_out() {
        for (sent, expected) in [
            (&["a=1; b=2"][..], Some("a=1; b=2")),
            (&["a=1;b=2 ; c"], Some("a=1;b=2 ; c")),
            (&["sekisho=t"], None),
            (&["__Host-sekisho=t"], None),
            (&["sekisho=t; a=1"], Some("a=1")),
            (&["a=1; sekisho=t"], Some("a=1")),
            (&["a=1; sekisho=t; b=2"], Some("a=1; b=2")),
            (&["a=1;sekisho=t;b=\"2\""], Some("a=1;b=\"2\"")),
            (&["a=1; Sekisho = t; b=2"], Some("a=1; b=2")),
            (&["a=1; =sekisho=t"], Some("a=1")),
            (&["a=1; __Host-sekisho=t; sekisho=u"], Some("a=1")),
            (&["sekisho2=1; asekisho=2; a=sekisho"], Some("sekisho2=1; asekisho=2; a=sekisho")),
            (&["subscriber=1; a=1"], Some("a=1")),
            (&["a=1", "b=2"], Some("a=1; b=2")),
            (&["a=1", "sekisho=t", "b=2; c=3"], Some("a=1; b=2; c=3")),
            (&["sekisho=t", "sekisho=u"], None),
            (&["a=\u{e9}; sekisho=t"], Some("a=\u{e9}")),
        ] {
            let value = |text: &&str| (COOKIE, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            let mut fields: HeaderMap = sent.iter().map(value).collect();
            clean_cookies(&mut fields, |name| name == "subscriber");
            assert_eq!(fields, expected.iter().map(value).collect(), "{sent:?}");
        }
    }
}
