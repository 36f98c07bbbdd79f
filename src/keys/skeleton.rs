//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use crate::assertion::Signer;
use crate::binding::KeyRing;
use crate::carrier::RawIdentifier;
use crate::clock::Timestamp;
use crate::config::StretchSetting;
use crate::entropy::Entropy;
use crate::secret::SecretBytes;
use crate::store::{KeyStore, StoreError};

/// The key-encryption key. 32 bytes; wraps every key at rest with AES-256-GCM, the store's id, purpose and key id as AAD.
pub struct Kek {
    _p: (),
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the KEK must be 32 bytes in base64 (44 characters)")]
pub struct KekSyntax;
impl Kek {
    /// Reads base64 with optional surrounding white space.
    pub fn parse(_text: &SecretBytes) -> Result<Self, KekSyntax> {
        todo!()
    }
    /// A fresh KEK as base64 text, for `dev` and the documentation's one-liner.
    pub fn generate_text(_entropy: &dyn Entropy) -> SecretBytes {
        todo!()
    }
}
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the keys in the store were wrapped under another KEK ...")]
    WrongKek,
    #[error("binding.stretch differs from the store's ...; {orphaned} bindings would be orphaned")]
    StretchChanged { orphaned: u64 },
    #[error("a key record in the store cannot be read: {0}")]
    Corrupt(String),
    #[error("the store has no keys yet")]
    Uninitialised,
    #[error(transparent)]
    Store(#[from] StoreError),
}
/// Every key in clear, for the life of the process.
pub struct KeySet {
    pub binding: KeyRing,
    pub assertion: Signer,
    pub session: SessionKeys,
}
impl KeySet {
    /// Opens what the store holds; makes the first keys and the scheme in a new store. A wrong KEK changes nothing.
    pub async fn open(
        _store: &dyn KeyStore,
        _kek: &Kek,
        _stretch: StretchSetting,
        _entropy: &dyn Entropy,
        _now: Timestamp,
    ) -> Result<Self, KeysError> {
        todo!()
    }
    /// As `open`, but never writes: for `check`. Uninitialised store: `Ok(None)`.
    pub async fn inspect(
        _store: &dyn KeyStore,
        _kek: &Kek,
        _stretch: StretchSetting,
    ) -> Result<Option<Self>, KeysError> {
        todo!()
    }
}
/// Keyed hashes beside the bindings: enrolment codes, handset tags, per-audience session handles.
pub struct SessionKeys {
    _p: (),
}
impl SessionKeys {
    /// (key id, HMAC of the whole code) under the active key: to be stored.
    pub fn code_mac(&self, _code: &crate::binding::EnrolmentCode) -> (String, [u8; 32]) {
        todo!()
    }
    /// The same under every key that may have made a stored one.
    pub fn code_macs(&self, _code: &crate::binding::EnrolmentCode) -> Vec<(String, [u8; 32])> {
        todo!()
    }
    /// Code-scoped tag of a handset: counts its wrong tries against that code alone.
    pub fn handset_tag(&self, _identifier: &RawIdentifier, _selector: &str) -> [u8; 16] {
        todo!()
    }
    /// The assertion's `sid`: HMAC of the session's seed and the audience, base64url of 16 bytes.
    pub fn sid(&self, _sid_seed: &[u8; 16], _audience: &str) -> String {
        todo!()
    }
}
