//! Durations, by how many fell between two bounds.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::spread::Spread;

/// Upper bounds in seconds; the last is infinite.
const BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, f64::INFINITY];

/// A histogram of durations without the mutex that the library's own takes for each observation.
#[derive(Clone, Debug, Default)]
pub(super) struct DurationHistogram(Arc<Observations>);

#[derive(Debug, Default)]
struct Observations {
    /// How many fell between a bucket's bound and the one before.
    buckets: [Spread; BUCKETS.len()],
    micros: Spread,
}

impl DurationHistogram {
    pub(super) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        if let Some(counter) = self.0.buckets.get(bucket) {
            counter.add(1);
        }
        self.0.micros.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn observed(&self) -> Observed {
        Observed { buckets: self.0.buckets.each_ref().map(Spread::sum) }
    }
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut buckets = [(0.0, 0); BUCKETS.len()];
        let counted = BUCKETS.iter().zip(&self.0.buckets);
        for (out, (bound, counter)) in buckets.iter_mut().zip(counted) {
            *out = (*bound, counter.sum());
        }
        let count = buckets.iter().map(|(_, n)| n).sum();
        let sum = Duration::from_micros(self.0.micros.sum()).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Durations that were observed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How many fell between a bucket's bound and the one before.
    buckets: [u64; BUCKETS.len()],
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
