//! The purpose register: what every stored column, log field and metric label is there for, for how long, and on what ground.
//!
//! Start-up compares it with the columns that the store really has, the fields that log lines really have and the labels of
//! the metrics: a field without a purpose keeps the gateway from starting ([`without_purpose`]). The notice, the export of a
//! person's data and `policy show` are made of it, so that what people are told is what is done.

use std::collections::BTreeSet;

use super::periods::{Kept, Periods};
use super::register::REGISTER;
use super::tongue::{Text, Tongue};

/// On what ground something is kept. The articles are those of the Act on the Protection of Personal Information (APPI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Needed for what the person asked for, and told before it was read (articles 17, 18 and 21).
    Service,
    /// Needed to keep what is stored secure (article 23).
    Security,
    /// Needed to show that the law was kept (article 22 on erasure, 33 to 35 on requests).
    Evidence,
    /// Upkeep of the communication, and no more (Telecommunications Business Act, article 4).
    Upkeep,
    /// About nobody.
    Nobody,
}

impl Ground {
    /// What is printed.
    #[must_use]
    pub const fn text(self) -> Text {
        match self {
            Self::Service => Text {
                en: "needed for the sign-in that the person asked for, and told before (APPI articles 17, 18, 21)",
                ja: "本人が求めたサインインに必要で、事前に知らせている（個人情報保護法17・18・21条）",
            },
            Self::Security => Text {
                en: "needed to keep what is stored secure (APPI article 23)",
                ja: "安全管理に必要（個人情報保護法23条）",
            },
            Self::Evidence => Text {
                en: "needed to show that duties were kept (APPI articles 22, 33 to 35)",
                ja: "義務を果たしたことを示すために必要（個人情報保護法22・33～35条）",
            },
            Self::Upkeep => Text {
                en: "upkeep and security of the service, nothing else (Telecommunications Business Act, article 4)",
                ja: "設備の維持と安全のためだけに使う（電気通信事業法4条）",
            },
            Self::Nobody => Text { en: "about no person", ja: "個人に関するものではない" },
        }
    }
}

/// One kind of data, and the fields that hold it.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// What it is called in exports and in `policy show`.
    pub kind: &'static str,
    /// What it is, as a person would say.
    pub what: Text,
    /// Where it stands: `table.column` of the store, `log.STREAM.FIELD`, `metric.LABEL`.
    pub fields: &'static [&'static str],
    /// What for.
    pub purpose: Text,
    /// For how long.
    pub kept: Kept,
    /// On what ground.
    pub ground: Ground,
}

impl Purpose {
    /// Whether it is about a person, so that it belongs into their export.
    #[must_use]
    pub fn personal(&self) -> bool {
        self.ground != Ground::Nobody
    }
}

/// The purpose of `kind`, which is one of the register's.
#[must_use]
pub fn of(kind: &str) -> Option<&'static Purpose> {
    REGISTER.iter().find(|purpose| purpose.kind == kind)
}

/// Fields that nobody gave a purpose, and fields of the register's that are not there, each once; `there` are those that
/// really are. Where this is not empty, the gateway does not start.
#[must_use]
pub fn without_purpose(there: &[String]) -> Vec<String> {
    let known: BTreeSet<&str> = REGISTER.iter().flat_map(|purpose| purpose.fields.iter().copied()).collect();
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    let unknown = there.difference(&known).map(|field| format!("{field} has no purpose"));
    let gone = known.difference(&there).map(|field| format!("{field} has a purpose and is not there"));
    unknown.chain(gone).collect()
}

/// One line of `policy show`.
#[must_use]
pub fn line(purpose: &Purpose, periods: &Periods, tongue: Tongue) -> [String; 4] {
    [
        purpose.kind.to_owned(),
        purpose.purpose.say(tongue).to_owned(),
        purpose.kept.say(periods, tongue),
        purpose.ground.text().say(tongue).to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_one_purpose() {
        let fields: Vec<&str> = REGISTER.iter().flat_map(|purpose| purpose.fields.iter().copied()).collect();
        let once: BTreeSet<&str> = fields.iter().copied().collect();
        assert_eq!(fields.len(), once.len());
        let kinds: BTreeSet<&str> = REGISTER.iter().map(|purpose| purpose.kind).collect();
        assert_eq!(kinds.len(), REGISTER.len());
    }

    #[test]
    fn what_has_no_purpose_is_named_and_so_is_what_is_gone() {
        let mut there: Vec<String> =
            REGISTER.iter().flat_map(|purpose| purpose.fields.iter().map(|field| (*field).to_owned())).collect();
        assert!(without_purpose(&there).is_empty());
        there[0] = "accounts.birthday".to_owned();
        assert_eq!(
            without_purpose(&there),
            ["accounts.birthday has no purpose", "accounts.account has a purpose and is not there"]
        );
    }

    #[test]
    fn every_japanese_text_can_be_sent_as_shift_jis() {
        for purpose in REGISTER {
            let kept = purpose.kept.say(&Periods::sample(), Tongue::Japanese);
            for text in [purpose.what.ja, purpose.purpose.ja, purpose.ground.text().ja, &kept] {
                let (_, _, unmappable) = encoding_rs::SHIFT_JIS.encode(text);
                assert!(!unmappable, "{text}");
            }
        }
    }
}
