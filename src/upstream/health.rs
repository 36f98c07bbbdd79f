//! Which servers answer their probes: asked in the background, known to all workers.
//!
//! An upstream without `health` is never asked, and its servers count as well; what requests find out is in `ejection`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Blame, ConnectError, Opened, connect};
use super::ejection::{ROUND, share_after};
use super::line::Line;
use super::standing::Standing;
use crate::config::{HealthConfig, UpstreamConfig, UpstreamServer};
use crate::tls::UpstreamTls;

/// Probes in a row that have to fail before a server gets no more requests: one may be lost to a restart of its own.
const DOWN_AFTER: u32 = 2;

/// Told after every probe: of which upstream, which server, and whether it gets requests.
pub type Observer = dyn Fn(&UpstreamConfig, &UpstreamServer, bool) + Send + Sync;

/// What probes and requests tell all workers of every server, by upstream and server in the order of the configuration.
pub struct Health {
    upstreams: Vec<Known>,
}

/// The servers of one upstream.
struct Known {
    name: Box<str>,
    addresses: Vec<UpstreamServer>,
    common: Common,
}

/// What the workers have in common of one upstream, by server.
#[derive(Clone, Default)]
pub(super) struct Common {
    pub(super) health: Arc<[Arc<ServerHealth>]>,
    pub(super) standings: Arc<[Arc<Standing>]>,
    pub(super) line: Arc<Line>,
}

/// How one server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerNow {
    /// Whether it gets requests, as far as probes say.
    pub up: bool,
    /// Whether it gets none for a while, because it left some without an answer.
    pub ejected: bool,
    /// How often that was so.
    pub ejections: u64,
    /// Connections that are open.
    pub connections: usize,
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
    /// Every server counts as well until a probe or a request says otherwise. What `former` knew of a server that an upstream
    /// of the same name has still holds on; what probes said, where it is still probed. `seed`, random: what is
    /// ejected at one moment should not come back at one.
    #[must_use]
    pub fn new(upstreams: &[UpstreamConfig], former: Option<&Self>, seed: u64) -> Self {
        // Far apart: each server draws from what follows its own.
        let mut seeds = (0..u64::MAX).map(|server| seed.wrapping_add(server << 32));
        let mut of = |config: &UpstreamConfig| {
            let former = former.and_then(|former| former.upstreams.iter().find(|known| *known.name == *config.name));
            let line = former.map(|former| Arc::clone(&former.common.line)).unwrap_or_default();
            let health = |server: &UpstreamServer| {
                let probed = former.filter(|_| config.health.is_some());
                probed.and_then(|former| former.find(server, &former.common.health)).unwrap_or_default()
            };
            let standing = |server: &UpstreamServer| {
                let seed = seeds.next().unwrap_or(seed);
                let known = former.and_then(|former| former.find(server, &former.common.standings));
                known.unwrap_or_else(|| Arc::new(Standing::new(Arc::clone(&line), seed)))
            };
            let health = config.servers.iter().map(health).collect();
            let standings = config.servers.iter().map(standing).collect();
            let common = Common { health, standings, line };
            Known { name: config.name.as_str().into(), common, addresses: config.servers.clone() }
        };
        Self { upstreams: upstreams.iter().map(&mut of).collect() }
    }

    pub(super) fn of(&self, upstream: usize) -> Common {
        self.upstreams.get(upstream).map(|known| known.common.clone()).unwrap_or_default()
    }

    /// How each server of the upstream with this index does, in the order of the configuration.
    #[must_use]
    pub fn servers(&self, upstream: usize) -> Vec<ServerNow> {
        let (common, now) = (self.of(upstream), Instant::now());
        let of = |(health, standing): (&Arc<ServerHealth>, &Arc<Standing>)| ServerNow {
            up: !health.is_down(),
            ejected: standing.ejection.until(now).is_some(),
            ejections: standing.ejection.count(),
            connections: standing.open(),
        };
        common.health.iter().zip(&*common.standings).map(of).collect()
    }

    /// Requests to the upstream with this index that wait for a connection, and how many got none.
    #[must_use]
    pub fn waiting(&self, upstream: usize) -> (usize, u64) {
        let line = self.of(upstream).line;
        (line.waiting() + line.beside.waiting(), line.turned_away())
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
                let common = self.of(index);
                probing.spawn(async move {
                    let (state, standing) = (common.health.get(probe.server), common.standings.get(probe.server));
                    let (Some(state), Some(standing)) = (state, standing) else { return };
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = probe.run(state, standing, &tls, &*told) => {}
                    }
                });
            }
        }
        probing.close();
        probing.wait().await;
    }
}

impl Known {
    fn find<T>(&self, server: &UpstreamServer, among: &[Arc<T>]) -> Option<Arc<T>> {
        let at = self.addresses.iter().position(|address| address == server)?;
        among.get(at).map(Arc::clone)
    }
}

impl ServerHealth {
    /// Of [`ROUND`] requests, those that it gets `now`, as far as this says; not asked while it is down.
    pub(super) fn share(&self, now: Instant) -> usize {
        let Some(back_at) = self.back_at.load(Ordering::Relaxed).checked_sub(1) else { return ROUND };
        share_after(now.saturating_duration_since(self.started + Duration::from_millis(back_at)))
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

/// What a probe found; for the log alone.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no answer in time")]
    Late,
    #[error("health.path is no request target")]
    Path,
    #[error("answered {0}")]
    Answered(u16),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
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
    async fn run(&self, state: &ServerHealth, standing: &Standing, tls: &UpstreamTls, told: &Observer) {
        let mut tick = interval(self.health.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let outcome = timeout(self.deadline, self.ask(tls)).await.unwrap_or(Err(ProbeError::Late));
            match outcome {
                Ok(()) => {
                    state.failed_in_a_row.store(0, Ordering::Relaxed);
                    if state.comes_back(Instant::now()) {
                        standing.ejection.forget();
                        tracing::info!(upstream = %self.upstream.name, server = %self.address, "the upstream's server is back");
                    }
                }
                // Nothing was found out.
                Err(ProbeError::Connect(error)) if error.blame() == Blame::Ours => {}
                Err(error) => {
                    let failed_before = state.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
                    if failed_before >= DOWN_AFTER - 1 && state.goes() {
                        tracing::warn!(
                            upstream = %self.upstream.name, server = %self.address, path = %self.health.path, %error,
                            "the upstream's server fails its probes and gets no requests",
                        );
                    }
                }
            }
            told(&self.upstream, &self.address, !state.is_down());
        }
    }

    /// On a connection of its own, so that a server that takes none any more is found out.
    async fn ask(&self, tls: &UpstreamTls) -> Result<(), ProbeError> {
        let Opened { mut sender, connection, .. } =
            connect::<Empty<Bytes>>(tls, self.index, &self.address, self.deadline, (None, None)).await?;
        tokio::spawn(connection);
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.health.path.parse().map_err(|_| ProbeError::Path)?;
        let fields = request.headers_mut();
        fields.insert(HOST, self.host());
        fields.insert(USER_AGENT, HeaderValue::from_static("sekisho-health"));
        let status = sender.send_request(request).await?.status();
        if status.is_success() || status.is_redirection() { Ok(()) } else { Err(ProbeError::Answered(status.as_u16())) }
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
            connections: 1,
            queue: crate::config::UpstreamQueue { length: 1, time: second },
            health: probed.then(|| HealthConfig { path: "/".to_owned(), interval: second }),
            timeout: crate::config::UpstreamTimeouts { connect: second, first_byte: second, idle: second },
        };
        let up = |health: &Health, upstream| health.servers(upstream).iter().map(|now| now.up).collect::<Vec<_>>();
        let former = Health::new(&[upstream("a", [1, 2], true), upstream("b", [3, 4], true)], None, 1);
        assert!(former.of(0).health[1].goes() && former.of(1).health[0].goes());
        former.of(0).standings[0].ejection.failed(Instant::now(), true);
        let next = [upstream("b", [9, 3], true), upstream("a", [2, 1], true)];
        let next = Health::new(&next, Some(&former), 1);
        assert_eq!([up(&next, 0), up(&next, 1)], [[true, false], [false, true]]);
        let unprobed = Health::new(&[upstream("a", [1, 2], false)], Some(&next), 1);
        assert_eq!(up(&unprobed, 0), [true, true], "nobody would find out that it is back");
        let ejected = unprobed.servers(0).iter().map(|now| now.ejected).collect::<Vec<_>>();
        assert_eq!(ejected, [true, false], "which ends by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_gets_a_share_that_grows() {
        let server = ServerHealth::default();
        assert_eq!(server.share(Instant::now()), ROUND, "never away");
        assert!(server.goes() && !server.goes());
        tokio::time::advance(Duration::from_secs(100)).await;
        let back = Instant::now();
        assert!(server.comes_back(back) && !server.comes_back(back));
        for (seconds, expected) in [(0, 1), (3, 2), (15, 6), (29, 10), (30, 10), (1000, 10)] {
            assert_eq!(server.share(back + Duration::from_secs(seconds)), expected, "after {seconds} s");
        }
    }
}
