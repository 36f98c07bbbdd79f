//! A backup on its way out.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::archive::{ArchiveError, ArchiveHeader, ArchiveKey, ArchiveWriter, archive_length};
use super::ledger::{Entry, Ledger};
use super::service::BackupError;

/// Bytes of the store that are read at a time.
const READ: usize = 256 << 10;

/// A copy that is being encrypted, as fast as whoever takes it reads.
pub struct Taking {
    source: File,
    writer: ArchiveWriter,
    /// The head, before anything else was handed out.
    out: Vec<u8>,
    length: u64,
    entry: Entry,
    ledger: Arc<Ledger>,
    turn: OwnedMutexGuard<()>,
}

impl Taking {
    pub(super) fn begin(
        source: File,
        length: u64,
        key: &ArchiveKey,
        header: &ArchiveHeader,
        (entry, ledger): (Entry, Arc<Ledger>),
        turn: OwnedMutexGuard<()>,
    ) -> Self {
        let mut out = Vec::new();
        let writer = ArchiveWriter::begin(key, header, &mut out);
        Self { source, writer, out, length: archive_length(length), entry, ledger, turn }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// Length of the file, in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The next piece of the file, and the rest of it; without a rest it is the last, and the ledger knows that the backup
    /// is whole.
    ///
    /// # Errors
    /// [`BackupError`]; there is no whole file then.
    pub async fn piece(self) -> Result<(Bytes, Option<Self>), BackupError> {
        spawn_blocking(|| self.read()).await.map_err(|_| BackupError::Stopping)?
    }

    fn read(mut self) -> Result<(Bytes, Option<Self>), BackupError> {
        let mut clear = Zeroizing::new(Vec::with_capacity(READ));
        (&mut self.source).take(READ as u64).read_to_end(&mut clear).map_err(ArchiveError::Io)?;
        let mut out = std::mem::take(&mut self.out);
        if !clear.is_empty() {
            self.writer.push(&clear, &mut out)?;
            return Ok((out.into(), Some(self)));
        }
        let Self { writer, length, entry, ledger, turn, .. } = self;
        writer.finish(&mut out)?;
        if !ledger.complete(&entry.id, length)? {
            return Err(BackupError::Destroyed);
        }
        drop(turn);
        Ok((out.into(), None))
    }
}
