//! The audit key: what signs checkpoints of the audit chain, and receipts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};

use crate::secret::SecretBytes;

/// Bytes of a signature: r and s (FIPS 186-5 §6.4, as RFC 7518 §3.4 writes them).
pub const SEAL_BYTES: usize = 64;

/// The key that seals what auditors get: ECDSA on P-256 with SHA-256. Who has [`AuditKey::public`] needs nothing else
/// of the gateway to verify.
///
/// ring keeps the private key for the life of this value and does not wipe it. Deliberately absent: `Debug`, `Display`,
/// `Clone`, `Serialize`.
pub struct AuditKey {
    id: String,
    pair: EcdsaKeyPair,
}

/// The public half of an audit key, as it stands in exports and receipts: an uncompressed point (SEC 1 §2.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPublicKey(Vec<u8>);

/// The public half of a P-256 key in PKCS#8, an uncompressed point (SEC 1 §2.3.3).
pub(super) fn public_point(pkcs8: &SecretBytes) -> Option<Vec<u8>> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose(), &SystemRandom::new());
    Some(pair.ok()?.public_key().as_ref().to_vec())
}

impl AuditKey {
    /// Reads PKCS#8; `None` if that is no P-256 key.
    pub(super) fn new(id: &str, pkcs8: &SecretBytes) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose(), &SystemRandom::new());
        Some(Self { id: id.to_owned(), pair: pair.ok()? })
    }

    /// A key of nobody's.
    #[cfg(test)]
    pub(crate) fn fresh(id: &str) -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Self::new(id, &SecretBytes::new(document.unwrap().as_ref().to_vec())).unwrap()
    }

    /// Its id, `u1`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What verifies its seals.
    #[must_use]
    pub fn public(&self) -> AuditPublicKey {
        AuditPublicKey(self.pair.public_key().as_ref().to_vec())
    }

    /// The seal of `message`. `None` only if the operating system gives no randomness.
    #[must_use]
    pub fn seal(&self, message: &[u8]) -> Option<[u8; SEAL_BYTES]> {
        let signature = self.pair.sign(&SystemRandom::new(), message).ok()?;
        signature.as_ref().try_into().ok()
    }
}

impl AuditPublicKey {
    /// Reads base64url without padding of the point.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let point = URL_SAFE_NO_PAD.decode(text).ok()?;
        (point.len() == 65 && point.first() == Some(&4)).then_some(Self(point))
    }

    /// Base64url without padding.
    #[must_use]
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    /// What people compare, and an auditor notes down: SHA-256 of the point, base64url without padding.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.0))
    }

    /// Whether `seal` is this key's, of `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], seal: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(message, seal).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;

    assert_not_impl_any!(AuditKey: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    #[test]
    fn a_seal_is_of_one_key_and_one_message() {
        let (key, other) = (AuditKey::fresh("u1"), AuditKey::fresh("u1"));
        let seal = key.seal(b"message").unwrap();
        let public = AuditPublicKey::parse(&key.public().text()).unwrap();
        assert!(public == key.public() && public.verifies(b"message", &seal));
        assert!(!public.verifies(b"messagE", &seal) && !other.public().verifies(b"message", &seal));
        for at in 0..SEAL_BYTES {
            let mut changed = seal;
            changed[at] ^= 1;
            assert!(!public.verifies(b"message", &changed), "byte {at}");
        }
        assert!(AuditPublicKey::parse("").is_none() && AuditPublicKey::parse("AAAA").is_none());
    }
}
