//! The file of one backup: a head in clear, then numbered chunks of AES-256-GCM (NIST SP 800-38D), of which the last says so.
//!
//! The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its
//! Nonce-Reuse Misuse-Resistance, 2015): the nonce is the number of the chunk and whether it is the last, so none can be
//! left out, moved, doubled or cut off. The head is authenticated with every chunk. A key is fresh and of one file.

use std::io::{self, BufRead, Read as _};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::secret::SecretBytes;

/// What the file begins with, and its format.
const MAGIC: &[u8; 16] = b"sekisho-backup\0\x01";
/// How much of [`MAGIC`] says what it is; the octet after it is the format.
const KIND: usize = 15;
/// Octets of the head.
const HEAD: usize = 68;
/// Octets of the store in each chunk but the last, which has one at least.
const CHUNK: usize = 64 << 10;
/// Octets that AES-256-GCM adds.
const TAG: usize = 16;

/// The key of one backup: 32 random octets, wiped on drop.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct ArchiveKey(SecretBytes);

/// What a backup says of itself in clear. Nothing of it is secret, or about a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveHeader {
    /// The store that was copied.
    pub store_id: [u8; 16],
    /// This copy.
    pub backup_id: [u8; 16],
    /// When, to the millisecond.
    pub taken_at: Timestamp,
    /// Counts the changes to the keys up to then.
    pub key_revision: u64,
    /// The format of the store's tables.
    pub schema: u32,
}

/// Why a file is no backup that can be restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It begins otherwise.
    #[error("this file is not a backup of Sekisho")]
    NotABackup,
    /// A later program made it.
    #[error("this backup was made by a newer Sekisho (format {0}); restore it with that one")]
    Newer(u8),
    /// A chunk is not what was written under this key and head.
    #[error("chunk {0} does not open: the key is another's, or the file was changed or cut off")]
    Damaged(u32),
    /// More chunks than a key may seal.
    #[error("it is larger than a backup can be")]
    TooLarge,
    /// Reading it failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ArchiveKey {
    /// A fresh one.
    #[must_use]
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        let clear = Zeroizing::new(random::<32>(entropy));
        Self(SecretBytes::new(clear.to_vec()))
    }

    /// One that was kept; `None` unless it has 32 octets.
    pub(crate) fn of(material: SecretBytes) -> Option<Self> {
        (material.expose().len() == 32).then_some(Self(material))
    }

    /// What is kept of it, wrapped.
    pub(super) const fn material(&self) -> &SecretBytes {
        &self.0
    }

    fn cipher(&self) -> LessSafeKey {
        UnboundKey::new(&AES_256_GCM, self.0.expose())
            .map_or_else(|_| unreachable!("an archive key has 32 octets"), LessSafeKey::new)
    }
}

impl ArchiveHeader {
    fn bytes(&self) -> Vec<u8> {
        let millis = self.taken_at.unix_millis();
        [
            MAGIC.as_slice(),
            &self.store_id,
            &self.backup_id,
            &millis.to_be_bytes(),
            &self.key_revision.to_be_bytes(),
            &self.schema.to_be_bytes(),
        ]
        .concat()
    }

    fn parse(bytes: &[u8; HEAD]) -> Result<Self, ArchiveError> {
        let (kind, rest) = bytes.split_first_chunk::<KIND>().ok_or(ArchiveError::NotABackup)?;
        if !MAGIC.starts_with(kind) {
            return Err(ArchiveError::NotABackup);
        }
        let (&format, mut rest) = rest.split_first().ok_or(ArchiveError::NotABackup)?;
        match format {
            0 => return Err(ArchiveError::NotABackup),
            1 => {}
            newer => return Err(ArchiveError::Newer(newer)),
        }
        Ok(Self {
            store_id: *field(&mut rest)?,
            backup_id: *field(&mut rest)?,
            taken_at: Timestamp::from_unix_millis(i64::from_be_bytes(*field(&mut rest)?)),
            key_revision: u64::from_be_bytes(*field(&mut rest)?),
            schema: u32::from_be_bytes(*field(&mut rest)?),
        })
    }
}

/// Length of the file of a store of `length` octets.
pub(super) const fn archive_length(length: u64) -> u64 {
    let chunks = length.div_ceil(CHUNK as u64);
    HEAD as u64 + length + TAG as u64 * if chunks == 0 { 1 } else { chunks }
}

fn field<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], ArchiveError> {
    let (field, after) = rest.split_first_chunk().ok_or(ArchiveError::NotABackup)?;
    *rest = after;
    Ok(field)
}

/// Which chunk comes next, under which key and head.
struct Chunks {
    cipher: LessSafeKey,
    head: Vec<u8>,
    number: u32,
}

impl Chunks {
    /// Number and end, as 96 bits.
    fn nonce(number: u32, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        for (to, from) in nonce.iter_mut().skip(7).zip(number.to_be_bytes().into_iter().chain([u8::from(last)])) {
            *to = from;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// The number of this chunk; each is given out once.
    fn step(&mut self) -> Result<u32, ArchiveError> {
        let number = self.number;
        self.number = number.checked_add(1).ok_or(ArchiveError::TooLarge)?;
        Ok(number)
    }
}

/// Writes a backup, piece by piece.
pub struct ArchiveWriter {
    chunks: Chunks,
    /// What was not sealed yet: whether it is the last chunk shows when more comes.
    waiting: Zeroizing<Vec<u8>>,
}

impl ArchiveWriter {
    /// Begins a file under a key that sealed nothing before; its head goes to `out`.
    #[must_use]
    pub fn begin(key: &ArchiveKey, header: &ArchiveHeader, out: &mut Vec<u8>) -> Self {
        let head = header.bytes();
        out.extend_from_slice(&head);
        let chunks = Chunks { cipher: key.cipher(), head, number: 0 };
        Self { chunks, waiting: Zeroizing::new(Vec::with_capacity(CHUNK)) }
    }

    /// Takes more of the store; what is full goes to `out`.
    ///
    /// # Errors
    /// [`ArchiveError::TooLarge`] past 2^32 - 1 chunks (256 TiB).
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            if self.waiting.len() == CHUNK {
                self.seal(false, out)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Ends the file. One that was not ended does not open.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        self.seal(true, out)
    }

    fn seal(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let nonce = Chunks::nonce(self.chunks.step()?, last);
        let tag = self
            .chunks
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from(&self.chunks.head), &mut self.waiting)
            .map_err(|_| ArchiveError::TooLarge)?;
        out.extend_from_slice(&self.waiting);
        out.extend_from_slice(tag.as_ref());
        self.waiting.clear();
        Ok(())
    }
}

/// Reads a backup, chunk by chunk; what it gives out was authenticated. Only one that was read to its end is whole.
pub struct ArchiveReader<R> {
    source: R,
    chunks: Chunks,
    ended: bool,
}

/// A backup of which the head was read, and nothing is believed yet.
pub struct Unopened<R> {
    source: R,
    head: [u8; HEAD],
    header: ArchiveHeader,
}

impl<R: BufRead> Unopened<R> {
    /// What it says of itself. Not authenticated before the first chunk was read.
    pub const fn header(&self) -> &ArchiveHeader {
        &self.header
    }

    /// Goes on with the key that the head names.
    pub fn open(self, key: &ArchiveKey) -> ArchiveReader<R> {
        let chunks = Chunks { cipher: key.cipher(), head: self.head.to_vec(), number: 0 };
        ArchiveReader { source: self.source, chunks, ended: false }
    }
}

impl<R: BufRead> ArchiveReader<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// [`ArchiveError`] for what is no backup, or one of a newer program.
    pub fn head(mut source: R) -> Result<Unopened<R>, ArchiveError> {
        let mut head = [0; HEAD];
        source.read_exact(&mut head).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof { ArchiveError::NotABackup } else { error.into() }
        })?;
        let header = ArchiveHeader::parse(&head)?;
        Ok(Unopened { source, head, header })
    }

    /// The next octets of the store; `None` after the last, and then the file is whole.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] for a chunk that was changed, moved or cut off, for whatever stands behind the last,
    /// and for another key.
    pub fn chunk(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let number = self.chunks.step()?;
        let mut sealed = Zeroizing::new(Vec::with_capacity(CHUNK + TAG));
        let most = u64::try_from(CHUNK + TAG).unwrap_or(u64::MAX);
        self.source.by_ref().take(most).read_to_end(&mut sealed)?;
        let last = self.source.fill_buf()?.is_empty();
        let nonce = Chunks::nonce(number, last);
        let opened = self.chunks.cipher.open_in_place(nonce, Aad::from(&self.chunks.head), &mut sealed);
        let length = opened.map_err(|_| ArchiveError::Damaged(number))?.len();
        sealed.truncate(length);
        self.ended = last;
        Ok(Some(sealed))
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(ArchiveKey: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    fn header() -> ArchiveHeader {
        ArchiveHeader {
            store_id: [1; 16],
            backup_id: [2; 16],
            taken_at: Timestamp::from_unix_millis(1_764_000_000_042),
            key_revision: 7,
            schema: 3,
        }
    }

    fn key(seed: u64) -> ArchiveKey {
        ArchiveKey::fresh(&SeededEntropy::new(seed))
    }

    fn written(store: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = ArchiveWriter::begin(&key(1), &header(), &mut out);
        for piece in store.chunks(piece) {
            writer.push(piece, &mut out).unwrap();
        }
        writer.finish(&mut out).unwrap();
        out
    }

    fn read(file: &[u8], key: &ArchiveKey) -> Result<Vec<u8>, ArchiveError> {
        let mut reader = ArchiveReader::head(file)?.open(key);
        let mut store = Vec::new();
        while let Some(chunk) = reader.chunk()? {
            store.extend_from_slice(&chunk);
        }
        Ok(store)
    }

    #[test]
    fn what_was_written_in_any_pieces_is_read_again() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 9] {
            let store: Vec<u8> = (0..=250_u8).cycle().take(length).collect();
            for piece in [1000, CHUNK, 3 * CHUNK] {
                let file = written(&store, piece);
                assert_eq!(*ArchiveReader::head(&file[..]).unwrap().header(), header());
                assert!(read(&file, &key(1)).unwrap() == store, "{length} in pieces of {piece}");
                assert_eq!(file.len() as u64, archive_length(length as u64));
            }
        }
    }

    #[test]
    fn a_known_answer() {
        // Computed with Python's cryptography, whose key is SHA-256 as the seed gives it.
        let file = include_bytes!("../../fuzz/corpus/backup/whole");
        assert_eq!(read(file, &key(1)).unwrap(), b"store");
        assert_eq!(written(b"store", 5), file);
    }

    #[test]
    fn nothing_of_the_store_is_in_it_in_clear() {
        let file = written(&b"canary-of-a-store".repeat(9000), 4096);
        assert!(!file.windows(6).any(|window| window == b"canary"));
    }

    #[test]
    fn another_key_a_changed_octet_and_an_end_cut_off_are_found() {
        let store = vec![5; 2 * CHUNK + 9];
        let file = written(&store, CHUNK);
        assert!(matches!(read(&file, &key(2)), Err(ArchiveError::Damaged(0))));
        let second = HEAD + CHUNK + TAG;
        for at in (0..HEAD).chain([HEAD, second - 1, second, file.len() - 1]) {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            assert!(read(&changed, &key(1)).is_err(), "octet {at}");
        }
        for end in [0, HEAD - 1, HEAD, HEAD + 1, second, second + 5, 2 * second - HEAD, file.len() - 1] {
            assert!(read(&file[..end], &key(1)).is_err(), "cut off at {end}");
        }
        assert!(read(&[&file[..], b"x"].concat(), &key(1)).is_err());
    }

    #[test]
    fn chunks_that_were_left_out_moved_or_doubled_are_found() {
        let file = written(&vec![5; 3 * CHUNK], CHUNK);
        let (head, chunks) = file.split_at(HEAD);
        let chunk: Vec<_> = chunks.chunks(CHUNK + TAG).collect();
        for order in [&[0, 2][..], &[1, 0, 2], &[0, 0, 1, 2], &[0, 1, 2, 2], &[0, 1], &[2]] {
            let body = order.iter().map(|number| chunk[*number]).collect::<Vec<_>>().concat();
            assert!(read(&[head, &body].concat(), &key(1)).is_err(), "{order:?}");
        }
    }

    #[test]
    fn what_is_no_backup_and_a_newer_one_are_told_apart() {
        let mut file = written(b"store", 5);
        assert!(matches!(read(b"SQLite format 3\0", &key(1)), Err(ArchiveError::NotABackup)));
        file[KIND] = 2;
        assert!(matches!(read(&file, &key(1)), Err(ArchiveError::Newer(2))));
    }
}
