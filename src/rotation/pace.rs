//! How fast records move: as fast as they can while nobody signs in, and out of the way of whoever does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::Strain;

/// How long a sign-in counts as one that is going on.
const RECENT: Duration = Duration::from_secs(5);
/// How long a batch may take when nobody signs in, or a key has leaked: the longer, the more records share the pages of
/// the index that they are written to. The store breaks it off for whoever comes.
const ALONE: Duration = Duration::from_millis(500);
/// The same beside sign-ins: about what one of them waits for at worst.
const BESIDE: Duration = Duration::from_millis(1);
/// Records in a batch: fewer are not worth a commit, more would take too much memory.
const FEWEST: u32 = 32;
const MOST: u32 = 1 << 16;
const MOST_BESIDE: u32 = 1 << 10;
/// Beside sign-ins, the rest after a batch as a multiple of it, in thousandths: at least, at first, and at most.
const LEAST_REST: u64 = 4_000;
const FIRST_REST: u64 = 50_000;
const MOST_REST: u64 = 1_000_000;
/// The longest rest, in any case: at the worst disk, too, a wrap comes to its end.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// By which part of it a rest grows for each change that records on the move made slow.
const LONGER: u64 = 4;
/// By which part of it it shrinks for each one that was answered. One in 300 is slow, then, where rests neither grow nor
/// shrink: slower than the slowest percent were, one in 300 of all moves that percentile but little.
const SHORTER: u64 = 1_300;

/// The size of batches and the rest between them; learns from how long the last one took, and from what others notice.
pub(super) struct Pace {
    /// When a sign-in was last seen, in milliseconds of the process; 0 before the first.
    last_sign_in: AtomicU64,
    learned: Mutex<Learned>,
}

struct Learned {
    /// Records of a batch when nobody signs in, and beside sign-ins.
    alone: u32,
    beside: u32,
    /// The rest as a multiple of the batch before it, in thousandths.
    rest: u64,
    /// What others had noticed before the last batch.
    strain: Strain,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self::resting(FIRST_REST)
    }

    /// Of a copy of the store, for whose writer nobody waits: who signs in shares no more than the machine with it.
    pub(super) const fn of_a_rehearsal() -> Self {
        Self::resting(LEAST_REST)
    }

    const fn resting(rest: u64) -> Self {
        let strain = Strain { answered: 0, late: 0, busy: Duration::ZERO };
        let learned = Learned { alone: FEWEST, beside: FEWEST, rest, strain };
        Self { last_sign_in: AtomicU64::new(0), learned: Mutex::new(learned) }
    }

    /// Somebody signs in at `monotonic`.
    pub(super) fn sign_in(&self, monotonic: Duration) {
        let millis = u64::try_from(monotonic.as_millis()).unwrap_or(u64::MAX);
        self.last_sign_in.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    /// Records of the next batch.
    pub(super) fn size(&self, beside: bool) -> u32 {
        let learned = self.learned();
        if beside { learned.beside } else { learned.alone }
    }

    /// Batches are about to begin, and `strain` is what others noticed until then.
    pub(super) fn begins(&self, strain: Strain) {
        self.learned().strain = strain;
    }

    /// A batch moved so many records within `took`, and `strain` is what others have noticed by now. Returns how long to
    /// rest before the next: not at all where it was not `beside` sign-ins.
    pub(super) fn rest_after(&self, moved: u64, took: Duration, strain: Strain, beside: bool) -> Duration {
        let mut learned = self.learned();
        let answered = strain.answered.saturating_sub(learned.strain.answered);
        let late = strain.late.saturating_sub(learned.strain.late);
        // Without what it waited for others, where that is known.
        let busy = strain.busy.saturating_sub(learned.strain.busy).min(took);
        learned.strain = strain;
        if !beside {
            learned.alone = fitting(learned.alone, moved, took, ALONE).min(MOST);
            return Duration::ZERO;
        }
        learned.beside = fitting(learned.beside, moved, busy, BESIDE).min(MOST_BESIDE);
        for _ in 0..answered.min(SHORTER) {
            learned.rest -= learned.rest / SHORTER;
        }
        for _ in 0..late.min(8) {
            learned.rest += learned.rest / LONGER;
        }
        learned.rest = learned.rest.clamp(LEAST_REST, MOST_REST);
        let thousandths = u32::try_from(learned.rest).unwrap_or(u32::MAX);
        (busy * thousandths / 1000).min(LONGEST_REST)
    }

    /// Whether somebody signed in lately.
    pub(super) fn beside_sign_ins(&self, monotonic: Duration) -> bool {
        match self.last_sign_in.load(Ordering::Relaxed) {
            0 => false,
            millis => monotonic.saturating_sub(Duration::from_millis(millis - 1)) < RECENT,
        }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records take `target`, where `moved` of them took `took`. Grown step by step from `size`: one quick batch proves
/// little. Shrunk at once.
fn fitting(size: u32, moved: u64, took: Duration, target: Duration) -> u32 {
    let fitting = u128::from(moved) * target.as_micros() / took.as_micros().max(1);
    u32::try_from(fitting).unwrap_or(u32::MAX).clamp(FEWEST, size.saturating_mul(4).max(FEWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MILLI: Duration = Duration::from_millis(1);

    /// What a store tells after `batches` of one millisecond, beside which each time so many were answered and late.
    const fn strain(batches: u64, (answered, late): (u64, u64)) -> Strain {
        Strain { answered: answered * batches, late: late * batches, busy: Duration::from_millis(batches) }
    }

    #[test]
    fn alone_it_grows_to_what_fits_and_does_not_rest() {
        let pace = Pace::new();
        for batch in 1..20 {
            let size = u64::from(pace.size(false));
            let rest = pace.rest_after(size, Duration::from_micros(10), strain(batch, (1, 1)), false);
            assert_eq!(rest, Duration::ZERO);
        }
        assert_eq!((pace.size(false), pace.size(true)), (MOST, FEWEST), "what is learned alone is for nobody else");
        pace.rest_after(MOST.into(), 2 * SECOND, strain(20, (1, 1)), false);
        assert_eq!(pace.size(false), MOST / 4, "it was four times too long");
        pace.rest_after(FEWEST.into(), 100 * SECOND, strain(21, (1, 1)), false);
        assert_eq!(pace.size(false), FEWEST);
    }

    #[test]
    fn beside_sign_ins_batches_are_short_however_long_they_waited() {
        let pace = Pace::new();
        let busy = |batches, took| Strain { busy: took, ..strain(batches, (1, 0)) };
        pace.rest_after(32, SECOND, busy(1, MILLI / 4), true);
        assert_eq!(pace.size(true), 128);
        pace.rest_after(128, SECOND, busy(2, MILLI / 4 + 2 * MILLI), true);
        assert_eq!(pace.size(true), 64, "it was twice too long");
        pace.begins(busy(2, SECOND));
        assert!(pace.rest_after(64, 2 * MILLI, busy(3, SECOND + MILLI), true) < 60 * MILLI, "as long as this one took");
    }

    #[test]
    fn rests_are_as_long_as_it_takes_for_one_in_300_to_be_slow() {
        let pace = Pace::new();
        pace.begins(strain(0, (0, 0)));
        let rest = |batch, seen| pace.rest_after(64, 2 * MILLI, strain(batch, seen), true);
        let first = rest(1, (0, 0));
        assert_eq!(first, 50 * MILLI);
        let of = |seen| {
            let pace = Pace::new();
            let all = (1..100).map(|batch| pace.rest_after(64, 2 * MILLI, strain(batch, seen), true));
            all.last().unwrap()
        };
        assert!(of((200, 0)) < 5 * MILLI && of((200, 0)) >= 4 * MILLI, "nobody is late");
        assert!(of((400, 1)) < first, "{:?}", of((400, 1)));
        assert!(of((200, 1)) > first, "{:?}", of((200, 1)));
        assert_eq!(of((1, 1)), SECOND, "one that is always in the way still goes on");
    }

    #[test]
    fn a_sign_in_counts_for_some_seconds() {
        let pace = Pace::new();
        assert!(!pace.beside_sign_ins(SECOND));
        pace.sign_in(SECOND);
        assert!(pace.beside_sign_ins(5 * SECOND) && !pace.beside_sign_ins(6 * SECOND));
    }
}
