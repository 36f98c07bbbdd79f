//! What a connection is waiting for, and until when: one timer a connection.
//!
//! hyper's own read time-out cannot tell an idle connection from one whose head trickles in, registers a timer for
//! every request, and knows nothing of a client that does not read. Here the events are only noted; the one timer is
//! moved when it fires or when something shorter must be waited for, so a busy connection never touches it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::ClientTimeouts;

/// The version that a connection speaks, as far as waiting differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Notes of a connection's events. All tasks of a connection run on one thread, so the order needs no fences; the
/// atomics are there because tokio cannot know that.
pub(super) struct Activity {
    protocol: Protocol,
    started: Instant,
    /// Requests between their head and the end of their answer.
    requests: AtomicU32,
    /// Answers that gave out bytes and were not asked for more since.
    held_up: AtomicU32,
    /// Whether what serves is being let go: nothing more is read for it, and when it ends its stream does not.
    being_parked: AtomicBool,
    /// Whether it is never parked.
    stays: AtomicBool,
    /// Whether the last request had a body, of which some may come yet though its answer has gone.
    had_body: AtomicBool,
    // Moments; see `Activity::stamp`.
    quiet_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    moved_at: AtomicU64,
}

/// How long an HTTP/1 connection is quiet before it is parked ([`super::http1`]): longer than a busy client takes from one
/// request to the next, so that it never pays for another hyper.
pub(super) const PARK_AFTER: Duration = Duration::from_millis(100);

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
            requests: AtomicU32::new(0),
            held_up: AtomicU32::new(0),
            being_parked: AtomicBool::new(false),
            stays: AtomicBool::new(protocol == Protocol::Http2),
            had_body: AtomicBool::new(false),
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
        if self.protocol == Protocol::Http1 && self.requests.load(Relaxed) == 0 && self.head_since.load(Relaxed) == NONE
        {
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
        self.requests.fetch_add(1, Relaxed);
    }

    /// A request asks for an upgrade. Should it get none, hyper gives the stream away all the same when it ends.
    pub(super) fn upgrade_asked(&self) {
        self.stays.store(true, Relaxed);
    }

    /// Whether the request that began has a body. That of the one before has ended.
    pub(super) fn has_body(&self, it_has: bool) {
        self.had_body.store(it_has, Relaxed);
    }

    /// An answer ended, or its request was given up.
    pub(super) fn request_ended(&self) {
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.quiet_since.store(self.stamp(), Relaxed);
        }
    }

    /// Whether an HTTP/1 request is being answered, or its answer is still to go. Never of a stream that was handed over.
    pub(super) fn is_answering(&self) -> bool {
        let is_to_go = || self.blocked_since.load(Relaxed) != NONE && !self.stays.load(Relaxed);
        self.protocol == Protocol::Http1 && (self.requests.load(Relaxed) > 0 || is_to_go())
    }

    /// An answer gave out bytes; until it is asked for more, the client's flow control holds it up.
    pub(super) fn answer_held_up(&self) {
        self.held_up.fetch_add(1, Relaxed);
        self.moved_at.store(self.stamp(), Relaxed);
    }

    /// That answer was asked for more, or dropped.
    pub(super) fn answer_moves(&self) {
        self.held_up.fetch_sub(1, Relaxed);
        self.moved_at.store(self.stamp(), Relaxed);
    }

    pub(super) fn is_being_parked(&self) -> bool {
        self.being_parked.load(Relaxed)
    }

    /// Milliseconds since the connection began, plus one: never [`NONE`].
    fn stamp(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn moment(&self, stamp: &AtomicU64) -> Option<Instant> {
        match stamp.load(Relaxed) {
            NONE => None,
            JUST_NOW => {
                stamp.store(self.stamp(), Relaxed);
                Some(Instant::now())
            }
            stamp => Some(self.started + Duration::from_millis(stamp)),
        }
    }

    /// Whether hyper is between two requests where nothing is under way, on the reading side too.
    ///
    /// Behind a request with a body nobody can tell: hyper reads on for whoever wants it, and what it did not read of it would
    /// be the next request of a new hyper.
    fn may_be_parked(&self) -> bool {
        !self.stays.load(Relaxed) && !self.had_body.load(Relaxed)
    }

    /// What is due unless something happens, and when.
    fn due(&self, timeouts: &ClientTimeouts) -> Option<(Instant, Due)> {
        if let Some(since) = self.moment(&self.blocked_since) {
            return Some((since + timeouts.write_idle, Due::Cut));
        }
        if self.requests.load(Relaxed) == 0 {
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
        if self.protocol == Protocol::Http2 && self.held_up.load(Relaxed) > 0 {
            return self.moment(&self.moved_at).map(|moved| (moved + timeouts.write_idle, Due::Cut));
        }
        None
    }
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
pub(super) struct Watchdog<'a> {
    activity: Arc<Activity>,
    timeouts: &'a ClientTimeouts,
    /// Until when a client that was said good-bye to may still be there.
    last_call: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<'a> Watchdog<'a> {
    pub(super) fn new(activity: Arc<Activity>, timeouts: &'a ClientTimeouts) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + timeouts.head));
        Self { activity, timeouts, last_call: None, timer }
    }

    /// Says whether what serves the stream is asked to let go of it.
    pub(super) fn parks(&self, parks: bool) {
        self.activity.being_parked.store(parks, Relaxed);
    }

    /// The connection is about to end, as one that was said good-bye to.
    pub(super) fn ends(&mut self) {
        self.last_call = Some(Instant::now() + self.timeouts.head);
    }

    /// Bytes of the next head came with the last request.
    pub(super) fn head_began(&self) {
        self.activity.bytes_came();
    }

    /// To be polled after the connection in the same task, so that what it just noted is seen.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let due = match (self.activity.due(self.timeouts), self.last_call) {
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

    fn poll_until(&mut self, due: Option<(Instant, Due)>, cx: &mut Context<'_>) -> Poll<Due> {
        if let Some((at, _)) = due
            && at < self.timer.deadline()
        {
            self.timer.as_mut().reset(at);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let again = match due {
                Some((at, due)) if at <= now => {
                    if due == Due::End {
                        self.last_call = Some(now + self.timeouts.head);
                    }
                    return Poll::Ready(due);
                }
                Some((at, _)) => at,
                // Streams of HTTP/2 are other tasks, which do not wake this one: look again in time.
                None => now + self.timeouts.write_idle.min(self.timeouts.keep_alive),
            };
            self.timer.as_mut().reset(again);
        }
    }
}
