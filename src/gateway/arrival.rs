//! A request whose head was accepted, as all stages behind the edge see it: without the session token of its URL.

use std::time::Duration;

use http::Method;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use hyper::body::Incoming;

use super::access_line::AccessLine;
use crate::clock::Timestamp;
use crate::edge::{Client, ClientBody, HeadError, RawHead};
use crate::links::{FormEncoding, UrlTokens, take_token};
use crate::refusal::Reason;
use crate::session::{CookiePresence, CookieToken, LastCookie, SessionCookie, SessionToken};
use crate::trace::{RequestId, RequestTrace};

/// Whether the body is a form as browsers send one, unless told otherwise.
pub(super) fn is_form(head: &RawHead) -> bool {
    let media_type = head.text(&CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A request, once its head, its host and its client are known.
///
/// The only place where a token is taken out of a URL: what sees `head` afterwards, an upstream, a log, a link back to
/// this page, cannot hand it on.
pub(super) struct Arrival {
    pub(super) head: RawHead,
    cookie: CookiePresence,
    url: UrlTokens,
    pub(super) client: Client,
    pub(super) request_id: RequestId,
    pub(super) now: Timestamp,
    pub(super) trace: RequestTrace,
}

/// What a request holds of a session.
pub(super) enum Held<'a> {
    /// Nothing.
    Nothing,
    /// A cookie; whatever its URL holds is not looked at (session fixation).
    Cookie(&'a CookieToken),
    /// A token in its URL, or first in its form, and no cookie.
    Url(&'a SessionToken),
    /// Something that cannot be a token.
    Unusable,
}

impl Arrival {
    /// Takes the token out of the URL. Its connection brought the cookie `last` before.
    ///
    /// # Errors
    /// [`HeadError::Malformed`], if what is left were no target.
    pub(super) fn of(
        mut head: RawHead,
        client: Client,
        line: &AccessLine,
        now: Timestamp,
        last: &LastCookie,
    ) -> Result<Self, HeadError> {
        // Every spelling of the key has one of these.
        let may_hold = head.query().is_some_and(|query| query.contains(['_', '%']));
        let url = if may_hold {
            match take_token(head.query()) {
                (_, UrlTokens::None) => UrlTokens::None,
                (rest, tokens) => {
                    head.set_query(rest.as_deref())?;
                    tokens
                }
            }
        } else {
            UrlTokens::None
        };
        let (request_id, trace) = (line.request_id, line.trace.clone());
        trace.host(|| head.host().unwrap_or_default());
        let cookie = SessionCookie::of(client.scheme).find(&head, last);
        Ok(Self { head, cookie, url, client, request_id, now, trace })
    }

    /// How the fields of the body are written, if it is a posted form, which may hold a token.
    pub(super) fn form_encoding(&self, body: &Incoming) -> Option<FormEncoding> {
        if *self.head.method() != Method::POST || body.is_end_stream() {
            return None;
        }
        FormEncoding::of(self.head.text(&CONTENT_TYPE).unwrap_or_default())
    }

    /// Takes the token out of the body of a posted form: of its first field, where it counts as one in the URL would, and
    /// of any other, where it is worth nothing; gives back the body as it goes on. Beside a cookie none is worth anything.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`], [`Reason::RequestTimeout`]: the body broke off, or stood still for `idle`.
    pub(super) async fn take_from_form(
        &mut self,
        body: Incoming,
        encoding: FormEncoding,
        idle: Duration,
    ) -> Result<ClientBody, Reason> {
        let mut body = ClientBody::from(body);
        if !self.has_cookie() {
            let start = tokio::time::timeout(idle, body.peek(encoding.first_field_length())).await;
            let start = start.map_err(|_| Reason::RequestTimeout)?.map_err(|_| Reason::MalformedRequest)?;
            if let Some((token, length)) = encoding.first_token(start) {
                body.skip(length);
                self.url = match std::mem::replace(&mut self.url, UrlTokens::Several) {
                    UrlTokens::None => UrlTokens::One(Some(token)),
                    // A form that posts and has a button that gets holds it in both places.
                    UrlTokens::One(Some(other)) if other.expose() == token.expose() => UrlTokens::One(Some(other)),
                    UrlTokens::One(_) | UrlTokens::Several => UrlTokens::Several,
                };
            }
        }
        let mut eraser = encoding.eraser();
        body.edited(move |piece| eraser.erase(piece));
        Ok(body)
    }

    /// Whether it has two tokens, so that nobody can say whose it is.
    pub(super) fn is_contradictory(&self) -> bool {
        matches!(self.url, UrlTokens::Several)
    }

    /// What it holds of a session.
    pub(super) fn held(&self) -> Held<'_> {
        match &self.cookie {
            CookiePresence::Token(token) => Held::Cookie(token),
            CookiePresence::Unusable => Held::Unusable,
            CookiePresence::Absent => match &self.url {
                UrlTokens::None => Held::Nothing,
                UrlTokens::One(Some(token)) => Held::Url(token),
                UrlTokens::One(None) | UrlTokens::Several => Held::Unusable,
            },
        }
    }

    /// Whether it holds a session cookie, good or not.
    pub(super) fn has_cookie(&self) -> bool {
        !matches!(self.cookie, CookiePresence::Absent)
    }

    /// Path and query, where relative links of its answer start.
    pub(super) fn page(&self) -> String {
        match self.head.query() {
            Some(query) => format!("{}?{query}", self.head.path()),
            None => self.head.path().to_owned(),
        }
    }
}
