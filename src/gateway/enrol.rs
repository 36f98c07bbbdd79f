//! First binding of a handset to an account, by a one-time code.

use std::sync::Arc;

use http::Response;

use super::Gateway;
use super::form::Form;
use super::form_token;
use super::local_path::LocalPath;
use super::login::{Entry, SignInError, opening};
use super::to_the_end::to_the_end;
use super::visit::Visit;
use crate::audit::{Action, Event};
use crate::binding::{self, CodeAttempt, EnrolError, EnrolmentCode};
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{CODE_FIELD, FORM_TOKEN_FIELD, TO_FIELD};
use crate::refusal::Reason;
use crate::session::{Opening, SessionSecret};
use crate::store::Counted;
use crate::telemetry::{self, Actor, SecurityEvent};
use crate::trace::Stage;

impl Gateway {
    /// `POST /_sekisho/enrol`: binds the handset that sent this very request to the account of the typed code.
    pub(super) async fn enrol(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let form = match Form::read(self, visit, body).await {
            Ok(form) => form,
            Err(reason) => return self.refuse(visit, reason),
        };
        let to = LocalPath::parse(form.field(TO_FIELD));
        match self.bind(visit, &form).await {
            Ok(entry) => self.enter(visit, &entry, &to),
            Err(error) => self.sign_in_refusal(visit, &to, error),
        }
    }

    async fn bind(&self, visit: &Visit<'_>, form: &Form) -> Result<Entry, SignInError> {
        self.slow_down(visit.client.address).await;
        self.rotations.sign_in_begins();
        let now = self.clock.now();
        // Read again from this request: what the page before was told is not remembered anywhere.
        let trace = &visit.arrival.trace;
        let identifier = {
            let _stage = trace.stage(Stage::Identify);
            self.config.carriers.identify(visit.head, &visit.client)?
        };
        let handset = self.limits.handset_key(&identifier);
        let shown_to = self.told_to(handset.as_bytes());
        if !self.forms.redeem(form.field(FORM_TOKEN_FIELD), form_token::Form::Enrol, &shown_to, now) {
            return Err(SignInError::FormToken);
        }
        self.limits.code(handset)?;
        let Some(code) = EnrolmentCode::parse(form.field(CODE_FIELD)) else {
            return Err(SignInError::Code(handset, Reason::CodeInvalid));
        };
        let attempt = CodeAttempt::new(&*self.keys.session()?, &code, &identifier);
        let secret = SessionSecret::generate(&*self.entropy);
        let continuity = Opening::continuity_of(&secret, &identifier);
        // By value: from here on only the key ring can read the identifier.
        let candidates = {
            let _stage = trace.stage(Stage::Digest);
            self.keys.binding.digest(identifier).await?
        };
        let per_account = self.config.binding.per_account;
        let (bindings, keys) = (Arc::clone(&self.bindings), Arc::clone(&self.keys));
        let (audit, entropy) = (Arc::clone(&self.audit), Arc::clone(&self.entropy));
        let enrolled = to_the_end(async move {
            let (store, ring) = (&*bindings, &keys.binding);
            let bound = binding::enrol_by_code(store, ring, candidates, attempt, per_account, &*entropy, now).await?;
            let event = Event::new(Action::BindingEnrol, Actor::Handset).account(bound.account());
            audit.note(event.object(bound.binding()), now).await?;
            Ok::<_, EnrolError>(bound)
        });
        let stage = trace.stage(Stage::Enrol);
        let enrolled = enrolled.await;
        drop(stage);
        let bound = match enrolled {
            Ok(bound) => bound,
            Err(EnrolError::CodeInvalid) => return Err(SignInError::Code(handset, Reason::CodeInvalid)),
            Err(EnrolError::BindingLimit) => return Err(SignInError::Code(handset, Reason::BindingLimit)),
            Err(EnrolError::Unsettled) => return Err(SignInError::Unsettled),
            Err(EnrolError::Digest(error)) => return Err(error.into()),
            Err(EnrolError::Store(error)) => return Err(error.into()),
        };
        self.metrics.enrolment(bound.carrier());
        self.promises.statistics.count(Counted::Enrolment, bound.carrier(), self.clock.now().day());
        let event = SecurityEvent::Enrolled { account: bound.account(), carrier: bound.carrier() };
        telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
        self.enter_with(visit, opening(bound, secret, continuity), handset).await
    }
}
