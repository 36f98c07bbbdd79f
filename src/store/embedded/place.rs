//! Putting another file in the place of a store: it is the one or the other, whenever the process ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::file;
use super::open::{OpenError, not_locked, unusable};

/// What a file that is to become the store is called until then, behind the store's own name.
pub(super) const DRAFT: &str = ".restoring";

/// The place of a store that nobody uses, and nobody can until this is dropped.
pub struct VacantPlace {
    path: PathBuf,
    draft: PathBuf,
    _lock: File,
}

impl VacantPlace {
    /// Takes the place at `path`; makes its folder if it is missing.
    ///
    /// # Errors
    /// [`OpenError`]: a gateway uses it, or there is a journal whose store was not closed.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |error: io::Error| unusable(path, &error);
        file::make_folder(file::folder_of(path)).map_err(failed)?;
        let path = file::resolve(path).map_err(failed)?;
        let failed = |error: io::Error| unusable(&path, &error);
        file::check_writable(&path).map_err(failed)?;
        let lock = file::lock(&path).map_err(|error| not_locked(&path, &error))?;
        // SQLite would play it into the new file.
        if file::has_journal(&path).map_err(failed)? {
            return Err(OpenError::OrphanedJournal(path));
        }
        let draft = file::beside(&path, DRAFT);
        Ok(Self { path, draft, _lock: lock })
    }

    /// Whether a store, or anything else, is there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn is_occupied(&self) -> Result<bool, OpenError> {
        self.path.try_exists().map_err(|error| unusable(&self.path, &error))
    }

    /// An empty file beside the place, for this user alone.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn draft(&self) -> Result<File, OpenError> {
        let made = file::draft(&self.draft).and_then(|()| OpenOptions::new().write(true).open(&self.draft));
        made.map_err(|error| unusable(&self.draft, &error))
    }

    /// Where that is.
    #[must_use]
    pub fn draft_path(&self) -> &Path {
        &self.draft
    }

    /// Puts the draft in the place. What was there is kept under another name, which is returned.
    ///
    /// # Errors
    /// [`OpenError`]; then the place is as it was.
    pub fn put(self, former: &str) -> Result<Option<PathBuf>, OpenError> {
        let put = || {
            File::open(&self.draft)?.sync_all()?;
            let kept = if self.path.try_exists()? { Some(self.keep(former)?) } else { None };
            for leftover in ["-wal", "-shm"] {
                file::remove(&file::beside(&self.path, leftover))?;
            }
            fs::rename(&self.draft, &self.path)?;
            file::sync_folder(file::folder_of(&self.path))?;
            Ok(kept)
        };
        put().map_err(|error: io::Error| unusable(&self.path, &error))
    }

    /// Gives what is there a second name: between two renames there would be no store, and a start would make a new one.
    fn keep(&self, former: &str) -> io::Result<PathBuf> {
        let there = file::identity(&self.path)?;
        let mut kept = file::beside(&self.path, former);
        for number in 2.. {
            match fs::hard_link(&self.path, &kept) {
                // A run that was killed right after this left it; or it is of another restore in the same second.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if file::identity(&kept)? == there {
                        break;
                    }
                }
                linked => {
                    linked?;
                    break;
                }
            }
            kept = file::beside(&self.path, &format!("{former}-{number}"));
        }
        Ok(kept)
    }
}

impl Drop for VacantPlace {
    /// A draft that was not put holds what a store holds.
    fn drop(&mut self) {
        let _ = file::remove_draft(&self.draft);
    }
}
