//! The session that a request carries: found by its cookie, held to the device that opened it.

use std::sync::Arc;

use super::Gateway;
use super::url_session::{must_show_identifier, token_in_url};
use crate::assertion::AssertionCache;
use crate::carrier::IdentificationRefusal;
use crate::clock::Timestamp;
use crate::edge::{Client, RawHead};
use crate::links::UrlTokens;
use crate::refusal::Reason;
use crate::session::{Check, CookiePresence, LiveSession, SessionCookie};
use crate::telemetry::{self, SecurityEvent};

/// A live session of this very device.
pub(super) type Current = Arc<LiveSession<AssertionCache>>;

/// What a request says of a session.
pub(super) enum Presented {
    /// Nothing.
    Nothing,
    /// A live session whose device matches.
    Live(Current),
    /// A cookie that stands for no live session.
    Ended,
    /// A live session on another device, or fields that cannot be judged; it must not go on.
    Refused(Reason),
}

impl Gateway {
    /// Looks the request's session up and holds it to its device.
    ///
    /// The source address must lie in the session's carrier, whatever it is proxied through, and an identifier that
    /// is present must be the one that signed in (`interface.md` §4). A mismatch ends the session.
    pub(super) async fn presented_session(&self, head: &RawHead, client: &Client, now: Timestamp) -> Presented {
        let (token, by_url) = match SessionCookie::of(client.scheme).find(head) {
            CookiePresence::Absent => match token_in_url(head, client) {
                UrlTokens::None => return Presented::Nothing,
                UrlTokens::One(Some(token)) => (token, true),
                UrlTokens::One(None) | UrlTokens::Several => return Presented::Ended,
            },
            CookiePresence::Unusable => return Presented::Ended,
            CookiePresence::Token(token) => (token, false),
        };
        let hash = token.hash();
        let Check::Live(session) = self.sessions.check(hash, now) else { return Presented::Ended };
        if !session.travels(by_url) {
            // A cookie's token in a URL: somebody copied it there, and it is worth nothing.
            return Presented::Ended;
        }
        let record = session.record();
        let carrier = self.config.carriers.match_source(client);
        let in_network = carrier.is_some_and(|profile| profile.name() == &record.carrier);
        let must_show = by_url && must_show_identifier(carrier, client.scheme);
        let same_device = in_network
            && match self.config.carriers.presented(head, &record.carrier) {
                // A URL is easily passed on; without the handset it opens nothing, and without a word it ends nothing.
                Ok(None) if must_show => return Presented::Nothing,
                Ok(None) => true,
                Ok(Some(identifier)) => session.same_device(&token, &identifier),
                Err(IdentificationRefusal::CarrierMismatch) => false,
                // Fields that cannot be judged say nothing about the device: the request is refused, the session stays.
                Err(refusal) => return Presented::Refused(refusal.into()),
            };
        if same_device {
            return Presented::Live(session);
        }
        if let Err(error) = self.sessions.end_one(hash).await {
            tracing::error!(%error, "a session of another device could not be ended; its request was refused");
        }
        let event = SecurityEvent::DeviceMismatch { account: &record.account, carrier: &record.carrier };
        telemetry::security(&event, Some(client.address), self.config.privacy.client_address);
        Presented::Refused(Reason::SessionDeviceMismatch)
    }
}
