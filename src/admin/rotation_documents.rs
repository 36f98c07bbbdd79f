//! The JSON documents of rotations.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::binding::Chain;
use crate::clock::Timestamp;
use crate::rotation::Progress;

/// A rotation. `total = flattened + purged + remaining`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rotation {
    /// `r1`.
    pub id: String,
    /// `binding`, `assertion`, `session` or `audit`.
    pub purpose: String,
    /// `running`, `paused`, `draining`, `done` or `aborted`.
    pub state: String,
    /// The key that is to go.
    pub from: String,
    /// The key that takes its place.
    pub to: String,
    /// Bindings when the new key became active.
    pub total: u64,
    /// Bindings that were moved under the new key.
    pub wrapped: u64,
    /// Bindings that a sign-in took off the old key.
    pub flattened: u64,
    /// Bindings that are gone since.
    pub purged: u64,
    /// Bindings that still need the old key.
    pub remaining: u64,
    /// Bindings that are still to be moved.
    pub unwrapped: u64,
    /// Bindings moved in a second, lately.
    pub rate: u64,
    /// Seconds until all are moved, at that rate.
    pub eta_seconds: Option<u64>,
    /// Why, as whoever started it put it.
    pub reason: String,
    /// When it was asked for.
    pub started_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// The last day on which a binding may still need the old key.
    pub drain_by: String,
    /// The first day on which another rotation may begin.
    pub next_rotation_on: String,
}

impl From<&Progress> for Rotation {
    fn from(progress: &Progress) -> Self {
        let record = &progress.record;
        Self {
            id: record.id.clone(),
            purpose: record.purpose.as_str().to_owned(),
            state: record.state.as_str().to_owned(),
            from: record.from.clone(),
            to: record.to.clone(),
            total: record.total,
            wrapped: record.wrapped,
            flattened: record.flattened,
            purged: progress.purged,
            remaining: progress.remaining,
            unwrapped: progress.unwrapped,
            rate: progress.rate,
            eta_seconds: progress.eta_seconds(),
            reason: record.reason.clone(),
            started_at: record.started_at.rfc3339(),
            finished_at: record.finished_at.map(Timestamp::rfc3339),
            drain_by: record.drain_by.to_string(),
            next_rotation_on: progress.next_on.to_string(),
        }
    }
}

/// One rotation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ShownRotation {
    /// The rotation.
    pub rotation: Rotation,
}

/// All rotations, the latest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Rotations {
    /// One each.
    pub rotations: Vec<Rotation>,
}

/// Bindings by the keys that made their digests.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Chains {
    /// Chains that any binding has, in the order in which bindings move through them.
    pub chains: Vec<ChainCount>,
}

/// How many bindings have a chain.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ChainCount {
    /// The keys, innermost first.
    pub chain: Vec<String>,
    /// The count.
    pub bindings: u64,
}

impl From<(Chain, u64)> for ChainCount {
    fn from((chain, bindings): (Chain, u64)) -> Self {
        Self { chain: chain.keys().iter().map(ToString::to_string).collect(), bindings }
    }
}
