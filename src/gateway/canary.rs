//! Once a day a canary goes the way of an identifier, and every file that the process writes is searched for it.
//!
//! Its way: header fields, trailers and all spellings, through codec, head, routes, strip and pool (`self_test`); then, as a
//! handset that nobody knows, through stretch, key ring and look-up. At start it is the canary of the test before readiness.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::Gateway;
use super::self_test::SelfTestError;
use crate::binding::{BindingError, resolve};
use crate::carrier::RawIdentifier;
use crate::config::{AccessLog, Config, SecurityLog};
use crate::privacy::{CANARY_PROOF, Canary, Searched};
use crate::store::{Proof, StoreError};

impl Gateway {
    /// Does it if it is due, and notes what was seen.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be noted; tried again at the next call.
    pub(super) async fn search_for_canary(&self) -> Result<(), StoreError> {
        let due = Arc::clone(&self.promises.canary);
        if !due.is_due(self.clock.now()) {
            return Ok(());
        }
        let seen = match self.planted_canary().await {
            Ok(canary) => self.searched(canary).await?,
            Err(why) => Seen::Nothing(why.to_string()),
        };
        let now = self.clock.now();
        match seen {
            // What was proved before is as old as it is.
            Seen::Nothing(why) => {
                tracing::warn!(why, "the search for a canary could not be carried out");
                due.done(now, false);
            }
            Seen::Files { ok, detail } => {
                let proof = Proof { name: CANARY_PROOF.to_owned(), at: now, ok, detail };
                self.promises.proofs.note_proof(proof).await?;
                due.done(now, true);
            }
        }
        Ok(())
    }

    /// One that has gone through the stages of the head. A forged field that survives now is a discovery, and nobody is served
    /// any more; a test that could not be carried out is none.
    async fn planted_canary(&self) -> Result<Canary, SelfTestError> {
        if let Some(canary) = self.promises.canary.take() {
            return Ok(canary);
        }
        let canary = Canary::fresh(&*self.entropy);
        match self.forge(&canary).await {
            Ok(()) => Ok(canary),
            Err(error) => {
                if matches!(error, SelfTestError::Survived(_)) {
                    self.doubt();
                }
                error.log();
                Err(error)
            }
        }
    }

    async fn searched(&self, canary: Canary) -> Result<Seen, StoreError> {
        let looked_up = match self.keys.binding.digest_in_bulk(RawIdentifier::canary(&canary.octets())).await {
            Ok(candidates) => resolve(&*self.bindings, &self.keys.binding, candidates, self.clock.now()).await,
            Err(error) => Err(error.into()),
        };
        match looked_up {
            Err(BindingError::NotBound) => {}
            Err(BindingError::Store(error)) => return Err(error),
            Err(error) => return Ok(Seen::Nothing(error.to_string())),
            Ok(_) => return Ok(Seen::Nothing("it was taken for a handset".to_owned())),
        }
        let (files, stop) = (written_files(&self.config), self.shutdown.clone());
        let (search, store) = (Arc::clone(&self.promises.canary), self.config.store.path.clone());
        let searched = spawn_blocking(move || search.search(&store, &files, &canary, || stop.is_cancelled())).await;
        // Only the end of the runtime, or a defect, ends it early.
        let searched = searched.ok().flatten();
        Ok(searched.map_or_else(|| Seen::Nothing("the gateway stops".to_owned()), |searched| Seen::of(&searched)))
    }
}

/// What a search tells.
enum Seen {
    /// Nothing, and why.
    Nothing(String),
    Files {
        ok: bool,
        detail: String,
    },
}

impl Seen {
    fn of(searched: &Searched) -> Self {
        let Searched { files, octets, found, unread } = searched;
        let names =
            |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        if !found.is_empty() {
            let names = names(found);
            tracing::error!(files = names, "a canary that went the way of an identifier stands in files");
            Self::Files { ok: false, detail: format!("a canary stands in {names}") }
        } else if !unread.is_empty() {
            Self::Nothing(format!("these could not be read: {}", names(unread)))
        } else if *files == 0 {
            Self::Nothing("no file was there".to_owned())
        } else {
            let detail = format!("a canary is in none of {files} files ({} KiB)", octets.div_ceil(1024));
            Self::Files { ok: true, detail }
        }
    }
}

/// What the process writes: the store with its journal and whatever stands beside it under its name, the ledger of backups,
/// the logs and what they were rotated to.
fn written_files(config: &Config) -> Vec<PathBuf> {
    let mut all = named_like(&config.store.path);
    all.push(config.backup.ledger.clone());
    if let AccessLog::File(path) = &config.log.access {
        all.extend(named_like(path));
    }
    if let SecurityLog::File(path) = &config.log.security {
        all.extend(named_like(path));
    }
    all
}

/// What stands beside `path` and begins with its name. A folder that cannot be listed is given instead, so that it counts as
/// not read.
fn named_like(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![folder.to_owned()] };
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_like = |found: &PathBuf| found.file_name().is_some_and(|found| found.as_encoded_bytes().starts_with(name));
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_like).collect()
}
