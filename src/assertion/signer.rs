//! The assertion keys: signs with the active one, publishes all.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use thiserror::Error;

use super::claims::{ClaimSet, Claims, TYPE};
use super::jwks::{JWKS_MAX_AGE, PublicKey, document};
use super::provider::SigningHandle;
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::secret::SecretBytes;

/// The name of the field that carries an assertion.
pub const ASSERTION_FIELD: HeaderName = HeaderName::from_static("sekisho-jwt-assertion");

/// A signed statement about one session for one audience; a field value marked sensitive. Never logged.
///
/// A clone shares the bytes. Deliberately absent: `Debug`, `Display`, `Serialize`.
#[derive(Clone)]
pub struct Assertion(HeaderValue);

impl Assertion {
    /// The compact JWS.
    #[must_use]
    pub const fn value(&self) -> &HeaderValue {
        &self.0
    }
}

/// The assertion keys. ring's copy of the private key is not wiped.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct Signer {
    active: Option<Active>,
    jwks: (Bytes, HeaderValue),
    jwks_max_age: Duration,
}

/// The key that signs.
struct Active {
    key: SigningHandle,
    header: Header,
    kid: String,
}

/// The assertion could not be signed; the request must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the assertion key cannot sign")]
pub struct SignError;

/// Bytes that are no P-256 key in PKCS#8; they are not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a P-256 key in PKCS#8")]
pub struct UnusableKey;

impl Signer {
    /// Signs with `active`; publishes the public keys of `active` and `others`. All in PKCS#8.
    ///
    /// # Errors
    /// [`UnusableKey`] if one of them is no P-256 key.
    pub fn new(active: &SecretBytes, others: &[&SecretBytes]) -> Result<Self, UnusableKey> {
        let (key, public) = parse(active)?;
        let kid = public.kid().to_owned();
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(kid.clone());
        let active = Active { key: SigningHandle::new(key), header, kid };
        Self::publishing(Some(active), vec![public], others)
    }

    /// Signs nothing, because the key that would is suspended; publishes the public keys of `others` alone.
    ///
    /// # Errors
    /// As [`Signer::new`].
    pub fn suspended(others: &[&SecretBytes]) -> Result<Self, UnusableKey> {
        Ok(Self::publishing(None, Vec::new(), others)?.in_flux())
    }

    /// The same, whose JWKS nobody may keep: a key left it, or comes back to it, faster than caches notice.
    #[must_use]
    pub const fn in_flux(mut self) -> Self {
        self.jwks_max_age = Duration::ZERO;
        self
    }

    fn publishing(
        active: Option<Active>,
        mut published: Vec<PublicKey>,
        others: &[&SecretBytes],
    ) -> Result<Self, UnusableKey> {
        for other in others {
            published.push(parse(other)?.1);
        }
        Ok(Self { active, jwks: document(&published), jwks_max_age: JWKS_MAX_AGE })
    }

    /// Signs `claims` with a random `jti`, valid from `now` for [`LIFETIME`](super::LIFETIME).
    ///
    /// # Errors
    /// [`SignError`] if the key cannot sign, or is suspended.
    pub fn sign(
        &self,
        issuer: &str,
        claims: &Claims<'_>,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<Assertion, SignError> {
        let active = self.active.as_ref().ok_or(SignError)?;
        let jti = URL_SAFE_NO_PAD.encode(random::<16>(entropy));
        let set = ClaimSet::new(issuer, claims, &jti, now);
        let token = jsonwebtoken::encode(&active.header, &set, active.key.encoding_key()).map_err(|_| SignError)?;
        let mut value = HeaderValue::try_from(token).map_err(|_| SignError)?;
        value.set_sensitive(true);
        Ok(Assertion(value))
    }

    /// RFC 7638 thumbprint of the active key; `None` while that is suspended.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.active.as_ref().map(|active| active.kid.as_str())
    }

    /// The JWKS document (RFC 7517) and its entity tag, quoted.
    #[must_use]
    pub fn jwks(&self) -> (Bytes, HeaderValue) {
        self.jwks.clone()
    }

    /// How long a verifier may keep the document: [`JWKS_MAX_AGE`], or not at all.
    #[must_use]
    pub const fn jwks_max_age(&self) -> Duration {
        self.jwks_max_age
    }
}

/// A public key as a JWK (RFC 7517 §4), with the RFC 7638 thumbprint as `kid`; from an uncompressed point on P-256 (SEC 1
/// §2.3.3), `None` if that is none.
#[must_use]
pub fn jwk_of_point(point: &[u8]) -> Option<serde_json::Value> {
    serde_json::to_value(PublicKey::from_point(point)?).ok()
}

fn parse(pkcs8: &SecretBytes) -> Result<(EcdsaKeyPair, PublicKey), UnusableKey> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose(), &SystemRandom::new())
        .map_err(|_| UnusableKey)?;
    let public = PublicKey::from_point(key.public_key().as_ref()).ok_or(UnusableKey)?;
    Ok((key, public))
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;

    assert_not_impl_any!(Signer: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(Assertion: std::fmt::Debug, std::fmt::Display, serde::Serialize);

    #[test]
    fn other_bytes_are_no_key() {
        for bytes in [vec![], vec![7; 32], b"-----BEGIN PRIVATE KEY-----".to_vec()] {
            assert_eq!(Signer::new(&SecretBytes::new(bytes), &[]).err(), Some(UnusableKey));
        }
    }
}
