//! The port of accounts, enrolment codes and bindings.

use async_trait::async_trait;

use super::StoreError;
use crate::binding::{AccountId, AccountState, BindingDigest, BindingId, Chain};
use crate::carrier::CarrierName;
use crate::clock::{Day, Timestamp};

/// An account as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// The operator's opaque id.
    pub account: AccountId,
    /// Whether its handsets may sign in.
    pub state: AccountState,
    /// When it came to exist.
    pub created_at: Timestamp,
    /// Live bindings.
    pub bindings: u32,
    /// Whether a PIN is set.
    pub has_pin: bool,
    /// Pairwise subjects handed out so far, as (upstream name, subject), sorted by upstream.
    pub subjects: Vec<(String, String)>,
}

/// A binding as stored, without its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingRecord {
    /// Random id of the binding.
    pub id: BindingId,
    /// Whose it is.
    pub account: AccountId,
    /// The carrier profile (the namespace of the digest).
    pub carrier: CarrierName,
    /// The keys that made the digest, innermost first.
    pub chain: Chain,
    /// The day it was made.
    pub bound_on: Day,
    /// The day of the last sign-in.
    pub last_used_on: Day,
}

/// One digest to look for, with the chain that made it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The keys that made the digest.
    pub chain: Chain,
    /// The digest.
    pub digest: BindingDigest,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The binding.
    pub binding: BindingRecord,
    /// The state of its account.
    pub account_state: AccountState,
    /// Whether a key of its chain is known to have leaked: who has it could have computed the digest.
    pub compromised: bool,
}

/// What a look-up found, all of one state of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookUp {
    /// The first probe that hit.
    pub hit: Option<Hit>,
    /// Generation of the key ring then: that nothing hit proves something only of digests that this ring made.
    pub generation: u64,
}

/// A one-time enrolment code to be kept, as a keyed hash.
pub struct NewCode {
    /// Who may enrol with it. The account is created if there is none.
    pub account: AccountId,
    /// The first four digits, in clear: they select the code.
    pub selector: String,
    /// Keyed hash of the whole code.
    pub mac: [u8; 32],
    /// Id of the key that made `mac`.
    pub key: String,
    /// The last instant it may be used.
    pub expires_at: Timestamp,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The account's own handset whose person asks for it; `None` where the operator issues it.
    pub asked_by: Option<BindingId>,
}

impl NewCode {
    /// Who issues it.
    #[must_use]
    pub const fn issuer(&self) -> CodeIssuer {
        match self.asked_by {
            None => CodeIssuer::Operator,
            Some(_) => CodeIssuer::Person,
        }
    }
}

/// Who issued an enrolment code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeIssuer {
    /// The operator, who knows whom they gave it to: it stands in for a PIN that was forgotten.
    Operator,
    /// The account's own person, for another handset.
    Person,
}

impl CodeIssuer {
    /// The word in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Person => "person",
        }
    }
}

/// What became of a code to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueOutcome {
    /// Kept; older unused codes of the same account are gone.
    Issued,
    /// Another live code has that selector: draw again.
    SelectorTaken,
    /// The handset whose person asks is not bound to the account any more, or the account is suspended.
    NotEntitled,
}

/// A binding to be made, with the proof that it may.
pub struct Enrolment {
    /// Why this handset may be bound.
    pub authority: EnrolmentAuthority,
    /// The carrier profile.
    pub carrier: CarrierName,
    /// Every digest under which this handset may be bound already, in migration order.
    pub probes: Vec<Probe>,
    /// The digest to store: made by the active key alone. It is among `probes`.
    pub digest: BindingDigest,
    /// The chain of `digest`.
    pub chain: Chain,
    /// Generation of the key ring that made the digests.
    pub generation: u64,
    /// Id for the new binding.
    pub id: BindingId,
    /// Most bindings an account may have.
    pub per_account: u32,
}

/// Why a handset may be bound to an account.
pub enum EnrolmentAuthority {
    /// The person typed a one-time code.
    Code {
        /// The first four digits typed.
        selector: String,
        /// Keyed hashes of what was typed under each key that may have made the stored one: (key id, mac).
        macs: Vec<(String, [u8; 32])>,
        /// Keyed, code-scoped tag of the handset; counts its wrong tries against that code only.
        handset_tag: [u8; 16],
    },
    /// An upstream that may bind said whose request it was, after a login of its own.
    Console {
        /// Whose. The account is created with the binding if there is none.
        account: AccountId,
    },
}

/// What became of an enrolment. Only the first two changed a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolOutcome {
    /// Bound; the code, if it was one, is spent. With who issued that.
    Bound(BindingRecord, Option<CodeIssuer>),
    /// It was bound to that very account before; the code is spent alike, the day of the last use is today, and the
    /// record is flattened as a sign-in would.
    AlreadyBound(BindingRecord, Option<CodeIssuer>),
    /// No live code matches, or its tries are used up. A wrong try at a live code was counted; the tries of a handset
    /// that has used up its own are not, so one handset cannot burn a code for the others. Whether the selector
    /// exists does not change the work.
    CodeInvalid,
    /// The authority holds, but the account has its fill or the handset belongs to another account. A code stays; no
    /// account is created.
    BindingLimit,
    /// The authority holds, but its account is suspended. A code stays.
    Suspended,
    /// The key ring moved on meanwhile: compute the digests again.
    Stale,
}

/// A binding to be made because the operator brings it along from another system.
pub struct ImportedBinding {
    /// Whose it is to be. The account is created if there is none.
    pub account: AccountId,
    /// The carrier profile.
    pub carrier: CarrierName,
    /// Every digest under which this handset may be bound already, in migration order.
    pub probes: Vec<Probe>,
    /// The digest to store: made by the active key alone. It is among `probes`.
    pub digest: BindingDigest,
    /// The chain of `digest`.
    pub chain: Chain,
    /// Generation of the key ring that made the digests.
    pub generation: u64,
    /// Id for the new binding.
    pub id: BindingId,
}

/// What became of an imported binding. Only the first changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportOutcome {
    /// Bound, as if enrolled and last used today.
    Bound,
    /// It was bound to that very account before; an import is no use of it.
    AlreadyBound,
    /// It is bound to another account.
    BoundElsewhere,
    /// The account is suspended.
    Suspended,
    /// The account has its fill.
    BindingLimit,
    /// The key ring moved on meanwhile: compute the digests again.
    Stale,
}

/// Wrong tries that end a code, per handset and in all (`interface.md` §3).
#[derive(Clone, Copy, Debug)]
pub struct CodeLimits;

impl CodeLimits {
    /// Wrong tries of one handset against one code; afterwards even the right code is refused to that handset.
    pub const PER_HANDSET: u32 = 5;
    /// Wrong tries of all handsets against one code; afterwards it is dead.
    pub const IN_ALL: u32 = 20;
}

/// Accounts, enrolment codes and bindings: one consistency domain.
///
/// 5. **One account per handset.** No two bindings ever share (carrier, digest); an enrolment whose
///    probes hit any binding never makes a second one, nor does an import.
/// 6. **Single use.** Of any number of concurrent enrolments with one code, at most one binds.
/// 7. **Counted.** A wrong try is counted durably before the refusal is returned.
/// 8. **Snapshot.** `resolve` judges all probes against one state of the store, and says which generation the key ring had
///    in it.
#[async_trait]
pub trait BindingStore: Send + Sync + 'static {
    /// Generation of the key ring, as last moved by a rotation; 0 in a new store.
    async fn generation(&self) -> Result<u64, StoreError>;

    /// Looks all `probes` up, in their order, never stopping at the first hit; the first hit counts.
    ///
    /// 9. The work does not depend on whether there is a hit.
    /// 26. A hit says, of the same state of the store, whether its chain contains a compromised key.
    async fn resolve(&self, carrier: &CarrierName, probes: &[Probe]) -> Result<LookUp, StoreError>;

    /// Notes that the binding was used on `day`, and flattens it: the record's chain and digest become `flat`, which the
    /// key ring of `generation` made. `false` if that is not in force any more, so that `flat` is to be made again.
    ///
    /// 10. Changes nothing if the binding is gone; `last_used_on` never moves back, nor does the record: it stays as it
    ///     is when the key ring moved on since `generation`, when `flat` was made by a key older than its outermost one
    ///     (a rotation overtook the sign-in), or when another binding has that digest.
    async fn used(&self, id: BindingId, day: Day, flat: Probe, generation: u64) -> Result<bool, StoreError>;

    /// The last day on which any binding was made or used; `None` where there is none. What the clock said then is
    /// the store's own idea of the present.
    async fn last_use(&self) -> Result<Option<Day>, StoreError>;

    /// Whether the binding exists, its account is active and no key of its chain is compromised. Called after a session
    /// was opened, so that what ended it meanwhile is not outlived by it.
    async fn stands(&self, id: BindingId) -> Result<bool, StoreError>;

    /// Those of `ids` that do not stand, as [`BindingStore::stands`] judges each. For many: a start asks about all that
    /// opened a session.
    async fn fallen(&self, ids: Vec<BindingId>) -> Result<Vec<BindingId>, StoreError>;

    /// Binds a handset, if the authority holds. See [`EnrolOutcome`]. The record carries the store's scheme.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the store has no scheme yet: no key can have made the digests.
    async fn enrol(&self, enrolment: Enrolment, now: Timestamp) -> Result<EnrolOutcome, StoreError>;

    /// Binds many handsets at once, on the operator's word alone, in order: each is judged by what those before it left.
    /// An account gets at most `per_account` bindings. The records carry the store's scheme.
    ///
    /// 17. One outcome for each binding, in their order. All are durable, or the call fails and none is there.
    ///
    /// # Errors
    /// As [`BindingStore::enrol`].
    async fn import(
        &self,
        bindings: Vec<ImportedBinding>,
        per_account: u32,
        now: Timestamp,
    ) -> Result<Vec<ImportOutcome>, StoreError>;

    /// Keeps a new code and creates the account if there is none; one that a person asks for is kept only while the handset
    /// that asks is bound to the account and the account is active.
    ///
    /// 11. A live code of another account with the same selector refuses; dead ones (past their end at `issued_at`, or
    ///     out of tries) are erased.
    async fn issue_code(&self, code: NewCode) -> Result<IssueOutcome, StoreError>;

    /// How many codes are live at `now`: neither past their end nor out of tries.
    async fn live_codes(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Bindings of one account, or of all, oldest first.
    async fn bindings(&self, account: Option<&AccountId>) -> Result<Vec<BindingRecord>, StoreError>;

    /// One binding. `None` if there is none.
    async fn binding(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError>;

    /// Erases a binding. `None` if there is none, or if its account is under hold.
    async fn revoke(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError>;

    /// One account. `None` if there is none.
    async fn account(&self, account: &AccountId) -> Result<Option<AccountRecord>, StoreError>;

    /// All accounts, by id.
    async fn accounts(&self) -> Result<Vec<AccountRecord>, StoreError>;

    /// Suspends or resumes. `false` if there is no such account.
    async fn set_account_state(&self, account: &AccountId, state: AccountState) -> Result<bool, StoreError>;

    /// The pairwise subject of the account at the upstream; `fresh` becomes it if there is none yet.
    ///
    /// 12. All callers get one and the same subject. `None` if there is no such account.
    async fn subject(&self, account: &AccountId, upstream: &str, fresh: String) -> Result<Option<String>, StoreError>;

    /// Erases codes that are dead at `now`, and up to `limit` bindings last used before `unused_since`, but for those of
    /// accounts under hold. Returns the ids of the bindings erased; none where none is left.
    async fn purge(&self, now: Timestamp, unused_since: Day, limit: u32) -> Result<Vec<BindingId>, StoreError>;
}
