//! From a configuration to a running gateway; `check` walks the same steps and keeps nothing.
//!
//! Order: what can be refused without touching anything comes first (certificates, KEK and its token, a look at ports, admin socket
//! and access log), then the store, then the keys in it, then the ports, and last the admin socket. So a refusal leaves
//! what was there as it was, and no store behind where there was none.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificates::{Certificates, Renewal, load_tls};
use super::descriptors::Admissions;
use super::state::{Gateway, Parts};
use super::{Worker, descriptors, opening, upkeep};
use crate::admin::{self, AdminListener, AdminServer, Operations};
use crate::assertion::AssertionCache;
use crate::audit::{Action, AuditTrail, Event, SealError};
use crate::binding::BindingId;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Finding, ListenerConfig, Serves, SessionConfig, UpstreamConfig, UpstreamServer};
use crate::edge::{BoundListener, Inherited, Workers};
use crate::entropy::Entropy;
use crate::keys::{KeySet, Lifecycle};
use crate::receipt::Receipts;
use crate::rotation::Rotations;
use crate::session::{SessionPolicy, Sessions};
use crate::store::{
    ApprovalStore, BindingStore, EmbeddedStore, Inspection, KeyState, KeyStore, Opened, RotationStore, SessionScope,
    SessionStore, StoreError, WriteEvent,
};
use crate::telemetry::{AccessLogger, Actor, Metrics};
use crate::tls::UpstreamTls;
use crate::upstream::{Health, Upstreams};

/// A gateway that serves. Dropping it without [`Running::stop`] leaves its threads running.
pub struct Running {
    gateway: Arc<Gateway>,
    store: Arc<EmbeddedStore>,
    listeners: Vec<Listening>,
    renewal: Arc<Renewal>,
    workers: Workers,
    shutdown: CancellationToken,
    background: TaskTracker,
}

/// One listener that serves.
#[derive(Clone, Debug)]
pub struct Listening {
    /// What it serves.
    pub serves: Serves,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Where it really listens.
    pub address: SocketAddr,
}

impl Running {
    /// Starts everything that `config` names, `cores` workers wide; listeners whose sockets are `inherited` bind nothing.
    /// Must be called within a tokio runtime, which
    /// keeps the admin socket and the upkeep.
    ///
    /// # Errors
    /// The findings that forbid it, in the form that `check` prints.
    pub async fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
        cores: usize,
        mut inherited: Inherited,
    ) -> Result<Self, Vec<Finding>> {
        let now = clock.now();
        let config = Arc::new(config);
        let (certificates, upstream_tls) = load_tls(&config, now)?;
        let (kek, doubts) = opening::open_kek(&config, &*entropy).await.map_err(|finding| vec![finding])?;
        for doubt in doubts {
            tracing::warn!(doubt = doubt.problem, "the KEK is doubtful");
        }
        let taken = taken_places(&config, &inherited, cores);
        if !taken.is_empty() {
            return Err(taken);
        }
        let one = |finding| vec![finding];
        let at_store = |problem: String| one(config.finding("store.path", problem));

        let store = open_store(&config, now, &*entropy)?;
        count_writes(&store, &metrics);
        let (keys, lifecycle) = opening::open_keys(&config, &store, kek, &entropy, now).await.map_err(one)?;
        let audit = open_audit(&store, &keys, &entropy, now).await.map_err(|error| at_store(error.to_string()))?;
        let audit = Arc::new(audit);
        let shutdown = CancellationToken::new();
        let bindings: Arc<dyn BindingStore> = Arc::clone(&store) as _;
        let loaded = load_sessions(&store, &config.session, now).await;
        let sessions = loaded.map_err(|error| at_store(error.to_string()))?;

        let access = AccessLogger::new(&config.log, &config.privacy, &metrics)
            .map_err(|error| one(config.finding("log.access", at_access_log(&error))))?;
        let (most, doubt) = descriptors::connections(&config, descriptors::allowed(), cores);
        if let Some(doubt) = doubt {
            tracing::warn!(doubt = doubt.problem, "limits.connections is doubtful");
        }
        let admissions = descriptors::admissions(&config, most);
        let (bound, listeners) = bind_listeners(&config, &certificates, &admissions, &mut inherited, cores)?;
        let (for_admin, bound): (Vec<_>, Vec<_>) = bound.into_iter().partition(|bound| bound.serves() == Serves::Admin);
        let admin_server = AdminServer::bind(&config.admin.socket)
            .map_err(|error| one(config.finding("admin.socket", error.to_string())))?;

        let destroyed = destroyed(&*store).await.map_err(|error| at_store(error.to_string()))?;
        note_start(&audit, &*store, now).await.map_err(|error| at_store(error.to_string()))?;

        let limits = config.limits;
        let key_store = Arc::clone(&store) as Arc<dyn KeyStore>;
        let receipts = receipts(&store, &keys, &entropy, (now, destroyed));
        receipts.restarted(now).await;
        let days = config.binding.retention_days;
        let rotations = rotations(&store, &lifecycle, (&receipts, &audit), &sessions, &metrics, &clock, days);
        let gateway = Arc::new(Gateway::new(Parts {
            config: Arc::clone(&config),
            bindings: Arc::clone(&bindings),
            pins: Arc::clone(&store) as _,
            news: Arc::clone(&store) as _,
            key_store: Arc::clone(&key_store),
            audit: Arc::clone(&audit),
            sessions: Arc::clone(&sessions),
            keys: Arc::clone(&keys),
            rotations: Arc::clone(&rotations),
            lifecycle: Arc::clone(&lifecycle),
            metrics: Arc::clone(&metrics),
            access,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            shutdown: shutdown.clone(),
            admission: admissions.clients,
        }));
        gateway.self_test().await;
        let background = TaskTracker::new();
        let roles = Arc::new(admin::Roles::new(own_uid(), config.admin.roles.clone()));
        let operations = Operations {
            key_store,
            rotations: Arc::clone(&rotations),
            receipts,
            approvals: Arc::clone(&store) as Arc<dyn ApprovalStore>,
            approval_policy: Arc::new(admin::ApprovalPolicy::new(own_uid(), &config.admin)),
            bindings,
            pins: Arc::clone(&store) as _,
            audit,
            sessions,
            keys,
            lifecycle,
            roles,
            entropy,
            clock,
            metrics,
            config: Arc::clone(&config),
            shutdown: shutdown.clone(),
        };
        let handshake = limits.timeouts.handshake;
        serve_admin(operations, admin_server, for_admin, handshake, &shutdown, &background);
        background.spawn(rotations.run(shutdown.clone()));
        let renewal = Arc::new(Renewal::new(&gateway.config, certificates));
        background.spawn(upkeep::run(Arc::clone(&gateway), Arc::clone(&renewal), shutdown.clone()));
        let health = watch_servers(&gateway, &upstream_tls, &shutdown, &background);
        let workers = match start_workers(bound, &gateway, upstream_tls, health, &shutdown) {
            Ok(workers) => workers,
            Err(error) => {
                shutdown.cancel();
                background.close();
                background.wait().await;
                return Err(one(config.finding("listener", error.to_string())));
            }
        };
        gateway.set_ready(true);
        Ok(Self { gateway, store, listeners, renewal, workers, shutdown, background })
    }

    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn listeners(&self) -> &[Listening] {
        &self.listeners
    }

    /// Reads the certificates, keys and revocation lists of all listeners again. New connections meet them, open ones go on.
    ///
    /// # Errors
    /// All findings; then nothing has changed.
    pub fn renew_certificates(&self) -> Result<usize, Vec<Finding>> {
        self.renewal.renew(&self.gateway.config, self.gateway.clock.now())
    }

    /// What does not answer within `patience`, though all should at once: workers, the store's writer.
    pub(super) async fn silent(&self, patience: Duration) -> Vec<String> {
        let writer = tokio::time::timeout(patience, self.store.writer_answers());
        let (workers, writer) = tokio::join!(self.workers.silent(patience), writer);
        let workers = workers.into_iter().map(|index| format!("worker {index}"));
        let writer = (!writer.unwrap_or(false)).then(|| "store".to_owned());
        workers.chain(writer).collect()
    }

    /// One round of upkeep, for whoever moved the clock and does not want to wait for the next.
    ///
    /// # Errors
    /// [`StoreError`] if the store refused; the next round does the rest.
    pub async fn upkeep(&self) -> Result<(), StoreError> {
        self.renewal.look(&self.gateway.config, self.gateway.clock.now());
        self.gateway.upkeep().await
    }

    /// What replaces the binding keys.
    #[must_use]
    pub fn rotations(&self) -> &Arc<Rotations> {
        &self.gateway.rotations
    }

    /// Resolves once handsets are served; at once, unless the gateway's test of itself failed.
    pub async fn ready(&self) {
        self.gateway.ready().await;
    }

    /// Stops accepting, lets open requests finish for at most `deadline`, and closes the store.
    pub async fn stop(self, deadline: Duration) {
        self.gateway.set_ready(false);
        self.shutdown.cancel();
        self.workers.drained(deadline).await;
        self.background.close();
        if tokio::time::timeout(deadline, self.background.wait()).await.is_err() {
            tracing::warn!("an operator's call was still at work at the deadline");
        }
        if let Err(error) = self.gateway.sessions.sweep(self.gateway.clock.now(), true).await {
            tracing::warn!(%error, "the last uses of sessions were not written");
        }
        let (audit, now) = (&self.gateway.audit, self.gateway.clock.now());
        let stopped = Event::new(Action::GatewayStop, Actor::Gateway);
        let sealed = match audit.note(stopped, now).await {
            Ok(_) => audit.seal(now).await,
            Err(error) => Err(SealError::Store(error)),
        };
        if let Err(error) = sealed {
            tracing::error!(%error, "the end of the audit trail was not sealed");
        }
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store was not closed cleanly; nothing that was acknowledged is lost");
        }
    }
}

/// Begins to probe the servers of the upstreams that want it.
fn watch_servers(
    gateway: &Arc<Gateway>,
    tls: &Arc<UpstreamTls>,
    shutdown: &CancellationToken,
    background: &TaskTracker,
) -> Arc<Health> {
    let upstreams = gateway.config.upstreams.clone();
    let health = Arc::new(Health::new(&upstreams));
    let metrics = Arc::clone(&gateway.metrics);
    let told = Arc::new(move |upstream: &UpstreamConfig, server: &UpstreamServer, up| {
        metrics.upstream_server(&upstream.name, &server.to_string(), up);
    });
    background.spawn(Arc::clone(&health).watch(upstreams, Arc::clone(tls), told, shutdown.clone()));
    health
}

/// What start-up would find, beyond the text of the configuration: certificates, KEK, ports, admin socket, access log,
/// store, keys. Changes nothing and keeps nothing.
pub async fn inspect(config: &Config, now: Timestamp, entropy: &dyn Entropy) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(found) = load_tls(config, now) {
        findings.extend(found);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    findings.extend(taken_places(config, &Inherited::default(), cores));
    findings.extend(descriptors::connections(config, descriptors::allowed_at_most(), cores).1);
    let keks = opening::inspect_keks(config, entropy, &mut findings).await;
    match EmbeddedStore::inspect(&config.store.path) {
        Ok(Inspection::NotThere) => {}
        Ok(Inspection::Sound(store)) => {
            if let Some(keks) = keks {
                findings.extend(opening::inspect_keys(config, &store, &keks, now).await);
            }
        }
        Err(error) => findings.push(config.finding("store.path", error.to_string())),
    }
    findings
}

fn rotations(
    store: &Arc<EmbeddedStore>,
    lifecycle: &Arc<Lifecycle>,
    (receipts, audit): (&Arc<Receipts>, &Arc<AuditTrail>),
    sessions: &Arc<Sessions<AssertionCache>>,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
    retention_days: u32,
) -> Arc<Rotations> {
    Arc::new(Rotations::new(
        Arc::clone(lifecycle),
        Arc::clone(receipts),
        Arc::clone(audit),
        Arc::clone(store) as Arc<dyn KeyStore>,
        Arc::clone(store) as Arc<dyn RotationStore>,
        Arc::clone(store) as Arc<dyn BindingStore>,
        Arc::clone(sessions),
        Arc::clone(metrics),
        Arc::clone(clock),
        retention_days,
    ))
}

/// Serves administrators at the socket and at their listeners, off the workers that serve handsets.
fn serve_admin(
    operations: Operations,
    socket: AdminServer,
    listeners: Vec<BoundListener>,
    handshake: Duration,
    shutdown: &CancellationToken,
    background: &TaskTracker,
) {
    let api = admin::router(operations);
    for listener in listeners.into_iter().filter_map(|bound| AdminListener::new(bound, handshake)) {
        let (api, shutdown) = (api.clone(), shutdown.clone());
        background.spawn(async move {
            if let Err(error) = listener.serve(api, shutdown).await {
                tracing::error!(%error, "the admin listener cannot serve; the admin socket does");
            }
        });
    }
    background.spawn(socket.serve(api, shutdown.clone()));
}

fn count_writes(store: &EmbeddedStore, metrics: &Arc<Metrics>) {
    let told = Arc::clone(metrics);
    store.observe_writes(move |event| match event {
        WriteEvent::Waits => told.store_write_waits(),
        WriteEvent::Answered(after) => told.store_write_answered(after),
    });
}

/// The sessions that a run before left open and whose binding still stands.
async fn load_sessions(
    store: &Arc<EmbeddedStore>,
    config: &SessionConfig,
    now: Timestamp,
) -> Result<Arc<Sessions<AssertionCache>>, StoreError> {
    let SessionConfig { idle, absolute, per_account, .. } = *config;
    let session_store: Arc<dyn SessionStore> = Arc::clone(store) as _;
    let policy = SessionPolicy { idle, absolute, per_account };
    let sessions = Arc::new(Sessions::load(session_store, policy, now).await?);
    end_orphans(&**store, &sessions, now).await?;
    Ok(sessions)
}

/// Ends sessions whose binding was erased, or whose account was suspended, by a run that died before it ended them.
async fn end_orphans(
    bindings: &dyn BindingStore,
    sessions: &Sessions<AssertionCache>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let held: BTreeSet<BindingId> = sessions.list(None, now).iter().map(|s| s.record().binding).collect();
    for binding in held {
        if !bindings.stands(binding).await? {
            sessions.end(SessionScope::Binding(binding)).await?;
        }
    }
    Ok(())
}

/// Ports, admin socket and access log that this gateway cannot have. Changes nothing and keeps nothing.
fn taken_places(config: &Config, inherited: &Inherited, cores: usize) -> Vec<Finding> {
    let passed = inherited.problems(&config.listeners, cores);
    let mut findings: Vec<_> = passed
        .into_iter()
        .map(|(listener, problem)| match listener {
            Some(i) => at_listener(config, i, problem),
            None => config.finding("listener", problem),
        })
        .collect();
    for (i, listener) in config.listeners.iter().enumerate().filter(|(_, listener)| !inherited.holds(listener.address))
    {
        if let Err(error) = BoundListener::probe(listener.address) {
            findings.push(at_listener(config, i, error.to_string()));
        }
    }
    if let Err(error) = AdminServer::probe(&config.admin.socket) {
        findings.push(config.finding("admin.socket", error.to_string()));
    }
    if let Err(error) = AccessLogger::probe(&config.log) {
        findings.push(config.finding("log.access", at_access_log(&error)));
    }
    findings
}

/// Starts the threads that serve handsets and forwarders.
fn start_workers(
    bound: Vec<BoundListener>,
    gateway: &Arc<Gateway>,
    tls: Arc<UpstreamTls>,
    health: Arc<Health>,
    shutdown: &CancellationToken,
) -> io::Result<Workers> {
    let limits = gateway.config.limits;
    let gateway = Arc::clone(gateway);
    let make = move |_| {
        let config = &gateway.config;
        let upstreams = Upstreams::new(&config.upstreams, Arc::clone(&tls), &health, &config.limits);
        Arc::new(Worker::new(Arc::clone(&gateway), upstreams))
    };
    Workers::start(bound, make, &limits, shutdown)
}

/// What issues receipts, on the store's ports.
fn receipts(
    store: &Arc<EmbeddedStore>,
    keys: &Arc<KeySet>,
    entropy: &Arc<dyn Entropy>,
    (process_started_at, destroyed_before): (Timestamp, BTreeSet<String>),
) -> Arc<Receipts> {
    Arc::new(Receipts {
        kept: Arc::clone(store) as _,
        rotations: Arc::clone(store) as _,
        key_records: Arc::clone(store) as _,
        approvals: Arc::clone(store) as _,
        audit: Arc::clone(store) as _,
        keys: Arc::clone(keys),
        entropy: Arc::clone(entropy),
        process_started_at,
        destroyed_before,
    })
}

/// Ids of the keys that this process never has.
async fn destroyed(keys: &dyn KeyStore) -> Result<BTreeSet<String>, StoreError> {
    let destroyed = keys.keys().await?.keys.into_iter().filter(|key| key.state == KeyState::Destroyed);
    Ok(destroyed.map(|key| key.id).collect())
}

fn open_store(config: &Config, now: Timestamp, entropy: &dyn Entropy) -> Result<Arc<EmbeddedStore>, Vec<Finding>> {
    let path = &config.store.path;
    let (store, opened) = EmbeddedStore::open(path, now, entropy)
        .map_err(|error| vec![config.finding("store.path", error.to_string())])?;
    match opened {
        Opened::Created => tracing::info!(path = %path.display(), "a new store was created"),
        Opened::Existing => {}
        Opened::Upgraded { backup } => {
            tracing::info!(path = %path.display(), backup = %backup.display(), "the store was upgraded");
        }
    }
    Ok(Arc::new(store))
}

async fn open_audit(
    store: &Arc<EmbeddedStore>,
    keys: &KeySet,
    entropy: &Arc<dyn Entropy>,
    now: Timestamp,
) -> Result<AuditTrail, StoreError> {
    let store_id = store.store_id().await?;
    AuditTrail::open(Arc::clone(store) as _, store_id, keys.audit(), Arc::clone(entropy), now).await
}

/// Which program runs from now on, and with which keys.
async fn note_start(audit: &AuditTrail, keys: &dyn KeyStore, now: Timestamp) -> Result<(), StoreError> {
    let start = Event::new(Action::GatewayStart, Actor::Gateway).object(env!("CARGO_PKG_VERSION"));
    audit.note(start, now).await?;
    let stored = keys.keys().await?.keys;
    let in_use = stored.iter().filter(|key| key.state == KeyState::Active).map(|key| key.id.as_str());
    let opened = Event::new(Action::KeySetOpen, Actor::Gateway).object(in_use.collect::<Vec<_>>().join(" "));
    audit.note(opened, now).await.map(drop)
}

fn bind_listeners(
    config: &Config,
    certificates: &Certificates,
    admissions: &Admissions,
    inherited: &mut Inherited,
    cores: usize,
) -> Result<(Vec<BoundListener>, Vec<Listening>), Vec<Finding>> {
    let proxies = Arc::new(config.gateway.trusted_proxies.clone());
    let bind = |(i, (listener, certificate)): (usize, (&ListenerConfig, Option<_>))| {
        let tls = certificate.is_some();
        // Administrators are served beside the admin socket, off the workers.
        let sockets = if listener.serves == Serves::Admin { 1 } else { cores };
        let admission = if listener.serves == Serves::Ops { &admissions.ops } else { &admissions.clients };
        let socket = BoundListener::bind(listener, certificate, &proxies, admission, inherited, sockets)
            .map_err(|error| vec![at_listener(config, i, error.to_string())])?;
        let address = socket.address();
        Ok((socket, Listening { serves: listener.serves, tls, address }))
    };
    config.listeners.iter().zip(certificates.iter().cloned()).enumerate().map(bind).collect()
}

fn at_listener(config: &Config, index: usize, problem: String) -> Finding {
    config.finding(&format!("listener[{index}].address"), problem)
}

fn at_access_log(error: &io::Error) -> String {
    format!("the file cannot be written ({error}); make its folder, writable by the gateway's user")
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
