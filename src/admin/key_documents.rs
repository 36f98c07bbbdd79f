//! The documents of keys (`interface.md` §8). Nothing in them is of a key's material.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::approvals::Approved;
use super::compromise::CompromiseReport;
use crate::assertion::jwk_of_point;
use crate::clock::Timestamp;
use crate::store::{KeyPurpose, KeyRecord};

/// What a key is for, in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Keyed hashes of handset identifiers.
    Binding,
    /// Signatures of assertions.
    Assertion,
    /// Checkpoints of the audit chain, and receipts.
    Audit,
    /// Keyed hashes of enrolment codes and handset tags.
    Session,
}

impl From<Purpose> for KeyPurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Binding => Self::Binding,
            Purpose::Assertion => Self::Assertion,
            Purpose::Audit => Self::Audit,
            Purpose::Session => Self::Session,
        }
    }
}

/// A key, without anything of its material.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// `k1`.
    pub id: String,
    /// `binding`, `assertion`, `session` or `audit`.
    pub purpose: String,
    /// `pending`, `active`, `retiring`, `inner`, `drained` or `destroyed`.
    pub state: String,
    /// Whether what needs it is refused.
    pub suspended: bool,
    /// Whether it is known to have leaked.
    pub compromised: bool,
    /// When it was made.
    pub created_at: String,
    /// When it came into use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<String>,
    /// When it was no longer used for anything new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<String>,
    /// When nothing needed it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained_at: Option<String>,
    /// When it may be destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destroyable_at: Option<String>,
    /// When it was wiped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destroyed_at: Option<String>,
    /// The `kid` of its assertions (RFC 7638).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// SHA-256 that only this key gives and that tells nothing of it, in hexadecimal; receipts name it.
    pub commitment: String,
    /// What was done, in the answer to `compromise` of a binding key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<CompromiseReport>>,
    /// What is done all the same but not everywhere, in the answer to `compromise` and to `destroy`: a line each, with what is
    /// to be done about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Key {
    /// The document of `record`, which may be destroyed at that time.
    #[must_use]
    pub fn of(record: &KeyRecord, destroyable_at: Option<Timestamp>) -> Self {
        let date = |date: Option<Timestamp>| date.map(Timestamp::rfc3339);
        let dates = record.dates;
        let signs_assertions = record.purpose == KeyPurpose::Assertion;
        let jwk = record.public.as_deref().filter(|_| signs_assertions).and_then(jwk_of_point);
        Self {
            id: record.id.clone(),
            purpose: record.purpose.as_str().to_owned(),
            state: record.state.as_str().to_owned(),
            suspended: record.suspended,
            compromised: record.compromised,
            created_at: record.created_at.rfc3339(),
            activated_at: date(dates.activated_at),
            retired_at: date(dates.retired_at),
            drained_at: date(dates.drained_at),
            destroyable_at: date(destroyable_at),
            destroyed_at: date(dates.destroyed_at),
            kid: jwk.and_then(|jwk| jwk.get("kid")?.as_str().map(str::to_owned)),
            commitment: hexadecimal(&record.commitment),
            report: None,
            warnings: Vec::new(),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// All keys, by purpose and age; those that were destroyed too.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<Key>,
    /// Counts the changes to any key: the `ETag`, for `If-Match`.
    pub revision: u64,
}

/// What became of `keys destroy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Destroyed {
    /// It waits for people.
    Waits(Approved),
    /// What is left of the key.
    Done(Key),
}

/// What became of `keys rewrap`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Rewrapped {
    /// How many keys are wrapped under `keys.kek_next` now.
    pub rewrapped: usize,
    /// What is wrong with that KEK all the same: a token that gives the key out, or needs no PIN.
    pub warnings: Vec<String>,
}

/// The public half of a key that signs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicKey {
    /// Which key.
    pub id: String,
    /// `assertion` or `audit`.
    pub purpose: String,
    /// As a JWK (RFC 7517 §4), its `kid` the RFC 7638 thumbprint.
    pub jwk: serde_json::Value,
    /// As an uncompressed point (SEC 1 §2.3.3), base64url: what audit exports and receipts name.
    pub point: String,
}
