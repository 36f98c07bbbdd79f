//! How fast records move: as fast as they can while nobody signs in, and out of the way of whoever does.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long a sign-in counts as one that is going on.
const RECENT: Duration = Duration::from_secs(5);
/// How long a batch may take when nobody signs in, or a key has leaked: the longer, the more records share the pages of
/// the index that they are written to. The store breaks it off for whoever comes.
const ALONE: Duration = Duration::from_secs(1);
/// The same beside sign-ins, each of which may have to wait for one batch.
const BESIDE: Duration = Duration::from_millis(2);
/// The longest rest after a batch.
const LONGEST_REST: Duration = Duration::from_millis(250);
/// Records in a batch: fewer are not worth a commit, more would take too much memory.
const FEWEST: u32 = 32;
const MOST: u32 = 100_000;

/// The size of batches and the rest between them; learns from how long the last one took, the wait for the writer
/// included.
pub(super) struct Pace {
    /// When a sign-in was last seen, in milliseconds of the process; 0 before the first.
    last_sign_in: AtomicU64,
    size: AtomicU32,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { last_sign_in: AtomicU64::new(0), size: AtomicU32::new(FEWEST) }
    }

    /// Somebody signs in at `monotonic`.
    pub(super) fn sign_in(&self, monotonic: Duration) {
        let millis = u64::try_from(monotonic.as_millis()).unwrap_or(u64::MAX);
        self.last_sign_in.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    /// Records of the next batch.
    pub(super) fn size(&self) -> u32 {
        self.size.load(Ordering::Relaxed)
    }

    /// A batch of `size` took `took`. Returns how long to rest before the next: not at all where it is `urgent`.
    pub(super) fn rest_after(&self, size: u32, took: Duration, monotonic: Duration, urgent: bool) -> Duration {
        let alone = urgent || !self.beside_sign_ins(monotonic);
        let target = if alone { ALONE } else { BESIDE };
        let fitting = u128::from(size) * target.as_micros() / took.as_micros().max(1);
        // Grown step by step: one quick batch proves little. Shrunk at once.
        let most = size.saturating_mul(2).clamp(FEWEST, MOST);
        let next = u32::try_from(fitting).unwrap_or(MOST).clamp(FEWEST, most);
        self.size.store(next, Ordering::Relaxed);
        if alone { Duration::ZERO } else { took.min(LONGEST_REST) }
    }

    fn beside_sign_ins(&self, monotonic: Duration) -> bool {
        match self.last_sign_in.load(Ordering::Relaxed) {
            0 => false,
            millis => monotonic.saturating_sub(Duration::from_millis(millis - 1)) < RECENT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn alone_it_grows_to_what_fits_and_does_not_rest() {
        let pace = Pace::new();
        for _ in 0..20 {
            assert_eq!(pace.rest_after(pace.size(), Duration::from_micros(10), SECOND, false), Duration::ZERO);
        }
        assert_eq!(pace.size(), MOST);
        pace.rest_after(MOST, 4 * SECOND, SECOND, false);
        assert_eq!(pace.size(), MOST / 4, "it was four times too long");
        pace.rest_after(FEWEST, 100 * SECOND, SECOND, false);
        assert_eq!(pace.size(), FEWEST);
    }

    #[test]
    fn beside_sign_ins_batches_are_short_and_leave_half_of_the_time() {
        let pace = Pace::new();
        pace.sign_in(SECOND);
        let took = Duration::from_millis(100);
        assert_eq!(pace.rest_after(10_000, took, 2 * SECOND, false), took);
        assert_eq!(pace.size(), 200);
        assert_eq!(pace.rest_after(10_000, took, 2 * SECOND, true), Duration::ZERO, "a key has leaked");
        assert_eq!(pace.rest_after(10_000, took, 6 * SECOND, false), Duration::ZERO, "nobody signs in any more");
        assert_eq!(pace.size(), 20_000);
    }
}
