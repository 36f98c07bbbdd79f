//! The port of wrapped keys and of the scheme.

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;

/// What a stored key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Keyed hashes of handset identifiers.
    Binding,
    /// Signatures of assertions (ES256).
    Assertion,
    /// Keyed hashes of enrolment codes, handset tags and `sid`.
    Session,
}

impl KeyPurpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::Binding, Self::Assertion, Self::Session];

    /// The word used in JSON, tables and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Assertion => "assertion",
            Self::Session => "session",
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

/// A key as stored: its material wrapped under the KEK.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// `k1`, `a1`, `s1`: the purpose's letter and a number that only grows, so their order is their age.
    pub id: String,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Where it is in its life.
    pub state: KeyState,
    /// No sign-in may use it for now.
    pub suspended: bool,
    /// Known to have leaked.
    pub compromised: bool,
    /// AES-256-GCM under the KEK: nonce, ciphertext, tag.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The stretch parameters, fixed when the store was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeRecord {
    /// Names the scheme in every binding record; `v1` in a new store.
    pub id: String,
    /// Whether identifiers of small spaces are stretched at all.
    pub stretch: Option<StretchParameters>,
    /// The deployment's salt, 16 random bytes.
    pub salt: [u8; 16],
}

/// Cost of the memory-hard stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StretchParameters {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

/// What a store holds of keys, read in one snapshot.
#[derive(Clone, Debug)]
pub struct StoredKeys {
    /// All keys, by purpose and age.
    pub keys: Vec<KeyRecord>,
    /// The scheme, if the store was initialised.
    pub scheme: Option<SchemeRecord>,
    /// Generation of the key ring (`BindingStore::generation`).
    pub generation: u64,
}

/// The wrapped keys and the scheme.
///
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

    /// How many binding records carry `scheme`: what a changed stretch setting would orphan.
    async fn bound_under(&self, scheme: &str) -> Result<u64, StoreError>;
}
