//! What those who wait for a write notice of patient work: how many meet it, and how much longer they take then.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Strain;

/// An average moves by so much of the difference to the latest figure.
const WEIGHT: u64 = 16;
/// The same of the share of those who meet patient work, which is to be told to a fraction of a hundredth.
const WEIGHT_OF_SHARE: u64 = 256;
const MILLION: u64 = 1_000_000;

/// Kept by the threads that write.
pub(super) struct Burden {
    began: Instant,
    /// Patient work, and syncs and checkpoints of what it wrote, that are under way.
    under_way: AtomicU32,
    /// When the last of them ended, in nanoseconds from `began`.
    ended: AtomicU64,
    /// Whether it left pages in the journal that no checkpoint has taken yet.
    left_pages: AtomicBool,
    /// Nanoseconds, as an average of the latest; 0 before the first.
    without: AtomicU64,
    with: AtomicU64,
    /// Parts per million.
    share: AtomicU64,
}

impl Default for Burden {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            under_way: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            left_pages: AtomicBool::new(false),
            without: AtomicU64::new(0),
            with: AtomicU64::new(0),
            share: AtomicU64::new(0),
        }
    }
}

/// Patient work that is under way until this is dropped.
pub(super) struct Load<'b>(&'b Burden);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.ended.store(self.0.nanos(Instant::now()), Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Burden {
    /// Patient work writes, or what it wrote goes to the disk.
    pub(super) fn work(&self) -> Load<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.left_pages.store(true, Ordering::Relaxed);
        Load(self)
    }

    /// A checkpoint begins: patient work too, if there was any since the last.
    pub(super) fn checkpoint(&self) -> Option<Load<'_>> {
        self.left_pages.swap(false, Ordering::Relaxed).then(|| {
            self.under_way.fetch_add(1, Ordering::Relaxed);
            Load(self)
        })
    }

    /// A write was answered that was asked for at `asked`.
    pub(super) fn answered(&self, asked: Instant) {
        let met = self.under_way.load(Ordering::Relaxed) > 0 || self.ended.load(Ordering::Relaxed) > self.nanos(asked);
        let average = if met { &self.with } else { &self.without };
        let took = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        let moved = |before: u64| if before == 0 { took } else { before - before / WEIGHT + took / WEIGHT };
        // Hardly ever does another thread than the one that writes store, and then a figure is missing from an average.
        average.store(moved(average.load(Ordering::Relaxed)), Ordering::Relaxed);
        let share = self.share.load(Ordering::Relaxed);
        let more = if met { MILLION / WEIGHT_OF_SHARE } else { 0 };
        self.share.store(share - share / WEIGHT_OF_SHARE + more, Ordering::Relaxed);
    }

    pub(super) fn strain(&self) -> Strain {
        let of = |average: &AtomicU64| Duration::from_nanos(average.load(Ordering::Relaxed));
        let share = u32::try_from(self.share.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        Strain { without: of(&self.without), with: of(&self.with), share }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_while_patient_work_is_done_meets_it_and_nobody_else_does() {
        let burden = Burden::default();
        let pass = |millis| tokio::time::advance(Duration::from_millis(millis));
        pass(10).await;
        let alone = Instant::now();
        pass(4).await;
        burden.answered(alone);
        assert_eq!(burden.strain(), Strain { without: Duration::from_millis(4), with: Duration::ZERO, share: 0 });

        let work = burden.work();
        pass(1).await;
        let beside = Instant::now();
        pass(1).await;
        drop(work);
        pass(6).await;
        let behind = Instant::now();
        burden.answered(beside);
        pass(4).await;
        burden.answered(behind);
        let strain = burden.strain();
        assert_eq!((strain.without, strain.with), (Duration::from_millis(4), Duration::from_millis(7)));
        assert!((3880..3910).contains(&strain.share), "{strain:?}");

        // The checkpoint of what it wrote is its doing, the next is not.
        let checkpoint = burden.checkpoint();
        burden.answered(Instant::now());
        assert!(burden.strain().share > 7000 && checkpoint.is_some());
        drop(checkpoint);
        assert!(burden.checkpoint().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_is_what_it_says() {
        let burden = Burden::default();
        for number in 0..5000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            let work = (number % 50 == 0).then(|| burden.work());
            let asked = Instant::now();
            tokio::time::advance(Duration::from_millis(1)).await;
            drop(work);
            burden.answered(asked);
        }
        assert!((15_000..25_000).contains(&burden.strain().share), "two of a hundred: {:?}", burden.strain());
    }
}
