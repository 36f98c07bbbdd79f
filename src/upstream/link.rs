//! One connection to a server, and who drives it: the request that it is used for, as far as that can.
//!
//! What a request's own task reads of an answer it writes to its client at once, while it is in the processor's nearest memory:
//! with a task of its own for each connection, the answers of all that are ready would be read first and written then
//! (docs/performance.md). An idle connection is driven by nobody, and looked at now and then ([`super::pool`]).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::task::AtomicWaker;
use hyper::client::conn::http1::SendRequest;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use super::connect::Opened;
use super::flow::{Alarm, RequestBody};
use super::interim::Heard;

pub(super) type Sender = SendRequest<RequestBody>;

/// Everything that a connection does, until it has ended; what ends it is told to the exchange that it ends.
pub(super) type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection, for one exchange after another.
pub(super) struct Link {
    pub(super) sender: Sender,
    /// When its last request was sent. Its idle time counts from there: the server's own reckoning starts no earlier.
    pub(super) asked_at: Instant,
    /// For the first byte of an answer.
    pub(super) alarm: Alarm,
    /// What its server says before its answers.
    pub(super) heard: Arc<Heard>,
    driver: Driver,
}

/// Who drives a connection.
enum Driver {
    /// Whoever uses it, in the runtime that it was opened in.
    User(Connection, Bell, Option<Handle>),
    /// A task.
    Task(AbortHandle),
    /// Nobody: it has ended, or is somebody else's.
    Nobody,
}

impl Link {
    pub(super) fn new(opened: Opened<RequestBody>) -> Self {
        let Opened { sender, connection, heard } = opened;
        Self {
            sender,
            asked_at: Instant::now(),
            alarm: Alarm::default(),
            heard,
            driver: Driver::User(connection, Bell::new(), Handle::try_current().ok()),
        }
    }

    /// Polls what comes of this connection, which is its outcome or something heard before that, and the connection where that has to
    /// move for it.
    ///
    /// What comes of it is polled with a waker that wakes nobody: it comes by the connection alone, whose bell wakes this
    /// task, and to be woken by both would be once too often.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut outcome: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Driver::User(connection, bell, _) = &mut self.driver else {
            self.heard.wakes(cx.waker());
            return outcome(cx);
        };
        if let Poll::Ready(outcome) = bell.muffled(&mut outcome) {
            return Poll::Ready(outcome);
        }
        loop {
            bell.state.user.register(cx.waker());
            if connection.as_mut().poll(&mut Context::from_waker(&bell.waker)).is_ready() {
                self.driver = Driver::Nobody;
                return outcome(cx);
            }
            bell.state.rang.store(false, Relaxed);
            let polled = bell.muffled(&mut outcome);
            if polled.is_pending() && !has_budget_remaining() {
                // It may be there, and was not shown to a task that has had its turn.
                cx.waker().wake_by_ref();
                return polled;
            }
            // Where it rang the connection was asked for something just now, and has yet to hear of it.
            if polled.is_ready() || !bell.state.rang.load(Relaxed) {
                return polled;
            }
        }
    }

    /// Whether it can take a request, as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Looks whether the server has closed it. Nobody is woken for it.
    pub(super) fn is_open(&mut self) -> bool {
        let _ = self.poll(&mut Context::from_waker(Waker::noop()), |_| Poll::<()>::Pending);
        !self.sender.is_closed()
    }

    /// It is nobody's for now: nobody is woken for it.
    pub(super) fn rest(&self) {
        if let Driver::User(_, bell, _) = &self.driver {
            bell.state.user.take();
        }
    }

    /// Has a task drive it, since not all that moves on it is its user's to wait for.
    pub(super) fn drive_apart(&mut self) {
        if let Driver::User(connection, ..) = std::mem::replace(&mut self.driver, Driver::Nobody) {
            self.driver = Driver::Task(tokio::spawn(connection).abort_handle());
        }
    }

    /// The connection speaks another protocol from here on and is somebody else's.
    pub(super) fn hand_over(mut self) {
        self.drive_apart();
        self.driver = Driver::Nobody;
    }
}

/// Wakes the user of a connection for it, but not for what that user does itself, which polls the connection next anyhow.
struct Bell {
    state: Arc<BellState>,
    /// Rings it.
    waker: Waker,
}

/// All that polls a connection is one worker's, on one thread, so the order needs no fences.
struct BellState {
    user: AtomicWaker,
    muffled: AtomicBool,
    /// Whether it rang while it was muffled.
    rang: AtomicBool,
}

impl Bell {
    fn new() -> Self {
        let (muffled, rang) = (AtomicBool::new(false), AtomicBool::new(false));
        let state = Arc::new(BellState { user: AtomicWaker::new(), muffled, rang });
        Self { waker: Waker::from(Arc::clone(&state)), state }
    }

    /// Polls something that may ring it.
    fn muffled<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.state.muffled.store(true, Relaxed);
        let polled = poll(&mut Context::from_waker(Waker::noop()));
        self.state.muffled.store(false, Relaxed);
        polled
    }
}

impl Wake for BellState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.muffled.load(Relaxed) {
            self.rang.store(true, Relaxed);
        } else {
            self.user.wake();
        }
    }
}

/// What is idle is closed in good order. Within an exchange it is cut off: to close it would first send the rest of the
/// request, which a server that reads no more puts off for ever.
impl Drop for Link {
    fn drop(&mut self) {
        let is_idle = self.sender.is_ready();
        match std::mem::replace(&mut self.driver, Driver::Nobody) {
            // Another worker may drop it, to have its place.
            Driver::User(connection, _, runtime) => {
                if let Some(runtime) = runtime {
                    runtime.spawn(Ending { connection: Some(connection), in_order: is_idle });
                }
            }
            Driver::Task(task) if !is_idle => task.abort(),
            Driver::Task(_) | Driver::Nobody => {}
        }
    }
}

/// Ends a connection, but never where it is dropped: with it its place goes to whoever waits for one, and who drops it may
/// hold what they look at. A runtime that stops, and polls nothing any more, leaves it to the end of the process.
struct Ending {
    connection: Option<Connection>,
    in_order: bool,
}

impl Future for Ending {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.in_order
            && let Some(connection) = &mut self.connection
        {
            ready!(connection.as_mut().poll(cx));
        }
        self.connection = None;
        Poll::Ready(())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        std::mem::forget(self.connection.take());
    }
}
