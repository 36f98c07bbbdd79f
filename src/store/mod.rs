//! The ports to durable state: what the gateway asks of a store, as numbered clauses.
//!
//! A port speaks the domain, not SQL. "Not there" is `Ok(None)` or an outcome; [`StoreError`] means the
//! store itself failed, and the caller fails closed. The caller passes `now`; a backend never reads a
//! clock. Each clause has one function in the conformance suite (`tests/stores`), which
//! every backend runs.
//!
//! Clauses that hold for every method of every port:
//!
//! 1. **Durable.** When a mutating call returns `Ok`, its effect survives `kill -9` and power loss.
//! 2. **Atomic.** A call that returns `Err` or a refusing outcome has changed nothing. (One exception nobody can
//!    rule out: when the medium fails in the very act of committing, a crash before the next commit may bring the
//!    effect back. Every call is therefore safe to repeat.)
//! 3. **Read your write.** A read that starts after a write returned sees it, from any caller.
//! 4. **Linear.** Concurrent calls behave as if run one after another.
//!
//! Several ports, because they may live apart later: keys, approvals and bindings belong in PostgreSQL, sessions in
//! Redis, the audit trail where its administrators are others. Nothing here spans two ports in one transaction;
//! `gateway` orders the calls so that a crash between them fails closed (see `ARCHITECTURE.md`, "Order of writes").

mod approvals;
mod audit;
mod backups;
mod bindings;
mod embedded;
mod error;
mod keys;
mod news;
mod notices;
mod pins;
mod proofs;
mod receipts;
mod rotations;
mod sessions;
mod shadow;
mod statistics;
mod subjects;

pub use approvals::{
    AnswerOutcome, ApprovalRecord, ApprovalState, ApprovalStore, ApprovedAction, ApprovedOutcome, GivenApproval,
    NewApproval,
};
pub use audit::{AuditStore, NewAuditEntry, SealingKey, StoredAuditEntry, StoredCheckpoint};
pub use backups::{BackupStore, Copied, CopyKind, Tombstone, TombstoneKind};
pub use bindings::{
    AccountRecord, BindingRecord, BindingStore, CodeIssuer, CodeLimits, EnrolOutcome, Enrolment, EnrolmentAuthority,
    Hit, ImportOutcome, ImportedBinding, IssueOutcome, LookUp, NewCode, Probe,
};
pub use embedded::{EmbeddedStore, Inspection, OpenError, Opened, VacantPlace, WriteEvent};
pub use error::StoreError;
pub use keys::{
    ChangeOutcome, DestroyedLogKeys, KeyChange, KeyDates, KeyPurpose, KeyRecord, KeyState, KeyStore, LogKeyOutcome,
    LogKeyRecord, SchemeRecord, StoredKeys, StretchParameters,
};
pub use news::{News, NewsKind, NewsStore};
pub use notices::{NewNotice, NoticeChange, NoticeRecord, NoticeStore, NoticeSummary};
pub use pins::{Over, PinPace, PinRecord, PinStore, PinTries, PinTry, PinVerdict, SERIES};
pub use proofs::{Proof, ProofStore};
pub use receipts::{Canaries, CanaryPhase, CanaryRecord, Observation, ReceiptStore, Visit};
pub use rotations::{
    Haste, Reach, RotationRecord, RotationState, RotationStore, Scanned, Strain, WrapBatch, WrapOutcome, Wrappable,
    Wrapped,
};
pub use sessions::{Renewal, SessionRecord, SessionScope, SessionStore, SessionVisit, TokenTransport};
pub use shadow::{Shadow, ShadowError, ShadowPorts, ShadowStore};
pub use statistics::{Counted, DayCount, StatisticsStore};
pub use subjects::{
    DueBindings, EraseOutcome, ErasureRecord, HoldOutcome, HoldRecord, KeptCode, LabelledBinding, Standing,
    SubjectRecord, SubjectStore,
};
