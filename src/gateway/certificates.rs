//! The certificates of listeners and upstreams: read at start, and again at each reload.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::opening::warning;
use crate::clock::Timestamp;
use crate::config::{Config, Finding, ListenerConfig, Serves};
use crate::tls::{ListenerTlsConfig, TlsError, UpstreamTls};

/// How long before its end a certificate is spoken of: those that live shortest are renewed by then.
const SOON: Duration = Duration::from_hours(14 * 24);

/// What each listener of the configuration shows, in its order; `None` for one in the clear.
pub(super) type Certificates = Vec<Option<Arc<ListenerTlsConfig>>>;

/// Reads and judges what all listeners and upstreams need.
///
/// # Errors
/// All findings at once.
pub(super) fn load_tls(config: &Config, now: Timestamp) -> Result<(Certificates, Arc<UpstreamTls>), Vec<Finding>> {
    let upstreams = UpstreamTls::load(&config.upstreams).map_err(|errors| {
        errors.into_iter().map(|error| config.finding("upstream", error.to_string())).collect::<Vec<_>>()
    });
    match (load_listeners(config, now), upstreams) {
        (Ok(listeners), Ok(upstreams)) => Ok((listeners, Arc::new(upstreams))),
        (listeners, upstreams) => {
            let mut findings = listeners.err().unwrap_or_default();
            findings.extend(upstreams.err().into_iter().flatten());
            Err(findings)
        }
    }
}

/// What is doubtful about certificates that can be used: none is for a name that handsets type, or one runs out soon.
pub(super) fn doubts(config: &Config, certificates: &Certificates, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, (listener, shown)) in config.listeners.iter().zip(certificates).enumerate() {
        let Some(shown) = shown else { continue };
        let key = format!("listener[{i}].tls.certificate");
        if let Some(end) = shown.expires_at().filter(|end| *end <= now.plus(SOON)) {
            findings.push(warning(config, &key, format!("a certificate runs out at {}", end.rfc3339())));
        }
        // Behind a proxy of ours the name is the proxy's to show.
        if listener.serves != Serves::Handset || !config.gateway.trusted_proxies.is_empty() {
            continue;
        }
        let is_name = |host: &&str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
        for host in config.gateway.hosts.names().filter(is_name).filter(|host| !shown.is_for(host)) {
            findings.push(warning(config, &key, format!("no certificate here is for {host}, which handsets type")));
        }
    }
    findings
}

/// The revocation lists of a configuration's listeners, as they were last seen.
#[derive(PartialEq, Eq)]
pub(super) struct RevocationLists(Vec<Option<Seen>>);

/// What tells one content of a file from the next: time of change, length, inode.
type Seen = (SystemTime, u64, u64);

impl RevocationLists {
    /// As they are now; to be looked at before they are read, so that none changes unseen.
    pub(super) fn of(config: &Config) -> Self {
        let list = |listener: &ListenerConfig| listener.tls.as_ref().and_then(|tls| tls.client_crl.clone());
        let seen = |path: PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        };
        Self(config.listeners.iter().map(|listener| list(listener).and_then(seen)).collect())
    }
}

/// Reads and judges what all listeners need.
///
/// # Errors
/// All findings at once.
pub(super) fn load_listeners(config: &Config, now: Timestamp) -> Result<Certificates, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut certificates = Vec::new();
    for (i, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else {
            certificates.push(None);
            continue;
        };
        match ListenerTlsConfig::load(tls, now) {
            Ok(loaded) if listener.serves == Serves::Admin => certificates.push(Some(Arc::new(loaded.without_http2()))),
            Ok(loaded) => certificates.push(Some(Arc::new(loaded))),
            Err(errors) => {
                let finding = |error: TlsError| config.finding(&format!("listener[{i}].tls"), error.to_string());
                findings.extend(errors.into_iter().map(finding));
            }
        }
    }
    if findings.is_empty() { Ok(certificates) } else { Err(findings) }
}
