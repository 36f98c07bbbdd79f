//! How long writes take that somebody waits for, with and without patient work beside them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::store::Strain;

/// A figure moves by so much of the difference to the latest one.
const WEIGHT: u64 = 16;

/// Kept by the thread that writes.
#[derive(Default)]
pub(super) struct Burden {
    /// Whether patient work was done since the last transaction of the others, which then waits for its pages too.
    beside: AtomicBool,
    /// Nanoseconds, as an average of the latest; 0 before the first.
    without: AtomicU64,
    with: AtomicU64,
}

impl Burden {
    /// Patient work was done.
    pub(super) fn burdened(&self) {
        self.beside.store(true, Ordering::Relaxed);
    }

    /// The others have caught up with it.
    pub(super) fn relieved(&self) {
        self.beside.store(false, Ordering::Relaxed);
    }

    /// A write was answered, so long after it was asked for.
    pub(super) fn answered(&self, took: Duration) {
        let average = if self.beside.load(Ordering::Relaxed) { &self.with } else { &self.without };
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let moved = |before: u64| if before == 0 { took } else { before - before / WEIGHT + took / WEIGHT };
        // Only the thread that writes stores.
        average.store(moved(average.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    pub(super) fn strain(&self) -> Strain {
        let of = |average: &AtomicU64| Duration::from_nanos(average.load(Ordering::Relaxed));
        Strain { without: of(&self.without), with: of(&self.with) }
    }
}
