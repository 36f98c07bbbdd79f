//! The key-encryption key, and the one way in which keys are wrapped at rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::derive::framed;
use crate::entropy::{Entropy, random};
use crate::secret::SecretBytes;
use crate::store::KeyPurpose;

/// Bytes of a KEK.
const KEK_BYTES: usize = 32;
/// What a wrapped key is bound to starts with this.
const WRAP_LABEL: &[u8] = b"sekisho/wrapped-key/v1";

/// The key-encryption key: 32 bytes that wrap every key at rest with AES-256-GCM (NIST SP 800-38D).
///
/// ring keeps the expanded key for the life of this value and does not wipe it. Deliberately absent: `Debug`,
/// `Display`, `Clone`, `Serialize`.
pub struct Kek(LessSafeKey);

/// A text that is no KEK; it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the KEK must be 32 bytes in base64 (44 characters); `openssl rand -base64 32` makes one")]
pub struct KekSyntax;

/// Where a wrapped key belongs. It opens nowhere else.
pub(super) struct KeyPlace<'a> {
    pub(super) store_id: &'a [u8; 16],
    pub(super) purpose: KeyPurpose,
    pub(super) id: &'a str,
}

impl Kek {
    /// Reads base64 (RFC 4648 §4, padded), white space around it allowed.
    ///
    /// # Errors
    /// [`KekSyntax`] if that does not give exactly 32 bytes.
    pub fn parse(text: &SecretBytes) -> Result<Self, KekSyntax> {
        // One byte of slack: the decoder estimates 33 for 44 characters.
        let mut bytes = Zeroizing::new([0; KEK_BYTES + 1]);
        let length = STANDARD.decode_slice(text.expose().trim_ascii(), bytes.as_mut_slice()).map_err(|_| KekSyntax)?;
        let key = bytes.get(..length).filter(|key| key.len() == KEK_BYTES).ok_or(KekSyntax)?;
        UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map(Self).map_err(|_| KekSyntax)
    }

    /// A fresh KEK as base64 text.
    pub fn generate_text(entropy: &dyn Entropy) -> SecretBytes {
        let bytes = Zeroizing::new(random::<KEK_BYTES>(entropy));
        SecretBytes::new(STANDARD.encode(bytes.as_slice()).into_bytes())
    }

    /// `clear` as it is stored: nonce, ciphertext, tag.
    ///
    /// The nonce is 96 random bits: far under 2^32 wraps happen in the life of a KEK (SP 800-38D §8.3).
    pub(super) fn wrap(&self, place: &KeyPlace<'_>, clear: &SecretBytes, entropy: &dyn Entropy) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random(entropy);
        // Encrypted in a buffer of its own: where the vector grows for the tag, only ciphertext is left behind.
        let mut wrapped = clear.expose().to_vec();
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), place.aad(), &mut wrapped)
            .unwrap_or_else(|_| unreachable!("a key is far shorter than GCM's bound"));
        [nonce.as_slice(), &wrapped, tag.as_ref()].concat()
    }

    /// The key in clear; `None` if this KEK did not wrap these bytes for this place.
    pub(super) fn unwrap(&self, place: &KeyPlace<'_>, wrapped: &[u8]) -> Option<SecretBytes> {
        let (nonce, sealed) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let clear =
            self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), place.aad(), buffer.as_mut_slice()).ok()?;
        Some(SecretBytes::new(clear.to_vec()))
    }
}

impl KeyPlace<'_> {
    fn aad(&self) -> Aad<Zeroizing<Vec<u8>>> {
        Aad::from(framed(&[WRAP_LABEL, self.store_id, self.purpose.as_str().as_bytes(), self.id.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(Kek: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    const PLACE: KeyPlace<'static> = KeyPlace { store_id: &[7; 16], purpose: KeyPurpose::Binding, id: "k1" };

    fn kek(seed: u64) -> Kek {
        Kek::parse(&Kek::generate_text(&SeededEntropy::new(seed))).unwrap()
    }

    fn secret(bytes: &[u8]) -> SecretBytes {
        SecretBytes::new(bytes.to_vec())
    }

    #[test]
    fn a_key_opens_where_it_was_wrapped() {
        let wrapped = kek(1).wrap(&PLACE, &secret(b"thirty-two bytes of key material"), &SeededEntropy::new(9));
        assert_eq!(wrapped.len(), 12 + 32 + 16);
        let clear = kek(1).unwrap(&PLACE, &wrapped).unwrap();
        assert_eq!(clear.expose(), b"thirty-two bytes of key material");
    }

    #[test]
    fn a_known_answer_opens() {
        // Made with Python's cryptography: AESGCM(range(32)), nonce 0x0b * 12.
        let kek = Kek::parse(&secret(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")).unwrap();
        let wrapped: Vec<u8> = from_hex("0b0b0b0b0b0b0b0b0b0b0b0bc3eb6b26331377720c8e5ce3ee2cd3fdb00070");
        assert_eq!(kek.unwrap(&PLACE, &wrapped).unwrap().expose(), b"key");
    }

    #[test]
    fn it_opens_nowhere_else() {
        let wrapped = kek(1).wrap(&PLACE, &secret(&[5; 32]), &SeededEntropy::new(9));
        let elsewhere = [
            KeyPlace { store_id: &[8; 16], ..PLACE },
            KeyPlace { purpose: KeyPurpose::Session, ..PLACE },
            KeyPlace { id: "k2", ..PLACE },
            KeyPlace { id: "", ..PLACE },
        ];
        for place in &elsewhere {
            assert!(kek(1).unwrap(place, &wrapped).is_none(), "{:?} {}", place.purpose, place.id);
        }
        assert!(kek(2).unwrap(&PLACE, &wrapped).is_none(), "another KEK");
        for at in 0..wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged[at] ^= 1;
            assert!(kek(1).unwrap(&PLACE, &damaged).is_none(), "bit flipped in byte {at}");
            assert!(kek(1).unwrap(&PLACE, &wrapped[..at]).is_none(), "cut to {at}");
        }
    }

    #[test]
    fn two_wraps_of_one_key_differ() {
        let entropy = SeededEntropy::new(9);
        let clear = secret(&[5; 32]);
        assert_ne!(kek(1).wrap(&PLACE, &clear, &entropy), kek(1).wrap(&PLACE, &clear, &entropy));
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
