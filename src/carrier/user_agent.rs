//! What a User-Agent string says of itself: a claim, never a proof.
//!
//! The carriers' forms are data (`builtin.toml`). Serials are cut out before anything else is read, so no later step
//! can hand one on.

mod classes;
mod serials;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::builtin::{BrowserRow, BuiltinProfile, PROFILES};
use super::profile::{Charset, Markup, lookup};

pub(super) use serials::without_serials;

/// i-mode caches of this many kilobytes and more belong to browser 2.0 (2009 and later).
const BROWSER_2_CACHE: u32 = 500;

/// Bytes of a URL that a handset's browser can hold of which nothing is known: as many as the least of those that are known.
const SHORTEST_URL: usize = 256;
/// The same of any other browser. The shortest of them is Internet Explorer's, 2,083.
const USUAL_URL: usize = 2048;

/// What a User-Agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAgent {
    /// The carrier whose handset it names, e.g. `docomo`.
    pub carrier: Option<&'static str>,
    /// What kind of client it names.
    pub kind: UserAgentKind,
    /// Model name, or au device id.
    pub model: Option<String>,
    /// docomo: mova, foma. au: wap1, wap2. SoftBank: pdc-c, pdc-p, pdc-w, 3gc.
    pub generation: Option<&'static str>,
    /// i-mode browser: 1.0 or 2.0.
    pub browser: Option<&'static str>,
    /// Whether that browser keeps cookies over plain HTTP, where it is known of a handset.
    pub cookies: Option<bool>,
    /// The string without serials and their separators.
    pub redacted: String,
}

/// The kinds of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserAgentKind {
    /// A carrier's own mobile browser or application: the only kind that may sign in with a carrier identifier.
    Handset,
    /// The PC-site browser of a carrier's handset.
    FullBrowser,
    /// A search robot, feed reader's server, relay or transcoder, even behind a handset's string.
    Crawler,
    /// A development simulator.
    Emulator,
    /// A smartphone.
    Smartphone,
    /// PC, console, tool or unknown.
    Other,
}

impl UserAgent {
    /// Reads the string; every string has an answer.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let redacted = match without_serials(text.as_bytes()) {
            None => text.to_owned(),
            Some(rest) => String::from_utf8_lossy(&rest).into_owned(),
        };
        match FORMS.iter().find_map(|form| form.read(&redacted)) {
            Some(found) => Self { redacted, ..found },
            None => Self {
                carrier: None,
                kind: classes::kind_of(&redacted).unwrap_or(UserAgentKind::Other),
                model: None,
                generation: None,
                browser: None,
                cookies: None,
                redacted,
            },
        }
    }

    /// Whether it names this carrier's own mobile browser.
    #[must_use]
    pub fn is_handset_of(&self, carrier: &str) -> bool {
        self.kind == UserAgentKind::Handset && self.carrier == Some(carrier)
    }

    /// The encoding that its browser reads: a carrier's own browser may be older than UTF-8.
    #[must_use]
    pub fn charset(&self) -> Charset {
        self.own(|profile| &profile.charset).unwrap_or(Charset::Utf8)
    }

    /// The markup that its browser reads: a carrier's own browser may be older than HTML as it is now.
    #[must_use]
    pub fn markup(&self) -> Markup {
        self.own(|profile| &profile.markup).unwrap_or(Markup::Html)
    }

    /// Whether its browser can send a form by POST. `false`: some of its generation cannot.
    #[must_use]
    pub fn posts(&self) -> bool {
        self.own(|profile| &profile.posts).unwrap_or(true)
    }

    /// Whether its browser keeps the query of a link's URL, without which nobody can be signed in.
    #[must_use]
    pub fn keeps_queries(&self) -> bool {
        self.own(|profile| &profile.queries).unwrap_or(true)
    }

    /// Whether its browser keeps the query of a form's URL; where it does not, only the form's fields arrive.
    #[must_use]
    pub fn keeps_form_queries(&self) -> bool {
        self.own(|profile| &profile.form_queries).unwrap_or(true)
    }

    /// The longest URL that its browser can hold, in bytes.
    #[must_use]
    pub fn url_bytes(&self) -> usize {
        let unknown = match self.kind {
            UserAgentKind::Handset | UserAgentKind::FullBrowser => SHORTEST_URL,
            UserAgentKind::Crawler | UserAgentKind::Emulator | UserAgentKind::Smartphone | UserAgentKind::Other => {
                USUAL_URL
            }
        };
        self.own(|profile| &profile.url_bytes).unwrap_or(unknown)
    }

    /// Whether its browser may speak TLS 1.2 (RFC 5246). `false`: none of its generation can.
    #[must_use]
    pub fn speaks_tls12(&self) -> bool {
        self.own(|profile| &profile.tls12).unwrap_or(true)
    }

    /// What is known of a carrier's own browser; nothing of any other.
    fn own<V: Copy + 'static>(
        &self,
        facts: impl Fn(&'static BuiltinProfile) -> &'static BTreeMap<String, V>,
    ) -> Option<V> {
        let own = self.carrier.filter(|carrier| self.is_handset_of(carrier)).and_then(|carrier| PROFILES.get(carrier));
        lookup(facts(own?), self.browser, self.generation)
    }
}

static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let rows = PROFILES.iter().flat_map(|(name, profile)| profile.browser.iter().map(move |row| (name, profile, row)));
    rows.map(|(carrier, profile, row)| Form::new(carrier, profile, row)).collect()
});

/// One form of a carrier's strings.
struct Form {
    carrier: &'static str,
    profile: &'static BuiltinProfile,
    row: &'static BrowserRow,
    regex: Regex,
}

impl Form {
    fn new(carrier: &'static str, profile: &'static BuiltinProfile, row: &'static BrowserRow) -> Self {
        let regex = RegexBuilder::new(&row.pattern).unicode(false).build().expect("builtin.toml has valid patterns");
        Self { carrier, profile, row, regex }
    }

    /// What a string of this form says; all but `redacted`.
    fn read(&self, redacted: &str) -> Option<UserAgent> {
        let groups = self.regex.captures(redacted.as_bytes())?;
        let text = |name| groups.name(name).map(|group| String::from_utf8_lossy(group.as_bytes()).into_owned());
        let appended = groups.get(0).and_then(|all| redacted.as_bytes().get(all.end()..)).unwrap_or_default();
        let relayed = matches!(self.row.kind, UserAgentKind::Handset | UserAgentKind::Other)
            && appended.trim_ascii_start().starts_with(b"(");
        let kind = match classes::kind_of(redacted) {
            Some(kind @ (UserAgentKind::Crawler | UserAgentKind::Emulator)) => kind,
            _ if relayed => UserAgentKind::Crawler,
            _ => self.row.kind,
        };
        let by_cache = |kilobytes: u32| if kilobytes >= BROWSER_2_CACHE { "2.0" } else { "1.0" };
        let cache = text("cache").and_then(|digits| digits.parse().ok());
        let browser = self.row.version.as_deref().or_else(|| cache.map(by_cache));
        let generation = self.row.generation.as_deref();
        let cookies = lookup(&self.profile.cookies, browser, generation);
        Some(UserAgent {
            carrier: Some(self.carrier),
            kind,
            model: text("model"),
            generation,
            browser,
            cookies: cookies.filter(|_| kind == UserAgentKind::Handset),
            redacted: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> (Option<&'static str>, UserAgentKind) {
        let agent = UserAgent::parse(text);
        (agent.carrier, agent.kind)
    }

    #[test]
    fn a_comment_behind_a_handset_string_is_a_relay() {
        for (text, carrier) in [
            ("DoCoMo/2.0 P903i(c100;TB;W24H12) (Unheard/1.0)", "docomo"),
            ("DoCoMo/1.0/P503i/c10(unheard)", "docomo"),
            ("KDDI-SA3A UP.Browser/6.2.0.13.1.4 (GUI) MMP/2.0 (unheard)", "au"),
            ("KDDI-SA3A UP.Browser/6.2.0.13.1.4 (unheard)", "au"),
            ("SoftBank/1.0/815SH/SHJ002 Browser/NetFront/3.4 (unheard)", "softbank"),
            ("emobile/1.0.0 (H11T; like Gecko; Wireless) NetFront/3.4; mail@robot.example", "emobile"),
        ] {
            assert_eq!(kind(text), (Some(carrier), UserAgentKind::Crawler), "{text}");
        }
    }

    #[test]
    fn forms_hold_from_the_first_byte() {
        for text in ["Mozilla/5.0 DoCoMo/2.0 P903i(c100;TB;W24H12)", " KDDI-SA3A UP.Browser/6.2 (GUI) MMP/2.0", ""] {
            assert_eq!(kind(text), (None, UserAgentKind::Other), "{text}");
        }
        assert_eq!(kind("KDDI-SA3A UP.Browser/6.2.0.13.1.4"), (Some("au"), UserAgentKind::Other));
    }

    #[test]
    fn what_a_carriers_own_browser_reads_and_sends_is_known_by_its_generation() {
        for (text, markup, posts, keeps_queries) in [
            ("DoCoMo/1.0/D501i", Markup::Chtml, false, true),
            ("DoCoMo/1.0/P503i/c10", Markup::Chtml, false, true),
            ("DoCoMo/2.0 P903i(c100;TB;W24H12)", Markup::Chtml, true, true),
            ("DoCoMo/2.0 P07A3(c500;TB;W24H15)", Markup::XhtmlMobile, true, true),
            ("KDDI-SA3A UP.Browser/6.2.0.13.1.4 (GUI) MMP/2.0", Markup::XhtmlMobile, true, true),
            ("UP.Browser/3.01-HI01 UP.Link/3.4.5.2", Markup::Chtml, true, true),
            ("SoftBank/1.0/930SH/SHJ001 Browser/NetFront/3.4", Markup::XhtmlMobile, true, true),
            ("J-PHONE/2.0/J-SA02", Markup::Chtml, false, false),
            ("J-PHONE/4.0/J-K51 KW/1.00", Markup::Chtml, true, true),
            ("J-PHONE/5.0/V801SA", Markup::XhtmlMobile, true, true),
            ("Mozilla/3.0(DDIPOCKET;JRC/AH-J3001V,AH-J3002V/1.0/0100/c50)CNF/2.0", Markup::Chtml, true, true),
            ("Mozilla/4.08 (D903i;FOMA;c300;TB)", Markup::Html, true, true),
            // A robot behind a handset's string has the robot's abilities.
            ("DoCoMo/1.0/P503i/c10(unheard)", Markup::Html, true, true),
            ("Mozilla/5.0 (Linux; Android 14) Chrome/120.0.0.0 Mobile Safari/537.36", Markup::Html, true, true),
            ("", Markup::Html, true, true),
        ] {
            let agent = UserAgent::parse(text);
            assert_eq!(
                (agent.markup(), agent.posts(), agent.keeps_queries()),
                (markup, posts, keeps_queries),
                "{text}"
            );
            let drops = text.starts_with("J-PHONE/2") || text.starts_with("J-PHONE/4");
            assert_eq!(agent.keeps_form_queries(), !drops, "{text}");
        }
    }

    #[test]
    fn browsers_that_are_older_than_tls_1_2_are_known() {
        for (text, speaks) in [
            ("DoCoMo/1.0/P503i/c10", false),
            ("DoCoMo/2.0 P903i(c100;TB;W24H12)", false),
            ("DoCoMo/2.0 N2001(c10;ser0123456789abcde)", false),
            ("DoCoMo/2.0 P07A3(c500;TB;W24H15)", true),
            ("UP.Browser/3.01-HI01 UP.Link/3.4.5.2", false),
            ("KDDI-CA39 UP.Browser/6.2.0.13.1.5 (FUI) MMP/2.0", true),
            ("J-PHONE/2.0/J-SA02", false),
            ("J-PHONE/4.0/J-K51 KW/1.00", false),
            ("J-PHONE/5.0/V801SA", false),
            ("SoftBank/1.0/930SH/SHJ001 Browser/NetFront/3.4", true),
            // Their own browsers alone: of a relay or the PC-site browser nothing is known.
            ("DoCoMo/1.0/P503i/c10(unheard)", true),
            ("Mozilla/4.08 (D903i;FOMA;c300;TB)", true),
            ("Mozilla/5.0 (Linux; Android 14) Chrome/120.0.0.0 Mobile Safari/537.36", true),
            ("", true),
        ] {
            assert_eq!(UserAgent::parse(text).speaks_tls12(), speaks, "{text}");
        }
    }

    #[test]
    fn how_long_a_url_may_be_is_known_of_a_carriers_own_browser() {
        for (text, bytes) in [
            ("DoCoMo/1.0/P503i/c10", 512),
            ("DoCoMo/2.0 P903i(c100;TB;W24H12)", 512),
            ("KDDI-CA39 UP.Browser/6.2.0.13.1.5 (FUI) MMP/2.0", 256),
            ("SoftBank/1.0/930SH/SHJ001 Browser/NetFront/3.4", 256),
            ("Mozilla/4.08 (D903i;FOMA;c300;TB)", 256),
            ("Mozilla/5.0 (Linux; Android 14) Chrome/120.0.0.0 Mobile Safari/537.36", 2048),
            ("", 2048),
        ] {
            assert_eq!(UserAgent::parse(text).url_bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn no_field_carries_a_serial() {
        let agent = UserAgent::parse("DoCoMo/1.0/ser12345678901/serABCDEFGHIJK");
        assert_eq!((agent.model, agent.redacted.as_str()), (None, "DoCoMo/1.0"));
    }

    /// Strings that are dense with serials and separators.
    fn dense() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/",
            ";",
            "(",
            ")",
            " ",
            "x",
            "SN1",
            "ser00000000000",
            "ser000000000000000",
            "icc00000000000000000000",
            "é",
        ]);
        prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_string_has_an_answer_and_no_serial_is_left(text in prop_oneof![dense(), ".{0,80}"]) {
            let agent = UserAgent::parse(&text);
            prop_assert_eq!(without_serials(agent.redacted.as_bytes()), None);
            prop_assert_eq!(&UserAgent::parse(&agent.redacted), &agent);
        }
    }
}
