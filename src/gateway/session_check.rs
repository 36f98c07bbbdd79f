//! The session that a request carries: found by its cookie or its URL, held to the device that opened it.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::arrival::{Arrival, Held};
use super::to_the_end::to_the_end;
use super::url_session::is_shown;
use crate::assertion::AssertionCache;
use crate::audit::{Action, Event, Outcome};
use crate::carrier::IdentificationRefusal;
use crate::clock::Timestamp;
use crate::refusal::Reason;
use crate::session::{Check, LiveSession, SessionEnd, SessionFacts, TokenHash};
use crate::store::TokenTransport;
use crate::telemetry::{self, Actor, SecurityEvent};

/// A live session of this very device, as one request carries it.
pub(super) struct Current {
    session: Arc<LiveSession<AssertionCache>>,
    transport: TokenTransport,
}

impl Current {
    pub(super) fn facts(&self) -> &SessionFacts {
        self.session.facts()
    }

    /// Whether its PIN was typed in it, and still counts.
    pub(super) fn has_pin(&self, now: Timestamp, counts_for: Duration) -> bool {
        // Typed in the future: the clock was set back.
        self.session.pin_at().is_some_and(|at| at <= now && now.since(at) < counts_for)
    }

    /// The session itself.
    pub(super) fn session(&self) -> &LiveSession<AssertionCache> {
        &self.session
    }

    /// What is kept with it of assertions.
    pub(super) fn state(&self) -> &AssertionCache {
        self.session.state()
    }

    /// Its end.
    pub(super) fn end(&self) -> &Arc<SessionEnd> {
        self.session.end()
    }

    /// Whether this request brought it in its URL, so that the links of the answer must.
    pub(super) fn is_in_url(&self) -> bool {
        self.transport == TokenTransport::Url
    }
}

/// What a request says of a session.
pub(super) enum Presented {
    /// Nothing, or a URL from which the identifier is missing that would tell its owner from who found it.
    Nothing,
    /// A live session whose device matches.
    Live(Current),
    /// A cookie or token that stands for no live session.
    Ended,
    /// A live session on another device, or fields that cannot be judged; it must not go on.
    Refused(Reason),
}

/// What was found of it without asking the store.
pub(super) enum Found {
    /// All that there is to say.
    Presented(Presented),
    /// A live session of this device, whose cookie came back for the first time.
    Unsettled(Arc<LiveSession<AssertionCache>>),
    /// A live session of another device.
    Mismatched(Arc<LiveSession<AssertionCache>>, TokenHash),
}

impl Gateway {
    /// Looks the request's session up and holds it to its device.
    ///
    /// The source address must lie in the session's carrier, whatever it is proxied through, and an identifier that
    /// is present must be the one that signed in; of a URL it must be present wherever it can be (`interface.md` §4). A
    /// mismatch ends the session.
    pub(super) async fn presented_session(&self, arrival: &Arrival) -> Presented {
        match self.looked_up(arrival) {
            Found::Presented(presented) => presented,
            // Boxed, what most requests need not wait for: each would carry the room for it.
            found @ (Found::Unsettled(_) | Found::Mismatched(..)) => Box::pin(self.presented(found, arrival)).await,
        }
    }

    /// What comes of what was found.
    pub(super) async fn presented(&self, found: Found, arrival: &Arrival) -> Presented {
        match found {
            Found::Presented(presented) => presented,
            Found::Unsettled(session) => self.settled(session).await,
            Found::Mismatched(session, hash) => {
                self.end_mismatched(Arc::clone(&session), hash, arrival.now).await;
                let SessionFacts { account, carrier, .. } = session.facts();
                let event = SecurityEvent::DeviceMismatch { account, carrier };
                telemetry::security(&event, Some(arrival.client.address), self.config.privacy.client_address);
                Presented::Refused(Reason::SessionDeviceMismatch)
            }
        }
    }

    /// Looks the request's session up, and holds it to its device as far as the store need not be asked.
    pub(super) fn looked_up(&self, arrival: &Arrival) -> Found {
        let Arrival { head, client, now, .. } = arrival;
        let (token, hash, transport) = match arrival.held() {
            Held::Nothing => return Found::Presented(Presented::Nothing),
            Held::Unusable => return Found::Presented(Presented::Ended),
            Held::Cookie(cookie) => (cookie.token(), cookie.hash(), TokenTransport::Cookie),
            Held::Url(token) => (token, token.hash(), TokenTransport::Url),
        };
        let Check::Live(session) = self.sessions.check(hash, transport, *now) else {
            return Found::Presented(Presented::Ended);
        };
        let facts = session.facts();
        let profile = self.config.carriers.match_source(client).filter(|profile| profile.name() == &facts.carrier);
        let same_device = match (profile, self.config.carriers.presented(head, &facts.carrier)) {
            (None, _) | (Some(_), Err(IdentificationRefusal::CarrierMismatch)) => false,
            (Some(profile), Ok(None)) => {
                if transport == TokenTransport::Url && is_shown(profile, client.scheme) {
                    return Found::Presented(Presented::Nothing);
                }
                true
            }
            (Some(_), Ok(Some(identifier))) => session.same_device(token, &identifier),
            // Fields that cannot be judged say nothing about the device: the request is refused, the session stays.
            (Some(_), Err(refusal)) => return Found::Presented(Presented::Refused(refusal.into())),
        };
        if !same_device {
            return Found::Mismatched(session, hash);
        }
        session.note_use(*now);
        if transport == TokenTransport::Cookie && session.transport() == TokenTransport::Url {
            return Found::Unsettled(session);
        }
        Found::Presented(Presented::Live(Current { session, transport }))
    }

    async fn end_mismatched(&self, session: Arc<LiveSession<AssertionCache>>, hash: TokenHash, now: Timestamp) {
        let (sessions, audit) = (Arc::clone(&self.sessions), Arc::clone(&self.audit));
        let work = to_the_end(async move {
            let ended = sessions.end_one(hash).await;
            // Of requests at once one ends it.
            if ended == Ok(false) {
                return Ok(());
            }
            let SessionFacts { account, id, .. } = session.facts();
            let outcome = if ended.is_ok() { Outcome::Done } else { Outcome::Failed };
            let event = Event::new(Action::SessionDeviceMismatch, Actor::Handset).account(account).object(id);
            audit.note(event.outcome(outcome), now).await?;
            ended.map(drop)
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "a session of another device was not ended, or not noted; its request was refused");
        }
    }

    /// A browser that brought the cookie keeps cookies: what its URLs hold is worth nothing from now on.
    async fn settled(&self, session: Arc<LiveSession<AssertionCache>>) -> Presented {
        if let Err(error) = self.sessions.keep_in_cookie(&session).await {
            tracing::error!(%error, "a session could not be kept in its cookie; its request was refused");
            return Presented::Refused(Reason::StoreUnavailable);
        }
        Presented::Live(Current { session, transport: TokenTransport::Cookie })
    }
}
