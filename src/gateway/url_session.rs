//! How a session's token reaches a browser and comes back: in a cookie, in the links of what it is shown, or in both
//! until the cookie has come back (`interface.md` §4).
//!
//! Whether a browser keeps cookies is asked without a click more: the sign-in page sets a probe that names nobody.

use std::sync::Arc;
use std::time::Duration;

use http::header::{SET_COOKIE, USER_AGENT};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::Gateway;
use super::arrival::{Arrival, Held, is_form};
use super::session_check::{Current, Presented};
use super::visit::Visit;
use crate::body::Body;
use crate::carrier::{OverTls, Profile, UserAgent};
use crate::clock::Timestamp;
use crate::config::TransportSetting;
use crate::edge::{Client, ClientBody, RawHead, Scheme};
use crate::links::{LeaveLinks, LinkPlan, carry};
use crate::pages::Page;
use crate::refusal::Reason;
use crate::session::{SessionCookie, SessionSecret, SessionToken};
use crate::store::TokenTransport;

/// The longest body that is read to be thrown away, in bytes.
const MAX_DISCARDED: usize = 1024 * 1024;

/// How a browser is given the session that is opened for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It keeps cookies.
    Cookie,
    /// It keeps none.
    Url,
    /// Nobody knows: the session moves into the cookie once that comes back, and its URLs are worth nothing then.
    Both,
}

/// Nothing may be opened: a cookie is required where this browser is, and it is known to keep none.
#[derive(Debug)]
pub(super) struct KeepsNoCookies;

/// A session that was just opened, on its way to its browser.
pub(super) struct Opened {
    pub(super) secret: SessionSecret,
    pub(super) delivery: Delivery,
    /// Whether its person is to be told something first.
    pub(super) news: bool,
}

impl Delivery {
    /// How the token travels at first.
    pub(super) const fn transport(self) -> TokenTransport {
        match self {
            Self::Cookie => TokenTransport::Cookie,
            Self::Url | Self::Both => TokenTransport::Url,
        }
    }

    const fn by_cookie(self) -> bool {
        matches!(self, Self::Cookie | Self::Both)
    }
}

impl Gateway {
    /// How this browser is given a session. `asked`: it was shown our sign-in page, and so the probe.
    ///
    /// # Errors
    /// [`KeepsNoCookies`].
    pub(super) fn delivery(
        &self,
        head: &RawHead,
        client: &Client,
        user_agent: &UserAgent,
        asked: bool,
    ) -> Result<Delivery, KeepsNoCookies> {
        let profile = self.config.carriers.match_source(client);
        let setting = self.config.session.transport;
        let keeps = profile.and_then(|profile| profile.keeps_cookies(user_agent));
        let url_allowed =
            self.config.session.url_over_tls || profile.is_some_and(|profile| is_shown(profile, client.scheme));
        match setting {
            TransportSetting::Cookie => Ok(Delivery::Cookie),
            TransportSetting::Url if url_allowed => Ok(Delivery::Url),
            TransportSetting::Auto | TransportSetting::Url => {
                if SessionCookie::of(client.scheme).comes_back(head) {
                    return Ok(Delivery::Cookie);
                }
                match (keeps, url_allowed) {
                    (Some(false), true) => Ok(Delivery::Url),
                    (Some(false), false) => Err(KeepsNoCookies),
                    (Some(true), true) if !asked => Ok(Delivery::Cookie),
                    (Some(true) | None, true) => Ok(Delivery::Both),
                    (Some(true) | None, false) => Ok(Delivery::Cookie),
                }
            }
        }
    }

    /// Asks the browser that is shown the sign-in page whether it keeps cookies, where the answer will matter.
    pub(super) fn probe_cookies(&self, visit: &Visit<'_>, answer: &mut Response<Body>) {
        let scheme = visit.client.scheme;
        // What is known of browsers is known of plain HTTP.
        let known = scheme == Scheme::Http
            && visit.carrier.is_some_and(|profile| profile.keeps_cookies(&visit.user_agent) == Some(false));
        let asks = self.config.session.transport == TransportSetting::Auto && !self.hands_over(scheme);
        if !asks || visit.reader.json || known {
            return;
        }
        answer.headers_mut().append(SET_COOKIE, SessionCookie::of(scheme).probe());
    }

    /// Gives the browser its new session's cookie, if it is to have one.
    pub(super) fn give_cookie(answer: &mut Response<Body>, opened: &Opened, scheme: Scheme) {
        let cookie = SessionCookie::of(scheme).set(&opened.secret).filter(|_| opened.delivery.by_cookie());
        if let Some(cookie) = cookie {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
    }

    /// What the links of the answer to `page` get that gives the browser its new session; nothing beside a cookie that
    /// will come back.
    pub(super) fn links_to(&self, opened: &Opened, client: &Client, page: &str) -> Option<LinkPlan> {
        match opened.delivery.transport() {
            TokenTransport::Cookie => None,
            TokenTransport::Url => Some(self.links_with(&opened.secret.token(), client, page, self.clock.now())),
        }
    }

    /// What the links of the answer to `arrival` get, where its session travels in them; never in the clear where sessions
    /// live over TLS.
    pub(super) fn links_of(&self, arrival: &Arrival, current: &Current) -> Option<LinkPlan> {
        if !current.is_in_url() || self.hands_over(arrival.client.scheme) {
            return None;
        }
        let Held::Url(token) = arrival.held() else { return None };
        let user_agent = UserAgent::parse(arrival.head.text(&USER_AGENT).unwrap_or_default());
        let links = self.links_with(token, &arrival.client, &arrival.page(), arrival.now);
        Some(links.in_fields_alone(!user_agent.keeps_form_queries()))
    }

    /// One of our own pages for the signed-in, its links carrying the session where they have to.
    pub(super) fn linked(&self, visit: &Visit<'_>, current: &Current, answer: Response<Body>) -> Response<Body> {
        linked(answer, self.links_of(visit.arrival, current))
    }

    /// A page that everybody may read: only a session that travels in its links has to be known for it.
    pub(super) async fn linked_for_all(&self, visit: &Visit<'_>, answer: Response<Body>) -> Response<Body> {
        match visit.arrival.held() {
            Held::Nothing | Held::Cookie(_) | Held::Unusable => answer,
            Held::Url(_) => match self.presented_session(visit.arrival).await {
                Presented::Live(current) => self.linked(visit, &current, answer),
                Presented::Refused(reason) => self.refuse_session(visit, reason),
                Presented::Nothing | Presented::Ended => answer,
            },
        }
    }

    /// A refusal that says nothing of the session: a mistyped address does not cost the one that is in its query.
    pub(super) async fn refuse_in_place(&self, visit: &Visit<'_>, reason: Reason) -> Response<Body> {
        self.linked_for_all(visit, self.refuse(visit, reason)).await
    }

    /// `/_sekisho/leave`: between a page of ours and another site, which must not learn the token by Referer. It
    /// names the place, redirects nobody, and leads nowhere that no page of an upstream linked to. What a form for that
    /// site sends, by GET or by POST, goes no further than here.
    pub(super) async fn leave_page(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let sent = discard(body, self.config.limits.timeouts.body_idle).await;
        let in_form = || std::str::from_utf8(sent.as_deref().filter(|_| is_form(visit.head))?).ok();
        let target = self.leave.open(visit.head.query(), visit.now);
        match target.or_else(|| self.leave.open(in_form(), visit.now)) {
            Some(target) => {
                let page = Page::Leave { url: target.as_str(), host: target.host() };
                self.page(visit, StatusCode::OK, &page)
            }
            None => self.refuse(visit, Reason::LinkExpired),
        }
    }

    fn links_with(&self, token: &SessionToken, client: &Client, page: &str, now: Timestamp) -> LinkPlan {
        let profile = self.config.carriers.match_source(client).filter(|profile| is_shown(profile, client.scheme));
        let asked_with = profile.and_then(|profile| profile.required_query());
        LinkPlan::new(token, asked_with, page, Arc::clone(&self.sites), Arc::clone(&self.leave), now)
    }
}

/// Reads a small body to its end, so that its browser is not cut off while it still sends; the connection of a larger or
/// slower one is closed. Gives back its start, where the fields of ours are in a form.
async fn discard(mut body: ClientBody, time: Duration) -> Option<Vec<u8>> {
    let read = async {
        let start = body.peek(LeaveLinks::LONGEST_FIELDS).await.ok()?.to_vec();
        let mut rest = Limited::new(body, MAX_DISCARDED);
        while let Some(Ok(_)) = rest.frame().await {}
        Some(start)
    };
    // Late or whole, the page is the same.
    tokio::time::timeout(time, read).await.ok().flatten()
}

/// The answer with these links, or as it is.
pub(super) fn linked(answer: Response<Body>, links: Option<LinkPlan>) -> Response<Body> {
    match links {
        Some(links) => carry(answer, links),
        None => answer,
    }
}

/// Whether the profile's identifier is to be seen in requests of this scheme: always, or once it is asked for.
pub(super) fn is_shown(profile: &Profile, scheme: Scheme) -> bool {
    profile.header().is_some() && (scheme == Scheme::Http || profile.over_tls() == OverTls::Accept)
}
