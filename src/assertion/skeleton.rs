//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use bytes::Bytes;
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::entropy::Entropy;

/// Makes ring the provider of jsonwebtoken. Called first thing in `main` and in test set-up; any number of times.
pub fn install_crypto_provider() {
    todo!()
}
/// The name of the field that carries an assertion.
pub const ASSERTION_FIELD: http::HeaderName = http::HeaderName::from_static("sekisho-jwt-assertion");

/// A signed statement about one session for one audience; a header value marked sensitive. Never logged.
#[derive(Clone)]
pub struct Assertion(HeaderValue);
impl Assertion {
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}
/// What is asserted.
pub struct Claims<'a> {
    pub audience: &'a str,
    pub subject: &'a str,
    /// Per-audience handle of the session.
    pub sid: &'a str,
    pub auth_time: Timestamp,
}
/// The assertion keys: signs with the active one, publishes all.
pub struct Signer {
    _p: (),
}
#[derive(Debug, thiserror::Error)]
#[error("the assertion key cannot sign")]
pub struct SignError;
impl Signer {
    /// ES256, typ `sekisho-assertion+jwt`, kid = RFC 7638 thumbprint; iss, iat = nbf = now, exp = now + 60 s, jti random.
    pub fn sign(
        &self,
        _issuer: &str,
        _claims: &Claims<'_>,
        _entropy: &dyn Entropy,
        _now: Timestamp,
    ) -> Result<Assertion, SignError> {
        todo!()
    }
    /// RFC 7638 thumbprint of the active key.
    pub fn kid(&self) -> &str {
        todo!()
    }
    /// The JWKS document (RFC 7517) and its entity tag (quoted).
    pub fn jwks(&self) -> (Bytes, HeaderValue) {
        todo!()
    }
}
/// Kept with each session (the `S` of `LiveSession<S>`): one assertion an upstream, reused for at most half its life,
/// keyed by upstream and kid; and the pairwise subject, so that the store is asked once a session and upstream.
#[derive(Default)]
pub struct AssertionCache {
    _p: (),
}
impl AssertionCache {
    /// A cached assertion that is still in the first half of its life, signed by `kid`.
    pub fn fresh(&self, _upstream: usize, _kid: &str, _now: Timestamp) -> Option<Assertion> {
        todo!()
    }
    /// The subject and sid for this upstream, if known.
    pub fn identity(&self, _upstream: usize) -> Option<std::sync::Arc<UpstreamIdentity>> {
        todo!()
    }
    pub fn remember_identity(&self, _upstream: usize, _identity: UpstreamIdentity) -> std::sync::Arc<UpstreamIdentity> {
        todo!()
    }
    pub fn remember(&self, _upstream: usize, _kid: &str, _assertion: &Assertion, _now: Timestamp) {
        todo!()
    }
}
/// How one upstream knows the session's account.
pub struct UpstreamIdentity {
    pub subject: String,
    pub sid: String,
}
