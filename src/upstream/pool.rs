//! One server as one worker sees it: its idle connections, and what is asked of it.
//!
//! A pool belongs to one worker, so its lock is hardly ever contended: others take it only to close an idle connection where
//! the server may have no more. It outlives the configuration that it was made of as long as the next one names the same
//! server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::link::Link;
use super::standing::{Slot, Standing};
use crate::config::UpstreamServer;

/// Idle connections of one server and worker that are kept at most.
const MAX_IDLE: usize = 256;

/// How often idle connections are looked at: one that its server has closed keeps a file and a place until then, of very many
/// that were closed at once some until the next time.
const LOOK_AT_IDLE: Duration = Duration::from_secs(1);

/// One server.
pub(super) struct Server {
    pub(super) address: UpstreamServer,
    pub(super) standing: Arc<Standing>,
    /// For how long an idle connection is kept, in milliseconds.
    keep: AtomicU64,
    outstanding: AtomicUsize,
    /// At which turn of its upstream it was chosen last.
    chosen: AtomicUsize,
    idle: Mutex<Idle>,
}

/// Idle connections of one worker to one server.
#[derive(Default)]
struct Idle {
    /// Oldest first.
    links: VecDeque<Box<Link>>,
    /// Whether a task looks at them.
    watched: bool,
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
    fn take_idle(&self, now: Instant) -> Option<Box<Link>> {
        let mut idle = self.idle();
        // One of which the end of its request is still being sent is left until that has gone, and one that is closed or too
        // old until it is looked at.
        let at =
            idle.links.iter().rposition(|link| link.is_ready() && now.duration_since(link.asked_at) < self.keep())?;
        let mut newest = idle.links.remove(at)?;
        newest.asked_at = now;
        Some(newest)
    }

    /// The connection that became idle first.
    pub(super) fn take_oldest(&self) -> Option<Box<Link>> {
        self.idle().links.pop_front()
    }

    fn give_back(self: &Arc<Self>, mut link: Box<Link>) {
        let queued = &self.standing.line;
        while !link.sender.is_closed() {
            let mut idle = self.idle();
            // Under the lock: whoever begins to wait after this look finds it among the idle ones.
            if queued.waiting() == 0 {
                let now = link.asked_at;
                while idle.links.len() >= MAX_IDLE
                    || idle.links.front().is_some_and(|oldest| now.duration_since(oldest.asked_at) >= self.keep())
                {
                    idle.links.pop_front();
                }
                idle.links.push_back(link);
                if !std::mem::replace(&mut idle.watched, true) {
                    tokio::spawn(watch(Arc::downgrade(self)));
                }
                return;
            }
            drop(idle);
            // What still sends its last request can take no other, and is closed: its place goes to the first in the line.
            if !link.is_ready() {
                return;
            }
            match queued.offer(self, link) {
                Some(back) => link = back,
                None => return,
            }
        }
    }

    /// Closes idle connections that their server closed, or that are too old `now`. Whether any are left.
    fn look_at_idle(&self, now: Instant) -> bool {
        // Not under the lock: a connection that ends gives its place to others, which may take it.
        let mut links = std::mem::take(&mut self.idle().links);
        links.retain_mut(|link| now.duration_since(link.asked_at) < self.keep() && link.is_open());
        let mut idle = self.idle();
        links.append(&mut idle.links);
        let any = !links.is_empty();
        (idle.links, idle.watched) = (links, any);
        drop(idle);
        // Whoever began to wait meanwhile saw none.
        if self.standing.line.waiting() > 0 {
            self.standing.line.settle();
        }
        any
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the idle connections of a server for as long as there are any.
async fn watch(server: Weak<Server>) {
    loop {
        sleep(LOOK_AT_IDLE).await;
        if !server.upgrade().is_some_and(|server| server.look_at_idle(Instant::now())) {
            return;
        }
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
    /// Boxed: it passes through many hands with its answer.
    pub(super) link: Box<Link>,
    pub(super) outstanding: Outstanding,
}

impl Lease {
    /// The exchange is over: the next request may have the connection.
    pub(super) fn give_back(mut self) {
        if self.link.is_ready() {
            self.link.rest();
        } else if self.link.is_open() {
            // The end of a body may stand in it still, for a server that reads on behind its answer.
            self.link.drive_apart();
        } else {
            return;
        }
        self.outstanding.0.give_back(self.link);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};
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
        server.idle().links.make_contiguous().sort_by_key(|link| link.asked_at);
        assert!(server.take_idle(Instant::now()).is_some(), "the second");
        assert!(server.take_idle(Instant::now()).is_none(), "the first is too old");
    }

    #[tokio::test(start_paused = true)]
    async fn closed_connections_are_not_taken() {
        let [servers] = workers(&config(0..1));
        let (server, mut ends) = idle(&servers, 2).await;
        ends.pop();
        settle().await;
        advance(LOOK_AT_IDLE).await;
        settle().await;
        assert_eq!(server.standing.open(), 1, "whose place is free with the socket");
        let taken = server.take_idle(Instant::now());
        assert!(taken.is_some() && server.take_idle(Instant::now()).is_none());
        advance(LOOK_AT_IDLE).await;
        settle().await;
        assert!(!server.idle().watched, "there is none to look at");
        drop(taken);
        settle().await;
        assert_eq!(server.standing.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_nobody_takes_are_closed_in_time() {
        let [servers] = workers(&config(0..1));
        let (server, _ends) = idle(&servers, 2).await;
        settle().await;
        advance(KEEP).await;
        settle().await;
        assert_eq!((server.standing.open(), server.idle().watched), (0, false));
        let (server, _ends) = idle(&servers, 1).await;
        assert!(server.idle().watched);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_sent_is_sent_to_its_end_behind_its_answer_too() {
        let [servers] = workers(&config(0..1));
        let (mut lease, mut other_end) = open(&servers).await.unwrap();
        let (server, began) = (Arc::clone(lease.outstanding.server()), Instant::now());
        let asking = stuck(&mut lease).await;
        lease.give_back();
        let mut sent = Vec::new();
        while !sent.ends_with(b"\r\n\r\n") {
            assert!(server.take_idle(Instant::now()).is_none(), "nor is it cut by who looks for an idle one");
            assert!(other_end.read_buf(&mut sent).await.unwrap() > 0, "it is cut");
        }
        assert_eq!(Instant::now(), began, "at once, and not when idle ones are looked at");
        asking.abort();
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
    async fn a_connection_that_another_worker_gives_up_is_ended_by_its_own() {
        let [servers] = workers(&config(0..1));
        let (server, _ends) = idle(&servers, 1).await;
        let spare = server.standing.spare().unwrap();
        let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::spawn(move || other.block_on(async move { drop(spare) })).join().unwrap();
        assert_eq!(server.standing.open(), 1, "not before its own worker gets to it");
        settle().await;
        assert_eq!(server.standing.open(), 0);
    }

    #[tokio::test]
    async fn idle_connections_are_bounded() {
        let [servers] = workers(&config(0..1));
        let (server, _open) = idle(&servers, MAX_IDLE + 3).await;
        assert_eq!(server.idle().links.len(), MAX_IDLE);
        settle().await;
        assert_eq!(server.standing.open(), MAX_IDLE);
    }
}
