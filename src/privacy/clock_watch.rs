//! Whether the wall clock may be believed when it says that something is old enough to be erased.
//!
//! One step forward, by a wrong battery clock or a typing error, would otherwise erase every binding for good. After a
//! step, or where the store's own idea of the present is far off, nothing is erased until the clock has run on
//! undisturbed for a day: erasure comes a day late, never by mistake.

use std::time::Duration;

use crate::clock::{Day, Timestamp};

/// How much further the wall clock may have moved than time has passed. Covers leap seconds and slewing.
const TOLERANCE: Duration = Duration::from_hours(1);
/// How far the wall clock may go back before that is told.
const SET_BACK: Duration = Duration::from_mins(1);
/// How far ahead of the store's last use a clock may be without being doubted.
const QUIET_DAYS: u32 = 7;
/// How long a doubted clock must run undisturbed.
const PROBATION: Duration = Duration::from_hours(24);

/// Watches one clock; asked at each round of upkeep.
#[derive(Default)]
pub(super) struct ClockWatch {
    last: Option<(Timestamp, Duration)>,
    trusted_from: Duration,
}

impl ClockWatch {
    /// By how much the wall clock went back since the last round, where that is more than NTP corrects. Ask before
    /// [`ClockWatch::may_erase`], which takes note of the round.
    pub(super) fn set_back(&self, now: Timestamp, monotonic: Duration) -> Option<Duration> {
        let (wall, passed) = self.last?;
        let behind = wall.plus(monotonic.saturating_sub(passed)).since(now);
        (behind > SET_BACK).then_some(behind)
    }

    /// Whether what is old at `now` may be erased. `monotonic` is the time since the process began, `last_use` the last
    /// day that the store knows of.
    pub(super) fn may_erase(&mut self, now: Timestamp, monotonic: Duration, last_use: Option<Day>) -> bool {
        let doubtful = match self.last {
            None => last_use.is_some_and(|day| now.day() < day || now.day().minus_days(QUIET_DAYS) > day),
            Some((wall, passed)) => {
                let expected = wall.plus(monotonic.saturating_sub(passed));
                now.since(expected).max(expected.since(now)) > TOLERANCE
            }
        };
        self.last = Some((now, monotonic));
        if doubtful {
            self.trusted_from = monotonic + PROBATION;
            tracing::warn!(
                day = %now.day(),
                "the clock has been set, or is far from when the store was last used; nothing is erased for a day",
            );
        }
        monotonic >= self.trusted_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_795_478_400_000 + hours * 3_600_000)
    }

    #[test]
    fn a_clock_that_runs_is_believed_and_one_that_jumps_has_to_wait() {
        let mut watch = ClockWatch::default();
        assert!(watch.may_erase(at(0), Duration::ZERO, None));
        assert!(watch.may_erase(at(24 * 500), HOUR * 24 * 500, None), "time really passed");
        let mut watch = ClockWatch::default();
        assert!(watch.may_erase(at(0), Duration::ZERO, Some(at(0).day())));
        assert!(!watch.may_erase(at(24 * 402), HOUR, Some(at(0).day())), "a step forward");
        assert!(!watch.may_erase(at(24 * 402 + 23), HOUR * 24, Some(at(0).day())));
        assert!(watch.may_erase(at(24 * 402 + 24), HOUR * 25, Some(at(0).day())), "after a day");
        assert!(!watch.may_erase(at(0), HOUR * 26, Some(at(0).day())), "a step back");
    }

    #[test]
    fn only_a_clock_that_goes_back_has_been_set_back() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.set_back(at(0), Duration::ZERO), None, "there is nothing to compare with");
        watch.may_erase(at(10), Duration::ZERO, None);
        for (hours, passed, expected) in [(10, 0, None), (11, 1, None), (99, 1, None), (9, 0, Some(1)), (9, 2, Some(3))]
        {
            let expected = expected.map(|hours: u32| HOUR * hours);
            assert_eq!(watch.set_back(at(hours), HOUR * passed), expected, "{hours} h after {passed} h");
        }
    }

    #[test]
    fn a_start_far_from_the_last_use_has_to_wait() {
        for (hours, expected) in [(-24, false), (0, true), (7 * 24, true), (8 * 24, false), (402 * 24, false)] {
            let mut watch = ClockWatch::default();
            assert_eq!(watch.may_erase(at(hours), HOUR, Some(at(0).day())), expected, "{hours} h");
        }
    }
}
