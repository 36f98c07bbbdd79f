//! Counters as they stand at one moment, and what two moments say of the time between.

use std::time::Duration;

use super::metrics::{BUCKETS, ReloadOutcome};

/// Durations that were observed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How many fell between a bucket's bound and the one before.
    pub(super) buckets: [u64; BUCKETS.len()],
}

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

impl Observed {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Those since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut buckets = self.buckets;
        for (bucket, before) in buckets.iter_mut().zip(&earlier.buckets) {
            *bucket = bucket.saturating_sub(*before);
        }
        Self { buckets }
    }

    /// The duration within which a share of them (0 to 1) ended, by the straight line between the bounds of its bucket, as
    /// Prometheus reckons it; of the last bucket the bound that it begins at. `None` of none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share of so many is an estimate at any rate")]
    pub fn within(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share * count as f64;
        let (mut below, mut from) = (0_u64, 0.0_f64);
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            let upto = below + bucket;
            if upto as f64 >= rank && *bucket > 0 {
                let part = ((rank - below as f64) / *bucket as f64).clamp(0.0, 1.0);
                let seconds = if bound.is_finite() { from + (bound - from) * part } else { from };
                return Some(Duration::from_secs_f64(seconds));
            }
            (below, from) = (upto, if bound.is_finite() { *bound } else { from });
        }
        Some(Duration::from_secs_f64(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(counts: &[(usize, u64)]) -> Observed {
        let mut buckets = [0; BUCKETS.len()];
        for (bucket, count) in counts {
            buckets[*bucket] = *count;
        }
        Observed { buckets }
    }

    #[test]
    fn a_share_ends_within_its_bucket() {
        let millis = |observed: &Observed, share| observed.within(share).map(|d| d.as_secs_f64() * 1000.0);
        assert_eq!(millis(&observed(&[]), 0.5), None);
        // Bounds in ms: 0.5, 1, 2.5, 5, ...
        let all_fast = observed(&[(1, 100)]);
        assert_eq!(millis(&all_fast, 0.5), Some(0.75));
        let mixed = observed(&[(0, 98), (3, 1), (14, 1)]);
        assert!(millis(&mixed, 0.5).unwrap() < 0.5);
        assert_eq!(millis(&mixed, 0.99), Some(5.0));
        assert_eq!(millis(&mixed, 1.0), Some(10_000.0), "the last bucket has no end");
        assert_eq!(mixed.since(&observed(&[(0, 90), (14, 5)])), observed(&[(0, 8), (3, 1)]));
    }
}
