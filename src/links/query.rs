//! `_sk` in a query: found as a form decoder would read it, taken out byte by byte.

use percent_encoding::percent_decode_str;

use crate::session::SessionToken;

/// The query key that carries a session.
pub(super) const TOKEN_KEY: &str = "_sk";

/// What a query says of `_sk`.
pub enum UrlTokens {
    /// Nothing.
    None,
    /// One value; `None` where it cannot be a token.
    One(Option<SessionToken>),
    /// More than one: such a request is refused.
    Several,
}

/// The query without any `_sk`, otherwise byte for byte as it was, and what stood there.
///
/// A key is `_sk` in whatever case and however its letters are percent-encoded (application/x-www-form-urlencoded),
/// so that no reader behind us finds one that was left. `None` where nothing but tokens stood in the query.
#[must_use]
pub fn take_token(query: Option<&str>) -> (Option<String>, UrlTokens) {
    let Some(query) = query else { return (None, UrlTokens::None) };
    let mut tokens = UrlTokens::None;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        if !has_key(pair, TOKEN_KEY) {
            kept.push(pair);
            continue;
        }
        tokens = match tokens {
            UrlTokens::None => {
                let value = pair.split_once('=').map_or("", |(_, value)| value);
                let decoded = zeroize::Zeroizing::new(percent_decode_str(value).collect::<Vec<u8>>());
                UrlTokens::One(SessionToken::parse(&decoded))
            }
            UrlTokens::One(_) | UrlTokens::Several => UrlTokens::Several,
        };
    }
    ((!kept.is_empty()).then(|| kept.join("&")), tokens)
}

/// Whether the pair's key, decoded and without regard to case, is `key`.
pub(super) fn has_key(pair: &str, key: &str) -> bool {
    let written = pair.split('=').next().unwrap_or(pair);
    let decoded = percent_decode_str(written).map(|b| b.to_ascii_lowercase());
    decoded.eq(key.bytes().map(|b| b.to_ascii_lowercase()))
}
