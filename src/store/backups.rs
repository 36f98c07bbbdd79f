//! The port of backups: a copy of everything, and what a copy from before must not bring back.

use std::fs::File;

use async_trait::async_trait;

use super::StoreError;

/// What was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TombstoneKind {
    /// A binding.
    Binding,
    /// An account, with all that belongs to it.
    Account,
}

impl TombstoneKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Binding, Self::Account];

    /// The word used in stores and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Account => "account",
        }
    }
}

/// What is left of something that was erased: a random id that was of it alone. Without a store in which it still is, it
/// says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// What it was.
    pub kind: TombstoneKind,
    /// The store's own random id of it, as text.
    pub id: String,
}

/// What a copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// To be restored one day: without sessions and codes, which would be in force again then though they ended.
    Backup,
    /// To be worked on for a while, as it is.
    Shadow,
}

/// A copy of a store. Its file has no name any more: it is gone with the handle, however the process ends.
pub struct Copied {
    /// The bytes of a store, from their first on.
    pub file: File,
    /// How many there are.
    pub length: u64,
    /// The format of its tables.
    pub schema: u32,
    /// Accounts in it.
    pub accounts: u64,
    /// Bindings in it.
    pub bindings: u64,
    /// The keys that some binding's chain has in it, oldest first.
    pub digests_under: Vec<String>,
    /// Keys whose material is in it, wrapped.
    pub keys: Vec<String>,
    /// Counts the changes to the keys up to then.
    pub key_revision: u64,
}

/// Copies, and what is erased in the meantime.
///
/// 80. **Told.** Whatever is erased, a binding or an account, by whichever call and for whatever reason, has a tombstone
///     from the step that erases it until `tombstones_kept`.
/// 81. **Again.** `erase_again` erases what the tombstones name and nothing else; an account that was made anew since is
///     another. Every session and every code ends with it. What it erases has no new tombstone.
/// 82. **Of one instant.** A copy holds what the store held at one instant between call and answer, but for what its kind
///     leaves out and for tombstones. No other call waits for it.
#[async_trait]
pub trait BackupStore: Send + Sync + 'static {
    /// Up to `limit` tombstones, oldest first, and what `tombstones_kept` takes.
    async fn tombstones(&self, limit: u32) -> Result<(Vec<Tombstone>, u64), StoreError>;

    /// Forgets those up to `until`: the ledger has them. Not to be called by two at once.
    async fn tombstones_kept(&self, until: u64) -> Result<(), StoreError>;

    /// Erases what these tombstones name, and all sessions and codes. Returns how many accounts and bindings it found.
    async fn erase_again(&self, tombstones: Vec<Tombstone>) -> Result<u64, StoreError>;

    /// Copies the store. One copy at a time: the next waits.
    async fn copy(&self, kind: CopyKind) -> Result<Copied, StoreError>;
}
