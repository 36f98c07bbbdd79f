//! `[[upstream]]`.

use std::time::Duration;

use super::values::Context;
use crate::config::origin::Origin;
use crate::config::raw::{self, Table};
use crate::config::types::{
    ClientCertificate, HealthConfig, SubjectKind, UpstreamConfig, UpstreamQueue, UpstreamServer, UpstreamTimeouts,
};

const LONGEST_NAME: usize = 64;
const LONGEST_AUDIENCE: usize = 256;
/// `sockaddr_un.sun_path` holds 108 bytes, the last of them zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
/// As many as there are ports to one address.
const MOST_CONNECTIONS: u32 = 65_535;
const CONNECTIONS: u32 = 4096;
const LONGEST_QUEUE: u32 = 65_535;
const QUEUE: u32 = 256;

/// One configuration for each written upstream, in their order, so that an index means the same in both. A broken
/// one is a stand-in.
pub(super) fn check(raw: Option<Vec<Table<raw::Upstream>>>, cx: &mut Context) -> Vec<UpstreamConfig> {
    let mut upstreams: Vec<UpstreamConfig> = Vec::new();
    for (index, Table(raw)) in raw.unwrap_or_default().into_iter().enumerate() {
        let key = format!("upstream[{index}]");
        let upstream = one(&key, raw, cx);
        if let Some(other) = upstreams.iter().position(|other| !other.name.is_empty() && other.name == upstream.name) {
            let line = cx.report.line(&format!("upstream[{other}].name"));
            cx.report.error(&format!("{key}.name"), format_args!("{:?} is already used on line {line}", upstream.name));
        }
        let shared = |other: &UpstreamConfig| !other.audience.is_empty() && other.audience == upstream.audience;
        if let Some(other) = upstreams.iter().position(shared) {
            let line = cx.report.line(&format!("upstream[{other}].audience"));
            cx.report.warning(
                &format!("{key}.audience"),
                format_args!("is shared with line {line}: each of the two upstreams can use the other's assertions"),
            );
        }
        upstreams.push(upstream);
    }
    upstreams
}

fn one(key: &str, raw: raw::Upstream, cx: &mut Context) -> UpstreamConfig {
    for (name, missing, what) in [
        ("name", raw.name.is_none(), "write a name for routes to use, such as \"console\""),
        ("servers", raw.servers.is_none(), "write at least one, such as [\"http://127.0.0.1:9000\"]"),
        (
            "audience",
            raw.audience.is_none(),
            "write the aud that this upstream demands, such as \"https://console.internal\"",
        ),
    ] {
        if missing {
            cx.report.missing(&format!("{key}.{name}"), format_args!("is missing; {what}"));
        }
    }
    let name = cx.read(&format!("{key}.name"), raw.name.as_deref(), |name| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let sound = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed);
        if sound { Ok(name.to_owned()) } else { Err("must be 1 to 64 characters of a-z, 0-9 and -") }
    });
    let audience_key = format!("{key}.audience");
    let audience = cx.text(&audience_key, raw.audience.as_deref(), LONGEST_AUDIENCE);
    let ca = cx.path(&format!("{key}.ca"), raw.ca.as_deref());
    let servers = servers(&format!("{key}.servers"), raw.servers.as_deref(), cx);
    let certificate_key = format!("{key}.client_certificate");
    let client_certificate =
        raw.client_certificate.and_then(|Table(raw)| client_certificate(&certificate_key, &raw, cx));
    if client_certificate.is_some() && !servers.is_empty() && !servers.iter().any(UpstreamServer::is_https) {
        cx.report.warning(&certificate_key, "is shown to nobody, since no server of this upstream is https");
    }
    UpstreamConfig {
        name: name.unwrap_or_default(),
        servers,
        audience: audience.unwrap_or_default(),
        may_bind: raw.may_bind.unwrap_or(false),
        subject: match raw.subject {
            Some(raw::Subject::Account) => SubjectKind::Account,
            Some(raw::Subject::Pairwise) | None => SubjectKind::Pairwise,
        },
        ca,
        client_certificate,
        connections: whole(cx.number(
            &format!("{key}.connections"),
            raw.connections,
            CONNECTIONS,
            1..=MOST_CONNECTIONS,
        )),
        queue: queue(&format!("{key}.queue"), raw.queue, cx),
        health: raw.health.and_then(|Table(raw)| health(&format!("{key}.health"), &raw, cx)),
        timeout: timeouts(&format!("{key}.timeout"), raw.timeout, cx),
    }
}

fn client_certificate(key: &str, raw: &raw::ClientCertificate, cx: &mut Context) -> Option<ClientCertificate> {
    let mut file = |name: &str, written: Option<&str>, what: &str| {
        let key = format!("{key}.{name}");
        if written.is_none() {
            cx.report.missing(&key, format_args!("is missing; name the PEM file of {what}"));
        }
        cx.path(&key, written)
    };
    let certificate = file("certificate", raw.certificate.as_deref(), "the certificate chain");
    let key = file("key", raw.key.as_deref(), "the private key");
    Some(ClientCertificate { certificate: certificate?, key: key? })
}

fn health(key: &str, raw: &raw::Health, cx: &mut Context) -> Option<HealthConfig> {
    let path_key = format!("{key}.path");
    if raw.path.is_none() {
        cx.report.missing(
            &path_key,
            "is missing; write what a server that is well answers with 2xx or 3xx, such as \"/healthz\"",
        );
    }
    let path = cx.read(&path_key, raw.path.as_deref(), |path| {
        let visible = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if path.starts_with('/') && visible {
            Ok(path.to_owned())
        } else {
            Err("must begin with / and be visible ASCII")
        }
    });
    let usual = Duration::from_secs(5);
    let within = usual / 50..=usual * 720;
    let interval = cx.duration(&format!("{key}.interval"), raw.interval.as_deref(), usual, within);
    Some(HealthConfig { path: path?, interval })
}

fn servers(key: &str, written: Option<&[String]>, cx: &mut Context) -> Vec<UpstreamServer> {
    if written.is_some_and(<[String]>::is_empty) {
        cx.report.error(key, "must name at least one server, such as \"http://127.0.0.1:9000\"");
    }
    let mut servers: Vec<UpstreamServer> = Vec::new();
    for (index, text) in written.unwrap_or_default().iter().enumerate() {
        let key = format!("{key}[{index}]");
        let server = if let Some(path) = text.strip_prefix("unix:") {
            let Some(path) = cx.path(&key, Some(path)) else { continue };
            if path.as_os_str().len() > LONGEST_SOCKET_PATH {
                cx.report.error(
                    &key,
                    format_args!("is a path of more than {LONGEST_SOCKET_PATH} bytes, which no socket can have"),
                );
            }
            UpstreamServer::Unix(path)
        } else {
            let Some(origin) = cx.read(&key, Some(text), Origin::parse) else { continue };
            if !origin.https && !origin.is_loopback() {
                cx.report.warning(
                    &key,
                    "is http and not on this machine: requests and assertions can be read on the way; use https",
                );
            }
            let (host, port) = (origin.bare_host().to_owned(), origin.effective_port());
            UpstreamServer::Tcp { https: origin.https, host, port }
        };
        if servers.contains(&server) {
            cx.report.error(&key, "is already in this list");
        }
        servers.push(server);
    }
    servers
}

fn queue(key: &str, raw: Option<Table<raw::Queue>>, cx: &mut Context) -> UpstreamQueue {
    let Table(raw) = raw.unwrap_or_default();
    let length = cx.number(&format!("{key}.length"), raw.length, QUEUE, 0..=LONGEST_QUEUE);
    // An assertion that waited with its request has to be good for some time when it arrives.
    let within = Duration::from_millis(10)..=Duration::from_secs(15);
    let time = cx.duration(&format!("{key}.time"), raw.time.as_deref(), Duration::from_secs(5), within);
    UpstreamQueue { length: whole(length), time }
}

fn whole(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn timeouts(key: &str, raw: Option<Table<raw::Timeout>>, cx: &mut Context) -> UpstreamTimeouts {
    let Table(raw) = raw.unwrap_or_default();
    let mut timeout = |name: &str, written: Option<String>, default| {
        let (least, most) = (Duration::from_millis(10), Duration::from_hours(24));
        cx.duration(&format!("{key}.{name}"), written.as_deref(), Duration::from_secs(default), least..=most)
    };
    UpstreamTimeouts {
        connect: timeout("connect", raw.connect, 3),
        first_byte: timeout("first_byte", raw.first_byte, 30),
        idle: timeout("idle", raw.idle, 60),
    }
}
