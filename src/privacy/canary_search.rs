//! The search for a canary: whether a value that went the way of an identifier stands in a file of the gateway's.
//!
//! In: a canary that the stages were given as if a handset had sent it, and the files that the process writes. Out: how many
//! files were read to their end, and which of them have it, as text, in hexadecimal or in base64. Absent on purpose: any
//! identifier of a person.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

use crate::backup::hex;
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};

/// The name of its proof.
pub const CANARY_PROOF: &str = "canary";
/// How often it is searched for.
const PERIOD: Duration = Duration::from_hours(24);
/// How often it is tried where it could not be carried out.
const AGAIN: Duration = Duration::from_hours(1);
/// Octets that are read at a time.
const PIECE: usize = 1 << 20;

/// A random value that stands for an identifier: 32 hexadecimal digits that are nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary(String);

impl Canary {
    /// A fresh one.
    #[must_use]
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(random(entropy))))
    }

    /// As a header field has it.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// As the stages behind the head have it.
    #[must_use]
    pub fn octets(&self) -> [u8; 32] {
        let mut octets = [0; 32];
        for (to, from) in octets.iter_mut().zip(self.0.bytes()) {
            *to = from;
        }
        octets
    }

    /// What it looks like where somebody wrote it down. Base64 has three forms by where in a text it stands; of each the part
    /// that its neighbours do not change.
    fn spellings(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.0.clone().into_bytes(), self.0.to_ascii_uppercase().into_bytes()];
        let hex = hex(self.0.as_bytes());
        all.push(hex.to_ascii_uppercase().into_bytes());
        all.push(hex.into_bytes());
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for before in 0..3 {
                let text = engine.encode([vec![0; before], self.0.clone().into_bytes()].concat());
                let stands = text.get((before * 8).div_ceil(6)..text.len() - 1).unwrap_or_default();
                all.push(stands.as_bytes().to_vec());
            }
        }
        all.sort();
        all.dedup();
        all
    }
}

/// What a search found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Files that were read to their end.
    pub files: u64,
    /// Octets in them.
    pub octets: u64,
    /// Files that have it.
    pub found: Vec<PathBuf>,
    /// Files that could not be read.
    pub unread: Vec<PathBuf>,
}

/// When it is due, and what was planted for it.
#[derive(Default)]
pub struct CanarySearch {
    state: Mutex<State>,
    /// Handles of the store's files, by device and inode, which are never closed: a process that closes one loses all its
    /// locks on the file (POSIX, fcntl(2)), SQLite's among them. Another program that looked at the store would then take
    /// itself for the only one, and do away with the journal when it ends.
    kept: Mutex<HashMap<(u64, u64), Arc<File>>>,
}

#[derive(Default)]
struct State {
    planted: Option<Canary>,
    next_at: Option<Timestamp>,
}

impl CanarySearch {
    /// Searches `files`, and all that stands in those that are folders; `store` is the store's. What goes while it is looked
    /// for is passed over. Blocks; ends early once `stop` says so, and then says nothing.
    pub fn search(
        &self,
        store: &Path,
        files: &[PathBuf],
        canary: &Canary,
        stop: impl Fn() -> bool,
    ) -> Option<Searched> {
        let spellings = canary.spellings();
        let finders: Vec<Finder<'_>> = spellings.iter().map(Finder::new).collect();
        let mut searched = Searched::default();
        let mut left: Vec<PathBuf> = files.to_vec();
        while let Some(path) = left.pop() {
            if path.is_dir() {
                match std::fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                    Ok(entries) => left.extend(entries.into_iter().map(|entry| entry.path())),
                    Err(_) => searched.unread.push(path),
                }
                continue;
            }
            // A socket or a pipe has nothing to read.
            if path.exists() && !path.is_file() {
                continue;
            }
            match self.open(store, &path).and_then(|file| read(&file, &finders, &stop)) {
                Ok(Some((octets, found))) => {
                    searched.files += 1;
                    searched.octets += octets;
                    if found {
                        searched.found.push(path);
                    }
                }
                Ok(None) => return None,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(_) => searched.unread.push(path),
            }
        }
        searched.found.sort();
        searched.unread.sort();
        Some(searched)
    }

    /// Opens a file to be read from where nobody else reads: a handle may be shared.
    fn open(&self, store: &Path, path: &Path) -> io::Result<Arc<File>> {
        let named = |suffix: &str| {
            let mut name = store.file_name().unwrap_or_default().to_owned();
            name.push(suffix);
            path.file_name() == Some(&name)
        };
        let is_locked = ["", "-wal", "-shm"].into_iter().any(named);
        if !is_locked {
            return File::open(path).map(Arc::new);
        }
        let identity = |file: &Metadata| (file.dev(), file.ino());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = kept.get(&identity(&std::fs::metadata(path)?)) {
            return Ok(Arc::clone(file));
        }
        let file = File::open(path)?;
        let identity = identity(&file.metadata()?);
        match kept.entry(identity) {
            Entry::Vacant(place) => Ok(Arc::clone(place.insert(Arc::new(file)))),
            // It was moved here this very moment. Not closed either.
            Entry::Occupied(known) => {
                std::mem::forget(file);
                Ok(Arc::clone(known.get()))
            }
        }
    }
}

/// How long a file is, and whether one of `finders` finds something in it; `None` once `stop` says so.
fn read(file: &File, finders: &[Finder<'_>], stop: &impl Fn() -> bool) -> io::Result<Option<(u64, bool)>> {
    let longest = finders.iter().map(|finder| finder.needle().len()).max().unwrap_or(1);
    let (mut octets, mut found) = (0, false);
    let mut piece = Vec::with_capacity(PIECE + longest);
    let mut next = vec![0; PIECE];
    loop {
        if stop() {
            return Ok(None);
        }
        let read = match file.read_at(&mut next, octets) {
            Ok(0) => return Ok(Some((octets, found))),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        piece.extend_from_slice(next.get(..read).unwrap_or_default());
        octets += read as u64;
        found |= finders.iter().any(|finder| finder.find(&piece).is_some());
        // What two pieces share between them.
        let kept = piece.len().saturating_sub(longest - 1);
        piece.drain(..kept);
    }
}

impl CanarySearch {
    /// The stages were given `canary`.
    pub fn planted(&self, canary: Canary) {
        self.state().planted = Some(canary);
    }

    /// What was planted last and not taken yet.
    #[must_use]
    pub fn take(&self) -> Option<Canary> {
        self.state().planted.take()
    }

    /// Whether it is time: at start, and once a day.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        // A clock that was set back must not put it off.
        self.state().next_at.is_none_or(|next| now >= next || next.since(now) > PERIOD)
    }

    /// It was carried out, or could not be.
    pub fn done(&self, now: Timestamp, carried_out: bool) {
        self.state().next_at = Some(now.plus(if carried_out { PERIOD } else { AGAIN }));
    }

    /// Nothing panics while it holds the lock.
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn canary() -> Canary {
        Canary::fresh(&SeededEntropy::new(7))
    }

    fn found(text: &[u8]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, text).unwrap();
        let searched = CanarySearch::default().search(&file, std::slice::from_ref(&file), &canary(), || false).unwrap();
        assert_eq!((searched.files, searched.octets), (1, text.len() as u64));
        assert!(searched.found.is_empty() || searched.found == [file]);
        !searched.found.is_empty()
    }

    #[test]
    fn it_is_found_in_every_spelling_wherever_it_stands() {
        let text = canary().0;
        let hex = hex(text.as_bytes());
        let mut spellings = vec![text.clone(), text.to_ascii_uppercase(), hex.to_ascii_uppercase(), hex];
        for before in ["", "a", "ab", "abc"] {
            for after in ["", "z", "yz"] {
                spellings.push(STANDARD_NO_PAD.encode(format!("{before}{text}{after}")));
                spellings.push(URL_SAFE_NO_PAD.encode(format!("{before}{text}{after}")));
            }
        }
        for spelling in &spellings {
            for before in [0, 9, PIECE - 70, PIECE - 20, PIECE - 1, PIECE, 2 * PIECE - 5] {
                let mut file = vec![b'.'; before];
                file.extend_from_slice(spelling.as_bytes());
                file.extend_from_slice(&[b'.'; 90]);
                assert!(found(&file), "{spelling} behind {before}");
            }
        }
        for spelling in spellings {
            assert!(!found(&spelling.as_bytes()[1..spelling.len() / 2]), "a half of {spelling}");
        }
        assert!(!found(b""));
        assert_eq!(canary().octets(), *text.as_bytes());
    }

    #[test]
    fn folders_are_searched_and_what_is_gone_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("here"), format!("x{}", canary().as_str())).unwrap();
        std::fs::write(folder.path().join("not-here"), "x").unwrap();
        let store = folder.path().join("store");
        let gone = folder.path().join("gone");
        let searched =
            CanarySearch::default().search(&store, &[folder.path().to_owned(), gone], &canary(), || false).unwrap();
        assert_eq!((searched.files, &*searched.found), (2, &[deep.join("here")][..]));
        assert_eq!(searched.unread, [""; 0].map(PathBuf::from));
        let stopped = CanarySearch::default().search(&store, &[folder.path().to_owned()], &canary(), || true);
        assert_eq!(stopped, None);
    }

    #[test]
    fn it_is_due_at_start_and_once_a_day_and_sooner_where_it_failed() {
        let now = Timestamp::from_unix_millis(1_795_530_117_042);
        let due = CanarySearch::default();
        assert!(due.is_due(now));
        due.done(now, true);
        assert!(!due.is_due(now) && !due.is_due(now.plus(Duration::from_hours(23))));
        assert!(due.is_due(now.plus(PERIOD)) && due.is_due(now.minus(Duration::from_hours(1))));
        due.done(now, false);
        assert!(!due.is_due(now) && due.is_due(now.plus(AGAIN)));
        assert_eq!(due.take(), None);
        due.planted(canary());
        assert_eq!((due.take(), due.take()), (Some(canary()), None));
    }
}
