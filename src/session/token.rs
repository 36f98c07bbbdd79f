//! The session token and the values derived from it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hkdf, hmac};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, random};

/// Random bytes of a token: 192 bits, above the 128 that the contract asks for, and 32 characters without padding.
const TOKEN_BYTES: usize = 24;
/// Characters of a token.
const TOKEN_CHARACTERS: usize = 32;

/// A session token, in clear: held by the browser, never stored.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// A fresh token.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let bytes = Zeroizing::new(random::<TOKEN_BYTES>(entropy));
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
    }

    /// Reads what a browser sent. `None` if it cannot be a token, which costs no look-up.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let url_safe = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if text.len() != TOKEN_CHARACTERS || !text.iter().all(url_safe) {
            return None;
        }
        std::str::from_utf8(text).ok().map(|t| Self(Zeroizing::new(t.to_owned())))
    }

    /// The clear token. Every use is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the store keeps instead of the token. A plain hash is enough: the token has 192 random bits.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        let hash = digest::digest(&digest::SHA256, self.0.as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(hash.as_ref());
        TokenHash(out)
    }

    /// The key of this session's continuity tag: HMAC(HKDF(token), identifier).
    ///
    /// Only who holds the token can make it, so the stored tag alone identifies nobody.
    #[must_use]
    pub fn continuity_key(&self) -> hmac::Key {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sekisho/continuity/v1");
        let pseudorandom = salt.extract(self.0.as_bytes());
        let expanded = pseudorandom.expand(&[b"identifier"], hmac::HMAC_SHA256);
        expanded.map_or_else(|_| unreachable!("one hash length is within HKDF's bound"), hmac::Key::from)
    }
}

/// SHA-256 of a session token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash with these bytes, read back by a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// Random public id of a session: for listing and revoking, useless for signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The id made of 16 random bytes (UUID version 4).
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Reads the text form; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(SessionToken: fmt::Debug, fmt::Display, Clone, serde::Serialize);

    #[test]
    fn a_token_reads_back_and_hashes_alike() {
        let token = SessionToken::generate(&SeededEntropy::new(3));
        let again = SessionToken::parse(token.expose().as_bytes()).unwrap();
        assert_eq!(token.hash(), again.hash());
        assert_eq!(token.expose().len(), TOKEN_CHARACTERS);
    }

    #[test]
    fn what_cannot_be_a_token_is_none() {
        let good = SessionToken::generate(&SeededEntropy::new(3)).expose().to_owned();
        for text in ["", "x", &good[1..], &format!("{good}x"), &good.replace(&good[..1], "=")] {
            assert!(SessionToken::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
