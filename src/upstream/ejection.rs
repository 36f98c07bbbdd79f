//! Servers that take requests and leave them without a sound answer get none for a while.
//!
//! What is judged: no connection, one that ends before the answer's head, a head that is none, none in time. What is not:
//! a status, however bad, since it is an answer; what a client does wrong, or leaves undone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Requests in a row that a server leaves without an answer before it gets no more: one or two may be what they asked for.
const FAILURES: u32 = 3;
/// For how long it gets none the first time; twice as long each time that it fails again soon after.
const FIRST: Duration = Duration::from_secs(5);
/// The longest time without a share of it that is drawn by lot, a quarter at most: several gateways should not all come
/// back at one moment.
const LONGEST: Duration = Duration::from_mins(5);
/// For how long after its return a server gets fewer requests and connections than the others: its caches are cold.
pub(super) const SLOW_RETURN: Duration = Duration::from_secs(30);
/// Of how many requests the share of a server that is back is reckoned.
pub(super) const ROUND: usize = 10;

/// Of [`ROUND`] requests that a server could get, those that it gets so long `since` its return: one at first, all in the end.
pub(super) fn share_after(since: Duration) -> usize {
    let steps = since.as_millis() * ROUND as u128 / SLOW_RETURN.as_millis();
    usize::try_from(steps).map_or(ROUND, |steps| steps.saturating_add(1).min(ROUND))
}

/// How one server did lately, as all workers found out.
pub(super) struct Ejection {
    started: Instant,
    /// What the lengths are drawn from.
    seed: u64,
    /// Milliseconds after `started` at which it gets requests again, or did; 0 if it always got some.
    until: AtomicU64,
    /// Nanoseconds after `started` at which it was ejected last; 0 if it never was.
    ejected: AtomicU64,
    /// Whether a sound answer is news.
    troubled: AtomicBool,
    /// Whether it has not answered since it was ejected.
    unproved: AtomicBool,
    /// Milliseconds after `started` at which it was last tried, while it is unproved; 0 if it was not.
    tried: AtomicU64,
    ejections: AtomicU64,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    /// Since its last sound answer.
    failures: u32,
    /// Whether it has answered since it was ejected.
    proved: bool,
    /// What was sent before tells nothing new: it was ejected then, or began a new life.
    judged_at: Option<Instant>,
    until: Option<Instant>,
    length: Duration,
    /// Ejections, one soon after the other.
    times: u32,
}

impl Ejection {
    /// Of a server that nothing is known of. `seed`: random.
    pub(super) fn new(seed: u64) -> Self {
        let [until, ejected, tried, ejections] = [0; 4].map(AtomicU64::new);
        let [troubled, unproved] = [false; 2].map(AtomicBool::new);
        Self {
            started: Instant::now(),
            seed,
            until,
            ejected,
            troubled,
            unproved,
            tried,
            ejections,
            past: Mutex::default(),
        }
    }

    /// Whether it gets no requests `now`, while there are other servers: it is ejected, or back, and what becomes of the
    /// request that it is tried on is not known.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.until(now).is_some() || (self.unproved.load(Ordering::Relaxed) && self.is_tried(now))
    }

    /// Whether it has answered since it was ejected last.
    pub(super) fn is_proved(&self) -> bool {
        !self.unproved.load(Ordering::Relaxed)
    }

    /// It gets a request `now`.
    pub(super) fn asked(&self, now: Instant) {
        if self.unproved.load(Ordering::Relaxed) {
            self.tried.store(self.millis(now), Ordering::Relaxed);
        }
    }

    /// A client may have taken that request back: then another one tells.
    fn is_tried(&self, now: Instant) -> bool {
        let tried = self.tried.load(Ordering::Relaxed);
        tried > 0 && now < self.started + Duration::from_millis(tried) + FIRST
    }

    /// After `started`; never 0, which stands for never.
    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Until when it gets no requests while there are other servers, if that is not over `now`.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.ends().filter(|until| *until > now)
    }

    /// Of [`ROUND`] requests, those that it gets `now`, as far as this says; not asked while it gets none.
    pub(super) fn share(&self, now: Instant) -> usize {
        self.ends().map_or(ROUND, |until| share_after(now.saturating_duration_since(until)))
    }

    /// When it was ejected last.
    pub(super) fn ejected_at(&self) -> Option<Instant> {
        match self.ejected.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.started + Duration::from_nanos(nanos)),
        }
    }

    /// How often it was ejected.
    pub(super) fn count(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    fn ends(&self) -> Option<Instant> {
        match self.until.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(self.started + Duration::from_millis(millis)),
        }
    }

    /// A request that was sent at `asked_at` was answered. Whether that ends what was known against the server.
    pub(super) fn answered(&self, asked_at: Instant) -> bool {
        // Nearly always, and then nothing is written that other cores read.
        self.troubled.load(Ordering::Relaxed) && self.recovers(asked_at)
    }

    fn recovers(&self, asked_at: Instant) -> bool {
        let mut past = self.past();
        if past.knew(asked_at) {
            return false;
        }
        past.failures = 0;
        self.troubled.store(false, Ordering::Relaxed);
        self.unproved.store(false, Ordering::Relaxed);
        let now = Instant::now();
        if past.until.is_some_and(|until| until > now) {
            // It was asked because all were ejected.
            past.until = Some(now);
            self.tell(&past);
        }
        past.judged_at.is_some_and(|_| !std::mem::replace(&mut past.proved, true))
    }

    /// A request that was sent, or should have been, at `asked_at` got no sound answer; `outright`: it never reached the
    /// server. For how long the server gets no requests, if that begins, or begins anew, with this.
    pub(super) fn failed(&self, asked_at: Instant, outright: bool) -> Option<Duration> {
        self.note_failure(asked_at, outright, true)
    }

    /// The same while no other server answers either. That may be for something that they have in common, and when it is over
    /// all should be back soon: the time is the first one.
    pub(super) fn failed_like_all(&self, asked_at: Instant, outright: bool) -> Option<Duration> {
        self.note_failure(asked_at, outright, false)
    }

    fn note_failure(&self, asked_at: Instant, outright: bool, grows: bool) -> Option<Duration> {
        let mut past = self.past();
        if past.knew(asked_at) {
            return None;
        }
        past.failures = past.failures.saturating_add(1);
        self.troubled.store(true, Ordering::Relaxed);
        if !outright && past.failures < FAILURES {
            return None;
        }
        let now = Instant::now();
        past.times = match past.until {
            // Asked although it is ejected, as all are: no news of how long it takes.
            Some(until) if grows && now < until => past.times,
            Some(until) if grows && now < until + past.length.max(SLOW_RETURN) => past.times.saturating_add(1),
            Some(_) | None => 1,
        };
        let count = self.ejections.fetch_add(1, Ordering::Relaxed);
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(past.times.saturating_sub(1)).unwrap_or(u32::MAX));
        past.length = doubled.min(LONGEST);
        let length = past.length + lot(self.seed.wrapping_add(count), past.length / 4);
        past.judged_at = Some(now);
        past.until = Some(now + length);
        // One more is enough when it is back, until it has answered once.
        past.failures = FAILURES - 1;
        past.proved = false;
        let ejected = now.saturating_duration_since(self.started).as_nanos();
        self.ejected.store(u64::try_from(ejected).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        self.tried.store(0, Ordering::Relaxed);
        self.unproved.store(true, Ordering::Relaxed);
        self.tell(&past);
        Some(length)
    }

    /// What was known of it is of its former life: it was away, and is back.
    pub(super) fn forget(&self) {
        let mut past = self.past();
        *past = Past { proved: true, judged_at: Some(Instant::now()), ..Past::default() };
        self.troubled.store(false, Ordering::Relaxed);
        self.unproved.store(false, Ordering::Relaxed);
        self.tell(&past);
    }

    /// For who does not take the lock.
    fn tell(&self, past: &Past) {
        self.until.store(past.until.map_or(0, |until| self.millis(until)), Ordering::Relaxed);
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    /// Whether what became of a request that was sent then was known, or to be expected, when the server was ejected.
    fn knew(&self, asked_at: Instant) -> bool {
        self.judged_at.is_some_and(|judged_at| asked_at < judged_at)
    }
}

/// A length below `most` (`SplitMix64`: Steele, Lea and Flood, 2014).
fn lot(seed: u64, most: Duration) -> Duration {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(z.checked_rem(most).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn is_ejected(server: &Ejection) -> bool {
        server.until(Instant::now()).is_some()
    }

    /// Fails once it is back, and says for how long it was ejected then.
    async fn fails_again(server: &Ejection) -> Duration {
        if let Some(until) = server.until(Instant::now()) {
            advance(until - Instant::now()).await;
        }
        assert!(!is_ejected(server));
        server.failed(Instant::now(), false).expect("one failure is enough")
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_eject_and_an_answer_in_between_does_not() {
        let server = Ejection::new(1);
        for _ in 0..10 {
            assert_eq!(server.failed(Instant::now(), false), None);
            assert_eq!(server.failed(Instant::now(), false), None);
            assert!(!server.answered(Instant::now()), "it was not away");
        }
        assert_eq!(server.failed(Instant::now(), false), None);
        assert_eq!(server.failed(Instant::now(), false), None);
        assert!(server.failed(Instant::now(), false).is_some() && is_ejected(&server));
        let other = Ejection::new(1);
        assert!(other.failed(Instant::now(), true).is_some(), "one that cannot be reached at once");
        assert_eq!([server.count(), other.count()], [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_doubles_up_to_a_bound_while_it_goes_on_and_begins_anew_when_it_went_well() {
        let server = Ejection::new(7);
        server.failed(Instant::now(), true);
        let within = |length: Duration, of: u64| {
            let of = Duration::from_secs(of);
            assert!((of..of + of / 4).contains(&length), "{length:?} for {of:?}");
        };
        within(server.until(Instant::now()).unwrap() - Instant::now(), 5);
        for of in [10, 20, 40, 80, 160, 300, 300] {
            within(fails_again(&server).await, of);
        }
        let until = server.until(Instant::now()).unwrap();
        advance(until - Instant::now() + MOMENT).await;
        assert!(server.answered(Instant::now()), "it is back");
        assert!(!server.answered(Instant::now()), "which is told once");
        advance(LONGEST).await;
        assert_eq!(server.failed(Instant::now(), false), None, "it has a name again");
        within(server.failed(Instant::now(), true).unwrap(), 5);
        assert_ne!(lot(1, LONGEST), lot(2, LONGEST));
        assert_eq!(lot(1, Duration::ZERO), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_does_not_grow_while_no_other_server_answers() {
        let server = Ejection::new(7);
        for _ in 0..10 {
            let length = server.failed_like_all(Instant::now(), true).unwrap();
            assert!(length < FIRST * 5 / 4, "{length:?}");
            advance(length).await;
        }
        assert!(fails_again(&server).await >= FIRST * 2, "now it is this one alone");
        assert!(fails_again(&server).await >= FIRST * 4);
        assert!(server.failed_like_all(Instant::now(), true).unwrap() < FIRST * 5 / 4, "and now all again");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_were_under_way_neither_lengthen_nor_shorten_it() {
        let server = Ejection::new(1);
        let before = Instant::now();
        advance(MOMENT).await;
        server.failed(Instant::now(), true);
        let until = server.until(Instant::now());
        for _ in 0..100 {
            assert_eq!(server.failed(before, false), None);
            assert_eq!(server.failed(before, true), None);
            assert!(!server.answered(before));
        }
        assert_eq!(server.until(Instant::now()), until);
        assert_eq!(server.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_because_all_are_ejected_stays_so_until_it_answers() {
        let server = Ejection::new(1);
        for _ in 0..20 {
            let length = server.failed(Instant::now(), true).unwrap();
            assert!(length < FIRST * 2, "not longer each time: {length:?}");
            advance(MOMENT).await;
        }
        assert!(server.answered(Instant::now()) && !is_ejected(&server));
        assert_eq!(server.share(Instant::now()), 1, "but slowly");
    }

    #[tokio::test(start_paused = true)]
    async fn who_failed_just_now_comes_last_whatever_its_lot() {
        let servers = [1, 2, 3].map(Ejection::new);
        assert!(servers.iter().all(|server| server.ejected_at().is_none()));
        for round in 0..50 {
            let first = &servers[round % 3];
            assert!(servers.iter().all(|server| first.ejected_at() <= server.ejected_at()), "round {round}");
            first.failed(Instant::now(), true);
            advance(MOMENT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_on_one_request_before_it_gets_others() {
        let server = Ejection::new(1);
        server.asked(Instant::now());
        assert!(!server.rests(Instant::now()), "never away");
        let length = server.failed(Instant::now(), true).unwrap();
        server.asked(Instant::now());
        advance(length.max(FIRST) + MOMENT).await;
        assert!(!server.rests(Instant::now()));
        server.asked(Instant::now());
        let asked_at = Instant::now();
        assert!(server.rests(Instant::now()));
        advance(FIRST).await;
        assert!(!server.rests(Instant::now()), "nobody knows what became of that");
        server.asked(Instant::now());
        assert!(server.rests(Instant::now()));
        assert!(server.answered(asked_at) && !server.rests(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn its_share_grows_from_its_return_on() {
        let server = Ejection::new(1);
        assert_eq!(server.share(Instant::now()), ROUND, "never away");
        let length = server.failed(Instant::now(), true).unwrap();
        let back = Instant::now() + length;
        for (seconds, expected) in [(0, 1), (3, 2), (15, 6), (29, 10), (30, 10), (1000, 10)] {
            assert_eq!(server.share(back + Duration::from_secs(seconds)), expected, "after {seconds} s");
        }
        let before = Instant::now();
        advance(MOMENT).await;
        server.forget();
        assert!(!is_ejected(&server));
        assert_eq!(server.share(Instant::now()), ROUND);
        assert_eq!(server.failed(before, true), None, "of its former life");
        assert!(!server.answered(Instant::now()), "nor is its return told again");
    }
}
