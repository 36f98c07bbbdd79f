//! Signing out: a form that ends nothing, and a post that ends the session everywhere at once.

use http::{Response, StatusCode};

use super::Gateway;
use super::form::Form;
use super::form_token;
use super::session_check::{Current, Presented};
use super::visit::Visit;
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{FORM_TOKEN_FIELD, Page};
use crate::refusal::Reason;
use crate::telemetry::{self, SecurityEvent};

impl Gateway {
    /// `GET /_sekisho/logout`: shows the form.
    pub(super) async fn logout_form(&self, visit: &Visit<'_>) -> Response<Body> {
        match self.current(visit).await {
            Ok(current) => {
                let form_token = self.me_token(visit, &current);
                let answer = self.page(visit, StatusCode::OK, &Page::Logout { form_token: &form_token });
                self.linked(visit, &current, answer)
            }
            Err(answer) => *answer,
        }
    }

    /// `POST /_sekisho/logout`.
    pub(super) async fn logout(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let (current, _) = match self.own_form(visit, body).await {
            Ok(posted) => posted,
            Err(answer) => return *answer,
        };
        let record = current.facts();
        if let Err(error) = self.sessions.end_one(record.token_hash).await {
            tracing::error!(%error, "a session could not be ended");
            return self.refuse(visit, Reason::StoreUnavailable);
        }
        let event = SecurityEvent::SignedOut { account: &record.account };
        telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
        self.signed_out(visit)
    }

    /// The page after signing out; the browser's cookie goes.
    pub(super) fn signed_out(&self, visit: &Visit<'_>) -> Response<Body> {
        let mut answer = self.page(visit, StatusCode::OK, &Page::SignedOut);
        Self::forget_cookie(&mut answer, visit);
        answer
    }

    /// The live session of this visit, or the answer that it gets for lack of one.
    pub(super) async fn current(&self, visit: &Visit<'_>) -> Result<Current, Box<Response<Body>>> {
        match self.presented_session(visit.arrival).await {
            Presented::Live(current) => Ok(current),
            Presented::Nothing => Err(Box::new(self.sign_in_page(visit, &visit.wanted(), Reason::SignInRequired))),
            Presented::Ended => Err(Box::new(self.expired(visit))),
            Presented::Refused(reason) => Err(Box::new(self.refuse_session(visit, reason))),
        }
    }

    /// The sign-in page of a session that is over.
    pub(super) fn expired(&self, visit: &Visit<'_>) -> Response<Body> {
        let mut answer = self.sign_in_page(visit, &visit.wanted(), Reason::SessionExpired);
        Self::forget_cookie(&mut answer, visit);
        answer
    }

    /// A refusal that concerns the session; one that ended takes its cookie along.
    pub(super) fn refuse_session(&self, visit: &Visit<'_>, reason: Reason) -> Response<Body> {
        let mut answer = self.refuse(visit, reason);
        if reason == Reason::SessionDeviceMismatch {
            Self::forget_cookie(&mut answer, visit);
        }
        answer
    }

    /// A form of the signed-in person's own pages: live session, own origin, unspent token of this session.
    pub(super) async fn own_form(
        &self,
        visit: &Visit<'_>,
        body: ClientBody,
    ) -> Result<(Current, Form), Box<Response<Body>>> {
        let current = self.current(visit).await?;
        let refuse = |reason| Box::new(self.linked(visit, &current, self.refuse(visit, reason)));
        let form = Form::read(self, visit, body).await.map_err(refuse)?;
        let owner = current.facts().token_hash;
        if self.forms.redeem(form.field(FORM_TOKEN_FIELD), form_token::Form::Me, owner.as_bytes(), self.clock.now()) {
            Ok((current, form))
        } else {
            Err(Box::new(self.linked(visit, &current, self.refuse(visit, Reason::FormTokenInvalid))))
        }
    }

    /// A token for the forms of this session.
    pub(super) fn me_token(&self, visit: &Visit<'_>, current: &Current) -> String {
        let owner = current.facts().token_hash;
        self.forms.issue(form_token::Form::Me, owner.as_bytes(), &*self.entropy, visit.now)
    }
}
