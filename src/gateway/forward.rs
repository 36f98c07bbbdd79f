//! Session -> assertion -> upstream. Names no header.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderValue, PRAGMA};
use hyper::upgrade::OnUpgrade;

use super::Gateway;
use super::arrival::Arrival;
use super::console::{Applicant, Withheld};
use super::handle::Share;
use super::respond::retry_after_in;
use super::session_check::{Current, Presented};
use super::url_session::linked;
use super::visit::Visit;
use crate::assertion::{Assertion, Claims, UpstreamId, UpstreamIdentity};
use crate::body::Body;
use crate::clock::Timestamp;
use crate::config::{Access, RouteConfig, SubjectKind, UpstreamConfig};
use crate::edge::{Client, ClientBody};
use crate::entropy::random;
use crate::keys::sid;
use crate::links::{LinkPlan, ask_plainly};
use crate::pages::ReaderHints;
use crate::refusal::Reason;
use crate::trace::{RequestId, UpstreamCall};
use crate::upstream::{
    Answered, Ends, Forwarded, LimitedBody, StripError, StrippedHead, UpstreamError, UpstreamRequest,
};

/// One request on its way to an upstream.
pub(super) struct Passage<'r> {
    pub(super) route: &'r RouteConfig,
    pub(super) arrival: Box<Arrival>,
    pub(super) body: ClientBody,
    pub(super) upgrade: Option<OnUpgrade>,
}

/// What is kept of a request whose head has ended, until there is an answer.
struct Behind {
    client: Client,
    request_id: RequestId,
    /// What a failure page needs.
    hints: ReaderHints,
    applicant: Option<Box<Applicant>>,
    links: Option<Box<LinkPlan>>,
}

impl Share {
    /// Proxies a request, if its route lets it through.
    ///
    /// Boxed is what few requests wait for: the future of each would carry the room for it.
    pub(super) async fn forward(&self, passage: Passage<'_>) -> Response<Body> {
        let gateway = &*self.gateway;
        let Passage { route, arrival, body, upgrade } = passage;
        let current = match gateway.presented_session(&arrival).await {
            Presented::Live(current) => Some(current),
            Presented::Refused(reason) => return gateway.refuse_session(&Visit::of(gateway, &arrival), reason),
            Presented::Nothing if route.access == Access::Session => {
                let visit = Visit::of(gateway, &arrival);
                return gateway.sign_in_page(&visit, &visit.wanted(), Reason::SignInRequired);
            }
            Presented::Ended if route.access == Access::Session => {
                return gateway.expired(&Visit::of(gateway, &arrival));
            }
            Presented::Nothing | Presented::Ended => None,
        };
        if upgrade.is_some() && gateway.has_foreign_origin(&arrival.head) {
            return gateway.refuse(&Visit::of(gateway, &arrival), Reason::ForeignOrigin);
        }
        if let Some(current) = &current
            && gateway.lacks_pin(route, current, arrival.now)
        {
            let page = async {
                let visit = Visit::of(gateway, &arrival);
                gateway.pin_page(&visit, current, &visit.wanted(), Reason::PinRequired).await
            };
            return Box::pin(page).await;
        }
        let Some(upstream) = gateway.config.upstreams.get(route.upstream) else {
            return gateway.refuse(&Visit::of(gateway, &arrival), Reason::NoRoute);
        };
        let assertion = match &current {
            None => None,
            Some(current) => match gateway.assertion(current, route.upstream, upstream, arrival.now).await {
                Ok(assertion) => Some(assertion),
                Err(reason) => {
                    let links = gateway.links_of(&arrival, current);
                    return linked(gateway.refuse(&Visit::of(gateway, &arrival), reason), links);
                }
            },
        };
        let (behind, request, mut call) = match gateway.depart(route, upstream, arrival, current.as_ref(), assertion) {
            Ok(departed) => departed,
            Err(refused) => return *refused,
        };
        // The answer to a login may end the session that it was sent in, and belongs to the next one.
        let session = current.as_ref().filter(|_| behind.applicant.is_none()).map(Current::end);
        let ends = Ends { session, shutdown: &gateway.shutdown };
        let body = LimitedBody { body, most_bytes: route.body_bytes };
        match self.upstreams.send(route.upstream, request, body, upgrade, ends).await {
            Ok(answered) => {
                gateway.count_upstream(route.upstream, None);
                call.answered(answered.response.status().as_u16());
                let scheme = behind.client.scheme;
                let mut answer = match answered.bind {
                    None => linked(answered.response, behind.links()),
                    Some(_) => Box::pin(gateway.answer_that_binds(answered, behind, upstream)).await,
                };
                if current.is_some() {
                    keep_out_of_caches(&mut answer);
                }
                gateway.protect_transport(&mut answer, scheme);
                answer
            }
            Err(error) => {
                let reason: Reason = error.into();
                call.failed(reason.as_str());
                gateway.count_upstream(route.upstream, Some(reason));
                tracing::warn!(upstream = upstream.name, reason = reason.as_str(), "a request was not served");
                let failure = retry_after_in(behind.failure(gateway, reason), error.retry_after());
                linked(failure, behind.links())
            }
        }
    }
}

impl Gateway {
    /// Ends the request's head: what may pass of it, with what the gateway says, and what is kept.
    fn depart(
        &self,
        route: &RouteConfig,
        upstream: &UpstreamConfig,
        arrival: Box<Arrival>,
        current: Option<&Current>,
        assertion: Option<Assertion>,
    ) -> Result<(Box<Behind>, UpstreamRequest, UpstreamCall), Box<Response<Body>>> {
        let links = current.and_then(|current| self.links_of(&arrival, current)).map(Box::new);
        let applicant = self.applicant(route, upstream, &arrival).map(Box::new);
        let asks_plainly = links.is_some() || applicant.as_deref().is_some_and(Applicant::may_need_links);
        let Arrival { head, client, request_id, trace, .. } = *arrival;
        // Boxed: it is moved some times, and the future carries the room for it.
        let behind = Box::new(Behind { client, request_id, hints: ReaderHints::of(&head), applicant, links });
        let stripped = match StrippedHead::of(head, self.config.carriers.reserved()) {
            Ok(stripped) if asks_plainly => stripped.adjusted(ask_plainly),
            Ok(stripped) => stripped,
            Err(StripError::ConnectionNamesProtected | StripError::Malformed) => {
                let failure = behind.failure(self, Reason::MalformedRequest);
                return Err(Box::new(linked(failure, behind.links())));
            }
        };
        self.metrics.headers_stripped(stripped.stripped() as u64);
        let call = trace.upstream(&upstream.name);
        let forwarded = Forwarded { client: &client, request_id: &request_id, call: &call };
        let request = stripped.with(assertion, &forwarded);
        Ok((behind, request, call))
    }

    /// What the client gets of an answer that says whom its handset should be bound to.
    async fn answer_that_binds(
        &self,
        answered: Answered,
        behind: Box<Behind>,
        upstream: &UpstreamConfig,
    ) -> Response<Body> {
        let Behind { client, request_id, hints, applicant, links } = *behind;
        let (applicant, links) = (applicant.map(|applicant| *applicant), links.map(|links| *links));
        match self.answer_of_console(answered, applicant, upstream, &client, links).await {
            Ok(answer) => answer,
            Err((Withheld { reason, retry_after }, links)) => {
                let behind = Behind { client, request_id, hints, applicant: None, links: None };
                linked(retry_after_in(behind.failure(self, reason), retry_after), links)
            }
        }
    }
}

impl Behind {
    fn failure(&self, gateway: &Gateway, reason: Reason) -> Response<Body> {
        let Self { client, request_id, hints, .. } = self;
        let carrier = gateway.config.carriers.match_source(client).map(|profile| profile.name());
        gateway.answer_failure(reason, carrier, gateway.reader(hints, client), client.scheme, request_id)
    }

    fn links(self) -> Option<LinkPlan> {
        self.links.map(|links| *links)
    }
}

/// A page that was made for somebody is kept nowhere, unless its upstream says how it may be (ASVS 14.3.2).
fn keep_out_of_caches(answer: &mut Response<Body>) {
    let fields = answer.headers_mut();
    let is_page = fields.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        let begins = |with: &[u8]| kind.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        begins(b"text/html") || begins(b"application/xhtml+xml")
    });
    if is_page && ![CACHE_CONTROL, EXPIRES, PRAGMA].iter().any(|said| fields.contains_key(said)) {
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

impl From<UpstreamError> for Reason {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unreachable => Self::UpstreamUnreachable,
            UpstreamError::NoneHealthy | UpstreamError::Full => Self::NoHealthyUpstream,
            UpstreamError::Timeout => Self::UpstreamTimeout,
            UpstreamError::BodyTooLarge => Self::BodyTooLarge,
            UpstreamError::BodyMalformed => Self::MalformedRequest,
            UpstreamError::BodyIdle => Self::RequestTimeout,
            UpstreamError::SessionEnded => Self::SessionExpired,
        }
    }
}

impl Gateway {
    /// The statement about `current` for one upstream: the session's own from before while it is in the first half
    /// of its life, a fresh one otherwise.
    pub(super) async fn assertion(
        &self,
        current: &Current,
        index: usize,
        upstream: &UpstreamConfig,
        now: Timestamp,
    ) -> Result<Assertion, Reason> {
        let with_pin = current.has_pin(now, self.config.session.pin_for);
        let id = self.upstream_id(index).ok_or(Reason::NoRoute)?;
        let kept = |kid| current.state().fresh(id, kid, with_pin, now);
        match self.keys.signer().kid().map(kept) {
            Some(Some(assertion)) => Ok(assertion),
            // Boxed: it is asked for once in half a minute.
            Some(None) => Box::pin(self.fresh_assertion(current, id, with_pin, upstream, now)).await,
            None => Err(Reason::KeySuspended),
        }
    }

    async fn fresh_assertion(
        &self,
        current: &Current,
        id: UpstreamId,
        with_pin: bool,
        upstream: &UpstreamConfig,
        now: Timestamp,
    ) -> Result<Assertion, Reason> {
        let cache = current.state();
        let record = current.facts();
        let identity = if let Some(identity) = cache.identity(id) {
            identity
        } else {
            let subject = match upstream.subject {
                SubjectKind::Account => record.account.to_string(),
                SubjectKind::Pairwise => self.pairwise_subject(current, upstream).await?,
            };
            let sid = sid(&record.sid_seed, &upstream.audience);
            cache.remember_identity(id, UpstreamIdentity { subject, sid })
        };
        let claims = Claims {
            audience: &upstream.audience,
            subject: &identity.subject,
            sid: &identity.sid,
            auth_time: current.session().pin_at().filter(|_| with_pin).unwrap_or(record.created_at),
            with_pin,
        };
        // Asked again: it may have been replaced while the subject was read.
        let signer = self.keys.signer();
        let kid = signer.kid().ok_or(Reason::KeySuspended)?;
        let assertion = signer.sign(&self.issuer, &claims, &*self.entropy, now).map_err(|error| {
            tracing::error!(%error, "no assertion could be signed");
            Reason::Internal
        })?;
        cache.remember(id, kid, with_pin, &assertion, now);
        Ok(assertion)
    }

    async fn pairwise_subject(&self, current: &Current, upstream: &UpstreamConfig) -> Result<String, Reason> {
        let fresh = URL_SAFE_NO_PAD.encode(random::<16>(&*self.entropy));
        match self.bindings.subject(&current.facts().account, &upstream.name, fresh).await {
            Ok(Some(subject)) => Ok(subject),
            // The account was erased; its sessions are about to end.
            Ok(None) => Err(Reason::SessionExpired),
            Err(error) => {
                tracing::error!(%error, "no subject could be read");
                Err(Reason::StoreUnavailable)
            }
        }
    }
}
