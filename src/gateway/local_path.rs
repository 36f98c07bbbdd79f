//! Where to go after signing in: a path on this host and nothing else, whatever the client wrote.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::links::{UrlTokens, take_token};

/// Longest target kept, in bytes once it is escaped: with the rest of the login URL it stays below the 512 bytes that i-mode handsets
/// and, with a short path, the 256 bytes that `EZweb` handsets can hold (`data/carriers.json`, limits).
const MAX_BYTES: usize = 160;

/// Pages of the gateway's own that are places to go to.
const OWN_TARGETS: [&str; 3] = ["/_sekisho/me", "/_sekisho/me/pin", "/_sekisho/notice"];

/// What is escaped in a query value: all but the unreserved set and `/` (RFC 3986 §3.4).
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A path and query on this host, safe in a `Location` field and in a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalPath(Box<str>);

impl LocalPath {
    /// The console's first page.
    #[must_use]
    pub(super) fn root() -> Self {
        Self("/".into())
    }

    /// Reads what a client named. Whatever could lead off this host, or back into the gateway's own forms, becomes
    /// the root: a wrong target costs a click, a refused sign-in costs the person.
    #[must_use]
    pub(super) fn parse(text: &str) -> Self {
        let visible = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
        let path = text.split('?').next().unwrap_or_default();
        // Browsers read `//` as another host and `\` as `/`; some drop control characters first (WHATWG URL §4.4).
        let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
        let twice = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
        let local = |p: &str| {
            p.starts_with('/')
                && !p.contains("//")
                && !p.contains('\\')
                && !p.chars().any(char::is_control)
                && !p.split('/').any(|s| s == "." || s == "..")
        };
        let own = decoded.starts_with("/_sekisho") && !OWN_TARGETS.contains(&decoded.as_str());
        if visible && escaped_length(text) <= MAX_BYTES && !own && [path, &decoded, &twice].into_iter().all(local) {
            Self(without_token(text).into())
        } else {
            Self::root()
        }
    }

    /// The target of a request that was refused: where its person wanted to go. Gateway keys are dropped from it.
    #[must_use]
    pub(super) fn of_request(path: &str, query: Option<&str>) -> Self {
        let kept: Vec<&str> = query.unwrap_or_default().split('&').filter(|pair| !is_gateway_key(pair)).collect();
        let query = kept.join("&");
        let with_query = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        match Self::parse(&with_query) {
            // A query too long for the handset is given up before the path is.
            Self(root) if &*root == "/" => Self::parse(path),
            parsed => parsed,
        }
    }

    /// The path and query.
    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Escaped, as the value of a query parameter.
    #[must_use]
    pub(super) fn as_query_value(&self) -> String {
        utf8_percent_encode(&self.0, QUERY_VALUE).to_string()
    }
}

/// A session comes with signing in, never with the place to go to.
fn without_token(text: &str) -> Cow<'_, str> {
    let Some((path, query)) = text.split_once('?') else { return Cow::Borrowed(text) };
    match take_token(Some(query)) {
        (_, UrlTokens::None) => Cow::Borrowed(text),
        (Some(rest), _) => Cow::Owned(format!("{path}?{rest}")),
        (None, _) => Cow::Borrowed(path),
    }
}

fn escaped_length(text: &str) -> usize {
    utf8_percent_encode(text, QUERY_VALUE).map(str::len).sum()
}

fn is_gateway_key(pair: &str) -> bool {
    let key = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy();
    key.is_empty() || key == "_sk" || key.eq_ignore_ascii_case("guid")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn local_paths_stay() {
        for path in [
            "/",
            "/admin",
            "/admin/?a=b&c=d",
            "/a/%E3%81%82?q=%2F%2Fx",
            "/_sekisho/me",
            "/_sekisho/me/pin",
            "/a?u=http://x.example/",
        ] {
            assert_eq!(LocalPath::parse(path).as_str(), path);
        }
    }

    #[test]
    fn everything_else_becomes_the_root() {
        let long = format!("/{}", "a".repeat(MAX_BYTES));
        let escaped = format!("/{}", "%41".repeat(MAX_BYTES / 4));
        for path in [
            "",
            "admin",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "\\\\evil.example",
            "/%2Fevil.example",
            "/%2fevil.example",
            "/%5Cevil.example",
            "/%252Fevil.example",
            "/a//evil.example",
            "/./evil",
            "/a/../../evil.example",
            "/%2e%2e/evil",
            "http://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "/\tevil",
            "/a b",
            "/a\r\nSet-Cookie: x",
            "/%0d%0aSet-Cookie:x",
            "/a#b",
            "/あ",
            " /a",
            "/_sekisho/logout",
            "/_sekisho/login?to=/",
            "/%5fsekisho/logout",
            "@evil.example",
            "/@evil.example/../..//evil",
            &long,
            &escaped,
        ] {
            assert_eq!(LocalPath::parse(path).as_str(), "/", "{path:?}");
        }
    }

    #[test]
    fn gateway_keys_do_not_travel() {
        for (path, query, target) in [
            ("/a", Some("_sk=secret&x=1&guid=ON"), "/a?x=1"),
            ("/a", Some("%5Fsk=secret"), "/a"),
            ("/a", None, "/a"),
            ("/a", Some(""), "/a"),
            ("*", None, "/"),
        ] {
            assert_eq!(LocalPath::of_request(path, query).as_str(), target);
        }
        for (named, target) in
            [("/a?_sk=x", "/a"), ("/a?b&%5fSK=x&c", "/a?b&c"), ("/a?_sk", "/a"), ("/a?sk=x", "/a?sk=x")]
        {
            assert_eq!(LocalPath::parse(named).as_str(), target);
        }
        let long = "q".repeat(500);
        assert_eq!(LocalPath::of_request("/a", Some(&long)).as_str(), "/a", "the query goes first");
    }

    proptest! {
        #[test]
        fn a_target_never_leaves_this_host(text in "[/\\\\.%a-z0-9?:@ \\t#]{0,40}") {
            let target = LocalPath::parse(&text);
            let base = http::Uri::from_static("http://admin.example.jp/");
            prop_assert!(target.as_str().starts_with('/') && !target.as_str().starts_with("//"));
            let joined: http::Uri = format!("http://admin.example.jp{}", target.as_str()).parse().unwrap();
            prop_assert_eq!(joined.host(), base.host());
        }
    }
}
