//! The gateway's public keys, fetched as any upstream would.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::sync::Mutex;

use crate::assertion::{AssertionVerifier, VerifiedClaims, VerifyError};
use crate::clock::Timestamp;
use crate::dev::exchange::exchange;

/// A key that is not known is asked for at most this often (`assertion.md`, JWKS), so that forged ones cause no load.
const UNKNOWN_KEY: Duration = Duration::from_secs(30);
/// Known keys are asked for again after this time, the document's `max-age`: one that was withdrawn must not last.
const MAX_AGE: Duration = Duration::from_mins(5);

/// Judges assertions with keys that are fetched when needed.
pub(in crate::dev) struct GatewayKeys {
    gateway: SocketAddr,
    audience: String,
    verifier: ArcSwapOption<AssertionVerifier>,
    asked: Mutex<Option<Timestamp>>,
}

impl GatewayKeys {
    /// Keys of the gateway at `gateway`, whose plain listener is also its issuer, for assertions to `audience`.
    pub(in crate::dev) fn new(gateway: SocketAddr, audience: &str) -> Self {
        Self { gateway, audience: audience.to_owned(), verifier: ArcSwapOption::empty(), asked: Mutex::default() }
    }

    /// What `token` says, if it is to be believed at `now`.
    ///
    /// # Errors
    /// [`VerifyError`]; [`VerifyError::UnknownKey`] also while the gateway's keys cannot be had.
    pub(super) async fn verify(&self, token: &str, now: Timestamp) -> Result<VerifiedClaims, VerifyError> {
        self.refresh(MAX_AGE, now).await;
        match self.judge(token, now) {
            Err(VerifyError::UnknownKey) => {
                self.refresh(UNKNOWN_KEY, now).await;
                self.judge(token, now)
            }
            verdict => verdict,
        }
    }

    fn judge(&self, token: &str, now: Timestamp) -> Result<VerifiedClaims, VerifyError> {
        self.verifier.load().as_ref().ok_or(VerifyError::UnknownKey)?.verify(token, now)
    }

    /// Fetches the keys, unless that was done within `age`.
    async fn refresh(&self, age: Duration, now: Timestamp) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| now.since(asked) < age) {
            return;
        }
        *asked = Some(now);
        match self.fetch().await {
            Some(verifier) => self.verifier.store(Some(verifier.into())),
            None => {
                tracing::warn!("the sample console cannot fetch the gateway's keys and refuses everybody");
            }
        }
    }

    async fn fetch(&self) -> Option<AssertionVerifier> {
        let request = Request::get("/_sekisho/jwks.json").header(HOST, self.gateway.to_string());
        let request = request.body(Full::new(Bytes::new())).ok()?;
        let answer = exchange(Ipv4Addr::LOCALHOST, self.gateway, request).await.ok()?;
        let jwks = std::str::from_utf8(answer.body()).ok().filter(|_| answer.status() == StatusCode::OK)?;
        AssertionVerifier::new(jwks, &format!("http://{}", self.gateway), &self.audience).ok()
    }
}
