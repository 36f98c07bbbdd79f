//! How the gateway does now, put together from all that knows a part of it.

use std::time::Duration;

use super::last_minute::{INTERVAL, Lately};
use super::reload::Live;
use super::state::Gateway;
use crate::admin::{
    ConfigurationInForce, KeyStatus, LastMinute, ListenerStatus, RotationStatus, ServerStatus, Status, StoreStatus,
    UpstreamStatus,
};
use crate::clock::Timestamp;
use crate::config::UpstreamConfig;
use crate::rotation::Progress;
use crate::store::{KeyRecord, KeyState};
use crate::telemetry::{Figures, ServerFigures, UpstreamLabels, log_in_force};
use crate::upstream::ServerNow;

impl Live {
    /// How it does now.
    pub(super) async fn status_now(&self) -> Status {
        let gateway = self.gateway.load_full();
        let now = gateway.clock.now();
        let figures = gateway.metrics.figures();
        let lately = self.last_minute.until(gateway.clock.monotonic(), &figures);
        let (ready, readiness) = gateway.readiness_parts().await;
        let (keys, rotations) = keys_and_rotations(&gateway, now).await;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at.rfc3339(),
            uptime_seconds: now.since(self.started_at).as_secs(),
            ready,
            readiness,
            catching_up: gateway.catching_up().map(|waits_for| waits_for.to_string()),
            configuration: self.configuration(&gateway, &figures),
            listeners: self.listener_statuses(),
            sessions: gateway.sessions.len() as u64,
            requests: figures.requests.count(),
            last_minute: last_minute(&lately),
            store: store(&lately, &figures),
            keys,
            rotations,
            upstreams: upstreams(&gateway),
            log_level: log_in_force().level,
            log_lines_lost: figures.lines_lost,
        }
    }

    /// Notes the counters and tells of the listeners, until the gateway stops.
    pub(super) async fn look_on(&self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = interval.tick() => {}
            }
            let gateway = self.gateway.load_full();
            self.last_minute.note(gateway.clock.monotonic(), &gateway.metrics.figures());
            self.tell_of_listeners(&gateway);
        }
    }

    fn configuration(&self, gateway: &Gateway, figures: &Figures) -> ConfigurationInForce {
        let [reloads_done, reloads_refused, reloads_failed] = figures.reloads;
        ConfigurationInForce {
            file: gateway.config.file.display().to_string(),
            sha256: gateway.config.sha256.clone(),
            in_force_since: self.in_force_since().rfc3339(),
            reloads_done,
            reloads_refused,
            reloads_failed,
        }
    }

    fn listener_statuses(&self) -> Vec<ListenerStatus> {
        let status = |(serves, handle): (&'static str, &crate::edge::ListenerHandle)| {
            let terms = handle.in_force();
            let tls = terms.terms.tls.as_ref();
            ListenerStatus {
                serves: serves.to_owned(),
                address: handle.address().to_string(),
                tls: tls.is_some(),
                connections: handle.connections() as u64,
                certificate_expires_at: tls.and_then(|tls| tls.expires_at()).map(Timestamp::rfc3339),
            }
        };
        self.with_listeners(|listeners| listeners.handles().map(status).collect())
    }

    /// In the metrics.
    pub(super) fn tell_of_listeners(&self, gateway: &Gateway) {
        self.with_listeners(|listeners| {
            for (serves, handle) in listeners.handles() {
                let expires_at = handle.in_force().terms.tls.as_ref().and_then(|tls| tls.expires_at());
                let address = handle.address().to_string();
                gateway.metrics.listener(serves, &address, handle.connections(), expires_at);
            }
        });
    }
}

impl Gateway {
    /// In the metrics: these upstreams and no others.
    pub(super) fn show_upstreams(&self) {
        let labels = |upstream: &UpstreamConfig| UpstreamLabels {
            name: upstream.name.clone(),
            servers: upstream.servers.iter().map(ToString::to_string).collect(),
            probed: upstream.health.is_some(),
        };
        self.metrics.upstreams_in_force(self.config.upstreams.iter().map(labels).collect());
    }

    /// In the metrics.
    pub(super) fn tell_of_upstreams(&self) {
        for (index, upstream) in self.config.upstreams.iter().enumerate() {
            for (server, now) in upstream.servers.iter().zip(self.health.servers(index)) {
                let ServerNow { ejected, ejections, connections, up: _ } = now;
                let figures = ServerFigures { ejected, ejections, connections };
                self.metrics.upstream_server_now(&upstream.name, &server.to_string(), figures);
            }
            let (waiting, turned_away) = self.health.waiting(index);
            self.metrics.upstream_waiting(&upstream.name, waiting, turned_away);
        }
    }
}

/// None where the store does not answer.
async fn keys_and_rotations(gateway: &Gateway, now: Timestamp) -> (Vec<KeyStatus>, Vec<RotationStatus>) {
    let keys = gateway.lifecycle.stored().await.map(|stored| stored.keys).unwrap_or_default();
    let key = |key: &KeyRecord| KeyStatus {
        id: key.id.clone(),
        purpose: key.purpose.as_str().to_owned(),
        state: key.state.as_str().to_owned(),
        suspended: key.suspended,
        compromised: key.compromised,
        age_seconds: now.since(key.dates.activated_at.unwrap_or(key.created_at)).as_secs(),
    };
    let keys = keys.iter().filter(|key| key.state != KeyState::Destroyed).map(key).collect();
    let rotations = gateway.rotations.list().await.unwrap_or_default();
    let rotation = |progress: &Progress| RotationStatus {
        id: progress.record.id.clone(),
        purpose: progress.record.purpose.as_str().to_owned(),
        state: progress.record.state.as_str().to_owned(),
        from: progress.record.from.clone(),
        to: progress.record.to.clone(),
        total: progress.record.total,
        remaining: progress.remaining,
        rate: progress.rate,
    };
    (keys, rotations.iter().filter(|progress| progress.record.state.is_open()).map(rotation).collect())
}

fn last_minute(lately: &Lately) -> LastMinute {
    let requests = lately.requests.count();
    LastMinute {
        seconds: lately.span.as_secs_f64(),
        requests,
        requests_per_second: per_second(requests, lately.span),
        p50_ms: lately.requests.within(0.5).map(millis),
        p99_ms: lately.requests.within(0.99).map(millis),
        failed: lately.failed,
        refused: lately.refused,
    }
}

fn store(lately: &Lately, figures: &Figures) -> StoreStatus {
    StoreStatus {
        waiting: figures.store_waiting,
        writes_per_second: per_second(lately.store_writes.count(), lately.span),
        p50_ms: lately.store_writes.within(0.5).map(millis),
        p99_ms: lately.store_writes.within(0.99).map(millis),
    }
}

fn upstreams(gateway: &Gateway) -> Vec<UpstreamStatus> {
    let upstreams = gateway.config.upstreams.iter().enumerate();
    let status = |(index, upstream): (usize, &UpstreamConfig)| {
        let server = |(server, now): (&crate::config::UpstreamServer, ServerNow)| ServerStatus {
            address: server.to_string(),
            probed: upstream.health.is_some(),
            up: now.up,
            ejected: now.ejected,
            connections: now.connections as u64,
        };
        let servers = upstream.servers.iter().zip(gateway.health.servers(index)).map(server).collect();
        let (waiting, _) = gateway.health.waiting(index);
        UpstreamStatus { name: upstream.name.clone(), waiting: waiting as u64, servers }
    };
    upstreams.map(status).collect()
}

/// To a tenth: more would only look exact.
#[expect(clippy::cast_precision_loss, reason = "a count of one minute is far below what a double holds")]
fn per_second(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { (count as f64 / span.as_secs_f64() * 10.0).round() / 10.0 }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
