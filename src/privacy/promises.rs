//! What a running gateway has to keep its promises with.

use std::sync::Arc;

use super::canary_search::CanarySearch;
use super::retention::Retention;
use super::statistics::Statistics;
use super::subjects::Subjects;
use crate::store::ProofStore;

/// The parts that carry the policy out.
#[derive(Clone)]
pub struct Promises {
    /// What persons may ask for.
    pub subjects: Arc<Subjects>,
    /// What is counted.
    pub statistics: Arc<Statistics>,
    /// What erases what is old.
    pub retention: Arc<Retention>,
    /// What is searched for once a day.
    pub canary: Arc<CanarySearch>,
    /// When promises were last seen to be kept.
    pub proofs: Arc<dyn ProofStore>,
}
