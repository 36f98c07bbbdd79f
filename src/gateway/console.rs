//! Console-driven enrolment: an upstream that may bind says whose handset sent the login that it just accepted.
//!
//! The identifier is read before the request leaves, because its head ends there: only from a login form that was
//! sent to an upstream that may bind, and that submit is the click. It is stretched and hashed only once the upstream
//! has said `Sekisho-Bind`, so a wrong password costs no Argon2 and its identifier is wiped when the answer's head is
//! there. What any other upstream says of binding is counted, and nothing else comes of it.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderValue, USER_AGENT};
use http::{Method, Response};

use super::Gateway;
use super::arrival::Arrival;
use super::bind_ticket::Claimed;
use super::limits::TooOften;
use super::login::{NotOpened, opening, replaced_session};
use super::to_the_end::to_the_end;
use super::url_session::{Delivery, KeepsNoCookies, Opened, linked};
use crate::audit::{Action, Event};
use crate::binding::{self, AccountId, ByConsole, DigestError, EnrolError};
use crate::body::Body;
use crate::carrier::{IdentificationRefusal, Profile, RawIdentifier, UserAgent};
use crate::config::{Access, RouteConfig, UpstreamConfig};
use crate::edge::Client;
use crate::links::LinkPlan;
use crate::refusal::Reason;
use crate::session::{Opening, SessionSecret, TokenHash};
use crate::store::{Counted, StoreError};
use crate::telemetry::{self, Actor, BindOutcome, SecurityEvent};
use crate::upstream::{Answered, BindClaim};

/// The handset whose login form is on its way to an upstream that may bind it.
pub(super) struct Applicant {
    handset: Asked,
    replaces: Option<TokenHash>,
    /// Path and query of the login, where the links of its answer start.
    page: String,
    /// Whether its browser drops the query of a form's URL.
    fields_alone: bool,
}

/// Which handset it is.
enum Asked {
    /// This one, whose browser is given its session in this way.
    Here(RawIdentifier, Delivery),
    /// One of this carrier, whose gateway tells only in the clear.
    InTheClear(Arc<Profile>),
    /// None that can be bound.
    Not(BindOutcome),
}

/// The upstream's answer is withheld, because the binding that it asked for could not be judged or made durable.
pub(super) struct Withheld {
    pub(super) reason: Reason,
    pub(super) retry_after: Option<Duration>,
}

impl Applicant {
    /// Whether the links of the answer may have to carry a session.
    pub(super) const fn may_need_links(&self) -> bool {
        matches!(self.handset, Asked::Here(_, Delivery::Url | Delivery::Both))
    }
}

/// Why nobody was signed in.
pub(super) enum NotBound {
    /// The upstream's answer passes without a session.
    Passes(BindOutcome),
    /// It does not pass.
    Withheld(BindOutcome, Withheld),
}

impl Gateway {
    /// Reads who asks, if this request may end in a binding at all; `None` on every other request, at no cost.
    pub(super) fn applicant(
        &self,
        route: &RouteConfig,
        upstream: &UpstreamConfig,
        arrival: &Arrival,
    ) -> Option<Applicant> {
        let Arrival { head, client, .. } = arrival;
        if route.access != Access::Login || !upstream.may_bind {
            return None;
        }
        // A page elsewhere that submits somebody else's password would bind this handset to that account.
        let user_agent = UserAgent::parse(head.text(&USER_AGENT).unwrap_or_default());
        let handset = if *head.method() != Method::POST || self.is_from_elsewhere(head) {
            Asked::Not(BindOutcome::NotAsked)
        } else {
            match (self.config.carriers.identify(head, client), self.identified_in_the_clear(client)) {
                (Ok(identifier), _) => match self.delivery(head, client, &user_agent, false) {
                    Ok(delivery) => Asked::Here(identifier, delivery),
                    Err(KeepsNoCookies) => Asked::Not(BindOutcome::Refused),
                },
                (Err(IdentificationRefusal::MissingIdentifier), Some(profile)) => {
                    Asked::InTheClear(Arc::clone(profile))
                }
                (Err(_), _) => Asked::Not(BindOutcome::NotIdentified),
            }
        };
        let fields_alone = !user_agent.keeps_form_queries();
        Some(Applicant { handset, replaces: replaced_session(arrival), page: arrival.page(), fields_alone })
    }

    /// What the client gets: the upstream's answer, with a session if the upstream bound its handset, else with the
    /// `links` of the session that it had.
    ///
    /// # Errors
    /// [`Withheld`], where the binding could not be judged or made durable, and the `links` for what is answered instead.
    pub(super) async fn answer_of_console(
        &self,
        answered: Answered,
        applicant: Option<Applicant>,
        upstream: &str,
        client: &Client,
        links: Option<LinkPlan>,
    ) -> Result<Response<Body>, (Withheld, Option<LinkPlan>)> {
        let Answered { mut response, bind: Some(claim) } = answered else {
            return Ok(linked(answered.response, links));
        };
        // A claim beside a failed login contradicts it; one that nobody may make is not even read.
        let sound = response.status().is_success() || response.status().is_redirection();
        let account = account_of(&claim).filter(|_| sound && applicant.is_some());
        if let (Some(account), Some(Applicant { handset: Asked::InTheClear(profile), .. })) = (&account, &applicant) {
            let claimed = Claimed { account: account.clone(), upstream: upstream.to_owned() };
            self.metrics.bound_by_console(BindOutcome::HandedOver);
            return Ok(self.to_bind_ticket(claimed, profile, &response, client));
        }
        let page = applicant.as_ref().map(|applicant| applicant.page.clone()).unwrap_or_default();
        let fields_alone = applicant.as_ref().is_some_and(|applicant| applicant.fields_alone);
        // Boxed: every answer passes here, and few bind.
        let (outcome, answer) = match Box::pin(self.bind_by_console(account.as_ref(), applicant, client)).await {
            Ok((opened, outcome)) => {
                Self::give_cookie(&mut response, &opened, client.scheme);
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                self.metrics.bound_by_console(outcome);
                let links = self.links_to(&opened, client, &page);
                return Ok(linked(response, links.map(|links| links.in_fields_alone(fields_alone))));
            }
            Err(NotBound::Passes(outcome)) => (outcome, Ok(linked(response, links))),
            Err(NotBound::Withheld(outcome, withheld)) => (outcome, Err((withheld, links))),
        };
        self.note_not_bound(outcome, upstream, account.as_ref(), client);
        answer
    }

    /// Counts a claim that bound nobody, and tells the security team.
    pub(super) fn note_not_bound(
        &self,
        outcome: BindOutcome,
        upstream: &str,
        account: Option<&AccountId>,
        client: &Client,
    ) {
        self.metrics.bound_by_console(outcome);
        let carrier = self.config.carriers.match_source(client).map(|profile| profile.name());
        let event = SecurityEvent::NotBoundByConsole { upstream, outcome, account, carrier };
        telemetry::security(&event, Some(client.address), self.config.privacy.client_address);
    }

    async fn bind_by_console(
        &self,
        account: Option<&AccountId>,
        applicant: Option<Applicant>,
        client: &Client,
    ) -> Result<(Opened, BindOutcome), NotBound> {
        let Applicant { handset, replaces, .. } = applicant.ok_or(NotBound::Passes(BindOutcome::NotAllowed))?;
        let account = account.ok_or(NotBound::Passes(BindOutcome::Malformed))?.clone();
        let (identifier, delivery) = match handset {
            Asked::Here(identifier, delivery) => (identifier, delivery),
            Asked::InTheClear(_) => return Err(NotBound::Passes(BindOutcome::NotIdentified)),
            Asked::Not(outcome) => return Err(NotBound::Passes(outcome)),
        };
        let (opening, outcome) = self.bind_claimed(identifier, account, client).await?;
        let opened = self.open_session(client, opening, delivery, replaces, self.clock.now()).await?;
        Ok((opened, outcome))
    }

    /// Binds the identified handset to the account that a console named.
    pub(super) async fn bind_claimed(
        &self,
        identifier: RawIdentifier,
        account: AccountId,
        client: &Client,
    ) -> Result<(Opening, BindOutcome), NotBound> {
        self.limits.code(self.limits.handset_key(&identifier))?;
        self.slow_down(client.address).await;
        self.rotations.sign_in_begins();
        let secret = SessionSecret::generate(&*self.entropy);
        let continuity = Opening::continuity_of(&secret, &identifier);
        // By value: from here on only the key ring can read the identifier.
        let candidates = self.keys.binding.digest(identifier).await?;
        // The upstream may have thought for long.
        let now = self.clock.now();
        let per_account = self.config.binding.per_account;
        let (bindings, keys) = (Arc::clone(&self.bindings), Arc::clone(&self.keys));
        let (audit, entropy) = (Arc::clone(&self.audit), Arc::clone(&self.entropy));
        let enrolled = to_the_end(async move {
            let (store, ring) = (&*bindings, &keys.binding);
            let enrolled =
                binding::enrol_by_console(store, ring, candidates, account, per_account, &*entropy, now).await?;
            if let ByConsole::Bound(bound) = &enrolled {
                let event = Event::new(Action::BindingEnrol, Actor::Console).account(bound.account());
                audit.note(event.object(bound.binding()), now).await?;
            }
            Ok::<_, EnrolError>(enrolled)
        })
        .await?;
        let (bound, outcome) = match enrolled {
            ByConsole::AlreadyBound(bound) => (bound, BindOutcome::AlreadyBound),
            ByConsole::Bound(bound) => {
                self.metrics.enrolment(bound.carrier());
                self.promises.statistics.count(Counted::Enrolment, bound.carrier(), self.clock.now().day());
                let event = SecurityEvent::Enrolled { account: bound.account(), carrier: bound.carrier() };
                telemetry::security(&event, Some(client.address), self.config.privacy.client_address);
                (bound, BindOutcome::Bound)
            }
        };
        Ok((opening(bound, secret, continuity), outcome))
    }
}

/// The account that a claim names; `None` if it is unclear, malformed, or looks like somebody's number.
fn account_of(claim: &BindClaim) -> Option<AccountId> {
    match claim {
        BindClaim::Of(value) => AccountId::parse(value.to_str().ok()?).ok(),
        BindClaim::Unclear => None,
    }
}

impl NotBound {
    const fn withheld(outcome: BindOutcome, reason: Reason) -> Self {
        Self::Withheld(outcome, Withheld { reason, retry_after: None })
    }

    const fn later(retry_after: Duration) -> Self {
        let withheld = Withheld { reason: Reason::RateLimited, retry_after: Some(retry_after) };
        Self::Withheld(BindOutcome::RateLimited, withheld)
    }
}

impl From<TooOften> for NotBound {
    fn from(TooOften { retry_after }: TooOften) -> Self {
        Self::later(retry_after)
    }
}

impl From<DigestError> for NotBound {
    fn from(error: DigestError) -> Self {
        match error {
            DigestError::Busy => Self::later(Duration::from_secs(1)),
            DigestError::KeySuspended => Self::withheld(BindOutcome::Failed, Reason::KeySuspended),
        }
    }
}

impl From<EnrolError> for NotBound {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::BindingLimit | EnrolError::CodeInvalid => Self::Passes(BindOutcome::Refused),
            EnrolError::Unsettled => Self::withheld(BindOutcome::Failed, Reason::StoreUnavailable),
            EnrolError::Digest(error) => error.into(),
            EnrolError::Store(error) => error.into(),
        }
    }
}

impl From<NotOpened> for NotBound {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::Gone => Self::Passes(BindOutcome::Refused),
            NotOpened::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for NotBound {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a console's login could not be bound; its answer was withheld");
        Self::withheld(BindOutcome::Failed, Reason::StoreUnavailable)
    }
}
