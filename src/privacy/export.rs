//! What is kept of one account, as its person gets it: every record with what it is for and for how long, digests left out.

use serde_json::{Value, json};

use super::periods::Periods;
use super::purpose::Purpose;
use super::register::REGISTER;
use super::tongue::{Text, Tongue};
use crate::assertion::AssertionCache;
use crate::audit::Entry;
use crate::clock::Timestamp;
use crate::config::NoticeConfig;
use crate::session::LiveSession;
use crate::store::{ApprovalRecord, LabelledBinding, News, SubjectRecord};

/// All that an export is made of.
pub(super) struct Facts<'a> {
    pub(super) record: &'a SubjectRecord,
    pub(super) sessions: &'a [std::sync::Arc<LiveSession<AssertionCache>>],
    pub(super) pseudonym: Option<String>,
    pub(super) audit: &'a [Entry],
    pub(super) approvals: &'a [ApprovalRecord],
    pub(super) periods: &'a Periods,
    pub(super) notice: &'a NoticeConfig,
    pub(super) now: Timestamp,
}

/// Keyed hashes and what would help to guess them stay where they are.
const LEFT_OUT: Text = Text {
    en: "keyed hashes, wrapped keys and other values that stand for a secret",
    ja: "鍵付きハッシュ、暗号化した鍵など、秘密の代わりに保存している値",
};
const NO_ACCOUNT_THERE: Text = Text {
    en: "no account stands in its lines, so that none of them can be said to be yours",
    ja: "アカウントを記録していないため、どの行がご本人のものかは分かりません",
};
const NOT_OURS: Text = Text {
    en: "written to the operator's log collection, which the contact can be asked about",
    ja: "運用者のログ収集先に記録されます。お問い合わせ先にご請求ください",
};
const ONLY_ONCE_ERASED: Text =
    Text { en: "nothing, as long as the account exists", ja: "アカウントがある間は、ありません" };

const NOTHING_ELSE: Text = Text {
    en: "nothing that is not above; it is a copy of that, and there is none but while a drill runs",
    ja: "上記と同じ内容の複製で、訓練中だけ存在します",
};

/// The document.
pub(super) fn document(facts: &Facts<'_>, tongue: Tongue) -> Value {
    let Facts { record, periods, notice, now, .. } = facts;
    let items: Vec<Value> =
        REGISTER.iter().filter(|purpose| purpose.personal()).map(|purpose| item(purpose, facts, tongue)).collect();
    json!({
        "account": record.account.as_str(),
        "language": tongue.tag(),
        "exported_at": now.rfc3339(),
        "controller": notice.controller,
        "contact": notice.contact,
        "notice_revision": notice.revision,
        "held": record.hold.is_some(),
        "retention_days": periods.binding_days,
        "items": items,
        "left_out": LEFT_OUT.say(tongue),
    })
}

fn item(purpose: &Purpose, facts: &Facts<'_>, tongue: Tongue) -> Value {
    let (records, note) = match records(purpose.kind, facts) {
        Found::Records(records) => (records, None),
        Found::Elsewhere(why) => (Vec::new(), Some(why.say(tongue))),
    };
    let mut item = json!({
        "kind": purpose.kind,
        "what": purpose.what.say(tongue),
        "purpose": purpose.purpose.say(tongue),
        "retention": purpose.kept.say(facts.periods, tongue),
        "legal": purpose.ground.text().say(tongue),
        "records": records,
    });
    if let (Some(note), Some(members)) = (note, item.as_object_mut()) {
        members.insert("note".to_owned(), note.into());
    }
    item
}

/// What there is of a kind.
enum Found {
    Records(Vec<Value>),
    /// The gateway has none, or cannot tell whose they are.
    Elsewhere(Text),
}

fn records(kind: &str, facts: &Facts<'_>) -> Found {
    let Facts { record, .. } = facts;
    Found::Records(match kind {
        "account" => vec![json!({
            "account": record.account.as_str(),
            "state": record.state.as_str(),
            "created_at": record.created_at.rfc3339(),
        })],
        "bindings" => record.bindings.iter().map(binding).collect(),
        "labels" => record
            .bindings
            .iter()
            .filter_map(|LabelledBinding { binding, label, .. }| {
                let label = label.as_ref()?;
                Some(json!({ "binding": binding.id.to_string(), "label": label.as_str() }))
            })
            .collect(),
        "sessions" => facts.sessions.iter().map(|session| self::session(session)).collect(),
        "codes" => record
            .code
            .iter()
            .map(|code| {
                json!({
                    "issued_at": code.issued_at.rfc3339(),
                    "expires_at": code.expires_at.rfc3339(),
                    "wrong_tries": code.wrong_tries,
                })
            })
            .collect(),
        "pin" => record.pin_set_at.iter().map(|at| json!({ "set_at": at.rfc3339() })).collect(),
        "pin-tries" => record
            .pin_tries
            .iter()
            .map(|(binding, count)| json!({ "binding": binding.to_string(), "in_a_row": count }))
            .collect(),
        "news" => record
            .news
            .iter()
            .map(|(binding, News { kind, carrier, day })| {
                json!({
                    "binding": binding.to_string(),
                    "kind": kind.as_str(),
                    "carrier": carrier.as_ref().map(ToString::to_string),
                    "day": day.to_string(),
                })
            })
            .collect(),
        "subjects" => record
            .subjects
            .iter()
            .map(|(upstream, subject)| json!({ "console": upstream, "subject": subject }))
            .collect(),
        "holds" => {
            record.hold.iter().map(|hold| json!({ "reason": hold.reason, "since": hold.placed_at.rfc3339() })).collect()
        }
        "audit" => audit(facts),
        "approvals" => facts.approvals.iter().map(approval).collect(),
        "access-log" | "traces" => return Found::Elsewhere(NO_ACCOUNT_THERE),
        "erasures" => return Found::Elsewhere(ONLY_ONCE_ERASED),
        "drill" => return Found::Elsewhere(NOTHING_ELSE),
        _ => return Found::Elsewhere(NOT_OURS),
    })
}

fn binding(LabelledBinding { binding, label, told }: &LabelledBinding) -> Value {
    json!({
        "id": binding.id.to_string(),
        "carrier": binding.carrier.as_str(),
        "chain": binding.chain.keys().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "bound_on": binding.bound_on.to_string(),
        "last_used_on": binding.last_used_on.to_string(),
        "label": label.as_ref().map(|label| label.as_str().to_owned()),
        "notice_told": told.as_ref().map(|notice| json!({
            "id": notice.id, "revision": notice.revision, "in_force_from": notice.in_force_from.rfc3339(),
        })),
    })
}

fn session(session: &LiveSession<AssertionCache>) -> Value {
    let facts = session.facts();
    json!({
        "id": facts.id.to_string(),
        "binding": facts.binding.to_string(),
        "carrier": facts.carrier.as_str(),
        "transport": session.transport().as_str(),
        "created_at": facts.created_at.rfc3339(),
        "last_seen_at": session.last_seen_at().rfc3339(),
        "expires_at": session.expires_at().rfc3339(),
    })
}

/// Who acted is somebody at the operator's, and no data of the person's.
fn audit(facts: &Facts<'_>) -> Vec<Value> {
    let entry = |entry: &Entry| {
        let by = entry.actor.split(':').next().unwrap_or_default();
        let by = if matches!(by, "uid" | "cert") { "operator" } else { by };
        json!({
            "seq": entry.seq, "time": entry.time, "action": entry.action, "outcome": entry.outcome, "by": by,
            "reason": entry.reason,
        })
    };
    let known_as = facts.pseudonym.iter().map(|pseudonym| json!({ "pseudonym": pseudonym }));
    known_as.chain(facts.audit.iter().map(entry)).collect()
}

fn approval(approval: &ApprovalRecord) -> Value {
    json!({
        "action": approval.action.as_str(),
        "reason": approval.reason,
        "state": approval.state.as_str(),
        "asked_at": approval.asked_at.rfc3339(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{AccountId, AccountState};

    #[test]
    fn every_personal_kind_says_what_there_is() {
        let record = SubjectRecord {
            account: AccountId::parse("alice").unwrap(),
            state: AccountState::Active,
            created_at: Timestamp::from_unix_millis(0),
            hold: None,
            bindings: Vec::new(),
            code: None,
            pin_set_at: None,
            pin_tries: Vec::new(),
            news: Vec::new(),
            subjects: Vec::new(),
        };
        let notice = NoticeConfig { controller: "K".into(), contact: "c".into(), revision: "2026-11-23".into() };
        let facts = Facts {
            record: &record,
            sessions: &[],
            pseudonym: None,
            audit: &[],
            approvals: &[],
            periods: &Periods::sample(),
            notice: &notice,
            now: Timestamp::from_unix_millis(0),
        };
        for purpose in REGISTER.iter().filter(|purpose| purpose.personal()) {
            let elsewhere = matches!(records(purpose.kind, &facts), Found::Elsewhere(NOT_OURS));
            assert_eq!(elsewhere, purpose.kind == "security-log", "{}", purpose.kind);
        }
        for (tongue, expected) in [(Tongue::English, "enrolled handsets"), (Tongue::Japanese, "登録した携帯電話")]
        {
            let written = document(&facts, tongue);
            assert_eq!(written["items"][1]["what"], expected);
            assert_eq!(written["items"].as_array().unwrap().len(), 17);
        }
    }
}
