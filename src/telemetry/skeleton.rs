//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use std::time::Duration;

use crate::binding::AccountId;
use crate::carrier::CarrierName;
use crate::config::{ClientAddressDetail, LogConfig, PrivacyConfig};
use crate::edge::ClientAddr;
use crate::refusal::Reason;

/// Keeps the writers alive; dropping it flushes them.
pub struct LogGuard {
    _p: (),
}
/// Installs the subscriber: JSON lines, streams `access`, `security`, `system`; `RUST_LOG`-like filter from SEKISHO_LOG.
pub fn init(_log: &LogConfig) -> std::io::Result<LogGuard> {
    todo!()
}
/// What is written of one request.
pub struct Access<'a> {
    pub method: &'a str,
    /// Path without query.
    pub path: &'a str,
    pub status: u16,
    pub client: Option<ClientAddr>,
    pub duration: Duration,
    pub carrier: Option<&'a CarrierName>,
    pub request_id: &'a str,
}
/// Where the access stream goes; built once, shared by all workers.
pub struct AccessLogger {
    _p: (),
}
impl AccessLogger {
    pub fn new(_log: &LogConfig, _privacy: &PrivacyConfig) -> std::io::Result<Self> {
        todo!()
    }
    pub fn write(&self, _access: &Access<'_>) {
        todo!()
    }
}
/// What the security team must see.
pub enum SecurityEvent<'a> {
    SignedIn { account: &'a AccountId, carrier: &'a CarrierName },
    Enrolled { account: &'a AccountId, carrier: &'a CarrierName },
    SignedOut { account: &'a AccountId },
    Refused { reason: Reason, carrier: Option<&'a CarrierName> },
    DeviceMismatch { account: &'a AccountId, carrier: &'a CarrierName },
    BindingRemoved { account: &'a AccountId, carrier: &'a CarrierName, by: &'a str },
    SessionsEnded { account: Option<&'a AccountId>, count: usize, by: &'a str },
    CodeIssued { account: &'a AccountId, by: &'a str },
}
pub fn security(_event: &SecurityEvent<'_>, _client: Option<ClientAddr>, _detail: ClientAddressDetail) {
    todo!()
}
/// All metrics, prefix `sekisho_`, bounded labels.
pub struct Metrics {
    _p: (),
}
impl Metrics {
    pub fn new() -> Self {
        todo!()
    }
    pub fn request(&self, _status: u16, _duration: Duration) {
        todo!()
    }
    pub fn sign_in(&self, _carrier: &CarrierName) {
        todo!()
    }
    pub fn enrolment(&self, _carrier: &CarrierName) {
        todo!()
    }
    pub fn refusal(&self, _reason: Reason) {
        todo!()
    }
    pub fn upstream(&self, _upstream: &str, _error: Option<Reason>) {
        todo!()
    }
    pub fn live_sessions(&self, _count: usize) {
        todo!()
    }
    /// Prometheus text format 0.0.4 / OpenMetrics.
    pub fn render(&self) -> String {
        todo!()
    }
}
