//! How a command ends.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

use crate::admin::{ClientError, Refusal, RefusalDetail};
use crate::config::Finding;
use crate::gateway::RestoreError;
use crate::tls::TlsError;

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Refused = 1,
    Usage = 2,
    NotReachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Gateway(#[from] ClientError),
    #[error(
        "name the running gateway's socket with --socket, --config or SEKISHO_SOCKET, or its admin listener with --admin-url"
    )]
    NoSocket,
    #[error("SEKISHO_SOCKET and SEKISHO_ADMIN_URL are both set; unset one, or say --socket or --admin-url")]
    TwoWays,
    #[error("--admin-url: {0}")]
    AdminUrl(String),
    #[error("over --admin-url you are known by a certificate: name it with --cert and --key")]
    NoCertificate,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{}", lines(.0))]
    Configuration(Findings),
    #[error("{}\n{}", .0.findings.join("\n"), .0.message)]
    Reload(RefusalDetail),
    #[error("top needs a terminal to draw on; `sekisho status` says the same once, with --json for programs")]
    NoTerminal,
    #[error("--fingerprint-key takes an even number of hexadecimal digits, two at least")]
    FingerprintKey,
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: this is no document of `policy show --json`", .0.display())]
    NoPolicy(PathBuf),
    #[error("--audit-key takes a public key as a receipt shows it, or a fingerprint as `audit verify` shows it")]
    AuditKey,
    #[error("`verify` asks no gateway; the key that should have sealed the file is named by --audit-key")]
    Offline,
    #[error("{}: {why}", path.display())]
    Store { path: PathBuf, why: String },
    #[error("name the sealed log, - for stdin, or with --config a configuration whose log.access has a file")]
    NoLog,
    #[error("cannot write {}: {source}", path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("{}", restore_text(.0))]
    Restore(RestoreError),
    #[error("cannot read stdin or write stdout: {0}")]
    Stream(#[from] io::Error),
}

/// What is wrong with a configuration.
pub(super) struct Findings(pub(super) Vec<Finding>);

impl std::fmt::Debug for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&lines(self))
    }
}

fn restore_text(error: &RestoreError) -> String {
    if let RestoreError::Configuration(found) = error { text(found) } else { error.to_string() }
}

fn lines(findings: &Findings) -> String {
    text(&findings.0)
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let _ = writeln!(out, "{finding}"); // a String takes every write
    }
    out.truncate(out.trim_end().len());
    out
}

impl Failure {
    /// Its exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            // Whoever closed the pipe has read enough.
            Self::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Restore(error) if !matches!(error, RestoreError::Configuration(_)) => Exit::Refused,
            Self::Gateway(ClientError::Refused(_)) | Self::Stream(_) | Self::Output { .. } => Exit::Refused,
            Self::Gateway(
                ClientError::Unreachable { .. }
                | ClientError::Forbidden { .. }
                | ClientError::Tls { .. }
                | ClientError::Silent { .. }
                | ClientError::BrokenOff { .. }
                | ClientError::CutOff { .. }
                | ClientError::Protocol { .. },
            ) => Exit::NotReachable,
            Self::NoSocket
            | Self::TwoWays
            | Self::AdminUrl(_)
            | Self::NoCertificate
            | Self::Tls(_)
            | Self::Configuration(_)
            | Self::Reload(_)
            | Self::NoTerminal
            | Self::FingerprintKey
            | Self::AuditKey
            | Self::NoPolicy(_)
            | Self::NoLog
            | Self::Offline
            | Self::File { .. }
            | Self::Store { .. }
            | Self::Restore(_) => Exit::Usage,
        }
    }

    /// The document for `--json`.
    pub(super) fn document(&self) -> Refusal {
        let reason = match self {
            Self::Gateway(ClientError::Refused(detail)) => &detail.reason,
            Self::Reload(detail) => {
                let (reason, message) = (detail.reason.clone(), detail.message.clone());
                return Refusal { error: RefusalDetail { reason, message, findings: detail.findings.clone() } };
            }
            Self::Gateway(_) => "not-reachable",
            Self::Stream(_) => "stream-failed",
            Self::Output { .. } => "output-failed",
            Self::Restore(error) => error.reason(),
            Self::NoSocket
            | Self::TwoWays
            | Self::AdminUrl(_)
            | Self::NoCertificate
            | Self::Tls(_)
            | Self::Configuration(_)
            | Self::NoTerminal
            | Self::FingerprintKey
            | Self::AuditKey
            | Self::NoPolicy(_)
            | Self::NoLog
            | Self::Offline
            | Self::File { .. }
            | Self::Store { .. } => "usage",
        };
        Refusal { error: RefusalDetail { reason: reason.to_owned(), message: self.to_string(), findings: Vec::new() } }
    }
}
