//! Sessions of browsers that keep no cookies: how a new one's token travels, and which answers carry it on.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Gateway;
use super::visit::Visit;
use crate::body::Body;
use crate::carrier::{OverTls, Profile};
use crate::clock::Timestamp;
use crate::config::TransportSetting;
use crate::edge::{Client, RawHead, Scheme};
use crate::links::{LinkPlan, UrlTokens, carry, take_token};
use crate::pages::Page;
use crate::refusal::Reason;
use crate::session::{Check, CookiePresence, SessionCookie, SessionToken};
use crate::store::TokenTransport;

/// How the token of a new session is handed to its browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// In a cookie.
    Cookie,
    /// In the links of what it is shown.
    Url,
    /// In both, where only the next request tells whether the cookie was kept.
    Both,
}

impl Delivery {
    /// How the session is opened. One of both counts as a URL session until its cookie comes back.
    pub(super) const fn transport(self) -> TokenTransport {
        match self {
            Self::Cookie => TokenTransport::Cookie,
            Self::Url | Self::Both => TokenTransport::Url,
        }
    }
}

impl Gateway {
    /// How this browser gets the token of its new session.
    ///
    /// The sign-in page came with a probe, so a browser that keeps cookies has sent it back by now and nobody clicked
    /// once more for it.
    pub(super) fn delivery(&self, visit: &Visit<'_>) -> Delivery {
        if !self.url_may_carry(visit.carrier, visit.client.scheme) {
            return Delivery::Cookie;
        }
        match self.config.session.transport {
            TransportSetting::Cookie => Delivery::Cookie,
            TransportSetting::Url => Delivery::Url,
            TransportSetting::Auto if SessionCookie::of(visit.client.scheme).probe_came_back(visit.head) => {
                Delivery::Cookie
            }
            TransportSetting::Auto if keeps_none(visit) => Delivery::Url,
            TransportSetting::Auto => Delivery::Both,
        }
    }

    /// Whether a sign-in page asks this browser if it keeps cookies.
    pub(super) fn probes(&self, visit: &Visit<'_>) -> bool {
        self.config.session.transport == TransportSetting::Auto
            && self.url_may_carry(visit.carrier, visit.client.scheme)
            && !visit.reader.json
            && !keeps_none(visit)
            && !SessionCookie::of(visit.client.scheme).probe_came_back(visit.head)
    }

    /// Where TLS hides the identifier, any subscriber of the carrier could use a URL that leaked: a cookie is needed,
    /// unless the operator says otherwise (`interface.md` §4).
    fn url_may_carry(&self, carrier: Option<&Arc<Profile>>, scheme: Scheme) -> bool {
        let hidden = scheme == Scheme::Https && carrier.is_none_or(|profile| profile.over_tls() == OverTls::Refuse);
        !hidden || self.config.session.url_over_tls
    }

    /// What the links of the answer get, if the request's session is one of a URL.
    pub(super) fn link_plan(&self, head: &RawHead, client: &Client, now: Timestamp) -> Option<LinkPlan> {
        let UrlTokens::One(Some(token)) = token_in_url(head, client) else { return None };
        // Without its own token: a link back to this very page gets it anew.
        let query = take_token(head.query()).0.map(|query| format!("?{query}")).unwrap_or_default();
        let carrier = self.config.carriers.match_source(client);
        Some(self.plan(&token, carrier, &format!("{}{query}", head.path()), now))
    }

    pub(super) fn plan(
        &self,
        token: &SessionToken,
        carrier: Option<&Arc<Profile>>,
        page: &str,
        now: Timestamp,
    ) -> LinkPlan {
        let query = carrier.and_then(|profile| profile.required_query());
        LinkPlan::new(token, query, page, Arc::clone(&self.sites), Arc::clone(&self.leave), now)
    }

    /// One of our own pages, with the session in its links while there is one.
    pub(super) fn carried(&self, visit: &Visit<'_>, answer: Response<Body>) -> Response<Body> {
        let UrlTokens::One(Some(token)) = token_in_url(visit.head, &visit.client) else { return answer };
        let lives = matches!(self.sessions.check(token.hash(), visit.now), Check::Live(_));
        match self.link_plan(visit.head, &visit.client, visit.now) {
            Some(plan) if lives => carry(answer, plan),
            _ => answer,
        }
    }

    /// `GET /_sekisho/leave`: the page between a URL session and another site, which must not learn the token by
    /// Referer. It names the place and redirects nobody.
    pub(super) fn leave(&self, visit: &Visit<'_>) -> Response<Body> {
        match self.leave.open(take_token(visit.head.query()).0.as_deref(), visit.now) {
            Some(target) => {
                let page = Page::Leave { url: target.as_str(), host: target.host() };
                self.page(visit, StatusCode::OK, &page)
            }
            None => self.refuse(visit, Reason::LinkExpired),
        }
    }
}

/// Whether this browser is known to keep no cookies.
fn keeps_none(visit: &Visit<'_>) -> bool {
    visit.carrier.is_some_and(|profile| profile.keeps_cookies(&visit.user_agent) == Some(false))
}

/// Whether a URL session of this carrier must show its identifier with every request.
pub(super) fn must_show_identifier(carrier: Option<&Arc<Profile>>, scheme: Scheme) -> bool {
    carrier.is_none_or(|profile| scheme == Scheme::Http || profile.over_tls() == OverTls::Accept)
}

/// The token that a request brings in its URL. A cookie goes before it, whatever the cookie is worth.
pub(super) fn token_in_url(head: &RawHead, client: &Client) -> UrlTokens {
    let has_cookie = !matches!(SessionCookie::of(client.scheme).find(head), CookiePresence::Absent);
    if has_cookie { UrlTokens::None } else { take_token(head.query()).1 }
}
