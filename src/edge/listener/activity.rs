//! What a connection is waiting for, and until when: one timer a connection.
//!
//! hyper's own read time-out cannot tell an idle connection from one whose head trickles in, registers a timer for
//! every request, and knows nothing of a client that does not read. Here the events are only noted; the one timer is
//! moved when it fires or when something shorter must be waited for, so a busy connection never touches it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
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
    // Moments; see `Activity::stamp`.
    quiet_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    moved_at: AtomicU64,
}

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

    /// An answer ended, or its request was given up.
    pub(super) fn request_ended(&self) {
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.quiet_since.store(self.stamp(), Relaxed);
        }
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

    /// When the connection ends unless something happens, and how.
    fn due(&self, timeouts: &ClientTimeouts) -> Option<(Instant, End)> {
        if let Some(since) = self.moment(&self.blocked_since) {
            return Some((since + timeouts.write_idle, End::AtOnce));
        }
        if self.requests.load(Relaxed) == 0 {
            return match self.moment(&self.head_since) {
                Some(since) => Some((since + timeouts.head, End::AtOnce)),
                None => self.moment(&self.quiet_since).map(|since| (since + timeouts.keep_alive, End::Politely)),
            };
        }
        if self.protocol == Protocol::Http2 && self.held_up.load(Relaxed) > 0 {
            return self.moment(&self.moved_at).map(|moved| (moved + timeouts.write_idle, End::AtOnce));
        }
        None
    }
}

/// How to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing is under way: say good-bye (GOAWAY, `close_notify`).
    Politely,
    /// The client is not keeping up its part: drop it.
    AtOnce,
}

/// Tells when a connection has waited too long.
pub(super) struct Watchdog {
    activity: Arc<Activity>,
    timeouts: ClientTimeouts,
    /// Until when a client that was said good-bye to may still be there.
    last_call: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Watchdog {
    pub(super) fn new(activity: Arc<Activity>, timeouts: ClientTimeouts) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + timeouts.head));
        Self { activity, timeouts, last_call: None, timer }
    }

    /// To be polled after the connection in the same task, so that what it just noted is seen.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let due = match (self.activity.due(&self.timeouts), self.last_call) {
            (Some((_, End::Politely)), Some(last)) => Some((last, End::AtOnce)),
            (due @ Some((_, End::Politely)), None) => due,
            // A request came before the good-bye did: it gets its answer, and the next quiet its own good-bye.
            (due, _) => {
                self.last_call = None;
                due
            }
        };
        if let Some((at, _)) = due
            && at < self.timer.deadline()
        {
            self.timer.as_mut().reset(at);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let again = match due {
                Some((at, end)) if at <= now => {
                    if end == End::Politely {
                        self.last_call = Some(now + self.timeouts.head);
                    }
                    return Poll::Ready(end);
                }
                Some((at, _)) => at,
                // Streams of HTTP/2 are other tasks, which do not wake this one: look again in time.
                None => now + self.timeouts.write_idle.min(self.timeouts.keep_alive),
            };
            self.timer.as_mut().reset(again);
        }
    }
}
