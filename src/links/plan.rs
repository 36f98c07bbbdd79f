//! What the links of one answer get, and which of them.

use std::borrow::Cow;
use std::sync::Arc;

use encoding_rs::Encoding;
use url::Url;
use zeroize::Zeroizing;

use super::leave::{LEAVE_PATH, LeaveLinks};
use super::query::{TOKEN_KEY, has_key, take_token};
use super::sites::{OwnSites, Whose};
use crate::clock::Timestamp;
use crate::session::SessionToken;

/// What the links of one answer get.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`; it holds the token.
pub struct LinkPlan {
    token: Zeroizing<String>,
    carrier_query: Option<(String, String)>,
    /// What is put into a query, with `&` and with `&amp;`.
    added: [Zeroizing<String>; 2],
    page: String,
    fields_alone: bool,
    sites: Arc<OwnSites>,
    leave: Arc<LeaveLinks>,
    now: Timestamp,
}

/// Where a link leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To a page of ours: it gets the token.
    Ours,
    /// To another site: it passes the leave page.
    Off(Url),
    /// To nothing that a token or a warning belongs to, or nowhere that all browsers agree on.
    Neither,
}

impl LinkPlan {
    /// `page` is path and query of the request that is answered, without the token: relative links start there.
    /// `carrier_query` is what the profile must be asked with to show the identifier again, `guid` and `ON`.
    #[must_use]
    pub fn new(
        token: &SessionToken,
        carrier_query: Option<(&str, &str)>,
        page: &str,
        sites: Arc<OwnSites>,
        leave: Arc<LeaveLinks>,
        now: Timestamp,
    ) -> Self {
        let added = ["&", "&amp;"].map(|ampersand| {
            let token = token.expose();
            Zeroizing::new(match carrier_query {
                Some((key, value)) => format!("{key}={value}{ampersand}{TOKEN_KEY}={token}"),
                None => format!("{TOKEN_KEY}={token}"),
            })
        });
        Self {
            token: Zeroizing::new(token.expose().to_owned()),
            carrier_query: carrier_query.map(|(key, value)| (key.to_owned(), value.to_owned())),
            added,
            page: page.to_owned(),
            fields_alone: false,
            sites,
            leave,
            now,
        }
    }

    /// For a browser that drops the query of every form's URL: forms that post have the token in a field too.
    #[must_use]
    pub const fn in_fields_alone(mut self, fields_alone: bool) -> Self {
        self.fields_alone = fields_alone;
        self
    }

    /// Whether no form's URL has a query.
    pub(super) const fn has_fields_alone(&self) -> bool {
        self.fields_alone
    }

    /// A path on this site, with query and fragment or without, with the token (instead of one that is there) and the
    /// carrier's query: for our own pages and redirects. The caller vouches that it is a path.
    #[must_use]
    pub fn local(&self, target: &str) -> String {
        let (rest, fragment) = target.find('#').map_or((target, ""), |at| target.split_at(at));
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let kept = take_token(query).0.map(|query| {
            let kept: Vec<&str> = query.split('&').filter(|pair| !self.replaces(pair)).collect();
            (!kept.is_empty()).then(|| kept.join("&"))
        });
        let added = self.added("&");
        match kept.flatten() {
            None => format!("{path}?{added}{fragment}"),
            Some(kept) => format!("{path}?{added}&{kept}{fragment}"),
        }
    }

    /// Path and query of the page that is answered.
    pub(super) fn page(&self) -> &str {
        &self.page
    }

    /// The page's own URL, which relative links start from; `None` where it is none.
    pub(super) fn page_url(&self) -> Option<Url> {
        self.sites.page(&self.page)
    }

    /// What is put into a query, `ampersand` as the place writes it.
    pub(super) fn added(&self, ampersand: &str) -> &str {
        let [in_a_field, in_markup] = &self.added;
        if ampersand == "&" { in_a_field } else { in_markup }
    }

    /// The same as fields of a form: the token first, where it is looked for if the form is posted.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let carrier = self.carrier_query.as_ref().map(|(key, value)| (key.as_str(), value.as_str()));
        [(TOKEN_KEY, self.token.as_str())].into_iter().chain(carrier)
    }

    /// Whether a browser must ask for the identifier to be shown; none of those knows a button's own method.
    pub(super) const fn asks(&self) -> bool {
        self.carrier_query.is_some()
    }

    /// Whether the pair of a query, or the name of a field, is one that [`Self::added`] replaces.
    pub(super) fn replaces(&self, pair: &str) -> bool {
        self.fields().any(|(key, _)| has_key(pair, key))
    }

    /// Where `written`, as the browser decodes it, leads from `base`; `None` as base: from nowhere of ours. A query that
    /// is not ASCII is sent in `encoding`, the page's.
    ///
    /// The WHATWG URL standard decides whose it is. For a token that is not enough: browsers older than the standard
    /// read `\`, control characters and `http:name` otherwise, so such a link of ours gets none.
    pub(super) fn way(&self, base: Option<&Url>, written: &str, encoding: &'static Encoding) -> Way {
        let trimmed = written.trim_matches(|c: char| c <= ' ');
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return Way::Neither;
        }
        // What most links of a console are: nothing is left to be found out.
        if is_certain(trimmed) && base.is_some_and(|base| self.sites.whose(base) == Whose::Ours) {
            return Way::Ours;
        }
        self.judged(base, trimmed, encoding)
    }

    fn judged(&self, base: Option<&Url>, trimmed: &str, encoding: &'static Encoding) -> Way {
        let Ok(url) = Url::options()
            .base_url(base)
            .encoding_override(Some(&|query| encoding.encode(query).0))
            .parse(&with_two_slashes(trimmed))
        else {
            return Way::Neither;
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Way::Neither;
        }
        match self.sites.whose(&url) {
            Whose::Ours if is_plain(trimmed, &url) && url.path() != LEAVE_PATH => Way::Ours,
            Whose::Ours | Whose::OursInTheClear => Way::Neither,
            Whose::Others => Way::Off(url),
        }
    }

    /// Whether it is the leave page, which a form may be sent to although its links get no token.
    pub(super) fn is_leave_page(&self, url: &Url) -> bool {
        url.path() == LEAVE_PATH && self.sites.whose(url) == Whose::Ours
    }

    /// The leave page's URL for `target`: absolute where the page has a base of its own.
    pub(super) fn leave(&self, target: &Url, absolute: bool) -> String {
        let local = self.leave.issue(target.as_str(), self.now);
        if absolute { format!("{}{local}", self.sites.origin()) } else { local }
    }
}

/// Whether it is a path from the root to everybody, and none of the gateway's: nothing in it resolves, is escaped or is
/// dropped.
fn is_certain(trimmed: &str) -> bool {
    let path_end = trimmed.find(['?', '#']).unwrap_or(trimmed.len());
    let (path, rest) = trimmed.split_at(path_end);
    let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_');
    match path.as_bytes() {
        [b'/', first, others @ ..] => {
            first.is_ascii_alphanumeric()
                && others.iter().all(|b| in_path(*b))
                && rest.bytes().all(|b| b.is_ascii_graphic())
        }
        _ => false,
    }
}

/// The same with two slashes where more of them stand before a host: the standard passes over all of them (WHATWG URL, special
/// authority ignore slashes state), the library only where a scheme is written.
fn with_two_slashes(trimmed: &str) -> Cow<'_, str> {
    let rest = trimmed.trim_start_matches(['/', '\\', '\t', '\n', '\r']);
    let slashes = trimmed.bytes().take(trimmed.len() - rest.len()).filter(|b| matches!(b, b'/' | b'\\')).count();
    if slashes > 2 { Cow::Owned(format!("//{rest}")) } else { Cow::Borrowed(trimmed) }
}

/// Whether every browser, old or new, takes `written` for what it resolved to, `url`.
fn is_plain(written: &str, url: &Url) -> bool {
    let before_query = written.split(['?', '#']).next().unwrap_or(written);
    if before_query.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return false;
    }
    // Browsers drop these wherever they stand.
    let written: String = written.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    let authority = match scheme(&written) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(url.scheme()) => match rest.strip_prefix("//") {
            Some(authority) => authority,
            None => return false,
        },
        Some(_) => return false,
        None => match written.strip_prefix("//") {
            Some(authority) => authority,
            // A path: `\evil` and `/\evil` are hosts to some.
            None => return !(written.starts_with('\\') || written.starts_with("/\\")),
        },
    };
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    let host = url.host_str().unwrap_or_default();
    let without_default = authority.strip_suffix(if url.scheme() == "https" { ":443" } else { ":80" });
    match port {
        Some(port) => authority.eq_ignore_ascii_case(&format!("{host}{port}")),
        None => without_default.unwrap_or(authority).eq_ignore_ascii_case(host),
    }
}

/// Scheme and what follows its colon (RFC 3986 §3.1).
pub(super) fn scheme(written: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = written.split_once(':')?;
    let mut characters = scheme.chars();
    let letters = characters.next()?.is_ascii_alphabetic()
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    letters.then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::links::testing::{TOKEN, plan};

    assert_not_impl_any!(LinkPlan: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    fn way(written: &str) -> Way {
        let plan = plan(None);
        let base = plan.page_url();
        plan.way(base.as_ref(), written, encoding_rs::UTF_8)
    }

    #[test]
    fn links_of_ours() {
        for written in [
            "/",
            "/a?b#c",
            "a",
            "../a",
            "?q",
            "./a:b",
            " /a ",
            "//admin.example.jp/a",
            "http://admin.example.jp",
            "HTTP://ADMIN.EXAMPLE.JP/a",
            "http://admin.example.jp:80/",
            "http://admin.example.jp?x",
            "/a\\b",
            "/a//evil.example",
            "/あ",
            "a?u=http://evil.example/",
            "/_sekisho/me",
        ] {
            assert_eq!(way(written), Way::Ours, "{written:?}");
        }
    }

    #[test]
    fn links_of_others() {
        for written in [
            "http://evil.example/",
            "//evil.example",
            "///evil.example/f",
            "////evil.example",
            "//\t/evil.example",
            "/\\/evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "\n//evil.example",
            "http:\\\\evil.example",
            "https:evil.example",
            "https:/\\evil.example",
            "http:/\\/evil.example",
            "http://admin.example.jp@evil.example/",
            "http://admin.example.jp:80@evil.example/",
            "http://admin.example.jp.evil.example/",
            "http://admin.example.jp:8080/",
            "https://admin.example.jp/",
            "http://admin.example.jp%2eevil.example/",
            "http://ａｄｍｉｎ.evil.example/",
            "http://evil.example\\@admin.example.jp/",
            "http://evil.example#@admin.example.jp/",
            "http://evil.example?@admin.example.jp/",
        ] {
            assert!(matches!(way(written), Way::Off(_)), "{written:?} {:?}", way(written));
        }
    }

    #[test]
    fn neither_token_nor_warning() {
        for written in [
            "",
            "  ",
            "#top",
            " #top",
            "mailto:root@admin.example.jp",
            "tel:0312345678",
            "javascript:alert(1)",
            "java\tscript:alert(1)",
            "JAVASCRIPT://admin.example.jp/%0aalert(1)",
            "data:text/html,x",
            "device:data/x",
            "ftp://admin.example.jp/",
            "evil:80/x",
            // Ours to the standard, perhaps not to older readers.
            "http:evil.example",
            "http:/evil.example",
            "http:///admin.example.jp/",
            "http:\\\\admin.example.jp/",
            "http://admin.example.jp\\@evil.example/",
            "http://evil.example@admin.example.jp/",
            "http://%61dmin.example.jp/",
            "http://ａｄｍｉｎ.example.jp/",
            "/\\admin.example.jp/",
            "///admin.example.jp/",
            "///",
            "\\a",
            "/\u{0}/evil.example",
            "/\u{b}/evil.example",
            "http://[/",
            "http://admin.example.jp:99999/",
            // No token on the page that exists to have none.
            "/_sekisho/leave?s=x&u=http://evil.example/",
            "http://admin.example.jp/_sekisho/leave",
        ] {
            let ours = way(written) == Way::Ours;
            assert!(!ours, "{written:?}");
            assert_eq!(way(written), Way::Neither, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_certain_is_what_would_be_found_out(written in "[/a-c._%?#:@\\\\;&=-]{0,12}") {
            let plan = plan(None);
            let base = plan.page_url();
            let judged = plan.judged(base.as_ref(), &written, encoding_rs::UTF_8);
            prop_assert!(!is_certain(&written) || judged == Way::Ours, "{} {:?}", written, judged);
            let elsewhere = Url::parse("http://evil.example/").unwrap();
            prop_assert_ne!(plan.way(Some(&elsewhere), &written, encoding_rs::UTF_8), Way::Ours);
        }
    }

    #[test]
    fn a_local_path_gets_the_token_once() {
        let (bare, docomo) = (plan(None), plan(Some(("guid", "ON"))));
        for (target, without, with) in [
            ("/", "/?_sk=T", "/?guid=ON&_sk=T"),
            ("/a?b=1#c", "/a?_sk=T&b=1#c", "/a?guid=ON&_sk=T&b=1#c"),
            ("/a?_sk=old", "/a?_sk=T", "/a?guid=ON&_sk=T"),
            ("/a?b&%5fsk=old&c", "/a?_sk=T&b&c", "/a?guid=ON&_sk=T&b&c"),
            ("/a?guid=on&b", "/a?_sk=T&guid=on&b", "/a?guid=ON&_sk=T&b"),
        ] {
            assert_eq!(bare.local(target).replace(TOKEN, "T"), without);
            assert_eq!(docomo.local(target).replace(TOKEN, "T"), with);
            assert_eq!(docomo.local(&docomo.local(target)), docomo.local(target));
        }
    }
}
