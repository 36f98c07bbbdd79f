//! Setting, changing and removing the PIN.
//!
//! Who has one proves it by it, or by an enrolment code that the handset has just signed in with. The first one is set by
//! the handset itself, now or within the life of a form: a session alone sets none.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Gateway;
use super::form::Form;
use super::form_token;
use super::local_path::LocalPath;
use super::session_check::Current;
use super::visit::Visit;
use crate::assertion::AssertionCache;
use crate::audit::{Action, Effect, Event};
use crate::binding::{Pin, PinError};
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{AGAIN_FIELD, MeDone, OLD_PIN_FIELD, PIN_FIELD, Page, PinState, REMOVE_FIELD};
use crate::refusal::Reason;
use crate::session::{SessionId, Sessions};
use crate::store::{Over, PinRecord, StoreError};
use crate::telemetry::{self, Actor, SecurityEvent};

const PAGE: &str = "/_sekisho/me/pin";

/// Why the PIN is as it was, and its form comes back or something else does.
enum Unchanged {
    Form(Reason),
    Answer(Box<Response<Body>>),
}

impl Gateway {
    /// `GET /_sekisho/me/pin`.
    pub(super) async fn pin_form(&self, visit: &Visit<'_>) -> Response<Body> {
        match self.current(visit).await {
            Ok(current) => self.me_pin_page(visit, &current, None).await,
            Err(answer) => *answer,
        }
    }

    async fn me_pin_page(&self, visit: &Visit<'_>, current: &Current, because: Option<Reason>) -> Response<Body> {
        let record = current.facts();
        let pin = match self.pins.pin(&record.account).await {
            Ok(pin) => pin,
            Err(error) => return self.pin_unavailable(visit, Some(current), &error),
        };
        let state = match pin {
            None => PinState::None,
            Some(pin) if is_vouched_for(visit, current, &pin) => PinState::Forgotten,
            Some(pin) => PinState::Set(pin.set_at.day()),
        };
        let action = match visit.carrier.and_then(|profile| profile.required_query()) {
            Some((name, value)) => format!("{PAGE}?{name}={value}"),
            None => PAGE.to_owned(),
        };
        if let Some(reason) = because {
            self.note_refusal(visit, reason);
        }
        let page = Page::MePin {
            action: &action,
            form_token: &self.me_token(visit, current),
            state,
            because,
            code_url: &self.code_url(visit, &LocalPath::parse(PAGE)),
        };
        self.linked(visit, current, self.page(visit, because.map_or(StatusCode::OK, Reason::status), &page))
    }

    /// `POST /_sekisho/me/pin`.
    pub(super) async fn change_pin(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let (current, form) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        let changed = if form.field(REMOVE_FIELD).is_empty() {
            self.set_own_pin(visit, &current, &form).await
        } else {
            self.remove_own_pin(visit, &current, &form).await
        };
        match changed {
            Ok(done) => self.me_page(visit, &current, done).await,
            Err(Unchanged::Form(reason)) => self.me_pin_page(visit, &current, Some(reason)).await,
            Err(Unchanged::Answer(answer)) => *answer,
        }
    }

    async fn set_own_pin(
        &self,
        visit: &Visit<'_>,
        current: &Current,
        form: &Form,
    ) -> Result<Option<MeDone>, Unchanged> {
        // Before the old one is judged: what is mistyped costs no try.
        let pin = chosen(form).ok_or(Unchanged::Form(Reason::PinInvalid))?;
        let (over, had) = self.entitled(visit, current, form).await?;
        let record = current.facts();
        let entropy = &*self.entropy;
        let new = self.keys.pins.record(&record.account, &pin, entropy, visit.now).await;
        let new =
            new.map_err(|error| Unchanged::Answer(Box::new(self.pin_refusal(visit, Some(current), error.into()))))?;
        let action = if had { Action::PinChange } else { Action::PinSet };
        let (pins, sessions) = (Arc::clone(&self.pins), Arc::clone(&self.sessions));
        let (account, binding, own, now) = (record.account.clone(), record.binding, record.id, visit.now);
        let set = self.act(Event::new(action, Actor::Handset).account(&record.account), async move {
            let set = pins.set_pin(&account, new, over, binding).await?;
            if set {
                end_stepped_up(&sessions, &account, Some(own), now).await?;
            }
            Ok((set, Effect::of(u64::from(set))))
        });
        let set = set.await.map_err(|error| self.not_kept(visit, current, &error))?;
        if set {
            let event = SecurityEvent::PinSet { account: &record.account };
            telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
        }
        // Where it is another by now, the page shows what is there.
        Ok(set.then_some(MeDone::PinSet))
    }

    async fn remove_own_pin(
        &self,
        visit: &Visit<'_>,
        current: &Current,
        form: &Form,
    ) -> Result<Option<MeDone>, Unchanged> {
        let (over, had) = self.entitled(visit, current, form).await?;
        if !had {
            return Ok(None);
        }
        let record = current.facts();
        let (pins, sessions) = (Arc::clone(&self.pins), Arc::clone(&self.sessions));
        let (account, own, now) = (record.account.clone(), record.id, visit.now);
        let removed = self.act(Event::new(Action::PinRemove, Actor::Handset).account(&record.account), async move {
            let removed = pins.clear_pin(&account, over).await?;
            if removed {
                end_stepped_up(&sessions, &account, Some(own), now).await?;
            }
            Ok((removed, Effect::of(u64::from(removed))))
        });
        let removed = removed.await.map_err(|error| self.not_kept(visit, current, &error))?;
        if removed {
            let event = SecurityEvent::PinRemoved { account: &record.account, by: Actor::Handset };
            telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
        }
        Ok(removed.then_some(MeDone::PinRemoved))
    }

    /// What this person may set a PIN over, and whether there is one.
    async fn entitled(&self, visit: &Visit<'_>, current: &Current, form: &Form) -> Result<(Over, bool), Unchanged> {
        let record = current.facts();
        let there = self.pins.pin(&record.account).await;
        let Some(there) = there.map_err(|error| self.not_kept(visit, current, &error))? else {
            self.is_here(visit, current, PAGE).map_err(Unchanged::Answer)?;
            return Ok((Over::Nothing, false));
        };
        if is_vouched_for(visit, current, &there) {
            return Ok((Over::Of(there.salt), true));
        }
        let old = Pin::parse(form.field(OLD_PIN_FIELD));
        match self.judge_pin(visit, &record.account, record.binding, &record.carrier, old).await {
            Ok(right) => Ok((Over::Of(right.salt()), true)),
            Err(PinError::Wrong { .. }) => Err(Unchanged::Form(Reason::PinWrong)),
            Err(error) => Err(Unchanged::Answer(Box::new(self.pin_refusal(visit, Some(current), error)))),
        }
    }

    fn not_kept(&self, visit: &Visit<'_>, current: &Current, error: &StoreError) -> Unchanged {
        Unchanged::Answer(Box::new(self.pin_unavailable(visit, Some(current), error)))
    }
}

/// The PIN that was typed twice, if it may be one. A program without the second field does not mistype.
fn chosen(form: &Form) -> Option<Pin> {
    let pin = Pin::parse(form.field(PIN_FIELD)).filter(|pin| !pin.is_weak())?;
    let alike = form.given(AGAIN_FIELD).is_none_or(|again| Pin::parse(again).is_some_and(|again| pin.is(&again)));
    alike.then_some(pin)
}

/// Whether the operator's code opened this session, not long ago, and after `pin` was set: a code stands in for a PIN
/// that was forgotten, and once another is set it is used up.
fn is_vouched_for(visit: &Visit<'_>, current: &Current, pin: &PinRecord) -> bool {
    let record = current.facts();
    current.session().by_code()
        && pin.set_at < record.created_at
        && visit.now < record.created_at.plus(form_token::LIFETIME)
}

/// Ends the account's sessions in which a PIN was typed that is no longer its PIN; `but` goes on, whose person has just
/// shown who they are.
async fn end_stepped_up(
    sessions: &Sessions<AssertionCache>,
    account: &crate::binding::AccountId,
    but: Option<SessionId>,
    now: crate::clock::Timestamp,
) -> Result<(), StoreError> {
    for session in sessions.list(Some(account), now) {
        let facts = session.facts();
        if session.pin_at().is_some() && Some(facts.id) != but {
            sessions.end_one(facts.token_hash).await?;
        }
    }
    Ok(())
}
