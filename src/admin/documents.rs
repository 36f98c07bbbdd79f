//! The JSON documents of the admin API and of `--json` (`interface.md` §8): one shape for both.
//!
//! Times are RFC 3339 in UTC, days `YYYY-MM-DD`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::session::LiveSession;
use crate::store::{AccountRecord, BindingRecord};

/// A freshly issued enrolment code: the only time it is ever shown.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct IssuedCode {
    /// Who may enrol with it.
    pub account: String,
    /// Twelve digits, in groups of four.
    pub code: String,
    /// The last instant it may be used.
    pub expires_at: String,
}

/// An account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// The operator's opaque id.
    pub account: String,
    /// `active` or `suspended`.
    pub state: String,
    /// Handsets bound.
    pub bindings: u32,
    /// Sessions open.
    pub sessions: usize,
    /// Whether a PIN is set.
    pub has_pin: bool,
    /// Upstream name -> the pairwise subject it knows the account by.
    pub subjects: BTreeMap<String, String>,
    /// When the account came to exist.
    pub created_at: String,
}

impl Account {
    /// The document of `record`, which has `sessions` open.
    #[must_use]
    pub fn of(record: &AccountRecord, sessions: usize) -> Self {
        Self {
            account: record.account.to_string(),
            state: record.state.as_str().to_owned(),
            bindings: record.bindings,
            sessions,
            has_pin: record.has_pin,
            subjects: record.subjects.iter().cloned().collect(),
            created_at: record.created_at.rfc3339(),
        }
    }
}

/// All accounts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Accounts {
    /// By id.
    pub accounts: Vec<Account>,
}

/// A handset bound to an account; no digest.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Binding {
    /// For `bindings revoke`.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// The carrier profile.
    pub carrier: String,
    /// The keys that made its digest, innermost first.
    pub chain: Vec<String>,
    /// The day it was made.
    pub bound_on: String,
    /// The day of the last sign-in.
    pub last_used_on: String,
}

impl From<&BindingRecord> for Binding {
    fn from(record: &BindingRecord) -> Self {
        Self {
            id: record.id.to_string(),
            account: record.account.to_string(),
            carrier: record.carrier.to_string(),
            chain: record.chain.keys().iter().map(ToString::to_string).collect(),
            bound_on: record.bound_on.to_string(),
            last_used_on: record.last_used_on.to_string(),
        }
    }
}

/// Bindings, oldest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Bindings {
    /// One each handset.
    pub bindings: Vec<Binding>,
}

/// An open session; no token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// For `sessions revoke`.
    pub id: String,
    /// Who is signed in.
    pub account: String,
    /// The carrier profile.
    pub carrier: String,
    /// `cookie` or `url`.
    pub transport: String,
    /// When the PIN was last typed in it; `null` if it was not.
    pub pin_at: Option<String>,
    /// When it was opened.
    pub created_at: String,
    /// When it was last used.
    pub last_seen_at: String,
    /// Its end, whatever happens.
    pub expires_at: String,
}

impl Session {
    /// The document of `session`.
    #[must_use]
    pub fn of<S>(session: &LiveSession<S>) -> Self {
        let facts = session.facts();
        Self {
            id: facts.id.to_string(),
            account: facts.account.to_string(),
            carrier: facts.carrier.to_string(),
            transport: session.transport().as_str().to_owned(),
            pin_at: session.pin_at().map(Timestamp::rfc3339),
            created_at: facts.created_at.rfc3339(),
            last_seen_at: session.last_seen_at().rfc3339(),
            expires_at: session.expires_at().rfc3339(),
        }
    }
}

/// Open sessions, oldest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Sessions {
    /// One each browser.
    pub sessions: Vec<Session>,
}

/// What an import did.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Handsets bound.
    pub imported: u64,
    /// Lines whose handset was bound to that very account before.
    pub unchanged: u64,
    /// Lines that were not taken, by number; at most 10,000 are listed.
    pub refused: Vec<RefusedLine>,
    /// Lines that were not taken and are not listed either.
    pub refused_beyond: u64,
}

impl Imported {
    /// All lines that were not taken.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        self.refused_beyond.saturating_add(self.refused.len() as u64)
    }
}

/// A line of an import that was not taken; nothing of it is repeated.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RefusedLine {
    /// Its number, from 1.
    pub line: u64,
    /// One word: `line-too-long`, `malformed-line`, `account-invalid`, `carrier-unknown`, `missing-identifier` (the
    /// carrier sends none), `malformed-identifier`, `transient-identifier`, `bound-elsewhere`, `account-suspended`,
    /// `binding-limit`, `key-ring-moved` (run the import again).
    pub reason: String,
}

/// How far an import is. What it counts is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportProgress {
    /// Handsets bound so far.
    pub imported: u64,
    /// Lines that changed nothing.
    pub unchanged: u64,
    /// Lines that were not taken.
    pub refused: u64,
}

/// One line of the answer to an import. The last one is [`Imported`] or a [`Refusal`].
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ImportEvent {
    /// How far it is.
    Progress {
        /// The counts.
        progress: ImportProgress,
    },
    /// It is done.
    Done(Imported),
    /// It ended early; what the last progress counted is kept.
    Refused(Refusal),
}

/// How many were ended or erased.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// The count.
    pub revoked: usize,
}

/// A refusal.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// What was refused.
    pub error: RefusalDetail,
}

/// Why it was refused.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RefusalDetail {
    /// One word, for scripts.
    pub reason: String,
    /// One sentence, for people.
    pub message: String,
    /// What is wrong with a configuration, each as `file:line: key: problem`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}
