//! The hand-over to TLS: what a handset proved in the clear becomes a ticket, and the ticket a session over TLS.
//!
//! Where `public_url` is https, the identifier of most carriers exists only in plain HTTP, while sessions live over TLS
//! alone (`interface.md` §4). So signing in on the plain listener opens nothing: it answers with a URL that serves once,
//! within [`LIFETIME`], and only from the networks of the carrier that the identifier came from. The session token is
//! made beforehand, because the continuity tag needs the identifier, and waits here; it never travels in the clear.
//!
//! Tickets are kept by this process alone, like form tokens: a restart spends them, and their person clicks again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use http::Response;
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::Gateway;
use super::limits::HandsetKey;
use super::local_path::LocalPath;
use super::login::Entry;
use super::unlock::Locked;
use super::visit::{Visit, is_prefetch, query_value};
use crate::body::Body;
use crate::carrier::{CarrierName, OverTls};
use crate::clock::Timestamp;
use crate::edge::Scheme;
use crate::entropy::{Entropy, random};
use crate::refusal::Reason;
use crate::session::Opening;

/// How long a ticket may be on its way.
pub(super) const LIFETIME: Duration = Duration::from_mins(1);

/// 192 random bits.
const BYTES: usize = 24;

/// A ticket, in clear: on its way through the browser, kept nowhere.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub(super) struct Ticket(Zeroizing<String>);

impl Ticket {
    /// The clear ticket. Every use is a place to review.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// What was handed over, and to whom.
struct Pending<T> {
    what: T,
    carrier: CarrierName,
    expires: Timestamp,
}

/// The tickets that were issued and not yet presented, by their hash. Each stands for one `T`.
pub(super) struct Tickets<T> {
    pending: DashMap<[u8; 32], Pending<T>>,
    lifetime: Duration,
}

impl<T> Tickets<T> {
    /// None yet; each will serve for so long.
    pub(super) fn lasting(lifetime: Duration) -> Self {
        Self { pending: DashMap::default(), lifetime }
    }

    /// A ticket for `what`, to be presented from the networks of `carrier`.
    pub(super) fn issue(&self, what: T, carrier: CarrierName, entropy: &dyn Entropy, now: Timestamp) -> Ticket {
        let bytes = Zeroizing::new(random::<BYTES>(entropy));
        let ticket = Ticket(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())));
        self.pending.insert(hash(ticket.expose()), Pending { what, carrier, expires: now.plus(self.lifetime) });
        ticket
    }

    /// Spends a ticket. Who presents it late, or from another carrier, has spent it too: it left its handset's hands.
    pub(super) fn redeem(&self, text: &str, carrier: Option<&CarrierName>, now: Timestamp) -> Option<T> {
        let (_, pending) = self.pending.remove(&hash(text))?;
        (now < pending.expires && carrier == Some(&pending.carrier)).then_some(pending.what)
    }

    /// Forgets tickets that have expired by now.
    pub(super) fn sweep(&self, now: Timestamp) {
        self.pending.retain(|_, pending| now < pending.expires);
    }
}

/// A session that is to be opened over TLS; nothing of it is open yet.
pub(super) enum SignIn {
    /// Of a handset that was recognised or bound.
    Bound(Opening, HandsetKey),
    /// Of one that has to give its PIN first.
    Locked(Locked),
}

fn hash(ticket: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, ticket.as_bytes()).as_ref());
    out
}

impl Gateway {
    /// Whether a sign-in that came this way ends in a ticket: sessions live over TLS, and this is in the clear.
    pub(super) fn hands_over(&self, scheme: Scheme) -> bool {
        self.config.gateway.public_url.https && scheme == Scheme::Http
    }

    /// What stands before the path of a form that needs this visitor's identifier: `plain_url`, where TLS would hide it.
    pub(super) fn identifying_origin(&self, visit: &Visit<'_>) -> &str {
        let hidden = visit.carrier.is_some_and(|profile| profile.over_tls() == OverTls::Refuse);
        let [_, plain] = &self.own_origins;
        if self.config.gateway.public_url.https && hidden { plain } else { "" }
    }

    /// A ticket for the session that `opening` would be.
    pub(super) fn hand_over(&self, opening: Opening, handset: HandsetKey) -> Entry {
        let carrier = opening.carrier.clone();
        Entry::Ticket(self.tickets.issue(SignIn::Bound(opening, handset), carrier, &*self.entropy, self.clock.now()))
    }

    /// Where a ticket is redeemed.
    pub(super) fn ticket_url(&self, ticket: &Ticket, to: &LocalPath) -> Zeroizing<String> {
        Zeroizing::new(format!("{}/_sekisho/ticket?k={}&to={}", self.issuer, ticket.expose(), to.as_query_value()))
    }

    /// `GET /_sekisho/ticket`: opens the session that was signed in for on the plain listener.
    pub(super) async fn redeem_ticket(&self, visit: &Visit<'_>) -> Response<Body> {
        let to = LocalPath::parse(&query_value(visit.head, "to").unwrap_or_default());
        // A browser that fetches ahead must not spend what its person is about to follow.
        let presented = query_value(visit.head, "k").filter(|_| !is_prefetch(visit.head)).map(Zeroizing::new);
        let carrier = visit.carrier.map(|profile| profile.name());
        let redeemed = presented.and_then(|ticket| self.tickets.redeem(&ticket, carrier, self.clock.now()));
        let (opening, handset) = match redeemed {
            Some(SignIn::Bound(opening, handset)) => (opening, handset),
            Some(SignIn::Locked(locked)) => return self.locked_page(visit, &to, locked, Reason::PinRequired),
            None => return self.sign_in_page(visit, &to, Reason::TicketInvalid),
        };
        match self.open_here(visit, opening, handset).await {
            Ok(opened) => self.enter(visit, &Entry::Session(opened), &to),
            Err(error) => self.sign_in_refusal(visit, &to, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;

    assert_not_impl_any!(Ticket: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
}
