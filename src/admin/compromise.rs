//! The report on a binding key that leaked: what was done, whom it concerns, where digests that it made still are, who has to
//! agree to its end and by when who is to be told. A drill makes the same, of a copy of the store.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::operations::Operations;
use crate::backup::{BackupError, Entry};
use crate::clock::{Day, Timestamp};
use crate::rotation;

/// Days in which the authority expects the first report: three to five (guidelines on the Enforcement Rules of the APPI,
/// article 8).
const FIRST_REPORT: u32 = 5;
/// Days in which it expects the whole one, and where somebody may have meant harm (the same article).
const WHOLE_REPORT: u32 = 30;
const WHOLE_REPORT_OF_MALICE: u32 = 60;

/// What was done when a binding key was said to have leaked, and what is left to do.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CompromiseReport {
    /// The key.
    pub key: String,
    /// Why, in the words of whoever said so.
    pub reason: String,
    /// Bindings that the key had a part in. None of them signs in before its PIN or a new code took it off the key.
    /// These counts are null where the store did not tell.
    pub bindings: Option<u64>,
    /// Those whose account has a PIN, which is asked for.
    pub bindings_with_pin: Option<u64>,
    /// Those that take a new enrolment code.
    pub bindings_without_pin: Option<u64>,
    /// Accounts that these bindings belong to.
    pub accounts: Option<u64>,
    /// Sessions of theirs that ended.
    pub sessions_ended: usize,
    /// The rotation that moves the bindings off the key, if any has to.
    pub rotation: Option<String>,
    /// What was done and when, in order.
    pub steps: Vec<CompromiseStep>,
    /// Backups that hold digests which the key had a part in, the latest first; null where the ledger does not tell.
    pub backups: Option<Vec<ExposedBackup>>,
    /// Copies of the store that lie beside it, from before an upgrade or a restore, by their names; null where the folder
    /// cannot be read.
    pub copies: Option<Vec<String>>,
    /// What ends it: the key is destroyed.
    pub approvals: ApprovalsToEnd,
    /// By when who is to be told.
    pub notices: NoticesDue,
    /// What is left to do, a line each.
    pub next: Vec<String>,
}

/// A step, and when it was done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CompromiseStep {
    /// `flagged`, `replaced`, `sessions-ended` or `wrapping`; `wrapped` once no binding is found by what the key alone made.
    pub step: String,
    /// When.
    pub at: String,
}

/// A backup that whoever has the key and the backup's own key can search.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ExposedBackup {
    /// Its id, for `backups destroy`.
    pub id: String,
    /// When it was taken.
    pub taken_at: String,
    /// Bindings in it.
    pub bindings: u64,
    /// The last day on which it can be opened; null: until somebody destroys it.
    pub until: Option<String>,
}

/// Who has to agree before the key is destroyed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ApprovalsToEnd {
    /// How many people.
    pub needs: u32,
    /// Who may: people, certificates, or `uid:…`.
    pub approvers: Vec<String>,
}

/// By when a privacy officer in Japan has to have told whom (APPI article 26). Data under strong encryption may be exempt,
/// which the report helps to judge.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NoticesDue {
    /// The first report to the authority.
    pub preliminary_by: String,
    /// The whole one, and word to the people concerned.
    pub final_by: String,
    /// The same where somebody may have meant harm.
    pub final_by_if_malicious: String,
}

impl NoticesDue {
    fn from(known_on: Day) -> Self {
        let by = |days: u32| Day::from_unix_days(known_on.unix_days().saturating_add_unsigned(days)).to_string();
        Self {
            preliminary_by: by(FIRST_REPORT),
            final_by: by(WHOLE_REPORT),
            final_by_if_malicious: by(WHOLE_REPORT_OF_MALICE),
        }
    }
}

/// The report on what was done by `now`; `untold` says what to do while the ledger of backups does not know it. Fails never:
/// what cannot be told is null, because what was done stands.
pub(super) async fn report(
    ops: &Operations,
    done: rotation::CompromiseReport,
    untold: Option<&str>,
    now: Timestamp,
) -> CompromiseReport {
    let rotation::CompromiseReport { key, reason, reach, sessions_ended, rotation, steps } = done;
    let backups = exposed(ops, &key).await;
    let copies = ops.promises.subjects.store.copies().await;
    let copies = copies.inspect_err(|error| tracing::error!(%error, "copies of the store could not be listed")).ok();
    // What goes by itself is a drill's.
    let copies = copies.map(|all| all.into_iter().filter(|(_, passing)| !passing).map(|(name, _)| name).collect());
    let copies: Option<Vec<String>> = copies;
    let (needs, approvers) = ops.approval_policy().to_destroy_keys();
    let notices = NoticesDue::from(now.day());
    let mut next: Vec<String> = untold.map(str::to_owned).into_iter().collect();
    match &backups {
        None => next.push("repair the ledger of backups, then see `sekisho backups list`".to_owned()),
        Some(backups) => next.extend(backups.iter().map(|backup| format!("sekisho backups destroy {}", backup.id))),
    }
    next.extend(copies.iter().flatten().map(|copy| format!("remove {copy}, beside the store")));
    let without_pin = reach.as_ref().map(|reach| reach.bindings.saturating_sub(reach.with_pin));
    if without_pin != Some(0) {
        next.push("sekisho codes issue ACCOUNT, for each account without a PIN whose person asks".to_owned());
    }
    next.push(format!(
        "privacy officer: first report by {}, whole one by {}",
        notices.preliminary_by, notices.final_by
    ));
    next.push(format!("sekisho keys destroy {key}, once it is drained and cooled off ({needs} to agree)"));
    CompromiseReport {
        key,
        reason,
        bindings: reach.as_ref().map(|reach| reach.bindings),
        bindings_with_pin: reach.as_ref().map(|reach| reach.with_pin),
        bindings_without_pin: without_pin,
        accounts: reach.map(|reach| reach.accounts),
        sessions_ended,
        rotation: rotation.map(|progress| progress.record.id),
        steps: steps.iter().map(|step| CompromiseStep { step: step.what.to_owned(), at: step.at.rfc3339() }).collect(),
        backups,
        copies,
        approvals: ApprovalsToEnd { needs, approvers },
        notices,
        next,
    }
}

/// The backups that open and hold digests of `key`.
async fn exposed(ops: &Operations, key: &str) -> Option<Vec<ExposedBackup>> {
    let entries = match ops.backups.list().await {
        Ok(entries) => entries,
        Err(BackupError::Stopping) => return None,
        Err(error) => {
            tracing::error!(%error, "the report on a leaked key does not say which backups it concerns");
            return None;
        }
    };
    let concerned = |entry: &Entry| entry.opens() && entry.digests_under.iter().any(|under| under == key);
    let days = ops.config.config().backup.retention_days;
    let shown = |entry: Entry| ExposedBackup {
        until: days.and_then(|days| entry.until(days)).map(|day| day.to_string()),
        id: entry.id,
        taken_at: entry.taken_at,
        bindings: entry.bindings,
    };
    Some(entries.into_iter().filter(concerned).map(shown).collect())
}
