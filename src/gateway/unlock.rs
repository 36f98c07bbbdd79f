//! Signing in by a handset whose binding is under a key that has leaked: its PIN is asked for first (`rotation.md` §3).
//!
//! Nothing is open meanwhile. What the click proved waits here under a ticket that is in the page's form and serves once;
//! the right PIN takes the record off the leaked key and opens the session. Over TLS, where that is where sessions live:
//! no PIN is typed in the clear under an https `public_url`.

use std::fmt;

use http::{Response, StatusCode};

use super::Gateway;
use super::form::Form;
use super::limits::HandsetKey;
use super::local_path::LocalPath;
use super::login::{Entry, opening};
use super::ticket::SignIn;
use super::url_session::is_shown;
use super::visit::Visit;
use crate::binding::{Pin, PinError, Unproven};
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{FORM_TOKEN_FIELD, PIN_FIELD, Page, TO_FIELD};
use crate::refusal::Reason;
use crate::session::{Opening, SessionSecret};

/// A sign-in that waits for its PIN. Deliberately absent: `Display`, `Clone`, `Serialize`, and anything to be seen in
/// `Debug`.
pub(super) struct Locked {
    pub(super) unproven: Unproven,
    pub(super) secret: SessionSecret,
    pub(super) continuity: [u8; 32],
    pub(super) handset: HandsetKey,
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(..)")
    }
}

impl Gateway {
    /// Asks for the PIN: here, or over TLS where sessions live there.
    pub(super) fn ask_pin(&self, visit: &Visit<'_>, to: &LocalPath, locked: Locked) -> Response<Body> {
        if !self.hands_over(visit.client.scheme) {
            return self.locked_page(visit, to, locked, Reason::PinRequired);
        }
        self.note_refusal(visit, Reason::PinRequired);
        let (carrier, now) = (locked.unproven.carrier().clone(), self.clock.now());
        let ticket = self.tickets.issue(SignIn::Locked(locked), carrier, &*self.entropy, now);
        self.redirect_to(StatusCode::FOUND, &self.ticket_url(&ticket, to), visit.client.scheme)
    }

    /// The page with the field for the PIN.
    pub(super) fn locked_page(
        &self,
        visit: &Visit<'_>,
        to: &LocalPath,
        locked: Locked,
        reason: Reason,
    ) -> Response<Body> {
        let shown = visit.carrier.filter(|profile| is_shown(profile, visit.client.scheme));
        let action = match shown.and_then(|profile| profile.required_query()) {
            Some((name, value)) => format!("/_sekisho/unlock?{name}={value}"),
            None => "/_sekisho/unlock".to_owned(),
        };
        let carrier = locked.unproven.carrier().clone();
        let ticket = self.locked.issue(locked, carrier, &*self.entropy, self.clock.now());
        self.note_refusal(visit, reason);
        let page = Page::Pin {
            action: &action,
            form_token: ticket.expose(),
            to: to.as_str(),
            because: (reason != Reason::PinRequired).then_some(reason),
            code_url: &self.code_url(visit, to),
            set: true,
        };
        self.page(visit, reason.status(), &page)
    }

    /// `POST /_sekisho/unlock`.
    pub(super) async fn unlock(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let form = match Form::read(self, visit, body).await {
            Ok(form) => form,
            Err(reason) => return self.refuse(visit, reason),
        };
        let to = LocalPath::parse(form.field(TO_FIELD));
        let carrier = visit.carrier.map(|profile| profile.name());
        let Some(locked) = self.locked.redeem(form.field(FORM_TOKEN_FIELD), carrier, self.clock.now()) else {
            return self.sign_in_page(visit, &to, Reason::FormTokenInvalid);
        };
        if let Err(reason) = self.is_same(visit, &locked) {
            return self.refuse(visit, reason);
        }
        let unproven = &locked.unproven;
        let typed = Pin::parse(form.field(PIN_FIELD));
        let judged = self.judge_pin(visit, unproven.account(), unproven.binding(), unproven.carrier(), typed).await;
        let right = match judged {
            Ok(right) => right,
            Err(PinError::Wrong { .. }) => return self.locked_page(visit, &to, locked, Reason::PinWrong),
            // It was taken away meanwhile: a code is what is left.
            Err(PinError::None) => return self.sign_in_page(visit, &to, Reason::SignInRequired),
            Err(error) => return self.pin_refusal(visit, None, error),
        };
        let Locked { unproven, secret, continuity, handset } = locked;
        let now = self.clock.now();
        let bound = match unproven.prove(&right, &*self.bindings, &self.keys.binding, now).await {
            Ok(Some(bound)) => bound,
            // Another key is active by now: the handset has to be read again.
            Ok(None) => return self.sign_in_page(visit, &to, Reason::SignInRequired),
            Err(error) => return self.pin_refusal(visit, None, error),
        };
        let account = bound.account().clone();
        let opening = Opening { pin_at: Some(now), ..opening(bound, secret, continuity) };
        let opened = match self.open_here(visit, opening, handset).await {
            Ok(opened) => opened,
            Err(error) => return self.sign_in_refusal(visit, &to, error),
        };
        match self.is_still(&right, &account).await {
            Ok(true) => self.enter(visit, &Entry::Session(opened), &to),
            still => {
                if let Err(error) = still.and(self.sessions.end_one(opened.secret.token().hash()).await) {
                    return self.pin_unavailable(visit, None, &error);
                }
                self.sign_in_page(visit, &to, Reason::SessionExpired)
            }
        }
    }

    /// Whether the form comes from the handset that clicked, as far as its identifier can be seen here.
    fn is_same(&self, visit: &Visit<'_>, locked: &Locked) -> Result<(), Reason> {
        let shown = visit.carrier.is_some_and(|profile| is_shown(profile, visit.client.scheme));
        match self.config.carriers.presented(visit.head, locked.unproven.carrier()) {
            Ok(Some(identifier)) => {
                let continuity = Opening::continuity_of(&locked.secret, &identifier);
                let same: bool = subtle::ConstantTimeEq::ct_eq(continuity.as_slice(), &locked.continuity).into();
                if same { Ok(()) } else { Err(Reason::SessionDeviceMismatch) }
            }
            Ok(None) if shown => Err(Reason::MissingIdentifier),
            Ok(None) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
