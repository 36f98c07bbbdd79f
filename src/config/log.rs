//! `[log]` and `[privacy]`, checked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Where the access stream goes.
    pub access: AccessLog,
    /// How its lines are written.
    pub format: AccessFormat,
    /// Whether the lines of its file are under keys that are destroyed at the end of the retention.
    pub sealed: bool,
    /// Where the security stream goes.
    pub security: SecurityLog,
    /// From which level on the system stream is written. Default `info`.
    pub level: LogLevel,
}

/// How a line of the access stream is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// A JSON object.
    #[default]
    Json,
    /// The Common Log Format.
    Common,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed that a person must look at.
    Error,
    /// Something is doubtful.
    Warn,
    /// What happens.
    #[default]
    Info,
    /// How it happens.
    Debug,
    /// Each step of it.
    Trace,
}

impl LogLevel {
    /// The word for it in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Where the access stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// JSON lines on stdout, with the other streams.
    Stdout,
    /// In a file.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// Where the security stream goes. Nowhere is not among the choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityLog {
    /// JSON lines on stdout, with the other streams.
    Stdout,
    /// JSON lines in a file of its own.
    File(PathBuf),
}

/// `[privacy]`.
#[derive(Clone, Copy, Debug)]
pub struct PrivacyConfig {
    /// What logs say of a client's address.
    pub client_address: ClientAddressDetail,
    /// Days for which the days of an access log in a file are kept.
    pub access_log_days: u32,
    /// Days for which the days of a security log in a file are kept.
    pub security_log_days: u32,
    /// Days after which entries of the audit trail are erased; never if unsaid.
    pub audit_retention_days: Option<u32>,
    /// Smaller counts are not shown.
    pub statistics_floor: u64,
    /// Days for which statistics are kept.
    pub statistics_days: u32,
    /// Days within which what a session leaves behind is gone from the store's file.
    pub sessions_days: u32,
    /// Days within which what an enrolment code leaves behind is gone from the store's file.
    pub codes_days: u32,
}

/// What logs say of a client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAddressDetail {
    /// All of it.
    Full,
    /// The /24 (IPv4) or /48 (IPv6) it lies in. The default.
    Prefix,
    /// Nothing.
    None,
}
