//! Kinds of clients that any string can name: robots and relays, simulators, smartphones.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use super::UserAgentKind;

/// Robots name themselves, or an address at which their operator can be reached; no handset's browser does either.
const ROBOT: &[&str] = &[
    // Any bot, but the smartphones called Cubot.
    r"(?:^|[^u]|(?:^|[^c])u)bots?(?:[^a-z]|$)",
    "crawl|spider|slurp|archiver|indexer|harvest|scrap(?:er|y)|heritrix|nutch",
    r"fetch(?:er|or)|watch[ -]?dog|antenna|subscribers?\b|\bpipes\b|pubsub|externalhit|mediapartners",
    "(?:feed|web) ?(?:parser|burner|seeker)|rss module|(?:link|page|feed)[ -]?(?:check|valid|expand)",
    r"(?:web|link|bing|site)[ -]?preview|y!j-|ichiro|^hatena|\byeti/|\bmixi-check",
    // An operator's address.
    r"https?://|\bwww\.|@[a-z0-9-]+\.[a-z]",
    // Relays.
    r"prox(?:y|ies)|transcod|\(via |gzip\(gfe\)|appengine",
];

const SIMULATOR: &[&str] = &["emulator|simulator|opwv-sdk|openwave sdk"];

const SMARTPHONE: &[&str] = &[
    r"\b(?:iphone|ipad|ipod|bb10|webos)\b|android|windows (?:phone|mobile)|iemobile|blackberry|playbook",
    r"symbian|hpwos|tizen|maemo|meego|\bbada/|\(mobile;",
];

static CLASSES: LazyLock<[(UserAgentKind, Regex); 3]> = LazyLock::new(|| {
    let build = |patterns: &[&str]| {
        let mut builder = RegexBuilder::new(&patterns.join("|"));
        builder.unicode(false).case_insensitive(true);
        builder.build().expect("the patterns of this file are valid")
    };
    [
        (UserAgentKind::Emulator, build(SIMULATOR)),
        (UserAgentKind::Crawler, build(ROBOT)),
        (UserAgentKind::Smartphone, build(SMARTPHONE)),
    ]
});

/// The first of these kinds that the string names.
pub(super) fn kind_of(text: &str) -> Option<UserAgentKind> {
    CLASSES.iter().find(|(_, regex)| regex.is_match(text.as_bytes())).map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn robots_relays_simulators_and_smartphones_are_told_apart() {
        for (text, kind) in [
            ("NewcomerBot/0.1", Some(UserAgentKind::Crawler)),
            ("some-robots", Some(UserAgentKind::Crawler)),
            ("Mozilla/5.0 (compatible; Anything/1.0; +https://anything.example/)", Some(UserAgentKind::Crawler)),
            ("Reader/3 (12 subscribers)", Some(UserAgentKind::Crawler)),
            ("Any WAP Proxy/1.0", Some(UserAgentKind::Crawler)),
            ("OPWV-SDK/62 UP.Browser/6.2.2.1.208 (GUI) MMP/2.0", Some(UserAgentKind::Emulator)),
            ("Mozilla/5.0 (Linux; Android 13; CUBOT NOTE 20) Chrome/120 Mobile", Some(UserAgentKind::Smartphone)),
            ("Mozilla/5.0 (Mobile; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5", Some(UserAgentKind::Smartphone)),
            ("Mozilla/5.0 (Windows NT 10.0) Bottom/1.0", None),
            ("curl/8.5.0", None),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }
}
