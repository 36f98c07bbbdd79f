//! The session cookie: its name, its attributes, and how it is found in a request.

use std::sync::Arc;

use ::cookie::time::Duration;
use ::cookie::{Cookie, SameSite};
use http::HeaderValue;
use http::header::COOKIE;

use super::{CookieToken, LastCookie, SessionSecret};
use crate::edge::{RawHead, Scheme, cookie_pairs};

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
    /// One session cookie, or several of one value, that can be a secret: the token of it.
    Token(Arc<CookieToken>),
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

    /// Looks for the session cookie, whose connection brought `last` before. A `__Host-` cookie never counts over plain HTTP, nor the
    /// plain one over TLS.
    #[must_use]
    pub fn find(self, head: &RawHead, last: &LastCookie) -> CookiePresence {
        let mut found: Option<&[u8]> = None;
        // Two plain loops: an iterator over both levels costs each request three times as much.
        for field in head.all(&COOKIE) {
            for pair in cookie_pairs(field.as_bytes()) {
                let Some(value) = value_of(pair, self.name()) else { continue };
                if found.is_some_and(|earlier| earlier != value) {
                    return CookiePresence::Unusable;
                }
                found = Some(value);
            }
        }
        match found.map(|value| last.token_of(value)) {
            None => CookiePresence::Absent,
            Some(Some(token)) => CookiePresence::Token(token),
            Some(None) => CookiePresence::Unusable,
        }
    }

    /// `Set-Cookie` that gives the browser its secret. Without `Max-Age`: closing the browser ends it there.
    #[must_use]
    pub fn set(self, secret: &SessionSecret) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.build(secret.expose()).to_string()).ok()?;
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

    /// Whether the probe, or a session cookie of before, came back: the browser keeps cookies.
    #[must_use]
    pub fn comes_back(self, head: &RawHead) -> bool {
        [self.name(), self.probe_name()].into_iter().any(|name| values(head, name).next().is_some())
    }

    const fn probe_name(self) -> &'static str {
        match self.0 {
            Scheme::Http => PLAIN_PROBE,
            Scheme::Https => SECURE_PROBE,
        }
    }

    /// `Set-Cookie` that takes the secret away.
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

/// The values of all cookies of that name, in order.
fn values<'h>(head: &'h RawHead, name: &'static str) -> impl Iterator<Item = &'h [u8]> {
    let pairs = head.all(&COOKIE).flat_map(|field| cookie_pairs(field.as_bytes()));
    pairs.filter_map(move |pair| value_of(pair, name))
}

fn value_of<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}
