//! Counters for Prometheus, prefix `sekisho_`.
//!
//! Labels come from the configuration or from our own words, so their number is bounded; what every request touches is
//! a handle made at start-up, never a look-up.

use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::figures::Figures;
use super::histogram::DurationHistogram;
use super::outcomes::{BindOutcome, PinOutcome, ReloadOutcome, SpanOutcome};
use super::rotation_figures::RotationFigures;
use super::spread::Spread;
use super::upstreams::UpstreamFigures;
use crate::carrier::CarrierName;
use crate::clock::Timestamp;
use crate::edge::TurnedAway;
use crate::refusal::Reason;
use crate::store::KeyPurpose;

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The labels that a figure may have.
pub const METRIC_LABELS: &[&str] = &[
    "address", "carrier", "cause", "le", "outcome", "promise", "purpose", "reason", "server", "serves", "status",
    "stream", "upstream", "version",
];

pub(super) type Labelled<const N: usize> = Family<[(&'static str, String); N], Counter>;

/// Of what every request counts up.
pub(super) type Busy = Counter<u64, Spread>;
pub(super) type LabelledBusy<const N: usize> = Family<[(&'static str, String); N], Busy>;

/// All metrics of one gateway.
pub struct Metrics {
    registry: Registry,
    requests: [Busy; STATUS_CLASSES.len()],
    duration: DurationHistogram,
    sign_ins: Labelled<1>,
    enrolments: Labelled<1>,
    /// In the order of [`BindOutcome::WORDS`].
    console_bindings: [Counter; BindOutcome::WORDS.len()],
    /// In the order of [`PinOutcome::WORDS`].
    pin_tries: [Counter; PinOutcome::WORDS.len()],
    /// In the order of [`TurnedAway::ALL`].
    turned_away: [Counter; TurnedAway::ALL.len()],
    connections_open: Gauge,
    refusals: Labelled<2>,
    /// Those of no carrier's network, in the order of [`Reason::ALL`].
    refusals_elsewhere: Vec<Counter>,
    pub(super) upstreams: UpstreamFigures,
    sessions_live: Gauge,
    headers_stripped: Counter,
    codes_issued: Counter,
    codes_live: Gauge,
    store_writes: DurationHistogram,
    store_writes_waiting: Gauge,
    bindings_imported: Counter,
    pub(super) rotation: RotationFigures,
    /// In the order of [`KeyPurpose::ALL`].
    key_ages: [Gauge; KeyPurpose::ALL.len()],
    promises: Family<[(&'static str, String); 1], Gauge>,
    lines_lost: Labelled<1>,
    /// In the order of [`SpanOutcome::WORDS`].
    spans: [Counter; SpanOutcome::WORDS.len()],
    /// In the order of [`ReloadOutcome::WORDS`].
    reloads: [Counter; ReloadOutcome::WORDS.len()],
    in_force_since: Gauge,
    store_behind: Gauge,
    connections: Family<[(&'static str, String); 2], Gauge>,
    certificates: Family<[(&'static str, String); 2], Gauge>,
    /// For who reckons with all refusals at once.
    refused: Counter,
}

impl Metrics {
    /// The media type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All at zero.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a gateway has one, made on purpose")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sekisho");
        let requests: LabelledBusy<1> = register(&mut registry, "requests", "Requests answered, by class of status");
        let duration = DurationHistogram::default();
        let help = "Time from a request's head to the head of its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, duration.clone());
        let sign_ins = register(&mut registry, "sign_ins", "Bound handsets that signed in");
        let enrolments = register(&mut registry, "enrolments", "Handsets bound");
        let help = "Answers of upstreams with Sekisho-Bind, by what came of it";
        let console_bindings: Labelled<1> = register(&mut registry, "console_bindings", help);
        let pin_tries: Labelled<1> = register(&mut registry, "pin_tries", "PINs typed, by what came of it");
        let help = "Connections that ended before their first request, or by one that cannot be read, by cause";
        let turned_away: Labelled<1> = register(&mut registry, "connections_turned_away", help);
        let help = "Connections of clients that are open";
        let connections_open = register(&mut registry, "connections_open", help);
        let help = "Requests refused, by reason and by the carrier whose network they came from, if any";
        let refusals: Labelled<2> = register(&mut registry, "refusals", help);
        let upstreams = UpstreamFigures::register(&mut registry);
        let sessions_live = register(&mut registry, "sessions_live", "Sessions open");
        let headers_stripped = register(&mut registry, "headers_stripped", "Reserved fields taken out of requests");
        let codes_issued = register(&mut registry, "code_issued", "Enrolment codes issued");
        let codes_live = register(&mut registry, "codes_live", "Enrolment codes that may still be typed");
        let store_writes = DurationHistogram::default();
        let help = "Time from asking the store to write to its answer, which follows the commit";
        registry.register_with_unit("store_write_duration", help, Unit::Seconds, store_writes.clone());
        let store_writes_waiting =
            register(&mut registry, "store_writes_waiting", "Writes that the store has not answered");
        let bindings_imported = register(&mut registry, "bindings_imported", "Handsets bound by an import");
        let rotation = RotationFigures::register(&mut registry);
        let key_age = Family::<[(&'static str, String); 1], Gauge>::default();
        let help = "How long the active key of a purpose has been in use; some seconds old";
        registry.register_with_unit("key_age", help, Unit::Seconds, key_age.clone());
        let help = "1 while a promise of the privacy policy is kept, by promise; some seconds old";
        let promises = register(&mut registry, "promise_kept", help);
        let lines_lost = register(&mut registry, "log_lines_lost", "Log lines that never reached their stream");
        let spans: Labelled<1> =
            register(&mut registry, "trace_spans", "Spans of sampled requests, by what came of them");
        let reloads: Labelled<1> =
            register(&mut registry, "config_reloads", "Reloads of the configuration, by outcome");
        let in_force_since = Gauge::default();
        let help = "When the configuration in force came into force, in Unix time: by a start or the last good reload";
        let name = "config_last_reload_success_timestamp";
        registry.register_with_unit(name, help, Unit::Seconds, in_force_since.clone());
        let help = "1 while a store that was restored is not what it should be, and no handset is served";
        let store_behind = register(&mut registry, "store_behind", help);
        let connections =
            register(&mut registry, "listener_connections_open", "Connections open, those in a handshake included");
        let certificates = Family::default();
        let help = "When the certificate that a listener shows runs out, in Unix time";
        registry.register_with_unit("certificate_expiry_timestamp", help, Unit::Seconds, certificates.clone());
        registry.register("build", "What runs here", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry,
            requests: STATUS_CLASSES.map(|class| requests.get_or_create_owned(&[("status", class.to_owned())])),
            duration,
            sign_ins,
            enrolments,
            console_bindings: BindOutcome::WORDS
                .map(|word| console_bindings.get_or_create_owned(&[("outcome", word.to_owned())])),
            pin_tries: PinOutcome::WORDS.map(|word| pin_tries.get_or_create_owned(&[("outcome", word.to_owned())])),
            turned_away: TurnedAway::ALL
                .map(|why| turned_away.get_or_create_owned(&[("cause", why.as_str().to_owned())])),
            connections_open,
            refusals_elsewhere: Reason::ALL
                .iter()
                .map(|reason| refusals.get_or_create_owned(&refusal_labels(*reason, "")))
                .collect(),
            refusals,
            upstreams,
            sessions_live,
            headers_stripped,
            codes_issued,
            codes_live,
            store_writes,
            store_writes_waiting,
            bindings_imported,
            rotation,
            promises,
            key_ages: KeyPurpose::ALL
                .map(|purpose| key_age.get_or_create_owned(&[("purpose", purpose.as_str().to_owned())])),
            lines_lost,
            spans: SpanOutcome::WORDS.map(|word| spans.get_or_create_owned(&[("outcome", word.to_owned())])),
            reloads: ReloadOutcome::WORDS.map(|word| reloads.get_or_create_owned(&[("outcome", word.to_owned())])),
            in_force_since,
            store_behind,
            connections,
            certificates,
            refused: Counter::default(),
        }
    }

    /// A request was answered.
    pub fn request(&self, status: u16, duration: Duration) {
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|class| self.requests.get(class)) {
            class.inner().add(1);
        }
        self.duration.observe(duration);
    }

    /// A bound handset signed in.
    pub fn sign_in(&self, carrier: &CarrierName) {
        self.sign_ins.get_or_create(&[("carrier", carrier.as_str().to_owned())]).inc();
    }

    /// A handset was bound.
    pub fn enrolment(&self, carrier: &CarrierName) {
        self.enrolments.get_or_create(&[("carrier", carrier.as_str().to_owned())]).inc();
    }

    /// An upstream said `Sekisho-Bind`.
    pub fn bound_by_console(&self, outcome: BindOutcome) {
        if let Some(counter) = self.console_bindings.get(outcome as usize) {
            counter.inc();
        }
    }

    /// A PIN was typed.
    pub fn pin_try(&self, outcome: PinOutcome) {
        if let Some(counter) = self.pin_tries.get(outcome as usize) {
            counter.inc();
        }
    }

    /// A connection ended before its first request.
    pub fn turned_away(&self, why: TurnedAway) {
        if let Some(counter) = self.turned_away.get(why as usize) {
            counter.inc();
        }
    }

    /// So many connections of clients are open.
    pub fn open_connections(&self, count: usize) {
        self.connections_open.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A request was refused; `carrier` is the profile of its source network, never what a header says.
    pub fn refusal(&self, reason: Reason, carrier: Option<&CarrierName>) {
        self.refused.inc();
        if let Some(carrier) = carrier {
            self.refusals.get_or_create(&refusal_labels(reason, carrier.as_str())).inc();
        } else if let Some(counter) = self.refusals_elsewhere.get(reason as usize) {
            counter.inc();
        }
    }

    /// So many sessions are open.
    pub fn live_sessions(&self, count: usize) {
        self.sessions_live.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many reserved fields were taken out of a request.
    pub fn headers_stripped(&self, count: u64) {
        // Not touched for nothing: all cores share its cache line.
        if count > 0 {
            self.headers_stripped.inc_by(count);
        }
    }

    /// An enrolment code was issued.
    pub fn code_issued(&self) {
        self.codes_issued.inc();
    }

    /// So many enrolment codes may still be typed.
    pub fn live_codes(&self, count: u64) {
        self.codes_live.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The store was asked to write.
    pub fn store_write_waits(&self) {
        self.store_writes_waiting.inc();
    }

    /// The store answered a write, so long after it was asked.
    pub fn store_write_answered(&self, after: Duration) {
        self.store_writes_waiting.dec();
        self.store_writes.observe(after);
    }

    /// So many handsets were bound by an import.
    pub fn bindings_imported(&self, count: u64) {
        self.bindings_imported.inc_by(count);
    }

    /// The active key of `purpose` has been in use for so long.
    pub fn key_age(&self, purpose: KeyPurpose, age: Duration) {
        if let Some(gauge) = self.key_ages.get(purpose as usize) {
            gauge.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// Whether a promise is kept, or for others to keep.
    pub fn promise(&self, name: &str, kept: bool) {
        self.promises.get_or_create_owned(&[("promise", name.to_owned())]).set(kept.into());
    }

    /// A reload ended.
    pub fn reload(&self, outcome: ReloadOutcome) {
        if let Some(counter) = self.reloads.get(outcome as usize) {
            counter.inc();
        }
    }

    /// The configuration in force came into force then.
    pub fn in_force_since(&self, at: Timestamp) {
        self.in_force_since.set(at.unix_seconds());
    }

    /// Whether the store was restored and is not what it should be yet.
    pub fn store_behind(&self, behind: bool) {
        self.store_behind.set(i64::from(behind));
    }

    /// A listener has so many connections open, and shows a certificate that runs out then. All words are the
    /// configuration's.
    pub fn listener(&self, serves: &str, address: &str, connections: usize, certificate_expires_at: Option<Timestamp>) {
        let labels = [("serves", serves.to_owned()), ("address", address.to_owned())];
        self.connections.get_or_create(&labels).set(i64::try_from(connections).unwrap_or(i64::MAX));
        match certificate_expires_at {
            Some(at) => drop(self.certificates.get_or_create(&labels).set(at.unix_seconds())),
            None => drop(self.certificates.remove(&labels)),
        }
    }

    /// A listener is not there any more.
    pub fn listener_gone(&self, serves: &str, address: &str) {
        let labels = [("serves", serves.to_owned()), ("address", address.to_owned())];
        self.connections.remove(&labels);
        self.certificates.remove(&labels);
    }

    /// The counters as they stand now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let [.., failed] = &self.requests;
        let lost = ["log", "access"].map(|stream| self.lines_lost(stream).get());
        Figures {
            requests: self.duration.observed(),
            failed: failed.get(),
            refused: self.refused.get(),
            store_writes: self.store_writes.observed(),
            store_waiting: u64::try_from(self.store_writes_waiting.get()).unwrap_or(0),
            lines_lost: lost.iter().sum(),
            reloads: self.reloads.each_ref().map(Counter::get),
        }
    }

    /// The counter of lines that never reached `stream`.
    pub(super) fn lines_lost(&self, stream: &'static str) -> Counter {
        self.lines_lost.get_or_create_owned(&[("stream", stream.to_owned())])
    }

    /// So many spans came to this end.
    pub fn spans(&self, outcome: SpanOutcome, count: u64) {
        if let Some(spans) = self.spans.get(outcome as usize) {
            spans.inc_by(count);
        }
    }

    /// `OpenMetrics` 1.0 text, which Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        let _ = text::encode(&mut out, &self.registry); // a String takes every write
        out
    }
}

/// An empty label is none to Prometheus.
fn refusal_labels(reason: Reason, carrier: &str) -> [(&'static str, String); 2] {
    [("reason", reason.as_str().to_owned()), ("carrier", carrier.to_owned())]
}

pub(super) fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::super::upstreams::{ServerFigures, UpstreamLabels};
    use super::*;

    #[test]
    fn what_was_counted_is_rendered_under_the_names_of_the_contract() {
        let metrics = Metrics::new();
        let [console, reports] = ["console", "reports"].map(|name| metrics.upstream(name));
        metrics.request(204, Duration::from_millis(1));
        metrics.request(502, Duration::from_mins(1));
        let docomo = CarrierName::parse("docomo").unwrap();
        metrics.refusal(Reason::CodeInvalid, Some(&docomo));
        metrics.refusal(Reason::Internal, None);
        reports.request(None);
        console.request(Some(Reason::UpstreamTimeout));
        console.request(Some(Reason::BodyTooLarge));
        metrics.live_sessions(7);
        metrics.bound_by_console(BindOutcome::Bound);
        metrics.bound_by_console(BindOutcome::Failed);
        metrics.pin_try(PinOutcome::Wrong);
        metrics.headers_stripped(3);
        metrics.code_issued();
        metrics.live_codes(2);
        metrics.store_write_waits();
        metrics.store_write_waits();
        metrics.store_write_answered(Duration::from_millis(4));
        metrics.bindings_imported(5);
        let text = metrics.render();
        for line in [
            "sekisho_requests_total{status=\"2xx\"} 1",
            "sekisho_requests_total{status=\"4xx\"} 0",
            "sekisho_requests_total{status=\"5xx\"} 1",
            "sekisho_request_duration_seconds_sum 60.001",
            "sekisho_request_duration_seconds_count 2",
            "sekisho_request_duration_seconds_bucket{le=\"0.0005\"} 0",
            "sekisho_request_duration_seconds_bucket{le=\"0.001\"} 1",
            "sekisho_request_duration_seconds_bucket{le=\"10.0\"} 1",
            "sekisho_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "sekisho_refusals_total{reason=\"code-invalid\",carrier=\"docomo\"} 1",
            "sekisho_refusals_total{reason=\"internal-error\",carrier=\"\"} 1",
            "sekisho_refusals_total{reason=\"not-bound\",carrier=\"\"} 0",
            "sekisho_upstream_requests_total{upstream=\"reports\",outcome=\"ok\"} 1",
            "sekisho_upstream_requests_total{upstream=\"console\",outcome=\"timeout\"} 1",
            "sekisho_upstream_requests_total{upstream=\"console\",outcome=\"failed\"} 1",
            "sekisho_sessions_live 7",
            "sekisho_console_bindings_total{outcome=\"bound\"} 1",
            "sekisho_console_bindings_total{outcome=\"not-allowed\"} 0",
            "sekisho_console_bindings_total{outcome=\"failed\"} 1",
            "sekisho_headers_stripped_total 3",
            "sekisho_code_issued_total 1",
            "sekisho_codes_live 2",
            "sekisho_store_writes_waiting 1",
            "sekisho_store_write_duration_seconds_count 1",
            "sekisho_store_write_duration_seconds_bucket{le=\"0.005\"} 1",
            "sekisho_bindings_imported_total 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    /// Each row of the page is `| name | type | labels | meaning |`.
    #[test]
    fn the_page_of_metrics_lists_what_is_served_and_no_other() {
        let metrics = Metrics::new();
        metrics.upstream("console").request(None);
        let docomo = CarrierName::parse("docomo").unwrap();
        metrics.sign_in(&docomo);
        metrics.enrolment(&docomo);
        metrics.lines_lost("log");
        metrics.promise("retention", true);
        let (name, servers) = ("console".to_owned(), vec!["http://127.0.0.1:9000".to_owned()]);
        metrics.upstreams_in_force(vec![UpstreamLabels { name, servers, probed: true }]);
        metrics.upstream_server("console", "http://127.0.0.1:9000", true);
        metrics.upstream_server_now("console", "http://127.0.0.1:9000", ServerFigures::default());
        metrics.upstream_waiting("console", 0, 0);
        metrics.listener("handset", "127.0.0.1:8443", 3, Some(Timestamp::from_unix_millis(1_800_000_000_000)));
        let mut served = Vec::new();
        let text = metrics.render();
        for (name, kind) in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let name = format!("{name}{suffix}");
            let sample = text.lines().find(|line| line.starts_with(&name)).unwrap();
            let labels = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(labels, _)| labels);
            let labels = labels.unwrap_or_default().split(',').filter_map(|label| label.split('=').next());
            let labels: Vec<_> = labels.filter(|label| !["", "le"].contains(label)).map(|l| format!("`{l}`")).collect();
            served.push(format!("| `{name}` | {kind} | {} |", labels.join(", ")).replace("|  |", "| |"));
        }
        let page = include_str!("../../docs/metrics.md");
        let row = |line: &str| line.rmatch_indices('|').nth(1).map(|(at, _)| line[..=at].to_owned());
        let mut listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `sekisho_")).filter_map(row).collect();
        served.sort();
        listed.sort();
        assert_eq!(listed, served);
    }

    #[test]
    fn each_reason_has_its_own_counter() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn a_listener_that_is_closed_is_not_shown() {
        let metrics = Metrics::new();
        let at = Timestamp::from_unix_millis(1_800_000_000_000);
        metrics.listener("handset", "127.0.0.1:8443", 3, Some(at));
        let labels = "{serves=\"handset\",address=\"127.0.0.1:8443\"}";
        let text = metrics.render();
        assert!(text.contains(&format!("sekisho_listener_connections_open{labels} 3")));
        assert!(text.contains(&format!("sekisho_certificate_expiry_timestamp_seconds{labels} 1800000000")));
        metrics.listener("handset", "127.0.0.1:8443", 2, None);
        assert!(!metrics.render().contains("1800000000"), "in the clear there is no certificate");
        metrics.listener_gone("handset", "127.0.0.1:8443");
        assert!(!metrics.render().contains("127.0.0.1"));
    }
}
