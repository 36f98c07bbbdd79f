//! Where spans go under one configuration: what a collector is called, believed by and shown, and for how long still.

use std::sync::OnceLock;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::tracer::TraceError;
use crate::config::{CollectorUrl, TraceConfig};
use crate::tls::VerifyingClient;

/// A collector as one configuration describes it.
pub(super) struct Destination {
    pub(super) url: CollectorUrl,
    pub(super) service: String,
    pub(super) tls: Option<VerifyingClient>,
    /// Of every message.
    pub(super) fields: HeaderMap,
    /// Until when anything is sent there, once that was said.
    until: OnceLock<Instant>,
    ending: CancellationToken,
}

impl Destination {
    /// Reads the secrets and the authorities that `config` names.
    ///
    /// # Errors
    /// [`TraceError`].
    pub(super) fn new(config: &TraceConfig) -> Result<Self, TraceError> {
        let mut fields = HeaderMap::new();
        for (written, secret) in &config.headers {
            let secret = secret.read().map_err(|error| TraceError::Secret(written.clone(), error))?;
            let no_value = || TraceError::NoFieldValue(written.clone());
            // The library's own reading lets bytes above ASCII and tabs pass, of which collectors make what they like.
            if !secret.expose().iter().all(|b| matches!(b, b' '..=b'~')) {
                return Err(no_value());
            }
            // A copy that is not wiped when it goes: it is sent with every message, so it is in memory all the time.
            let mut value = HeaderValue::from_bytes(secret.expose()).map_err(|_| no_value())?;
            value.set_sensitive(true);
            fields.insert(HeaderName::try_from(written.as_str()).map_err(|_| no_value())?, value);
        }
        let authority = config.endpoint.authority();
        let authority = HeaderValue::try_from(authority).map_err(|_| TraceError::NoFieldValue(HOST.to_string()))?;
        fields.insert(HOST, authority);
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let name = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        fields.insert(USER_AGENT, HeaderValue::from_static(name));
        let https = config.endpoint.origin.https;
        let tls = https.then(|| VerifyingClient::load(None, config.ca.as_deref())).transpose();
        Ok(Self {
            url: config.endpoint.clone(),
            service: config.service.clone(),
            tls: tls.map_err(TraceError::Tls)?,
            fields,
            until: OnceLock::new(),
            ending: CancellationToken::new(),
        })
    }

    /// Whether a message to the other is the same message to the same collector, secrets and authorities included.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let material = |of: &Self| of.tls.as_ref().map(VerifyingClient::material);
        (&self.url, &self.service, &self.fields) == (&other.url, &other.service, &other.fields)
            && material(self) == material(other)
    }

    /// What still waits for it has so long.
    pub(super) fn end_within(&self, patience: Duration) {
        self.until.get_or_init(|| Instant::now() + patience);
        self.ending.cancel();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Resolves when it was said that it ends.
    pub(super) async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self) -> bool {
        self.until.get().is_some_and(|until| *until <= Instant::now())
    }

    /// Resolves when its time is over.
    pub(super) async fn over(&self) {
        self.ending.cancelled().await;
        if let Some(until) = self.until.get() {
            sleep_until(*until).await;
        }
    }
}
