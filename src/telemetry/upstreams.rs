//! What is counted of upstreams and their servers. Both labels are the configuration's words.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::{Busy, Labelled, LabelledBusy, Metrics, register};
use crate::refusal::Reason;

const OUTCOMES: [&str; 4] = ["ok", "unreachable", "timeout", "failed"];

type Gauges<const N: usize> = Family<[(&'static str, String); N], Gauge>;

/// By upstream, or by upstream and server.
pub(super) struct UpstreamFigures {
    requests: LabelledBusy<2>,
    waiting: Gauges<1>,
    turned_away: Labelled<1>,
    up: Gauges<2>,
    ejected: Gauges<2>,
    ejections: Labelled<2>,
    connections: Gauges<2>,
    shown: Mutex<Shown>,
}

/// What may be shown. Held for a whole change of a figure that a former configuration could still tell of, never by a request.
#[derive(Default)]
struct Shown {
    upstreams: Vec<UpstreamLabels>,
    /// Names that requests are counted under, in force or not.
    counted: BTreeSet<String>,
}

/// An upstream of the configuration, by the words that label its figures.
#[derive(Clone, Debug)]
pub struct UpstreamLabels {
    /// Its name.
    pub name: String,
    /// Its servers' addresses.
    pub servers: Vec<String>,
    /// Whether they are probed.
    pub probed: bool,
}

impl Shown {
    fn upstream(&self, name: &str) -> Option<&UpstreamLabels> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// The upstream, if it is there with this server.
    fn server(&self, name: &str, server: &str) -> Option<&UpstreamLabels> {
        self.upstream(name).filter(|upstream| upstream.servers.iter().any(|address| address == server))
    }
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
            shown: Mutex::default(),
        }
    }

    /// Nothing panics while it holds the lock.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The counters of the upstream of this name, for who counts at each request. They are shown until the next
    /// [`Metrics::upstreams_in_force`] that does not name it.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        self.upstreams.shown().counted.insert(name.to_owned());
        UpstreamMetrics(OUTCOMES.map(|outcome| self.upstreams.requests.get_or_create_owned(&by_outcome(name, outcome))))
    }

    /// From now on these are shown, and nothing of any other: neither what a former configuration had nor what one that was
    /// refused would have had, whoever still tells of it.
    pub fn upstreams_in_force(&self, upstreams: Vec<UpstreamLabels>) {
        let all = &self.upstreams;
        let mut shown = all.shown();
        let former = std::mem::replace(&mut shown.upstreams, upstreams);
        for upstream in &former {
            for server in &upstream.servers {
                let (still, labels) = (shown.server(&upstream.name, server), both(&upstream.name, server));
                if still.is_none_or(|upstream| !upstream.probed) {
                    all.up.remove(&labels);
                }
                if still.is_none() {
                    all.ejected.remove(&labels);
                    all.connections.remove(&labels);
                    all.ejections.remove(&labels);
                }
            }
        }
        let named = |name: &String| shown.upstream(name).is_some();
        let gone: Vec<String> = shown.counted.iter().filter(|name| !named(name)).cloned().collect();
        for name in gone {
            let labels = [("upstream", name.clone())];
            all.waiting.remove(&labels);
            all.turned_away.remove(&labels);
            for outcome in OUTCOMES {
                all.requests.remove(&by_outcome(&name, outcome));
            }
            shown.counted.remove(&name);
        }
    }

    /// Whether a server that is probed gets requests.
    pub fn upstream_server(&self, upstream: &str, server: &str, up: bool) {
        let shown = self.upstreams.shown();
        if shown.server(upstream, server).is_some_and(|upstream| upstream.probed) {
            self.upstreams.up.get_or_create(&both(upstream, server)).set(i64::from(up));
        }
    }

    /// How a server does now.
    pub fn upstream_server_now(&self, upstream: &str, server: &str, now: ServerFigures) {
        let (all, labels) = (&self.upstreams, both(upstream, server));
        let shown = all.shown();
        if shown.server(upstream, server).is_some() {
            all.ejected.get_or_create(&labels).set(i64::from(now.ejected));
            all.connections.get_or_create(&labels).set(whole(now.connections));
            // Counted elsewhere, and never less.
            all.ejections.get_or_create(&labels).inner().fetch_max(now.ejections, Ordering::Relaxed);
        }
    }

    /// So many requests wait for a connection to an upstream; so many never got one.
    pub fn upstream_waiting(&self, upstream: &str, waiting: usize, turned_away: u64) {
        let (all, labels) = (&self.upstreams, [("upstream", upstream.to_owned())]);
        let shown = all.shown();
        if shown.upstream(upstream).is_some() {
            all.waiting.get_or_create(&labels).set(whole(waiting));
            all.turned_away.get_or_create(&labels).inner().fetch_max(turned_away, Ordering::Relaxed);
        }
    }
}

/// The counters of one upstream, one for each outcome.
pub struct UpstreamMetrics([Busy; OUTCOMES.len()]);

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
        counter.inner().add(1);
    }
}

fn by_outcome(upstream: &str, outcome: &str) -> [(&'static str, String); 2] {
    [("upstream", upstream.to_owned()), ("outcome", outcome.to_owned())]
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

    fn labels(name: &str, servers: &[&str], probed: bool) -> UpstreamLabels {
        let servers = servers.iter().map(|&address| address.to_owned()).collect();
        UpstreamLabels { name: name.to_owned(), servers, probed }
    }

    #[test]
    fn what_is_not_in_force_is_not_shown() {
        let (metrics, server) = (Metrics::new(), "http://127.0.0.1:9000");
        let [console, former] = ["console", "former"].map(|name| metrics.upstream(name));
        metrics.upstreams_in_force(vec![labels("console", &[server], true), labels("former", &["unix:/f"], false)]);
        let tell = || {
            for (upstream, server) in [("console", server), ("former", "unix:/f")] {
                metrics.upstream_server(upstream, server, false);
                for ejected in [true, false] {
                    let now = ServerFigures { ejected, ejections: 2, connections: 3 };
                    metrics.upstream_server_now(upstream, server, now);
                }
                metrics.upstream_waiting(upstream, 4, 5);
            }
            console.request(None);
            former.request(None);
        };
        tell();
        let text = metrics.render();
        let labelled = format!("{{upstream=\"console\",server=\"{server}\"}}");
        for line in [
            format!("sekisho_upstream_server_up{labelled} 0"),
            format!("sekisho_upstream_server_ejected{labelled} 0"),
            format!("sekisho_upstream_ejections_total{labelled} 2"),
            format!("sekisho_upstream_connections_open{labelled} 3"),
            "sekisho_upstream_requests_waiting{upstream=\"console\"} 4".to_owned(),
            "sekisho_upstream_requests_turned_away_total{upstream=\"console\"} 5".to_owned(),
            "sekisho_upstream_requests_total{upstream=\"former\",outcome=\"ok\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        assert!(!text.contains("server_up{upstream=\"former\""), "it is not probed");

        // One loses its probes, the other one its name; one comes.
        let _ = metrics.upstream("latter");
        metrics.upstreams_in_force(vec![labels("console", &[server], false), labels("latter", &["unix:/f"], false)]);
        // Whoever began before may tell of it yet.
        tell();
        let text = metrics.render();
        assert!(!text.contains("server_up{") && !text.contains("\"former\""), "{text}");
        assert!(text.contains(&format!("sekisho_upstream_connections_open{labelled} 3")));
        assert!(text.contains("upstream_requests_total{upstream=\"console\",outcome=\"ok\"} 2"), "it goes on");

        let _ = metrics.upstream("refused");
        metrics.upstreams_in_force(vec![labels("console", &["unix:/c"], false)]);
        let text = metrics.render();
        assert!(
            !text.contains("upstream=\"refused\"")
                && !text.contains("upstream=\"latter\"")
                && !text.contains("127.0.0.1"),
            "{text}"
        );
    }
}
