//! What a connection is waiting for, and until when: one timer a connection.
//!
//! hyper's own read time-out cannot tell an idle connection from one whose head trickles in, registers a timer for
//! every request, and knows nothing of a client that does not read. Here the events are only noted; the one timer is
//! moved when it fires or when something shorter must be waited for, so a busy connection never touches it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::Follows;
use super::interim::Unsaid;
use crate::config::ClientTimeouts;

/// The version that a connection speaks, as far as waiting differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Notes of a connection's events. All tasks of a connection run on one thread, so the order needs no fences, and counting no
/// locked instruction ([`Count`]); the atomics are there because tokio cannot know that.
pub(super) struct Activity {
    protocol: Protocol,
    started: Instant,
    /// Requests between their head and the end of their answer.
    requests: Count,
    /// Answers that gave out bytes and were not asked for more since.
    held_up: Count,
    /// Whether what serves is being let go: nothing more is read for it, and when it ends its stream does not.
    being_parked: AtomicBool,
    /// Whether it is never parked.
    stays: AtomicBool,
    /// Whether the last request had a body, of which some may come yet though its answer has gone.
    had_body: AtomicBool,
    /// What follows the last head, until somebody asks: octets, or what stands for [`Follows`].
    follows: AtomicU64,
    /// What its client is told before the next answer; over HTTP/1 alone.
    pub(super) unsaid: Unsaid,
    // Moments; see `Activity::stamp`.
    quiet_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    moved_at: AtomicU64,
}

/// A count that one thread changes, whichever of a connection's tasks: whoever serves it, a worker or the gateway's test of
/// itself, has a runtime of one thread, on which its streams are spawned and its answers dropped. So a load and a store do.
#[derive(Default)]
struct Count(AtomicU32);

impl Count {
    fn one_more(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn one_less(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    fn is_none(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// For how many milliseconds an HTTP/1 connection is quiet before it is parked ([`super::http1`]): longer than a busy client takes from one
/// request to the next, so that it never pays for another hyper.
const PARK_AFTER: u64 = 100;

/// What follows a head, where it is not octets; no body may be so long.
const NOTHING: u64 = u64::MAX;
const CHUNKS: u64 = u64::MAX - 1;
const ANYTHING: u64 = u64::MAX - 2;

/// No moment.
const NONE: u64 = 0;
/// The moment at which somebody asks: most heads are complete before anybody does, and then no clock was read for them.
const JUST_NOW: u64 = u64::MAX;

impl Activity {
    /// A connection of which nothing has come yet; its first head is awaited from now on.
    pub(super) fn new(protocol: Protocol) -> Arc<Self> {
        let activity = Self {
            protocol,
            started: Instant::now(),
            requests: Count::default(),
            held_up: Count::default(),
            being_parked: AtomicBool::new(false),
            stays: AtomicBool::new(protocol == Protocol::Http2),
            had_body: AtomicBool::new(false),
            follows: AtomicU64::new(NOTHING),
            unsaid: Unsaid::default(),
            quiet_since: AtomicU64::new(NONE),
            head_since: AtomicU64::new(NONE),
            blocked_since: AtomicU64::new(NONE),
            moved_at: AtomicU64::new(NONE),
        };
        activity.head_since.store(activity.stamp(), Relaxed);
        Arc::new(activity)
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Bytes came. Between two HTTP/1 requests they begin a head; HTTP/2 has frames of other kinds there.
    pub(super) fn bytes_came(&self) {
        if self.protocol == Protocol::Http1 && self.requests.is_none() && self.head_since.load(Relaxed) == NONE {
            self.head_since.store(JUST_NOW, Relaxed);
        }
    }

    /// The client took bytes.
    pub(super) fn bytes_went(&self) {
        if self.blocked_since.load(Relaxed) != NONE {
            self.blocked_since.store(NONE, Relaxed);
            // The end of an answer may have stood in buffers for long: quiet begins when it has gone.
            self.quiet_since.store(self.stamp(), Relaxed);
        }
    }

    /// The client takes no bytes.
    pub(super) fn writing_blocked(&self) {
        if self.blocked_since.load(Relaxed) == NONE {
            self.blocked_since.store(self.stamp(), Relaxed);
        }
    }

    /// A head is complete.
    pub(super) fn request_began(&self) {
        self.head_since.store(NONE, Relaxed);
        self.requests.one_more();
    }

    /// A request asks for an upgrade. Should it get none, hyper gives the stream away all the same when it ends.
    pub(super) fn upgrade_asked(&self) {
        self.stays.store(true, Relaxed);
    }

    /// The request that began has a body of that length, or one in chunks. That of the one before has ended.
    pub(super) fn has_body(&self, length: Option<u64>) {
        self.had_body.store(length != Some(0), Relaxed);
        self.follows.store(length.map_or(CHUNKS, |length| length.min(ANYTHING - 1)), Relaxed);
    }

    /// Whether the last request had a body.
    pub(super) fn had_body(&self) -> bool {
        self.had_body.load(Relaxed)
    }

    /// Its upgrade is granted.
    pub(super) fn upgraded(&self) {
        self.follows.store(ANYTHING, Relaxed);
    }

    /// Whether the stream is no longer HTTP, which may be said while a body is still on its way.
    pub(super) fn is_upgraded(&self) -> bool {
        self.follows.load(Relaxed) == ANYTHING
    }

    /// What hyper has said since it was asked last.
    pub(super) fn follows(&self) -> Follows {
        let follows = self.follows.load(Relaxed);
        self.follows.store(NOTHING, Relaxed);
        match follows {
            NOTHING => Follows::Nothing,
            CHUNKS => Follows::Chunks,
            octets => Follows::Octets(octets),
        }
    }

    /// An answer ended, or its request was given up.
    pub(super) fn request_ended(&self) {
        self.requests.one_less();
        if self.requests.is_none() {
            self.quiet_since.store(self.stamp(), Relaxed);
        }
    }

    /// Whether an HTTP/1 request is being answered, or its answer is still to go. Never of a stream that was handed over.
    pub(super) fn is_answering(&self) -> bool {
        let is_to_go = || self.blocked_since.load(Relaxed) != NONE && !self.stays.load(Relaxed);
        self.protocol == Protocol::Http1 && (!self.requests.is_none() || is_to_go())
    }

    /// An answer gave out bytes; until it is asked for more, the client's flow control holds it up.
    pub(super) fn answer_held_up(&self) {
        self.held_up.one_more();
        self.moved_at.store(self.stamp(), Relaxed);
    }

    /// That answer was asked for more, or dropped.
    pub(super) fn answer_moves(&self) {
        self.held_up.one_less();
        self.moved_at.store(self.stamp(), Relaxed);
    }

    pub(super) fn is_being_parked(&self) -> bool {
        self.being_parked.load(Relaxed)
    }

    /// This moment: milliseconds since the connection began, plus one, so that it is never [`NONE`].
    fn stamp(&self) -> u64 {
        millis(self.started.elapsed()).saturating_add(1)
    }

    fn instant(&self, moment: u64) -> Instant {
        self.started + Duration::from_millis(moment)
    }

    fn moment(&self, stamp: &AtomicU64) -> Option<u64> {
        match stamp.load(Relaxed) {
            NONE => None,
            JUST_NOW => {
                let now = self.stamp();
                stamp.store(now, Relaxed);
                Some(now)
            }
            moment => Some(moment),
        }
    }

    /// Whether hyper is between two requests where nothing is under way, on the reading side too.
    ///
    /// Behind a request with a body nobody can tell: hyper reads on for whoever wants it, and what it did not read of it would
    /// be the next request of a new hyper.
    fn may_be_parked(&self) -> bool {
        !self.stays.load(Relaxed) && !self.had_body()
    }

    /// What is due unless something happens, and at which moment.
    fn due(&self, timeouts: &Timeouts) -> Option<(u64, Due)> {
        if let Some(since) = self.moment(&self.blocked_since) {
            return Some((since + timeouts.write_idle, Due::Cut));
        }
        if self.requests.is_none() {
            return match self.moment(&self.head_since) {
                Some(since) => Some((since + timeouts.head, Due::Cut)),
                None => self.moment(&self.quiet_since).map(|since| {
                    if self.may_be_parked() && timeouts.keep_alive > PARK_AFTER {
                        (since + PARK_AFTER, Due::Park)
                    } else {
                        (since + timeouts.keep_alive, Due::End)
                    }
                }),
            };
        }
        if self.protocol == Protocol::Http2 && !self.held_up.is_none() {
            return self.moment(&self.moved_at).map(|moved| (moved + timeouts.write_idle, Due::Cut));
        }
        None
    }
}

/// Time-outs as moments count.
struct Timeouts {
    head: u64,
    write_idle: u64,
    keep_alive: u64,
}

impl Timeouts {
    fn of(timeouts: &ClientTimeouts) -> Self {
        let ClientTimeouts { head, write_idle, keep_alive, .. } = *timeouts;
        Self { head: millis(head), write_idle: millis(write_idle), keep_alive: millis(keep_alive) }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is to be done with a connection that has waited for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing was under way for a moment: keep the stream alone. Of HTTP/1 only.
    Park,
    /// Nothing is under way: say good-bye (GOAWAY, `close_notify`).
    End,
    /// The client is not keeping up its part: drop it.
    Cut,
}

/// Tells when a connection has waited too long.
pub(super) struct Watchdog {
    activity: Arc<Activity>,
    timeouts: Timeouts,
    /// Until when a client that was said good-bye to may still be there.
    last_call: Option<u64>,
    timer: Timer,
}

/// A timer that is looked at in each poll of its connection, and asked when it is over or somebody else asks: a timer takes
/// note of who asks it in several locked instructions, and tells by two loads whether it is over.
struct Timer {
    /// The moment at which it is over.
    end: u64,
    sleep: Pin<Box<Sleep>>,
    /// Who asked last.
    asker: Option<Waker>,
    /// Whether it will wake that one.
    is_asked: bool,
}

impl Watchdog {
    pub(super) fn new(activity: Arc<Activity>, timeouts: &ClientTimeouts) -> Self {
        let timeouts = Timeouts::of(timeouts);
        let end = activity.stamp().saturating_add(timeouts.head);
        let timer = Timer::until(end, activity.instant(end));
        Self { activity, timeouts, last_call: None, timer }
    }

    /// Says whether what serves the stream is asked to let go of it.
    pub(super) fn parks(&self, parks: bool) {
        self.activity.being_parked.store(parks, Relaxed);
    }

    /// The connection is about to end, as one that was said good-bye to.
    pub(super) fn ends(&mut self) {
        self.last_call = Some(self.activity.stamp().saturating_add(self.timeouts.head));
    }

    /// To be polled after the connection in the same task, so that what it just noted is seen.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let due = match (self.activity.due(&self.timeouts), self.last_call) {
            (Some((_, Due::Park | Due::End)), Some(last)) => Some((last, Due::Cut)),
            (due @ Some((_, Due::Park | Due::End)), None) => due,
            // A request came before the good-bye did: it gets its answer, and the next quiet its own good-bye.
            (due, _) => {
                self.last_call = None;
                due
            }
        };
        self.poll_until(due, cx)
    }

    /// To be polled while the connection is parked: when it has been quiet for too long.
    pub(super) fn poll_end_of_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let quiet_since = self.activity.moment(&self.activity.quiet_since);
        let due = quiet_since.map(|since| (since + self.timeouts.keep_alive, Due::End));
        self.poll_until(due, cx).map(|_| ())
    }

    fn poll_until(&mut self, due: Option<(u64, Due)>, cx: &mut Context<'_>) -> Poll<Due> {
        if let Some((at, _)) = due
            && at < self.timer.end
        {
            self.timer.reset(at, self.activity.instant(at));
        }
        loop {
            ready!(self.timer.poll(cx));
            let now = self.activity.stamp();
            let again = match due {
                Some((at, due)) if at <= now => {
                    if due == Due::End {
                        self.last_call = Some(now.saturating_add(self.timeouts.head));
                    }
                    return Poll::Ready(due);
                }
                Some((at, _)) => at,
                // Streams of HTTP/2 are other tasks, which do not wake this one: look again in time.
                None => now.saturating_add(self.timeouts.write_idle.min(self.timeouts.keep_alive)),
            };
            self.timer.reset(again, self.activity.instant(again));
        }
    }
}

impl Timer {
    /// `end` is a moment of a connection, and `at` the same instant.
    fn until(end: u64, at: Instant) -> Self {
        Self { end, sleep: Box::pin(sleep_until(at)), asker: None, is_asked: false }
    }

    fn reset(&mut self, end: u64, at: Instant) {
        self.end = end;
        self.sleep.as_mut().reset(at);
        self.is_asked = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let asker = cx.waker();
        let is_known = self.asker.as_ref().is_some_and(|known| known.will_wake(asker));
        if self.is_asked && is_known && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        if !is_known {
            self.asker = Some(asker.clone());
        }
        // A task that has done enough in its turn is only told to come again: the timer was not asked then.
        let hears = has_budget_remaining();
        let over = self.sleep.as_mut().poll(cx);
        self.is_asked = hears && over.is_pending();
        over
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Wake;

    use tokio::task::coop::poll_proceed;
    use tokio::time::{advance, timeout};

    use super::*;

    const LATER: Duration = Duration::from_secs(1);

    /// A task of which only is known whether it was woken.
    #[derive(Default)]
    struct Task(AtomicBool);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    async fn is_over(timer: &mut Timer, task: &Arc<Task>) -> bool {
        poll_fn(|_| {
            let waker = Waker::from(Arc::clone(task));
            Poll::Ready(timer.poll(&mut Context::from_waker(&waker)))
        })
        .await
        .is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_wakes_who_asked_last_at_each_of_its_ends() {
        let mut timer = Timer::until(0, Instant::now() + LATER);
        let tasks: [Arc<Task>; 2] = Default::default();
        for task in &tasks {
            for _ in 0..2 {
                assert!(!is_over(&mut timer, task).await);
            }
        }
        for _ in 0..3 {
            advance(LATER).await;
            assert_eq!(tasks.each_ref().map(|task| task.0.swap(false, Relaxed)), [false, true]);
            assert!(is_over(&mut timer, &tasks[1]).await);
            timer.reset(0, Instant::now() + LATER);
            // Earlier than it was going to be over, and later.
            for end in [LATER / 2, LATER] {
                assert!(!is_over(&mut timer, &tasks[1]).await);
                timer.reset(0, Instant::now() + end);
            }
            assert!(!is_over(&mut timer, &tasks[1]).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_done_enough_is_woken_by_the_timer_all_the_same() {
        let mut timer = Timer::until(0, Instant::now() + LATER);
        let mut is_spent = false;
        let over = poll_fn(|cx| {
            while !is_spent && has_budget_remaining() {
                let _ = poll_proceed(cx).map(|spent| spent.made_progress());
            }
            is_spent = true;
            timer.poll(cx)
        });
        timeout(LATER * 2, over).await.unwrap();
    }
}
