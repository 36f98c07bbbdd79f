//! `_sk` in a query: found as a form decoder would read it, taken out byte by byte.

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

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
/// A key is `_sk` in whatever case and however its letters are percent-encoded, as a reader of
/// application/x-www-form-urlencoded would decode it, so that no reader behind us finds one that was left. The query
/// is `None` where nothing but tokens stood in it.
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
            UrlTokens::None => UrlTokens::One(value(pair)),
            UrlTokens::One(_) | UrlTokens::Several => UrlTokens::Several,
        };
    }
    ((!kept.is_empty()).then(|| kept.join("&")), tokens)
}

/// The token that is the value of a pair.
pub(super) fn value(pair: &str) -> Option<SessionToken> {
    let (_, written) = pair.split_once('=')?;
    let decoded: Zeroizing<Vec<u8>> = Zeroizing::new(percent_decode_str(written).collect());
    SessionToken::parse(&decoded)
}

/// Whether the pair's key, decoded and without regard to case, is `key`.
pub(super) fn has_key(pair: &str, key: &str) -> bool {
    let written = pair.split('=').next().unwrap_or(pair);
    let decoded = percent_decode_str(written).map(|b| b.to_ascii_lowercase());
    decoded.eq(key.bytes().map(|b| b.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz012345";

    /// `-` none, `?` one that cannot be a token, `1` one, `+` several.
    fn take(query: &str) -> (Option<String>, char) {
        let (kept, tokens) = take_token(Some(query));
        let found = match tokens {
            UrlTokens::None => '-',
            UrlTokens::One(None) => '?',
            UrlTokens::One(Some(token)) => {
                assert_eq!(token.expose(), TOKEN);
                '1'
            }
            UrlTokens::Several => '+',
        };
        (kept, found)
    }

    #[test]
    fn a_token_is_taken_out_and_nothing_else() {
        for (query, kept, found) in [
            ("_sk=T", None, '1'),
            ("_sk=T&", Some(""), '1'),
            ("", Some(""), '-'),
            ("a=%41&&b", Some("a=%41&&b"), '-'),
            ("a=1&_sk=T&b=+%2b", Some("a=1&b=+%2b"), '1'),
            ("%5Fsk=T&a", Some("a"), '1'),
            ("%5f%73%6B=T", None, '1'),
            ("_SK=T", None, '1'),
            ("_sk=%61bcdefghijklmnopqrstuvwxyz012345", None, '1'),
            ("_sk", None, '?'),
            ("_sk=", None, '?'),
            ("_sk=T=", None, '?'),
            ("_sk=T&_sk=T", None, '+'),
            ("_sk=T&x=1&%5fSK=", Some("x=1"), '+'),
            ("_sk=&_sk=&_sk=T", None, '+'),
            ("x_sk=T&_skx=T&a=_sk=T&_sk%00=T", Some("x_sk=T&_skx=T&a=_sk=T&_sk%00=T"), '-'),
            ("%255Fsk=T", Some("%255Fsk=T"), '-'),
        ] {
            let of = |text: &str| text.replace('T', TOKEN);
            assert_eq!(take(&of(query)), (kept.map(of), found), "{query}");
        }
        assert!(matches!(take_token(None), (None, UrlTokens::None)));
    }
}
