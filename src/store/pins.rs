//! The port of PINs: the second secret of an account, and the tries at it.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::binding::{AccountId, BindingId};
use crate::clock::Timestamp;

/// A PIN as stored: a keyed hash of what Argon2id made of it.
#[derive(Clone)]
pub struct PinRecord {
    /// Random, of this PIN alone; not secret. It also tells one PIN of an account from the next.
    pub salt: [u8; 16],
    /// HMAC, under the store's secret, of the account and the stretched PIN.
    pub mac: [u8; 32],
    /// When it was set. A code that was typed earlier says nothing about it.
    pub set_at: Timestamp,
}

/// A typed PIN, on a handset.
pub struct PinTry {
    /// The handset. Its account's PIN is meant.
    pub binding: BindingId,
    /// The salt under which `mac` was made.
    pub salt: [u8; 16],
    /// The keyed hash of what was typed.
    pub mac: [u8; 32],
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinVerdict {
    /// It is the PIN; the tries of this handset are forgotten.
    Right,
    /// It is not; the try was counted.
    Wrong {
        /// So many in a row on this handset, this one included.
        in_a_row: u32,
    },
    /// Not looked at: this handset may try again after that time.
    TooOften(Duration),
    /// The account has none, or the binding is gone.
    None,
    /// The account has another than the one of that salt by now: hash again.
    Changed,
}

/// What the PIN to be set or taken away has to be for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// None: whoever holds the handset may set the first.
    Nothing,
    /// The one of this salt: it was typed and right, or the operator vouches for the person by a code.
    Of([u8; 16]),
    /// Any or none: the operator takes it away.
    Anything,
}

/// How often one handset may type a wrong PIN: `count` times in `period`, and after [`PinPace::IN_A_ROW`] wrong ones
/// without a right one in between once in [`PinPace::THEN`]. Four digits then last for years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinPace {
    /// Tries.
    pub count: u32,
    /// In this time.
    pub period: Duration,
}

/// The tries of one handset so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinTries {
    /// Wrong ones without a right one in between.
    pub in_a_row: u32,
    /// When the pace has caught up with them.
    pub busy_until: Timestamp,
}

impl PinPace {
    /// Wrong PINs in a row after which there is one try a day.
    pub const IN_A_ROW: u32 = 20;
    /// That day.
    pub const THEN: Duration = Duration::from_hours(24);

    /// How long the next try has to wait; zero if it is heard now. Whatever happens to the clock, no longer than the pace
    /// could ask for.
    #[must_use]
    pub fn wait(self, tries: Option<PinTries>, now: Timestamp) -> Duration {
        let Some(tries) = tries else { return Duration::ZERO };
        let busy = tries.busy_until.since(now);
        if tries.in_a_row >= Self::IN_A_ROW {
            return busy.min(Self::THEN);
        }
        busy.saturating_sub(self.period.saturating_sub(self.interval())).min(self.interval())
    }

    /// The tries after one more that was wrong.
    #[must_use]
    pub fn after(self, tries: Option<PinTries>, now: Timestamp) -> PinTries {
        let in_a_row = tries.map_or(0, |tries| tries.in_a_row).saturating_add(1);
        let step = if in_a_row >= Self::IN_A_ROW { Self::THEN } else { self.interval() };
        let busy = tries.map_or(Duration::ZERO, |tries| tries.busy_until.since(now)).min(self.period);
        let from = if in_a_row >= Self::IN_A_ROW { now } else { now.plus(busy) };
        PinTries { in_a_row, busy_until: from.plus(step) }
    }

    fn interval(self) -> Duration {
        self.period / self.count.max(1)
    }
}

/// PINs. With accounts and bindings one consistency domain: they are gone with them.
///
/// 50. **Judged and counted in one step.** A wrong try is counted durably before it is answered, so neither tries at once
///     nor a crash give more of them than the pace.
/// 51. **Its own handset alone.** The tries of one handset never make another wait.
/// 52. **Never over another.** A PIN is set or taken away only where the one that is there is as `Over` says.
#[async_trait]
pub trait PinStore: Send + Sync + 'static {
    /// The PIN of the account; `None` if it has none.
    async fn pin(&self, account: &AccountId) -> Result<Option<PinRecord>, StoreError>;

    /// How long the handset has to wait for its next try; zero if it would be heard now.
    async fn pin_wait(&self, binding: BindingId, pace: PinPace, now: Timestamp) -> Result<Duration, StoreError>;

    /// Compares, in constant time, and counts. Every [`SERIES`]th wrong try in a row is news to all handsets of
    /// the account.
    async fn judge_pin(&self, typed: PinTry, pace: PinPace, now: Timestamp) -> Result<PinVerdict, StoreError>;

    /// Sets the account's PIN. `false`, and nothing changed, where there is no such account or `over` does not hold. The
    /// tries of `binding`, on which it was set, are forgotten.
    async fn set_pin(
        &self,
        account: &AccountId,
        pin: PinRecord,
        over: Over,
        binding: BindingId,
    ) -> Result<bool, StoreError>;

    /// Takes the account's PIN away. `false`, and nothing changed, where it has none or `over` does not hold.
    async fn clear_pin(&self, account: &AccountId, over: Over) -> Result<bool, StoreError>;
}

/// So many wrong tries in a row, at a PIN or at a code, are a series that its person is told of.
pub const SERIES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: PinPace = PinPace { count: 4, period: Duration::from_mins(1) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn a_burst_is_heard_and_time_gives_tries_back() {
        let mut tries = None;
        for in_a_row in 1..=4 {
            assert_eq!(PACE.wait(tries, at(0)), Duration::ZERO);
            tries = Some(PACE.after(tries, at(0)));
            assert_eq!(tries.unwrap().in_a_row, in_a_row);
        }
        assert_eq!(PACE.wait(tries, at(0)), Duration::from_secs(15));
        assert_eq!(PACE.wait(tries, at(14)), Duration::from_secs(1));
        assert_eq!(PACE.wait(tries, at(15)), Duration::ZERO);
        tries = Some(PACE.after(tries, at(15)));
        assert_eq!(PACE.wait(tries, at(15)), Duration::from_secs(15));
        assert_eq!(PACE.wait(tries, at(1000)), Duration::ZERO);
    }

    #[test]
    fn after_many_in_a_row_there_is_one_a_day() {
        let (mut tries, mut now) = (None, 0);
        for _ in 0..PinPace::IN_A_ROW {
            while PACE.wait(tries, at(now)) > Duration::ZERO {
                now += 1;
            }
            tries = Some(PACE.after(tries, at(now)));
        }
        for _ in 0..3 {
            assert_eq!(PACE.wait(tries, at(now)), PinPace::THEN);
            now += 86_400;
            assert_eq!(PACE.wait(tries, at(now - 1)), Duration::from_secs(1));
            assert_eq!(PACE.wait(tries, at(now)), Duration::ZERO);
            tries = Some(PACE.after(tries, at(now)));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut tries = None;
        for _ in 0..4 {
            tries = Some(PACE.after(tries, at(1_000_000)));
        }
        assert_eq!(PACE.wait(tries, at(0)), Duration::from_secs(15));
        let next = PACE.after(tries, at(0));
        assert!(next.busy_until <= at(75), "what was the future then counts no more");
        let many = PinTries { in_a_row: 30, busy_until: at(10_000_000) };
        assert_eq!(PACE.wait(Some(many), at(0)), PinPace::THEN);
    }
}
