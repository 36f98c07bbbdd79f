//! The servers of an upstream: which one is next, and its idle connections.
//!
//! A pool belongs to one worker, so its locks are never contended; they are there because futures may move. It outlives the
//! configuration that it was made of as long as the next one names the same server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::flow::{Alarm, RequestBody};
use super::health::ServerHealth;
use crate::config::{UpstreamConfig, UpstreamServer};

/// Idle connections of one server and worker that are kept at most.
const MAX_IDLE: usize = 256;
/// Longest time that an idle connection is kept, whatever the configuration says: below the keep-alive of common
/// servers (nginx 75 s, `HAProxy` and Tomcat 60 s), so that they seldom close one that is being taken.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// How long a server that could not be reached is passed over while there are others.
const PASS_OVER: Duration = Duration::from_secs(5);

pub(super) type Sender = SendRequest<RequestBody>;

/// The servers of one upstream.
pub(super) struct Servers {
    all: Vec<Arc<Server>>,
    health: Arc<[Arc<ServerHealth>]>,
    turn: AtomicUsize,
}

impl Servers {
    /// `health` has an entry for each server. A server that `former` has too is taken from there with its connections, its
    /// requests under way and its failures.
    pub(super) fn new(config: &UpstreamConfig, health: Arc<[Arc<ServerHealth>]>, former: Option<&Self>) -> Self {
        let keep = config.timeout.idle.min(MAX_IDLE_TIME);
        let known = |address: &UpstreamServer| {
            former.and_then(|former| former.all.iter().find(|server| server.address == *address))
        };
        let server = |address: &UpstreamServer| match known(address) {
            Some(server) => {
                server.keep_for(keep);
                Arc::clone(server)
            }
            None => Arc::new(Server::new(address.clone(), keep)),
        };
        Self { all: config.servers.iter().map(server).collect(), health, turn: AtomicUsize::new(0) }
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// The server with the least outstanding requests, in turn where several have; one that failed a short while ago
    /// only when all did, the oldest failure first. `None` where all fail their probes.
    pub(super) fn pick(&self) -> Option<&Arc<Server>> {
        if let ([only], [health]) = (self.all.as_slice(), &*self.health) {
            return (!health.is_down()).then_some(only);
        }
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.all.len();
        let in_turn = || (0..count).map(move |offset| turn.wrapping_add(offset) % count);
        let takes = |index: &usize| self.health.get(*index).is_none_or(|health| health.takes(turn / count, now));
        let well = |index: &usize| self.health.get(*index).is_none_or(|health| !health.is_down());
        let server = |index: usize| self.all.get(index);
        let load = |server: &&Arc<Server>| (server.failed_recently(now), server.outstanding.load(Ordering::Relaxed));
        // Where all that are well came back just now, their share is all there is.
        let best = in_turn().filter(takes).filter_map(server).min_by_key(load);
        best.or_else(|| in_turn().filter(well).filter_map(server).min_by_key(load))
    }
}

/// One server.
pub(super) struct Server {
    pub(super) address: UpstreamServer,
    /// For how long an idle connection is kept, in milliseconds.
    keep: AtomicU64,
    outstanding: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    idle: VecDeque<Link>,
    failed_at: Option<Instant>,
}

/// A connection, for one exchange after another.
pub(super) struct Link {
    pub(super) sender: Sender,
    /// When its last request was sent. Its idle time counts from there: the server's own reckoning starts no earlier.
    pub(super) asked_at: Instant,
    /// For the first byte of an answer.
    pub(super) alarm: Alarm,
}

impl Link {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, asked_at: Instant::now(), alarm: Alarm::default() }
    }
}

impl Server {
    fn new(address: UpstreamServer, keep: Duration) -> Self {
        let server =
            Self { address, keep: AtomicU64::new(0), outstanding: AtomicUsize::new(0), state: Mutex::default() };
        server.keep_for(keep);
        server
    }

    fn keep_for(&self, keep: Duration) {
        self.keep.store(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn keep(&self) -> Duration {
        Duration::from_millis(self.keep.load(Ordering::Relaxed))
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding(Arc::clone(self))
    }

    /// The connection that became idle last and can take a request, which will be sent `now`.
    pub(super) fn take_idle(&self, now: Instant) -> Option<Link> {
        let mut state = self.state();
        while let Some(newest) = state.idle.pop_back() {
            if now.duration_since(newest.asked_at) >= self.keep() {
                drop(newest);
            } else if newest.sender.is_ready() {
                return Some(Link { asked_at: now, ..newest });
            }
            // Else it is closed, or the end of its request is still being sent: nothing to wait for.
        }
        None
    }

    pub(super) fn could_not_be_reached(&self) {
        self.state().failed_at = Some(Instant::now());
    }

    fn failed_recently(&self, now: Instant) -> Option<Instant> {
        self.state().failed_at.filter(|at| now.duration_since(*at) < PASS_OVER)
    }

    fn give_back(&self, link: Link) {
        if link.sender.is_closed() {
            return;
        }
        let now = link.asked_at;
        let mut state = self.state();
        while state.idle.len() >= MAX_IDLE
            || state.idle.front().is_some_and(|oldest| now.duration_since(oldest.asked_at) >= self.keep())
        {
            state.idle.pop_front();
        }
        state.idle.push_back(link);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in progress at a server.
pub(super) struct Outstanding(Arc<Server>);

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
    use hyper_util::rt::TokioIo;
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::advance;

    use super::*;
    use crate::config::{SubjectKind, UpstreamTimeouts};
    use crate::upstream::Health;

    const KEEP: Duration = Duration::from_secs(10);

    fn config(ports: std::ops::Range<u16>) -> UpstreamConfig {
        let server = |port| UpstreamServer::Tcp { https: false, host: "127.0.0.1".to_owned(), port };
        UpstreamConfig {
            name: "console".to_owned(),
            servers: ports.map(server).collect(),
            may_bind: false,
            audience: "https://console.internal".to_owned(),
            subject: SubjectKind::Pairwise,
            ca: None,
            client_certificate: None,
            health: None,
            timeout: UpstreamTimeouts { connect: KEEP, first_byte: KEEP, idle: KEEP },
        }
    }

    fn servers(count: u16) -> Servers {
        let config = config(0..count);
        let health = Health::new(std::slice::from_ref(&config), None).of(0);
        Servers::new(&config, health, None)
    }

    fn port(server: &Server) -> u16 {
        let UpstreamServer::Tcp { port, .. } = server.address else { panic!("no port") };
        port
    }

    /// Makes a connection idle; it lives as long as the other end that is given back.
    async fn add_idle(server: &Arc<Server>) -> DuplexStream {
        let (ours, other_end) = duplex(64);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        sender.ready().await.unwrap();
        Lease { link: Link::new(sender), outstanding: server.begin() }.give_back();
        other_end
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_kept_for_a_while() {
        let servers = servers(1);
        let server = servers.pick().unwrap();
        assert!(server.take_idle(Instant::now()).is_none());
        let _first = add_idle(server).await;
        advance(KEEP / 2).await;
        let _second = add_idle(server).await;
        advance(KEEP / 2).await;
        assert!(server.take_idle(Instant::now()).is_some(), "the second");
        assert!(server.take_idle(Instant::now()).is_none(), "the first is too old");
    }

    #[tokio::test]
    async fn closed_connections_are_not_taken() {
        let servers = servers(1);
        let server = servers.pick().unwrap();
        let _open = add_idle(server).await;
        drop(add_idle(server).await);
        tokio::task::yield_now().await;
        assert!(server.take_idle(Instant::now()).is_some());
        assert!(server.take_idle(Instant::now()).is_none());
    }

    #[tokio::test]
    async fn idle_connections_are_bounded() {
        let servers = servers(1);
        let server = servers.pick().unwrap();
        let mut open = Vec::new();
        for _ in 0..MAX_IDLE + 3 {
            open.push(add_idle(server).await);
        }
        assert_eq!(server.state().idle.len(), MAX_IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stays_keeps_its_connections_and_what_is_known_of_it() {
        let former = servers(2);
        let _open = [add_idle(&former.all[0]).await, add_idle(&former.all[1]).await];
        let _busy = former.all[1].begin();
        former.all[1].could_not_be_reached();
        let mut next = config(1..3);
        next.timeout.idle = KEEP / 2;
        let health = Health::new(std::slice::from_ref(&next), None).of(0);
        let next = Servers::new(&next, health, Some(&former));
        assert_eq!([port(&next.all[0]), port(&next.all[1])], [1, 2]);
        assert_eq!(next.all[0].outstanding.load(Ordering::Relaxed), 1);
        assert!(next.all[0].failed_recently(Instant::now()).is_some());
        assert!(next.all[1].take_idle(Instant::now()).is_none());
        assert_eq!(next.all[0].state().idle.len(), 1);
        advance(KEEP / 2).await;
        assert!(next.all[0].take_idle(Instant::now()).is_none(), "connections are kept for as long as is said now");
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_with_the_least_to_do_is_next() {
        let servers = servers(3);
        let port = || port(servers.pick().unwrap());
        let mut in_turn = [port(), port(), port()];
        in_turn.sort_unstable();
        assert_eq!(in_turn, [0, 1, 2]);

        let busy = [servers.all[0].begin(), servers.all[1].begin()];
        assert_eq!([port(), port(), port()], [2, 2, 2]);
        servers.all[2].could_not_be_reached();
        assert!(![port(), port(), port()].contains(&2));
        drop(busy);
        advance(PASS_OVER).await;
        let _busy = [servers.all[0].begin(), servers.all[1].begin()];
        assert_eq!(port(), 2);

        for failed in [1, 0, 2] {
            servers.all[failed].could_not_be_reached();
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!([port(), port(), port()], [1, 1, 1], "all failed: the oldest failure");
    }
}
