//! The key-encryption key: in the process, or in a token that lets nobody have it.
//!
//! Either way a wrapped key is stored as nonce, ciphertext and tag of AES-256-GCM (NIST SP 800-38D), bound to its store,
//! purpose and id; so a KEK that is copied into a token opens what it wrapped as a file.

mod error;
mod local;
#[cfg(feature = "pkcs11")]
mod module;
#[cfg(feature = "pkcs11")]
mod token;

pub use error::{KekError, KekSyntax, TokenFault};

use local::LocalKek;
#[cfg(feature = "pkcs11")]
use token::TokenKek;
use zeroize::Zeroizing;

use super::derive::framed;
use crate::config::KekSource;
use crate::entropy::{Entropy, random};
use crate::secret::SecretBytes;

/// What a wrapped key is bound to starts with this.
const WRAP_LABEL: &[u8] = b"sekisho/wrapped-key/v1";
/// The same of the key of a backup.
const BACKUP_LABEL: &[u8] = b"sekisho/wrapped-backup-key/v1";
/// Bytes of a nonce: 96 random bits. Far under 2^32 wraps happen in the life of a KEK (SP 800-38D §8.3).
const NONCE_BYTES: usize = 12;

/// The key-encryption key, which wraps every key at rest.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct Kek(Kind);

enum Kind {
    Local(Box<LocalKek>),
    #[cfg(feature = "pkcs11")]
    Token(TokenKek),
}

/// Where a wrapped key belongs. It opens nowhere else.
pub(super) struct KeyPlace<'a> {
    pub(super) store_id: &'a [u8; 16],
    /// What it is for, in one word.
    pub(super) purpose: &'a str,
    pub(super) id: &'a str,
}

impl Kek {
    /// Reads the KEK, or tries the token that holds it, with the PIN: its key is there and wraps and unwraps a sample.
    /// With a good one comes what is doubtful about it, a sentence each.
    ///
    /// # Errors
    /// [`KekError`], which tells the operator what to create or set.
    #[cfg_attr(not(feature = "pkcs11"), expect(clippy::unused_async, reason = "a token is waited for"))]
    pub async fn open(source: &KekSource, entropy: &dyn Entropy) -> Result<(Self, Vec<String>), KekError> {
        match source {
            KekSource::Secret(secret) => Ok((Self::parse(&secret.read()?)?, Vec::new())),
            #[cfg(feature = "pkcs11")]
            KekSource::Token(key) => {
                let (token, doubts) = TokenKek::open(key.clone(), entropy).await?;
                Ok((Self(Kind::Token(token)), doubts))
            }
            #[cfg(not(feature = "pkcs11"))]
            KekSource::Token(_) => {
                let _ = entropy;
                Err(KekError::NotBuilt)
            }
        }
    }

    /// Reads base64 (RFC 4648 §4, padded), white space around it allowed.
    ///
    /// # Errors
    /// [`KekSyntax`] if that does not give exactly 32 bytes.
    pub fn parse(text: &SecretBytes) -> Result<Self, KekSyntax> {
        LocalKek::parse(text).map(|kek| Self(Kind::Local(Box::new(kek))))
    }

    /// A fresh KEK as base64 text.
    pub fn generate_text(entropy: &dyn Entropy) -> SecretBytes {
        LocalKek::generate_text(entropy)
    }

    /// `clear` as it is stored: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// [`KekError::Token`] if the token failed, or did not answer in its time; a KEK in the process does not fail.
    pub(super) async fn wrap(
        &self,
        place: &KeyPlace<'_>,
        clear: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KekError> {
        self.wrap_bound(&place.bound_to(), clear, entropy).await
    }

    /// The same of a key that nothing else will have, seen to come back: what a KEK does not give back would be lost.
    ///
    /// # Errors
    /// As [`Self::wrap`]; [`KekError::Untrue`] if something else came back.
    pub(super) async fn wrap_proven(
        &self,
        place: &KeyPlace<'_>,
        clear: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KekError> {
        self.wrap_and_look(&place.bound_to(), clear, entropy).await
    }

    /// The key of one backup of one store, as the ledger keeps it. It was seen to come back.
    ///
    /// # Errors
    /// [`KekError::Token`] if the token failed, or did not answer in its time; [`KekError::Untrue`] if something else came
    /// back.
    pub(crate) async fn wrap_for_backup(
        &self,
        store_id: &[u8; 16],
        backup_id: &[u8; 16],
        clear: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KekError> {
        self.wrap_and_look(&framed(&[BACKUP_LABEL, store_id, backup_id]), clear, entropy).await
    }

    /// The key of a backup in clear; `None` if this KEK did not wrap it for that backup.
    ///
    /// # Errors
    /// [`KekError::Token`] if the token failed, or did not answer in its time.
    pub(crate) async fn unwrap_for_backup(
        &self,
        store_id: &[u8; 16],
        backup_id: &[u8; 16],
        wrapped: &[u8],
    ) -> Result<Option<SecretBytes>, KekError> {
        self.unwrap_bound(&framed(&[BACKUP_LABEL, store_id, backup_id]), wrapped).await
    }

    /// What tells one KEK from another where neither may be shown: of a KEK in the process a part of an HMAC under it, of
    /// one in a token its labels.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.0 {
            Kind::Local(kek) => kek.name().to_owned(),
            #[cfg(feature = "pkcs11")]
            Kind::Token(token) => token.name(),
        }
    }

    async fn wrap_and_look(
        &self,
        bound_to: &[u8],
        clear: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KekError> {
        let wrapped = self.wrap_bound(bound_to, clear, entropy).await?;
        let back = self.unwrap_bound(bound_to, &wrapped).await?;
        back.filter(|back| back.expose() == clear.expose()).map(|_| wrapped).ok_or(KekError::Untrue)
    }

    #[cfg_attr(not(feature = "pkcs11"), expect(clippy::unused_async, reason = "a token is waited for"))]
    async fn wrap_bound(
        &self,
        bound_to: &[u8],
        clear: &SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KekError> {
        let nonce: [u8; NONCE_BYTES] = random(entropy);
        match &self.0 {
            Kind::Local(kek) => Ok(kek.wrap(nonce, bound_to, clear)),
            #[cfg(feature = "pkcs11")]
            Kind::Token(token) => token.wrap(nonce, bound_to, clear).await,
        }
    }

    /// The key in clear; `None` if this KEK did not wrap these bytes for this place.
    ///
    /// # Errors
    /// As [`Self::wrap`]: nothing is known then of these bytes.
    pub(super) async fn unwrap(&self, place: &KeyPlace<'_>, wrapped: &[u8]) -> Result<Option<SecretBytes>, KekError> {
        self.unwrap_bound(&place.bound_to(), wrapped).await
    }

    #[cfg_attr(not(feature = "pkcs11"), expect(clippy::unused_async, reason = "a token is waited for"))]
    async fn unwrap_bound(&self, bound_to: &[u8], wrapped: &[u8]) -> Result<Option<SecretBytes>, KekError> {
        let Some((nonce, sealed)) = wrapped.split_first_chunk::<NONCE_BYTES>() else { return Ok(None) };
        match &self.0 {
            Kind::Local(kek) => Ok(kek.unwrap(*nonce, bound_to, sealed)),
            #[cfg(feature = "pkcs11")]
            Kind::Token(token) => token.unwrap(*nonce, bound_to, sealed).await,
        }
    }
}

impl KeyPlace<'_> {
    /// What is authenticated beside the key. Nothing of it is secret.
    fn bound_to(&self) -> Zeroizing<Vec<u8>> {
        framed(&[WRAP_LABEL, self.store_id, self.purpose.as_bytes(), self.id.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(Kek: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    const PLACE: KeyPlace<'static> = KeyPlace { store_id: &[7; 16], purpose: "binding", id: "k1" };

    fn kek(seed: u64) -> Kek {
        Kek::parse(&Kek::generate_text(&SeededEntropy::new(seed))).unwrap()
    }

    /// A KEK in the process answers at once.
    fn wrap(kek: &Kek, clear: &SecretBytes, entropy: &SeededEntropy) -> Vec<u8> {
        kek.wrap(&PLACE, clear, entropy).now_or_never().unwrap().unwrap()
    }

    fn unwrap(kek: &Kek, place: &KeyPlace<'_>, wrapped: &[u8]) -> Option<SecretBytes> {
        kek.unwrap(place, wrapped).now_or_never().unwrap().unwrap()
    }

    fn secret(bytes: &[u8]) -> SecretBytes {
        SecretBytes::new(bytes.to_vec())
    }

    #[test]
    fn a_key_opens_where_it_was_wrapped() {
        let wrapped = wrap(&kek(1), &secret(b"thirty-two bytes of key material"), &SeededEntropy::new(9));
        assert_eq!(wrapped.len(), 12 + 32 + 16);
        let clear = unwrap(&kek(1), &PLACE, &wrapped).unwrap();
        assert_eq!(clear.expose(), b"thirty-two bytes of key material");
    }

    #[test]
    fn a_known_answer_opens() {
        // Made with Python's cryptography: AESGCM(range(32)), nonce 0x0b * 12.
        let kek = Kek::parse(&secret(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")).unwrap();
        let wrapped: Vec<u8> = from_hex("0b0b0b0b0b0b0b0b0b0b0b0bc3eb6b26331377720c8e5ce3ee2cd3fdb00070");
        assert_eq!(unwrap(&kek, &PLACE, &wrapped).unwrap().expose(), b"key");
    }

    #[test]
    fn it_opens_nowhere_else() {
        let wrapped = wrap(&kek(1), &secret(&[5; 32]), &SeededEntropy::new(9));
        let elsewhere = [
            KeyPlace { store_id: &[8; 16], ..PLACE },
            KeyPlace { purpose: "session", ..PLACE },
            KeyPlace { id: "k2", ..PLACE },
            KeyPlace { id: "", ..PLACE },
        ];
        for place in &elsewhere {
            assert!(unwrap(&kek(1), place, &wrapped).is_none(), "{} {}", place.purpose, place.id);
        }
        assert!(unwrap(&kek(2), &PLACE, &wrapped).is_none(), "another KEK");
        for at in 0..wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged[at] ^= 1;
            assert!(unwrap(&kek(1), &PLACE, &damaged).is_none(), "bit flipped in byte {at}");
            assert!(unwrap(&kek(1), &PLACE, &wrapped[..at]).is_none(), "cut to {at}");
        }
    }

    #[test]
    fn two_wraps_of_one_key_differ() {
        let entropy = SeededEntropy::new(9);
        let clear = secret(&[5; 32]);
        assert_ne!(wrap(&kek(1), &clear, &entropy), wrap(&kek(1), &clear, &entropy));
    }

    #[test]
    fn only_32_bytes_of_base64_are_a_kek() {
        let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for text in [good.to_owned(), format!("\n {good}\r\n")] {
            assert!(Kek::parse(&secret(text.as_bytes())).is_ok(), "{text:?}");
        }
        for text in [
            "",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==",  // 31 bytes
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g",  // 33 bytes
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",   // no padding
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=",  // stray bits
            "AAECAwQFBgcICQoL DA0ODxAREhMUFRYXGBkaGxwdHh8=", // space inside
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", // hexadecimal
        ] {
            assert!(Kek::parse(&secret(text.as_bytes())).is_err(), "{text}");
        }
    }

    fn from_hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
