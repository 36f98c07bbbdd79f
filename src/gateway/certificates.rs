//! The certificates of the listeners: read at start, and again when whoever renewed them says so.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::clock::Timestamp;
use crate::config::{Config, Finding, ListenerConfig, Serves};
use crate::tls::{ListenerTlsConfig, TlsError, UpstreamTls};

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
    match (load(config, now), upstreams) {
        (Ok(listeners), Ok(upstreams)) => {
            let listeners = listeners.into_iter().map(|loaded| loaded.map(Arc::new)).collect();
            Ok((listeners, Arc::new(upstreams)))
        }
        (listeners, upstreams) => {
            let mut findings = listeners.err().unwrap_or_default();
            findings.extend(upstreams.err().into_iter().flatten());
            Err(findings)
        }
    }
}

/// What the listeners show, and what of it is looked after while they do.
pub(super) struct Renewal {
    shown: Certificates,
    /// The revocation lists of each listener, as they were last seen.
    lists: Mutex<Vec<Option<Seen>>>,
}

/// What tells one content of a file from the next: time of change, length, inode.
type Seen = (SystemTime, u64, u64);

impl Renewal {
    pub(super) fn new(config: &Config, shown: Certificates) -> Self {
        Self { shown, lists: Mutex::new(lists(config)) }
    }

    /// Reads the files of all listeners again, revocation lists included, and has new connections meet what they hold now;
    /// open ones keep what they have, but for administrators', who come again. All or none. Returns how many listeners that
    /// were.
    ///
    /// # Errors
    /// All findings; then every listener shows what it did before.
    pub(super) fn renew(&self, config: &Config, now: Timestamp) -> Result<usize, Vec<Finding>> {
        let renewed = load(config, now)?;
        let pairs = self.shown.iter().zip(renewed).filter_map(|(shown, new)| Some((shown.as_ref()?, new?)));
        Ok(pairs.map(|(shown, new)| shown.replace(new)).count())
    }

    /// Renews where a revocation list has changed: an authority writes it whenever it likes, and nobody sends a signal. What
    /// is not sound is told once, and the former list holds.
    pub(super) fn look(&self, config: &Config, now: Timestamp) {
        let found = lists(config);
        let mut seen = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found {
            return;
        }
        *seen = found;
        match self.renew(config, now) {
            Ok(_) => tracing::info!("a revocation list has changed; certificates and lists were read again"),
            Err(findings) => {
                for finding in findings {
                    tracing::error!(%finding, "a revocation list has changed and is not used; the former one holds");
                }
            }
        }
    }
}

fn lists(config: &Config) -> Vec<Option<Seen>> {
    let list = |listener: &ListenerConfig| listener.tls.as_ref().and_then(|tls| tls.client_crl.clone());
    let seen = |path: PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    config.listeners.iter().map(|listener| list(listener).and_then(seen)).collect()
}

fn load(config: &Config, now: Timestamp) -> Result<Vec<Option<ListenerTlsConfig>>, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut certificates = Vec::new();
    for (i, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else {
            certificates.push(None);
            continue;
        };
        match ListenerTlsConfig::load(tls, now) {
            Ok(loaded) if listener.serves == Serves::Admin => certificates.push(Some(loaded.without_http2())),
            Ok(loaded) => certificates.push(Some(loaded)),
            Err(errors) => {
                let finding = |error: TlsError| config.finding(&format!("listener[{i}].tls"), error.to_string());
                findings.extend(errors.into_iter().map(finding));
            }
        }
    }
    if findings.is_empty() { Ok(certificates) } else { Err(findings) }
}
