//! The ledger: what must outlive the store. A folder of one store, best on another disk:
//!
//! - `ID.json`, one a backup: what is in it, and its key, wrapped under the KEK. Destroying the entry shreds the backup.
//! - `erased`, one line an erasure: tombstones, which a store from before is told again.
//! - `witness.json`: how far the store had come when it was last seen, and what became of its keys.
//!
//! Each change is on the disk when its call returns, and whole or not there at all after a crash. Calls block.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::hex::{hex, unhex};
use crate::clock::{Day, Timestamp};
use crate::store::{Tombstone, TombstoneKind};

/// The format of what is written here.
const FORMAT: u32 = 1;
const ERASED: &str = "erased";
const WITNESS: &str = "witness.json";
/// More than any entry; what is longer is not read.
const MOST_BYTES: u64 = 4 << 20;
/// Bytes of a line of `erased`, at most.
const MOST_LINE: usize = 128;

/// The ledger of one store. One process writes it: the one that has the store.
pub struct Ledger {
    folder: PathBuf,
    /// Held for a change.
    changing: Mutex<()>,
}

/// Why the ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file system refused.
    #[error("{}: the ledger of backups cannot be used: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("{}: this part of the ledger of backups is damaged ({what}); put a copy of it back", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where, or why.
        what: String,
    },
}

/// A backup, as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    format: u32,
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// The id of the store that was copied.
    pub store: String,
    /// When, RFC 3339.
    pub taken_at: String,
    /// By whom.
    pub taken_by: String,
    /// Counts the changes to the keys up to then.
    pub key_revision: u64,
    /// Accounts in it.
    pub accounts: u64,
    /// Bindings in it.
    pub bindings: u64,
    /// The binding keys that digests in it were made under.
    pub digests_under: Vec<String>,
    /// The keys in it, each wrapped under the KEK.
    pub keys: Vec<String>,
    /// What tells that KEK from another.
    pub kek: String,
    /// Length of the file in bytes; absent until the whole of it was handed out.
    pub bytes: Option<u64>,
    /// When its key was destroyed.
    pub destroyed_at: Option<String>,
    /// By whom.
    pub destroyed_by: Option<String>,
    /// Its own key, wrapped under the KEK, as hexadecimal digits; absent once destroyed.
    wrapped: Option<String>,
}

/// What an entry begins as.
pub(super) struct NewEntry {
    pub(super) id: [u8; 16],
    pub(super) store: [u8; 16],
    pub(super) taken_at: String,
    pub(super) taken_by: String,
    pub(super) key_revision: u64,
    pub(super) accounts: u64,
    pub(super) bindings: u64,
    pub(super) digests_under: Vec<String>,
    pub(super) keys: Vec<String>,
    pub(super) kek: String,
    pub(super) wrapped: Vec<u8>,
}

impl Entry {
    pub(super) fn new(new: NewEntry) -> Self {
        Self {
            format: FORMAT,
            id: hex(&new.id),
            store: hex(&new.store),
            taken_at: new.taken_at,
            taken_by: new.taken_by,
            key_revision: new.key_revision,
            accounts: new.accounts,
            bindings: new.bindings,
            digests_under: new.digests_under,
            keys: new.keys,
            kek: new.kek,
            bytes: None,
            destroyed_at: None,
            destroyed_by: None,
            wrapped: Some(hex(&new.wrapped)),
        }
    }

    /// Its key, wrapped; `None` once destroyed.
    pub(crate) fn wrapped(&self) -> Option<Vec<u8>> {
        unhex(self.wrapped.as_deref()?)
    }

    /// The last day on which its file opens where backups are kept for so many days.
    #[must_use]
    pub fn until(&self, retention_days: u32) -> Option<Day> {
        let taken = Timestamp::parse(&self.taken_at)?.day();
        Some(Day::from_unix_days(taken.unix_days().saturating_add_unsigned(retention_days)))
    }

    /// Whether its file can still be opened by somebody.
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.wrapped.is_some()
    }
}

/// How far a store had come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    pub(super) format: u32,
    /// The store that is in use now is older than that, and not what it should be yet: until it is, this page does not
    /// go back to what that store is.
    pub behind: bool,
    /// When it was seen, RFC 3339.
    pub seen_at: String,
    /// Counts the changes to its keys.
    pub key_revision: u64,
    /// The number of the last entry of its audit trail.
    pub audit_seq: u64,
    /// The hash of that entry.
    pub audit_hash: String,
    /// What became of every key that it ever had.
    pub keys: Vec<KeyFact>,
}

/// What became of a key. It only goes forwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFact {
    /// `k1`. Keys of different lives of a store may share it; their commitments differ.
    pub id: String,
    /// What only this key gives.
    pub commitment: String,
    /// How far it is in its life, as `keys list` says it.
    pub state: String,
    /// Whether it has leaked.
    pub compromised: bool,
}

impl Ledger {
    /// The ledger of `store` in `root`. Makes nothing.
    #[must_use]
    pub fn of(root: &Path, store: &[u8; 16]) -> Self {
        Self { folder: root.join(hex(store)), changing: Mutex::default() }
    }

    /// Makes the folder, for this user alone, if it is missing, and forgets the end of a line that a crash cut off.
    /// Returns whether it was there.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn prepare(&self) -> Result<bool, LedgerError> {
        let there = self.folder.is_dir();
        if !there {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(|e| self.io(".", e))?;
            sync_folder(self.folder.parent().unwrap_or(Path::new("."))).map_err(|e| self.io(".", e))?;
        }
        let path = self.folder.join(ERASED);
        let repaired = (|| {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            let length = file.metadata()?.len();
            let tail = length.min(MOST_LINE as u64);
            file.seek(SeekFrom::Start(length - tail))?;
            let mut end = Vec::new();
            (&mut file).take(tail).read_to_end(&mut end)?;
            let torn = end.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
            if torn > 0 {
                // It was never acknowledged.
                file.set_len(length - torn)?;
                file.sync_all()?;
            }
            sync_folder(&self.folder)
        })();
        repaired.map_err(|error| self.io(ERASED, error))?;
        Ok(there)
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All backups, the latest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let _unchanged = self.lock();
        let listed = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|error| self.io(".", error))?,
        };
        let mut entries = Vec::new();
        for file in listed {
            let name = file.map_err(|error| self.io(".", error))?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| is_id(id));
            if let Some(id) = id {
                entries.extend(self.stored(id)?);
            }
        }
        entries.sort_by(|one, other| (&other.taken_at, &other.id).cmp(&(&one.taken_at, &one.id)));
        Ok(entries)
    }

    /// One backup; `None` if it is not known here.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entry(&self, id: &str) -> Result<Option<Entry>, LedgerError> {
        let _unchanged = self.lock();
        self.stored(id)
    }

    /// For who holds the lock: what is replaced is overwritten, and must not be read then.
    fn stored(&self, id: &str) -> Result<Option<Entry>, LedgerError> {
        if !is_id(id) {
            return Ok(None);
        }
        let entry: Option<Entry> = self.read(&name_of(id))?;
        match entry {
            Some(entry) if entry.id != id => Err(self.damaged(&name_of(id), "it is of another backup")),
            entry => Ok(entry),
        }
    }

    /// Keeps an entry, in the place of the one of its id.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub(super) fn keep(&self, entry: &Entry) -> Result<(), LedgerError> {
        let _changing = self.lock();
        self.write(&name_of(&entry.id), entry)
    }

    /// Notes that the whole of a backup was handed out. `false` if its key was destroyed meanwhile, which stays so.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub(super) fn complete(&self, id: &str, bytes: u64) -> Result<bool, LedgerError> {
        let _changing = self.lock();
        let Some(mut entry) = self.stored(id)?.filter(Entry::opens) else { return Ok(false) };
        entry.bytes = Some(bytes);
        self.write(&name_of(id), &entry)?;
        Ok(true)
    }

    /// Takes the key of a backup away; what is left of it tells that there was one. `None` if it is not known here.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub(super) fn destroy(&self, id: &str, at: &str, by: &str) -> Result<Option<Entry>, LedgerError> {
        let _changing = self.lock();
        let Some(mut entry) = self.stored(id)? else { return Ok(None) };
        if !entry.opens() {
            return Ok(Some(entry));
        }
        entry.wrapped = None;
        entry.destroyed_at = Some(at.to_owned());
        entry.destroyed_by = Some(by.to_owned());
        // Replaced first, so that whoever reads meanwhile, or starts after a crash, finds the one entry or the other; what
        // was replaced would stay on the disk as it was.
        let name = name_of(id);
        let former = OpenOptions::new().write(true).open(self.folder.join(&name));
        let former = former.map_err(|error| self.io(&name, error))?;
        self.write(&name, &entry)?;
        overwrite(former).map_err(|error| self.io(&name, error))?;
        Ok(Some(entry))
    }

    /// Keeps tombstones.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub(super) fn bury(&self, tombstones: &[Tombstone]) -> Result<(), LedgerError> {
        let _changing = self.lock();
        let lines: String = tombstones.iter().flat_map(|t| [t.kind.as_str(), " ", &t.id, "\n"]).collect();
        let append = || {
            let path = self.folder.join(ERASED);
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            let before = file.metadata()?.len();
            let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_all());
            if written.is_err() {
                // A part of a line would spoil the next one.
                let _ = file.set_len(before);
            }
            written
        };
        append().map_err(|error| self.io(ERASED, error))
    }

    /// All tombstones, each once, in pieces of at most `piece`.
    ///
    /// # Errors
    /// [`LedgerError`], and those of `take`.
    pub(super) fn tombstones<E: From<LedgerError>>(
        &self,
        piece: usize,
        mut take: impl FnMut(Vec<Tombstone>) -> Result<(), E>,
    ) -> Result<(), E> {
        let file = match File::open(self.folder.join(ERASED)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.map_err(|error| self.io(ERASED, error))?,
        };
        let mut some = Vec::new();
        for (number, line) in (1..).zip(BufReader::new(file).lines()) {
            let line: String = line.map_err(|error| self.io(ERASED, error))?;
            let tombstone = read_line(&line).ok_or_else(|| self.damaged(ERASED, &format!("line {number}")))?;
            some.push(tombstone);
            if some.len() >= piece {
                take(std::mem::take(&mut some))?;
            }
        }
        if some.is_empty() { Ok(()) } else { take(some) }
    }

    /// How far the store had come when it was last seen; `None` if it never was.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn witness(&self) -> Result<Option<Witness>, LedgerError> {
        self.read(WITNESS)
    }

    pub(super) fn keep_witness(&self, witness: &Witness) -> Result<(), LedgerError> {
        let _changing = self.lock();
        self.write(WITNESS, witness)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LedgerError> {
        let mut text = Vec::new();
        match File::open(self.folder.join(name)).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(name, error)),
        }
        let newer = serde_json::from_slice::<Format>(&text).is_ok_and(|Format { format }| format > FORMAT);
        if newer {
            return Err(self.damaged(name, "a newer program wrote it; run that one"));
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| self.damaged(name, &error.to_string()))
    }

    /// Appears whole or not at all.
    fn write(&self, name: &str, document: &impl Serialize) -> Result<(), LedgerError> {
        let write = || {
            let draft = self.folder.join(format!("{name}.new"));
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(&serde_json::to_vec(document)?)?;
            file.sync_all()?;
            fs::rename(&draft, self.folder.join(name))?;
            sync_folder(&self.folder)
        };
        write().map_err(|error| self.io(name, error))
    }

    fn io(&self, name: &str, source: io::Error) -> LedgerError {
        LedgerError::Io { path: if name == "." { self.folder.clone() } else { self.folder.join(name) }, source }
    }

    fn damaged(&self, name: &str, what: &str) -> LedgerError {
        LedgerError::Damaged { path: self.folder.join(name), what: what.to_owned() }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every document here says first.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn name_of(id: &str) -> String {
    format!("{id}.json")
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_line(line: &str) -> Option<Tombstone> {
    let (kind, id) = line.split_once(' ')?;
    let kind = TombstoneKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let shaped = (32..=36).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    shaped.then(|| Tombstone { kind, id: id.to_owned() })
}

/// Writes over all of a file, whether it still has a name or not.
fn overwrite(mut file: File) -> io::Result<()> {
    let length = file.metadata()?.len();
    io::copy(&mut io::repeat(b' ').take(length), &mut file)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn ledger(folder: &Path) -> Ledger {
        let ledger = Ledger::of(&folder.join("ledger"), &[7; 16]);
        ledger.prepare().unwrap();
        ledger
    }

    fn entry(id: u8, taken_at: &str) -> Entry {
        Entry::new(NewEntry {
            id: [id; 16],
            store: [7; 16],
            taken_at: taken_at.to_owned(),
            taken_by: "uid:1".to_owned(),
            key_revision: 3,
            accounts: 1,
            bindings: 2,
            digests_under: vec!["k1".to_owned()],
            keys: vec!["k1".to_owned()],
            kek: "00".to_owned(),
            wrapped: vec![0xab; 60],
        })
    }

    fn tombstone(kind: TombstoneKind, digit: char) -> Tombstone {
        Tombstone { kind, id: digit.to_string().repeat(32) }
    }

    fn all(ledger: &Ledger) -> Result<Vec<Tombstone>, LedgerError> {
        let mut all = Vec::new();
        ledger.tombstones::<LedgerError>(2, |some| {
            assert!(some.len() <= 2);
            all.extend(some);
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn entries_are_kept_for_this_user_alone_and_listed_the_latest_first() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path());
        assert!(ledger.prepare().unwrap(), "it is there by now");
        for (id, at) in [(1, "2026-11-24T00:00:00Z"), (2, "2026-11-25T00:00:00Z")] {
            ledger.keep(&entry(id, at)).unwrap();
        }
        let listed: Vec<_> = ledger.entries().unwrap().into_iter().map(|entry| entry.id).collect();
        assert_eq!(listed, ["02".repeat(16), "01".repeat(16)]);
        for id in ["", "..", "../x", &"0G".repeat(16), &"02".repeat(17)] {
            assert!(ledger.entry(id).unwrap().is_none(), "{id}");
        }
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(ledger.folder().to_owned()), 0o700);
        assert_eq!(mode(ledger.folder().join(format!("{}.json", "01".repeat(16)))), 0o600);
    }

    #[test]
    fn a_destroyed_key_is_in_no_file_and_its_backup_is_still_known() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path());
        ledger.keep(&entry(1, "2026-11-24T00:00:00Z")).unwrap();
        let path = ledger.folder().join(format!("{}.json", "01".repeat(16)));
        // A name for the file that is replaced, to see what is left in it.
        let former = folder.path().join("former");
        fs::hard_link(&path, &former).unwrap();
        let destroyed = ledger.destroy(&"01".repeat(16), "2026-11-26T00:00:00Z", "uid:2").unwrap().unwrap();
        assert!(!destroyed.opens() && destroyed.wrapped().is_none());
        for file in [path, former] {
            assert!(!fs::read_to_string(&file).unwrap().contains("abab"), "{}", file.display());
        }
        let again = ledger.destroy(&"01".repeat(16), "2026-11-27T00:00:00Z", "uid:3").unwrap().unwrap();
        assert_eq!(again, destroyed, "the first time counts");
        assert!(ledger.destroy(&"05".repeat(16), "", "").unwrap().is_none());
        // The last of it was on its way out.
        assert!(!ledger.complete(&"01".repeat(16), 5).unwrap());
        assert_eq!(ledger.entry(&"01".repeat(16)).unwrap(), Some(destroyed));
        ledger.keep(&entry(2, "2026-11-24T00:00:00Z")).unwrap();
        assert!(ledger.complete(&"02".repeat(16), 5).unwrap());
        assert_eq!(ledger.entry(&"02".repeat(16)).unwrap().unwrap().bytes, Some(5));
    }

    #[test]
    fn tombstones_come_back_and_a_line_that_a_crash_cut_off_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path());
        let buried = [
            tombstone(TombstoneKind::Binding, 'a'),
            tombstone(TombstoneKind::Account, 'b'),
            tombstone(TombstoneKind::Binding, 'c'),
        ];
        ledger.bury(&buried[..2]).unwrap();
        let mut file = OpenOptions::new().append(true).open(ledger.folder().join(ERASED)).unwrap();
        file.write_all(b"binding dddd").unwrap();
        assert!(all(&ledger).is_err(), "a damaged line is no end");
        ledger.prepare().unwrap();
        ledger.bury(&buried[2..]).unwrap();
        assert_eq!(all(&ledger).unwrap(), buried);
    }

    #[test]
    fn what_is_damaged_or_newer_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path());
        assert_eq!(ledger.witness().unwrap(), None);
        for text in ["", "{}", r#"{"format":2}"#, "\u{0}"] {
            fs::write(ledger.folder().join(WITNESS), text).unwrap();
            let error = ledger.witness().unwrap_err().to_string();
            assert!(error.contains(WITNESS), "{error}");
        }
    }
}
