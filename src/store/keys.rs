//! The port of wrapped keys and of the scheme.

use async_trait::async_trait;

use super::StoreError;
use crate::clock::{Day, Timestamp};

/// What a stored key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Keyed hashes of handset identifiers.
    Binding,
    /// Signatures of assertions (ES256).
    Assertion,
    /// Keyed hashes of enrolment codes and handset tags.
    Session,
    /// Checkpoints of the audit chain, and receipts.
    Audit,
}

impl KeyPurpose {
    /// Every purpose.
    pub const ALL: [Self; 4] = [Self::Binding, Self::Assertion, Self::Session, Self::Audit];

    /// The word used in JSON, tables and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Assertion => "assertion",
            Self::Session => "session",
            Self::Audit => "audit",
        }
    }

    /// What ids of its keys begin with; a number follows that only grows.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Binding => 'k',
            Self::Assertion => 'a',
            Self::Session => 's',
            Self::Audit => 'u',
        }
    }
}

/// Where a key is in its life (`ARCHITECTURE.md`, "Key states").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Made, not yet used.
    Pending,
    /// The one in use.
    Active,
    /// Still outermost on some records.
    Retiring,
    /// Only below another layer.
    Inner,
    /// Proven unused.
    Drained,
    /// Wiped; a tombstone remains.
    Destroyed,
}

impl KeyState {
    /// Every state, in the order of a key's life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Active, Self::Retiring, Self::Inner, Self::Drained, Self::Destroyed];

    /// The word used in JSON, tables and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Inner => "inner",
            Self::Drained => "drained",
            Self::Destroyed => "destroyed",
        }
    }
}

/// When a key came to each state; `None` where it did not yet, or never will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyDates {
    /// In use since, or once.
    pub activated_at: Option<Timestamp>,
    /// No longer used for anything new.
    pub retired_at: Option<Timestamp>,
    /// Proven unused.
    pub drained_at: Option<Timestamp>,
    /// Wiped.
    pub destroyed_at: Option<Timestamp>,
}

/// A key as stored: its material wrapped under the KEK.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// `k1`, `a1`, `s1`, `u1`: the purpose's letter and a number that only grows, so their order is their age.
    pub id: String,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Where it is in its life.
    pub state: KeyState,
    /// No sign-in may use it for now.
    pub suspended: bool,
    /// Known to have leaked.
    pub compromised: bool,
    /// AES-256-GCM under the KEK: nonce, ciphertext, tag; empty once destroyed.
    pub wrapped: Vec<u8>,
    /// SHA-256 that only this key gives and that tells nothing of it: what a receipt names, and a tombstone keeps.
    pub commitment: [u8; 32],
    /// The public half of a key that signs, an uncompressed point (SEC 1 §2.3.3); a tombstone keeps it, so that what the
    /// key signed can be verified for ever.
    pub public: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it came to its other states.
    pub dates: KeyDates,
}

/// One change to the keys.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// A key that was not there.
    New(KeyRecord),
    /// To the next state. To `Destroyed` takes the material away.
    Move {
        /// Which key.
        id: String,
        /// Where it is now.
        from: KeyState,
        /// Where it goes.
        to: KeyState,
        /// When.
        at: Timestamp,
    },
    /// Suspends or resumes.
    Suspend {
        /// Which key.
        id: String,
        /// Whether no sign-in may use it.
        suspended: bool,
    },
    /// Says that it has leaked.
    Compromise {
        /// Which key.
        id: String,
    },
    /// The same key, wrapped under another KEK.
    Rewrap {
        /// Which key.
        id: String,
        /// AES-256-GCM under the new KEK.
        wrapped: Vec<u8>,
    },
    /// The same secret of the PINs ([`SchemeRecord::pin_secret`]), wrapped under another KEK.
    RewrapPinSecret {
        /// AES-256-GCM under the new KEK.
        wrapped: Vec<u8>,
    },
    /// The same keys of log days, wrapped under another KEK: all there are, or none of the changes is made.
    RewrapLogKeys(Vec<LogKeyRecord>),
}

/// What became of changes to the keys. Only the first changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// Done; the revision now in force.
    Changed(u64),
    /// Somebody changed the keys since: look again.
    Stale,
    /// A binding key is to leave a state in which this many records still need it.
    InUse(u64),
}

/// The stretch parameters and the secret of the PINs, fixed when the store was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeRecord {
    /// Names the scheme in every binding record; `v1` in a new store.
    pub id: String,
    /// Whether identifiers of small spaces are stretched at all.
    pub stretch: Option<StretchParameters>,
    /// The deployment's salt, 16 random bytes.
    pub salt: [u8; 16],
    /// What keyed hashes of PINs are made with: AES-256-GCM under the KEK. No rotation replaces it, since nobody could
    /// make the hashes again; it moves to another KEK with the keys.
    pub pin_secret: Vec<u8>,
}

/// Cost of the memory-hard stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StretchParameters {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

/// The key of one day (UTC) of the sealed access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKeyRecord {
    /// Whose lines it seals.
    pub day: Day,
    /// AES-256-GCM under the KEK: nonce, ciphertext, tag.
    pub wrapped: Vec<u8>,
}

/// What became of a key that was made for a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogKeyOutcome {
    /// This is the day's key, whoever made it.
    There(LogKeyRecord),
    /// The day's key was destroyed, or those of later days were: it never has one again.
    Past,
    /// Somebody changed the keys since: wrap it again.
    Stale,
}

/// Keys of log days that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DestroyedLogKeys {
    /// How many there were.
    pub count: u64,
    /// Why the journal, which may hold what they were wrapped as, was not emptied behind them; `None` where it was. To be
    /// scrubbed ([`SubjectStore::scrub`](super::SubjectStore::scrub)).
    pub unemptied: Option<StoreError>,
}

/// What a store holds of keys, read in one snapshot.
#[derive(Clone, Debug)]
pub struct StoredKeys {
    /// All keys, by purpose and age.
    pub keys: Vec<KeyRecord>,
    /// The scheme, if the store was initialised.
    pub scheme: Option<SchemeRecord>,
    /// Keys of log days, oldest first.
    pub log_keys: Vec<LogKeyRecord>,
    /// Log days before this have no key any more; `None` while none was destroyed.
    pub log_keys_from: Option<Day>,
    /// Generation of the key ring (`BindingStore::generation`).
    pub generation: u64,
    /// Counts the changes to any key; 0 in a new store.
    pub revision: u64,
}

/// The wrapped keys and the scheme.
///
/// 19. **Forwards.** A key's state only moves in the order of [`KeyState::ALL`]; what is compromised stays so; a destroyed
///     key has no material, and what was wrapped anew is not there under the former KEK, in no part of the medium that the
///     store can reach; a record stays.
/// 20. **Proven unused.** A binding key becomes `Inner` only where it is the outermost of no record, and `Drained` or
///     `Destroyed` only where no chain begins with it or an older key, so that none contains it and no wrap that is
///     on its way can bring it back; both are judged in the step that moves it. `Pending` keys were never used.
/// 21. **Exactly one is active** of each purpose, before and after every call.
/// 90. **One key a log day.** Of any number of keys that are made for a day the first is kept, and all callers get that one.
/// 91. **Never again.** A log day before one that keys were destroyed up to never has a key again; a destroyed key is in no
///     part of the medium that the store can reach, and in no backup.
/// 92. **All rewrapped.** No change leaves a key of a log day wrapped under another KEK than the other keys.
/// 16. **First writer wins.** `initialise` on a store that has keys or a scheme changes nothing; the caller reads back
///     what counts.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// A random id of this store, part of what binds a wrapped key to it.
    async fn store_id(&self) -> Result<[u8; 16], StoreError>;

    /// What the store holds of keys.
    async fn keys(&self) -> Result<StoredKeys, StoreError>;

    /// Puts the first keys and the scheme in, all or nothing.
    async fn initialise(&self, keys: Vec<KeyRecord>, scheme: SchemeRecord) -> Result<(), StoreError>;

    /// Makes all `changes` or none, if nobody changed the keys since `revision`. Where one is about a binding key, the
    /// generation moves too.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for changes that break clause 19 or 21: no caller may ask for them.
    async fn change(&self, revision: u64, changes: Vec<KeyChange>) -> Result<ChangeOutcome, StoreError>;

    /// Keeps a key of a log day, which was wrapped when the keys were at `revision`. The revision stays: who decided about
    /// the other keys need not look again because a day came.
    async fn keep_log_key(&self, key: LogKeyRecord, revision: u64) -> Result<LogKeyOutcome, StoreError>;

    /// Destroys the keys of log days before `before`.
    ///
    /// # Errors
    /// [`StoreError`]; then none was destroyed, as far as is known.
    async fn destroy_log_keys(&self, before: Day) -> Result<DestroyedLogKeys, StoreError>;

    /// How many binding records carry `scheme`: what a changed stretch setting would orphan.
    async fn bound_under(&self, scheme: &str) -> Result<u64, StoreError>;
}
