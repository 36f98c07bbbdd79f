//! A request whose head was accepted, as all stages behind the edge see it: without the session token of its URL.

use super::access_line::RequestId;
use crate::clock::Timestamp;
use crate::edge::{Client, HeadError, RawHead};
use crate::links::{UrlTokens, take_token};
use crate::session::{CookiePresence, SessionCookie, SessionToken};

/// A request, once its head, its host and its client are known.
///
/// The only place where a token is taken out of a URL: what sees `head` afterwards, an upstream, a log, a link back to
/// this page, cannot hand it on.
pub(super) struct Arrival {
    pub(super) head: RawHead,
    url: UrlTokens,
    pub(super) client: Client,
    pub(super) request_id: RequestId,
    pub(super) now: Timestamp,
}

/// What a request holds of a session.
pub(super) enum Held<'a> {
    /// Nothing.
    Nothing,
    /// A cookie; whatever its URL holds is not looked at (session fixation).
    Cookie(SessionToken),
    /// A token in its URL, and no cookie.
    Url(&'a SessionToken),
    /// Something that cannot be a token.
    Unusable,
}

impl Arrival {
    /// Takes the token out of the URL.
    ///
    /// # Errors
    /// [`HeadError::Malformed`], if what is left were no target.
    pub(super) fn of(
        mut head: RawHead,
        client: Client,
        request_id: RequestId,
        now: Timestamp,
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
        Ok(Self { head, url, client, request_id, now })
    }

    /// Whether its URL has two tokens, so that nobody can say whose it is.
    pub(super) fn is_contradictory(&self) -> bool {
        matches!(self.url, UrlTokens::Several)
    }

    /// What it holds of a session.
    pub(super) fn held(&self) -> Held<'_> {
        match SessionCookie::of(self.client.scheme).find(&self.head) {
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
        !matches!(SessionCookie::of(self.client.scheme).find(&self.head), CookiePresence::Absent)
    }

    /// Path and query, where relative links of its answer start.
    pub(super) fn page(&self) -> String {
        match self.head.query() {
            Some(query) => format!("{}?{query}", self.head.path()),
            None => self.head.path().to_owned(),
        }
    }
}
