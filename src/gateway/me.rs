//! Self-service: what is kept of the signed-in person, and how they end it.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Gateway;
use super::session_check::Current;
use super::to_the_end::to_the_end;
use super::visit::Visit;
use crate::audit::{Action, Effect, Event};
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{Me, MeBinding, MeDone, MeSession, Page};
use crate::refusal::Reason;
use crate::session::SessionId;
use crate::store::{BindingRecord, SessionScope, StoreError};
use crate::telemetry::{self, Actor, SecurityEvent};

impl Gateway {
    /// `GET /_sekisho/me`.
    pub(super) async fn me(&self, visit: &Visit<'_>) -> Response<Body> {
        match self.current(visit).await {
            Ok(current) => self.me_page(visit, &current, None).await,
            Err(answer) => *answer,
        }
    }

    pub(super) async fn me_page(&self, visit: &Visit<'_>, current: &Current, done: Option<MeDone>) -> Response<Body> {
        let own = current.facts();
        let bindings = match self.own_handsets(current).await {
            Ok(bindings) => bindings,
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        let sessions: Vec<MeSession> = self
            .sessions
            .list(Some(&own.account), visit.now)
            .into_iter()
            .map(|s| MeSession {
                id: s.facts().id.to_string(),
                carrier: s.facts().carrier.to_string(),
                created_at: s.facts().created_at,
                last_seen_at: s.last_seen_at(),
                this: s.facts().id == own.id,
            })
            .collect();
        let pin = match self.pins.pin(&own.account).await {
            Ok(pin) => pin,
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        let told = bindings.iter().find(|binding| binding.this).and_then(|binding| binding.told.as_deref());
        let me = Me {
            account: own.account.as_str(),
            bindings: &bindings,
            sessions: &sessions,
            form_token: &self.me_token(visit, current),
            retention_days: self.config.binding.retention_days,
            pin_set_on: pin.map(|pin| pin.set_at.day()),
            told,
            done,
        };
        let answer = self.page(visit, StatusCode::OK, &Page::Me(me));
        self.linked(visit, current, answer)
    }

    /// `POST /_sekisho/me/sessions/end`: ends one session of the person's own, or all.
    pub(super) async fn end_sessions(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let (current, form) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        let own = current.facts();
        let (scope, ends_this) = match form.field("session") {
            "" | "all" => (SessionScope::Account(own.account.clone()), true),
            text => {
                let id = SessionId::parse(text);
                let listed = self.sessions.list(Some(&own.account), visit.now);
                match id.filter(|id| listed.iter().any(|s| s.facts().id == *id)) {
                    Some(id) => (SessionScope::Id(own.account.clone(), id), id == own.id),
                    None => return self.me_page(visit, &current, None).await,
                }
            }
        };
        let deed = Event::new(Action::SessionsEnd, Actor::Handset).account(&own.account);
        let sessions = Arc::clone(&self.sessions);
        let ended = self.act(deed, async move {
            let count = sessions.end(scope).await?;
            Ok((count, Effect::of(count as u64)))
        });
        match ended.await {
            Ok(count) => {
                let event = SecurityEvent::SessionsEnded { account: Some(&own.account), count, by: Actor::Handset };
                telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
            }
            Err(error) => return self.me_unavailable(visit, &current, &error),
        }
        if ends_this { self.signed_out(visit) } else { self.me_page(visit, &current, Some(MeDone::SessionEnded)).await }
    }

    /// Does what a person asked for, and writes it into the audit trail before and after.
    pub(super) async fn act<T: Send + 'static>(
        &self,
        deed: Event,
        work: impl Future<Output = Result<(T, Effect), StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (audit, clock) = (Arc::clone(&self.audit), Arc::clone(&self.clock));
        to_the_end(async move { audit.act(deed, &*clock, work).await }).await
    }

    pub(super) fn me_unavailable(&self, visit: &Visit<'_>, current: &Current, error: &StoreError) -> Response<Body> {
        tracing::error!(%error, "the me page could not be served");
        self.linked(visit, current, self.refuse(visit, Reason::StoreUnavailable))
    }
}

/// One of the person's bindings, as they may see it.
pub(super) fn own_binding(binding: &BindingRecord, current: &Current) -> MeBinding {
    MeBinding {
        id: binding.id.to_string(),
        carrier: binding.carrier.to_string(),
        bound_on: binding.bound_on,
        last_used_on: binding.last_used_on,
        label: None,
        told: None,
        this: binding.id == current.facts().binding,
    }
}
