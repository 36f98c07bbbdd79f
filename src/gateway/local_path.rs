//! Where to go after signing in: a path on this host and nothing else, whatever the client wrote.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::links::{UrlTokens, take_token};

/// Longest target that is read, in bytes once it is escaped: what fits into the URL of any browser that is no handset's.
const LONGEST: usize = 2048;
/// What stands beside a target, the origin and what the carrier asks for in the longest link that has a target:
/// `/_sekisho/login?to=` (19), `&t=` and a form token (3 + 39), `&by=code` (8). A ticket's URL has 55 (`/_sekisho/ticket?k=`, 32,
/// `&to=`), one that binds 53, one that tells news 55, with a session in it; and with a session the target itself has 37.
const IN_A_LINK: usize = 69;
/// The same in a form that is sent by GET, of a browser that cannot post: `/_sekisho/pin?` (14), `_sk=` and a session (36),
/// `&t=` and a token (42), `&to=` (4), `&pin=` and eight digits (13). One that enrols has 81.
const IN_A_FORM: usize = 109;
/// URLs that every browser holds: those of `EZweb` handsets (`data/carriers.json`, limits).
const OF_ANY_BROWSER: usize = 256;

/// Pages of the gateway's own that are places to go to.
const OWN_TARGETS: [&str; 3] = ["/_sekisho/me", "/_sekisho/me/pin", "/_sekisho/notice"];

/// What is escaped in a query value: all but the unreserved set and `/` (RFC 3986 §3.4).
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A parameter that the carrier of a browser wants in every URL which it is to write the identifier into.
pub(super) type Asked<'c> = Option<(&'c str, &'c str)>;

/// How long a target of a request may be, so that every URL which carries it on fits the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    bytes: usize,
    sent_by: SentBy,
}

/// What escapes a target, or a carrier's parameter, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentBy {
    /// This gateway, in a link.
    Link,
    /// A browser, in a form that is sent by GET. It escapes `/` and `~` too (`application/x-www-form-urlencoded`, WHATWG URL
    /// §5.2).
    Form,
}

impl SentBy {
    /// What is added to the text of a link.
    fn adds(self, text: &str) -> usize {
        let escaped = |byte: &u8| matches!(byte, b'/' | b'~');
        match self {
            Self::Link => 0,
            Self::Form => 2 * text.bytes().filter(|byte| escaped(byte)).count(),
        }
    }

    /// What a carrier's parameter takes, with what joins it.
    fn asked(self, asked: Asked<'_>) -> usize {
        let takes = |text: &str| text.len() + 1 + self.adds(text);
        asked.map_or(0, |(name, value)| takes(name) + takes(value))
    }
}

impl Room {
    /// In URLs of `url_bytes` at most (`data/carriers.json`, limits) with an origin of `origin` bytes, for a browser that
    /// `posts` its forms or does not, and whose carrier wants what is `asked`.
    pub(super) fn of(url_bytes: usize, origin: usize, asked: Asked<'_>, posts: bool) -> Self {
        let (beside, sent_by) = if posts { (IN_A_LINK, SentBy::Link) } else { (IN_A_FORM, SentBy::Form) };
        Self { bytes: url_bytes.saturating_sub(origin + beside + sent_by.asked(asked)), sent_by }
    }

    /// For the target that a console's answer names, where nobody looks what the browser holds.
    pub(super) fn of_a_console(origin: usize, asked: Asked<'_>) -> Self {
        Self::of(OF_ANY_BROWSER, origin, asked, true)
    }

    fn holds(self, text: &str) -> bool {
        escaped_length(text) + self.sent_by.adds(text) <= self.bytes
    }
}

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
        let own = decoded.starts_with("/_sekisho") && !OWN_TARGETS.contains(&path);
        if visible && escaped_length(text) <= LONGEST && !own && [path, &decoded, &twice].into_iter().all(local) {
            Self(without_token(text).into())
        } else {
            Self::root()
        }
    }

    /// The target of a request that was refused: where its person wanted to go, as far as there is `room`. Gateway keys are
    /// dropped from it.
    #[must_use]
    pub(super) fn of_request(path: &str, query: Option<&str>, room: Room) -> Self {
        let kept: Vec<&str> = query.unwrap_or_default().split('&').filter(|pair| !is_gateway_key(pair)).collect();
        let query = kept.join("&");
        let with_query = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let parse = |target: &str| if room.holds(target) { Self::parse(target) } else { Self::root() };
        match parse(&with_query) {
            // A query too long for the handset is given up before the path is.
            Self(target) if &*target == "/" => parse(path),
            parsed => parsed,
        }
    }

    /// Itself if there is `room`, else the root.
    #[must_use]
    pub(super) fn within(self, room: Room) -> Self {
        if room.holds(&self.0) { self } else { Self::root() }
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

    use super::super::form_token::{Form, FormTokens};
    use super::*;
    use crate::clock::Timestamp;
    use crate::entropy::SystemEntropy;

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
        let long = format!("/{}", "a".repeat(LONGEST));
        let escaped = format!("/{}", "%41".repeat(LONGEST / 4));
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
            "/_sekisho/m%65",
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
        let wide = Room::of(2048, 24, GUID, true);
        for (path, query, target) in [
            ("/a", Some("_sk=secret&x=1&guid=ON"), "/a?x=1"),
            ("/a", Some("%5Fsk=secret"), "/a"),
            ("/a", None, "/a"),
            ("/a", Some(""), "/a"),
            ("*", None, "/"),
        ] {
            assert_eq!(LocalPath::of_request(path, query, wide).as_str(), target);
        }
        for (named, target) in
            [("/a?_sk=x", "/a"), ("/a?b&%5fSK=x&c", "/a?b&c"), ("/a?_sk", "/a"), ("/a?sk=x", "/a?sk=x")]
        {
            assert_eq!(LocalPath::parse(named).as_str(), target);
        }
        let (long, longer) = ("q".repeat(500), "q".repeat(LONGEST));
        assert_eq!(LocalPath::of_request("/a", Some(&long), wide).as_str(), format!("/a?{long}"));
        assert_eq!(LocalPath::of_request("/a", Some(&longer), wide).as_str(), "/a", "the query goes first");
    }

    const GUID: Asked<'_> = Some(("guid", "ON"));

    /// Every URL that carries a target, at its longest, for the browsers of `data/carriers.json` and any other.
    #[test]
    fn the_longest_target_fits_every_url_that_carries_it_and_no_longer_one() {
        let origin = "https://admin.example.jp";
        let entropy = SystemEntropy::default();
        let form_token = FormTokens::new(&entropy).issue(Form::Login, b"", &entropy, Timestamp::from_unix_millis(0));
        let secret = "s".repeat(32);
        // What a form's field takes (WHATWG URL §5.2).
        let form = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        for (url_bytes, posts, asked, most) in [
            (256, true, GUID, 155),
            (256, true, None, 163),
            (512, true, GUID, 411),
            (512, true, Some(("~carrier", "~own~parameter~")), 394),
            (512, false, GUID, 371),
            (512, false, None, 379),
            (512, false, Some(("~carrier", "~own~parameter~")), 346),
            (2048, true, GUID, 1947),
        ] {
            let room = Room::of(url_bytes, origin.len(), asked, posts);
            // Nothing of it needs escaping in a link but a comma; in a form the slashes and tildes do, of which there are five.
            let longest = "/ab/cd/~,~".to_owned() + &"e".repeat(most - 12 - if posts { 0 } else { 10 });
            let to = LocalPath::of_request(&longest, None, room);
            assert_eq!(to.as_str(), longest);
            assert_eq!(LocalPath::of_request(&format!("{longest}e"), None, room), LocalPath::root());
            let (value, in_form) = (to.as_query_value(), form(to.as_str()));
            let link = asked.map_or_else(String::new, |(name, value)| format!("&{name}={value}"));
            let field = asked.map_or_else(String::new, |(name, value)| format!("&{}={}", form(name), form(value)));
            let mut urls = vec![
                format!("{origin}/_sekisho/login?to={value}&t={form_token}{link}&by=code"),
                format!("{origin}/_sekisho/ticket?k={secret}&to={value}"),
                format!("{origin}/_sekisho/bind?k={secret}&to={value}{link}"),
                format!("{origin}/_sekisho/news?to={value}&_sk={secret}{link}"),
                format!("{origin}{}?_sk={secret}{link}", to.as_str()),
            ];
            if !posts {
                urls.extend([
                    format!("{origin}/_sekisho/enrol?t={form_token}{field}&to={in_form}&code=1234-5678-9012"),
                    format!("{origin}/_sekisho/unlock?t={form_token}{field}&to={in_form}&pin=12345678"),
                    format!("{origin}/_sekisho/pin?_sk={secret}&t={form_token}{field}&to={in_form}&pin=12345678"),
                ]);
            }
            let lengths: Vec<_> = urls.iter().map(String::len).collect();
            assert_eq!(lengths.iter().max(), Some(&url_bytes), "{lengths:?}");
        }
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
