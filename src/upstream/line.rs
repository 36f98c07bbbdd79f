//! Requests that wait because every server of their upstream has as many connections as it may: one line for all workers.
//!
//! First come, first served. A connection stays with the worker that opened it: one that comes free is passed on to a
//! request of the same worker, which may overtake a few others, or is closed, so that the first in the line can open one.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::beside::Beside;
use super::link::Link;
use super::pool::{Lease, Place, Server};
use super::queue::{Grant, Queue};
use super::servers::Servers;

/// How often the first in the line may be overtaken by requests of workers that have a connection. To close one and open
/// another costs more than to wait for so many answers.
const OVERTAKEN: u32 = 8;

/// How often the first in the line looks for all: that a server gets requests again, or more of them, is told to nobody.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// There was no room in the line, or no connection in time.
#[derive(Debug)]
pub(super) struct Full;

/// The line before one upstream.
#[derive(Default)]
pub(super) struct Line {
    waiting: AtomicUsize,
    turned_away: AtomicU64,
    workers: AtomicUsize,
    /// Whether it was told that requests are turned away, since the line was last empty.
    told: AtomicBool,
    /// Who waits beside it.
    pub(super) beside: Beside,
    queue: Mutex<Queue>,
}

impl Line {
    /// One more worker; how many there were.
    pub(super) fn add_worker(&self) -> usize {
        self.workers.fetch_add(1, Ordering::Relaxed)
    }

    /// So many requests wait in line.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// So many waited in vain, or found no room in the line.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Waits for a connection to one of `servers`, or leave to open one. Dropping the future leaves the line.
    pub(super) async fn wait(&self, upstream: &str, servers: &Arc<Servers>) -> Result<Place, Full> {
        let place = self.wait_in_line(servers).await;
        place.inspect_err(|Full| self.turn_away(upstream))
    }

    pub(super) fn turn_away(&self, upstream: &str) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                upstream,
                "requests are turned away: every server has as many connections as upstream.connections or the open-file limit allows",
            );
        }
    }

    async fn wait_in_line(&self, servers: &Arc<Servers>) -> Result<Place, Full> {
        let (grant, mut granted) = oneshot::channel();
        let ticket = self.enter(servers, grant)?;
        self.settle();
        let end = Instant::now() + servers.queue.time;
        loop {
            let look = end.min(Instant::now() + LOOK_AGAIN);
            if let Ok(Ok(place)) = timeout_at(look, &mut granted).await {
                return Ok(place);
            }
            if look == end {
                break;
            }
            if ticket.is_first() {
                self.settle();
            }
        }
        drop(ticket);
        // Nobody grants anything from here on, but somebody may have just before.
        granted.try_recv().map_err(|_| Full)
    }

    fn enter<'l>(&'l self, servers: &'l Arc<Servers>, grant: Grant) -> Result<Ticket<'l>, Full> {
        let mut queue = self.queue();
        if queue.len() >= servers.queue.length {
            return Err(Full);
        }
        let number = queue.enter(servers, grant);
        self.count(&queue);
        Ok(Ticket { line: self, servers, number })
    }

    /// Gives leave to open connections to those who wait, as far as there may be more. Where there may not, one that is
    /// idle, at whichever worker, is closed.
    pub(super) fn settle(&self) {
        let now = Instant::now();
        // What is dropped may come back here: not before the lock is free.
        let (mut unwanted, mut spare) = (Vec::new(), None);
        let mut queue = self.queue();
        // What the first of a worker does not find, no other of it does.
        let mut in_vain: Vec<Arc<Servers>> = Vec::new();
        let others =
            |in_vain: &[Arc<Servers>], servers: &Arc<Servers>| !in_vain.iter().any(|v| Arc::ptr_eq(v, servers));
        while let Some((number, servers)) = queue.first_of(|servers| others(&in_vain, servers)) {
            let Some(place) = servers.any_place(now) else {
                in_vain.push(servers);
                continue;
            };
            let left = match queue.remove(&servers, number) {
                Some(grant) => grant.send(place).err(),
                None => Some(place),
            };
            unwanted.extend(left);
        }
        if let Some((_, servers)) = queue.first() {
            spare = servers.spare(now);
        }
        self.count(&queue);
        drop(queue);
        drop((unwanted, spare));
    }

    /// A connection of `home` is free. Gives it back where nobody waits any more.
    pub(super) fn offer(&self, home: &Arc<Server>, link: Box<Link>) -> Option<Box<Link>> {
        let now = Instant::now();
        let mut queue = self.queue();
        let takes = |servers: &Arc<Servers>| servers.may_use(home, now);
        let found = match queue.first() {
            None => return Some(link),
            Some(first) if takes(&first.1) => Some(first),
            Some(_) if queue.overtaken() < OVERTAKEN => queue.first_of(takes),
            Some(_) => None,
        };
        let grant = found.and_then(|(number, servers)| queue.overtake(&servers, number));
        self.count(&queue);
        drop(queue);
        // Where nobody has it, it is closed, and its place goes to the first in the line.
        let place = Place::Idle(Lease { link, outstanding: home.begin() });
        if let Some(grant) = grant {
            let _ = grant.send(place);
        }
        None
    }

    fn count(&self, queue: &Queue) {
        self.waiting.store(queue.len(), Ordering::SeqCst);
        if queue.is_empty() {
            self.told.store(false, Ordering::Relaxed);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line, until it is dropped.
struct Ticket<'l> {
    line: &'l Line,
    servers: &'l Arc<Servers>,
    number: u64,
}

impl Ticket<'_> {
    fn is_first(&self) -> bool {
        self.line.queue().is_first(self.number)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut queue = self.line.queue();
        let was_first = queue.is_first(self.number);
        if let Some(left) = queue.remove(self.servers, self.number) {
            self.line.count(&queue);
            drop(queue);
            drop(left);
            // The next one may find what this one did not.
            if was_first && self.line.waiting() > 0 {
                self.line.settle();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::Future;

    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::*;
    use crate::upstream::tests::pools::{PATIENCE, config, ends, granted, open, opened, settle, small, stuck, workers};

    /// A request that waits; it has entered the line.
    async fn waits(servers: &Arc<Servers>) -> JoinHandle<Result<Place, Full>> {
        let (before, servers) = (servers.line.waiting(), Arc::clone(servers));
        let line = Arc::clone(&servers.line);
        let waiting = tokio::spawn(async move { servers.line.wait("console", &servers).await });
        settle().await;
        assert_eq!(line.waiting(), before + 1);
        waiting
    }

    #[tokio::test(start_paused = true)]
    async fn first_come_first_served_over_the_same_connection() {
        let [servers] = workers(&small(1, 3));
        let used = open(&servers).await.unwrap();
        let (first, second) = (waits(&servers).await, waits(&servers).await);
        assert!(open(&servers).await.is_none());
        let other_end = ends(used);
        let Place::Idle(lease) = granted(first).await else { panic!("a connection was free") };
        assert!(!second.is_finished());
        assert!(open(&servers).await.is_none(), "nobody overtakes who waits");
        let _other_end = ends((lease, other_end));
        assert!(matches!(granted(second).await, Place::Idle(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_makes_room_for_another() {
        let [servers] = workers(&small(1, 3));
        let used = open(&servers).await.unwrap();
        let waiting = waits(&servers).await;
        drop(used);
        let _used = opened(granted(waiting).await).await;
        assert!(open(&servers).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_still_sends_its_request_is_handed_to_nobody() {
        let [servers] = workers(&small(1, 3));
        let (mut lease, _unread) = open(&servers).await.unwrap();
        let _asking = stuck(&mut lease).await;
        let waiting = waits(&servers).await;
        // The answer came before the end of the request.
        lease.give_back();
        assert!(matches!(granted(waiting).await, Place::Vacant(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_a_place_at_a_server_that_is_back() {
        let mut config = config(0..2);
        (config.connections, config.queue.time) = (1, Duration::from_mins(1));
        let [servers] = workers(&config);
        let (lease, other_end) = open(&servers).await.unwrap();
        let length = servers.failed(lease.outstanding.server(), Instant::now(), true).unwrap();
        drop((lease, other_end));
        settle().await;
        let _used = open(&servers).await.unwrap();
        let waiting = waits(&servers).await;
        advance(length / 2).await;
        settle().await;
        assert!(!waiting.is_finished());
        advance(length).await;
        assert!(matches!(granted(waiting).await, Place::Vacant(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_of_another_worker_keeps_nobody_waiting() {
        let [one, other] = workers(&small(1, 3));
        let _idle = ends(open(&one).await.unwrap());
        let _used = opened(
            granted(tokio::spawn({
                let other = Arc::clone(&other);
                async move { other.line.wait("console", &other).await }
            }))
            .await,
        )
        .await;
        assert_eq!(other.line.waiting(), 0);
        assert!(open(&one).await.is_none(), "it was closed");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_at_another_worker_is_overtaken_a_few_times_and_no_more() {
        let [one, other] = workers(&small(1, 100));
        let mut used = open(&one).await.unwrap();
        let elsewhere = waits(&other).await;
        let mut here = VecDeque::new();
        for _ in 0..2 * OVERTAKEN {
            here.push_back(waits(&one).await);
        }
        for _ in 0..OVERTAKEN {
            let other_end = ends(used);
            let Place::Idle(lease) = granted(here.pop_front().unwrap()).await else { panic!("a connection was free") };
            used = (lease, other_end);
        }
        assert!(!elsewhere.is_finished());
        let _closed = ends(used);
        let used = opened(granted(elsewhere).await).await;
        assert!(!here[0].is_finished());
        let _closed = ends(used);
        assert!(matches!(granted(here.pop_front().unwrap()).await, Place::Vacant(_)), "it has to move back");
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_bounded_in_length_and_in_time() {
        let [servers] = workers(&small(1, 2));
        let _used = open(&servers).await.unwrap();
        let waiting = [waits(&servers).await, waits(&servers).await];
        assert!(servers.line.wait("console", &servers).await.is_err(), "at once");
        assert_eq!(servers.line.turned_away(), 1);
        advance(PATIENCE / 2).await;
        settle().await;
        assert!(!waiting[0].is_finished());
        advance(PATIENCE / 2).await;
        for waiting in waiting {
            assert!(waiting.await.unwrap().is_err());
        }
        assert_eq!((servers.line.waiting(), servers.line.turned_away()), (0, 3));
        let [nobody] = workers(&small(1, 0));
        let _used = open(&nobody).await.unwrap();
        assert!(nobody.line.wait("console", &nobody).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_neither_holds_a_place_nor_loses_one() {
        let [servers] = workers(&small(1, 3));
        let used = open(&servers).await.unwrap();
        let (first, second, third) = (waits(&servers).await, waits(&servers).await, waits(&servers).await);
        second.abort();
        settle().await;
        assert_eq!(servers.line.waiting(), 2);
        // Its place was granted, and it did not take it.
        drop(used);
        settle().await;
        assert!(first.is_finished());
        drop(first.await);
        assert!(matches!(granted(third).await, Place::Vacant(_)));
        settle().await;
        assert_eq!(servers.line.waiting(), 0);
        assert!(open(&servers).await.is_some(), "all is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_is_passed_over_for_one_that_is_not() {
        let mut config = config(0..2);
        config.connections = 2;
        let [servers] = workers(&config);
        let mut used = Vec::new();
        for _ in 0..4 {
            used.push(open(&servers).await.expect("there is room"));
        }
        assert!(open(&servers).await.is_none());
        // One server hangs: its connections are in use for good, and the other one has fewer requests.
        drop(used.pop());
        settle().await;
        used.push(open(&servers).await.expect("where there is room"));
        assert!(open(&servers).await.is_none());
    }

    /// On threads of their own, as workers are; connections are given back and closed in turn.
    #[test]
    fn no_place_is_lost_and_none_is_given_twice() {
        const WORKERS: usize = 4;
        const MOST: usize = 3;
        let mut config = small(MOST, 1000);
        config.queue.time = Duration::from_mins(1);
        let workers: [_; WORKERS] = workers(&config);
        let (open_now, kept) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let threads = workers.clone().map(|servers| {
            let (open_now, kept) = (Arc::clone(&open_now), Arc::clone(&kept));
            std::thread::spawn(move || {
                on_a_worker(async move {
                    let requests = (0..16).map(|request| {
                        let (servers, open_now, kept) =
                            (Arc::clone(&servers), Arc::clone(&open_now), Arc::clone(&kept));
                        tokio::spawn(async move {
                            for round in 0..50 {
                                let place = match servers.place(Instant::now()) {
                                    Ok(place) => place,
                                    Err(_) => servers.line.wait("console", &servers).await.expect("a place in time"),
                                };
                                let (lease, other_end) = match place {
                                    Place::Idle(lease) => (lease, None),
                                    vacant @ Place::Vacant(_) => {
                                        let (lease, other_end) = opened(vacant).await;
                                        (lease, Some(other_end))
                                    }
                                };
                                assert!(open_now.fetch_add(1, Ordering::SeqCst) < MOST);
                                tokio::task::yield_now().await;
                                open_now.fetch_sub(1, Ordering::SeqCst);
                                match (request + round) % 3 {
                                    0 => drop(lease),
                                    _ => lease.give_back(),
                                }
                                kept.lock().unwrap().extend(other_end);
                            }
                        })
                    });
                    for request in requests.collect::<Vec<_>>() {
                        request.await.unwrap();
                    }
                });
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(workers[0].line.waiting(), 0);
        assert_eq!(workers[0].line.turned_away(), 0);
    }

    fn on_a_worker(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
    }
}
