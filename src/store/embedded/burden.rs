//! What those who wait for a write notice of patient work: how many of them it makes slow.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Strain;

/// By how much the estimate of the slowest percent moves with each figure: down by so many parts of it.
const STEP: u64 = 1000;
/// Up by so many times as much. Where one figure in a hundred is above the estimate, it stays where it is.
const UP: u64 = 99;
/// What those that meet patient work may take longer than the slowest percent of the others, in percent.
const TOLERATED: u64 = 10;

/// Kept by the threads that write.
pub(super) struct Burden {
    began: Instant,
    /// Patient work, and syncs and checkpoints of what it wrote, that are under way.
    under_way: AtomicU32,
    /// When the last of them ended, in nanoseconds from `began`.
    ended: AtomicU64,
    /// Whether it left pages in the journal that no checkpoint has taken yet.
    left_pages: AtomicBool,
    /// Whether it is done beside others.
    gentle: AtomicBool,
    /// What all but one in a hundred take that meet no patient work, in nanoseconds; 0 before the first.
    tail: AtomicU64,
    answered: AtomicU64,
    late: AtomicU64,
    /// Nanoseconds.
    busy: AtomicU64,
}

impl Default for Burden {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            under_way: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            left_pages: AtomicBool::new(false),
            gentle: AtomicBool::new(false),
            tail: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            late: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }
}

/// Patient work that is under way until this is dropped.
pub(super) struct Load<'b> {
    burden: &'b Burden,
    /// When it began, if its time counts.
    since: Option<Instant>,
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.since {
            let took = u64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX);
            self.burden.busy.fetch_add(took, Ordering::Relaxed);
        }
        self.burden.ended.store(self.burden.nanos(now), Ordering::Relaxed);
        self.burden.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Burden {
    /// Patient work writes, or what it wrote goes to the disk.
    pub(super) fn work(&self) -> Load<'_> {
        self.left_pages.store(true, Ordering::Relaxed);
        self.load(Some(Instant::now()))
    }

    /// A checkpoint begins: patient work too, if there was any since the last.
    pub(super) fn checkpoint(&self) -> Option<Load<'_>> {
        self.left_pages.swap(false, Ordering::Relaxed).then(|| self.load(None))
    }

    /// The journal is emptied, which who waits for a write waits for: no figure of those who meet nothing.
    pub(super) fn emptying(&self) -> Load<'_> {
        self.load(None)
    }

    /// It is empty: patient work has left nothing in it.
    pub(super) fn emptied(&self) {
        self.left_pages.store(false, Ordering::Relaxed);
        self.gentle.store(false, Ordering::Relaxed);
    }

    /// Says whether the patient work that comes now is done beside others.
    pub(super) fn is_beside_others(&self, gentle: bool) {
        self.gentle.store(gentle, Ordering::Relaxed);
    }

    /// Whether there are pages in the journal that no checkpoint has taken yet, of patient work that rests for nobody.
    pub(super) fn is_in_haste(&self) -> bool {
        !self.gentle.load(Ordering::Relaxed) && self.left_pages.load(Ordering::Relaxed)
    }

    /// A write was answered that was asked for at `asked`.
    pub(super) fn answered(&self, asked: Instant) {
        let met = self.under_way.load(Ordering::Relaxed) > 0 || self.ended.load(Ordering::Relaxed) > self.nanos(asked);
        let took = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        let tail = self.tail.load(Ordering::Relaxed);
        if !met {
            let step = tail / STEP;
            let moved = if tail == 0 {
                took
            } else if took > tail {
                tail.saturating_add(step.saturating_mul(UP))
            } else {
                tail - step
            };
            // Hardly ever does another thread than the one that writes store, and then a figure is missing.
            self.tail.store(moved, Ordering::Relaxed);
        } else if tail > 0 && took > tail.saturating_add(tail / 100 * TOLERATED) {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn strain(&self) -> Strain {
        Strain {
            answered: self.answered.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy.load(Ordering::Relaxed)),
        }
    }

    fn load(&self, since: Option<Instant>) -> Load<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Load { burden: self, since }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_while_patient_work_is_done_is_late_and_nobody_else_is() {
        let burden = Burden::default();
        pass(10).await;
        let alone = Instant::now();
        pass(4).await;
        burden.answered(alone);
        let work = burden.work();
        pass(1).await;
        let (beside, quick) = (Instant::now(), Instant::now());
        pass(1).await;
        drop(work);
        pass(2).await;
        burden.answered(quick);
        let seen = |answered, late| Strain { answered, late, busy: Duration::from_millis(2) };
        assert_eq!(burden.strain(), seen(2, 0));
        pass(3).await;
        let behind = Instant::now();
        burden.answered(beside);
        assert_eq!(burden.strain(), seen(3, 1));
        pass(8).await;
        burden.answered(behind);
        assert_eq!(burden.strain(), seen(4, 1), "it met nothing");

        // The checkpoint of what it wrote is its doing, the next is not.
        assert!(burden.is_in_haste());
        burden.is_beside_others(true);
        assert!(!burden.is_in_haste());
        burden.is_beside_others(false);
        let checkpoint = burden.checkpoint();
        let beside = Instant::now();
        pass(50).await;
        burden.answered(beside);
        assert_eq!(burden.strain(), seen(5, 2), "its time is no batch's");
        assert!(checkpoint.is_some() && !burden.is_in_haste());
        drop(checkpoint);
        assert!(burden.checkpoint().is_none());

        // So is who waits while the journal is emptied.
        drop(burden.work());
        assert!(burden.is_in_haste());
        pass(1).await;
        let beside = Instant::now();
        let emptying = burden.emptying();
        pass(50).await;
        burden.emptied();
        drop(emptying);
        burden.answered(beside);
        assert_eq!(burden.strain(), seen(6, 3));
        assert!(!burden.is_in_haste() && burden.checkpoint().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_is_what_the_slowest_percent_of_the_others_take() {
        let burden = Burden::default();
        for number in 0..20_000 {
            let asked = Instant::now();
            // From 1 to 101 ms, each as often as any other.
            pass(1 + number * 37 % 101).await;
            burden.answered(asked);
        }
        let tail = Duration::from_nanos(burden.tail.load(Ordering::Relaxed)).as_millis();
        assert!((90..112).contains(&tail), "{tail}");
    }
}
