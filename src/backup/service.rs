//! Backups of a running gateway: taken, listed, destroyed; and the ledger kept up with the store.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::archive::{ArchiveError, ArchiveHeader, ArchiveKey};
use super::hex::hex;
use super::ledger::{Entry, KeyFact, Ledger, LedgerError, NewEntry, Witness};
use super::taking::Taking;
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::keys::{Kek, KekError};
use crate::store::{AuditStore, BackupStore, CopyKind, KeyRecord, KeyState, KeyStore, StoreError, Tombstone};

/// Tombstones that are moved at a time.
const PIECE: u32 = 1000;

/// Why there is no backup, or no answer about one.
#[derive(Debug, Error)]
pub enum BackupError {
    /// One is being taken; the disk has enough to do.
    #[error("a backup is being taken; ask again when it is done")]
    Busy,
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The token that holds the KEK failed.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy could not be written as an archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its key was destroyed while it was taken.
    #[error("the key of this backup was destroyed while it was taken; nobody can open what there is of it")]
    Destroyed,
    /// The process ends.
    #[error("the gateway stops")]
    Stopping,
}

/// By how much a store is behind what was seen of it: it was restored, or an old copy of its file was put back.
#[derive(Debug)]
pub struct Behind {
    /// What was seen.
    pub seen: Witness,
    /// Counts the changes to the keys of the store as it is.
    pub key_revision: u64,
    /// The number of the last entry of its audit trail.
    pub audit_seq: u64,
}

/// The backups of one store, and its ledger.
pub struct Backups {
    store_id: [u8; 16],
    ledger: Arc<Ledger>,
    store: Arc<dyn BackupStore>,
    keys: Arc<dyn KeyStore>,
    audit: Arc<dyn AuditStore>,
    /// One at a time moves tombstones.
    burying: Mutex<()>,
    /// What the ledger says of the store, as far as this process knows.
    seen: Mutex<Option<Witness>>,
    taking: Arc<Mutex<()>>,
}

impl Backups {
    /// Of a store, with its ledger.
    #[must_use]
    pub fn new(
        store_id: [u8; 16],
        ledger: Ledger,
        store: Arc<dyn BackupStore>,
        keys: Arc<dyn KeyStore>,
        audit: Arc<dyn AuditStore>,
    ) -> Self {
        Self {
            store_id,
            ledger: Arc::new(ledger),
            store,
            keys,
            audit,
            burying: Mutex::default(),
            seen: Mutex::default(),
            taking: Arc::default(),
        }
    }

    /// Copies the store, and begins to hand the copy out as an encrypted file. Its key is in the ledger by then.
    ///
    /// # Errors
    /// [`BackupError`]; nothing is left of it.
    pub async fn take(
        &self,
        id: [u8; 16],
        kek: &Kek,
        entropy: &dyn Entropy,
        by: &str,
        now: Timestamp,
    ) -> Result<Taking, BackupError> {
        let turn = Arc::clone(&self.taking).try_lock_owned().map_err(|_| BackupError::Busy)?;
        let key = ArchiveKey::fresh(entropy);
        let wrapped = kek.wrap_for_backup(&self.store_id, &id, key.material(), entropy).await?;
        let copied = self.store.copy(CopyKind::Backup).await?;
        let header = ArchiveHeader {
            store_id: self.store_id,
            backup_id: id,
            taken_at: now,
            key_revision: copied.key_revision,
            schema: copied.schema,
        };
        let entry = Entry::new(NewEntry {
            id,
            store: self.store_id,
            taken_at: now.rfc3339(),
            taken_by: by.to_owned(),
            key_revision: copied.key_revision,
            accounts: copied.accounts,
            bindings: copied.bindings,
            digests_under: copied.digests_under,
            keys: copied.keys,
            kek: kek.name(),
            wrapped,
        });
        let kept = entry.clone();
        self.blocking(move |ledger| ledger.keep(&kept)).await?;
        Ok(Taking::begin(copied.file, copied.length, &key, &header, (entry, Arc::clone(&self.ledger)), turn))
    }

    /// An id for a backup.
    #[must_use]
    pub fn fresh_id(entropy: &dyn Entropy) -> [u8; 16] {
        random(entropy)
    }

    /// All backups of this store that the ledger knows, the latest first.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn list(&self) -> Result<Vec<Entry>, BackupError> {
        self.blocking(Ledger::entries).await
    }

    /// One backup. `None` if the ledger does not know it.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn entry(&self, id: &str) -> Result<Option<Entry>, BackupError> {
        let id = id.to_owned();
        self.blocking(move |ledger| ledger.entry(&id)).await
    }

    /// Destroys the key of a backup: no copy of its file opens any more. `None` if the ledger does not know it.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn destroy(&self, id: &str, by: &str, now: Timestamp) -> Result<Option<Entry>, BackupError> {
        let (id, by) = (id.to_owned(), by.to_owned());
        self.blocking(move |ledger| ledger.destroy(&id, &now.rfc3339(), &by)).await
    }

    /// The same after an erasure that is done and will be acknowledged in any case: where the ledger fails now, the store
    /// keeps the tombstones, and each round of upkeep tries again.
    pub async fn bury_erased(&self) {
        if let Err(error) = self.bury().await {
            tracing::error!(%error, "the ledger of backups was not told of an erasure yet");
        }
    }

    /// To be called once something was erased, before that is acknowledged: from now on no older copy brings it back.
    /// Whoever erases in the store need not say what: the store does.
    ///
    /// # Errors
    /// [`StoreError`] if the ledger cannot be written, too; the store goes on telling until it was heard.
    pub async fn bury(&self) -> Result<(), StoreError> {
        let _burying = self.burying.lock().await;
        loop {
            let (tombstones, until) = self.store.tombstones(PIECE).await?;
            if tombstones.is_empty() {
                return Ok(());
            }
            self.blocking(move |ledger| ledger.bury(&tombstones)).await.map_err(unavailable)?;
            self.store.tombstones_kept(until).await?;
        }
    }

    /// Has the ledger know how far the store has come, and what became of its keys. To be called once a key was destroyed
    /// or has leaked, before that is acknowledged, and now and then. A leak is acknowledged with a warning where it fails.
    ///
    /// # Errors
    /// [`StoreError`] if the ledger cannot be written, too; the next call makes up for it.
    pub async fn witness(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        if seen.is_none() {
            *seen = self.blocking(Ledger::witness).await.map_err(unavailable)?;
        }
        // The keys first: a change in between is in the trail of the next look.
        let stored = self.keys.keys().await?;
        let head = self.audit.audit_head().await?;
        let keys = forwards(seen.as_ref().map(|seen| &*seen.keys).unwrap_or_default(), &stored.keys);
        let mut present = Witness {
            format: 1,
            behind: false,
            seen_at: now.rfc3339(),
            key_revision: stored.revision,
            audit_seq: head.map_or(0, |head| head.seq),
            audit_hash: head.map(|head| head.hash.to_string()).unwrap_or_default(),
            keys,
        };
        if let Some(seen) = &*seen {
            if seen.behind {
                // Where the store should be stays known until it is there, whatever its keys do meanwhile.
                present = Witness { keys: present.keys, ..seen.clone() };
            }
            let same = Witness { seen_at: seen.seen_at.clone(), ..present.clone() };
            if same == *seen {
                return Ok(());
            }
        }
        let kept = present.clone();
        self.blocking(move |ledger| ledger.keep_witness(&kept)).await.map_err(unavailable)?;
        *seen = Some(present);
        Ok(())
    }

    /// Both, at the end of a run.
    ///
    /// # Errors
    /// As [`Backups::bury`].
    pub async fn settle(&self, now: Timestamp) -> Result<(), StoreError> {
        self.bury().await?;
        self.witness(now).await
    }

    /// Whether the store is behind what was seen of it, or was found so before and has not caught up. From then on the
    /// ledger does not forget how far it should be until [`Backups::caught_up`], whatever becomes of this process.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn behind(&self) -> Result<Option<Behind>, BackupError> {
        let mut known = self.seen.lock().await;
        let Some(mut seen) = self.blocking(Ledger::witness).await? else { return Ok(None) };
        let key_revision = self.keys.keys().await?.revision;
        let audit_seq = self.audit.audit_head().await?.map_or(0, |head| head.seq);
        let there = self.audit.audit_entries(seen.audit_seq.saturating_sub(1), 1).await?;
        // What age took from the beginning of the trail says nothing.
        let other = there.first().is_some_and(|e| e.seq == seen.audit_seq && e.hash.to_string() != seen.audit_hash);
        if !seen.behind && key_revision >= seen.key_revision && audit_seq >= seen.audit_seq && !other {
            return Ok(None);
        }
        if !seen.behind {
            seen.behind = true;
            let kept = seen.clone();
            self.blocking(move |ledger| ledger.keep_witness(&kept)).await?;
        }
        *known = Some(seen.clone());
        Ok(Some(Behind { seen, key_revision, audit_seq }))
    }

    /// Erases what was erased since, and ends all sessions and codes. Returns how many accounts and bindings were there.
    ///
    /// # Errors
    /// [`BackupError`]; to be done again.
    pub async fn erase_again(&self) -> Result<u64, BackupError> {
        let tombstones = self
            .blocking(|ledger| {
                let mut all: Vec<Vec<Tombstone>> = Vec::new();
                ledger.tombstones::<LedgerError>(PIECE as usize, |some| {
                    all.push(some);
                    Ok(())
                })?;
                Ok(all)
            })
            .await?;
        let mut found = self.store.erase_again(Vec::new()).await?;
        for some in tombstones {
            found += self.store.erase_again(some).await?;
        }
        Ok(found)
    }

    /// The store is what it should be again.
    ///
    /// # Errors
    /// [`StoreError`] if the ledger cannot be written, too.
    pub async fn caught_up(&self, now: Timestamp) -> Result<(), StoreError> {
        if let Some(seen) = &mut *self.seen.lock().await {
            seen.behind = false;
        }
        self.witness(now).await
    }

    /// The ledger waits for its disk where that holds nobody up.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, BackupError> {
        let ledger = Arc::clone(&self.ledger);
        let done = spawn_blocking(move || work(&ledger)).await;
        // Only the end of the runtime, or a defect, ends it early.
        Ok(done.map_err(|_| BackupError::Stopping)??)
    }
}

/// To whoever changes the store it is one thing with its ledger.
fn unavailable(error: BackupError) -> StoreError {
    if let BackupError::Store(error) = error { error } else { StoreError::Unavailable(error.to_string()) }
}

/// What is known of each key: as far as it ever was seen.
fn forwards(known: &[KeyFact], stored: &[KeyRecord]) -> Vec<KeyFact> {
    let mut facts = known.to_vec();
    for key in stored {
        let commitment = hex(&key.commitment);
        match facts.iter_mut().find(|fact| fact.commitment == commitment) {
            Some(fact) => {
                fact.compromised |= key.compromised;
                if fact.state().is_none_or(|known| place(known) < place(key.state)) {
                    key.state.as_str().clone_into(&mut fact.state);
                }
            }
            None => facts.push(KeyFact {
                id: key.id.clone(),
                commitment,
                state: key.state.as_str().to_owned(),
                compromised: key.compromised,
            }),
        }
    }
    facts
}

fn place(state: KeyState) -> Option<usize> {
    KeyState::ALL.iter().position(|other| *other == state)
}

impl KeyFact {
    /// How far it is in its life.
    #[must_use]
    pub fn state(&self) -> Option<KeyState> {
        KeyState::ALL.into_iter().find(|state| state.as_str() == self.state)
    }

    /// Whether the key was seen further in its life than that.
    #[must_use]
    pub fn is_past(&self, state: KeyState) -> bool {
        self.state().is_some_and(|known| place(known) > place(state))
    }

    /// Whether it is about this key, and not about one of the same id in another life of the store.
    #[must_use]
    pub fn is_about(&self, key: &KeyRecord) -> bool {
        self.commitment == hex(&key.commitment)
    }
}
