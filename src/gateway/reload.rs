//! Another configuration for a gateway that serves: read, judged and made ready beside the one in force, then swapped in one
//! step. A request ends under the configuration that it began under; what is not sound changes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificates::{RevocationLists, load_listeners, load_tls};
use super::descriptors::{self, Admissions};
use super::last_minute::LastMinute;
use super::listeners::{Change, Listeners, Listening};
use super::log_days;
use super::notice;
use super::startup::{LAST_SPANS, at_log_file};
use super::state::{Gateway, Setting};
use crate::admin::{Process, ReloadError, Reloaded, Status};
use crate::audit::{Action, Effect, Event};
use crate::clock::Timestamp;
use crate::config::{Config, Finding, InForce, Severity, UpstreamConfig, UpstreamServer};
use crate::edge::{BoundListener, Entrance, Inherited};
use crate::entropy::random;
use crate::privacy::Promise;
use crate::session::SessionPolicy;
use crate::store::StoreError;
use crate::telemetry::{Actor, Redirection, ReloadOutcome, SecurityRedirection, configure_log, open_security_log};
use crate::upstream::Health;

/// What a reload replaces, and what it needs for that.
pub(super) struct Live {
    pub(super) gateway: Arc<ArcSwap<Gateway>>,
    /// The same configuration, for who asks again each time.
    pub(super) config: Arc<InForce>,
    listeners: Mutex<Listeners>,
    for_workers: Entrance,
    for_admin: mpsc::UnboundedSender<BoundListener>,
    cores: usize,
    pub(super) shutdown: CancellationToken,
    background: TaskTracker,
    /// Ends the probes of the configuration in force.
    probing: Mutex<CancellationToken>,
    /// Held for a whole reload: one after the other.
    reloading: tokio::sync::Mutex<()>,
    admissions: Admissions,
    /// As they were when they were last read.
    lists: Mutex<RevocationLists>,
    pub(super) started_at: Timestamp,
    /// When the configuration in force came into force.
    since: Mutex<Timestamp>,
    pub(super) last_minute: LastMinute,
}

/// A configuration that could come into force in the next moment.
struct Prepared {
    gateway: Arc<Gateway>,
    /// Of the access log and of the security log.
    redirections: (Redirection, SecurityRedirection),
    listeners: Change,
    /// Connections of clients that may be open.
    connections: u64,
    lists: RevocationLists,
    warnings: Vec<Finding>,
}

#[async_trait]
impl Process for Live {
    async fn reload(self: Arc<Self>, by: Actor) -> Result<Reloaded, ReloadError> {
        let background = self.background.clone();
        // A task of its own: what was begun is made or refused, and noted, though its caller hangs up; a stop waits for it.
        let reload = background.spawn(async move { self.one_reload(by).await });
        reload.await.unwrap_or(Err(ReloadError::Stopping))
    }

    async fn status(&self) -> Status {
        self.status_now().await
    }

    async fn posture(&self) -> Result<Vec<Promise>, StoreError> {
        self.posture_now().await
    }
}

impl Live {
    /// Of a gateway that begins to serve `listeners` at `now`. More of them come by `for_workers` and `for_admin`.
    pub(super) fn new(
        (gateway, config): (Arc<ArcSwap<Gateway>>, Arc<InForce>),
        (listeners, lists): (Listeners, RevocationLists),
        admissions: Admissions,
        (for_workers, cores): (Entrance, usize),
        for_admin: mpsc::UnboundedSender<BoundListener>,
        background: TaskTracker,
        now: Timestamp,
    ) -> Self {
        let first = gateway.load_full();
        first.show_upstreams();
        Self {
            config,
            shutdown: first.shutdown.clone(),
            gateway,
            listeners: Mutex::new(listeners),
            for_workers,
            for_admin,
            cores,
            background,
            probing: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            admissions,
            lists: Mutex::new(lists),
            started_at: now,
            since: Mutex::new(now),
            last_minute: LastMinute::default(),
        }
    }

    async fn one_reload(&self, by: Actor) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self.reloading.lock().await;
        self.tell_systemd(true);
        let outcome = self.reload_now(by).await;
        self.tell_systemd(false);
        let gateway = self.gateway.load_full();
        let metrics = &gateway.metrics;
        if outcome.is_err() {
            // The one that was refused was made ready, and counts by the names in it.
            gateway.show_upstreams();
        }
        match &outcome {
            Ok(reloaded) => {
                for warning in &reloaded.warnings {
                    tracing::warn!(%warning, "the configuration in force is doubtful");
                }
                metrics.reload(ReloadOutcome::Done);
            }
            Err(ReloadError::Findings(findings)) => {
                for finding in findings.iter().filter(|finding| finding.severity == Severity::Error) {
                    tracing::error!(%by, %finding, "the configuration in the file was refused; the former one holds");
                }
                metrics.reload(ReloadOutcome::Refused);
            }
            Err(ReloadError::Stopping) => {}
            Err(ReloadError::Store(error)) => {
                tracing::error!(%by, %error, "a reload could not be written into the audit trail");
                metrics.reload(ReloadOutcome::Failed);
            }
        }
        outcome
    }

    async fn reload_now(&self, by: Actor) -> Result<Reloaded, ReloadError> {
        if self.shutdown.is_cancelled() {
            return Err(ReloadError::Stopping);
        }
        let former = self.gateway.load_full();
        let prepared = self.prepare(&former).await?;
        let config = Arc::clone(&prepared.gateway.config);
        let warnings = prepared.warnings.iter().map(ToString::to_string).collect();
        let event = Event::new(Action::ConfigReload, by).object(&config.sha256);
        let told = Arc::clone(&prepared.gateway.told);
        let swap = async {
            // From here on nothing fails: what people are told from now on is kept before they are.
            notice::put_in_force(&*former.notices, &told, &former.audit, &*former.clock, by).await?;
            self.swap(prepared);
            Ok::<_, ReloadError>(((), Effect::none()))
        };
        former.audit.act(event, &*former.clock, swap).await?;
        self.gateway.load_full().note_proof(true).await;
        Ok(Reloaded {
            file: config.file.display().to_string(),
            sha256: config.sha256.clone(),
            reloaded_at: former.clock.now().rfc3339(),
            warnings,
        })
    }

    /// Reads and judges the file, and opens what the configuration in it needs. Changes nothing.
    async fn prepare(&self, former: &Arc<Gateway>) -> Result<Prepared, ReloadError> {
        let (file, now) = (former.config.file.clone(), former.clock.now());
        let read = move || {
            let (config, warnings) = Config::load(&file)?;
            let lists = RevocationLists::of(&config);
            let tls = load_tls(&config, now)?;
            Ok((Arc::new(config), warnings, lists, tls))
        };
        // Off this thread, which serves administrators: patterns are compiled, and files may be slow.
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| ReloadError::Stopping)?;
        let (config, mut warnings, lists, (certificates, upstream_tls)) = read.map_err(ReloadError::Findings)?;
        let mut findings = kept_until_restart(&former.config, &config);
        // What systemd passed was taken or refused at the start.
        let mut none = Inherited::default();
        let (admissions, cores) = (&self.admissions, self.cores);
        let listeners =
            lock(&self.listeners).change(&config, &certificates, admissions, &mut none, cores, &self.shutdown);
        let listeners = listeners.map_err(|found| findings.extend(found)).ok();
        let access = former.access.next(&config.log, &config.privacy, &former.metrics);
        let access = access.map_err(|error| findings.push(config.finding("log.access", at_log_file(&error)))).ok();
        if let Some((access, _)) = &access
            && let Err(error) = log_days::keep_ahead(access, &former.lifecycle, now).await
        {
            findings.push(log_days::finding(&config, &error));
        }
        let security = open_security_log(&config.log, &former.metrics);
        let security = security.map_err(|e| findings.push(config.finding("log.security", at_log_file(&e)))).ok();
        let tracer = former.tracer.next(config.trace.as_ref(), &former.metrics, &former.clock, &former.entropy);
        let tracer = tracer.map_err(|error| findings.push(config.finding(&error.key(), error.to_string()))).ok();
        let (Some(listeners), Some((access, redirection)), Some(security), Some(tracer), true) =
            (listeners, access, security, tracer, findings.is_empty())
        else {
            findings.extend(warnings);
            findings.sort_by_key(|finding| finding.line);
            return Err(ReloadError::Findings(findings));
        };
        let seed = u64::from_le_bytes(random(&*former.entropy));
        let health = Arc::new(Health::new(&config.upstreams, Some(&former.health), seed));
        let (connections, doubts) = descriptors::connections(&config, descriptors::allowed(), self.cores);
        warnings.extend(doubts);
        let setting = Setting { config: Arc::clone(&config), access, upstream_tls, health, tracer };
        let gateway = Arc::new(former.under(setting));
        // Carriers bring names of fields: nothing is served under them before it was seen that none can be forged.
        if let Err(error) = gateway.prove().await {
            let finding = |problem| config.finding("carriers", problem);
            return Err(ReloadError::Findings(error.problems().into_iter().map(finding).collect()));
        }
        warnings.extend(notice::doubt(&config, &gateway.told, &*former.notices).await?);
        Ok(Prepared { gateway, redirections: (redirection, security), listeners, connections, lists, warnings })
    }

    /// Nothing in here can fail or wait.
    fn swap(&self, prepared: Prepared) {
        let Prepared { gateway, redirections, listeners, connections, lists, warnings: _ } = prepared;
        let config = Arc::clone(&gateway.config);
        let session = config.session;
        gateway.sessions.set_policy(SessionPolicy {
            idle: session.idle,
            absolute: session.absolute,
            per_account: session.per_account,
        });
        gateway.lifecycle.set_periods(config.keys.periods);
        gateway.rotations.set_retention(config.binding.retention_days);
        redirections.0.take_effect();
        redirections.1.take_effect();
        self.admissions.replace(&config, connections);
        *lock(&self.lists) = lists;
        configure_log(config.log.level);
        let former = self.gateway.swap(Arc::clone(&gateway));
        former.tracer.give_way(&gateway.tracer, LAST_SPANS);
        self.config.replace(config);
        let (listeners, bound) = listeners.make();
        {
            // At once: whoever looks on in between would show those that are gone for good.
            let mut in_force = lock(&self.listeners);
            for (serves, handle) in in_force.handles() {
                gateway.metrics.listener_gone(serves, &handle.address().to_string());
            }
            *in_force = listeners;
        }
        for listener in bound.for_workers {
            self.for_workers.open(listener);
        }
        for listener in bound.for_admin {
            // Nobody takes it where the gateway stops.
            let _ = self.for_admin.send(listener);
        }
        gateway.show_upstreams();
        self.probe(&gateway);
        gateway.look_again();
        let now = gateway.clock.now();
        *lock(&self.since) = now;
        gateway.metrics.in_force_since(now);
        self.tell_of_listeners(&gateway);
        tracing::info!(sha256 = gateway.config.sha256, "another configuration is in force");
    }

    /// What time and authorities bring to the listeners, without a reload.
    pub(super) fn look_after_listeners(&self) {
        self.look_at_revocation_lists();
        let now = self.gateway.load().clock.now();
        self.with_listeners(|listeners| listeners.turn_ticket_keys(now));
    }

    /// Reads what the listeners show and believe again where a revocation list has changed: an authority writes it whenever it
    /// likes, and nobody sends a signal. What is not sound is told once, and the former list holds.
    fn look_at_revocation_lists(&self) {
        // A reload that is at work reads them itself.
        let Ok(_one_at_a_time) = self.reloading.try_lock() else { return };
        let gateway = self.gateway.load_full();
        let found = RevocationLists::of(&gateway.config);
        if *lock(&self.lists) == found {
            return;
        }
        *lock(&self.lists) = found;
        match load_listeners(&gateway.config, gateway.clock.now()) {
            Ok(certificates) => {
                self.with_listeners(|listeners| listeners.renew(&certificates));
                self.tell_of_listeners(&gateway);
                tracing::info!("a revocation list has changed; certificates and lists were read again");
            }
            Err(findings) => {
                for finding in findings {
                    tracing::error!(%finding, "a revocation list has changed and is not used; the former one holds");
                }
            }
        }
    }

    /// That the service reloads, and that it serves again. Not while it starts or stops; without systemd there is nobody to
    /// tell.
    fn tell_systemd(&self, begins: bool) {
        use sd_notify::NotifyState;
        let gateway = self.gateway.load();
        if self.shutdown.is_cancelled() || !gateway.serves() {
            return;
        }
        let _ = match (begins, NotifyState::monotonic_usec_now()) {
            (true, Ok(now)) => sd_notify::notify(&[NotifyState::Reloading, now]),
            (true, Err(_)) => Ok(()),
            (false, _) => sd_notify::notify(&[NotifyState::Ready]),
        };
    }

    /// Probes the servers of this configuration's upstreams, and no others any more.
    pub(super) fn probe(&self, gateway: &Arc<Gateway>) {
        let probing = self.shutdown.child_token();
        std::mem::replace(&mut *lock(&self.probing), probing.clone()).cancel();
        let metrics = Arc::clone(&gateway.metrics);
        let told = Arc::new(move |upstream: &UpstreamConfig, server: &UpstreamServer, up| {
            metrics.upstream_server(&upstream.name, &server.to_string(), up);
        });
        let (health, tls) = (Arc::clone(&gateway.health), Arc::clone(gateway.upstream_tls()));
        self.background.spawn(health.watch(gateway.config.upstreams.clone(), tls, told, probing));
    }

    /// Where it listens, in the order of the configuration.
    pub(super) fn listening(&self) -> Vec<Listening> {
        self.with_listeners(Listeners::listening)
    }

    /// Looks at the listeners in force.
    pub(super) fn with_listeners<T>(&self, look: impl FnOnce(&Listeners) -> T) -> T {
        look(&lock(&self.listeners))
    }

    pub(super) fn in_force_since(&self) -> Timestamp {
        *lock(&self.since)
    }
}

/// Settings of which a running gateway holds what came of them.
fn kept_until_restart(former: &Config, next: &Config) -> Vec<Finding> {
    let kept = [
        ("admin.socket", former.admin.socket == next.admin.socket),
        ("binding.stretch", former.binding.stretch == next.binding.stretch),
        ("keys.kek", former.keys.kek == next.keys.kek),
        ("store.path", former.store.path == next.store.path),
        // Beside the store unless it is written: then the store alone is told.
        ("backup.ledger", former.backup.ledger == next.backup.ledger || !(former.backup.chosen || next.backup.chosen)),
    ];
    let changed = kept.into_iter().filter(|(_, same)| !same);
    changed
        .map(|(key, _)| {
            next.finding(key, "needs a restart: a running gateway cannot change it; nothing was changed".to_owned())
        })
        .collect()
}

/// Nothing panics while it holds one of these, so what poison would protect is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
