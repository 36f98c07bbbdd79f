//! The words: one TOML file a language, embedded, parsed once, typed so that a template cannot ask for a word
//! that a language lacks.
//!
//! Texts are plain text with `{placeholders}`; what fills them is escaped together with them, in the template.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use super::Language;
use crate::refusal::Reason;

static JAPANESE: LazyLock<Texts> = LazyLock::new(|| parse(include_str!("texts/ja.toml")));
static ENGLISH: LazyLock<Texts> = LazyLock::new(|| parse(include_str!("texts/en.toml")));

fn parse(text: &str) -> Texts {
    toml::from_str(text).expect("the embedded catalogue is well-formed: a test parses it")
}

/// Everything that is said in one language, page by page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Texts {
    units: Units,
    pub(super) common: Common,
    pub(super) sign_in: SignIn,
    pub(super) enrol: Enrol,
    pub(super) refusal: Refusal,
    pub(super) me: Me,
    pub(super) add: Add,
    pub(super) remove: Remove,
    pub(super) pin: Pin,
    pub(super) me_pin: MePin,
    pub(super) news: News,
    pub(super) data: Data,
    pub(super) label: Label,
    pub(super) erase: Erase,
    pub(super) stop: Stop,
    pub(super) logout: Logout,
    pub(super) signed_out: SignedOut,
    pub(super) leave: Leave,
    pub(super) notice: Notice,
    carriers: BTreeMap<String, Carrier>,
    refusals: BTreeMap<String, RefusalTexts>,
}

impl Texts {
    /// The catalogue of a language.
    pub(super) fn of(language: Language) -> &'static Self {
        match language {
            Language::Japanese => &JAPANESE,
            Language::English => &ENGLISH,
        }
    }

    /// What a refusal says.
    pub(super) fn refusal_for(&self, reason: Reason) -> &RefusalTexts {
        self.refusals.get(reason.as_str()).expect("every reason has its texts: a test looks each up")
    }

    /// What people call a carrier; the profile's own name where the catalogue has none.
    pub(super) fn carrier<'a>(&'a self, profile: &'a str) -> &'a str {
        self.carriers.get(profile).map_or(profile, |carrier| &carrier.name)
    }

    /// What people call the identifier of a carrier.
    pub(super) fn identifier(&self, profile: Option<&str>) -> &str {
        profile.and_then(|name| self.carriers.get(name)?.identifier.as_deref()).unwrap_or(&self.common.any_identifier)
    }

    /// How to switch on that the identifier is sent: with the carrier, or with all that have such a switch.
    pub(super) fn advice(&self, profile: Option<&str>) -> Vec<String> {
        self.carriers
            .iter()
            .filter(|(name, _)| profile.is_none_or(|wanted| wanted == name.as_str()))
            .filter_map(|(_, carrier)| {
                let line = fill(&self.common.carriers_advice, "{carrier}", &carrier.name);
                Some(fill(&line, "{advice}", carrier.advice.as_ref()?))
            })
            .collect()
    }

    /// A span of time in the largest unit that divides it; whole seconds.
    pub(super) fn span(&self, time: Duration) -> String {
        let units = &self.units;
        let (n, one, many) = match time.as_secs() {
            s if s >= 86_400 && s.is_multiple_of(86_400) => (s / 86_400, &units.day, &units.days),
            s if s >= 3_600 && s.is_multiple_of(3_600) => (s / 3_600, &units.hour, &units.hours),
            s if s >= 60 && s.is_multiple_of(60) => (s / 60, &units.minute, &units.minutes),
            s => (s, &units.second, &units.seconds),
        };
        fill(if n == 1 { one } else { many }, "{n}", n)
    }
}

/// The text with its placeholder replaced.
pub(super) fn fill(text: &str, placeholder: &str, value: impl Display) -> String {
    text.replace(placeholder, &value.to_string())
}

/// What a refusal says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefusalTexts {
    pub(super) title: String,
    /// What happened.
    pub(super) happened: String,
    /// What the person can do.
    pub(super) action: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Carrier {
    name: String,
    identifier: Option<String>,
    advice: Option<String>,
}

/// Declares the texts of one page: all of them strings, none optional, none unknown.
macro_rules! texts {
    ($($name:ident { $($key:ident),+ $(,)? })+) => {
        $(
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            pub(super) struct $name { $(pub(super) $key: String,)+ }
        )+
    };
}

texts! {
    Units { day, days, hour, hours, minute, minutes, second, seconds }
    Common { notice, me, home, any_identifier, operator, contact, carriers_advice }
    SignIn {
        title, lead, button, reads, reads_what, purpose, purpose_what, kept, kept_what, cookie, cookie_what,
    }
    Enrol { title, lead, code, button, how, stored }
    Refusal { wait, request }
    Me {
        title, account, handsets, this, bound, last_used, remove, no_handsets, sessions, this_session, created,
        last_seen, end_sessions, more, sign_out, stored, stored_what, utc, handset_removed, session_ended, pin, no_pin,
        change_pin, pin_set, pin_removed, export, erase, data, add, told,
    }
    Add { title, lead, secret, button, how, there, once, told }
    Remove { title, lead, then, button, back }
    Pin { title, lead, label, button, forgot, code, none, set }
    MePin { title, none, set, forgotten, old, new, again, button, advice, remove, back }
    News { title, lead, handset_bound, wrong_pins, wrong_codes, unknown, go, notice, same, gone, long }
    Data { title, names, name, no_name, stop_what, stop_button, held, renamed, back }
    Label { title, lead, field, empty, button, back }
    Erase { title, lead, then, button, back, done, done_what, backups, receipt }
    Stop { title, lead, then, button, back, done, done_what }
    Logout { title, lead, button, back }
    SignedOut { title, lead, again }
    Leave { title, lead, go, back }
    Notice {
        title, revised, reads, reads_what, purpose, purpose_what, stored, stored_what, kept, kept_what, session,
        session_what, cookie, cookie_what, log, log_what, log_full, log_prefix, log_none, shared, shared_what,
        rights, rights_what, former, earlier, one, in_force,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use encoding_rs::SHIFT_JIS;
    use toml::Value;

    use super::*;

    const LANGUAGES: [Language; 2] = [Language::Japanese, Language::English];
    const SOURCES: [&str; 2] = [include_str!("texts/ja.toml"), include_str!("texts/en.toml")];

    /// Every text by its dotted key.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a catalogue holds tables and texts, whatever else TOML has")]
    fn flat(value: &Value, key: &str, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Table(table) => table.iter().for_each(|(k, v)| flat(v, &format!("{key}.{k}"), into)),
            Value::String(text) => assert!(into.insert(key.to_owned(), text.clone()).is_none(), "{key} twice"),
            other => panic!("{key} is no text: {other}"),
        }
    }

    fn texts(source: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        flat(&Value::Table(source.parse().unwrap()), "", &mut all);
        all
    }

    fn placeholders(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name)).collect()
    }

    #[test]
    fn both_languages_have_the_same_keys_and_placeholders_and_no_empty_text() {
        let [japanese, english] = SOURCES.map(texts);
        assert!(japanese.keys().eq(english.keys()), "{:?}", {
            let (j, e): (BTreeSet<_>, BTreeSet<_>) = (japanese.keys().collect(), english.keys().collect());
            j.symmetric_difference(&e).map(|k| (*k).clone()).collect::<Vec<_>>()
        });
        for (key, text) in &japanese {
            assert_eq!(placeholders(text), placeholders(&english[key]), "{key}");
        }
        assert!(japanese.values().chain(english.values()).all(|text| !text.trim().is_empty()));
    }

    #[test]
    fn every_reason_has_texts_of_its_own_and_no_text_is_without_a_reason() {
        for language in LANGUAGES {
            let texts = Texts::of(language);
            let happened: BTreeSet<_> = Reason::ALL.iter().map(|r| &texts.refusal_for(*r).happened).collect();
            assert_eq!(happened.len(), Reason::ALL.len(), "two reasons say the same");
            assert_eq!(texts.refusals.len(), Reason::ALL.len());
        }
    }

    #[test]
    fn shift_jis_has_every_character_of_both_languages() {
        for (key, text) in SOURCES.iter().flat_map(|source| texts(source)) {
            assert!(!SHIFT_JIS.encode(&text).2, "{key}: {text}");
        }
    }

    #[test]
    fn spans_are_said_in_their_largest_unit() {
        let (ja, en) = (Texts::of(Language::Japanese), Texts::of(Language::English));
        for (seconds, japanese, english) in [
            (1, "1秒", "1 second"),
            (90, "90秒", "90 seconds"),
            (1800, "30分", "30 minutes"),
            (3600, "1時間", "1 hour"),
            (43_200, "12時間", "12 hours"),
            (86_400, "1日", "1 day"),
            (34_560_000, "400日", "400 days"),
        ] {
            let time = Duration::from_secs(seconds);
            assert_eq!((ja.span(time).as_str(), en.span(time).as_str()), (japanese, english));
        }
    }

    #[test]
    fn advice_is_the_carriers_own_where_it_is_known() {
        let texts = Texts::of(Language::Japanese);
        assert_eq!(texts.advice(Some("au")), ["au：「EZ番号通知」を「通知する」にしてください。"]);
        assert_eq!(texts.advice(None).len(), 3);
        assert!(texts.advice(Some("private-apn")).is_empty());
        assert_eq!(texts.identifier(Some("docomo")), "iモードID");
        assert_eq!(texts.identifier(Some("private-apn")), texts.common.any_identifier);
        assert_eq!(texts.carrier("private-apn"), "private-apn");
    }
}
