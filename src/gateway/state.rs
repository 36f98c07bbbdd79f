//! What the gateway holds: built once from the configuration, shared by all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::bind_ticket::Claimed;
use super::form_token::{self, FormTokens};
use super::limits::Limits;
use super::self_test;
use super::ticket::{self, SignIn, Tickets};
use super::unlock::Locked;
use super::upkeep::Upkeep;
use crate::assertion::AssertionCache;
use crate::audit::{Action, AuditTrail, Event, Outcome};
use crate::carrier::OverTls;
use crate::clock::Clock;
use crate::config::Config;
use crate::edge::{Admission, HeadLimits};
use crate::entropy::Entropy;
use crate::keys::{KeySet, Lifecycle};
use crate::links::{LeaveLinks, OwnSites};
use crate::pages::content_security_policy;
use crate::rotation::Rotations;
use crate::session::Sessions;
use crate::store::{BindingStore, KeyStore, NewsStore, PinStore};
use crate::telemetry::{AccessLogger, Actor, Metrics};
use crate::upstream::{Routes, StrippedHead};

/// What [`Gateway::new`] is made of: everything that was opened before.
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Accounts, codes and bindings.
    pub bindings: Arc<dyn BindingStore>,
    /// PINs, and the tries at them.
    pub pins: Arc<dyn PinStore>,
    /// What people are to be told.
    pub news: Arc<dyn NewsStore>,
    /// Wrapped keys; asked again by readiness only.
    pub key_store: Arc<dyn KeyStore>,
    /// Who did what.
    pub audit: Arc<AuditTrail>,
    /// Live sessions.
    pub sessions: Arc<Sessions<AssertionCache>>,
    /// Keys in clear.
    pub keys: Arc<KeySet>,
    /// What replaces the binding keys.
    pub rotations: Arc<Rotations>,
    /// What replaces them.
    pub lifecycle: Arc<Lifecycle>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The access stream.
    pub access: AccessLogger,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Fires when the gateway is told to stop.
    pub shutdown: CancellationToken,
    /// Counts the connections of clients.
    pub admission: Arc<Admission>,
}

/// The gateway: stages, stores, keys, clock and entropy.
pub struct Gateway {
    pub(super) config: Arc<Config>,
    pub(super) routes: Routes,
    pub(super) head_limits: HeadLimits,
    pub(super) limits: Limits,
    pub(super) forms: FormTokens,
    /// The links that lead off our sites from a URL session.
    pub(super) leave: Arc<LeaveLinks>,
    /// Which URLs are ours.
    pub(super) sites: Arc<OwnSites>,
    /// Sign-ins on their way from the plain listener to TLS.
    pub(super) tickets: Tickets<SignIn>,
    /// What consoles said over TLS of handsets that are identified in the clear.
    pub(super) bind_tickets: Tickets<Claimed>,
    /// Sign-ins that wait for a PIN, because a key of their binding has leaked.
    pub(super) locked: Tickets<Locked>,
    pub(super) issuer: String,
    pub(super) own_origins: [String; 2],
    pub(super) strict_transport: bool,
    pub(super) content_security_policy: HeaderValue,
    pub(super) bindings: Arc<dyn BindingStore>,
    pub(super) pins: Arc<dyn PinStore>,
    pub(super) news: Arc<dyn NewsStore>,
    pub(super) key_store: Arc<dyn KeyStore>,
    pub(super) audit: Arc<AuditTrail>,
    pub(super) sessions: Arc<Sessions<AssertionCache>>,
    pub(super) keys: Arc<KeySet>,
    pub(super) rotations: Arc<Rotations>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access: AccessLogger,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) shutdown: CancellationToken,
    pub(super) admission: Arc<Admission>,
    /// Held for a whole round: rounds do not overlap, and requests never wait for it.
    pub(super) upkeep: tokio::sync::Mutex<Upkeep>,
    ready: AtomicBool,
    unforgeable: AtomicBool,
    /// Whether the audit trail says that the last self-test failed.
    self_test_failed: AtomicBool,
    became_ready: Notify,
}

impl Gateway {
    /// Puts the parts together. Not ready until [`Gateway::set_ready`] says so.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, bindings, pins, news, key_store, audit, sessions, keys, lifecycle, rotations, .. } = parts;
        let Parts { metrics, access, clock, entropy, shutdown, admission, .. } = parts;
        let limits = &config.limits;
        let public = &config.gateway.public_url;
        let plain = &config.gateway.plain_url;
        let needs_plain =
            config.carriers.profiles().iter().any(|profile| profile.enabled() && profile.over_tls() == OverTls::Refuse);
        let both = [public.clone(), plain.clone()];
        Self {
            routes: Routes::new(config.routes.clone()),
            head_limits: HeadLimits {
                head_bytes: limits.head_bytes,
                headers: limits.headers,
                url_bytes: limits.url_bytes,
            },
            limits: Limits::new(limits, &clock, &*entropy),
            forms: FormTokens::new(&*entropy),
            leave: Arc::new(LeaveLinks::new(&*entropy)),
            sites: Arc::new(OwnSites::new(public, plain, &config.gateway.hosts)),
            tickets: Tickets::lasting(ticket::LIFETIME),
            bind_tickets: Tickets::lasting(ticket::LIFETIME),
            locked: Tickets::lasting(form_token::LIFETIME),
            issuer: public.to_string(),
            own_origins: [public.to_string(), plain.to_string()],
            // HSTS would lock handsets out whose identifier is read over plain HTTP under the same name.
            strict_transport: public.https && (!needs_plain || plain.host != public.host),
            // Both, because a form that goes to one of them may be answered with a redirect to the other.
            content_security_policy: content_security_policy(if public.https { &both } else { &[] }),
            config,
            bindings,
            pins,
            news,
            key_store,
            audit,
            sessions,
            keys,
            rotations,
            lifecycle,
            metrics,
            access,
            clock,
            entropy,
            shutdown,
            admission,
            upkeep: tokio::sync::Mutex::default(),
            ready: AtomicBool::new(false),
            unforgeable: AtomicBool::new(false),
            self_test_failed: AtomicBool::new(false),
            became_ready: Notify::new(),
        }
    }

    /// Says whether requests may come: after start-up, and no longer once draining began.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
        self.became_ready.notify_waiters();
    }

    /// Whether requests may come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether the last [`Gateway::self_test`] saw every forged field taken out. Until then, and no longer once one
    /// failed, nothing is passed to an upstream.
    #[must_use]
    pub fn is_unforgeable(&self) -> bool {
        self.unforgeable.load(Ordering::Acquire)
    }

    /// Resolves once requests may come and are served.
    pub async fn ready(&self) {
        loop {
            let changed = self.became_ready.notified();
            if self.is_ready() && self.is_unforgeable() {
                return;
            }
            changed.await;
        }
    }

    /// Sends forged fields through the stages to an upstream of its own, at start-up and whenever somebody doubts.
    /// What survives is named in the log, and handsets are answered 503 until a test passes.
    pub async fn self_test(&self) {
        let config = Arc::clone(&self.config);
        let strip = Arc::new(move |head| StrippedHead::of(head, config.carriers.reserved()));
        let tested = self_test::run(&self.config.carriers.forgeable(), strip, &*self.entropy).await;
        if let Err(error) = &tested {
            error.log();
        }
        self.unforgeable.store(tested.is_ok(), Ordering::Release);
        self.became_ready.notify_waiters();
        // Not each of many failures: only that it began and that it is over.
        let failed = tested.is_err();
        if self.self_test_failed.load(Ordering::Acquire) != failed {
            let outcome = if failed { Outcome::Failed } else { Outcome::Done };
            let event = Event::new(Action::SelfTest, Actor::Gateway).outcome(outcome);
            match self.audit.note(event, self.clock.now()).await {
                Ok(_) => self.self_test_failed.store(failed, Ordering::Release),
                Err(error) => tracing::error!(%error, "the outcome of the self-test is not in the audit trail"),
            }
        }
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
