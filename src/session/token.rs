//! What a browser holds of a session, and the values derived from it.
//!
//! A cookie holds the [`SessionSecret`], a URL the [`SessionToken`] that is made of it one way. URLs end up in
//! bookmarks, mails and logs of others; who finds a token there cannot make the cookie of it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hkdf, hmac};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, random};

/// Random bytes of a secret: 192 bits, above the 128 that the contract asks for, and 32 characters without padding.
/// A token keeps them all.
const TOKEN_BYTES: usize = 24;
/// Characters of a secret and of a token.
const TOKEN_CHARACTERS: usize = 32;
/// What is hashed before a secret, so that its token is no other hash of it.
const TOKEN_LABEL: &[u8] = b"sekisho/url-token/v1";

/// What a session is opened with: held by the browser's cookie jar, never stored.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct SessionSecret(Characters);

impl SessionSecret {
    /// A fresh one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let bytes = Zeroizing::new(random::<TOKEN_BYTES>(entropy));
        Self(Characters::of(&bytes))
    }

    /// Reads what a cookie held. `None` if it cannot be a secret, which costs no look-up.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        Characters::read(text).map(Self)
    }

    /// The clear secret. Every use is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The session's token. A plain hash is enough to hide the secret: it has 192 random bits.
    #[must_use]
    pub fn token(&self) -> SessionToken {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(TOKEN_LABEL);
        hash.update(&*self.0.0);
        let hash = hash.finish();
        let kept = hash.as_ref().first_chunk().unwrap_or_else(|| unreachable!("SHA-256 is longer than a token"));
        SessionToken(Characters::of(kept))
    }
}

/// A session token, in clear: what `_sk` holds, or was made of a cookie; never stored.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct SessionToken(Characters);

impl SessionToken {
    /// Reads what a URL held. `None` if it cannot be a token, which costs no look-up.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        Characters::read(text).map(Self)
    }

    /// The clear token. Every use is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// What the store keeps instead of the token. A plain hash is enough: the token has 192 random bits.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        let hash = digest::digest(&digest::SHA256, &*self.0.0);
        let mut out = [0; 32];
        out.copy_from_slice(hash.as_ref());
        TokenHash(out)
    }

    /// The key of this session's continuity tag: HMAC(HKDF(token), identifier).
    ///
    /// Only who holds the token can make it, so the stored tag alone identifies nobody.
    #[must_use]
    pub fn continuity_key(&self) -> ContinuityKey {
        ContinuityKey(self.derive(b"identifier"))
    }

    /// The continuity key of another token, from what is stored between the two ([`SessionToken::link_to`]).
    pub(super) fn linked_key(&self, link: &[u8; 32]) -> ContinuityKey {
        ContinuityKey(xor(&self.derive(b"link"), link))
    }

    /// What is stored so that this token, which is new, gives `key`, which an older one made. Each token links to one key,
    /// so its mask is used once.
    pub(super) fn link_to(&self, key: &ContinuityKey) -> [u8; 32] {
        *xor(&self.derive(b"link"), &key.0)
    }

    fn derive(&self, use_of_it: &'static [u8]) -> Zeroizing<[u8; 32]> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sekisho/continuity/v1");
        let info = [use_of_it];
        let pseudorandom = salt.extract(&*self.0.0);
        let expanded = pseudorandom.expand(&info, hkdf::HKDF_SHA256);
        let mut out = Zeroizing::new([0; 32]);
        let filled = expanded.and_then(|expanded| expanded.fill(&mut *out));
        filled.unwrap_or_else(|_| unreachable!("one hash length is within HKDF's bound"));
        out
    }
}

/// The key of a session's continuity tag. Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct ContinuityKey(Zeroizing<[u8; 32]>);

impl ContinuityKey {
    /// For one tag. ring's copy is not wiped.
    pub(super) fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.0)
    }
}

fn xor(one: &[u8; 32], other: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new(*one);
    for (byte, mask) in out.iter_mut().zip(other) {
        *byte ^= mask;
    }
    out
}

/// The characters of a secret or of a token, in place: each request reads one, and makes the other of it.
struct Characters(Zeroizing<[u8; TOKEN_CHARACTERS]>);

impl Characters {
    fn of(bytes: &[u8; TOKEN_BYTES]) -> Self {
        let mut characters = Zeroizing::new([0; TOKEN_CHARACTERS]);
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut *characters);
        debug_assert_eq!(written, Ok(TOKEN_CHARACTERS), "three bytes are four characters");
        Self(characters)
    }

    fn read(text: &[u8]) -> Option<Self> {
        let url_safe = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let characters = text.try_into().ok()?;
        text.iter().all(url_safe).then(|| Self(Zeroizing::new(characters)))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&*self.0).unwrap_or_else(|_| unreachable!("base64url is ASCII"))
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
    assert_not_impl_any!(ContinuityKey: fmt::Debug, fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(SessionSecret: fmt::Debug, fmt::Display, Clone, serde::Serialize);

    fn secret() -> SessionSecret {
        SessionSecret::generate(&SeededEntropy::new(3))
    }

    #[test]
    fn a_secret_and_its_token_read_back() {
        let token = secret().token();
        let again = SessionSecret::parse(secret().expose().as_bytes()).unwrap().token();
        assert_eq!(token.hash(), again.hash());
        assert_eq!(token.hash(), SessionToken::parse(token.expose().as_bytes()).unwrap().hash());
        assert_eq!((token.expose().len(), secret().expose().len()), (TOKEN_CHARACTERS, TOKEN_CHARACTERS));
        assert_eq!(format!("{:?}", token.hash()), "TokenHash(..)");
    }

    #[test]
    fn a_link_leads_from_a_new_token_to_the_key_of_the_old_one_and_no_other() {
        let [old, new, stranger] = [3, 4, 5].map(|seed| SessionSecret::generate(&SeededEntropy::new(seed)).token());
        let link = new.link_to(&old.continuity_key());
        assert_eq!(*new.linked_key(&link).0, *old.continuity_key().0);
        assert_ne!(*new.continuity_key().0, *old.continuity_key().0);
        assert_ne!(*stranger.linked_key(&link).0, *old.continuity_key().0);
        assert_ne!(link, *old.continuity_key().0);
    }

    #[test]
    fn a_token_found_in_a_url_is_no_secret() {
        let token = secret().token();
        assert_ne!(token.expose(), secret().expose());
        let as_cookie = SessionSecret::parse(token.expose().as_bytes()).unwrap();
        assert_ne!(as_cookie.token().hash(), token.hash());
    }

    #[test]
    fn what_cannot_be_a_token_is_none() {
        let secret = secret();
        let good = secret.expose();
        for text in ["", "x", &good[1..], &format!("{good}x"), &good.replace(&good[..1], "=")] {
            assert!(SessionToken::parse(text.as_bytes()).is_none(), "{text}");
            assert!(SessionSecret::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
