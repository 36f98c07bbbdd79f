//! What the gateway holds under one configuration, shared by all workers; and what outlives it.

use std::mem::replace;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

use super::bind_ticket::Claimed;
use super::form_token::{self, FormTokens};
use super::limits::Limits;
use super::notice::Told;
use super::self_test::{self, SelfTestError};
use super::ticket::{self, SignIn, Tickets};
use super::unlock::Locked;
use crate::assertion::{AssertionCache, UpstreamId};
use crate::audit::{Action, AuditTrail, Event, Outcome};
use crate::backup::Backups;
use crate::carrier::OverTls;
use crate::clock::Clock;
use crate::config::{Config, SubjectKind, UpstreamConfig};
use crate::edge::{Admission, HeadLimits, Outbox};
use crate::entropy::Entropy;
use crate::keys::{KeySet, Lifecycle};
use crate::links::{LeaveLinks, OwnSites};
use crate::pages::content_security_policy;
use crate::privacy::{Canary, Promises};
use crate::refusal::Reason;
use crate::rotation::Rotations;
use crate::session::Sessions;
use crate::store::{BindingStore, KeyStore, NewsStore, NoticeStore, PinStore};
use crate::telemetry::{AccessLogger, Actor, Metrics, UpstreamMetrics};
use crate::tls::UpstreamTls;
use crate::trace::Tracer;
use crate::upstream::{Health, Routes, StrippedHead, Upstreams};

/// What [`Gateway::new`] is made of: everything that was opened before.
pub struct Parts {
    /// Accounts, codes and bindings.
    pub bindings: Arc<dyn BindingStore>,
    /// PINs, and the tries at them.
    pub pins: Arc<dyn PinStore>,
    /// What people are to be told.
    pub news: Arc<dyn NewsStore>,
    /// What they are told of their data.
    pub notices: Arc<dyn NoticeStore>,
    /// Wrapped keys; asked again by readiness only.
    pub key_store: Arc<dyn KeyStore>,
    /// Who did what.
    pub audit: Arc<AuditTrail>,
    /// Hears of what was erased.
    pub backups: Arc<Backups>,
    /// Live sessions.
    pub sessions: Arc<Sessions<AssertionCache>>,
    /// What carries the privacy policy out.
    pub promises: Promises,
    /// Keys in clear.
    pub keys: Arc<KeySet>,
    /// What replaces the binding keys.
    pub rotations: Arc<Rotations>,
    /// What replaces them.
    pub lifecycle: Arc<Lifecycle>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Fires when the gateway is told to stop.
    pub shutdown: CancellationToken,
    /// Counts the connections of clients.
    pub admission: Arc<Admission>,
}

/// What a configuration brings with it: all that the next one replaces.
pub struct Setting {
    /// The configuration.
    pub config: Arc<Config>,
    /// The access stream.
    pub access: AccessLogger,
    /// What its upstreams believe and are shown.
    pub upstream_tls: Arc<UpstreamTls>,
    /// What probes say of its upstreams.
    pub health: Arc<Health>,
    /// What records requests for a collector.
    pub tracer: Tracer,
}

/// The gateway under one configuration: stages, stores, keys, clock and entropy. A request has one from its head to its end;
/// [`Gateway::under`] makes the next, which shares with it all that outlives a configuration.
pub struct Gateway {
    pub(super) config: Arc<Config>,
    /// What the configuration tells people.
    pub(super) told: Arc<Told>,
    pub(super) routes: Routes,
    pub(super) head_limits: HeadLimits,
    pub(super) limits: Limits,
    pub(super) forms: Arc<FormTokens>,
    /// The links that lead off our sites from a URL session.
    pub(super) leave: Arc<LeaveLinks>,
    /// Which URLs are ours.
    pub(super) sites: Arc<OwnSites>,
    /// Sign-ins on their way from the plain listener to TLS.
    pub(super) tickets: Arc<Tickets<SignIn>>,
    /// What consoles said over TLS of handsets that are identified in the clear.
    pub(super) bind_tickets: Arc<Tickets<Claimed>>,
    /// Sign-ins that wait for a PIN, because a key of their binding has leaked.
    pub(super) locked: Arc<Tickets<Locked>>,
    pub(super) issuer: String,
    pub(super) own_origins: [String; 2],
    pub(super) strict_transport: bool,
    pub(super) content_security_policy: HeaderValue,
    /// By the upstream's index in the configuration.
    upstreams: Vec<UpstreamInForce>,
    upstream_tls: Arc<UpstreamTls>,
    pub(super) health: Arc<Health>,
    pub(super) bindings: Arc<dyn BindingStore>,
    pub(super) pins: Arc<dyn PinStore>,
    pub(super) news: Arc<dyn NewsStore>,
    pub(super) notices: Arc<dyn NoticeStore>,
    pub(super) key_store: Arc<dyn KeyStore>,
    pub(super) audit: Arc<AuditTrail>,
    pub(super) backups: Arc<Backups>,
    pub(super) sessions: Arc<Sessions<AssertionCache>>,
    pub(super) promises: Promises,
    pub(super) keys: Arc<KeySet>,
    pub(super) rotations: Arc<Rotations>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access: AccessLogger,
    pub(super) tracer: Tracer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) shutdown: CancellationToken,
    pub(super) admission: Arc<Admission>,
    /// Held for a whole round: rounds do not overlap, and requests never wait for it.
    pub(super) upkeep: Arc<tokio::sync::Mutex<()>>,
    readiness: Arc<Readiness>,
    unforgeable: AtomicBool,
}

/// What an upstream is known by at each request.
struct UpstreamInForce {
    id: UpstreamId,
    metrics: UpstreamMetrics,
}

/// Whether requests may come.
#[derive(Default)]
struct Readiness {
    ready: AtomicBool,
    /// Whether the audit trail says that the last self-test failed.
    self_test_failed: AtomicBool,
    /// What a store waits for that was restored and is not what it should be yet.
    catching_up: Mutex<Option<Arc<String>>>,
    /// Whether that is anything: each request asks.
    is_behind: AtomicBool,
    changed: Notify,
}

impl Readiness {
    fn catching_up(&self) -> MutexGuard<'_, Option<Arc<String>>> {
        self.catching_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what it was before.
    fn set_catching_up(&self, waits_for: Option<Arc<String>>) -> Option<Arc<String>> {
        let mut catching_up = self.catching_up();
        // Under the lock, so that of two the last says both.
        self.is_behind.store(waits_for.is_some(), Ordering::Release);
        replace(&mut *catching_up, waits_for)
    }
}

/// What outlives a configuration and is not one of the [`Parts`].
struct Lasting {
    limits: Limits,
    forms: Arc<FormTokens>,
    leave: Arc<LeaveLinks>,
    tickets: Arc<Tickets<SignIn>>,
    bind_tickets: Arc<Tickets<Claimed>>,
    locked: Arc<Tickets<Locked>>,
    upkeep: Arc<tokio::sync::Mutex<()>>,
    readiness: Arc<Readiness>,
}

impl Gateway {
    /// Puts the parts together under the first configuration. Not ready until [`Gateway::set_ready`] says so.
    #[must_use]
    pub fn new(parts: Parts, setting: Setting) -> Self {
        let lasting = Lasting {
            limits: Limits::new(&setting.config.limits, &parts.clock, &*parts.entropy),
            forms: Arc::new(FormTokens::new(&*parts.entropy)),
            leave: Arc::new(LeaveLinks::new(&*parts.entropy)),
            tickets: Arc::new(Tickets::lasting(ticket::LIFETIME)),
            bind_tickets: Arc::new(Tickets::lasting(ticket::LIFETIME)),
            locked: Arc::new(Tickets::lasting(form_token::LIFETIME)),
            upkeep: Arc::default(),
            readiness: Arc::default(),
        };
        Self::build(parts, lasting, setting)
    }

    /// The same gateway under another configuration. Not unforgeable until [`Gateway::self_test`] has passed.
    #[must_use]
    pub fn under(&self, setting: Setting) -> Self {
        let parts = Parts {
            bindings: Arc::clone(&self.bindings),
            pins: Arc::clone(&self.pins),
            news: Arc::clone(&self.news),
            notices: Arc::clone(&self.notices),
            key_store: Arc::clone(&self.key_store),
            audit: Arc::clone(&self.audit),
            backups: Arc::clone(&self.backups),
            sessions: Arc::clone(&self.sessions),
            promises: self.promises.clone(),
            keys: Arc::clone(&self.keys),
            rotations: Arc::clone(&self.rotations),
            lifecycle: Arc::clone(&self.lifecycle),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            shutdown: self.shutdown.clone(),
            admission: Arc::clone(&self.admission),
        };
        let lasting = Lasting {
            limits: self.limits.under(&setting.config.limits, &self.clock),
            forms: Arc::clone(&self.forms),
            leave: Arc::clone(&self.leave),
            tickets: Arc::clone(&self.tickets),
            bind_tickets: Arc::clone(&self.bind_tickets),
            locked: Arc::clone(&self.locked),
            upkeep: Arc::clone(&self.upkeep),
            readiness: Arc::clone(&self.readiness),
        };
        Self::build(parts, lasting, setting)
    }

    fn build(parts: Parts, lasting: Lasting, setting: Setting) -> Self {
        let Parts { bindings, pins, news, key_store, audit, backups, sessions, keys, lifecycle, rotations, .. } = parts;
        let Parts { notices, promises, metrics, clock, entropy, shutdown, admission, .. } = parts;
        let Lasting { limits, forms, leave, tickets, bind_tickets, locked, upkeep, readiness } = lasting;
        let Setting { config, access, upstream_tls, health, tracer } = setting;
        let public = &config.gateway.public_url;
        let plain = &config.gateway.plain_url;
        let needs_plain =
            config.carriers.profiles().iter().any(|profile| profile.enabled() && profile.over_tls() == OverTls::Refuse);
        let both = [public.clone(), plain.clone()];
        let issuer = public.to_string();
        let in_force = |upstream: &UpstreamConfig| {
            let subject = match upstream.subject {
                SubjectKind::Pairwise => "pairwise",
                SubjectKind::Account => "account",
            };
            let id = UpstreamId::new(&issuer, &upstream.name, &upstream.audience, subject);
            UpstreamInForce { id, metrics: metrics.upstream(&upstream.name) }
        };
        Self {
            told: Arc::new(Told::of(&config)),
            routes: Routes::new(config.routes.clone()),
            head_limits: HeadLimits {
                head_bytes: config.limits.head_bytes,
                headers: config.limits.headers,
                url_bytes: config.limits.url_bytes,
            },
            limits,
            forms,
            leave,
            sites: Arc::new(OwnSites::new(public, plain, &config.gateway.hosts)),
            tickets,
            bind_tickets,
            locked,
            upstreams: config.upstreams.iter().map(in_force).collect(),
            issuer,
            own_origins: [public.to_string(), plain.to_string()],
            // HSTS would lock handsets out whose identifier is read over plain HTTP under the same name.
            strict_transport: public.https && (!needs_plain || plain.host != public.host),
            // Both, because a form that goes to one of them may be answered with a redirect to the other.
            content_security_policy: content_security_policy(if public.https { &both } else { &[] }),
            upstream_tls,
            health,
            config,
            bindings,
            pins,
            news,
            notices,
            key_store,
            audit,
            backups,
            sessions,
            promises,
            keys,
            rotations,
            lifecycle,
            metrics,
            access,
            tracer,
            clock,
            entropy,
            shutdown,
            admission,
            upkeep,
            readiness,
            unforgeable: AtomicBool::new(false),
        }
    }

    /// One worker's connections to the upstreams, which write by its `outbox`; those of `former`, which it had until now, are kept where they may.
    #[must_use]
    pub fn connections(&self, former: Option<&Upstreams>, outbox: &Arc<Outbox>) -> Upstreams {
        let Config { upstreams, limits, .. } = &*self.config;
        Upstreams::new(upstreams, &self.upstream_tls, &self.health, limits, former, Some(outbox))
    }

    /// What the upstreams believe and are shown.
    pub(super) const fn upstream_tls(&self) -> &Arc<UpstreamTls> {
        &self.upstream_tls
    }

    /// What sessions know the upstream at this index of the configuration by.
    pub(super) fn upstream_id(&self, index: usize) -> Option<UpstreamId> {
        self.upstreams.get(index).map(|upstream| upstream.id)
    }

    /// The name of the upstream at this index of the configuration.
    pub(super) fn upstream_name(&self, index: usize) -> &str {
        self.config.upstreams.get(index).map_or("", |upstream| &upstream.name)
    }

    /// A request went to the upstream at this index of the configuration; `error` is why it got no answer.
    pub(super) fn count_upstream(&self, index: usize, error: Option<Reason>) {
        if let Some(upstream) = self.upstreams.get(index) {
            upstream.metrics.request(error);
        }
    }

    /// Says whether requests may come: after start-up, and no longer once draining began.
    pub fn set_ready(&self, ready: bool) {
        self.readiness.ready.store(ready, Ordering::Release);
        self.readiness.changed.notify_waiters();
    }

    /// Whether requests may come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.readiness.ready.load(Ordering::Acquire)
    }

    /// Whether the last [`Gateway::self_test`] saw every forged field taken out. Until then, and no longer once one
    /// failed, nothing is passed to an upstream.
    #[must_use]
    pub fn is_unforgeable(&self) -> bool {
        self.unforgeable.load(Ordering::Acquire)
    }

    /// Whether the store is what it should be: not one that was restored, of which something is left to do.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        !self.readiness.is_behind.load(Ordering::Acquire)
    }

    /// What a restored store waits for, for operators.
    pub(super) fn catching_up(&self) -> Option<Arc<String>> {
        self.readiness.catching_up().clone()
    }

    /// Says what that is; `None` once there is nothing.
    pub(super) fn set_catching_up(&self, waits_for: Option<String>) {
        let former = self.readiness.set_catching_up(waits_for.clone().map(Arc::new));
        self.metrics.store_behind(waits_for.is_some());
        if let Some(waits_for) = waits_for.filter(|waits_for| former.is_none_or(|former| *former != *waits_for)) {
            tracing::warn!(waits_for, "no handset is served before the restored store has caught up");
        }
        self.look_again();
    }

    /// Whether a handset may be answered by anything but 503 at all.
    pub(super) fn may_serve(&self) -> bool {
        self.is_unforgeable() && self.is_caught_up()
    }

    /// Whether handsets are served.
    pub(super) fn serves(&self) -> bool {
        self.is_ready() && self.may_serve()
    }

    /// Resolves when [`Gateway::serves`] may have changed, here or in the gateway under another configuration. Ask again what holds between calling this and awaiting it.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.readiness.changed.notified()
    }

    /// Tells whoever waits for [`Gateway::changed`] to look again.
    pub(super) fn look_again(&self) {
        self.readiness.changed.notify_waiters();
    }

    /// Sends forged fields through the stages to an upstream of its own, at start-up and whenever somebody doubts.
    /// What survives is named in the log, and handsets are answered 503 until a test passes.
    pub async fn self_test(&self) {
        let tested = self.prove().await;
        if let Err(error) = &tested {
            error.log();
        }
        self.look_again();
        self.note_proof(tested.is_ok()).await;
    }

    /// Writes into the audit trail that tests of itself fail, or pass again: not each of many, only that it began and that
    /// it is over.
    pub(super) async fn note_proof(&self, passed: bool) {
        if self.readiness.self_test_failed.load(Ordering::Acquire) == passed {
            let outcome = if passed { Outcome::Done } else { Outcome::Failed };
            let event = Event::new(Action::SelfTest, Actor::Gateway).outcome(outcome);
            match self.audit.note(event, self.clock.now()).await {
                Ok(_) => self.readiness.self_test_failed.store(!passed, Ordering::Release),
                Err(error) => tracing::error!(%error, "the outcome of the self-test is not in the audit trail"),
            }
        }
    }

    /// The test alone. It decides what [`Gateway::is_unforgeable`] says from now on.
    ///
    /// # Errors
    /// What survived, or why nothing was proved.
    pub(super) async fn prove(&self) -> Result<(), SelfTestError> {
        let canary = Canary::fresh(&*self.entropy);
        let tested = self.forge(&canary).await;
        self.unforgeable.store(tested.is_ok(), Ordering::Release);
        self.promises.canary.planted(canary);
        tested
    }

    /// The test with this canary; it decides nothing.
    ///
    /// # Errors
    /// As [`Gateway::prove`].
    pub(super) async fn forge(&self, canary: &Canary) -> Result<(), SelfTestError> {
        let config = Arc::clone(&self.config);
        let strip = Arc::new(move |head| StrippedHead::of(head, config.carriers.reserved()));
        self_test::run(&self.config.carriers.forgeable(), strip, canary).await
    }

    /// A forged field survived: nobody is served until a test passes.
    pub(super) fn doubt(&self) {
        self.unforgeable.store(false, Ordering::Release);
        self.look_again();
    }

    /// Forgets what limits and forms no longer need.
    pub fn sweep(&self) {
        self.limits.sweep();
        self.forms.sweep(self.clock.now());
        self.tickets.sweep(self.clock.now());
        self.bind_tickets.sweep(self.clock.now());
        self.locked.sweep(self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_caught_up_once_it_waits_for_nothing() {
        let readiness = Readiness::default();
        let mut former = None;
        for waits_for in [None, Some("a"), Some("b"), None, None] {
            let waits_for = waits_for.map(|waits_for| Arc::new(String::from(waits_for)));
            assert_eq!(readiness.set_catching_up(waits_for.clone()), former);
            assert_eq!(readiness.is_behind.load(Ordering::Acquire), waits_for.is_some());
            assert_eq!(*readiness.catching_up(), waits_for);
            former = waits_for;
        }
    }
}
