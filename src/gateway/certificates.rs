//! The certificates of the listeners: read at start, and again when whoever renewed them says so.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::{Config, Finding, Serves};
use crate::tls::{ListenerTlsConfig, UpstreamTls};

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

/// Reads the files of all listeners again, revocation lists included, and has new connections meet what they hold now;
/// open ones keep what they have. All or none. Returns how many listeners that were.
///
/// # Errors
/// All findings; then every listener shows what it did before.
pub(super) fn renew(config: &Config, shown: &Certificates, now: Timestamp) -> Result<usize, Vec<Finding>> {
    let renewed = load(config, now)?;
    let pairs = shown.iter().zip(renewed).filter_map(|(shown, new)| Some((shown.as_ref()?, new?)));
    Ok(pairs.map(|(shown, new)| shown.replace(new)).count())
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
            Err(error) => findings.push(config.finding(&format!("listener[{i}].tls"), error.to_string())),
        }
    }
    if findings.is_empty() { Ok(certificates) } else { Err(findings) }
}
