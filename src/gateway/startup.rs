//! From a configuration to a running gateway; `check` walks the same steps and keeps nothing.
//!
//! Order: what can be refused without touching anything comes first (certificates, KEK and its token, a look at ports, admin socket
//! and access log), then the store, then the keys in it, then the ports, and last the admin socket. So a refusal leaves
//! what was there as it was, and no store behind where there was none.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catch_up::CatchUp;
use super::certificates::{RevocationLists, load_tls};
use super::descriptors::Admissions;
use super::listeners::{Listeners, Listening};
use super::reload::Live;
use super::state::{Gateway, Parts, Setting};
use super::{Worker, behind, certificates, descriptors, log_days, notice, opening, policy, upkeep};
use crate::admin::{self, AdminListener, AdminServer, Operations, Process};
use crate::assertion::AssertionCache;
use crate::audit::{Action, AuditTrail, Event, SealError};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Finding, InForce, SessionConfig};
use crate::edge::{BoundListener, Inherited, Workers};
use crate::entropy::{Entropy, random};
use crate::keys::{KeySet, Lifecycle};
use crate::receipt::Receipts;
use crate::rotation::{Drill, Rotations};
use crate::session::{SessionPolicy, Sessions};
use crate::store::{
    ApprovalStore, BindingStore, EmbeddedStore, Inspection, KeyState, KeyStore, Opened, RotationStore, SessionStore,
    StoreError, WriteEvent,
};
use crate::telemetry::{AccessLogger, Actor, Metrics, probe_security_log};
use crate::trace::Tracer;
use crate::upstream::Health;

/// How long the last spans of a configuration may take: at a stop, once the last requests were answered, or at a reload that
/// has spans sent another way.
pub(super) const LAST_SPANS: Duration = Duration::from_secs(3);

/// A gateway that serves. Dropping it without [`Running::stop`] leaves its threads running.
pub struct Running {
    live: Arc<Live>,
    store: Arc<EmbeddedStore>,
    workers: Workers,
    shutdown: CancellationToken,
    background: TaskTracker,
}

impl Running {
    /// Starts everything that `config` names, `cores` workers wide; listeners whose sockets are `inherited` bind nothing.
    /// Must be called within a tokio runtime, which keeps the admin socket and the upkeep.
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
        let lists = RevocationLists::of(&config);
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
        policy::check_purposes(&config, &store).await?;
        count_writes(&store, &metrics);
        let (keys, lifecycle) = opening::open_keys(&config, &store, kek, &entropy, now).await.map_err(one)?;
        let audit = open_audit(&store, &keys, &entropy, now).await.map_err(|error| at_store(error.to_string()))?;
        let audit = Arc::new(audit);
        let (backups, behind) = behind::open_ledger(&config, &store, &audit, now).await.map_err(one)?;
        let shutdown = CancellationToken::new();
        let loaded = load_sessions(&store, &config.session, now).await;
        let sessions = loaded.map_err(|error| at_store(error.to_string()))?;

        let (access, tracer) = records(&config, &metrics, &clock, &entropy, &lifecycle).await.map_err(one)?;
        let admissions = admissions(&config, cores);
        let change =
            Listeners::default().change(&config, &certificates, &admissions, &mut inherited, cores, &shutdown)?;
        let admin_server = AdminServer::bind(&config.admin.socket)
            .map_err(|error| one(config.finding("admin.socket", error.to_string())))?;

        let destroyed = destroyed(&*store).await.map_err(|error| at_store(error.to_string()))?;
        note_start(&audit, &*store, now).await.map_err(|error| at_store(error.to_string()))?;

        let key_store = Arc::clone(&store) as Arc<dyn KeyStore>;
        let receipts = receipts(&store, &keys, &entropy, (now, destroyed));
        receipts.restarted(now).await;
        let days = config.binding.retention_days;
        let rotations = rotations(&store, &lifecycle, (&receipts, &audit), &sessions, &metrics, &clock, days);
        let (ledger, moved) = ((behind, &backups, &audit), (&rotations, &lifecycle));
        let catch_up = CatchUp::begin(ledger, moved, &clock, &config).await.map_err(one)?;
        let config_in_force = Arc::new(InForce::new(Arc::clone(&config)));
        let with = (&audit, &backups, &clock, &config_in_force);
        let promises = policy::promises(&store, &keys, &rotations, &sessions, with).await;
        let promises = promises.map_err(|error| at_store(error.to_string()))?;
        let seed = u64::from_le_bytes(random(&*entropy));
        let parts = Parts {
            bindings: Arc::clone(&store) as _,
            pins: Arc::clone(&store) as _,
            news: Arc::clone(&store) as _,
            notices: Arc::clone(&store) as _,
            key_store,
            audit,
            backups,
            sessions,
            promises,
            keys,
            rotations: Arc::clone(&rotations),
            lifecycle,
            metrics,
            clock,
            entropy,
            shutdown: shutdown.clone(),
            admission: Arc::clone(&admissions.clients),
        };
        let health = Arc::new(Health::new(&config.upstreams, None, seed));
        let gateway =
            Gateway::new(parts, Setting { config: Arc::clone(&config), access, upstream_tls, health, tracer });
        let gateway = Arc::new(gateway);
        policy::tell(&gateway).await.map_err(|error| at_store(error.to_string()))?;
        gateway.self_test().await;
        let background = TaskTracker::new();
        CatchUp::go_on(catch_up, &gateway, &background).await;
        let in_force = Arc::new(ArcSwap::new(Arc::clone(&gateway)));
        let (listeners, bound) = change.make();
        let workers = start_workers(cores, bound.for_workers, &in_force, &shutdown)
            .map_err(|error| one(config.finding("listener", error.to_string())))?;
        let (for_admin, from_now_on) = mpsc::unbounded_channel();
        for listener in bound.for_admin {
            let _ = for_admin.send(listener); // its receiver is right here
        }
        let (listeners, way_in) = ((listeners, lists), (workers.entrance().clone(), cores));
        let live =
            Live::new((in_force, config_in_force), listeners, admissions, way_in, for_admin, background.clone(), now);
        let live = Arc::new(live);
        let operations = operations(&gateway, &store, receipts, &live);
        serve_admin(operations, admin_server, from_now_on, &shutdown, &background);
        background.spawn(rotations.run(shutdown.clone()));
        background.spawn(upkeep::run(Arc::clone(&live), shutdown.clone()));
        live.probe(&gateway);
        let looking_on = Arc::clone(&live);
        background.spawn(async move { looking_on.look_on().await });
        gateway.metrics.in_force_since(now);
        gateway.set_ready(true);
        Ok(Self { live, store, workers, shutdown, background })
    }

    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listening> {
        self.live.listening()
    }

    /// What does not answer within `patience`, though all should at once: workers, the store's writer.
    pub(super) async fn silent(&self, patience: Duration) -> Vec<String> {
        let writer = tokio::time::timeout(patience, self.store.writer_answers());
        let (workers, writer) = tokio::join!(self.workers.silent(patience), writer);
        let workers = workers.into_iter().map(|index| format!("worker {index}"));
        let writer = (!writer.unwrap_or(false)).then(|| "store".to_owned());
        workers.chain(writer).collect()
    }

    /// What brings another configuration into force while it runs.
    #[must_use]
    pub fn process(&self) -> Arc<dyn Process> {
        Arc::clone(&self.live) as Arc<dyn Process>
    }

    /// One round of upkeep, for whoever moved the clock and does not want to wait for the next.
    ///
    /// # Errors
    /// [`StoreError`] if the store refused; the next round does the rest.
    pub async fn upkeep(&self) -> Result<(), StoreError> {
        self.live.look_after_listeners();
        self.gateway().upkeep().await?;
        self.gateway().search_for_canary().await
    }

    /// What replaces the binding keys.
    #[must_use]
    pub fn rotations(&self) -> Arc<Rotations> {
        Arc::clone(&self.gateway().rotations)
    }

    /// The gateway under the configuration in force.
    fn gateway(&self) -> Arc<Gateway> {
        self.live.gateway.load_full()
    }

    /// Resolves once handsets are served; at once, unless the gateway's test of itself failed or a restored store is not
    /// what it should be yet.
    pub async fn ready(&self) {
        loop {
            let gateway = self.gateway();
            let changed = gateway.changed();
            // Asked of whatever is in force once changes are heard of.
            let in_force = self.gateway();
            if in_force.serves() {
                return;
            }
            changed.await;
        }
    }

    /// What a restored store waits for before handsets are served.
    pub(super) fn catching_up(&self) -> Option<Arc<String>> {
        self.gateway().catching_up()
    }

    /// Stops accepting, lets open requests finish for at most `deadline`, and closes the store.
    pub async fn stop(self, deadline: Duration) {
        let gateway = self.gateway();
        gateway.set_ready(false);
        self.shutdown.cancel();
        self.workers.drained(deadline).await;
        self.background.close();
        if tokio::time::timeout(deadline, self.background.wait()).await.is_err() {
            tracing::warn!("an operator's call was still at work at the deadline");
        }
        // A reload that was at work may have put another one in force.
        self.live.gateway.load_full().tracer.close(LAST_SPANS).await;
        if let Err(error) = gateway.sessions.sweep(gateway.clock.now(), true).await {
            tracing::warn!(%error, "the last uses of sessions were not written");
        }
        if let Err(error) = gateway.promises.statistics.flush().await {
            tracing::warn!(%error, "the last counts of the statistics were not written");
        }
        let (audit, now) = (&gateway.audit, gateway.clock.now());
        let stopped = Event::new(Action::GatewayStop, Actor::Gateway);
        let sealed = match audit.note(stopped, now).await {
            Ok(_) => audit.seal(now).await,
            Err(error) => Err(SealError::Store(error)),
        };
        if let Err(error) = sealed {
            tracing::error!(%error, "the end of the audit trail was not sealed");
        }
        if let Err(error) = gateway.backups.settle(now).await {
            tracing::error!(%error, "the ledger of backups was not brought up to the end");
        }
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store was not closed cleanly; nothing that was acknowledged is lost");
        }
    }
}

/// What start-up would find, beyond the text of the configuration: certificates, KEK, ports, admin socket, access log,
/// store, keys. Changes nothing and keeps nothing.
pub async fn inspect(config: &Config, now: Timestamp, entropy: &dyn Entropy) -> Vec<Finding> {
    let mut findings = Vec::new();
    match load_tls(config, now) {
        Ok((shown, _)) => findings.extend(certificates::doubts(config, &shown, now)),
        Err(found) => findings.extend(found),
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    findings.extend(taken_places(config, &Inherited::default(), cores));
    findings.extend(descriptors::connections(config, descriptors::allowed_at_most(), cores).1);
    behind::inspect_ledger(config, &mut findings);
    if let Err(error) = Tracer::inspect(config.trace.as_ref()) {
        findings.push(config.finding(&error.key(), error.to_string()));
    }
    let keks = opening::inspect_keks(config, entropy, &mut findings).await;
    match EmbeddedStore::inspect(&config.store.path) {
        Ok(Inspection::NotThere) => {}
        Ok(Inspection::Sound(store)) => {
            if let Some(keks) = keks {
                findings.extend(opening::inspect_keys(config, &store, &keks, now).await);
            }
            match notice::doubt(config, &notice::Told::of(config), &store).await {
                Ok(doubt) => findings.extend(doubt),
                Err(error) => findings.push(config.finding("store.path", error.to_string())),
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

/// What administrators work on: what the gateway works on, and the process.
fn operations(gateway: &Gateway, store: &Arc<EmbeddedStore>, receipts: Arc<Receipts>, live: &Arc<Live>) -> Operations {
    Operations {
        notices: Arc::clone(&gateway.notices),
        key_store: Arc::clone(&gateway.key_store),
        rotations: Arc::clone(&gateway.rotations),
        drill: Arc::new(Drill::new(
            Arc::clone(&gateway.rotations),
            Arc::clone(store) as _,
            Arc::clone(&gateway.entropy),
            Arc::clone(&gateway.clock),
        )),
        receipts,
        approvals: Arc::clone(store) as Arc<dyn ApprovalStore>,
        bindings: Arc::clone(&gateway.bindings),
        pins: Arc::clone(&gateway.pins),
        audit: Arc::clone(&gateway.audit),
        backups: Arc::clone(&gateway.backups),
        sessions: Arc::clone(&gateway.sessions),
        keys: Arc::clone(&gateway.keys),
        lifecycle: Arc::clone(&gateway.lifecycle),
        promises: gateway.promises.clone(),
        own_uid: own_uid(),
        entropy: Arc::clone(&gateway.entropy),
        clock: Arc::clone(&gateway.clock),
        metrics: Arc::clone(&gateway.metrics),
        config: Arc::clone(&live.config),
        process: Arc::clone(live) as Arc<dyn Process>,
        shutdown: gateway.shutdown.clone(),
    }
}

/// Serves administrators at the socket and at their listeners, off the workers that serve handsets.
fn serve_admin(
    operations: Operations,
    socket: AdminServer,
    mut listeners: mpsc::UnboundedReceiver<BoundListener>,
    shutdown: &CancellationToken,
    background: &TaskTracker,
) {
    let api = admin::router(operations);
    background.spawn(socket.serve(api.clone(), shutdown.clone()));
    let (stopping, serving) = (shutdown.clone(), background.clone());
    background.spawn(async move {
        loop {
            let bound = tokio::select! {
                () = stopping.cancelled() => return,
                bound = listeners.recv() => bound,
            };
            let Some(bound) = bound else { return };
            let Some(listener) = AdminListener::new(bound) else { continue };
            let api = api.clone();
            serving.spawn(async move {
                if let Err(error) = listener.serve(api).await {
                    tracing::error!(%error, "the admin listener cannot serve; the admin socket does");
                }
            });
        }
    });
}

/// Where requests are written to: the access stream, and spans.
async fn records(
    config: &Config,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    lifecycle: &Lifecycle,
) -> Result<(AccessLogger, Tracer), Finding> {
    let access = AccessLogger::new(&config.log, &config.privacy, metrics, Arc::clone(entropy))
        .map_err(|error| config.finding("log.access", at_log_file(&error)))?;
    // Where the access log is sealed, its days need their keys.
    log_days::keep_ahead(&access, lifecycle, clock.now()).await.map_err(|error| log_days::finding(config, &error))?;
    let tracer = Tracer::off()
        .next(config.trace.as_ref(), metrics, clock, entropy)
        .map_err(|error| config.finding(&error.key(), error.to_string()))?;
    Ok((access, tracer))
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
    // Of bindings that were erased, or whose account was suspended, by a run that died before it ended them.
    sessions.end_fallen(&**store).await?;
    Ok(sessions)
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
        findings.push(config.finding("log.access", at_log_file(&error)));
    }
    if let Err(error) = probe_security_log(&config.log) {
        findings.push(config.finding("log.security", at_log_file(&error)));
    }
    findings
}

/// Counts connections as `config` says, as many as the process may have files open for.
fn admissions(config: &Arc<Config>, cores: usize) -> Admissions {
    let (most, doubts) = descriptors::connections(config, descriptors::allowed(), cores);
    for finding in doubts {
        tracing::warn!(%finding, "more connections are allowed than files may be open");
    }
    Admissions::new(config, most)
}

/// Starts the threads that serve handsets and forwarders.
fn start_workers(
    count: usize,
    bound: Vec<BoundListener>,
    in_force: &Arc<ArcSwap<Gateway>>,
    shutdown: &CancellationToken,
) -> io::Result<Workers> {
    let in_force = Arc::clone(in_force);
    Workers::start(
        count,
        bound,
        move |_, outbox| Arc::new(Worker::new(Arc::clone(&in_force), Arc::clone(outbox))),
        shutdown,
    )
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

fn at_listener(config: &Config, index: usize, problem: String) -> Finding {
    config.finding(&format!("listener[{index}].address"), problem)
}

pub(super) fn at_log_file(error: &io::Error) -> String {
    format!("the file cannot be written ({error}); make its folder, writable by the gateway's user")
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
