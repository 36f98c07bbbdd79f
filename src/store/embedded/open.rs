//! Opening: a store that is missing is made, one that is sound is taken, anything else is refused as it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension as _};
use thiserror::Error;

use super::connection::{Access, Place, connect, is_damage};
use super::reader::Readers;
use super::schema::Format;
use super::writer::{WriteEvent, Writer};
use super::{backups, damage, file, schema, shadow, writer};
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::store::StoreError;

/// The oldest SQLite without the WAL-reset defect, which can corrupt a file (sqlite.org/wal.html §11).
const OLDEST_SQLITE: i32 = 3_051_003;
/// Reads at once. They come from memory, so a few threads outrun any number of sign-ins.
const READERS: usize = 2;

/// All ports on one SQLite file. Used by one gateway at a time.
///
/// Dropping it waits for queued writes; [`EmbeddedStore::close`] also says whether they ended well.
pub struct EmbeddedStore {
    // In this order: the lock goes when nobody writes any more.
    pub(super) readers: Readers,
    /// For reads that take seconds: they must not stand before a sign-in's.
    pub(super) surveyor: Readers,
    /// For copies of the whole.
    pub(super) copier: Readers,
    pub(super) writer: Writer,
    pub(super) store_id: [u8; 16],
    pub(super) path: PathBuf,
    lock: Mutex<Option<File>>,
    /// Whether there is a shadow.
    pub(super) shadowed: Arc<AtomicBool>,
}

/// What opening did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none; a new one was made. Worth a line in the log.
    Created,
    /// It was there in the newest format.
    Existing,
    /// It was there in an older format, and was brought to the newest.
    Upgraded {
        /// The store as it was before.
        backup: PathBuf,
    },
}

/// What looking at a store found.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Inspection {
    /// There is none; opening would make it.
    NotThere,
    /// There is a sound one. It answers reads; every write is refused with [`StoreError::Closed`].
    Sound(EmbeddedStore),
}

/// Why a store was not opened. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another gateway, of this process or another, has it.
    #[error("{0}: another gateway is using this store; stop it, or give this one its own store.path")]
    Locked(PathBuf),
    /// The file is something else.
    #[error(
        "{0}: this file is not a Sekisho store, or its head was overwritten; name another store.path, or restore it"
    )]
    Foreign(PathBuf),
    /// A newer program made it.
    #[error("{path}: the store has format {found}, this program knows up to {known}; run the newer program")]
    Newer {
        /// The store.
        path: PathBuf,
        /// Version of its format.
        found: u32,
        /// Newest version this program knows.
        known: u32,
    },
    /// It is damaged.
    #[error("{path}: the store is damaged ({what}); restore it from a backup")]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What is damaged.
        what: String,
    },
    /// Its keys are gone: no binding could be found with new ones.
    #[error("{0}: the store once had keys and has none now; restore it from a backup, or move it away to begin anew")]
    KeysGone(PathBuf),
    /// The journal is there, the file is not.
    #[error(
        "{0}: the store is gone but its journal (-wal) is there; restore the store, or move the journal away to begin anew"
    )]
    OrphanedJournal(PathBuf),
    /// The SQLite that was linked can corrupt files.
    #[error("SQLite {0} can damage a store; build with the bundled one (3.51.3 or newer)")]
    Library(&'static str),
    /// The file system or SQLite refused.
    #[error("{path}: the store cannot be used: {what}")]
    Unusable {
        /// The store.
        path: PathBuf,
        /// What they said.
        what: String,
    },
}

impl EmbeddedStore {
    /// Opens the store at `path`; makes it, and its folder, if there is none. `now` and `entropy` date and name a new one.
    ///
    /// Reads the whole file once, to find damage before a sign-in does. Blocks; starts threads.
    ///
    /// # Errors
    /// [`OpenError`]; then whatever was there is as it was.
    pub fn open(path: &Path, now: Timestamp, entropy: &dyn Entropy) -> Result<(Self, Opened), OpenError> {
        Self::open_in(schema::FORMAT, path, now, entropy)
    }

    fn open_in(
        format: Format,
        path: &Path,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Opened), OpenError> {
        require_library()?;
        let unusable = |error: io::Error| unusable(path, &error);
        file::make_folder(file::folder_of(path)).map_err(unusable)?;
        let path = &file::resolve(path).map_err(unusable)?;
        // All its files may be there already; a folder that takes no others fails later, and less clearly.
        file::check_writable(path).map_err(unusable)?;
        let lock = file::lock(path).map_err(|error| not_locked(path, &error))?;
        backups::remove_leftovers(path).map_err(unusable)?;
        shadow::remove_leftovers(path).map_err(unusable)?;
        let found = examine(format, path)?;
        if found.is_none() {
            create(format, path, now, entropy)?;
        }
        let failed = |error: rusqlite::Error| sqlite(path, &error);
        let conn = connect(path, Access::Write).map_err(failed)?;
        let opened = match found {
            None => Opened::Created,
            Some(found) if found.version == format.newest() => Opened::Existing,
            Some(_) => {
                let backup = back_up(&conn, path, format.newest())?;
                format.migrate(&conn, now).map_err(failed)?;
                Opened::Upgraded { backup }
            }
        };
        let store_id = read_meta(&conn, path)?;
        // A run that died between the erasure of a key and the end of the call left its bytes in the journal.
        writer::fold(&conn).map_err(|error| self::unusable(path, &error))?;
        let place = Place::of(path).map_err(unusable)?;
        let conn = place.hold(conn).map_err(|error| self::unusable(path, &error))?;
        let readers = Readers::start(READERS, &place, Access::Read).map_err(unusable)?;
        let surveyor = Readers::start(1, &place, Access::Read).map_err(unusable)?;
        let copier = Readers::start(1, &place, Access::Read).map_err(unusable)?;
        let writer = Writer::start(place, conn).map_err(unusable)?;
        let (path, lock) = (path.clone(), Mutex::new(Some(lock)));
        let shadowed = Arc::default();
        Ok((Self { readers, surveyor, copier, writer, store_id, path, lock, shadowed }, opened))
    }

    /// Looks at the store that [`EmbeddedStore::open`] would open: finds what it would, changes nothing.
    ///
    /// # Errors
    /// [`OpenError`], also when the store or its folder could not be written to.
    pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
        require_library()?;
        let unusable = |error: io::Error| unusable(path, &error);
        if !file::folder_of(path).exists() {
            file::check_writable(path).map_err(unusable)?;
            return Ok(Inspection::NotThere);
        }
        let path = &file::resolve(path).map_err(unusable)?;
        file::check_writable(path).map_err(unusable)?;
        let lock = file::lock_to_look(path).map_err(|error| not_locked(path, &error))?;
        let Some(found) = examine(schema::FORMAT, path)? else { return Ok(Inspection::NotThere) };
        let place = Place::of(path).map_err(unusable)?;
        let readers = Readers::start(READERS, &place, found.access).map_err(unusable)?;
        let surveyor = Readers::start(1, &place, found.access).map_err(unusable)?;
        let copier = Readers::start(1, &place, found.access).map_err(unusable)?;
        Ok(Inspection::Sound(Self {
            readers,
            surveyor,
            copier,
            writer: Writer::absent(),
            store_id: found.store_id,
            path: path.clone(),
            lock: Mutex::new(lock),
            shadowed: Arc::default(),
        }))
    }

    /// Tells `observer` of every write from now on that somebody waits for, from any thread. Only the first observer is told.
    pub fn observe_writes(&self, observer: impl Fn(WriteEvent) + Send + Sync + 'static) {
        let _second = self.writer.told().observer.set(Box::new(observer));
    }

    /// Whether the thread that writes is there and answers, be it that it cannot write. Waits for what was asked before.
    pub async fn writer_answers(&self) -> bool {
        self.writer.run(|_| Ok(())).await != Err(StoreError::Closed)
    }

    /// Finishes what is queued, folds the journal into the file and lets the store go. Later calls get
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError`] if the journal could not be folded in; nothing acknowledged is lost, the next opening reads it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.readers.close();
        self.surveyor.close();
        self.copier.close();
        let closed = self.writer.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        closed
    }
}

/// A store that may be opened.
struct Found {
    version: u32,
    store_id: [u8; 16],
    access: Access,
}

/// Judges what is at `path` without changing it. `None`: nothing.
fn examine(format: Format, path: &Path) -> Result<Option<Found>, OpenError> {
    let journal = file::has_journal(path).map_err(|error| unusable(path, &error))?;
    if !path.try_exists().map_err(|error| unusable(path, &error))? {
        // SQLite would play the old journal into a new file.
        return if journal { Err(OpenError::OrphanedJournal(path.to_owned())) } else { Ok(None) };
    }
    if !file::has_head(path, schema::APPLICATION_ID).map_err(|error| unusable(path, &error))? {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let failed = |error: rusqlite::Error| sqlite(path, &error);
    let access = if journal { Access::Read } else { Access::Frozen };
    let conn = connect(path, access).map_err(failed)?;
    let version = schema::version(&conn).map_err(failed)?;
    if version > format.newest() {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known: format.newest() });
    }
    let beside = connect(path, access).map_err(failed)?;
    if let Some(what) = damage::find(format, &conn, beside, version).map_err(failed)? {
        return Err(OpenError::Corrupt { path: path.to_owned(), what });
    }
    let store_id = read_meta(&conn, path)?;
    Ok(Some(Found { version, store_id, access }))
}

fn read_meta(conn: &Connection, path: &Path) -> Result<[u8; 16], OpenError> {
    let sql = "SELECT store_id, had_keys AND NOT EXISTS (SELECT 1 FROM keys) FROM meta";
    let meta = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional();
    match meta.map_err(|error| sqlite(path, &error))? {
        None => Err(OpenError::Corrupt { path: path.to_owned(), what: "table meta is empty".into() }),
        Some((_, true)) => Err(OpenError::KeysGone(path.to_owned())),
        Some((store_id, false)) => Ok(store_id),
    }
}

fn create(format: Format, path: &Path, now: Timestamp, entropy: &dyn Entropy) -> Result<(), OpenError> {
    let fill = |draft: &Path| -> Result<(), CreateError> {
        let conn = connect(draft, Access::Create)?;
        format.migrate(&conn, now)?;
        let sql = "INSERT INTO meta (one, store_id, created_at) VALUES (1, ?1, ?2)";
        conn.execute(sql, (random::<16>(entropy), now.unix_millis()))?;
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(io::Error::other("this file system cannot share memory, which SQLite's WAL needs").into());
        }
        conn.close().map_err(|(_, error)| error)?;
        Ok(())
    };
    file::create(path, fill).map_err(|error| unusable(path, &error))
}

/// Keeps the store as it is before it becomes version `next`: whole, on the disk, for this user alone.
fn back_up(conn: &Connection, path: &Path, next: u32) -> Result<PathBuf, OpenError> {
    let backup = file::beside(path, &format!(".before-v{next}"));
    let fill = |draft: &Path| -> Result<(), CreateError> {
        let mut copy = connect(draft, Access::Create)?;
        // All pages in one step: nobody writes meanwhile.
        let step = Backup::new(conn, &mut copy)?.step(-1)?;
        if step != StepResult::Done {
            return Err(io::Error::other(format!("another program holds the store: {step:?}")).into());
        }
        copy.close().map_err(|(_, error)| error)?;
        Ok(())
    };
    file::create(&backup, fill).map_err(|error| unusable(&backup, &error))?;
    Ok(backup)
}

#[derive(Debug, Error)]
#[error(transparent)]
enum CreateError {
    File(#[from] io::Error),
    Sqlite(#[from] rusqlite::Error),
}

fn require_library() -> Result<(), OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE { Err(OpenError::Library(rusqlite::version())) } else { Ok(()) }
}

fn sqlite(path: &Path, error: &rusqlite::Error) -> OpenError {
    if is_damage(error) || error.sqlite_error_code().is_none() {
        OpenError::Corrupt { path: path.to_owned(), what: error.to_string() }
    } else {
        unusable(path, error)
    }
}

pub(super) fn not_locked(path: &Path, error: &io::Error) -> OpenError {
    if error.kind() == io::ErrorKind::WouldBlock { OpenError::Locked(path.to_owned()) } else { unusable(path, error) }
}

pub(super) fn unusable(path: &Path, error: &dyn std::error::Error) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), what: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::store::{BindingStore as _, KeyStore as _};

    const NOW: Timestamp = Timestamp::from_unix_millis(1_795_530_000_000);
    const LATER: Format = Format(&[schema::FORMAT.0[0], "ALTER TABLE accounts ADD COLUMN note TEXT"]);
    const BROKEN: Format = Format(&[LATER.0[0], LATER.0[1], "ALTER TABLE nothing ADD COLUMN note TEXT"]);

    fn open(format: Format, path: &Path) -> Result<(EmbeddedStore, Opened), OpenError> {
        EmbeddedStore::open_in(format, path, NOW, &SystemEntropy::default())
    }

    #[tokio::test]
    async fn an_older_store_is_kept_as_it_was_and_brought_to_the_newest_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let (old, _) = open(schema::FORMAT, &path).unwrap();
        let id = old.store_id().await.unwrap();
        let insert = |conn: &Connection| {
            Ok(conn.execute("INSERT INTO accounts (account, state, created_at) VALUES ('alice', 'active', 1)", [])?)
        };
        old.writer.run(insert).await.unwrap();
        drop(old);

        // A step that fails takes those before it back, and leaves the store to the program that made it.
        assert!(open(BROKEN, &path).is_err());
        assert_eq!(open(schema::FORMAT, &path).unwrap().1, Opened::Existing);

        let (new, opened) = open(LATER, &path).unwrap();
        let backup = folder.path().join("store.before-v2");
        assert_eq!(opened, Opened::Upgraded { backup: backup.clone() });
        assert_eq!((new.store_id().await.unwrap(), new.accounts().await.unwrap().len()), (id, 1));
        drop(new);
        assert!(matches!(open(schema::FORMAT, &path), Err(OpenError::Newer { found: 2, known: 1, .. })));
        assert_eq!(open(LATER, &path).unwrap().1, Opened::Existing);

        assert_eq!(fs::metadata(&backup).unwrap().mode() & 0o777, 0o600);
        let (restored, opened) = open(schema::FORMAT, &backup).unwrap();
        assert_eq!((opened, restored.store_id().await.unwrap()), (Opened::Existing, id));
        assert_eq!(restored.accounts().await.unwrap().len(), 1);
        let drafts = fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().is_ok_and(|file| file.file_name().to_string_lossy().contains(".new")));
        assert_eq!(drafts.count(), 0);
    }

    #[tokio::test]
    async fn without_a_backup_there_is_no_upgrade() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        drop(open(schema::FORMAT, &path).unwrap());
        fs::create_dir(folder.path().join("store.before-v2")).unwrap();
        assert!(matches!(open(LATER, &path), Err(OpenError::Unusable { .. })));
        assert_eq!(open(schema::FORMAT, &path).unwrap().1, Opened::Existing);
    }
}
