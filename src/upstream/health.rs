//! Which servers answer their probes: asked in the background, known to all workers.
//!
//! An upstream without `health` is never asked, and its servers count as well; what a worker finds out by itself, a server
//! that cannot be reached, is in `pool`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::connect;
use crate::config::{HealthConfig, UpstreamConfig, UpstreamServer};
use crate::tls::UpstreamTls;

/// Probes in a row that have to fail before a server gets no more requests: one may be lost to a restart of its own.
const DOWN_AFTER: u32 = 2;
/// For how long after its return a server gets fewer requests than the others: its caches are cold.
const SLOW_RETURN: Duration = Duration::from_secs(10);

/// Told after every probe: of which upstream, which server, and whether it gets requests.
pub type Observer = dyn Fn(&UpstreamConfig, &UpstreamServer, bool) + Send + Sync;

/// What probes say of every server, by upstream and server in the order of the configuration.
pub struct Health {
    upstreams: Vec<Known>,
}

/// The servers of one upstream.
struct Known {
    name: Box<str>,
    addresses: Vec<UpstreamServer>,
    states: Arc<[Arc<ServerHealth>]>,
}

/// One server as its probes see it.
pub(super) struct ServerHealth {
    started: Instant,
    failed_in_a_row: AtomicU32,
    down: AtomicBool,
    /// Milliseconds after `started`, plus one, at which it came back; 0 if it never was away.
    back_at: AtomicU64,
}

impl Default for ServerHealth {
    fn default() -> Self {
        let (failed_in_a_row, down, back_at) = (AtomicU32::new(0), AtomicBool::new(false), AtomicU64::new(0));
        Self { started: Instant::now(), failed_in_a_row, down, back_at }
    }
}

impl Health {
    /// Every server counts as well until a probe says otherwise. What `former` knew of a server that is still probed, in an
    /// upstream of the same name, holds on.
    #[must_use]
    pub fn new(upstreams: &[UpstreamConfig], former: Option<&Self>) -> Self {
        let of = |config: &UpstreamConfig| {
            let former = former.filter(|_| config.health.is_some());
            let states = config
                .servers
                .iter()
                .map(|server| former.and_then(|former| former.find(&config.name, server)).unwrap_or_default());
            Known { name: config.name.as_str().into(), states: states.collect(), addresses: config.servers.clone() }
        };
        Self { upstreams: upstreams.iter().map(of).collect() }
    }

    fn find(&self, upstream: &str, server: &UpstreamServer) -> Option<Arc<ServerHealth>> {
        let known = self.upstreams.iter().find(|known| *known.name == *upstream)?;
        let at = known.addresses.iter().position(|address| address == server)?;
        known.states.get(at).map(Arc::clone)
    }

    pub(super) fn of(&self, upstream: usize) -> Arc<[Arc<ServerHealth>]> {
        self.upstreams.get(upstream).map(|known| Arc::clone(&known.states)).unwrap_or_default()
    }

    /// Whether each server of the upstream with this index gets requests, as far as probes say, in the order of the
    /// configuration.
    #[must_use]
    pub fn up(&self, upstream: usize) -> Vec<bool> {
        self.of(upstream).iter().map(|state| !state.is_down()).collect()
    }

    /// Asks every server of every upstream that has `health`, until `shutdown` fires. `upstreams` are those that this was
    /// made of.
    pub async fn watch(
        self: Arc<Self>,
        upstreams: Vec<UpstreamConfig>,
        tls: Arc<UpstreamTls>,
        told: Arc<Observer>,
        shutdown: CancellationToken,
    ) {
        let probing = tokio_util::task::TaskTracker::new();
        for (index, upstream) in upstreams.into_iter().map(Arc::new).enumerate() {
            let Some(health) = &upstream.health else { continue };
            for (server, address) in upstream.servers.iter().enumerate() {
                let probe = Probe {
                    index,
                    upstream: Arc::clone(&upstream),
                    server,
                    address: address.clone(),
                    deadline: (upstream.timeout.connect + upstream.timeout.first_byte).min(health.interval),
                    health: health.clone(),
                };
                let (tls, told, shutdown) = (Arc::clone(&tls), Arc::clone(&told), shutdown.clone());
                let servers = self.of(index);
                probing.spawn(async move {
                    let Some(state) = servers.get(probe.server) else { return };
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = probe.run(state, &tls, &*told) => {}
                    }
                });
            }
        }
        probing.close();
        probing.wait().await;
    }
}

impl ServerHealth {
    /// Whether it may be asked by the `turn`-th request: never while it is down, and of the requests in the first
    /// [`SLOW_RETURN`] after its return a share that grows to all of them.
    pub(super) fn takes(&self, turn: usize, now: Instant) -> bool {
        if self.down.load(Ordering::Relaxed) {
            return false;
        }
        let Some(back_at) = self.back_at.load(Ordering::Relaxed).checked_sub(1) else { return true };
        let back_at = self.started + Duration::from_millis(back_at);
        let since = now.saturating_duration_since(back_at);
        if since >= SLOW_RETURN {
            return true;
        }
        let tenths = since.as_millis() * 10 / SLOW_RETURN.as_millis();
        (turn % 10) as u128 <= tenths
    }

    /// Whether its probes fail.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    fn goes(&self) -> bool {
        !self.down.swap(true, Ordering::Relaxed)
    }

    fn comes_back(&self, now: Instant) -> bool {
        let was_down = self.is_down();
        if was_down {
            let millis = now.saturating_duration_since(self.started).as_millis();
            self.back_at.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
            self.down.store(false, Ordering::Relaxed);
        }
        was_down
    }
}

/// The probes of one server.
struct Probe {
    index: usize,
    upstream: Arc<UpstreamConfig>,
    server: usize,
    address: UpstreamServer,
    deadline: Duration,
    health: HealthConfig,
}

impl Probe {
    async fn run(&self, state: &ServerHealth, tls: &UpstreamTls, told: &Observer) {
        let mut tick = interval(self.health.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let outcome = match timeout(self.deadline, self.ask(tls)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("no answer in time".to_owned()),
            };
            match outcome {
                Ok(()) => {
                    state.failed_in_a_row.store(0, Ordering::Relaxed);
                    if state.comes_back(Instant::now()) {
                        tracing::info!(upstream = %self.upstream.name, server = %self.address, "the upstream's server is back");
                    }
                }
                Err(error) => {
                    let failed_before = state.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
                    if failed_before >= DOWN_AFTER - 1 && state.goes() {
                        tracing::warn!(
                            upstream = %self.upstream.name, server = %self.address, path = %self.health.path, error,
                            "the upstream's server fails its probes and gets no requests",
                        );
                    }
                }
            }
            told(&self.upstream, &self.address, !state.is_down());
        }
    }

    /// On a connection of its own, so that a server that takes none any more is found out.
    async fn ask(&self, tls: &UpstreamTls) -> Result<(), String> {
        let mut sender = connect::<Empty<Bytes>>(tls, self.index, &self.address, self.deadline)
            .await
            .map_err(|error| error.to_string())?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.health.path.parse().map_err(|_| "health.path is no request target".to_owned())?;
        let fields = request.headers_mut();
        fields.insert(HOST, self.host());
        fields.insert(USER_AGENT, HeaderValue::from_static("sekisho-health"));
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(format!("answered {}", status.as_u16()))
        }
    }

    fn host(&self) -> HeaderValue {
        let host = match &self.address {
            UpstreamServer::Unix(_) => None,
            UpstreamServer::Tcp { host, port, .. } if host.contains(':') => Some(format!("[{host}]:{port}")),
            UpstreamServer::Tcp { host, port, .. } => Some(format!("{host}:{port}")),
        };
        host.and_then(|host| HeaderValue::try_from(host).ok()).unwrap_or(HeaderValue::from_static("localhost"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_server_holds_on_while_it_is_probed() {
        let server = |port| UpstreamServer::Tcp { https: false, host: "127.0.0.1".to_owned(), port };
        let second = Duration::from_secs(1);
        let upstream = |name: &str, ports: [u16; 2], probed: bool| UpstreamConfig {
            name: name.to_owned(),
            servers: ports.map(server).to_vec(),
            may_bind: false,
            audience: "https://console.internal".to_owned(),
            subject: crate::config::SubjectKind::Pairwise,
            ca: None,
            client_certificate: None,
            health: probed.then(|| HealthConfig { path: "/".to_owned(), interval: second }),
            timeout: crate::config::UpstreamTimeouts { connect: second, first_byte: second, idle: second },
        };
        let former = Health::new(&[upstream("a", [1, 2], true), upstream("b", [3, 4], true)], None);
        assert!(former.of(0)[1].goes() && former.of(1)[0].goes());
        let next = [upstream("b", [9, 3], true), upstream("a", [2, 3], true)];
        let next = Health::new(&next, Some(&former));
        assert_eq!([next.up(0), next.up(1)], [[true, false], [false, true]]);
        let unprobed = Health::new(&[upstream("a", [1, 2], false)], Some(&former));
        assert_eq!(unprobed.up(0), [true, true], "nobody would find out that it is back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_gets_a_share_that_grows() {
        let server = ServerHealth::default();
        let share = |now| (0..10).filter(|turn| server.takes(*turn, now)).count();
        assert_eq!(share(Instant::now()), 10, "never away");
        assert!(server.goes() && !server.goes());
        assert_eq!(share(Instant::now()), 0);
        tokio::time::advance(Duration::from_secs(100)).await;
        let back = Instant::now();
        assert!(server.comes_back(back) && !server.comes_back(back));
        for (seconds, expected) in [(0, 1), (1, 2), (5, 6), (9, 10), (10, 10), (1000, 10)] {
            assert_eq!(share(back + Duration::from_secs(seconds)), expected, "after {seconds} s");
        }
        assert!(server.goes());
        assert_eq!(share(back + Duration::from_secs(1000)), 0);
    }
}
