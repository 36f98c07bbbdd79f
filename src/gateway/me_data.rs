//! What a person may ask for, on their own handset: a copy of their data, names of handsets, a stop, the erasure of everything.
//!
//! Erasure and stop ask first, and count only from the handset itself, as the removal of a handset does.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::Value;

use super::Gateway;
use super::me::own_binding;
use super::session_check::Current;
use super::visit::{Visit, query_value};
use crate::audit::{Action, Effect, Event};
use crate::binding::{AccountState, BindingId, Label};
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{BINDING_FIELD, DataAct, DataDone, LABEL_FIELD, Language, MeBinding, MyData, Page, SURE_FIELD};
use crate::privacy::{SubjectError, Tongue};
use crate::refusal::Reason;
use crate::store::{SessionScope, StoreError};
use crate::telemetry::{self, Actor, SecurityEvent};

impl Gateway {
    /// `GET /_sekisho/me/export`: everything that is kept, in the person's language.
    pub(super) async fn export_own(&self, visit: &Visit<'_>) -> Response<Body> {
        let current = match self.current(visit).await {
            Ok(current) => current,
            Err(answer) => return *answer,
        };
        let tongue = match visit.reader.language {
            Language::Japanese => Tongue::Japanese,
            Language::English => Tongue::English,
        };
        match self.promises.subjects.export(&current.facts().account, tongue, Actor::Handset).await {
            Ok(document) => self.page(visit, StatusCode::OK, &Page::Document(&document)),
            Err(error) => self.subject_refused(visit, &current, &error),
        }
    }

    /// `GET /_sekisho/me/data`: names of handsets, and the stop.
    pub(super) async fn my_data(&self, visit: &Visit<'_>) -> Response<Body> {
        match self.current(visit).await {
            Ok(current) => self.data_page(visit, &current, None).await,
            Err(answer) => *answer,
        }
    }

    async fn data_page(&self, visit: &Visit<'_>, current: &Current, done: Option<DataDone>) -> Response<Body> {
        let handsets = match self.own_handsets(current).await {
            Ok(handsets) => handsets,
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        let held = match self.promises.subjects.store.held(&current.facts().account).await {
            Ok(held) => held.is_some(),
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        let page = Page::Data(MyData { handsets: &handsets, held, form_token: &self.me_token(visit, current), done });
        let answer = self.page(visit, StatusCode::OK, &page);
        self.linked(visit, current, answer)
    }

    /// The handsets of the person's own, each with its name.
    pub(super) async fn own_handsets(&self, current: &Current) -> Result<Vec<MeBinding>, StoreError> {
        let account = &current.facts().account;
        let labels = self.promises.subjects.store.labels(account).await?;
        let shown = self.notices.shown(account).await?;
        let bindings = self.bindings.bindings(Some(account)).await?;
        let named = |binding: &crate::store::BindingRecord| {
            let label = labels.iter().find(|(id, _)| *id == binding.id).map(|(_, label)| label.to_string());
            let told = shown.iter().find(|(id, _)| *id == binding.id).map(|(_, notice)| notice.revision.clone());
            MeBinding { label, told, ..own_binding(binding, current) }
        };
        Ok(bindings.iter().map(named).collect())
    }

    /// `GET /_sekisho/me/label?binding=…`: the form.
    pub(super) async fn label_form(&self, visit: &Visit<'_>) -> Response<Body> {
        let current = match self.current(visit).await {
            Ok(current) => current,
            Err(answer) => return *answer,
        };
        let id = query_value(visit.head, BINDING_FIELD).and_then(|text| BindingId::parse(&text));
        self.label_page(visit, &current, id, None).await
    }

    async fn label_page(
        &self,
        visit: &Visit<'_>,
        current: &Current,
        id: Option<BindingId>,
        because: Option<Reason>,
    ) -> Response<Body> {
        let handsets = match self.own_handsets(current).await {
            Ok(handsets) => handsets,
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        let id = id.map(|id| id.to_string());
        // Gone already, or somebody else's: the page that comes back shows what is there.
        let Some(binding) = handsets.iter().find(|binding| Some(&binding.id) == id.as_ref()) else {
            return self.data_page(visit, current, None).await;
        };
        if let Some(reason) = because {
            self.note_refusal(visit, reason);
        }
        let page = Page::Label { form_token: &self.me_token(visit, current), binding, because };
        let answer = self.page(visit, because.map_or(StatusCode::OK, Reason::status), &page);
        self.linked(visit, current, answer)
    }

    /// `POST /_sekisho/me/label`: names one handset of the person's own; an empty name takes it away.
    pub(super) async fn label_own(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let (current, form) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        let Some(id) = BindingId::parse(form.field(BINDING_FIELD)) else {
            return self.linked(visit, &current, self.refuse(visit, Reason::MalformedRequest));
        };
        let text = form.field(LABEL_FIELD);
        let label = match (text.trim().is_empty(), Label::parse(text)) {
            (true, _) => None,
            (false, Ok(label)) => Some(label),
            (false, Err(_)) => return self.label_page(visit, &current, Some(id), Some(Reason::LabelInvalid)).await,
        };
        let account = current.facts().account.clone();
        match self.bindings.bindings(Some(&account)).await {
            Ok(own) if own.iter().any(|binding| binding.id == id) => {}
            Ok(_) => return self.data_page(visit, &current, None).await,
            Err(error) => return self.me_unavailable(visit, &current, &error),
        }
        let deed = Event::new(Action::SubjectCorrect, Actor::Handset).account(&account).object(id);
        let store = Arc::clone(&self.promises.subjects.store);
        let done = self.act(deed, async move { Ok((store.set_label(&account, id, label).await?, Effect::none())) });
        match done.await {
            Ok(done) => self.data_page(visit, &current, done.then_some(DataDone::Renamed)).await,
            Err(error) => self.me_unavailable(visit, &current, &error),
        }
    }

    /// `POST /_sekisho/me/erase` and `me/stop`: asks; then, where [`SURE_FIELD`] comes from the handset itself, does it.
    pub(super) async fn act_on_own(&self, visit: &Visit<'_>, body: ClientBody, act: DataAct) -> Response<Body> {
        let (current, form) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        if form.field(SURE_FIELD).is_empty() {
            return self.ask_before(visit, &current, act);
        }
        if let Err(answer) = self.is_here(visit, &current, "/_sekisho/me") {
            return *answer;
        }
        match act {
            DataAct::Erase => self.erase_own(visit, &current).await,
            DataAct::Stop => self.stop_own(visit, &current).await,
        }
    }

    fn ask_before(&self, visit: &Visit<'_>, current: &Current, act: DataAct) -> Response<Body> {
        let path = format!("/_sekisho/me/{}", act.as_str());
        let action = match visit.carrier.and_then(|profile| profile.required_query()) {
            Some((name, value)) => format!("{path}?{name}={value}"),
            None => path,
        };
        let page = Page::Confirm { act, action: &action, form_token: &self.me_token(visit, current) };
        self.linked(visit, current, self.page(visit, StatusCode::OK, &page))
    }

    async fn erase_own(&self, visit: &Visit<'_>, current: &Current) -> Response<Body> {
        match self.promises.subjects.erase(&current.facts().account, Actor::Handset).await {
            Ok(erased) => {
                let event = SecurityEvent::SubjectErased { by: Actor::Handset };
                telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
                let id = erased.certificate.get("id").and_then(Value::as_str).unwrap_or_default();
                let certificate = Some(&erased.certificate);
                let page = Page::Acted { act: DataAct::Erase, receipt: Some(id), certificate };
                self.gone(visit, &page)
            }
            Err(error) => self.subject_refused(visit, current, &error),
        }
    }

    async fn stop_own(&self, visit: &Visit<'_>, current: &Current) -> Response<Body> {
        let account = current.facts().account.clone();
        let deed = Event::new(Action::SubjectStop, Actor::Handset).account(&account);
        let (bindings, sessions) = (Arc::clone(&self.bindings), Arc::clone(&self.sessions));
        let stopping = account.clone();
        let stopped = self.act(deed, async move {
            // The state first: a sign-in that runs meanwhile finds it when it asks whether its binding still stands.
            bindings.set_account_state(&stopping, AccountState::Suspended).await?;
            let ended = sessions.end(SessionScope::Account(stopping)).await?;
            Ok(((), Effect::change(ended, 0)))
        });
        match stopped.await {
            Ok(()) => {
                let event = SecurityEvent::AccountSuspended { account: &account, by: Actor::Handset };
                telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
                self.gone(visit, &Page::Acted { act: DataAct::Stop, receipt: None, certificate: None })
            }
            Err(error) => self.me_unavailable(visit, current, &error),
        }
    }

    /// A page for somebody whose session has just ended.
    fn gone(&self, visit: &Visit<'_>, page: &Page<'_>) -> Response<Body> {
        let mut answer = self.page(visit, StatusCode::OK, page);
        Self::forget_cookie(&mut answer, visit);
        answer
    }

    fn subject_refused(&self, visit: &Visit<'_>, current: &Current, error: &SubjectError) -> Response<Body> {
        match error {
            SubjectError::Held => self.linked(visit, current, self.refuse(visit, Reason::SubjectHeld)),
            // Its session has ended with it.
            SubjectError::NotThere => self.expired(visit),
            SubjectError::Store(error) => self.me_unavailable(visit, current, error),
        }
    }
}
