//! The file and its neighbours in the folder: the lock, the journal, the head, how a new file comes to be.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// `SQLite format 3` and a NUL, at the start of every SQLite file (sqlite.org/fileformat.html §1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Where the application id stands in the head, big-endian.
const APPLICATION_ID_AT: usize = 68;
/// Length of the head.
const HEAD: usize = 100;

/// What the folder of a copy that is being worked on is called, behind the store's own name.
pub(super) const SHADOW: &str = ".drill";

/// The store's path with every link resolved, so that one store has one lock whatever name it is opened by.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = path.file_name().ok_or(ErrorKind::IsADirectory)?;
            Ok(folder_of(path).canonicalize()?.join(name))
        }
        resolved => resolved,
    }
}

/// The folder a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the folder, for this user alone, if it is missing.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    folder.parent().map_or(Ok(()), sync_folder)
}

/// Takes the store for one gateway. The lock ends with the file handle, so with the process.
///
/// # Errors
/// Of kind `WouldBlock` if another gateway has it.
pub(super) fn lock(store: &Path) -> io::Result<File> {
    // Its own file: closing any handle of the store itself would drop SQLite's own locks on it (POSIX).
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside(store, ".lock"))?;
    file.try_lock()?;
    Ok(file)
}

/// Keeps gateways away while the store is looked at, making no file. `None`: no gateway ever had it.
///
/// # Errors
/// Of kind `WouldBlock` if a gateway has it.
pub(super) fn lock_to_look(store: &Path) -> io::Result<Option<File>> {
    match File::open(beside(store, ".lock")) {
        Ok(file) => {
            file.try_lock_shared()?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the file begins as a store with this application id does.
pub(super) fn has_head(store: &Path, application_id: u32) -> io::Result<bool> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(store)?.take(HEAD as u64).read_to_end(&mut head)?;
    let id = head.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4);
    Ok(head.starts_with(MAGIC) && id == Some(application_id.to_be_bytes().as_slice()))
}

/// Whether the store has a journal: commits that are not in the file itself yet.
pub(super) fn has_journal(store: &Path) -> io::Result<bool> {
    match fs::metadata(beside(store, "-wal")) {
        Ok(journal) => Ok(journal.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

/// The file that the store's path leads to now.
pub(super) fn identity(store: &Path) -> io::Result<Identity> {
    let file = fs::metadata(store)?;
    Ok(Identity(file.dev(), file.ino()))
}

/// The journal beside it, if there is one.
pub(super) fn journal_identity(store: &Path) -> io::Result<Option<Identity>> {
    match identity(&beside(store, "-wal")) {
        Ok(journal) => Ok(Some(journal)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until what was written to the journal so far is on the disk, by whatever handle.
///
/// # Errors
/// Of kind `NotFound` if there is none.
pub(super) fn sync_journal(store: &Path) -> io::Result<()> {
    // SQLite keeps its locks on the store and on the index of the journal, so this handle may close (POSIX).
    OpenOptions::new().write(true).open(beside(store, "-wal"))?.sync_data()
}

/// Makes a new store: `fill` builds it under another name, so that it appears whole or not at all.
pub(super) fn create<E: From<io::Error>>(store: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let draft = beside(store, ".new");
    self::draft(&draft)?;
    fill(&draft)?;
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, store)?;
    Ok(sync_folder(folder_of(store))?)
}

/// An empty file for this user alone, in the place of what an earlier run left there.
pub(super) fn draft(draft: &Path) -> io::Result<()> {
    remove_draft(draft)?;
    // SQLite gives its journals the mode of the file.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map(drop)
}

/// Removes a draft, and what SQLite put beside it.
pub(super) fn remove_draft(draft: &Path) -> io::Result<()> {
    ["", "-journal", "-wal", "-shm"].iter().try_for_each(|leftover| remove(&beside(draft, leftover)))
}

/// Whether this process may write to a store at that path, or make it and its folders.
pub(super) fn check_writable(store: &Path) -> io::Result<()> {
    if store.exists() {
        may(store, Access::READ_OK | Access::WRITE_OK)?;
    }
    // The first folder upwards that is there.
    let folder = store.ancestors().skip(1).map(|f| if f.as_os_str().is_empty() { Path::new(".") } else { f });
    folder.into_iter().find(|f| f.exists()).map_or(Ok(()), |f| {
        if !f.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        may(f, Access::WRITE_OK | Access::EXEC_OK)
    })
}

/// Names of the copies that were made of the store before upgrades and restores, drafts that a crash left of them, and the
/// folder of a copy that is being worked on.
pub(super) fn copies_beside(store: &Path) -> io::Result<Vec<String>> {
    let Some(name) = store.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let (prefix, shadow) = (format!("{name}.before-"), format!("{name}{SHADOW}"));
    let mut found: Vec<String> = fs::read_dir(folder_of(store))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix) || *name == shadow)
        .collect();
    found.sort();
    Ok(found)
}

fn may(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The store's neighbour whose name is longer by `suffix`.
pub(super) fn beside(store: &Path, suffix: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
