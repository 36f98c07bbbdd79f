//! `status`: how the gateway does now. Nothing in it is about a person.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::AnyRole;
use super::operations::Operations;
use super::refused::Refused;

/// How the gateway does now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// When the process began to serve.
    pub started_at: String,
    /// For how long it has.
    pub uptime_seconds: u64,
    /// Whether handsets are served.
    pub ready: bool,
    /// What that hangs on, as `/readyz` shows it.
    pub readiness: ReadinessParts,
    /// What a restored store waits for before a handset is served, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catching_up: Option<String>,
    /// What is in force.
    pub configuration: ConfigurationInForce,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// Sessions that are open.
    pub sessions: u64,
    /// Requests since the start.
    pub requests: u64,
    /// What happened lately.
    pub last_minute: LastMinute,
    /// The store.
    pub store: StoreStatus,
    /// Keys that were not destroyed; none where the store does not answer.
    pub keys: Vec<KeyStatus>,
    /// Rotations that are open.
    pub rotations: Vec<RotationStatus>,
    /// In the order of the configuration.
    pub upstreams: Vec<UpstreamStatus>,
    /// What the system log tells.
    pub log_level: String,
    /// Log lines that never reached their stream, since the start.
    pub log_lines_lost: u64,
}

/// What readiness hangs on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "one answer a part, as it is shown")]
pub struct ReadinessParts {
    /// Whether connections are accepted.
    pub listeners: bool,
    /// Whether the store answers.
    pub store: bool,
    /// Whether there are keys.
    pub keys: bool,
    /// Whether the test of itself has passed.
    pub forged_headers: bool,
    /// Whether the store is what it should be: not one that was restored, of which something is left to do.
    pub caught_up: bool,
}

/// The configuration in force.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigurationInForce {
    /// The file that it was read from.
    pub file: String,
    /// SHA-256 of the file as it was, in hexadecimal.
    pub sha256: String,
    /// Since when.
    pub in_force_since: String,
    /// Reloads since the start: made.
    pub reloads_done: u64,
    /// Refused: the file was not sound.
    pub reloads_refused: u64,
    /// Failed: the audit trail could not be written.
    pub reloads_failed: u64,
}

/// A listener.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ListenerStatus {
    /// `handset`, `forward-auth`, `ops` or `admin`.
    pub serves: String,
    /// Where it listens.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Connections that are open.
    pub connections: u64,
    /// When the certificate that it shows runs out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<String>,
}

/// What happened lately.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct LastMinute {
    /// How long ago that begins: about a minute, less after a start.
    pub seconds: f64,
    /// Requests answered.
    pub requests: u64,
    /// In a second.
    pub requests_per_second: f64,
    /// Half of them took no longer until the head of their answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// All but one in a hundred took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// Answered with 5xx.
    pub failed: u64,
    /// Refused, by whatever reason.
    pub refused: u64,
}

/// The store.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// Writes that wait for an answer.
    pub waiting: u64,
    /// Writes of the last minute, in a second.
    pub writes_per_second: f64,
    /// Half of them took no longer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// All but one in a hundred took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// A key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyStatus {
    /// `k1`.
    pub id: String,
    /// `binding`, `assertion`, `session` or `audit`.
    pub purpose: String,
    /// `pending`, `active`, `retiring`, `inner` or `drained`.
    pub state: String,
    /// Whether what needs it is refused.
    pub suspended: bool,
    /// Whether it is known to have leaked.
    pub compromised: bool,
    /// Since it came into use; since it was made, where it has not.
    pub age_seconds: u64,
}

/// A rotation that is open.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RotationStatus {
    /// `r1`.
    pub id: String,
    /// What for.
    pub purpose: String,
    /// `running`, `paused` or `draining`.
    pub state: String,
    /// The key that is to go.
    pub from: String,
    /// The key that takes its place.
    pub to: String,
    /// Bindings when it began.
    pub total: u64,
    /// Bindings that still need the old key.
    pub remaining: u64,
    /// Bindings that are moved in a second.
    pub rate: u64,
}

/// An upstream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Requests that wait because its servers have as many connections as they may.
    pub waiting: u64,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// A server of an upstream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// As `upstream.servers` names it.
    pub address: String,
    /// Whether it is probed.
    pub probed: bool,
    /// Whether it gets requests, as far as probes say.
    pub up: bool,
    /// Whether it gets none for a while, because it left some without an answer.
    pub ejected: bool,
    /// Connections to it that are open.
    pub connections: u64,
}

/// How the gateway does now. For who has any role.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status), Refused))]
pub(super) async fn status(_: AnyRole, State(ops): State<Operations>) -> Json<Status> {
    Json(ops.process.status().await)
}
