//! The session cookie: its name, its attributes, and how it is found in a request.

use ::cookie::time::Duration;
use ::cookie::{Cookie, SameSite};
use http::HeaderValue;
use http::header::COOKIE;

use super::SessionToken;
use crate::edge::{RawHead, Scheme};

/// Name over plain HTTP.
const PLAIN: &str = "sekisho";
/// Name over TLS: the `__Host-` prefix lets no other host and no plain page set it (RFC 6265bis §4.1.3.2).
const SECURE: &str = "__Host-sekisho";
/// Asks whether the browser keeps cookies; holds nothing of anybody.
const PLAIN_PROBE: &str = "skprobe";
const SECURE_PROBE: &str = "__Host-skprobe";
/// As long as the button of a sign-in page serves.
const PROBE_SECONDS: i64 = 600;

/// The session cookie of a connection of one scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCookie(Scheme);

/// What a request's `Cookie` fields say of a session.
pub enum CookiePresence {
    /// No session cookie.
    Absent,
    /// One session cookie, or several of one value, that can be a token.
    Token(SessionToken),
    /// A session cookie that cannot be used: no token, or two that differ (cookie tossing).
    Unusable,
}

impl SessionCookie {
    /// Names that are the gateway's own on any scheme; none of them reaches an upstream or comes from one.
    pub const NAMES: [&'static str; 4] = [PLAIN, SECURE, PLAIN_PROBE, SECURE_PROBE];

    /// The cookie that belongs to `scheme`.
    #[must_use]
    pub const fn of(scheme: Scheme) -> Self {
        Self(scheme)
    }

    const fn name(self) -> &'static str {
        match self.0 {
            Scheme::Http => PLAIN,
            Scheme::Https => SECURE,
        }
    }

    /// Looks for the session cookie. A `__Host-` cookie never counts over plain HTTP, nor the plain one over TLS.
    #[must_use]
    pub fn find(self, head: &RawHead) -> CookiePresence {
        let name = self.name().as_bytes();
        let mut found: Option<&[u8]> = None;
        for field in head.all(&COOKIE) {
            for pair in field.as_bytes().split(|b| *b == b';') {
                let pair = pair.trim_ascii();
                let Some(value) = pair.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) else { continue };
                if found.is_some_and(|earlier| earlier != value) {
                    return CookiePresence::Unusable;
                }
                found = Some(value);
            }
        }
        match found.map(SessionToken::parse) {
            None => CookiePresence::Absent,
            Some(Some(token)) => CookiePresence::Token(token),
            Some(None) => CookiePresence::Unusable,
        }
    }

    /// `Set-Cookie` that gives the browser its token. Without `Max-Age`: closing the browser ends it there.
    #[must_use]
    pub fn set(self, token: &SessionToken) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.build(token.expose()).to_string()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// `Set-Cookie` of the probe, sent with a sign-in page.
    ///
    /// # Panics
    /// Never: it is constant and visible ASCII.
    #[must_use]
    pub fn probe(self) -> HeaderValue {
        let mut cookie = self.build_named(self.probe_name(), "1");
        cookie.set_max_age(Duration::seconds(PROBE_SECONDS));
        HeaderValue::try_from(cookie.to_string()).expect("a constant of visible ASCII")
    }

    /// Whether the browser sent the probe back.
    #[must_use]
    pub fn probe_came_back(self, head: &RawHead) -> bool {
        let name = self.probe_name().as_bytes();
        let pairs = head.all(&COOKIE).flat_map(|field| field.as_bytes().split(|b| *b == b';'));
        pairs.map(<[u8]>::trim_ascii).any(|pair| pair.strip_prefix(name) == Some(b"=1"))
    }

    const fn probe_name(self) -> &'static str {
        match self.0 {
            Scheme::Http => PLAIN_PROBE,
            Scheme::Https => SECURE_PROBE,
        }
    }

    /// `Set-Cookie` that takes the token away.
    #[must_use]
    pub fn clear(self) -> Option<HeaderValue> {
        let mut cookie = self.build("");
        cookie.make_removal();
        HeaderValue::from_str(&cookie.to_string()).ok()
    }

    fn build(self, value: &str) -> Cookie<'static> {
        self.build_named(self.name(), value)
    }

    fn build_named(self, name: &'static str, value: &str) -> Cookie<'static> {
        Cookie::build((name, value.to_owned()))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(self.0 == Scheme::Https)
            .build()
    }
}
