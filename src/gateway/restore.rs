//! `restore`: a backup in the place of the store, while no gateway runs. All of it is verified first.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

use super::opening;
use crate::backup::{
    ArchiveError, ArchiveHeader, ArchiveKey, ArchiveReader, BackupError, Backups, Entry, Ledger, LedgerError, hex,
};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::{Config, Finding};
use crate::entropy::SystemEntropy;
use crate::keys::{Kek, KekError, KeySet, KeysError};
use crate::store::{EmbeddedStore, Inspection, KeyStore as _, OpenError, StoreError, VacantPlace};

/// What was restored.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// The backup.
    pub backup: String,
    /// When it was taken.
    pub taken_at: String,
    /// Where the store is.
    pub store: PathBuf,
    /// Where the one is that was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former: Option<PathBuf>,
}

/// Why nothing was restored, and nothing changed.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The configuration or the KEK cannot be used.
    #[error("the configuration cannot be used")]
    Configuration(Vec<Finding>),
    /// The backup cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The backup.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no backup, of a newer program, changed or cut off.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The ledger does not know it.
    #[error(
        "the ledger {} does not know backup {backup}, and nobody else has its key; is backup.ledger the folder of the \
         gateway that took it, or a copy of that?", ledger.display()
    )]
    Unknown {
        /// Its id.
        backup: String,
        /// Where it was looked for.
        ledger: PathBuf,
    },
    /// Its key was destroyed.
    #[error("the key of backup {backup} was destroyed ({destroyed}); no copy of its file can be opened any more")]
    Destroyed {
        /// Its id.
        backup: String,
        /// When, and by whom.
        destroyed: String,
    },
    /// The KEK is another one.
    #[error(
        "this backup needs the KEK {needed}; keys.kek is {found}. Name the KEK of its day as keys.kek, restore, and rewrap"
    )]
    WrongKek {
        /// The KEK of its day.
        needed: String,
        /// The one of the configuration.
        found: String,
    },
    /// There is a store already.
    #[error("{}: there is a store; --replace keeps it beside and puts the backup in its place", .0.display())]
    Occupied(PathBuf),
    /// The store that is there cannot be read, or is in use.
    #[error(
        "the store that is there cannot be taken over: {0}; stop its gateway, or move store and journal (-wal) away"
    )]
    Former(OpenError),
    /// What is in the backup is no sound store, or there is no room for it.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The keys in it cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The token that holds the KEK failed.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What the store that is there knows could not be brought into the ledger.
    #[error("the ledger was not brought up to the store that is there: {0}")]
    Settling(#[from] StoreError),
    /// The process could not be set up.
    #[error("the runtime cannot start: {0}")]
    Runtime(io::Error),
}

impl RestoreError {
    /// The word for it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "usage",
            Self::File { .. } => "backup-unreadable",
            Self::Archive(ArchiveError::NotABackup) => "not-a-backup",
            Self::Archive(ArchiveError::Newer(_)) => "backup-newer",
            Self::Archive(_) => "backup-damaged",
            Self::Unknown { .. } => "backup-unknown",
            Self::Destroyed { .. } => "backup-destroyed",
            Self::WrongKek { .. } | Self::Kek(_) => "kek",
            Self::Occupied(_) => "store-exists",
            Self::Former(_) | Self::Settling(_) => "store-in-the-way",
            Self::Store(_) | Self::Keys(_) => "store-unusable",
            Self::Ledger(_) => "ledger-unusable",
            Self::Runtime(_) => "internal-error",
        }
    }
}

/// `sekisho restore FILE --config CONFIG`.
///
/// # Errors
/// [`RestoreError`]; the store that is there is as it was.
pub fn restore(config: &Path, file: &Path, replace: bool) -> Result<Restored, RestoreError> {
    let (config, _) = Config::load(config).map_err(RestoreError::Configuration)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RestoreError::Runtime)?;
    runtime.block_on(restore_with(&config, file, replace, SystemClock::default().now()))
}

async fn restore_with(config: &Config, file: &Path, replace: bool, now: Timestamp) -> Result<Restored, RestoreError> {
    let source = File::open(file).map_err(|source| RestoreError::File { path: file.to_owned(), source })?;
    let unopened = ArchiveReader::head(BufReader::new(source))?;
    let header = unopened.header().clone();
    let (key, kek) = key_of(config, &header).await?;
    verify(file, &key)?;
    if config.store.path.exists() {
        if !replace {
            return Err(RestoreError::Occupied(config.store.path.clone()));
        }
        settle_former(config, now).await?;
    }
    let place = VacantPlace::take(&config.store.path).map_err(RestoreError::Former)?;
    // Somebody may have come in between.
    if !replace && place.is_occupied()? {
        return Err(RestoreError::Occupied(config.store.path.clone()));
    }
    let mut draft = place.draft()?;
    let mut reader = unopened.open(&key);
    while let Some(chunk) = reader.chunk()? {
        draft
            .write_all(&chunk)
            .map_err(|error| OpenError::Unusable { path: place.draft_path().to_owned(), what: error.to_string() })?;
    }
    judge(config, &header, &place, &kek).await?;
    let stamp: String = now.rfc3339().chars().filter(char::is_ascii_digit).take(14).collect();
    let store = config.store.path.clone();
    let former = place.put(&format!(".before-restore-{stamp}"))?;
    Ok(Restored { backup: hex(&header.backup_id), taken_at: header.taken_at.rfc3339(), store, former })
}

/// Reads it to its end once before anything is touched: even a store that is only opened changes its file.
fn verify(file: &Path, key: &ArchiveKey) -> Result<(), RestoreError> {
    let source = File::open(file).map_err(|source| RestoreError::File { path: file.to_owned(), source })?;
    let mut reader = ArchiveReader::head(BufReader::new(source))?.open(key);
    while reader.chunk()?.is_some() {}
    Ok(())
}

/// The key that the ledger has for this backup, and the KEK that opened it.
async fn key_of(config: &Config, header: &ArchiveHeader) -> Result<(ArchiveKey, Kek), RestoreError> {
    let ledger = Ledger::of(&config.backup.ledger, &header.store_id);
    let backup = hex(&header.backup_id);
    let unknown = || RestoreError::Unknown { backup: backup.clone(), ledger: ledger.folder().to_owned() };
    let entry: Entry = ledger.entry(&backup)?.ok_or_else(unknown)?;
    let Some(wrapped) = entry.wrapped() else {
        let (at, by) = (entry.destroyed_at.unwrap_or_default(), entry.destroyed_by.unwrap_or_default());
        return Err(RestoreError::Destroyed { backup, destroyed: format!("{at}, by {by}") });
    };
    let entropy = SystemEntropy::default();
    let (kek, next) =
        opening::both_keks(config, &entropy).await.map_err(|finding| RestoreError::Configuration(vec![finding]))?;
    let found = kek.name();
    for kek in [Some(kek), next].into_iter().flatten() {
        let material = kek.unwrap_for_backup(&header.store_id, &header.backup_id, &wrapped).await?;
        if let Some(key) = material.and_then(ArchiveKey::of) {
            return Ok((key, kek));
        }
    }
    Err(RestoreError::WrongKek { needed: entry.kek, found })
}

/// What the store that is there knows and the ledger does not goes there; its journal into its file.
async fn settle_former(config: &Config, now: Timestamp) -> Result<(), RestoreError> {
    let opened = EmbeddedStore::open(&config.store.path, now, &SystemEntropy::default());
    let (store, _) = opened.map_err(RestoreError::Former)?;
    let store = Arc::new(store);
    let store_id = store.store_id().await?;
    let ledger = Ledger::of(&config.backup.ledger, &store_id);
    ledger.prepare()?;
    let backups =
        Backups::new(store_id, ledger, Arc::clone(&store) as _, Arc::clone(&store) as _, Arc::clone(&store) as _);
    // It may be an old copy itself: the ledger does not go back to it then.
    backups.behind().await.map_err(|error| match error {
        BackupError::Ledger(error) => RestoreError::Ledger(error),
        BackupError::Store(error) => RestoreError::Settling(error),
        error @ (BackupError::Busy
        | BackupError::Kek(_)
        | BackupError::Archive(_)
        | BackupError::Destroyed
        | BackupError::Stopping) => RestoreError::Settling(StoreError::Unavailable(error.to_string())),
    })?;
    backups.settle(now).await?;
    drop(backups);
    store.close().await?;
    Ok(())
}

/// Whether what was in the backup is the store that it says it is, sound, and opens under the KEK.
async fn judge(config: &Config, header: &ArchiveHeader, place: &VacantPlace, kek: &Kek) -> Result<(), RestoreError> {
    let corrupt = |what: &str| OpenError::Corrupt { path: place.draft_path().to_owned(), what: what.to_owned() };
    let Inspection::Sound(store) = EmbeddedStore::inspect(place.draft_path())? else {
        return Err(corrupt("it is empty").into());
    };
    if store.store_id().await? != header.store_id {
        return Err(corrupt("it is another store than the backup says").into());
    }
    let opened = KeySet::inspect(&store, kek, config.binding.stretch).await?;
    let sound = opened.map(drop).ok_or_else(|| corrupt("it has no keys"));
    store.close().await.ok();
    Ok(sound?)
}
