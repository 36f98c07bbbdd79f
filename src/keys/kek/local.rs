//! A KEK that the process holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{KekSyntax, NONCE_BYTES};
use crate::entropy::{Entropy, random};
use crate::keys::derive::{mac, subkey};
use crate::secret::SecretBytes;

/// Bytes of a KEK.
const KEK_BYTES: usize = 32;
/// Bytes of its name: enough to tell two apart.
const NAME_BYTES: usize = 8;

/// 32 bytes in memory. ring keeps the expanded key for the life of this value and does not wipe it.
pub(super) struct LocalKek {
    key: LessSafeKey,
    name: String,
}

impl LocalKek {
    pub(super) fn parse(text: &SecretBytes) -> Result<Self, KekSyntax> {
        // One byte of slack: the decoder estimates 33 for 44 characters.
        let mut bytes = Zeroizing::new([0; KEK_BYTES + 1]);
        let length = STANDARD.decode_slice(text.expose().trim_ascii(), bytes.as_mut_slice()).map_err(|_| KekSyntax)?;
        let key = bytes.get(..length).filter(|key| key.len() == KEK_BYTES).ok_or(KekSyntax)?;
        let named = mac(&subkey(key, "sekisho/kek-name/v1"), b"");
        let name = named
            .iter()
            .take(NAME_BYTES)
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect();
        let key = UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| KekSyntax)?;
        Ok(Self { key, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn generate_text(entropy: &dyn Entropy) -> SecretBytes {
        let bytes = Zeroizing::new(random::<KEK_BYTES>(entropy));
        SecretBytes::new(STANDARD.encode(bytes.as_slice()).into_bytes())
    }

    /// Nonce, ciphertext, tag.
    pub(super) fn wrap(&self, nonce: [u8; NONCE_BYTES], bound_to: &[u8], clear: &SecretBytes) -> Vec<u8> {
        // Encrypted in a buffer of its own: where the vector grows for the tag, only ciphertext is left behind.
        let mut wrapped = clear.expose().to_vec();
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound_to), &mut wrapped)
            .unwrap_or_else(|_| unreachable!("a key is far shorter than GCM's bound"));
        [nonce.as_slice(), &wrapped, tag.as_ref()].concat()
    }

    pub(super) fn unwrap(&self, nonce: [u8; NONCE_BYTES], bound_to: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let clear = self.key.open_in_place(nonce, Aad::from(bound_to), buffer.as_mut_slice()).ok()?;
        Some(SecretBytes::new(clear.to_vec()))
    }
}
