//! What is counted of upstreams and their servers. Both labels are the configuration's words.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::{Labelled, Metrics, register};
use crate::refusal::Reason;

const OUTCOMES: [&str; 4] = ["ok", "unreachable", "timeout", "failed"];

type Gauges<const N: usize> = Family<[(&'static str, String); N], Gauge>;

/// By upstream, or by upstream and server.
pub(super) struct UpstreamFigures {
    requests: Labelled<2>,
    waiting: Gauges<1>,
    turned_away: Labelled<1>,
    up: Gauges<2>,
    ejected: Gauges<2>,
    ejections: Labelled<2>,
    connections: Gauges<2>,
}

impl UpstreamFigures {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            requests: register(registry, "upstream_requests", "Requests sent on, by outcome"),
            waiting: register(registry, "upstream_requests_waiting", "Requests that wait for a connection"),
            turned_away: register(
                registry,
                "upstream_requests_turned_away",
                "Requests that found no room to wait for a connection, or got none in time",
            ),
            up: register(registry, "upstream_server_up", "Whether a server that is probed gets requests"),
            ejected: register(
                registry,
                "upstream_server_ejected",
                "Whether a server is passed over, because it left requests without an answer",
            ),
            ejections: register(registry, "upstream_ejections", "Times that a server began to be passed over"),
            connections: register(registry, "upstream_connections_open", "Connections to a server, idle ones included"),
        }
    }
}

/// How one server does.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerFigures {
    /// Whether it is passed over.
    pub ejected: bool,
    /// How often that began, since the gateway knows it.
    pub ejections: u64,
    /// Connections that are open.
    pub connections: usize,
}

impl Metrics {
    /// The counters of the upstream of this name, for who counts at each request.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let labels = |outcome: &str| [("upstream", name.to_owned()), ("outcome", outcome.to_owned())];
        UpstreamMetrics(OUTCOMES.map(|outcome| self.upstreams.requests.get_or_create_owned(&labels(outcome))))
    }

    /// Whether a server that is probed gets requests.
    pub fn upstream_server(&self, upstream: &str, server: &str, up: bool) {
        self.upstreams.up.get_or_create(&both(upstream, server)).set(i64::from(up));
    }

    /// How a server does now.
    pub fn upstream_server_now(&self, upstream: &str, server: &str, now: ServerFigures) {
        let (all, labels) = (&self.upstreams, both(upstream, server));
        all.ejected.get_or_create(&labels).set(i64::from(now.ejected));
        all.connections.get_or_create(&labels).set(whole(now.connections));
        // Counted elsewhere, and never less.
        all.ejections.get_or_create(&labels).inner().fetch_max(now.ejections, Ordering::Relaxed);
    }

    /// So many requests wait for a connection to an upstream; so many never got one.
    pub fn upstream_waiting(&self, upstream: &str, waiting: usize, turned_away: u64) {
        let labels = [("upstream", upstream.to_owned())];
        self.upstreams.waiting.get_or_create(&labels).set(whole(waiting));
        self.upstreams.turned_away.get_or_create(&labels).inner().fetch_max(turned_away, Ordering::Relaxed);
    }

    /// A server is not probed any more.
    pub fn upstream_server_unprobed(&self, upstream: &str, server: &str) {
        self.upstreams.up.remove(&both(upstream, server));
    }

    /// A server is not there any more.
    pub fn upstream_server_gone(&self, upstream: &str, server: &str) {
        let (all, labels) = (&self.upstreams, both(upstream, server));
        all.up.remove(&labels);
        all.ejected.remove(&labels);
        all.connections.remove(&labels);
        all.ejections.remove(&labels);
    }

    /// An upstream is not there any more.
    pub fn upstream_gone(&self, upstream: &str) {
        let labels = [("upstream", upstream.to_owned())];
        self.upstreams.waiting.remove(&labels);
        self.upstreams.turned_away.remove(&labels);
    }
}

/// The counters of one upstream, one for each outcome.
pub struct UpstreamMetrics([Counter; OUTCOMES.len()]);

impl UpstreamMetrics {
    /// A request was sent on; `error` is why it got no answer.
    pub fn request(&self, error: Option<Reason>) {
        let [ok, unreachable, timeout, failed] = &self.0;
        let counter = match error {
            None => ok,
            Some(Reason::UpstreamUnreachable | Reason::NoHealthyUpstream) => unreachable,
            Some(Reason::UpstreamTimeout) => timeout,
            Some(_) => failed,
        };
        counter.inc();
    }
}

fn both(upstream: &str, server: &str) -> [(&'static str, String); 2] {
    [("upstream", upstream.to_owned()), ("server", server.to_owned())]
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_any_more_is_not_shown() {
        let (metrics, server) = (Metrics::new(), "http://127.0.0.1:9000");
        metrics.upstream_server("console", server, false);
        metrics.upstream_server_now("console", server, ServerFigures { ejected: true, ejections: 2, connections: 3 });
        metrics.upstream_server_now("console", server, ServerFigures { ejected: false, ejections: 2, connections: 3 });
        metrics.upstream_waiting("console", 4, 5);
        let text = metrics.render();
        let labels = format!("{{upstream=\"console\",server=\"{server}\"}}");
        for line in [
            format!("sekisho_upstream_server_up{labels} 0"),
            format!("sekisho_upstream_server_ejected{labels} 0"),
            format!("sekisho_upstream_ejections_total{labels} 2"),
            format!("sekisho_upstream_connections_open{labels} 3"),
            "sekisho_upstream_requests_waiting{upstream=\"console\"} 4".to_owned(),
            "sekisho_upstream_requests_turned_away_total{upstream=\"console\"} 5".to_owned(),
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        metrics.upstream_server_unprobed("console", server);
        assert!(!metrics.render().contains("server_up{"));
        metrics.upstream_server_gone("console", server);
        assert!(!metrics.render().contains("127.0.0.1"));
        metrics.upstream_gone("console");
        assert!(!metrics.render().contains("upstream=\"console\""));
    }
}
