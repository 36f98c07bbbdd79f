//! Session -> assertion -> upstream. Names no header.
//!
//! A stage after the other, each a plain function; where one has to wait, what follows it goes on in a box.

use std::sync::Arc;

use http::Response;
use hyper::upgrade::OnUpgrade;

use super::arrival::Arrival;
use super::handle::Share;
use super::sent::{Asker, Behind, Sent};
use super::session_check::{Current, Found, Presented};
use super::statement::NotAtHand;
use super::underway::Underway;
use super::visit::Visit;
use crate::assertion::Assertion;
use crate::body::Body;
use crate::config::{Access, RouteConfig};
use crate::edge::ClientBody;
use crate::links::ask_plainly;
use crate::pages::ReaderHints;
use crate::refusal::Reason;
use crate::upstream::{Forwarded, LimitedBody, NotBegun, StripError, StrippedHead};

/// One request on its way to where its path leads.
pub(super) struct Passage {
    /// Boxed, so that it stays in one place however many stages pass it on.
    pub(super) arrival: Box<Arrival>,
    pub(super) body: ClientBody,
    pub(super) upgrade: Option<OnUpgrade>,
}

impl Share {
    /// Proxies a request, if its route lets it through.
    pub(super) fn forward(self: &Arc<Self>, route: &Arc<RouteConfig>, passage: Passage) -> Underway {
        match self.gateway.looked_up(&passage.arrival) {
            Found::Presented(presented) => self.admit(route, passage, presented),
            found @ (Found::Unsettled(_) | Found::Mismatched(..)) => {
                let route = Arc::clone(route);
                self.apart(|share| async move {
                    let presented = share.gateway.presented(found, &passage.arrival).await;
                    share.admit(&route, passage, presented)
                })
            }
        }
    }

    /// Lets a request through that says this of its session, or not.
    fn admit(self: &Arc<Self>, route: &Arc<RouteConfig>, passage: Passage, presented: Presented) -> Underway {
        let gateway = &*self.gateway;
        let current = match presented {
            Presented::Live(current) => Some(current),
            Presented::Refused(reason) => {
                return self.end_here(passage, |visit| gateway.refuse_session(visit, reason));
            }
            Presented::Nothing if route.access == Access::Session => {
                return self
                    .end_here(passage, |visit| gateway.sign_in_page(visit, &visit.wanted(), Reason::SignInRequired));
            }
            Presented::Ended if route.access == Access::Session => {
                return self.end_here(passage, |visit| gateway.expired(visit));
            }
            Presented::Nothing | Presented::Ended => None,
        };
        let arrival = &passage.arrival;
        if gateway.is_foreign_handshake(&arrival.head) {
            return self.end_here(passage, |visit| gateway.refuse(visit, Reason::ForeignOrigin));
        }
        match current {
            None => self.depart(route, passage, None),
            Some(current) if gateway.lacks_pin(route, &current, arrival.now) => self.apart(|share| async move {
                let visit = Visit::of(&share.gateway, &passage.arrival);
                let page = share.gateway.pin_page(&visit, &current, &visit.wanted(), Reason::PinRequired).await;
                drop(visit);
                Underway::answered(page, passage)
            }),
            Some(current) => self.vouch(route, passage, current),
        }
    }

    /// Finds the statement about the session that the request goes on with.
    fn vouch(self: &Arc<Self>, route: &Arc<RouteConfig>, passage: Passage, current: Current) -> Underway {
        let now = passage.arrival.now;
        match self.gateway.assertion_at_hand(&current, route.upstream, now) {
            Ok(assertion) => self.depart(route, passage, Some((current, assertion))),
            Err(NotAtHand::Refused(reason)) => self.cannot_vouch(passage, &current, reason),
            Err(NotAtHand::Unsigned(unsigned)) => {
                let route = Arc::clone(route);
                self.apart(|share| async move {
                    match share.gateway.fresh_assertion(&current, unsigned, now).await {
                        Ok(assertion) => share.depart(&route, passage, Some((current, assertion))),
                        Err(reason) => share.cannot_vouch(passage, &current, reason),
                    }
                })
            }
        }
    }

    fn cannot_vouch(&self, passage: Passage, current: &Current, reason: Reason) -> Underway {
        self.end_here(passage, |visit| self.gateway.linked(visit, current, self.gateway.refuse(visit, reason)))
    }

    /// Answers with a page of ours.
    pub(super) fn end_here(&self, passage: Passage, page: impl FnOnce(&Visit<'_>) -> Response<Body>) -> Underway {
        let page = page(&Visit::of(&self.gateway, &passage.arrival));
        Underway::answered(page, passage)
    }

    /// Ends the request's head: sends what may pass of it with what the gateway says, and keeps what its answer needs.
    fn depart(&self, route: &RouteConfig, passage: Passage, signed_in: Option<(Current, Assertion)>) -> Underway {
        let gateway = &*self.gateway;
        let Some(upstream) = gateway.config.upstreams.get(route.upstream) else {
            return self.end_here(passage, |visit| gateway.refuse(visit, Reason::NoRoute));
        };
        let Passage { arrival, body, upgrade } = passage;
        let (current, assertion) = signed_in.unzip();
        let links = current.as_ref().and_then(|current| gateway.links_of(&arrival, current)).map(Box::new);
        let applicant = gateway.applicant(route, upstream, &arrival).map(Box::new);
        let Arrival { head, client, request_id, trace, .. } = *arrival;
        let asker = Asker { client, request_id, hints: ReaderHints::of(&head) };
        // Boxed: it is moved some times, and the future carries the room for it.
        let mut behind = Box::new(Behind { upstream: route.upstream, current, asker, applicant, links });
        let asks_plainly = behind.may_need_links();
        let stripped = match StrippedHead::of(head, gateway.config.carriers.reserved()) {
            Ok(stripped) if asks_plainly => stripped.adjusted(ask_plainly),
            Ok(stripped) => stripped,
            Err(StripError::ConnectionNamesProtected | StripError::Malformed) => {
                let failure = behind.failure(gateway, Reason::MalformedRequest);
                return Underway::answered(failure, (body, upgrade));
            }
        };
        gateway.metrics.headers_stripped(stripped.stripped() as u64);
        let mut call = trace.upstream(&upstream.name);
        let forwarded = Forwarded { client: &client, request_id: &request_id, call: &call };
        let request = stripped.with(assertion, &forwarded);
        let body = LimitedBody { body, most_bytes: route.body_bytes };
        match self.upstreams.begin(route.upstream, request, body, upgrade, behind.ends(gateway)) {
            Ok(exchange) => Underway::Sent(Sent { exchange, call, behind }),
            Err(NotBegun { error, unread }) => Underway::answered(behind.not_served(gateway, &mut call, error), unread),
        }
    }
}
