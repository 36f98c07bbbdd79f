//! The documents of `subject`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::documents::Binding;
use crate::store::{ErasureRecord, HoldRecord};

/// Everything that is kept of an account, as `docs/privacy.md` describes it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct ExportedSubject(Map<String, Value>);

impl ExportedSubject {
    /// The document; one that is no object is empty.
    pub(super) fn of(document: Value) -> Self {
        Self(match document {
            Value::Object(members) => members,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        })
    }

    /// The items, each with what it is, how many records of it there are, for how long and what for.
    #[must_use]
    pub fn items(&self) -> Vec<[String; 4]> {
        let items = self.0.get("items").and_then(Value::as_array);
        let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let count = |item: &Value| item.get("records").and_then(Value::as_array).map_or(0, Vec::len).to_string();
        let row = |item: &Value| [text(item, "what"), count(item), text(item, "retention"), text(item, "purpose")];
        items.into_iter().flatten().map(row).collect()
    }
}

/// What became of an erasure.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ErasedSubject {
    /// What went.
    pub erased: ErasedCounts,
    /// The sealed statement of it; `subject verify` judges it.
    #[schema(value_type = Object)]
    pub certificate: Map<String, Value>,
}

/// How much went.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ErasedCounts {
    /// Handsets.
    pub bindings: u64,
    /// Sessions.
    pub sessions: u64,
    /// Enrolment codes.
    pub codes: u64,
}

/// A handset with what its person calls it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LabelledHandset {
    /// The handset.
    pub binding: Binding,
    /// Its label.
    pub label: Option<String>,
}

/// The hold on an account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ShownHold {
    /// Which account.
    pub account: String,
    /// The hold; null where there is none.
    pub hold: Option<Held>,
}

/// A legal hold.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// Why.
    pub reason: String,
    /// Who placed it.
    pub placed_by: String,
    /// When.
    pub placed_at: String,
}

impl From<&HoldRecord> for Held {
    fn from(record: &HoldRecord) -> Self {
        let HoldRecord { reason, placed_by, placed_at } = record;
        Self { reason: reason.clone(), placed_by: placed_by.clone(), placed_at: placed_at.rfc3339() }
    }
}

/// Erasures.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Erasures {
    /// The latest first.
    pub erasures: Vec<Erasure>,
}

/// That an account was erased.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Erasure {
    /// `e1`.
    pub id: String,
    /// Who that was in the audit trail; nobody can tell any more whose it was.
    pub pseudonym: Option<String>,
    /// When.
    pub erased_at: String,
    /// Handsets.
    pub bindings: u64,
    /// Enrolment codes.
    pub codes: u64,
    /// Ids that consoles knew it by.
    pub subjects: u64,
    /// Whether it was broken off and waits to be finished.
    pub unfinished: bool,
}

impl From<&ErasureRecord> for Erasure {
    fn from(record: &ErasureRecord) -> Self {
        Self {
            id: record.id.clone(),
            pseudonym: record.pseudonym.clone(),
            erased_at: record.erased_at.rfc3339(),
            bindings: record.bindings,
            codes: record.codes,
            subjects: record.subjects,
            unfinished: record.account.is_some(),
        }
    }
}
