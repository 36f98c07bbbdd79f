//! How many connections the process can hold, by the files that it may open (`RLIMIT_NOFILE`).

use std::net::IpAddr;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::opening::warning;
use crate::config::{Config, Finding, Serves, UpstreamConfig};
use crate::edge::{Admission, ConnectionLimits, TrustedProxies};

/// Descriptors of everything that is no connection of a client: store, logs, runtimes, administrators, probes.
const RESERVED: u64 = 256;
/// Descriptors that are reckoned for one client's connection: its own, and one to an upstream.
const EACH: u64 = 2;
/// Connections that are allowed at most unless the configuration says more: what they take of memory at their worst is
/// below a gigabyte.
const MOST: u64 = 16_384;
/// Fewer than this are said.
const FEW: u64 = 1024;
/// Connections of ops listeners, which are counted apart: monitoring sees a gateway that is full.
const OPS: usize = 128;

/// Lets the process open as many files as it may. The soft limit is often 1,024, for programs that use `select`.
pub(super) fn allow_all() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// How many files the process may open now; `None` without a limit.
pub(super) fn allowed() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many it may open once [`allow_all`] was called.
pub(super) fn allowed_at_most() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Connections of clients that `config` allows where `allowed` files may be open and each listener has a socket for each
/// of `cores`; and what is doubtful about that.
///
/// At the worst all of them are open, and all that upstreams may have, which is not one a client: over HTTP/2 a client's
/// connection asks for 128 things at once, each over a connection to a server, and what is not asked any more stays idle for a
/// while (up to 256 a core and server). Idle or in use, for an answer or a WebSocket, `upstream.connections` of each server
/// counts them. A question of forward-auth takes none.
pub(super) fn connections(config: &Config, allowed: Option<u64>, cores: usize) -> (u64, Vec<Finding>) {
    let (clients, doubt) = of_clients_alone(config, allowed, cores);
    let mut doubts: Vec<Finding> = doubt.into_iter().collect();
    doubts.extend(allowed.and_then(|allowed| beside_upstreams(config, clients, allowed, reserved(config, cores))));
    (clients, doubts)
}

/// What is doubtful about `clients` connections beside those that upstreams may have.
fn beside_upstreams(config: &Config, clients: u64, allowed: u64, reserved: u64) -> Option<Finding> {
    let of = |upstream: &UpstreamConfig| {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        number(upstream.servers.len()).saturating_mul(number(upstream.connections))
    };
    let all = config.upstreams.iter().map(of).fold(0, u64::saturating_add);
    let needed = reserved.saturating_add(clients).saturating_add(all);
    let (most, _) = config.upstreams.iter().enumerate().max_by_key(|(_, upstream)| of(upstream))?;
    (needed > allowed).then(|| {
        let left = allowed.saturating_sub(reserved).saturating_sub(clients);
        let problem = format!(
            "the servers of all upstreams may have {all} connections at once, and {left} open files are left for them beside {clients} \
             connections of clients: where they run out requests wait or fail, and nobody new gets in; raise LimitNOFILE to {needed}, \
             or allow fewer here or in limits.connections"
        );
        warning(config, &format!("upstream[{most}].connections"), problem)
    })
}

/// Descriptors that are for no connection.
fn reserved(config: &Config, cores: usize) -> u64 {
    let sockets = config.listeners.len().saturating_mul(cores);
    RESERVED.saturating_add(u64::try_from(sockets).unwrap_or(u64::MAX))
}

fn of_clients_alone(config: &Config, allowed: Option<u64>, cores: usize) -> (u64, Option<Finding>) {
    let reserved = reserved(config, cores);
    let allowed = allowed.unwrap_or(u64::MAX);
    let fit = (allowed.saturating_sub(reserved) / EACH).max(1);
    let doubt = |problem| warning(config, "limits.connections", problem);
    match config.limits.connections.map(u64::from) {
        Some(asked) if asked > fit => {
            let problem = format!(
                "{asked} connections need {} open files, and the process may have {allowed}; raise LimitNOFILE, or allow {fit}",
                asked.saturating_mul(EACH).saturating_add(reserved)
            );
            (asked, Some(doubt(problem)))
        }
        Some(asked) => (asked, None),
        None if fit < FEW => {
            let problem =
                format!("only {fit} are allowed, since the process may open {allowed} files; raise LimitNOFILE");
            (fit, Some(doubt(problem)))
        }
        None => (fit.min(MOST), None),
    }
}

/// Who may come in: clients, and apart from them whoever monitors.
pub(super) struct Admissions {
    pub(super) clients: Arc<Admission>,
    pub(super) ops: Arc<Admission>,
}

impl Admissions {
    /// Counts connections as `config` says, `all` of clients at most.
    pub(super) fn new(config: &Arc<Config>, all: u64) -> Self {
        let nobody = TrustedProxies::new(Vec::new());
        let alone = Box::new(|_| false);
        let ops = ConnectionLimits { all: OPS, per_address: OPS, proxies: nobody, is_shared: alone };
        Self { clients: Admission::new(of_clients(config, all)), ops: Admission::new(ops) }
    }

    /// Counts them as another configuration says from now on.
    pub(super) fn replace(&self, config: &Arc<Config>, all: u64) {
        self.clients.replace(of_clients(config, all));
    }

    /// What counts the connections of a listener.
    pub(super) const fn of(&self, serves: Serves) -> &Arc<Admission> {
        match serves {
            Serves::Ops => &self.ops,
            Serves::Handset | Serves::ForwardAuth | Serves::Admin => &self.clients,
        }
    }
}

fn of_clients(config: &Arc<Config>, all: u64) -> ConnectionLimits {
    let all = usize::try_from(all).unwrap_or(usize::MAX);
    let per_address = usize::try_from(config.limits.connections_per_address).unwrap_or(usize::MAX);
    let proxies = config.gateway.trusted_proxies.clone();
    let config = Arc::clone(config);
    let is_shared = Box::new(move |address: IpAddr| config.carriers.serves(address));
    ConnectionLimits { all, per_address, proxies, is_shared }
}
