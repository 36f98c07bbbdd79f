//! The port of proofs: when a promise was last seen to be kept.

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;

/// That something was done or looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Of what: a fixed word of the program's.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// Whether it was as promised.
    pub ok: bool,
    /// What was seen, in counts and words of the program's; never of whom.
    pub detail: String,
}

/// Proofs. May live apart from all other ports.
///
/// 78. **The latest.** Of each name the one that was noted last is kept.
#[async_trait]
pub trait ProofStore: Send + Sync + 'static {
    /// Keeps a proof in place of the one of that name.
    async fn note_proof(&self, proof: Proof) -> Result<(), StoreError>;

    /// All, by name.
    async fn proofs(&self) -> Result<Vec<Proof>, StoreError>;
}
