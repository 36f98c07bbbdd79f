//! A request at its upstream, and what its client gets of the answer.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderValue, PRAGMA};

use super::Gateway;
use super::console::{Applicant, Withheld};
use super::handle::Share;
use super::respond::retry_after_in;
use super::session_check::Current;
use super::underway::{Apart, Next, Underway};
use super::url_session::linked;
use crate::body::Body;
use crate::edge::{Before, Client, Scheme};
use crate::links::LinkPlan;
use crate::pages::ReaderHints;
use crate::refusal::Reason;
use crate::trace::{RequestId, UpstreamCall};
use crate::upstream::{Answered, Ends, Exchange, UpstreamError};

/// A request whose upstream has it, or gets it as soon as there is a connection.
pub(super) struct Sent {
    pub(super) exchange: Exchange,
    pub(super) call: UpstreamCall,
    pub(super) behind: Box<Behind>,
}

/// What is kept of a request whose head has ended, until there is an answer.
pub(super) struct Behind {
    /// The index of its upstream.
    pub(super) upstream: usize,
    pub(super) current: Option<Current>,
    pub(super) asker: Asker,
    pub(super) applicant: Option<Box<Applicant>>,
    pub(super) links: Option<Box<LinkPlan>>,
}

/// What a failure page needs.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Client,
    pub(super) request_id: RequestId,
    pub(super) hints: ReaderHints,
}

impl Sent {
    /// What the client gets, once there is an answer; one that binds has still to be waited for.
    pub(super) fn poll_answer(&mut self, share: &Arc<Share>, cx: &mut Context<'_>, before: &Before<'_>) -> Poll<Next> {
        let gateway = &*share.gateway;
        let Self { exchange, call, behind } = self;
        let nobody = Before::nobody();
        let before = if behind.may_need_links() { &nobody } else { before };
        let answered = match ready!(exchange.poll_answer(&share.upstreams, behind.ends(gateway), cx, before)) {
            Ok(answered) => answered,
            Err(error) => return Poll::Ready(Next::Answer(behind.not_served(gateway, call, error))),
        };
        gateway.count_upstream(behind.upstream, None);
        call.answered(answered.response.status().as_u16());
        if answered.bind.is_some() {
            return Poll::Ready(Next::Wait(Underway::Apart(behind.bind(share, answered))));
        }
        let answer = linked(answered.response, behind.links());
        Poll::Ready(Next::Answer(gateway.protected(answer, behind.current.is_some(), behind.asker.client.scheme)))
    }
}

impl Behind {
    /// What ends the exchange.
    ///
    /// The answer to a login may end the session that it was sent in, and belongs to the next one.
    pub(super) fn ends<'a>(&'a self, gateway: &'a Gateway) -> Ends<'a> {
        let session = self.current.as_ref().filter(|_| self.applicant.is_none()).map(Current::end);
        Ends { session, shutdown: &gateway.shutdown }
    }

    /// There is no answer.
    pub(super) fn not_served(
        &mut self,
        gateway: &Gateway,
        call: &mut UpstreamCall,
        error: UpstreamError,
    ) -> Response<Body> {
        let reason: Reason = error.into();
        call.failed(reason.as_str());
        gateway.count_upstream(self.upstream, Some(reason));
        let upstream = gateway.upstream_name(self.upstream);
        tracing::warn!(upstream, reason = reason.as_str(), "a request was not served");
        retry_after_in(self.failure(gateway, reason), error.retry_after())
    }

    /// The answer says whom its handset should be bound to.
    fn bind(&mut self, share: &Arc<Share>, answered: Answered) -> Apart {
        let (share, upstream, asker) = (Arc::clone(share), self.upstream, self.asker.clone());
        let (applicant, links) = (self.applicant.take().map(|applicant| *applicant), self.links());
        let is_signed_in = self.current.is_some();
        Box::pin(async move {
            let gateway = &*share.gateway;
            let answer = gateway.answer_that_binds(answered, upstream, &asker, applicant, links).await;
            Next::Answer(gateway.protected(answer, is_signed_in, asker.client.scheme))
        })
    }

    /// The page of a failure, with the links of the session.
    pub(super) fn failure(&mut self, gateway: &Gateway, reason: Reason) -> Response<Body> {
        linked(self.asker.failure(gateway, reason), self.links())
    }

    /// Whether links of the answer may have to carry a session. Those of what comes before it are not rewritten.
    pub(super) fn may_need_links(&self) -> bool {
        self.links.is_some() || self.applicant.as_deref().is_some_and(Applicant::may_need_links)
    }

    fn links(&mut self) -> Option<LinkPlan> {
        self.links.take().map(|links| *links)
    }
}

impl Asker {
    fn failure(&self, gateway: &Gateway, reason: Reason) -> Response<Body> {
        let Self { client, request_id, hints } = self;
        let carrier = gateway.config.carriers.match_source(client).map(|profile| profile.name());
        gateway.answer_failure(reason, carrier, gateway.reader(hints, client), client.scheme, request_id)
    }
}

impl Gateway {
    /// What the client gets of an answer that says whom its handset should be bound to.
    async fn answer_that_binds(
        &self,
        answered: Answered,
        upstream: usize,
        asker: &Asker,
        applicant: Option<Applicant>,
        links: Option<LinkPlan>,
    ) -> Response<Body> {
        let upstream = self.upstream_name(upstream);
        match self.answer_of_console(answered, applicant, upstream, &asker.client, links).await {
            Ok(answer) => answer,
            Err((Withheld { reason, retry_after }, links)) => {
                linked(retry_after_in(asker.failure(self, reason), retry_after), links)
            }
        }
    }

    /// An upstream's answer with what protects it on its way, and after.
    fn protected(&self, mut answer: Response<Body>, is_signed_in: bool, scheme: Scheme) -> Response<Body> {
        if is_signed_in {
            keep_out_of_caches(&mut answer);
        }
        self.protect_transport(&mut answer, scheme);
        answer
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
