//! One server as one worker sees it: its idle connections, and what is asked of it.
//!
//! A pool belongs to one worker, so its lock is hardly ever contended: others take it only to close an idle connection where
//! the server may have no more. It outlives the configuration that it was made of as long as the next one names the same
//! server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::flow::{Alarm, RequestBody};
use super::standing::{Slot, Standing};
use crate::config::UpstreamServer;

/// Idle connections of one server and worker that are kept at most.
const MAX_IDLE: usize = 256;

pub(super) type Sender = SendRequest<RequestBody>;

/// One server.
pub(super) struct Server {
    pub(super) address: UpstreamServer,
    pub(super) standing: Arc<Standing>,
    /// For how long an idle connection is kept, in milliseconds.
    keep: AtomicU64,
    outstanding: AtomicUsize,
    /// At which turn of its upstream it was chosen last.
    chosen: AtomicUsize,
    /// Oldest first.
    idle: Mutex<VecDeque<Link>>,
}

/// Where a request goes.
pub(super) enum Place {
    /// Over a connection that was idle.
    Idle(Lease),
    /// Over one that it may open.
    Vacant(Vacancy),
}

/// Leave to open a connection for one request.
pub(super) struct Vacancy {
    pub(super) slot: Slot,
    pub(super) outstanding: Outstanding,
}

/// A connection, for one exchange after another.
pub(super) struct Link {
    pub(super) sender: Sender,
    /// When its last request was sent. Its idle time counts from there: the server's own reckoning starts no earlier.
    pub(super) asked_at: Instant,
    /// For the first byte of an answer.
    pub(super) alarm: Alarm,
    driver: Option<AbortHandle>,
}

impl Link {
    /// `driver`: the task that drives the connection.
    pub(super) fn new(sender: Sender, driver: AbortHandle) -> Self {
        Self { sender, asked_at: Instant::now(), alarm: Alarm::default(), driver: Some(driver) }
    }

    /// The connection speaks another protocol from here on and is somebody else's.
    pub(super) fn hand_over(mut self) {
        self.driver = None;
    }
}

/// What is idle is closed in good order. Within an exchange it is cut off: to close it would first send the rest of the
/// request, which a server that reads no more puts off for ever.
impl Drop for Link {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver
            && !self.sender.is_ready()
        {
            driver.abort();
        }
    }
}

impl Server {
    pub(super) fn new(address: UpstreamServer, standing: Arc<Standing>, keep: Duration) -> Arc<Self> {
        let (outstanding, chosen, idle) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::default());
        let server = Arc::new(Self { address, standing, keep: AtomicU64::new(0), outstanding, chosen, idle });
        server.keep_for(keep);
        server.standing.add(&server);
        server
    }

    pub(super) fn keep_for(&self, keep: Duration) {
        self.keep.store(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn keep(&self) -> Duration {
        Duration::from_millis(self.keep.load(Ordering::Relaxed))
    }

    /// What is asked of it now, and when it was chosen last: of two with the same to do, the other one is next.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.outstanding.load(Ordering::Relaxed), self.chosen.load(Ordering::Relaxed))
    }

    pub(super) fn chosen_at(&self, turn: usize) {
        self.chosen.store(turn, Ordering::Relaxed);
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding(Arc::clone(self))
    }

    /// An idle connection for a request that is sent `now`, or leave to open one, where fewer than `most` are open.
    pub(super) fn place(self: &Arc<Self>, now: Instant, most: impl FnOnce() -> usize) -> Option<Place> {
        self.idle_place(now).or_else(|| {
            let slot = self.standing.occupy(most())?;
            Some(Place::Vacant(Vacancy { slot, outstanding: self.begin() }))
        })
    }

    /// An idle connection for a request that is sent `now`.
    pub(super) fn idle_place(self: &Arc<Self>, now: Instant) -> Option<Place> {
        let link = self.take_idle(now)?;
        Some(Place::Idle(Lease { link, outstanding: self.begin() }))
    }

    /// The connection that became idle last and can take a request, which will be sent `now`.
    fn take_idle(&self, now: Instant) -> Option<Link> {
        let mut idle = self.idle();
        while let Some(mut newest) = idle.pop_back() {
            if now.duration_since(newest.asked_at) >= self.keep() {
                drop(newest);
            } else if newest.sender.is_ready() {
                newest.asked_at = now;
                return Some(newest);
            }
            // Else it is closed, or the end of its request is still being sent: nothing to wait for.
        }
        None
    }

    /// The connection that became idle first.
    pub(super) fn take_oldest(&self) -> Option<Link> {
        self.idle().pop_front()
    }

    fn give_back(self: &Arc<Self>, mut link: Link) {
        let queued = &self.standing.line;
        while !link.sender.is_closed() {
            let mut idle = self.idle();
            // Under the lock: whoever begins to wait after this look finds it among the idle ones.
            if queued.waiting() == 0 {
                let now = link.asked_at;
                while idle.len() >= MAX_IDLE
                    || idle.front().is_some_and(|oldest| now.duration_since(oldest.asked_at) >= self.keep())
                {
                    idle.pop_front();
                }
                idle.push_back(link);
                return;
            }
            drop(idle);
            // What still sends its last request can take no other, and is closed: its place goes to the first in the line.
            if !link.sender.is_ready() {
                return;
            }
            match queued.offer(self, link) {
                Some(back) => link = back,
                None => return,
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in progress at a server.
pub(super) struct Outstanding(Arc<Server>);

impl Outstanding {
    pub(super) const fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in use by one exchange; dropping it closes the connection.
pub(super) struct Lease {
    pub(super) link: Link,
    pub(super) outstanding: Outstanding,
}

impl Lease {
    /// The exchange is over: the next request may have the connection.
    pub(super) fn give_back(self) {
        self.outstanding.0.give_back(self.link);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::advance;

    use super::*;
    use crate::upstream::servers::Servers;
    use crate::upstream::tests::pools::{KEEP, config, open, settle, stuck, workers};

    /// So many connections that are idle; they live as long as the other ends that are given back.
    async fn idle(servers: &Arc<Servers>, count: usize) -> (Arc<Server>, Vec<DuplexStream>) {
        let mut used = Vec::new();
        for _ in 0..count {
            used.push(open(servers).await.unwrap());
        }
        let server = Arc::clone(used[0].0.outstanding.server());
        let give_back = |(lease, other_end): (Lease, DuplexStream)| {
            lease.give_back();
            other_end
        };
        (server, used.into_iter().map(give_back).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_kept_for_a_while() {
        let [servers] = workers(&config(0..1));
        let first = open(&servers).await.unwrap();
        advance(KEEP / 2).await;
        let (server, _second) = idle(&servers, 1).await;
        first.0.give_back();
        advance(KEEP / 2).await;
        server.idle().make_contiguous().sort_by_key(|link| link.asked_at);
        assert!(server.take_idle(Instant::now()).is_some(), "the second");
        assert!(server.take_idle(Instant::now()).is_none(), "the first is too old");
    }

    #[tokio::test]
    async fn closed_connections_are_not_taken() {
        let [servers] = workers(&config(0..1));
        let (server, mut ends) = idle(&servers, 2).await;
        ends.pop();
        settle().await;
        assert!(server.take_idle(Instant::now()).is_some());
        assert!(server.take_idle(Instant::now()).is_none());
        settle().await;
        assert_eq!(server.standing.open(), 0, "whose place is free with the socket");
    }

    #[tokio::test]
    async fn a_server_that_does_not_read_its_request_keeps_no_place() {
        let [servers] = workers(&config(0..1));
        let (mut lease, _unread) = open(&servers).await.unwrap();
        let server = Arc::clone(lease.outstanding.server());
        stuck(&mut lease).await.abort();
        drop(lease);
        settle().await;
        assert_eq!(server.standing.open(), 0);
    }

    #[tokio::test]
    async fn idle_connections_are_bounded() {
        let [servers] = workers(&config(0..1));
        let (server, _open) = idle(&servers, MAX_IDLE + 3).await;
        assert_eq!(server.idle().len(), MAX_IDLE);
        settle().await;
        assert_eq!(server.standing.open(), MAX_IDLE);
    }
}
