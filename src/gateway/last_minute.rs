//! What the counters said in the last minute, for who asks how the gateway does now.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::{Figures, Observed};

/// How far back is looked.
const SPAN: Duration = Duration::from_mins(1);
/// How often the counters are noted.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// Notes of the counters, oldest first.
#[derive(Default)]
pub(super) struct LastMinute(Mutex<VecDeque<(Duration, Figures)>>);

/// What happened in a stretch of time.
pub(super) struct Lately {
    /// How long it is.
    pub(super) span: Duration,
    pub(super) requests: Observed,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) store_writes: Observed,
}

impl LastMinute {
    /// Notes the counters as they stand at `now`, in monotonic time.
    pub(super) fn note(&self, now: Duration, figures: &Figures) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is a whole span old is kept, to reckon from.
        while notes.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= SPAN) {
            notes.pop_front();
        }
        notes.push_back((now, *figures));
    }

    /// What happened since the note that is nearest to a minute ago; since the first where none is so old.
    pub(super) fn until(&self, now: Duration, figures: &Figures) -> Lately {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = notes.iter().rev().find(|(at, _)| now.saturating_sub(*at) >= SPAN);
        let (at, before) = old.or_else(|| notes.front()).copied().unwrap_or((now, *figures));
        Lately {
            span: now.saturating_sub(at),
            requests: figures.requests.since(&before.requests),
            failed: figures.failed.saturating_sub(before.failed),
            refused: figures.refused.saturating_sub(before.refused),
            store_writes: figures.store_writes.since(&before.store_writes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_back_is_looked_and_no_further() {
        let (notes, seconds) = (LastMinute::default(), Duration::from_secs);
        let figures = |failed| Figures { failed, ..Figures::default() };
        let lately = |now, failed| {
            let lately = notes.until(seconds(now), &figures(failed));
            (lately.span.as_secs(), lately.failed)
        };
        assert_eq!(lately(3, 7), (0, 0), "nothing was noted yet");
        for n in 0..100 {
            notes.note(seconds(5 * n), &figures(n));
            assert_eq!(lately(5 * n + 2, n + 1), if n < 12 { (5 * n + 2, n + 1) } else { (62, 13) });
        }
        assert!(notes.0.lock().unwrap().len() <= 14);
    }
}
