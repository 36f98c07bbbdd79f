//! ring behind jsonwebtoken: ES256, and nothing else.
//!
//! jsonwebtoken makes a signer for every token from the bytes of an `EncodingKey`. Ours are not a key but the number
//! of one that was parsed once and is kept here: signing costs no parsing, and the private key never enters the crate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, EcdsaKeyPair, UnparsedPublicKey};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory,
    verifier_factory,
    // Called only for JWKs, which `jwks.rs` makes and `verify.rs` reads without the crate.
    key_utils: KeyUtils::new_unimplemented(),
};

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(0);
static KEYS: LazyLock<RwLock<HashMap<u64, Arc<EcdsaKeyPair>>>> = LazyLock::new(RwLock::default);

/// Makes ring the provider of jsonwebtoken, for this process. Any number of times; signers and verifiers do it too.
pub fn install_crypto_provider() {
    // An error means that it was installed before, and nobody else installs one.
    let _ = PROVIDER.install_default();
}

/// A key that jsonwebtoken can sign with for as long as this lives.
pub(super) struct SigningHandle {
    handle: u64,
    encoding_key: EncodingKey,
}

impl SigningHandle {
    pub(super) fn new(key: EcdsaKeyPair) -> Self {
        install_crypto_provider();
        let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        KEYS.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(key));
        Self { handle, encoding_key: EncodingKey::from_ec_der(&handle.to_be_bytes()) }
    }

    pub(super) const fn encoding_key(&self) -> &EncodingKey {
        &self.encoding_key
    }
}

impl Drop for SigningHandle {
    fn drop(&mut self) {
        KEYS.write().unwrap_or_else(PoisonError::into_inner).remove(&self.handle);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is jsonwebtoken's")]
fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    only_es256(*algorithm)?;
    let handle = key.as_bytes().try_into().map(u64::from_be_bytes).map_err(|_| ErrorKind::InvalidEcdsaKey)?;
    let found = KEYS.read().unwrap_or_else(PoisonError::into_inner).get(&handle).map(Arc::clone);
    Ok(Box::new(RingSigner(found.ok_or(ErrorKind::InvalidEcdsaKey)?)))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is jsonwebtoken's")]
fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    only_es256(*algorithm)?;
    Ok(Box::new(RingVerifier(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.try_get_as_bytes()?.to_vec()))))
}

fn only_es256(algorithm: Algorithm) -> Result<(), Error> {
    if algorithm == Algorithm::ES256 { Ok(()) } else { Err(ErrorKind::InvalidAlgorithm.into()) }
}

struct RingSigner(Arc<EcdsaKeyPair>);

impl signature::Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| signature::Error::new())?;
        Ok(signature.as_ref().to_vec())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

struct RingVerifier(UnparsedPublicKey<Vec<u8>>);

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    use static_assertions::assert_not_impl_any;

    use super::*;

    assert_not_impl_any!(SigningHandle: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    #[test]
    fn a_key_signs_until_its_handle_is_dropped() {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        let handle = SigningHandle::new(key);
        let encoding_key = handle.encoding_key().clone();
        assert!(signer_factory(&Algorithm::ES256, &encoding_key).is_ok());
        assert!(signer_factory(&Algorithm::ES384, &encoding_key).is_err());
        assert!(signer_factory(&Algorithm::HS256, &EncodingKey::from_secret(encoding_key.as_bytes())).is_err());
        drop(handle);
        assert!(signer_factory(&Algorithm::ES256, &encoding_key).is_err());
    }
}
