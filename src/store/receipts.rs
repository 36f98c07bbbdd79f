//! The port of what auditors get of a rotation: a look at all bindings, canaries, documents as they were issued.

use async_trait::async_trait;

use super::{Scanned, StoreError};
use crate::binding::{BindingDigest, Chain};
use crate::clock::Timestamp;

/// A synthetic handset: random octets, of no subscriber, bound to nothing. It lives beside the bindings, so that no list,
/// count, statistic or export of them has it.
#[derive(Clone)]
pub struct CanaryRecord {
    /// What it would send as its identifier. In clear: it is nobody's, and has to be sent again.
    pub octets: [u8; 32],
    /// It never signs in during the rotation.
    pub dormant: bool,
    /// The keys that made its digest.
    pub chain: Chain,
    /// Its digest.
    pub digest: BindingDigest,
}

/// When canaries were looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryPhase {
    /// Before the rotation, under the old key.
    Planted,
    /// Under both keys, none moved yet.
    Activated,
    /// All wrapped under the new key.
    Wrapped,
    /// Those that are not dormant have signed in.
    Flattened,
    /// The old key is no longer probed.
    Drained,
    /// The old key is destroyed.
    Destroyed,
}

impl CanaryPhase {
    /// Every phase, in their order.
    pub const ALL: [Self; 6] =
        [Self::Planted, Self::Activated, Self::Wrapped, Self::Flattened, Self::Drained, Self::Destroyed];

    /// The word used in JSON and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planted => "planted",
            Self::Activated => "activated",
            Self::Wrapped => "wrapped",
            Self::Flattened => "flattened",
            Self::Drained => "drained",
            Self::Destroyed => "destroyed",
        }
    }
}

/// How many canaries a sign-in would have found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When, in the rotation.
    pub phase: CanaryPhase,
    /// When.
    pub at: Timestamp,
    /// Of those that sign in.
    pub used: u32,
    /// Of the dormant ones.
    pub dormant: u32,
    /// Of the dormant ones, with the old key taken out of the computation.
    pub without_old_key: u32,
}

/// The canaries of a rotation and what was observed of them, in the order of phases.
#[derive(Clone, Default)]
pub struct Canaries {
    /// They themselves.
    pub records: Vec<CanaryRecord>,
    /// What was observed.
    pub observed: Vec<Observation>,
}

/// Is shown each binding of a survey.
pub type Visit = Box<dyn FnMut(&Scanned) + Send>;

/// What auditors get of a rotation.
///
/// 40. **One instant.** A survey shows every binding once, in the order of their ids, all as of one state of the store.
/// 41. **As issued.** The document that was kept first for a rotation and a part stays, unchanged.
/// 42. **Observed once.** The first observation of a phase stays, and the canaries as they came with it; both are kept
///     in one step.
#[async_trait]
pub trait ReceiptStore: Send + Sync + 'static {
    /// Shows all bindings to `visit`. Delays no sign-in.
    async fn survey(&self, visit: Visit) -> Result<(), StoreError>;

    /// Keeps `document`, which is `part` of what is issued on `rotation`. `false` if there was one.
    async fn keep_document(&self, rotation: &str, part: &str, document: String) -> Result<bool, StoreError>;

    /// What was issued.
    async fn document(&self, rotation: &str, part: &str) -> Result<Option<String>, StoreError>;

    /// The canaries of `rotation`; none where it has none.
    async fn canaries(&self, rotation: &str) -> Result<Canaries, StoreError>;

    /// Keeps an observation of the canaries of `rotation`, and the canaries as they are now. `false` if there was one of
    /// that phase.
    async fn observe_canaries(
        &self,
        rotation: &str,
        records: Vec<CanaryRecord>,
        observation: Observation,
    ) -> Result<bool, StoreError>;
}
