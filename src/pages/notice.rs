//! What people are told of their data: the facts of the configuration in force and the words that say them, in every
//! language, as one document. It is kept as it was told, so that a later version of the program cannot put other words there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::catalogue::{Texts, fill};
use super::reader::Language;
use crate::config::ClientAddressDetail;

/// What the privacy notice is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeFacts {
    /// Who reads identifiers.
    pub controller: String,
    /// Whom to ask.
    pub contact: String,
    /// When the notice was last revised, `YYYY-MM-DD`.
    pub revision: String,
    /// The fields that identifiers are read from.
    pub reads: Vec<ReadField>,
    /// Days after which an unused binding is erased.
    pub retention_days: u32,
    /// How long a session lives unused.
    pub session_idle_seconds: u64,
    /// How long a session lives at most.
    pub session_absolute_seconds: u64,
    /// What logs say of the client's address.
    pub client_address: ClientAddressDetail,
}

/// A field that an identifier is read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadField {
    /// The profile's name.
    pub carrier: String,
    /// The header field.
    pub header: String,
}

/// One part of what people are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeSection {
    /// Of what.
    pub heading: String,
    /// What is said of it, a line each.
    pub lines: Vec<String>,
    /// What is listed below that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

/// What people are told, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeDocument {
    /// What it is made from.
    pub facts: NoticeFacts,
    /// In Japanese.
    pub ja: Vec<NoticeSection>,
    /// In English.
    pub en: Vec<NoticeSection>,
}

impl NoticeDocument {
    /// The facts, in the words of this program.
    #[must_use]
    pub fn of(facts: NoticeFacts) -> Self {
        let [ja, en] = [Language::Japanese, Language::English].map(|language| sections(&facts, Texts::of(language)));
        Self { facts, ja, en }
    }

    /// The document as it is kept.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| unreachable!("texts and numbers are JSON"))
    }

    /// A document that was kept.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What it says in a language, but for who says so.
    #[must_use]
    pub fn sections(&self, language: Language) -> &[NoticeSection] {
        match language {
            Language::Japanese => &self.ja,
            Language::English => &self.en,
        }
    }

    /// What it says that `former` did not say, and what it does not say any more.
    #[must_use]
    pub fn changes_since(&self, former: &Self, language: Language) -> Vec<NoticeSection> {
        let texts = Texts::of(language);
        let (is, was) = (self.sections(language), former.sections(language));
        let mut changes: Vec<_> = is.iter().filter(|section| !was.contains(section)).cloned().collect();
        let (ours, theirs) = (&self.facts, &former.facts);
        if (&ours.controller, &ours.contact) != (&theirs.controller, &theirs.contact) {
            let lines = vec![ours.controller.clone(), ours.contact.clone()];
            changes.push(NoticeSection { heading: texts.common.operator.clone(), lines, items: Vec::new() });
        }
        let gone = was.iter().filter(|section| is.iter().all(|there| there.heading != section.heading));
        changes.extend(gone.map(|section| NoticeSection {
            heading: section.heading.clone(),
            lines: vec![texts.news.gone.clone()],
            items: Vec::new(),
        }));
        changes
    }

    /// Settings that say something else than in `former`, by their keys, but for the revision date itself; where none does
    /// and the words differ, the words.
    #[must_use]
    pub fn differs_in(&self, former: &Self) -> Vec<&'static str> {
        let (ours, theirs) = (&self.facts, &former.facts);
        let differing = [
            ("notice.controller", ours.controller != theirs.controller),
            ("notice.contact", ours.contact != theirs.contact),
            ("carriers", ours.reads != theirs.reads),
            ("binding.retention", ours.retention_days != theirs.retention_days),
            ("session.idle", ours.session_idle_seconds != theirs.session_idle_seconds),
            ("session.absolute", ours.session_absolute_seconds != theirs.session_absolute_seconds),
            ("privacy.client_address", ours.client_address != theirs.client_address),
        ];
        let mut named: Vec<_> = differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        if named.is_empty() && (&self.ja, &self.en) != (&former.ja, &former.en) {
            named.push("the words of this version of the program");
        }
        named
    }
}

fn sections(facts: &NoticeFacts, texts: &Texts) -> Vec<NoticeSection> {
    let t = &texts.notice;
    let section = |heading: &str, lines: Vec<String>| {
        let heading = heading.to_owned();
        NoticeSection { heading, lines, items: Vec::new() }
    };
    let seconds = |seconds| texts.span(Duration::from_secs(seconds));
    let days = seconds(u64::from(facts.retention_days) * 86_400);
    let session = fill(&t.session_what, "{idle}", seconds(facts.session_idle_seconds));
    let session = fill(&session, "{absolute}", seconds(facts.session_absolute_seconds));
    let address = match facts.client_address {
        ClientAddressDetail::Full => &t.log_full,
        ClientAddressDetail::Prefix => &t.log_prefix,
        ClientAddressDetail::None => &t.log_none,
    };
    let read = |ReadField { carrier, header }: &ReadField| format!("{}: {header}", texts.carrier(carrier));
    vec![
        NoticeSection {
            items: facts.reads.iter().map(read).collect(),
            ..section(&t.reads, vec![t.reads_what.clone()])
        },
        section(&t.purpose, vec![t.purpose_what.clone()]),
        section(&t.stored, vec![t.stored_what.clone()]),
        section(&t.kept, vec![fill(&t.kept_what, "{days}", days)]),
        section(&t.session, vec![session]),
        section(&t.cookie, vec![t.cookie_what.clone()]),
        section(&t.log, vec![t.log_what.clone(), address.clone()]),
        section(&t.shared, vec![t.shared_what.clone()]),
        section(&t.rights, vec![t.rights_what.clone()]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> NoticeFacts {
        NoticeFacts {
            controller: "Example KK".into(),
            contact: "https://example.jp/contact".into(),
            revision: "2026-11-23".into(),
            reads: vec![ReadField { carrier: "docomo".into(), header: "X-DCMGUID".into() }],
            retention_days: 400,
            session_idle_seconds: 1800,
            session_absolute_seconds: 43_200,
            client_address: ClientAddressDetail::Prefix,
        }
    }

    #[test]
    fn a_document_that_was_kept_says_what_it_said() {
        let told = NoticeDocument::of(facts());
        assert_eq!(NoticeDocument::parse(&told.text()), Some(told.clone()));
        assert_eq!(NoticeDocument::of(facts()).text(), told.text());
        assert!(NoticeDocument::parse("{}").is_none());
    }

    #[test]
    fn what_changed_is_told_and_nothing_else() {
        let was = NoticeDocument::of(facts());
        let changes = |change: &dyn Fn(&mut NoticeFacts)| {
            let mut new = facts();
            change(&mut new);
            let is = NoticeDocument::of(new);
            let told = is.changes_since(&was, Language::English);
            assert_eq!(is.changes_since(&was, Language::Japanese).len(), told.len());
            (told.into_iter().map(|s| (s.heading, s.lines.concat())).collect::<Vec<_>>(), is.differs_in(&was))
        };
        let (told, keys) = changes(&|facts| facts.retention_days = 30);
        assert_eq!(told, [("For how long".to_owned(), "A handset not used for 30 days is erased.".to_owned())]);
        assert_eq!(keys, ["binding.retention"]);
        let (told, keys) = changes(&|facts| facts.contact = "tel".to_owned());
        assert_eq!(told, [("Run by".to_owned(), "Example KKtel".to_owned())]);
        assert_eq!(keys, ["notice.contact"]);
        let (told, keys) = changes(&|facts| facts.reads.clear());
        assert_eq!((told.len(), keys), (1, vec!["carriers"]));
        assert_eq!(changes(&|facts| facts.revision = "2026-12-01".into()), (vec![], vec![]));

        let mut reworded = was.clone();
        reworded.en.remove(0);
        reworded.ja.remove(0);
        assert_eq!(reworded.differs_in(&was), ["the words of this version of the program"]);
        let gone = reworded.changes_since(&was, Language::English);
        assert_eq!((gone.len(), gone[0].heading.as_str()), (1, "What is read"));
    }
}
