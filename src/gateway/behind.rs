//! The ledger at start-up, and a store that is older than the ledger has seen it: one that was restored, or an old copy of
//! its file that somebody put back.
//!
//! Before a session is loaded, what was erased since is erased again, and sessions and codes end. What else the store has to
//! become before a handset is served is for [`catch_up`](super::catch_up).

use std::path::Path;
use std::sync::Arc;

use crate::audit::{Action, AuditTrail, Effect, Event};
use crate::backup::{Backups, Behind, Ledger};
use crate::clock::Timestamp;
use crate::config::{Config, Finding, Severity};
use crate::store::{EmbeddedStore, KeyStore as _};
use crate::telemetry::Actor;

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
