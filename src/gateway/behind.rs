//! The ledger at start-up, and a store that is older than the ledger has seen it: one that was restored, or an old copy of
//! its file that somebody put back.
//!
//! Before a session is loaded or a handset served, what was erased since is erased again, and sessions and codes end; then
//! keys that have leaked or were destroyed since are said to have leaked, so that nobody signs in by what they made, and
//! the active binding key is replaced if it had been. The ledger is told last: a process that dies before does it again.

use std::path::Path;
use std::sync::Arc;

use crate::audit::{Action, AuditTrail, Effect, Event};
use crate::backup::{Backups, Behind, KeyFact, Ledger};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Finding, Severity};
use crate::keys::{Lifecycle, Moment};
use crate::rotation::{Rotations, Start};
use crate::store::{EmbeddedStore, KeyPurpose, KeyRecord, KeyState, KeyStore as _};
use crate::telemetry::Actor;

/// Why keys are replaced, in trail and journal.
const REASON: &str = "the store was restored from before this key was replaced, leaked or was destroyed";

/// Opens the ledger of the store; begins one where there is none. Brings a store that is behind up to what was erased.
pub(super) async fn open_ledger(
    config: &Config,
    store: &Arc<EmbeddedStore>,
    audit: &AuditTrail,
    now: Timestamp,
) -> Result<(Arc<Backups>, Option<Behind>), Finding> {
    let at_ledger = |problem: String| config.finding("backup.ledger", problem);
    let at_store = |problem: String| config.finding("store.path", problem);
    let store_id = store.store_id().await.map_err(|error| at_store(error.to_string()))?;
    let ledger = Ledger::of(&config.backup.ledger, &store_id);
    if !ledger.prepare().map_err(|error| at_ledger(error.to_string()))? {
        tracing::info!(path = %ledger.folder().display(), "a new ledger of backups was begun");
    }
    let backups =
        Backups::new(store_id, ledger, Arc::clone(store) as _, Arc::clone(store) as _, Arc::clone(store) as _);
    backups.bury().await.map_err(|error| at_ledger(error.to_string()))?;
    let behind = backups.behind().await.map_err(|error| at_ledger(error.to_string()))?;
    match &behind {
        None => backups.witness(now).await.map_err(|error| at_ledger(error.to_string()))?,
        Some(behind) => {
            let erased = backups.erase_again().await.map_err(|error| at_ledger(error.to_string()))?;
            let Behind { seen, key_revision, audit_seq } = behind;
            tracing::warn!(
                seen_at = seen.seen_at,
                key_revision,
                key_revision_seen = seen.key_revision,
                audit_seq,
                audit_seq_seen = seen.audit_seq,
                erased,
                "the store is older than the ledger has seen it; what was erased since was erased again"
            );
            let far =
                format!("entry {audit_seq} of {}, revision {key_revision} of {}", seen.audit_seq, seen.key_revision);
            let event = Event::new(Action::StoreBehind, Actor::Gateway).object(far).effect(Effect::of(erased));
            audit.note(event, now).await.map_err(|error| at_store(error.to_string()))?;
        }
    }
    Ok((Arc::new(backups), behind))
}

/// Replaces the keys of a store that was behind. Once nothing is left to do, the ledger knows that it is what it should be;
/// until then each start tries again.
pub(super) async fn catch_up(
    config: &Config,
    (behind, backups, audit): (&Behind, &Backups, &AuditTrail),
    (rotations, lifecycle): (&Rotations, &Lifecycle),
    clock: &dyn Clock,
) -> Result<(), Finding> {
    let at_keys = |problem: String| config.finding("keys", problem);
    let stored = lifecycle.stored().await.map_err(|error| at_keys(error.to_string()))?;
    let open = rotations.records().await.map_err(|error| at_keys(error.to_string()))?;
    let (mut replaced, mut undone) = (Vec::new(), Vec::new());
    for key in &stored.keys {
        let fact = behind.seen.keys.iter().find(|fact| fact.is_about(key));
        let Some(due) = fact.and_then(|fact| due(key, fact)) else { continue };
        let binding = key.purpose == KeyPurpose::Binding;
        // It was begun before, and goes on by itself.
        if !binding && due == Due::Replaced && open.iter().any(|r| r.state.is_open() && r.from == key.id) {
            continue;
        }
        let at = Moment::of(clock);
        let done = match (due, binding) {
            (Due::Leaked, true) => {
                rotations.compromise(&key.id, REASON, None, clock).await.map(drop).map_err(|e| e.to_string())
            }
            (Due::Leaked, false) => lifecycle.compromise(&key.id, REASON, None, at).await.map_err(|e| e.to_string()),
            (Due::Replaced, true) => {
                let start = Start { reason: REASON.to_owned(), ..Start::default() };
                rotations.start(start, at.now).await.map(drop).map_err(|e| e.to_string())
            }
            (Due::Replaced, false) => {
                lifecycle.start_rotation(key.purpose, REASON, None, at).await.map(drop).map_err(|e| e.to_string())
            }
        };
        match (done, due) {
            (Ok(()), _) => replaced.push(key.id.clone()),
            // Nobody may come in by it.
            (Err(problem), Due::Leaked) => {
                return Err(at_keys(format!(
                    "key {} must be replaced before the restored store serves: {problem}",
                    key.id
                )));
            }
            (Err(problem), Due::Replaced) => {
                tracing::warn!(key = key.id, problem, "the key was replaced once, and is in use in the restored store");
                undone.push(key.id.clone());
            }
        }
    }
    if !undone.is_empty() {
        tracing::warn!(
            keys = undone.join(" "),
            "the restored store is in use with keys that were replaced once; the next start tries to replace them again"
        );
        return Ok(());
    }
    tracing::warn!(keys = replaced.join(" "), "the restored store is in use; these keys of it are replaced");
    let event = Event::new(Action::StoreCaughtUp, Actor::Gateway).object(replaced.join(" "));
    let noted = audit.note(event, clock.now()).await.map(drop);
    let told = match noted {
        Ok(()) => backups.caught_up(clock.now()).await,
        Err(error) => Err(error),
    };
    told.map_err(|error| config.finding("backup.ledger", error.to_string()))
}

/// What a key that came back from a backup is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It leaked, or was destroyed: nothing that it made may count.
    Leaked,
    /// Another one took its place.
    Replaced,
}

fn due(key: &KeyRecord, fact: &KeyFact) -> Option<Due> {
    let gone = fact.compromised || (key.purpose == KeyPurpose::Binding && fact.state() == Some(KeyState::Destroyed));
    match key.state {
        // Flagged alone before, because no key could take its place; it is in use all the same.
        KeyState::Active if gone => Some(Due::Leaked),
        // One that waits would come into use by itself, or by the verb that it waits for.
        KeyState::Pending | KeyState::Retiring | KeyState::Inner if gone && !key.compromised => Some(Due::Leaked),
        KeyState::Active if fact.is_past(key.state) => Some(Due::Replaced),
        KeyState::Pending
        | KeyState::Active
        | KeyState::Retiring
        | KeyState::Inner
        | KeyState::Drained
        | KeyState::Destroyed => None,
    }
}

/// What is doubtful about where the ledger is.
pub(super) fn inspect_ledger(config: &Config, findings: &mut Vec<Finding>) {
    if config.backup.chosen && on_one_disk(&config.backup.ledger, &config.store.path) {
        let problem = "is on the disk of the store: whoever loses that loses the keys of all backups, too";
        let finding = config.finding("backup.ledger", problem.to_owned());
        findings.push(Finding { severity: Severity::Warning, ..finding });
    }
}

/// Whether both paths, or the first folders upwards that are there, are on one file system.
fn on_one_disk(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| path.ancestors().find_map(|path| Some(std::fs::metadata(path).ok()?.dev()));
    device(one).zip(device(other)).is_some_and(|(one, other)| one == other)
}
