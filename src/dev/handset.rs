//! Simulated handsets and the carriers that they belong to, as data.

use std::net::Ipv4Addr;

use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// How many handsets each carrier has.
pub(super) const HANDSETS_EACH: u8 = 3;
/// How many addresses a carrier's gateway sends from, in turn: an address never stands for a handset.
const ADDRESSES: u8 = 16;

/// A carrier that has handsets here. Serialized by its profile's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Carrier {
    /// NTT docomo, i-mode.
    Docomo,
    /// KDDI, `EZweb`.
    Au,
    /// `SoftBank`, Yahoo! Keitai.
    Softbank,
}

/// What a carrier does to the requests of its handsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour {
    /// The field that its gateway inserts.
    pub(super) header: &'static str,
    /// When it does.
    pub(super) inserts: Inserts,
    /// The third octet of its network 127.0.N.0/24.
    pub(super) network: u8,
    /// What its handsets say of themselves.
    pub(super) user_agent: &'static str,
    /// How an identifier is written.
    grammar: &'static [Part],
}

/// When a carrier's gateway inserts the identifier into a plain request. Into TLS none can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserts {
    /// Always.
    Always,
    /// Only where the URL's query has this parameter; name and value compared without case.
    WhenAsked(&'static str, &'static str),
}

/// A stretch of an identifier.
#[derive(Clone, Copy, Debug)]
enum Part {
    Drawn(&'static str, usize),
    Literal(&'static str),
}

const DIGITS: &str = "0123456789";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const LOWER_OR_DIGIT: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
const ALPHANUMERIC: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Carrier {
    /// All of them, in the order in which they are shown.
    pub(super) const ALL: [Self; 3] = [Self::Docomo, Self::Au, Self::Softbank];

    /// The name of its profile.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Docomo => "docomo",
            Self::Au => "au",
            Self::Softbank => "softbank",
        }
    }

    /// What it does, after its own documents (the built-in profiles name them).
    pub(super) const fn behaviour(self) -> Behaviour {
        match self {
            Self::Docomo => Behaviour {
                header: "X-DCMGUID",
                inserts: Inserts::WhenAsked("guid", "ON"),
                network: 1,
                user_agent: "DoCoMo/2.0 N06A3(c500;TB;W24H16)",
                grammar: &[Part::Drawn(ALPHANUMERIC, 7)],
            },
            Self::Au => Behaviour {
                header: "X-UP-SUBNO",
                inserts: Inserts::Always,
                network: 2,
                user_agent: "KDDI-SH3D UP.Browser/6.2_7.2.7.1.K.4.168 (GUI) MMP/2.0",
                grammar: &[
                    Part::Drawn(DIGITS, 14),
                    Part::Literal("_"),
                    Part::Drawn(LOWER, 1),
                    Part::Drawn(LOWER_OR_DIGIT, 1),
                    Part::Literal(".ezweb.ne.jp"),
                ],
            },
            Self::Softbank => Behaviour {
                header: "X-JPHONE-UID",
                inserts: Inserts::Always,
                network: 3,
                user_agent: "SoftBank/1.0/941SH/SHJ001 Browser/NetFront/3.5 Profile/MIDP-2.0 Configuration/CLDC-1.1",
                grammar: &[Part::Literal("a"), Part::Drawn(ALPHANUMERIC, 15)],
            },
        }
    }
}

impl Behaviour {
    /// Whether the identifier goes into a plain request with this query.
    pub(super) fn inserts_into(&self, query: Option<&str>) -> bool {
        match self.inserts {
            Inserts::Always => true,
            Inserts::WhenAsked(name, value) => query.unwrap_or_default().split('&').any(|pair| {
                pair.split_once('=').is_some_and(|(n, v)| n.eq_ignore_ascii_case(name) && v.eq_ignore_ascii_case(value))
            }),
        }
    }

    /// Where its gateway sends the `nth` request from.
    pub(super) const fn source(&self, nth: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, self.network, 1 + nth % ADDRESSES)
    }
}

/// One simulated handset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Handset {
    /// Whose it is.
    pub(super) carrier: Carrier,
    /// 1 to [`HANDSETS_EACH`].
    pub(super) number: u8,
}

/// What all identifiers of one folder are derived from.
pub(super) struct HandsetSeed(hmac::Key);

impl HandsetSeed {
    /// From the folder's secret.
    pub(super) fn new(seed: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, seed))
    }

    /// The invented identifier of `handset`: always the same, and kept nowhere.
    pub(super) fn identifier(&self, handset: Handset) -> Zeroizing<String> {
        let message = format!("sekisho/dev/handset/v1\0{}\0{}", handset.carrier.name(), handset.number);
        let tag = hmac::sign(&self.0, message.as_bytes());
        let mut drawn = tag.as_ref().iter().copied();
        let mut out = Zeroizing::new(String::new());
        for part in handset.carrier.behaviour().grammar {
            match *part {
                Part::Literal(text) => out.push_str(text),
                Part::Drawn(alphabet, count) => out.extend(drawn.by_ref().take(count).filter_map(|byte| {
                    // The slight bias is harmless: these identifiers keep nobody out.
                    alphabet.chars().nth(usize::from(byte) % alphabet.len())
                })),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn identifiers_follow_their_carriers_grammar_and_differ() {
        let grammars = [
            (Carrier::Docomo, "^[0-9A-Za-z]{7}$"),
            (Carrier::Au, r"^[0-9]{14}_[a-z][a-z0-9]\.ezweb\.ne\.jp$"),
            (Carrier::Softbank, "^[0-9A-Za-z]{16}$"),
        ];
        for (carrier, grammar) in grammars {
            let grammar = Regex::new(grammar).unwrap();
            let of = |seed: &[u8], number| HandsetSeed::new(seed).identifier(Handset { carrier, number });
            assert!(grammar.is_match(&of(b"seed", 1)), "{carrier:?}");
            assert_eq!(of(b"seed", 1), of(b"seed", 1));
            assert_ne!(of(b"seed", 1), of(b"seed", 2));
            assert_ne!(of(b"seed", 1), of(b"other", 1));
        }
    }

    #[test]
    fn docomo_inserts_only_when_asked_and_the_others_always() {
        let asked = [Some("guid=ON"), Some("to=%2F&GUID=on")];
        let not_asked = [None, Some(""), Some("guid=OFF"), Some("to=guid=ON"), Some("xguid=ON")];
        for query in asked {
            assert!(Carrier::Docomo.behaviour().inserts_into(query), "{query:?}");
        }
        for query in not_asked {
            assert!(!Carrier::Docomo.behaviour().inserts_into(query), "{query:?}");
            assert!(Carrier::Au.behaviour().inserts_into(query), "{query:?}");
            assert!(Carrier::Softbank.behaviour().inserts_into(query), "{query:?}");
        }
    }

    #[test]
    fn sources_move_within_the_network() {
        let softbank = Carrier::Softbank.behaviour();
        assert_ne!(softbank.source(0), softbank.source(1));
        for nth in 0..=u8::MAX {
            assert!(softbank.source(nth).octets().starts_with(&[127, 0, 3]));
        }
    }
}
