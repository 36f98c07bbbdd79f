//! What a receipt says, and its addenda.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::canary::CanaryReport;
use super::merkle::{hex, sha256};
use super::seal::{Unsealed, seal};
use super::survey::Survey;
use crate::binding::KeyId;
use crate::clock::Timestamp;
use crate::keys::AuditKey;
use crate::store::{KeyRecord, RotationRecord};

/// The form of a receipt; another form gets another number.
pub(super) const FORMAT: &str = "sekisho-receipt/1";
/// The members of a receipt.
pub(super) const MEMBERS: [&str; 15] = [
    "approvals",
    "audit",
    "canaries",
    "counts",
    "format",
    "from",
    "issued_at",
    "part",
    "process",
    "roots",
    "rotation",
    "scan",
    "seal",
    "software",
    "to",
];

/// The parts of a receipt, in the order in which they are issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// When the old key was drained.
    Receipt,
    /// When it was destroyed.
    Destroyed,
    /// When the process that had it in memory was over, and the next one had started.
    Restarted,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Receipt, Self::Destroyed, Self::Restarted];

    /// The word used in JSON and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Destroyed => "destroyed",
            Self::Restarted => "restarted",
        }
    }
}

/// Somebody agreed to it.
#[derive(Clone, Debug, Serialize)]
pub struct Approval {
    /// Who, as the audit chain names people: `uid:1001`, `cert:alice`.
    pub by: String,
    /// To what: the verb.
    pub verb: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
}

/// What happened around a rotation, as far as the journal does not tell it.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// Who agreed to what.
    pub approvals: Vec<Approval>,
    /// The last entry of the audit trail, and its hash in hexadecimal; `None` where no entry is there.
    pub audit_head: Option<(u64, String)>,
}

/// What every part of a receipt is made of.
pub struct Facts<'a> {
    /// The journal.
    pub rotation: &'a RotationRecord,
    /// The key that went.
    pub from: &'a KeyRecord,
    /// The key that took its place.
    pub to: &'a KeyRecord,
    /// What happened around it.
    pub circumstances: &'a Circumstances,
    /// When this process started: what its memory still held of a key is gone with its end.
    pub process_started_at: Timestamp,
    /// When it is issued.
    pub now: Timestamp,
}

/// The receipt of a rotation that is done, sealed: canonical JSON. `survey` is a look at all bindings after its end.
///
/// # Errors
/// [`Unsealed`].
pub fn receipt(
    facts: &Facts<'_>,
    survey: &Survey,
    canaries: &CanaryReport,
    key: &AuditKey,
) -> Result<String, Unsealed> {
    let rotation = facts.rotation;
    // What no binding is made of remains on none.
    let remaining = KeyId::parse(&facts.from.id).map_or(0, |from| survey.not_past(from));
    let mut document = common(facts, Part::Receipt);
    document.extend(witnesses(facts, canaries));
    document.insert("rotation".to_owned(), journal(rotation));
    document.insert("to".to_owned(), key_facts(facts.to));
    let counts = json!({
        "total": rotation.total,
        "wrapped": rotation.wrapped,
        "flattened": rotation.flattened,
        "purged": rotation.total.saturating_sub(rotation.flattened).saturating_sub(remaining),
        "remaining": remaining,
    });
    document.insert("counts".to_owned(), counts);
    let root = |root: &[u8]| if root.is_empty() { Value::Null } else { hex(root).into() };
    let roots = json!({"before": root(&rotation.root_before), "after": root(&rotation.root_after)});
    document.insert("roots".to_owned(), roots);
    let chains: Map<String, Value> =
        survey.chains().iter().map(|(chain, count)| (chain.to_string(), (*count).into())).collect();
    let scan = json!({
        "at": facts.now.rfc3339(),
        "bindings": survey.bindings(),
        "chains": chains,
        "remaining": remaining,
        "root": hex(&survey.root()),
    });
    document.insert("scan".to_owned(), scan);
    seal(document, key)
}

/// What is added once the old key is destroyed, sealed: names the receipt by the hash of its text.
///
/// # Errors
/// [`Unsealed`].
pub fn addendum(facts: &Facts<'_>, receipt: &str, canaries: &CanaryReport, key: &AuditKey) -> Result<String, Unsealed> {
    let mut document = common(facts, Part::Destroyed);
    document.extend(witnesses(facts, canaries));
    document.insert("rotation".to_owned(), json!({"id": facts.rotation.id}));
    document.insert("receipt".to_owned(), named(receipt));
    seal(document, key)
}

/// What is added at the first start after that, sealed: names the receipt, and the addendum of the destruction, by the
/// hashes of their texts. The process that had the key in memory is over: what the key's memory still held went with it.
///
/// # Errors
/// [`Unsealed`].
pub fn restarted(facts: &Facts<'_>, receipt: &str, destroyed: &str, key: &AuditKey) -> Result<String, Unsealed> {
    let mut document = common(facts, Part::Restarted);
    document.insert("rotation".to_owned(), json!({"id": facts.rotation.id}));
    document.insert("receipt".to_owned(), named(receipt));
    document.insert("destroyed".to_owned(), named(destroyed));
    seal(document, key)
}

fn named(document: &str) -> Value {
    json!({"sha256": hex(&sha256(document.as_bytes()))})
}

/// What was seen of the canaries, and who agreed.
fn witnesses(facts: &Facts<'_>, canaries: &CanaryReport) -> [(String, Value); 2] {
    [("canaries".to_owned(), json!(canaries)), ("approvals".to_owned(), json!(facts.circumstances.approvals))]
}

fn common(facts: &Facts<'_>, part: Part) -> Map<String, Value> {
    let members = [
        ("format", FORMAT.into()),
        ("part", part.as_str().into()),
        ("issued_at", facts.now.rfc3339().into()),
        ("from", key_facts(facts.from)),
        (
            "audit",
            json!({"entries": facts.circumstances.audit_head.as_ref().map_or(0, |(seq, _)| *seq), "head": facts.circumstances.audit_head.as_ref().map(|(_, hash)| hash)}),
        ),
        ("software", json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")})),
        ("process", json!({"started_at": facts.process_started_at.rfc3339()})),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn journal(rotation: &RotationRecord) -> Value {
    json!({
        "id": rotation.id,
        "purpose": rotation.purpose.as_str(),
        "state": rotation.state.as_str(),
        "reason": rotation.reason,
        "started_at": rotation.started_at.rfc3339(),
        "finished_at": rotation.finished_at.map(Timestamp::rfc3339),
        "drain_by": rotation.drain_by.to_string(),
    })
}

fn key_facts(key: &KeyRecord) -> Value {
    let date = |date: Option<Timestamp>| date.map(Timestamp::rfc3339);
    json!({
        "id": key.id,
        "commitment": hex(&key.commitment),
        "state": key.state.as_str(),
        "suspended": key.suspended,
        "compromised": key.compromised,
        "created_at": key.created_at.rfc3339(),
        "activated_at": date(key.dates.activated_at),
        "retired_at": date(key.dates.retired_at),
        "drained_at": date(key.dates.drained_at),
        "destroyed_at": date(key.dates.destroyed_at),
    })
}
