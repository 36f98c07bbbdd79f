//! When a session ends by itself, `now` passed in; and the policy in force, which a reload replaces.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// How far a clock may be adjusted back without anybody noticing.
const CLOCK_JITTER: Duration = Duration::from_mins(1);

/// How long sessions last and how many an account may have.
#[derive(Clone, Copy, Debug)]
pub struct SessionPolicy {
    /// Ends when unused for that long.
    pub idle: Duration,
    /// Ends in any case.
    pub absolute: Duration,
    /// Most sessions of an account; one more ends the oldest.
    pub per_account: u32,
}

/// Why a session ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Unused for too long.
    Idle,
    /// Its absolute end was reached.
    Absolute,
}

impl SessionPolicy {
    /// When a session opened at `now` ends, whatever happens.
    #[must_use]
    pub fn end_of(&self, now: Timestamp) -> Timestamp {
        now.plus(self.absolute)
    }

    /// How stale the stored `last_seen_at` may become before it is written again: a minute, less for short idle times.
    ///
    /// A crash therefore costs a session at most this much of its idle time, and never lengthens it.
    #[must_use]
    pub fn touch_interval(&self) -> Duration {
        (self.idle / 10).min(Duration::from_mins(1))
    }
}

/// Why a session that may be unused for `idle` is over at `now`; `None` while it lives. The instant of the end itself is
/// over.
///
/// A session that was opened in what is now the future was opened by a clock that has been set back since. Its end
/// would come too late, so it is over.
pub(super) fn expired(
    idle: Duration,
    created_at: Timestamp,
    last_seen_at: Timestamp,
    expires_at: Timestamp,
    now: Timestamp,
) -> Option<Expiry> {
    if now >= expires_at || created_at > now.plus(CLOCK_JITTER) {
        Some(Expiry::Absolute)
    } else if now.since(last_seen_at) >= idle {
        Some(Expiry::Idle)
    } else {
        None
    }
}

/// The policy that sessions are held to, until another one is.
pub(super) struct PolicyInForce {
    whole: Mutex<SessionPolicy>,
    /// The `idle` of it in nanoseconds, apart: each request asks for it, and for nothing else.
    idle: AtomicU64,
}

impl PolicyInForce {
    pub(super) fn new(policy: SessionPolicy) -> Self {
        Self { whole: Mutex::new(policy), idle: AtomicU64::new(nanos(policy.idle)) }
    }

    pub(super) fn replace(&self, policy: SessionPolicy) {
        let mut whole = self.lock();
        // Under the lock, so that of two the last says both.
        self.idle.store(nanos(policy.idle), Ordering::Release);
        *whole = policy;
    }

    pub(super) fn get(&self) -> SessionPolicy {
        *self.lock()
    }

    /// For how long a session may be unused.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_nanos(self.idle.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, SessionPolicy> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 584 years at most, which no session lasts.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: SessionPolicy =
        SessionPolicy { idle: Duration::from_mins(30), absolute: Duration::from_hours(12), per_account: 5 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    #[test]
    fn a_session_ends_exactly_at_its_limits() {
        let end = POLICY.end_of(at(0));
        for (last_seen, now, expected) in [
            (0, 0, None),
            (0, 1799, None),
            (0, 1800, Some(Expiry::Idle)),
            (43_000, 43_199, None),
            (43_199, 43_200, Some(Expiry::Absolute)),
            (0, 50_000, Some(Expiry::Absolute)),
            (100, 50, None), // a clock set back ends nothing by idling
            (0, -60, None),
            (0, -61, Some(Expiry::Absolute)),
        ] {
            let found = expired(POLICY.idle, at(0), at(last_seen), end, at(now));
            assert_eq!(found, expected, "seen {last_seen}, now {now}");
        }
    }

    #[test]
    fn the_policy_in_force_is_the_last() {
        let in_force = PolicyInForce::new(POLICY);
        assert_eq!((in_force.idle(), in_force.get().per_account), (POLICY.idle, 5));
        for idle in [Duration::from_nanos(1_000_000_001), Duration::from_hours(24 * 365 * 500)] {
            in_force.replace(SessionPolicy { idle, per_account: 7, ..POLICY });
            assert_eq!((in_force.idle(), in_force.get().idle, in_force.get().per_account), (idle, idle, 7));
        }
    }

    #[test]
    fn short_idle_times_are_written_more_often() {
        assert_eq!(POLICY.touch_interval(), Duration::from_mins(1));
        assert_eq!(SessionPolicy { idle: Duration::from_mins(1), ..POLICY }.touch_interval(), Duration::from_secs(6));
    }
}
