//! How fast records move: as fast as they can while nobody signs in, and out of the way of whoever does.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::store::Strain;

/// How long a sign-in counts as one that is going on.
const RECENT: Duration = Duration::from_secs(5);
/// How long a batch may take when nobody signs in, or a key has leaked: the longer, the more records share the pages of
/// the index that they are written to. The store breaks it off for whoever comes.
const ALONE: Duration = Duration::from_secs(1);
/// The same beside sign-ins: about what one of them waits for at worst.
const BESIDE: Duration = Duration::from_millis(4);
/// Records in a batch: fewer are not worth a commit, more would take too much memory.
const FEWEST: u32 = 16;
const MOST: u32 = 100_000;
/// Beside sign-ins, the rest after a batch as a multiple of it: at least, at first, and at most.
const LEAST_REST: u32 = 4;
const FIRST_REST: u32 = 50;
const MOST_REST: u32 = 5000;
/// The longest rest, in any case.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// What sign-ins may take longer that meet records on the move, in percent of what they take without.
const TOLERATED: u32 = 10;
/// How many may take longer than that, in parts per million. At half of one in a hundred, the slowest one in a hundred of
/// all is hardly slower than it was.
const TOLERATED_SHARE: u32 = 5000;

/// The size of batches and the rest between them; learns from how long the last one took, and from what others notice.
pub(super) struct Pace {
    /// When a sign-in was last seen, in milliseconds of the process; 0 before the first.
    last_sign_in: AtomicU64,
    size: AtomicU32,
    /// The rest as a multiple of the batch before it.
    rest: AtomicU32,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { last_sign_in: AtomicU64::new(0), size: AtomicU32::new(FEWEST), rest: AtomicU32::new(FIRST_REST) }
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

    /// A batch of `size` took `took`, and others notice of it what `strain` says. Returns how long to rest before the next:
    /// not at all where it is `urgent`.
    pub(super) fn rest_after(
        &self,
        size: u32,
        took: Duration,
        strain: Strain,
        monotonic: Duration,
        urgent: bool,
    ) -> Duration {
        let alone = urgent || !self.beside_sign_ins(monotonic);
        let target = if alone { ALONE } else { BESIDE };
        let fitting = u128::from(size) * target.as_micros() / took.as_micros().max(1);
        // Grown step by step: one quick batch proves little. Shrunk at once.
        let most = size.saturating_mul(4).clamp(FEWEST, MOST);
        let next = u32::try_from(fitting).unwrap_or(MOST).clamp(FEWEST, most);
        self.size.store(next, Ordering::Relaxed);
        if alone {
            return Duration::ZERO;
        }
        let rest = self.rest.load(Ordering::Relaxed);
        let slower = strain.with > strain.without + strain.without * TOLERATED / 100;
        let felt = slower && strain.share > TOLERATED_SHARE;
        // Longer at once, shorter little by little.
        let rest = if felt { rest + rest / 2 } else { rest - (rest / 16).max(1) }.clamp(LEAST_REST, MOST_REST);
        self.rest.store(rest, Ordering::Relaxed);
        (took * rest).min(LONGEST_REST)
    }

    /// Whether somebody signed in lately.
    pub(super) fn beside_sign_ins(&self, monotonic: Duration) -> bool {
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

    const FELT: Strain =
        Strain { without: Duration::from_millis(10), with: Duration::from_micros(11_001), share: 5001 };
    /// By too few, and not enough.
    const SELDOM: Strain = Strain { share: 5000, ..FELT };
    const UNFELT: Strain = Strain { with: Duration::from_millis(11), ..FELT };

    #[test]
    fn alone_it_grows_to_what_fits_and_does_not_rest() {
        let pace = Pace::new();
        for _ in 0..20 {
            let rest = pace.rest_after(pace.size(), Duration::from_micros(10), FELT, SECOND, false);
            assert_eq!(rest, Duration::ZERO);
        }
        assert_eq!(pace.size(), MOST);
        pace.rest_after(MOST, 4 * SECOND, UNFELT, SECOND, false);
        assert_eq!(pace.size(), MOST / 4, "it was four times too long");
        pace.rest_after(FEWEST, 100 * SECOND, UNFELT, SECOND, false);
        assert_eq!(pace.size(), FEWEST);
    }

    #[test]
    fn beside_sign_ins_batches_are_short_and_rests_as_long_as_they_need() {
        let pace = Pace::new();
        pace.sign_in(SECOND);
        let took = Duration::from_millis(1);
        let rest = |strain| pace.rest_after(100, took, strain, 2 * SECOND, false);
        assert_eq!(rest(FELT), took * (FIRST_REST + FIRST_REST / 2));
        for _ in 0..200 {
            rest(UNFELT);
        }
        assert_eq!(rest(SELDOM), took * LEAST_REST);
        assert_eq!(rest(FELT), took * 6);
        assert_eq!(rest(SELDOM), took * 5);
        for _ in 0..20 {
            rest(FELT);
        }
        assert_eq!(rest(FELT), LONGEST_REST);
        assert_eq!(pace.size(), 400);

        let took = Duration::from_millis(400);
        assert_eq!(pace.rest_after(10_000, took, FELT, 2 * SECOND, false), LONGEST_REST);
        assert_eq!(pace.size(), 100);
        let took = Duration::from_millis(100);
        assert_eq!(pace.rest_after(10_000, took, FELT, 2 * SECOND, true), Duration::ZERO, "a key has leaked");
        assert_eq!(pace.rest_after(10_000, took, FELT, 6 * SECOND, false), Duration::ZERO, "nobody signs in any more");
        assert_eq!(pace.size(), 40_000);
    }
}
