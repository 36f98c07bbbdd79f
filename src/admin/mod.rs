//! Operator verbs: the same over HTTP and on the command line. Calls the stages; has no rules of its own.
//!
//! In: a request on the UNIX socket, whose peer the kernel names, or over TLS, whose peer a certificate names. Out: one of
//! the documents of `interface.md` §8.
//! A handler that holds an `access::Operator` has proof that its caller may call it.

mod access;
mod acts;
mod api;
mod approvals;
mod audit;
mod backups;
mod body;
mod client;
mod compromise;
mod connection;
mod destroy;
mod documents;
mod drills;
#[cfg(fuzzing)]
pub mod fuzz;
mod if_match;
mod import;
mod key_documents;
mod keys;
mod lines;
mod listener;
mod log;
mod logs;
mod notices;
mod operations;
mod pins;
mod policy;
mod posture;
mod process;
mod query;
mod receipts;
mod refused;
mod replay;
mod rotation_documents;
mod rotations;
mod server;
mod statistics;
mod status;
mod subject_documents;
mod subjects;

pub use access::Peer;
pub use api::router;
pub use approvals::{Approval, Approvals, Approved};
pub use audit::{AuditEntry, AuditHead, AuditKeyPrint, AuditPage, AuditPseudonym, AuditVerdict};
pub use backups::{Backup, Backups};
pub use client::{AdminClient, AdminUrl, ClientError, Place};
pub use compromise::{ApprovalsToEnd, CompromiseReport, CompromiseStep, ExposedBackup, NoticesDue};
pub use documents::{
    Account, Accounts, Binding, Bindings, ImportEvent, ImportProgress, Imported, IssuedCode, Refusal, RefusalDetail,
    RefusedLine, Revoked, Session, Sessions,
};
pub use drills::{DrillEvent, DrillFindings, DrillProgress, DrillSeconds, ShownDrill};
pub use key_documents::{Destroyed, Key, Keys, PublicKey, Purpose, Rewrapped};
pub use listener::AdminListener;
pub use log::LogLevel;
pub use logs::{LogEvent, LogFinding, LogsRead};
pub use notices::{Notices, ShownNotice, ToldNotice};
pub use operations::Operations;
pub use policy::{KeptKind, LastRun, Policy, RetentionCounts, RetentionReport, RetentionRun};
pub use posture::{Posture, ShownPromise};
pub use process::{Process, ReloadError, Reloaded};
pub use receipts::IssuedReceipt;
pub use rotation_documents::{ChainCount, Chains, Rotation, Rotations, ShownRotation};
pub use server::{AdminServer, BindSocketError};
pub use statistics::{Stat, Stats};
pub use status::{
    ConfigurationInForce, KeyStatus, LastMinute, ListenerStatus, ReadinessParts, RotationStatus, ServerStatus, Status,
    StoreStatus, UpstreamStatus,
};
pub use subject_documents::{
    ErasedCounts, ErasedSubject, Erasure, Erasures, ExportedSubject, Held, LabelledHandset, ShownHold,
};
