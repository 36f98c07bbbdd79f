//! A copy of the file in a folder of its own, beside the store.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rustix::fs::statvfs;

use super::backups::fill;
use super::{EmbeddedStore, file};
use crate::clock::Timestamp;
use crate::entropy::Entropy;
use crate::store::{CopyKind, Shadow, ShadowError, ShadowPorts, ShadowStore, StoreError};

/// What the copy in it is called.
const NAME: &str = "store";
/// What must be free beside twice the store: the copy's journal, and room for the store itself.
const ROOM: u64 = 256 << 20;

#[async_trait]
impl ShadowStore for EmbeddedStore {
    async fn shadow(&self, entropy: Arc<dyn Entropy>, now: Timestamp) -> Result<Box<dyn Shadow>, ShadowError> {
        let folder = Folder::take(&self.path, &self.shadowed)?;
        let pages = |conn: &rusqlite::Connection, sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        let size = self
            .readers
            .run(move |conn| Ok(pages(conn, "PRAGMA page_count")?.saturating_mul(pages(conn, "PRAGMA page_size")?)))
            .await?;
        let needs = size.unsigned_abs().saturating_mul(2).saturating_add(ROOM);
        let disk = statvfs(&folder.path).map_err(|error| failed(&error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < needs {
            return Err(ShadowError::NoSpace { needs, free });
        }
        let place = folder.path.join(NAME);
        file::draft(&place).map_err(|error| failed(&error))?;
        let draft = place.clone();
        self.copier.run(move |conn| fill(conn, &draft, CopyKind::Shadow).map(drop)).await?;
        let bytes = fs::metadata(&place).map_err(|error| failed(&error))?.len();
        let opened = tokio::task::spawn_blocking(move || Self::open(&place, now, &*entropy)).await;
        // Only the end of the runtime, or a defect, ends it early.
        let opened = opened.map_err(|_| StoreError::Closed)?;
        let (store, _) = opened.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Box::new(Copy { store: Arc::new(store), folder, bytes }))
    }
}

/// An opened copy.
struct Copy {
    // In this order: the files go when nobody writes to them any more.
    store: Arc<EmbeddedStore>,
    folder: Folder,
    bytes: u64,
}

#[async_trait]
impl Shadow for Copy {
    fn ports(&self) -> ShadowPorts {
        ShadowPorts {
            keys: Arc::clone(&self.store) as _,
            rotations: Arc::clone(&self.store) as _,
            bindings: Arc::clone(&self.store) as _,
            sessions: Arc::clone(&self.store) as _,
            receipts: Arc::clone(&self.store) as _,
            approvals: Arc::clone(&self.store) as _,
            audit: Arc::clone(&self.store) as _,
            bytes: self.bytes,
        }
    }

    async fn erase(self: Box<Self>) -> Result<(), StoreError> {
        let Self { store, folder, .. } = *self;
        // It goes with its files, whatever the last fold says.
        let _ = store.close().await;
        drop(store);
        folder.erase().map_err(|error| failed(&error))
    }
}

/// The folder of a shadow. It goes when this is dropped.
struct Folder {
    path: PathBuf,
    taken: Arc<AtomicBool>,
}

impl Folder {
    /// Makes it, for this user alone.
    fn take(store: &Path, taken: &Arc<AtomicBool>) -> Result<Self, ShadowError> {
        if taken.swap(true, Ordering::AcqRel) {
            return Err(ShadowError::Busy);
        }
        let folder = Self { path: file::beside(store, file::SHADOW), taken: Arc::clone(taken) };
        let made = remove(&folder.path).and_then(|()| DirBuilder::new().mode(0o700).create(&folder.path));
        made.map_err(|error| failed(&error))?;
        Ok(folder)
    }

    fn erase(self) -> io::Result<()> {
        remove(&self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::error!(%error, path = %self.path.display(), "a copy of the store could not be erased; remove it");
        }
        self.taken.store(false, Ordering::Release);
    }
}

/// Removes what a process that was killed left of a shadow.
pub(super) fn remove_leftovers(store: &Path) -> io::Result<()> {
    remove(&file::beside(store, file::SHADOW))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("the copy of the store: {error}"))
}
