//! Why a rotation is as it was.

use thiserror::Error;

use crate::audit::{Ends, Outcome};
use crate::keys::{KekError, KeysError};
use crate::store::StoreError;

/// Why a verb changed nothing, unless the variant says otherwise.
#[derive(Debug, Error)]
pub enum RotationError {
    /// There is none of that id.
    #[error("no rotation has that id")]
    NotFound,
    /// No binding key has that id.
    #[error("no binding key has that id")]
    NoSuchKey,
    /// Its state forbids it. The text names the state and what to do.
    #[error("{0}")]
    State(String),
    /// As many are open as may be.
    #[error(
        "two rotations are open already; the next may begin on {next_on}, or when one is done. A key that leaked does not \
         wait: `sekisho keys compromise`"
    )]
    Limit {
        /// The day on which the first of them is over at the latest, `YYYY-MM-DD`.
        next_on: String,
    },
    /// The shortened deadline is likely to cost bindings, and the caller did not say how many.
    #[error(
        "{bindings} bindings were not used in the last {days} days and would probably be erased at that deadline; ask \
         again with expected_loss {bindings} to accept that, or leave drain_within out"
    )]
    WouldLose {
        /// How many.
        bindings: u64,
        /// The deadline that was asked for.
        days: u32,
    },
    /// A deadline outside its bounds.
    #[error("drain_within is 1 day at least and shorter than binding.retention, {0} days; left out, it is that")]
    DrainWithin(u32),
    /// The caller decided on another revision of the keys than this, the present one.
    #[error("the keys were changed since; they are at revision {0}")]
    Stale(u64),
    /// Records need the key that is to go.
    #[error("{0} records still need the key")]
    InUse(u64),
    /// No key could be made in the place of the one that leaked, which is flagged and suspended.
    #[error("no key could take its place, so whatever needs it is refused; say it again once the KEK is back: {0}")]
    FlaggedAlone(KekError),
    /// The KEK's token failed: either nothing was changed, or the keys were changed in the store and could not be read
    /// back. The next round of upkeep tries again; until then the store refuses what the former ring makes.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ends for RotationError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Keys(_) | Self::Store(_) | Self::FlaggedAlone(_) => Outcome::Failed,
            Self::NotFound
            | Self::NoSuchKey
            | Self::State(_)
            | Self::Limit { .. }
            | Self::WouldLose { .. }
            | Self::DrainWithin(_)
            | Self::Stale(_)
            | Self::InUse(_) => Outcome::Refused,
        }
    }
}
