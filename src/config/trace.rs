//! `[trace]` as domain types.

use std::fmt;
use std::path::PathBuf;

use super::document::join;
use super::origin::Origin;
use super::secret_source::SecretSource;

/// `[trace]`.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Where the collector takes OTLP over HTTP.
    pub endpoint: CollectorUrl,
    /// Which part of all requests is recorded, 0 to 1. Default 1.
    pub ratio: f64,
    /// Who decides which.
    pub sampling: TraceSampling,
    /// Header fields for the collector, names as they are written.
    pub headers: Vec<(String, SecretSource)>,
    /// PEM file of the authorities that vouch for an https collector. Default: the system's.
    pub ca: Option<PathBuf>,
    /// What the gateway calls itself there. Default `sekisho`.
    pub service: String,
}

impl TraceConfig {
    /// The key of the header field that is written so.
    #[must_use]
    pub fn header_key(written: &str) -> String {
        join("trace.headers", written)
    }
}

/// Where a collector is: an origin, and what stands before its own path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    /// Scheme, host and port.
    pub origin: Origin,
    /// Empty, or a path without a slash at its end.
    pub path: String,
}

impl CollectorUrl {
    /// Host and port, as `Host` says them.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.origin.port {
            Some(port) => format!("{}:{port}", self.origin.host),
            None => self.origin.host.clone(),
        }
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

/// `trace.sampling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceSampling {
    /// The ratio alone.
    Ratio,
    /// Where a trusted proxy says which trace a request belongs to, whether that is recorded; elsewhere the ratio.
    Parent,
}
