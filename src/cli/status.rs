//! `status`: how a running gateway does, once.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::connection::{Connection, path};
use super::output::Document;
use crate::admin::{KeyStatus, ListenerStatus, RotationStatus, ServerStatus, Status, UpstreamStatus};

#[derive(Args)]
pub(super) struct Look {
    #[command(flatten)]
    connection: Connection,
}

impl Look {
    pub(super) fn run(self) -> ExitCode {
        self.connection.call::<Status>(Method::GET, &path(["status"]))
    }
}

impl Document for Status {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![
            ("version".to_owned(), self.version.clone()),
            ("up".to_owned(), format!("{}, since {}", span(self.uptime_seconds), self.started_at)),
            ("ready".to_owned(), readiness(self)),
            ("configuration".to_owned(), self.configuration.file.clone()),
            ("in force since".to_owned(), in_force(self)),
            ("requests".to_owned(), requests(self)),
            ("store".to_owned(), store(self)),
            ("sessions".to_owned(), self.sessions.to_string()),
            ("log".to_owned(), log(self)),
        ];
        rows.extend(self.listeners.iter().map(|l| (format!("listener {}", l.address), listener(l))));
        for upstream in &self.upstreams {
            rows.extend(servers(upstream).map(|(server, _)| (format!("upstream {}", upstream.name), server)));
        }
        rows.extend(self.keys.iter().map(|k| (format!("key {}", k.id), key(k))));
        rows.extend(self.rotations.iter().map(|r| (format!("rotation {}", r.id), rotation(r))));
        rows.into_iter().map(|(name, value)| vec![name, value]).collect()
    }
}

/// `yes`, or what is missing.
pub(super) fn readiness(status: &Status) -> String {
    if status.ready {
        return "yes".to_owned();
    }
    let parts = &status.readiness;
    let parts = [
        ("listeners", parts.listeners),
        ("store", parts.store),
        ("keys", parts.keys),
        ("forged headers", parts.forged_headers),
        ("restored store", parts.caught_up),
    ];
    let missing: Vec<_> = parts.into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name).collect();
    let waits_for = status.catching_up.as_ref().map(|waits_for| format!(" ({waits_for})"));
    format!("NO: {}{}", missing.join(", "), waits_for.unwrap_or_default())
}

pub(super) fn in_force(status: &Status) -> String {
    let configuration = &status.configuration;
    let mut text = format!("{}, {} reloads", configuration.in_force_since, configuration.reloads_done);
    for (count, word) in [(configuration.reloads_refused, "refused"), (configuration.reloads_failed, "failed")] {
        if count > 0 {
            let _ = write!(text, ", {count} {word}"); // a String takes every write
        }
    }
    text
}

pub(super) fn requests(status: &Status) -> String {
    let lately = &status.last_minute;
    let (rate, took) = (lately.requests_per_second, took(lately.p50_ms, lately.p99_ms));
    format!("{rate:.1}/s{took}, {} failed, {} refused, in {:.0} s", lately.failed, lately.refused, lately.seconds)
}

pub(super) fn store(status: &Status) -> String {
    let store = &status.store;
    format!("{:.1} writes/s{}, {} waiting", store.writes_per_second, took(store.p50_ms, store.p99_ms), store.waiting)
}

fn took(p50: Option<f64>, p99: Option<f64>) -> String {
    match (p50, p99) {
        (Some(p50), Some(p99)) => format!(", p50 {p50} ms, p99 {p99} ms"),
        _ => String::new(),
    }
}

pub(super) fn log(status: &Status) -> String {
    format!("{}, {} lines lost", status.log_level, status.log_lines_lost)
}

pub(super) fn listener(listener: &ListenerStatus) -> String {
    let scheme = if listener.tls { "https" } else { "http" };
    let until = listener.certificate_expires_at.as_ref().map(|at| format!(", certificate until {at}"));
    let (serves, connections) = (&listener.serves, listener.connections);
    format!("{serves} {scheme}, {connections} connections{}", until.unwrap_or_default())
}

/// Each server with its state, and whether that needs a look.
pub(super) fn servers(upstream: &UpstreamStatus) -> impl Iterator<Item = (String, bool)> {
    let waiting = match upstream.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} requests WAITING"),
    };
    upstream.servers.iter().map(move |server| {
        let state = match server {
            ServerStatus { probed: true, up: false, .. } => "DOWN",
            ServerStatus { ejected: true, .. } => "EJECTED",
            ServerStatus { probed: true, .. } => "up",
            ServerStatus { probed: false, .. } => "not probed",
        };
        let looks_ill = matches!(state, "DOWN" | "EJECTED") || upstream.waiting > 0;
        (format!("{} {state}, {} connections{waiting}", server.address, server.connections), looks_ill)
    })
}

pub(super) fn key(key: &KeyStatus) -> String {
    let mut text = format!("{} {}, {}", key.purpose, key.state, span(key.age_seconds));
    for (holds, word) in [(key.suspended, ", SUSPENDED"), (key.compromised, ", COMPROMISED")] {
        if holds {
            text.push_str(word);
        }
    }
    text
}

pub(super) fn rotation(rotation: &RotationStatus) -> String {
    let RotationStatus { purpose, state, from, to, total, remaining, rate, .. } = rotation;
    format!("{purpose} {state}, {from} to {to}, {remaining} of {total} left, {rate}/s")
}

/// A length of time as people say it, by its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin::{ConfigurationInForce, LastMinute, ReadinessParts, StoreStatus};

    pub(in crate::cli) fn status() -> Status {
        let server = |port: u16, probed, up, ejected| {
            let address = format!("http://127.0.0.1:{port}");
            ServerStatus { address, probed, up, ejected, connections: 4 }
        };
        let at = "2026-11-25T12:00:00.000Z".to_owned();
        Status {
            version: "0.1.0".to_owned(),
            started_at: at.clone(),
            uptime_seconds: 93_784,
            ready: true,
            readiness: ReadinessParts {
                listeners: true,
                store: true,
                keys: true,
                forged_headers: true,
                caught_up: true,
            },
            catching_up: None,
            configuration: ConfigurationInForce {
                file: "/etc/sekisho/gateway.toml".to_owned(),
                sha256: String::new(),
                in_force_since: at.clone(),
                reloads_done: 2,
                reloads_refused: 1,
                reloads_failed: 0,
            },
            listeners: vec![ListenerStatus {
                serves: "handset".to_owned(),
                address: "0.0.0.0:8443".to_owned(),
                tls: true,
                connections: 12,
                certificate_expires_at: Some(at),
            }],
            sessions: 7,
            requests: 1000,
            last_minute: LastMinute {
                seconds: 60.2,
                requests: 600,
                requests_per_second: 10.0,
                p50_ms: Some(0.75),
                p99_ms: Some(4.5),
                failed: 3,
                refused: 9,
            },
            store: StoreStatus { waiting: 0, writes_per_second: 1.5, p50_ms: None, p99_ms: None },
            keys: vec![KeyStatus {
                id: "a1".to_owned(),
                purpose: "assertion".to_owned(),
                state: "active".to_owned(),
                suspended: true,
                compromised: false,
                age_seconds: 600,
            }],
            rotations: vec![RotationStatus {
                id: "r1".to_owned(),
                purpose: "binding".to_owned(),
                state: "running".to_owned(),
                from: "k1".to_owned(),
                to: "k2".to_owned(),
                total: 100,
                remaining: 40,
                rate: 5,
            }],
            upstreams: vec![UpstreamStatus {
                name: "console".to_owned(),
                waiting: 2,
                servers: vec![
                    server(9000, true, true, false),
                    server(9001, true, false, true),
                    server(9002, false, true, true),
                ],
            }],
            log_level: "info".to_owned(),
            log_lines_lost: 0,
        }
    }

    #[test]
    fn a_status_is_read_at_a_glance() {
        let rows: Vec<_> = status().rows().iter().map(|row| row.join(": ")).collect();
        for expected in [
            "up: 1 d 2 h, since 2026-11-25T12:00:00.000Z",
            "ready: yes",
            "in force since: 2026-11-25T12:00:00.000Z, 2 reloads, 1 refused",
            "requests: 10.0/s, p50 0.75 ms, p99 4.5 ms, 3 failed, 9 refused, in 60 s",
            "store: 1.5 writes/s, 0 waiting",
            "listener 0.0.0.0:8443: handset https, 12 connections, certificate until 2026-11-25T12:00:00.000Z",
            "upstream console: http://127.0.0.1:9000 up, 4 connections, 2 requests WAITING",
            "upstream console: http://127.0.0.1:9001 DOWN, 4 connections, 2 requests WAITING",
            "upstream console: http://127.0.0.1:9002 EJECTED, 4 connections, 2 requests WAITING",
            "key a1: assertion active, 10 min 0 s, SUSPENDED",
            "rotation r1: binding running, k1 to k2, 40 of 100 left, 5/s",
        ] {
            assert!(rows.iter().any(|row| row == expected), "{expected} in {rows:#?}");
        }
        let mut ill = status();
        ill.ready = false;
        ill.readiness.store = false;
        ill.readiness.keys = false;
        assert_eq!(readiness(&ill), "NO: store, keys");
    }
}
