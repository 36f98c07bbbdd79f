//! The port of what a person may ask for: what is kept of their account, its erasure, a hold that stops that, labels.

use async_trait::async_trait;

use super::{BindingRecord, News, NoticeSummary, StoreError};
use crate::audit::Pseudonym;
use crate::binding::{AccountId, AccountState, BindingId, Label};
use crate::clock::{Day, Timestamp};

/// All that the store of accounts keeps of one of them, but for digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRecord {
    /// The operator's opaque id.
    pub account: AccountId,
    /// Whether its handsets may sign in.
    pub state: AccountState,
    /// When it came to exist.
    pub created_at: Timestamp,
    /// What keeps it from being erased.
    pub hold: Option<HoldRecord>,
    /// Its handsets, oldest first.
    pub bindings: Vec<LabelledBinding>,
    /// Its enrolment code, if one was not used and not erased yet.
    pub code: Option<KeptCode>,
    /// When its PIN was set, if it has one.
    pub pin_set_at: Option<Timestamp>,
    /// Wrong PINs in a row, by handset.
    pub pin_tries: Vec<(BindingId, u32)>,
    /// What its handsets are to be told, and which of them.
    pub news: Vec<(BindingId, News)>,
    /// Pairwise subjects, as (upstream name, subject), sorted by upstream.
    pub subjects: Vec<(String, String)>,
}

/// A binding and what its person calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledBinding {
    /// The binding.
    pub binding: BindingRecord,
    /// Its label, if it was given one.
    pub label: Option<Label>,
    /// The notice that its person was shown last, if any.
    pub told: Option<NoticeSummary>,
}

/// What is kept of an enrolment code, but for its keyed hash and its selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptCode {
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The last instant it may be used.
    pub expires_at: Timestamp,
    /// Wrong tries that were counted against it.
    pub wrong_tries: u32,
}

/// A legal hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRecord {
    /// Why, as whoever asked put it.
    pub reason: String,
    /// Who placed it.
    pub placed_by: String,
    /// When.
    pub placed_at: Timestamp,
}

/// What became of a hold that was to be placed or released. Only the first changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldOutcome {
    /// Placed, or released; the approval, if one was named, is carried out.
    Done,
    /// It is so already.
    Unchanged,
    /// There is no such account.
    NotThere,
    /// The approval is not open, or not as many agreed as it needs.
    NotApproved,
}

/// What became of an account that was to be erased. Only the first changed anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EraseOutcome {
    /// It is gone, and its erasure waits to be finished.
    Erased(ErasureRecord),
    /// A hold stands, or was asked for and waits for people.
    Held,
    /// There is no such account.
    NotThere,
}

/// An erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasureRecord {
    /// `e1`: a number that only grows.
    pub id: String,
    /// Whose; `None` once it is finished.
    pub account: Option<AccountId>,
    /// Who that was in the audit trail.
    pub pseudonym: Option<String>,
    /// When.
    pub erased_at: Timestamp,
    /// Bindings that went.
    pub bindings: u64,
    /// Enrolment codes that went.
    pub codes: u64,
    /// Pairwise subjects that went.
    pub subjects: u64,
}

/// What stands in the way of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no such account.
    NotThere,
    /// A hold stands, or was asked for and waits for people.
    Held,
    /// Nothing.
    Free,
}

/// Bindings that are old enough to be erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueBindings {
    /// Those that a purge erases.
    pub free: u64,
    /// Those that stay, because their account is under hold.
    pub held: u64,
}

/// What persons may ask for. The same consistency domain as accounts, bindings and approvals.
///
/// 70. **Whole.** `subject` shows all parts as they were at one instant.
/// 71. **Erased at once.** `erase` takes account, bindings, labels, code, PIN and pairwise subjects in one step, or nothing; in
///     approvals that were about the account its pseudonym stands instead, and open ones are denied.
/// 72. **Unfinished until said.** An erasure is unfinished, across restarts, until `finish_erasure`; then nothing in this
///     store names the account.
/// 73. **Held.** Of an account under hold no call erases the account or a binding: neither `erase` nor
///     [`BindingStore::revoke`](super::BindingStore::revoke), [`BindingStore::purge`](super::BindingStore::purge),
///     [`RotationStore::purge_chain`](super::RotationStore::purge_chain).
/// 74. **Held at once.** A hold that takes an approval is placed, or released, in the step that ends it, once.
/// 75. **Scrubbed.** After `scrub` returned, nothing that was erased before is left in the medium.
#[async_trait]
pub trait SubjectStore: Send + Sync + 'static {
    /// All that is kept of the account; `None` if there is none.
    async fn subject(&self, account: &AccountId) -> Result<Option<SubjectRecord>, StoreError>;

    /// What stands in the way of its erasure at `now`.
    async fn standing(&self, account: &AccountId, now: Timestamp) -> Result<Standing, StoreError>;

    /// Erases the account, which is `pseudonym` in the audit trail.
    async fn erase(
        &self,
        account: &AccountId,
        pseudonym: Option<Pseudonym>,
        now: Timestamp,
    ) -> Result<EraseOutcome, StoreError>;

    /// Erasures that are not finished, oldest first.
    async fn unfinished_erasures(&self) -> Result<Vec<ErasureRecord>, StoreError>;

    /// Forgets whose erasure it was. `false` if it is finished, or there is none.
    async fn finish_erasure(&self, id: &str) -> Result<bool, StoreError>;

    /// The latest `most` erasures, the latest first.
    async fn erasures(&self, most: u32) -> Result<Vec<ErasureRecord>, StoreError>;

    /// Rids the medium of what was erased: see clause 75. Takes longer the more there is, and writers wait for it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] also where a read that lasts keeps it from that; call it again.
    async fn scrub(&self) -> Result<(), StoreError>;

    /// Names of older copies of the store that lie beside it and may hold what was erased, and whether each goes by itself,
    /// as one does that a drill works on.
    async fn copies(&self) -> Result<Vec<(String, bool)>, StoreError>;

    /// Places a hold; `approval` is the one that it takes.
    async fn hold(
        &self,
        account: &AccountId,
        hold: HoldRecord,
        approval: Option<&str>,
    ) -> Result<HoldOutcome, StoreError>;

    /// Releases it; `by` does so, and `approval` is the one that it takes.
    async fn release(
        &self,
        account: &AccountId,
        by: String,
        approval: Option<&str>,
        now: Timestamp,
    ) -> Result<HoldOutcome, StoreError>;

    /// The hold on the account, if there is one.
    async fn held(&self, account: &AccountId) -> Result<Option<HoldRecord>, StoreError>;

    /// Gives a binding of the account a label, or none. `false` if the account has no such binding.
    async fn set_label(
        &self,
        account: &AccountId,
        binding: BindingId,
        label: Option<Label>,
    ) -> Result<bool, StoreError>;

    /// How many bindings were last used before `unused_since`.
    async fn due_bindings(&self, unused_since: Day) -> Result<DueBindings, StoreError>;

    /// The labels of the account's bindings.
    async fn labels(&self, account: &AccountId) -> Result<Vec<(BindingId, Label)>, StoreError>;
}
