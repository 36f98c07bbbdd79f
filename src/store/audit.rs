//! The port of the audit trail.

use async_trait::async_trait;

use super::StoreError;
use crate::audit::{Entry, EntryHash, Event, Pseudonym, Tip};
use crate::binding::AccountId;
use crate::clock::Timestamp;
use crate::keys::AuditPublicKey;
use crate::secret::SecretBytes;

/// An entry that is to be written.
pub struct NewAuditEntry {
    /// What happened.
    pub event: Event,
    /// When.
    pub at: Timestamp,
    /// The audit key in force.
    pub key: String,
    /// An entry that must be in the chain, as whoever writes remembers it.
    pub known: Option<Tip>,
    /// 32 random bytes: the pseudonym's key of an account that has none yet.
    pub fresh: SecretBytes,
}

/// An entry as the store holds it, changed or not: [`Verifier`](crate::audit::Verifier) judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAuditEntry {
    /// Its number.
    pub seq: u64,
    /// Its canonical text.
    pub text: String,
    /// Its hash.
    pub hash: EntryHash,
}

impl StoredAuditEntry {
    /// The chain up to here.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        Tip { seq: self.seq, hash: self.hash }
    }
}

/// A checkpoint as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The number of its last entry.
    pub seq: u64,
    /// The key that sealed it.
    pub key: String,
    /// Its canonical text.
    pub text: String,
    /// Its seal.
    pub seal: Vec<u8>,
}

/// What verifies the seals of an audit key, for as long as there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingKey {
    /// `u1`.
    pub id: String,
    /// The public half.
    pub public: AuditPublicKey,
}

/// The audit trail. May live apart from all other ports.
///
/// 26. **Chained.** Number and hash of an entry are made in the step that writes it: entries that are written at once
///     still follow each other without a gap, each over the hash of the one before it. The first is chained to
///     [`EntryHash::before_all`].
/// 27. **Append-only.** No call changes an entry, a checkpoint or a key, or takes a key away, and none takes an entry or a
///     checkpoint away but [`AuditStore::erase_before`]; the medium itself refuses to, as far as it can.
/// 28. **Remembered.** An entry whose `known` is not in the chain is refused with [`StoreError::Corrupt`].
/// 29. **One pseudonym.** An account has the same pseudonym in every entry until it is forgotten; then nothing is left
///     in the medium from which it could be made again, and a later entry has another.
/// 30. **A checkpoint fits.** One whose entry is not in the chain, with that hash, is not kept.
/// 46. **From the beginning alone.** What is erased is all that is before one entry, in one step, and never the last entry:
///     what is left is still one chain, and numbers go on.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// Writes an entry behind the last.
    async fn append(&self, entry: NewAuditEntry) -> Result<Entry, StoreError>;

    /// The end of the chain; `None` if it is empty.
    async fn audit_head(&self) -> Result<Option<Tip>, StoreError>;

    /// Up to `limit` entries behind number `after`, in order.
    async fn audit_entries(&self, after: u64, limit: u32) -> Result<Vec<StoredAuditEntry>, StoreError>;

    /// Erases the entries before number `seq`, and their checkpoints. Returns how many entries.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if there is no such entry: no caller may ask for it.
    async fn erase_before(&self, seq: u64) -> Result<u64, StoreError>;

    /// The entries in whose text the pseudonym stands, in order; reads all of them.
    async fn audit_entries_about(&self, pseudonym: &Pseudonym) -> Result<Vec<StoredAuditEntry>, StoreError>;

    /// Keeps a checkpoint of the chain up to `hash`. `false` if it does not fit.
    async fn keep_checkpoint(&self, checkpoint: StoredCheckpoint, hash: EntryHash) -> Result<bool, StoreError>;

    /// The checkpoints behind entry `after`, up to entry `until`, in order.
    async fn checkpoints(&self, after: u64, until: u64) -> Result<Vec<StoredCheckpoint>, StoreError>;

    /// The latest checkpoint.
    async fn last_checkpoint(&self) -> Result<Option<StoredCheckpoint>, StoreError>;

    /// Keeps the public half of a key. Of two under the same id the first stays.
    async fn keep_sealing_key(&self, key: SealingKey) -> Result<(), StoreError>;

    /// The keys of the checkpoints behind entry `after`, up to entry `until`, as far as they are known, by id.
    async fn sealing_keys(&self, after: u64, until: u64) -> Result<Vec<SealingKey>, StoreError>;

    /// The public half of a key.
    async fn sealing_key(&self, id: &str) -> Result<Option<SealingKey>, StoreError>;

    /// Who the account is in the trail; `None` if no entry was ever about it.
    async fn pseudonym(&self, account: &AccountId) -> Result<Option<Pseudonym>, StoreError>;

    /// Erases the key of the account's pseudonym. `false` if there was none.
    async fn forget_pseudonym(&self, account: &AccountId) -> Result<bool, StoreError>;
}
