//! When work that failed is tried again: soon at first, then ever later, however long it goes on.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(5);
/// However often it failed.
const MOST: Duration = Duration::from_mins(10);

/// Of one kind of work. Times are of [`Clock::monotonic`](crate::clock::Clock::monotonic).
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// When it is to be tried again, and how long that was waited for; `None` while it works.
    next: Option<(Duration, Duration)>,
}

impl Backoff {
    /// Whether it may be tried at `now`.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next.is_none_or(|(at, _)| now >= at)
    }

    /// It failed at `now`. Returns whether it had worked before.
    pub(super) fn failed(&mut self, now: Duration) -> bool {
        let wait = self.next.map_or(FIRST, |(_, wait)| wait.saturating_mul(2).min(MOST));
        self.next.replace((now.saturating_add(wait), wait)).is_none()
    }

    /// It worked. Returns whether it had failed before.
    pub(super) fn worked(&mut self) -> bool {
        self.next.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_twice_as_long_each_time_and_ten_minutes_at_most() {
        let (mut backoff, mut now) = (Backoff::default(), Duration::from_secs(7));
        assert!(backoff.is_due(now) && !backoff.worked());
        let mut waits = Vec::new();
        for failure in 0..10 {
            assert_eq!(backoff.failed(now), failure == 0, "it is news once");
            let mut waited = Duration::ZERO;
            while !backoff.is_due(now + waited) {
                waited += Duration::from_secs(1);
            }
            waits.push(waited.as_secs());
            now += waited;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert!(backoff.worked() && backoff.is_due(Duration::ZERO), "and then it is as if nothing had been");
        assert!(backoff.failed(now) && !backoff.is_due(now));
    }
}
