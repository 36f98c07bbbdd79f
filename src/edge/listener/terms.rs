//! What a listener does with the connections that it accepts from now on: replaced as a whole while it accepts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Full, Seat};
use crate::config::{LimitsConfig, ListenerConfig, Serves};
use crate::edge::{Scheme, TrustedProxies};
use crate::tls::ListenerTlsConfig;

/// How the connections of a listener are met. A connection keeps the terms that it came under to its end.
#[derive(Clone)]
pub struct Terms {
    /// What they are for.
    pub serves: Serves,
    /// The TLS that is spoken, if any.
    pub tls: Option<Arc<ListenerTlsConfig>>,
    /// Whose PROXY header is believed, where connections begin with one.
    pub proxies: Option<Arc<TrustedProxies>>,
    /// Counts the connections, and says when they are too many.
    pub admission: Arc<Admission>,
    /// Bounds within which heads are read, and time-outs.
    pub limits: LimitsConfig,
}

impl Terms {
    /// Those of the configuration. Where it asks for a PROXY header, `proxies` may send it.
    #[must_use]
    pub fn new(
        config: &ListenerConfig,
        tls: Option<Arc<ListenerTlsConfig>>,
        proxies: &Arc<TrustedProxies>,
        admission: &Arc<Admission>,
        limits: &LimitsConfig,
    ) -> Self {
        let proxies = config.proxy_protocol.then(|| Arc::clone(proxies));
        let limits = read_within(config.serves, limits);
        Self { serves: config.serves, tls, proxies, admission: Arc::clone(admission), limits }
    }

    pub(super) const fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Whether the same clients come in by the same certificates under `other`.
    fn admits_as(&self, other: &Self) -> bool {
        match (&self.tls, &other.tls) {
            (Some(tls), Some(other)) => Arc::ptr_eq(tls, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Within which heads are read. Where a proxy asks about another request, one that is too large is refused in a word that
/// proxies take (403), not by who reads it (431), so that it is read first (`interface.md` §3).
const fn read_within(serves: Serves, limits: &LimitsConfig) -> LimitsConfig {
    match serves {
        Serves::ForwardAuth => {
            LimitsConfig { head_bytes: limits.head_bytes * 2, headers: limits.headers * 4, ..*limits }
        }
        Serves::Handset | Serves::Ops | Serves::Admin => *limits,
    }
}

/// Terms in force, and what ends the connections that came in under them.
pub struct TermsInForce {
    /// The terms.
    pub terms: Terms,
    /// Fires when the listener closes, and when other terms say anew who may come in.
    ended: CancellationToken,
}

impl TermsInForce {
    /// What ends a connection under these terms before its own end: where clients show certificates, that these are judged
    /// otherwise from now on, or the end of the listener. Elsewhere that end alone, which each worker has a token of its own for.
    #[must_use]
    pub fn ended(&self) -> Option<&CancellationToken> {
        self.terms.tls.as_ref().is_some_and(|tls| tls.asks_for_certificates()).then_some(&self.ended)
    }
}

/// A listener that accepts, for whoever changes its terms, closes it or counts its connections.
#[derive(Clone)]
pub struct ListenerHandle {
    address: SocketAddr,
    current: Arc<ArcSwap<TermsInForce>>,
    closing: CancellationToken,
    open: Arc<AtomicUsize>,
}

impl ListenerHandle {
    pub(super) fn new(address: SocketAddr, terms: Terms, shutdown: &CancellationToken) -> Self {
        let closing = shutdown.child_token();
        let current = TermsInForce { terms, ended: closing.child_token() };
        Self { address, current: Arc::new(ArcSwap::from_pointee(current)), closing, open: Arc::default() }
    }

    /// Where it really listens (port 0 was resolved).
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The terms of connections that are accepted now.
    #[must_use]
    pub fn in_force(&self) -> Arc<TermsInForce> {
        self.current.load_full()
    }

    /// Has new connections meet `terms`; open ones go on. Where clients showed certificates, and would be judged anew, open
    /// connections end once their requests have: who was let in may not be any more.
    pub fn replace(&self, terms: Terms) {
        let next = TermsInForce { terms, ended: self.closing.child_token() };
        let former = self.current.swap(Arc::new(next));
        if !self.current.load().terms.admits_as(&former.terms) {
            former.ended.cancel();
        }
    }

    /// Accepts nobody any more. Open connections end once their requests have.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Fires when the listener closes, or the gateway stops.
    #[must_use]
    pub const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// How many connections are open, those in a handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// A place for a connection of `peer` that was accepted under `terms`.
    pub(super) fn place(&self, terms: &TermsInForce, peer: IpAddr) -> Result<Place, Full> {
        Ok(Place { seat: terms.terms.admission.enter(peer)?, _counted: self.count() })
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn count(&self) -> OpenConnection {
        self.open.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(&self.open))
    }
}

/// What an open connection holds for as long as its stream lives, upgraded or not: it counts among those of its listener
/// and among all that are limited.
pub(super) struct Place {
    seat: Seat,
    _counted: OpenConnection,
}

impl Place {
    /// A trusted proxy said whose connection this is: it counts as that one's from now on.
    pub(super) fn is_for(&mut self, source: IpAddr) -> Result<(), Full> {
        self.seat.is_for(source)
    }
}

/// One open connection.
pub struct OpenConnection(Arc<AtomicUsize>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
