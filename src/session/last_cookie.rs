//! The session cookie that a connection brought last, and what was made of it.

use std::cell::Cell;
use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::{SessionSecret, SessionToken, TokenHash};

/// What is made of a session cookie: the token of its secret, and what the store keeps instead of that.
pub struct CookieToken {
    secret: SessionSecret,
    token: SessionToken,
    hash: TokenHash,
}

impl CookieToken {
    fn of(secret: SessionSecret) -> Self {
        let token = secret.token();
        Self { secret, hash: token.hash(), token }
    }

    /// The token.
    #[must_use]
    pub const fn token(&self) -> &SessionToken {
        &self.token
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> TokenHash {
        self.hash
    }
}

/// Remembers the last session cookie of a connection, so that two hashes are made once a connection and not once a request.
///
/// Nothing else is remembered: whether a session lives is asked each time. It lasts no longer than what hyper keeps of the request, the
/// cookie in it: over HTTP/1 until nothing was asked for a moment, behind a request with a body until the next one or the end of the
/// connection; over HTTP/2, which keeps fields to refer to them (RFC 7541 §2.3.2), until the connection ends ([`Handler::Kept`](crate::edge::Handler::Kept)).
#[derive(Default)]
pub struct LastCookie(Cell<Option<Arc<CookieToken>>>);

impl LastCookie {
    /// What is made of a cookie of that value. `None` if it cannot be a secret.
    pub(super) fn token_of(&self, value: &[u8]) -> Option<Arc<CookieToken>> {
        // In constant time: a proxy may bring several browsers' requests by one connection.
        let known = self.0.take().filter(|known| known.secret.expose().as_bytes().ct_eq(value).into());
        let token = known.or_else(|| SessionSecret::parse(value).map(CookieToken::of).map(Arc::new));
        self.0.set(token.clone());
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_cookie_is_hashed_when_it_is_another_one() {
        let last = LastCookie::default();
        let secrets = [1, 2].map(|seed| SessionSecret::generate(&SeededEntropy::new(seed)).expose().to_owned());
        let [one, other] = secrets.each_ref().map(String::as_bytes);
        let first = last.token_of(one).unwrap();
        assert_eq!(first.token().expose(), SessionSecret::parse(one).unwrap().token().expose());
        assert_eq!(first.hash(), first.token().hash());
        assert!(Arc::ptr_eq(&first, &last.token_of(one).unwrap()));
        assert_eq!(last.token_of(other).unwrap().hash(), SessionSecret::parse(other).unwrap().token().hash());
        let again = last.token_of(one).unwrap();
        assert!(!Arc::ptr_eq(&first, &again) && again.hash() == first.hash());
        for no_secret in [&one[1..], b"", &[one, b"="].concat()] {
            assert!(last.token_of(no_secret).is_none());
        }
        assert!(!Arc::ptr_eq(&again, &last.token_of(one).unwrap()), "what cannot be one is remembered no better");
    }
}
