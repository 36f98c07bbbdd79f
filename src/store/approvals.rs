//! The port of approvals: what one person asked for and others must agree to before it happens.

use async_trait::async_trait;

use super::{KeyChange, StoreError};
use crate::clock::Timestamp;

/// What may take more than one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovedAction {
    /// The object is a key that is to be wiped.
    DestroyKey,
    /// The object is an account that is to be put under hold.
    HoldSubject,
    /// The object is an account whose hold is to be released.
    ReleaseSubject,
}

impl ApprovedAction {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::DestroyKey, Self::HoldSubject, Self::ReleaseSubject];

    /// The word used in JSON, logs and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DestroyKey => "destroy-key",
            Self::HoldSubject => "hold-subject",
            Self::ReleaseSubject => "release-subject",
        }
    }
}

/// Where an approval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalState {
    /// It waits for people; or enough have agreed and it was not carried out yet.
    Open,
    /// Carried out.
    Done,
    /// Somebody said no.
    Denied,
    /// Nobody carried it out in time, or a key changed meanwhile.
    Expired,
}

impl ApprovalState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Done, Self::Denied, Self::Expired];

    /// The word used in JSON, tables and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

/// Somebody's yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenApproval {
    /// Who, as the caller names people: one text for one person.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct NewApproval {
    /// What is to happen.
    pub action: ApprovedAction,
    /// To what.
    pub object: String,
    /// Why; empty if nobody said.
    pub reason: String,
    /// Who asks.
    pub asked_by: String,
    /// The person that this is, if it is one who may approve: asking is agreeing.
    pub approver: Option<String>,
    /// How many must agree.
    pub needs: u32,
    /// Revision of the keys that it was asked about.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// When it is too late.
    pub expires_at: Timestamp,
}

/// An approval as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRecord {
    /// `p1`: a number that only grows.
    pub id: String,
    /// What is to happen.
    pub action: ApprovedAction,
    /// To what.
    pub object: String,
    /// Why; empty if nobody said.
    pub reason: String,
    /// Who asked.
    pub asked_by: String,
    /// When.
    pub asked_at: Timestamp,
    /// When it is too late.
    pub expires_at: Timestamp,
    /// How many must agree.
    pub needs: u32,
    /// Revision of the keys that it was asked about.
    pub revision: u64,
    /// Where it is.
    pub state: ApprovalState,
    /// Who agreed, in order.
    pub given: Vec<GivenApproval>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who ended it; `None` where time did.
    pub ended_by: Option<String>,
}

/// What became of a yes or a no. Only the first changed anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// It counts; the approval as it is now.
    Counted(ApprovalRecord),
    /// The same person had said so before.
    Twice(ApprovalRecord),
    /// It is not open any more.
    Ended(ApprovalRecord),
    /// There is no such approval.
    NotThere,
}

/// What became of a change that was approved. Only the first changed any key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovedOutcome {
    /// Done, and the approval with it; the revision now in force.
    Changed(u64),
    /// A key changed since it was asked for: the approval has expired.
    Stale,
    /// A binding key is to leave a state in which this many records still need it; the approval stays open.
    InUse(u64),
    /// It is not open, or not as many agreed as it needs.
    NotApproved,
}

/// Approvals. The same consistency domain as the keys.
///
/// 31. **One person, one voice.** However many say yes at once, each counts once for an approval.
/// 32. **Carried out once.** `change_approved` makes its changes and ends the approval in one step: only while it is
///     open, in time and agreed to by as many as it needs, and only if no key changed since it was asked for.
/// 33. **Ended stays ended.** An approval that was carried out, denied or found too late is never open again, also where
///     the clock is set back.
/// 34. **Asked once.** There is at most one open approval of an action on an object; who asks again gets it, with the
///     voices and the reason that it has.
#[async_trait]
pub trait ApprovalStore: Send + Sync + 'static {
    /// Opens an approval. One that is open for the same action, object and revision is returned as it is; an open one of
    /// another revision expires.
    async fn ask(&self, approval: NewApproval) -> Result<ApprovalRecord, StoreError>;

    /// All approvals, the latest first. What ran out before `now` shows as expired.
    async fn approvals(&self, now: Timestamp) -> Result<Vec<ApprovalRecord>, StoreError>;

    /// Counts the yes of `by`.
    async fn approve(&self, id: &str, by: String, now: Timestamp) -> Result<AnswerOutcome, StoreError>;

    /// Ends an open approval by the no of `by`. Never [`AnswerOutcome::Twice`].
    async fn deny(&self, id: &str, by: String, now: Timestamp) -> Result<AnswerOutcome, StoreError>;

    /// Makes the changes to the keys for which the approval was given, by `by`.
    ///
    /// # Errors
    /// As [`KeyStore::change`](super::KeyStore::change).
    async fn change_approved(
        &self,
        id: &str,
        changes: Vec<KeyChange>,
        by: String,
        now: Timestamp,
    ) -> Result<ApprovedOutcome, StoreError>;
}
