//! The PIN in a session: routes that ask for it, and what a right one changes.
//!
//! A right PIN gives the session a new token, in the way that the old one travelled, and the old one is dead at once.

use std::sync::Arc;
use std::time::Duration;

use http::Response;

use super::Gateway;
use super::arrival::Held;
use super::local_path::LocalPath;
use super::login::Entry;
use super::session_check::Current;
use super::to_the_end::to_the_end;
use super::url_session::{Delivery, Opened};
use super::visit::{Visit, query_value};
use crate::audit::{Action, Effect, Event, Outcome};
use crate::binding::{self, AccountId, BindingId, DigestError, Pin, PinError, RightPin};
use crate::body::Body;
use crate::carrier::CarrierName;
use crate::config::{Assurance, RouteConfig};
use crate::edge::ClientBody;
use crate::pages::{PIN_FIELD, Page, TO_FIELD};
use crate::refusal::Reason;
use crate::session::SessionSecret;
use crate::store::{PinPace, SERIES, StoreError};
use crate::telemetry::{self, Actor, PinOutcome, SecurityEvent};

impl Gateway {
    /// Whether the route asks for a PIN that was not typed in this session, or too long ago.
    pub(super) fn lacks_pin(&self, route: &RouteConfig, current: &Current, now: crate::clock::Timestamp) -> bool {
        route.assurance == Assurance::DevicePin && !current.has_pin(now, self.config.session.pin_for)
    }

    /// The page with the field for the PIN, on the way to `to`; where the account has none, the way to one.
    pub(super) async fn pin_page(
        &self,
        visit: &Visit<'_>,
        current: &Current,
        to: &LocalPath,
        reason: Reason,
    ) -> Response<Body> {
        let set = match self.pins.pin(&current.facts().account).await {
            Ok(pin) => pin.is_some(),
            Err(error) => return self.pin_unavailable(visit, Some(current), &error),
        };
        self.note_refusal(visit, reason);
        let page = Page::Pin {
            action: "/_sekisho/pin",
            form_token: &self.me_token(visit, current),
            to: to.as_str(),
            because: (reason != Reason::PinRequired).then_some(reason),
            code_url: &self.code_url(visit, to),
            set,
        };
        self.linked(visit, current, self.page(visit, reason.status(), &page))
    }

    /// `GET /_sekisho/pin`: the form was reloaded or bookmarked.
    pub(super) async fn pin_again(&self, visit: &Visit<'_>) -> Response<Body> {
        let to = LocalPath::parse(&query_value(visit.head, TO_FIELD).unwrap_or_default());
        match self.current(visit).await {
            Ok(current) => self.pin_page(visit, &current, &to, Reason::PinRequired).await,
            Err(answer) => *answer,
        }
    }

    /// `POST /_sekisho/pin`.
    pub(super) async fn enter_pin(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let (current, form) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        let to = LocalPath::parse(form.field(TO_FIELD));
        let typed = Pin::parse(form.field(PIN_FIELD));
        let record = current.facts();
        match self.judge_pin(visit, &record.account, record.binding, &record.carrier, typed).await {
            Ok(right) => self.step_up(visit, &current, &right, &to).await,
            Err(PinError::Wrong { .. }) => self.pin_page(visit, &current, &to, Reason::PinWrong).await,
            Err(PinError::None) => self.pin_page(visit, &current, &to, Reason::PinRequired).await,
            Err(error) => self.pin_refusal(visit, Some(&current), error),
        }
    }

    /// Judges a typed PIN; wrong ones are counted, and a series of them is told.
    pub(super) async fn judge_pin(
        &self,
        visit: &Visit<'_>,
        account: &AccountId,
        binding: BindingId,
        carrier: &CarrierName,
        typed: Option<Pin>,
    ) -> Result<RightPin, PinError> {
        self.slow_down(visit.client.address).await;
        let delay = self.limits.pin_slowdown(account);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let rate = self.config.limits.pin;
        let pace = PinPace { count: rate.count, period: rate.period };
        let now = self.clock.now();
        let (pins, keys, audit) = (Arc::clone(&self.pins), Arc::clone(&self.keys), Arc::clone(&self.audit));
        let whose = account.clone();
        // To its end: who hangs up must not have a series of tries that stands nowhere.
        let judged = tokio::spawn(async move {
            let judged = binding::try_pin(&*pins, &keys.pins, (&whose, binding), typed.as_ref(), pace, now).await;
            if let Err(PinError::Wrong { in_a_row }) = &judged
                && is_series(*in_a_row)
            {
                let event = Event::new(Action::PinTries, Actor::Handset).account(&whose).object(binding);
                let event = event.outcome(Outcome::Refused).effect(Effect::of(u64::from(*in_a_row)));
                audit.note(event, now).await?;
            }
            judged
        });
        let judged = judged.await.unwrap_or(Err(PinError::Store(StoreError::Closed)));
        if let Err(PinError::Wrong { in_a_row }) = &judged
            && is_series(*in_a_row)
        {
            let event = SecurityEvent::WrongPins { account, carrier, count: *in_a_row };
            telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
        }
        self.metrics.pin_try(outcome(&judged));
        judged
    }

    /// Lets the session go on under a new token, as one in which the right PIN was typed.
    async fn step_up(&self, visit: &Visit<'_>, current: &Current, right: &RightPin, to: &LocalPath) -> Response<Body> {
        let stepped = match visit.arrival.held() {
            Held::Cookie(cookie) => self.renew(current, cookie.token(), right).await,
            Held::Url(token) => self.renew(current, token, right).await,
            Held::Nothing | Held::Unusable => Ok(None),
        };
        let secret = match stepped {
            Ok(Some(secret)) => secret,
            // It was ended, or the PIN replaced, in this very moment.
            Ok(None) => return self.expired(visit),
            Err(error) => return self.pin_unavailable(visit, None, &error),
        };
        let record = current.facts();
        let event = SecurityEvent::SteppedUp { account: &record.account, carrier: &record.carrier };
        telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
        let delivery = if current.is_in_url() { Delivery::Url } else { Delivery::Cookie };
        self.enter(visit, &Entry::Session(Opened { secret, delivery, news: false }), to)
    }

    async fn renew(
        &self,
        current: &Current,
        token: &crate::session::SessionToken,
        right: &RightPin,
    ) -> Result<Option<SessionSecret>, StoreError> {
        let now = self.clock.now();
        let Some(secret) = self.sessions.step_up(current.session(), token, &*self.entropy, now).await? else {
            return Ok(None);
        };
        let (audit, record) = (Arc::clone(&self.audit), current.facts());
        if !self.is_still(right, &record.account).await? {
            self.sessions.end_one(secret.token().hash()).await?;
            return Ok(None);
        }
        let event = Event::new(Action::SessionStepUp, Actor::Handset).account(&record.account).object(record.id);
        to_the_end(async move { audit.note(event, now).await }).await?;
        Ok(Some(secret))
    }

    /// Whether the PIN that was right is the account's to this moment. Asked once the session has it: whoever replaces a PIN
    /// ends the sessions that have it, and found none yet between the try and that.
    pub(super) async fn is_still(&self, right: &RightPin, account: &AccountId) -> Result<bool, StoreError> {
        Ok(self.pins.pin(account).await?.is_some_and(|pin| pin.salt == right.salt()))
    }

    /// What a try that proved nothing is answered, where no form with a field comes back.
    pub(super) fn pin_refusal(&self, visit: &Visit<'_>, current: Option<&Current>, error: PinError) -> Response<Body> {
        let answer = match error {
            PinError::TooOften(wait) => self.refuse_for_now(visit, wait),
            PinError::Digest(DigestError::Busy) => self.refuse_for_now(visit, Duration::from_secs(1)),
            PinError::Digest(DigestError::KeySuspended) => self.refuse(visit, Reason::KeySuspended),
            PinError::None => self.refuse(visit, Reason::PinRequired),
            PinError::Wrong { .. } => self.refuse(visit, Reason::PinWrong),
            PinError::Store(error) => return self.pin_unavailable(visit, current, &error),
        };
        match current {
            Some(current) => self.linked(visit, current, answer),
            None => answer,
        }
    }

    pub(super) fn pin_unavailable(
        &self,
        visit: &Visit<'_>,
        current: Option<&Current>,
        error: &StoreError,
    ) -> Response<Body> {
        tracing::error!(%error, "a PIN could not be judged or kept");
        let answer = self.refuse(visit, Reason::StoreUnavailable);
        match current {
            Some(current) => self.linked(visit, current, answer),
            None => answer,
        }
    }
}

const fn is_series(in_a_row: u32) -> bool {
    in_a_row > 0 && in_a_row.is_multiple_of(SERIES)
}

fn outcome(judged: &Result<RightPin, PinError>) -> PinOutcome {
    match judged {
        Ok(_) => PinOutcome::Right,
        Err(PinError::Wrong { .. }) => PinOutcome::Wrong,
        Err(PinError::None) => PinOutcome::NotSet,
        Err(PinError::TooOften(_) | PinError::Digest(DigestError::Busy)) => PinOutcome::RateLimited,
        Err(PinError::Digest(DigestError::KeySuspended) | PinError::Store(_)) => PinOutcome::Failed,
    }
}
