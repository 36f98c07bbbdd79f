//! The listeners of the configuration in force, and how they become those of the next one.
//!
//! A listener that both configurations have goes on accepting, under new terms; one that is new is bound before anything
//! changes; one that is gone accepts nobody any more, and its connections end once their requests have.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::certificates::Certificates;
use super::descriptors::Admissions;
use crate::clock::Timestamp;
use crate::config::{Config, Finding, ListenerConfig, Serves};
use crate::edge::{BindError, BoundListener, Inherited, ListenerHandle, Terms};

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

/// The listeners of one configuration, in its order.
#[derive(Default)]
pub(super) struct Listeners(Vec<Open>);

/// One of them.
#[derive(Clone)]
struct Open {
    /// As the configuration writes it; port 0 may stand there several times.
    configured: SocketAddr,
    /// Administrators are served beside the admin socket, off the workers.
    for_admin: bool,
    handle: ListenerHandle,
}

/// How the listeners become those of another configuration. Dropped, it leaves them as they are.
pub(super) struct Change {
    next: Listeners,
    kept: Vec<(ListenerHandle, Terms)>,
    bound: Bound,
    closed: Vec<ListenerHandle>,
}

/// Listeners that were bound, for whoever accepts.
#[derive(Default)]
pub(super) struct Bound {
    /// For the workers.
    pub(super) for_workers: Vec<BoundListener>,
    /// For the admin API.
    pub(super) for_admin: Vec<BoundListener>,
}

impl Listeners {
    /// Binds what `config` has and these have not, each with a socket for each of `cores` workers, where `inherited` has
    /// none for it.
    ///
    /// # Errors
    /// All findings; then nothing has changed.
    pub(super) fn change(
        &self,
        config: &Config,
        certificates: &Certificates,
        admissions: &Admissions,
        inherited: &mut Inherited,
        cores: usize,
        shutdown: &CancellationToken,
    ) -> Result<Change, Vec<Finding>> {
        let proxies = Arc::new(config.gateway.trusted_proxies.clone());
        let (former, gone) = self.paired(&config.listeners);
        let mut change = Change { next: Self::default(), kept: Vec::new(), bound: Bound::default(), closed: gone };
        let mut findings = Vec::new();
        for (i, ((listener, tls), former)) in config.listeners.iter().zip(certificates).zip(former).enumerate() {
            let admission = admissions.of(listener.serves);
            let (configured, for_admin) = (listener.address, listener.serves == Serves::Admin);
            let handle = if let Some(open) = former {
                if open.for_admin != for_admin {
                    let problem = "needs a restart to change between the admin API and others at the same address";
                    findings.push(config.finding(&format!("listener[{i}].serves"), problem.to_owned()));
                }
                // The very same files keep their session tickets, and the connections that they let in.
                let shown = open.handle.in_force().terms.tls.clone();
                let same = shown.filter(|shown| tls.as_ref().is_some_and(|tls| shown.is_same(tls)));
                let terms = Terms::new(listener, same.or_else(|| tls.clone()), &proxies, admission, &config.limits);
                change.kept.push((open.handle.clone(), terms));
                open.handle.clone()
            } else {
                let terms = Terms::new(listener, tls.clone(), &proxies, admission, &config.limits);
                let sockets = if for_admin { 1 } else { cores };
                match BoundListener::bind(configured, terms, inherited, sockets, shutdown) {
                    Ok(bound) => {
                        let handle = bound.handle().clone();
                        let Bound { for_workers, for_admin: admin } = &mut change.bound;
                        if for_admin {
                            admin.push(bound);
                        } else {
                            for_workers.push(bound);
                        }
                        handle
                    }
                    Err(error) => {
                        let key = format!("listener[{i}].address");
                        findings.push(config.finding(&key, refused(&error, configured, &change.closed)));
                        continue;
                    }
                }
            };
            change.next.0.push(Open { configured, for_admin, handle });
        }
        if findings.is_empty() { Ok(change) } else { Err(findings) }
    }

    /// Which of these each configured listener is, if any; and those that none is.
    fn paired(&self, configured: &[ListenerConfig]) -> (Vec<Option<&Open>>, Vec<ListenerHandle>) {
        let mut left: Vec<Option<&Open>> = self.0.iter().map(Some).collect();
        let mut take = |listener: &ListenerConfig| {
            let same = |open: &&mut Option<&Open>| open.is_some_and(|open| open.configured == listener.address);
            left.iter_mut().find(same).and_then(Option::take)
        };
        let paired = configured.iter().map(&mut take).collect();
        (paired, left.into_iter().flatten().map(|open| open.handle.clone()).collect())
    }

    /// Where they listen.
    pub(super) fn listening(&self) -> Vec<Listening> {
        let listening = |open: &Open| {
            let terms = &open.handle.in_force().terms;
            Listening { serves: terms.serves, tls: terms.tls.is_some(), address: open.handle.address() }
        };
        self.0.iter().map(listening).collect()
    }

    /// Has new connections meet what was read again for these listeners, in their order, where it is something else. Open ones
    /// go on, but for those that came in by a certificate.
    pub(super) fn renew(&self, certificates: &Certificates) {
        for (open, renewed) in self.0.iter().zip(certificates) {
            let in_force = open.handle.in_force();
            let (Some(shown), Some(renewed)) = (&in_force.terms.tls, renewed) else { continue };
            if !shown.is_same(renewed) {
                open.handle.replace(Terms { tls: Some(Arc::clone(renewed)), ..in_force.terms.clone() });
            }
        }
    }

    /// Has fresh keys seal session tickets where it is time for them.
    pub(super) fn turn_ticket_keys(&self, now: Timestamp) {
        for open in &self.0 {
            let in_force = open.handle.in_force();
            let Some(tls) = &in_force.terms.tls else { continue };
            if let Err(error) = tls.turn_ticket_keys(now) {
                tracing::error!(%error, "the former keys of TLS session tickets stay in use; tried again in seconds");
            }
        }
    }

    /// Each with what it serves, in the configuration's word.
    pub(super) fn handles(&self) -> impl Iterator<Item = (&'static str, &ListenerHandle)> {
        self.0.iter().map(|open| (open.handle.in_force().terms.serves.as_str(), &open.handle))
    }
}

impl Change {
    /// Makes it: from now on the listeners are those of the other configuration, once what was bound is accepted from.
    pub(super) fn make(self) -> (Listeners, Bound) {
        for (handle, terms) in self.kept {
            handle.replace(terms);
        }
        for handle in self.closed {
            handle.close();
        }
        (self.next, self.bound)
    }
}

fn refused(error: &BindError, wanted: SocketAddr, closed: &[ListenerHandle]) -> String {
    match error {
        BindError::InUse { .. } if closed.iter().any(|handle| handle.address().port() == wanted.port()) => {
            "needs a restart: until then the gateway itself listens on this port, at the address before".to_owned()
        }
        BindError::InUse { .. } | BindError::Io { .. } => error.to_string(),
    }
}
