//! The port of key rotations: the journal of each, and the records that they move.

use std::time::Duration;

use async_trait::async_trait;

use super::{ChangeOutcome, KeyChange, KeyPurpose, StoreError};
use crate::binding::{BindingDigest, BindingId, Chain, KeyId};
use crate::clock::{Day, Timestamp};

/// Where a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationState {
    /// The new key is made and, unless paused before, active; records move to it.
    Running,
    /// As running, but nothing moves until it is resumed.
    Paused,
    /// No record ends with the old key any more; sign-ins flatten.
    Draining,
    /// The old key is drained.
    Done,
    /// Given up before the new key became active.
    Aborted,
}

impl RotationState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Draining, Self::Done, Self::Aborted];

    /// The word used in JSON, tables and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Done => "done",
            Self::Aborted => "aborted",
        }
    }

    /// Whether it still has something to do.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Draining)
    }
}

/// A rotation as stored. `total = flattened + purged + remaining` at every instant; what is not stored is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRecord {
    /// `r1`: a number that only grows.
    pub id: String,
    /// Of which keys.
    pub purpose: KeyPurpose,
    /// The key that is to go.
    pub from: String,
    /// The key that takes its place.
    pub to: String,
    /// Where it is.
    pub state: RotationState,
    /// Why, as whoever started it put it; empty if nobody said.
    pub reason: String,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The last day on which a record may still contain the old key; the day after, it is erased.
    pub drain_by: Day,
    /// Records there were when the new key became active; each contained the old key, or would have once wrapped.
    pub total: u64,
    /// Records that the new key wrapped, in this rotation or together with the next one.
    pub wrapped: u64,
    /// Records that a sign-in took off the old key and all older ones.
    pub flattened: u64,
    /// Where the wrap goes on. Only saves looking at records again: their chains are the truth.
    pub cursor: u64,
    /// Counts the runners; only the latest may write (fencing token).
    pub fence: u64,
    /// What it looked like when the new key became active: Merkle root over all bindings; empty before.
    pub root_before: Vec<u8>,
    /// The same when it ended.
    pub root_after: Vec<u8>,
}

impl RotationRecord {
    /// One that moved nothing yet, for no reason that was told: what else there is to say is the caller's to add.
    #[must_use]
    pub fn new(
        id: &str,
        purpose: KeyPurpose,
        from: &str,
        to: &str,
        state: RotationState,
        started_at: Timestamp,
        drain_by: Day,
    ) -> Self {
        Self {
            id: id.to_owned(),
            purpose,
            from: from.to_owned(),
            to: to.to_owned(),
            state,
            reason: String::new(),
            started_at,
            finished_at: None,
            drain_by,
            total: 0,
            wrapped: 0,
            flattened: 0,
            cursor: 0,
            fence: 0,
            root_before: Vec::new(),
            root_after: Vec::new(),
        }
    }
}

/// A record whose outermost key is older than the active one.
pub struct Wrappable {
    /// Its place in the order in which records are visited.
    pub position: u64,
    /// Counts the changes of chain and digest.
    pub rev: u64,
    /// The keys that made the digest.
    pub chain: Chain,
    /// The digest.
    pub digest: BindingDigest,
}

/// A record as it is to be, if it is still as it was read.
pub struct Wrapped {
    /// Its place, as read.
    pub position: u64,
    /// Its changes so far, as read.
    pub rev: u64,
    /// The keys that made its digest, as read.
    pub before: Chain,
    /// The keys that make the new one; its outermost is younger than that of `before`.
    pub chain: Chain,
    /// The new digest.
    pub digest: BindingDigest,
}

/// Records as they are to be, if they are still as they were read.
pub struct WrapBatch {
    /// Which rotation moves them.
    pub rotation: String,
    /// The runner's fencing token.
    pub fence: u64,
    /// Generation of the key ring that made the digests.
    pub generation: u64,
    /// Where the next batch starts.
    pub cursor: u64,
    /// The records, in any order.
    pub records: Vec<Wrapped>,
    /// How it goes with others who wait for the store.
    pub haste: Haste,
}

/// What a batch does about others who wait for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Ends when somebody waits, and goes to the disk by itself, rather than with the next of them.
    Gentle,
    /// Ends when somebody waits.
    Free,
    /// Lets whoever waits go first, and goes on behind them, a few milliseconds at a time: they are never without somebody
    /// else who waits where thousands sign in, and a leaked key waits for nobody.
    Urgent,
}

/// What others noticed of records on the move, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// Changes that others asked for and that were answered.
    pub answered: u64,
    /// Of these, how many waited while records were moved or brought to the disk, and took longer than nearly all of those
    /// that did not.
    pub late: u64,
    /// For how long batches were written and brought to the disk.
    pub busy: Duration,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapOutcome {
    /// So many were moved; the others had moved on, or are gone.
    Wrapped(u64),
    /// So many were moved, but not all: somebody waits. The cursor stays where it was.
    BrokenOff(u64),
    /// Another runner has taken over, or the rotation does not run, perhaps since a part of the batch.
    Fenced,
    /// The key ring moved on since the digests were made, perhaps since a part of the batch: compute them again.
    Stale,
}

/// Whom a key that leaked concerns, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Bindings whose chain contains the key.
    pub bindings: u64,
    /// Of those, the ones whose account has a PIN: it takes them off the key. The others take a new code.
    pub with_pin: u64,
    /// Accounts that they belong to.
    pub accounts: u64,
}

/// A binding as an auditor's scan sees it.
pub struct Scanned {
    /// Its place in the order of the scan.
    pub position: u64,
    /// The binding.
    pub id: BindingId,
    /// The keys that made the digest.
    pub chain: Chain,
    /// The digest.
    pub digest: BindingDigest,
}

/// Rotations, and moving what they move. The same consistency domain as keys and bindings.
///
/// 22. **Compare and set.** `wrap` moves a record only if it still is as it was read: same place, same `rev`, same chain,
///     whose outermost key is older than the new one, judged in the step that moves it. So a batch that runs twice moves
///     nothing twice.
/// 23. **Fenced.** Only the runner that took the latest fencing token writes, with a key ring that is in force.
/// 24. **One step.** Records, cursor and counts of a batch become durable together; of one that is taken in parts, because
///     others wait for the store ([`Haste`]), records and counts of each part, and the cursor with the last. They
///     survive the end of the process when `wrap` returns, and that of the machine once any change does that comes after
///     (clause 1), such as the one that lets go of the old key. What is lost with the machine before is moved again: the
///     records tell.
/// 25. **Counted.** A record that leaves the old key by a sign-in is counted in the step that moves it.
#[async_trait]
pub trait RotationStore: Send + Sync + 'static {
    /// All rotations, the latest first.
    async fn rotations(&self) -> Result<Vec<RotationRecord>, StoreError>;

    /// As [`KeyStore::change`](super::KeyStore::change), together with rotations that begin or move to another state:
    /// each takes the place of the one of its id. Counts, cursor and fence are the store's: those given count only for a
    /// rotation that was not there. `total` is counted in this step where `count_total` names the rotation.
    async fn change_with(
        &self,
        revision: u64,
        keys: Vec<KeyChange>,
        rotations: Vec<RotationRecord>,
        count_total: Option<String>,
    ) -> Result<ChangeOutcome, StoreError>;

    /// Takes the fencing token: whoever had one before writes no more. `None` if there is no such rotation.
    async fn take_fence(&self, rotation: &str) -> Result<Option<u64>, StoreError>;

    /// Up to `limit` records behind `after` whose outermost key is older than `active`, in the order of their places.
    async fn wrappable(&self, active: KeyId, after: u64, limit: u32) -> Result<Vec<Wrappable>, StoreError>;

    /// Moves records. Makes way for every other call.
    async fn wrap(&self, batch: WrapBatch) -> Result<WrapOutcome, StoreError>;

    /// What the others notice of that.
    fn strain(&self) -> Strain;

    /// How many records each chain has, of chains that any has, in migration order. Counted, not remembered: reads
    /// every record.
    async fn chains(&self) -> Result<Vec<(Chain, u64)>, StoreError>;

    /// Whom `key` concerns. Counted, not remembered: reads every record.
    async fn reach(&self, key: KeyId) -> Result<Reach, StoreError>;

    /// How many bindings were last used before `day`.
    async fn unused_since(&self, day: Day) -> Result<u64, StoreError>;

    /// How many bindings [`RotationStore::purge_chain`] would erase.
    async fn purgeable(&self, key: KeyId) -> Result<u64, StoreError>;

    /// Erases the bindings whose chain contains `key`, or would once wrapped: it begins with that or an older key; but
    /// for those of accounts under hold. Up to `limit` of them; returns their ids, none where none is left.
    async fn purge_chain(&self, key: KeyId, limit: u32) -> Result<Vec<BindingId>, StoreError>;
}
