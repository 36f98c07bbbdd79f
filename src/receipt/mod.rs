//! What an auditor gets of a key rotation: a sealed receipt, and what verifies it without the gateway.
//!
//! In: the journal of a rotation, its keys, a survey of all bindings, what became of the canaries. Out: canonical JSON
//! ([RFC 8785](https://www.rfc-editor.org/rfc/rfc8785)) under the seal of the audit key. Each member has a digest of its
//! own below the seal, so that a changed byte is named and not only found. Absent on purpose: identifiers, digests of
//! handsets and key material; a key stands in it by its commitment, all bindings by one Merkle root.

mod canary;
mod canonical;
mod document;
mod issue;
mod merkle;
mod seal;
mod sealed;
mod survey;
mod verify;

pub use canary::{CanaryError, CanaryReport, observe};
pub use document::{Approval, Circumstances, Facts, Part, addendum, receipt, restarted};
pub use issue::{IssueError, Receipts};
pub use merkle::MerkleRoot;
pub use seal::Unsealed;
pub use sealed::{SealVerdict, sealed, verify_sealed};
pub use survey::{Survey, survey};
pub use verify::{KnownKey, Origin, Verdict, verify, verify_against};
