//! Removing a handset: done for the handset that is signed in, and asked of it where it has not just said who it is.
//!
//! A session alone removes nothing: it has to be the handset itself, now or within the life of a form.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Gateway;
use super::form_token;
use super::local_path::LocalPath;
use super::me::own_binding;
use super::session_check::Current;
use super::url_session::is_shown;
use super::visit::Visit;
use crate::audit::{Action, Effect, Event};
use crate::binding::BindingId;
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{BINDING_FIELD, MeDone, Page, SURE_FIELD};
use crate::refusal::Reason;
use crate::store::{BindingRecord, SessionScope, StoreError};
use crate::telemetry::{self, Actor, SecurityEvent};

impl Gateway {
    /// `POST /_sekisho/me/remove`: erases one binding of the person's own, and its sessions end. A handset that is not known
    /// to be here is asked first, by a page whose answer has [`SURE_FIELD`] and its identifier.
    pub(super) async fn remove_binding(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let (current, form) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        let Some(id) = BindingId::parse(form.field(BINDING_FIELD)) else {
            return self.linked(visit, &current, self.refuse(visit, Reason::MalformedRequest));
        };
        if let Err(answer) = self.is_here(visit, &current, "/_sekisho/me") {
            let may_ask = can_be_shown(visit) && form.field(SURE_FIELD).is_empty();
            return if may_ask { self.ask_before_removal(visit, &current, id).await } else { *answer };
        }
        let done = match self.remove_own(visit, &current, id).await {
            Ok(Some(removed)) => {
                let (account, carrier) = (&removed.account, &removed.carrier);
                let event = SecurityEvent::BindingRemoved { account, carrier, by: Actor::Handset };
                telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
                Some(MeDone::HandsetRemoved)
            }
            // A legal hold keeps it; or it is gone already, or somebody else's: the page that comes back shows what is there.
            Ok(None) => match self.promises.subjects.store.held(&current.facts().account).await {
                Ok(Some(_)) => return self.linked(visit, &current, self.refuse(visit, Reason::SubjectHeld)),
                Ok(None) => None,
                Err(error) => return self.me_unavailable(visit, &current, &error),
            },
            Err(error) => return self.me_unavailable(visit, &current, &error),
        };
        if id == current.facts().binding && done.is_some() {
            self.signed_out(visit)
        } else {
            self.me_page(visit, &current, done).await
        }
    }

    /// The page whose form brings the identifier along.
    async fn ask_before_removal(&self, visit: &Visit<'_>, current: &Current, id: BindingId) -> Response<Body> {
        let bindings = match self.bindings.bindings(Some(&current.facts().account)).await {
            Ok(bindings) => bindings,
            Err(error) => return self.me_unavailable(visit, current, &error),
        };
        let Some(binding) = bindings.iter().find(|binding| binding.id == id) else {
            return self.me_page(visit, current, None).await;
        };
        let action = match visit.carrier.and_then(|profile| profile.required_query()) {
            Some((name, value)) => format!("/_sekisho/me/remove?{name}={value}"),
            None => "/_sekisho/me/remove".to_owned(),
        };
        let binding = own_binding(binding, current);
        let form_token = self.me_token(visit, current);
        let page = Page::Remove { action: &action, form_token: &form_token, binding: &binding };
        self.linked(visit, current, self.page(visit, StatusCode::OK, &page))
    }

    /// Whether it is the handset itself, not only somebody with its session: it signed in within the life of a form, or its
    /// identifier is in this very request, which the session was held to. Where it cannot be, signing in again leads back
    /// to `page`.
    pub(super) fn is_here(&self, visit: &Visit<'_>, current: &Current, page: &str) -> Result<(), Box<Response<Body>>> {
        let record = current.facts();
        if visit.now < record.created_at.plus(form_token::LIFETIME) {
            return Ok(());
        }
        if !can_be_shown(visit) {
            return Err(Box::new(self.sign_in_page(visit, &LocalPath::parse(page), Reason::SignInRequired)));
        }
        match self.config.carriers.presented(visit.head, &record.carrier) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Box::new(self.linked(visit, current, self.refuse(visit, Reason::MissingIdentifier)))),
            Err(refusal) => Err(Box::new(self.linked(visit, current, self.refuse(visit, refusal.into())))),
        }
    }

    async fn remove_own(
        &self,
        visit: &Visit<'_>,
        current: &Current,
        id: BindingId,
    ) -> Result<Option<BindingRecord>, StoreError> {
        let account = &current.facts().account;
        let signed_in = self.sessions.list(Some(account), visit.now).iter().any(|s| s.facts().binding == id);
        if !signed_in && !self.bindings.bindings(Some(account)).await?.iter().any(|b| b.id == id) {
            return Ok(None);
        }
        // First the binding, so that no sign-in can open a session between the two. Its sessions end even where it is
        // gone already: a call before this one may have died between the two.
        let deed = Event::new(Action::BindingRevoke, Actor::Handset).account(account).object(id);
        let (bindings, sessions) = (Arc::clone(&self.bindings), Arc::clone(&self.sessions));
        let backups = Arc::clone(&self.backups);
        self.act(deed, async move {
            let removed = bindings.revoke(id).await?;
            backups.bury().await?;
            if removed.is_some() || bindings.binding(id).await?.is_none() {
                sessions.end(SessionScope::Binding(id)).await?;
            }
            let count = u64::from(removed.is_some());
            Ok((removed, Effect::of(count)))
        })
        .await
    }
}

/// Whether the carrier shows the identifier in requests that come this way.
fn can_be_shown(visit: &Visit<'_>) -> bool {
    visit.carrier.is_some_and(|profile| is_shown(profile, visit.client.scheme))
}
