//! `ReaderHints` + `UserAgent` -> `Reader`: what the reader's browser can show.
//!
//! Chooses how an answer looks, never what it says: nothing here may decide about access.
//! `Accept-Charset` is ignored: handsets sent it wrongly, and browsers stopped sending it (RFC 9110 §12.5.2).

use http::header::{ACCEPT, ACCEPT_LANGUAGE, USER_AGENT};
use http::{HeaderMap, HeaderValue};

use crate::carrier::{Charset, Markup, UserAgent};
use crate::edge::{Present, RawHead};

/// A language that the catalogue has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `ja`
    Japanese,
    /// `en`
    English,
}

impl Language {
    /// The language tag (RFC 5646).
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Japanese => "ja",
            Self::English => "en",
        }
    }
}

/// What the reader's browser can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Of the words.
    pub language: Language,
    /// Of the page; JSON is always UTF-8 (RFC 8259 §8.1).
    pub charset: Charset,
    /// Of the page.
    pub markup: Markup,
    /// Whether the browser can send a form by POST; where it cannot, the same forms are sent by GET.
    pub posts: bool,
    /// A program that asked for `application/json`.
    pub json: bool,
}

/// The fields of a head that say what its browser can show: kept, for a page
/// that may be needed after the head has ended.
#[derive(Clone, Debug, Default)]
pub struct ReaderHints {
    accept: Vec<HeaderValue>,
    accept_language: Vec<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

impl ReaderHints {
    /// What `head` says. A repeated User-Agent says nothing.
    #[must_use]
    pub fn of(head: &RawHead) -> Self {
        let there = head.present();
        let all = |name| if there.any(Present::ACCEPT) { head.all(name).cloned().collect() } else { Vec::new() };
        Self {
            accept: all(&ACCEPT),
            accept_language: all(&ACCEPT_LANGUAGE),
            user_agent: if there.any(Present::USER_AGENT) { head.single(&USER_AGENT).cloned() } else { None },
        }
    }

    /// What the fields of a head say that was refused before it could be read.
    #[must_use]
    pub fn of_refused(fields: &HeaderMap) -> Self {
        let all = |name| fields.get_all(name).iter().cloned().collect();
        let mut user_agents = fields.get_all(USER_AGENT).iter();
        let user_agent = user_agents.next().filter(|_| user_agents.next().is_none()).cloned();
        Self { accept: all(ACCEPT), accept_language: all(ACCEPT_LANGUAGE), user_agent }
    }

    /// The User-Agent as sent; empty if there is none.
    #[must_use]
    pub fn user_agent(&self) -> &str {
        self.user_agent.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A reader of whom nothing is known.
impl Default for Reader {
    fn default() -> Self {
        Self { language: Language::English, charset: Charset::Utf8, markup: Markup::Html, posts: true, json: false }
    }
}

impl Reader {
    /// Reads `Accept-Language` and `Accept`; all else follows the browser's generation.
    ///
    /// Where the reader prefers neither Japanese nor English, it is Japanese inside a Japanese carrier's
    /// network (`japanese_network`) and for a Japanese carrier's handset, else English.
    #[must_use]
    pub fn of(hints: &ReaderHints, japanese_network: bool, user_agent: &UserAgent) -> Self {
        let japanese = quality(&hints.accept_language, |range| speaks(range, "ja"));
        let english = quality(&hints.accept_language, |range| speaks(range, "en"));
        let by_default = japanese_network || user_agent.carrier.is_some();
        let language = if japanese > english || (japanese == english && by_default) {
            Language::Japanese
        } else {
            Language::English
        };
        let json = quality(&hints.accept, |range| range.eq_ignore_ascii_case("application/json"));
        let html = quality(&hints.accept, |range| {
            range.eq_ignore_ascii_case("text/html") || range.eq_ignore_ascii_case("application/xhtml+xml")
        });
        Self {
            language,
            charset: user_agent.charset(),
            markup: user_agent.markup(),
            posts: user_agent.posts(),
            json: json.0 > 0 && json.0 >= html.0,
        }
    }
}

/// Whether a language range is `language` or begins with it (RFC 4647 §3.3.1, from the other side: the
/// catalogue knows no regions, so `ja-JP` is served by `ja`).
fn speaks(range: &str, language: &str) -> bool {
    let primary = range.split('-').next().unwrap_or(range);
    primary.eq_ignore_ascii_case(language)
}

/// How much the reader wants what `wanted` matches: quality in thousandths, then how early it was named,
/// so that of two equal ones the first wins. `(0, 0)`: not at all. A malformed item counts as not written.
fn quality(field: &[HeaderValue], wanted: impl Fn(&str) -> bool) -> (u16, usize) {
    field
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .zip((1..=usize::from(u16::MAX)).rev())
        .filter_map(|(item, earliness)| {
            let mut parts = item.split(';').map(str::trim);
            let range = parts.next()?;
            let weight = parts.find_map(|parameter| parameter.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('='));
            let thousandths = weight.map_or(Some(1000), |text| thousandths(text.trim()))?;
            (thousandths > 0 && wanted(range)).then_some((thousandths, earliness))
        })
        .max()
        .unwrap_or((0, 0))
}

/// A quality value (RFC 9110 §12.4.2): `0` to `1` with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = format!("{whole}{decimals:0<3}").parse().ok()?;
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::carrier::UserAgentKind;
    use crate::edge::HeadLimits;

    fn head(fields: &[(&str, &str)]) -> ReaderHints {
        let mut request = Request::builder().uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let limits = HeadLimits { head_bytes: 8192, headers: 20, url_bytes: 100 };
        ReaderHints::of(&RawHead::read(request.body(()).unwrap().into_parts().0, &limits).unwrap())
    }

    fn browser(
        kind: UserAgentKind,
        carrier: Option<&'static str>,
        generation: Option<&'static str>,
        browser: Option<&'static str>,
    ) -> UserAgent {
        UserAgent { carrier, kind, model: None, generation, browser, cookies: None, redacted: String::new() }
    }

    fn pc() -> UserAgent {
        browser(UserAgentKind::Other, None, None, None)
    }

    #[test]
    fn the_language_is_the_wanted_one_else_that_of_the_network_or_handset() {
        let language =
            |accept: &str, network| Reader::of(&head(&[("accept-language", accept)]), network, &pc()).language;
        for (accept, network, expected) in [
            ("ja", false, Language::Japanese),
            ("JA-jp", false, Language::Japanese),
            ("en", true, Language::English),
            ("en-GB,en;q=0.8,ja;q=0.5", true, Language::English),
            ("en;q=0.5, ja;q=0.9", false, Language::Japanese),
            ("en;q=0.5,ja;q=0.50", false, Language::English),
            ("fr, ja;q=0.1", false, Language::Japanese),
            ("ja;q=0, en;q=0.001", true, Language::English),
            // Malformed items are as good as not written.
            ("ja;q=2, en;q=0.1", true, Language::English),
            ("ja;q=0.1234, en;q=0.1", true, Language::English),
            ("ja;q=, en;q=1.001", false, Language::English),
            ("jam, \"ja", false, Language::English),
            (",;;=,", true, Language::Japanese),
            // Neither of ours: the default.
            ("fr", true, Language::Japanese),
            ("fr, *", false, Language::English),
        ] {
            assert_eq!(language(accept, network), expected, "{accept}, network {network}");
        }
        let none = head(&[]);
        assert_eq!(Reader::of(&none, false, &pc()).language, Language::English);
        assert_eq!(Reader::of(&none, true, &pc()).language, Language::Japanese);
        let handset = browser(UserAgentKind::Handset, Some("au"), Some("wap2"), None);
        assert_eq!(Reader::of(&none, false, &handset).language, Language::Japanese);
        let two_fields = head(&[("accept-language", "fr"), ("accept-language", "ja")]);
        assert_eq!(Reader::of(&two_fields, false, &pc()).language, Language::Japanese);
    }

    #[test]
    fn the_charset_is_what_the_browser_generation_reads() {
        use UserAgentKind::{FullBrowser, Handset, Smartphone};
        for (kind, carrier, generation, version, expected) in [
            (Handset, Some("docomo"), Some("mova"), Some("1.0"), Charset::ShiftJis),
            (Handset, Some("docomo"), Some("foma"), Some("1.0"), Charset::ShiftJis),
            (Handset, Some("docomo"), Some("foma"), None, Charset::ShiftJis),
            (Handset, Some("docomo"), Some("foma"), Some("2.0"), Charset::Utf8),
            (FullBrowser, Some("docomo"), None, None, Charset::Utf8),
            (Handset, Some("au"), Some("wap1"), None, Charset::ShiftJis),
            (Handset, Some("au"), Some("wap2"), None, Charset::ShiftJis),
            (FullBrowser, Some("au"), None, None, Charset::Utf8),
            (Handset, Some("softbank"), Some("pdc-c"), None, Charset::ShiftJis),
            (Handset, Some("softbank"), Some("pdc-w"), None, Charset::ShiftJis),
            (Handset, Some("softbank"), Some("3gc"), None, Charset::Utf8),
            (Handset, Some("willcom"), None, None, Charset::ShiftJis),
            (Smartphone, None, None, None, Charset::Utf8),
        ] {
            let user_agent = browser(kind, carrier, generation, version);
            let accepts_only_latin = head(&[("accept-charset", "iso-8859-1")]);
            assert_eq!(Reader::of(&accepts_only_latin, true, &user_agent).charset, expected, "{user_agent:?}");
        }
    }

    #[test]
    fn json_is_for_programs_that_ask_for_it() {
        for (accept, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json, text/plain, */*", true),
            ("application/json;q=0.5", true),
            ("application/json;q=0", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("text/html, application/json;q=0.9", false),
            ("text/html;q=0.5, application/json", true),
            ("*/*", false),
            ("application/jsonp", false),
        ] {
            assert_eq!(Reader::of(&head(&[("accept", accept)]), false, &pc()).json, expected, "{accept}");
        }
        assert!(!Reader::of(&head(&[]), false, &pc()).json);
    }
}
