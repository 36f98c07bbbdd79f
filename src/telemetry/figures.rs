//! Counters as they stand at one moment.

use super::histogram::Observed;
use super::outcomes::ReloadOutcome;

/// Counters as they stand at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests that were answered.
    pub requests: Observed,
    /// Of them with 5xx.
    pub failed: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Writes that the store answered.
    pub store_writes: Observed,
    /// Writes that wait for it.
    pub store_waiting: u64,
    /// Log lines that never reached their stream.
    pub lines_lost: u64,
    /// Reloads by their outcome.
    pub reloads: [u64; ReloadOutcome::COUNT],
}
