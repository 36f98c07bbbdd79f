//! Adding a handset: a code for the person's own account, shown once on a handset that is bound to it.
//!
//! A session alone gets none: it has to be the handset itself, now or within the life of a form, and who has a PIN types it,
//! also in a session in which it was typed before. The code adds a handset and vouches for nothing else: it stands in for no
//! forgotten PIN, as one of the operator's does.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Gateway;
use super::form::Form;
use super::local_path::LocalPath;
use super::session_check::Current;
use super::visit::Visit;
use crate::audit::{Action, Effect, Event};
use crate::binding::{self, Pin, PinError};
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{PIN_FIELD, Page};
use crate::refusal::Reason;
use crate::telemetry::{self, Actor, SecurityEvent};

const PAGE: &str = "/_sekisho/me/add";

impl Gateway {
    /// `GET /_sekisho/me/add`.
    pub(super) async fn add_form(&self, visit: &Visit<'_>) -> Response<Body> {
        match self.current(visit).await {
            Ok(current) => self.add_page(visit, &current, None).await,
            Err(answer) => *answer,
        }
    }

    async fn add_page(&self, visit: &Visit<'_>, current: &Current, because: Option<Reason>) -> Response<Body> {
        let asks_pin = match self.pins.pin(&current.facts().account).await {
            Ok(pin) => pin.is_some(),
            Err(error) => return self.pin_unavailable(visit, Some(current), &error),
        };
        let action = match visit.carrier.and_then(|profile| profile.required_query()) {
            Some((name, value)) => format!("{PAGE}?{name}={value}"),
            None => PAGE.to_owned(),
        };
        if let Some(reason) = because {
            self.note_refusal(visit, reason);
        }
        let page = Page::Add {
            action: &action,
            form_token: &self.me_token(visit, current),
            asks_pin,
            because,
            code_url: &self.code_url(visit, &LocalPath::parse(PAGE)),
        };
        self.linked(visit, current, self.page(visit, because.map_or(StatusCode::OK, Reason::status), &page))
    }

    /// `POST /_sekisho/me/add`: issues the code.
    pub(super) async fn add_handset(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let (current, form) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        if let Err(answer) = self.is_here(visit, &current, PAGE) {
            return *answer;
        }
        match self.proven_by_pin(visit, &current, &form).await {
            Ok(()) => {}
            Err(PinError::Wrong { .. }) => return self.add_page(visit, &current, Some(Reason::PinWrong)).await,
            Err(error) => return self.pin_refusal(visit, Some(&current), error),
        }
        if let Err(too_often) = self.limits.code_for(&current.facts().account) {
            return self.linked(visit, &current, self.refuse_for_now(visit, too_often.retry_after));
        }
        self.issue_own_code(visit, &current).await
    }

    /// Whether the PIN was typed right, where there is one. None was set, or taken away meanwhile: nothing to prove.
    async fn proven_by_pin(&self, visit: &Visit<'_>, current: &Current, form: &Form) -> Result<(), PinError> {
        let record = current.facts();
        if self.pins.pin(&record.account).await?.is_none() {
            return Ok(());
        }
        let typed = Pin::parse(form.field(PIN_FIELD));
        match self.judge_pin(visit, &record.account, record.binding, &record.carrier, typed).await {
            Ok(_) | Err(PinError::None) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn issue_own_code(&self, visit: &Visit<'_>, current: &Current) -> Response<Body> {
        let (account, by) = (current.facts().account.clone(), Actor::Handset);
        let bound = match self.bindings.bindings(Some(&account)).await {
            Ok(bound) => bound.len(),
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        if u32::try_from(bound).is_ok_and(|bound| bound >= self.config.binding.per_account) {
            return self.linked(visit, current, self.refuse(visit, Reason::BindingLimit));
        }
        let Ok(session_keys) = self.keys.session() else {
            return self.linked(visit, current, self.refuse(visit, Reason::KeySuspended));
        };
        let deed = Event::new(Action::CodeIssue, by).account(&account).object(current.facts().binding);
        let (bindings, entropy, now) = (Arc::clone(&self.bindings), Arc::clone(&self.entropy), self.clock.now());
        let (whose, asked_by) = (account.clone(), Some(current.facts().binding));
        let issued = self.act(deed, async move {
            let issued = binding::issue_code(&*bindings, &session_keys, whose, asked_by, &*entropy, now).await?;
            let count = u64::from(issued.is_some());
            Ok((issued, Effect::of(count)))
        });
        let (code, expires_at) = match issued.await {
            Ok(Some(issued)) => issued,
            // Suspended, or this handset removed, in this very moment.
            Ok(None) => return self.expired(visit),
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        self.metrics.code_issued();
        let event = SecurityEvent::CodeIssued { account: &account, by };
        telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
        let page = Page::Added { code: &code.expose_grouped(), expires_at, url: &self.issuer };
        self.linked(visit, current, self.page(visit, StatusCode::OK, &page))
    }
}
