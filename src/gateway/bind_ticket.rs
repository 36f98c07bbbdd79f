//! Console-driven enrolment under an https `public_url`: the login comes over TLS, where the identifier is not.
//!
//! The console's answer becomes a redirect to `plain_url` with a ticket that stands for its claim; there the handset is
//! identified and bound, and a second ticket opens its session over TLS. What the console set of its own cookies goes
//! with the redirect.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{Response, StatusCode};
use zeroize::Zeroizing;

use super::Gateway;
use super::console::{NotBound, Withheld};
use super::local_path::{LocalPath, Room};
use super::respond::retry_after_in;
use super::visit::{Visit, query_value};
use crate::binding::AccountId;
use crate::body::Body;
use crate::carrier::{OverTls, Profile};
use crate::edge::{Client, Scheme};
use crate::refusal::Reason;
use crate::telemetry::BindOutcome;

/// What an upstream that may bind said: whose handset sent the login.
pub(super) struct Claimed {
    pub(super) account: AccountId,
    /// Its name.
    pub(super) upstream: String,
}

impl Gateway {
    /// The profile of a client over TLS whose identifier is read in the clear.
    pub(super) fn identified_in_the_clear(&self, client: &Client) -> Option<&Arc<Profile>> {
        let over_tls = self.config.gateway.public_url.https && client.scheme == Scheme::Https;
        self.config.carriers.match_source(client).filter(|profile| over_tls && profile.over_tls() == OverTls::Refuse)
    }

    /// Sends the browser to where its handset can be identified, with a ticket for what the console claimed.
    pub(super) fn to_bind_ticket(
        &self,
        claimed: Claimed,
        profile: &Profile,
        answer: &Response<Body>,
        client: &Client,
    ) -> Response<Body> {
        let ticket = self.bind_tickets.issue(claimed, profile.name().clone(), &*self.entropy, self.clock.now());
        let asked = profile.required_query();
        let [own, plain] = &self.own_origins;
        let to = self.place_in(answer).within(Room::of_a_console(own.len().max(plain.len()), asked));
        let mut url = Zeroizing::new(format!("{plain}/_sekisho/bind?k={}&to={}", ticket.expose(), to.as_query_value()));
        if let Some((name, value)) = asked {
            url = Zeroizing::new(format!("{}&{name}={value}", *url));
        }
        let mut redirect = self.redirect_to(StatusCode::FOUND, &url, client.scheme);
        for cookie in answer.headers().get_all(SET_COOKIE) {
            redirect.headers_mut().append(SET_COOKIE, cookie.clone());
        }
        redirect
    }

    /// Where the console wanted the browser to go, if that is a place of its own; else its first page.
    fn place_in(&self, answer: &Response<Body>) -> LocalPath {
        let location = answer.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.unwrap_or_default();
        LocalPath::parse(location.strip_prefix(&self.issuer).unwrap_or(location))
    }

    /// `GET /_sekisho/bind`, in the clear: binds the handset that a console spoke of, and sends it back to TLS.
    pub(super) async fn redeem_bind_ticket(&self, visit: &Visit<'_>) -> Response<Body> {
        let to = LocalPath::parse(&query_value(visit.head, "to").unwrap_or_default());
        // A page elsewhere, and a browser that fetches ahead, must not spend what its person is about to follow.
        let followed = self.hands_over(visit.client.scheme) && self.is_own_click(visit);
        let presented = query_value(visit.head, "k").filter(|_| followed).map(Zeroizing::new);
        let carrier = visit.carrier.map(|profile| profile.name());
        let claimed = presented.and_then(|ticket| self.bind_tickets.redeem(&ticket, carrier, self.clock.now()));
        let Some(Claimed { account, upstream }) = claimed else {
            return self.sign_in_page(visit, &to, Reason::TicketInvalid);
        };
        let identifier = match self.config.carriers.identify(visit.head, &visit.client) {
            Ok(identifier) => identifier,
            Err(refusal) => {
                self.note_not_bound(BindOutcome::NotIdentified, &upstream, Some(&account), &visit.client);
                return self.refuse(visit, refusal.into());
            }
        };
        let handset = self.limits.handset_key(&identifier);
        match self.bind_claimed(identifier, account.clone(), &visit.client).await {
            Ok((opening, outcome)) => {
                self.metrics.bound_by_console(outcome);
                self.enter(visit, &self.hand_over(opening, handset), &to)
            }
            // As without TLS: what the console answered stands, without a session.
            Err(NotBound::Passes(outcome)) => {
                self.note_not_bound(outcome, &upstream, Some(&account), &visit.client);
                let url = format!("{}{}", self.issuer, to.as_str());
                self.redirect_to(StatusCode::FOUND, &url, visit.client.scheme)
            }
            Err(NotBound::Withheld(outcome, Withheld { reason, retry_after })) => {
                self.note_not_bound(outcome, &upstream, Some(&account), &visit.client);
                retry_after_in(self.refuse(visit, reason), retry_after)
            }
        }
    }
}
