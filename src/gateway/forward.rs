//! Session -> assertion -> upstream. Names no header.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use hyper::upgrade::OnUpgrade;

use super::Gateway;
use super::arrival::Arrival;
use super::console::{Applicant, Withheld};
use super::handle::Share;
use super::respond::retry_after_in;
use super::session_check::{Current, Presented};
use super::url_session::linked;
use super::visit::Visit;
use crate::assertion::{Assertion, Claims, UpstreamIdentity};
use crate::body::Body;
use crate::clock::Timestamp;
use crate::config::{Access, RouteConfig, SubjectKind, UpstreamConfig};
use crate::edge::ClientBody;
use crate::entropy::random;
use crate::keys::sid;
use crate::links::ask_plainly;
use crate::pages::ReaderHints;
use crate::refusal::Reason;
use crate::upstream::{Ends, Forwarded, LimitedBody, StripError, StrippedHead, UpstreamError};

/// One request on its way to an upstream.
pub(super) struct Passage<'r> {
    pub(super) route: &'r RouteConfig,
    pub(super) arrival: Arrival,
    pub(super) body: ClientBody,
    pub(super) upgrade: Option<OnUpgrade>,
}

impl Share {
    /// Proxies a request, if its route lets it through.
    pub(super) async fn forward(&self, passage: Passage<'_>) -> Response<Body> {
        let gateway = &*self.gateway;
        let Passage { route, arrival, body, upgrade } = passage;
        let visit = || Visit::of(gateway, &arrival);
        let current = match gateway.presented_session(&arrival).await {
            Presented::Live(current) => Some(current),
            Presented::Refused(reason) => return gateway.refuse_session(&visit(), reason),
            Presented::Nothing if route.access == Access::Session => {
                let visit = visit();
                return gateway.sign_in_page(&visit, &visit.wanted(), Reason::SignInRequired);
            }
            Presented::Ended if route.access == Access::Session => return gateway.expired(&visit()),
            Presented::Nothing | Presented::Ended => None,
        };
        if upgrade.is_some() && gateway.has_foreign_origin(&arrival.head) {
            return gateway.refuse(&visit(), Reason::ForeignOrigin);
        }
        if let Some(current) = &current
            && gateway.lacks_pin(route, current, arrival.now)
        {
            let visit = visit();
            return gateway.pin_page(&visit, current, &visit.wanted(), Reason::PinRequired).await;
        }
        let Some(upstream) = gateway.config.upstreams.get(route.upstream) else {
            return gateway.refuse(&visit(), Reason::NoRoute);
        };
        let links = current.as_ref().and_then(|current| gateway.links_of(&arrival, current));
        let assertion = match &current {
            None => None,
            Some(current) => match gateway.assertion(current, route.upstream, upstream, arrival.now).await {
                Ok(assertion) => Some(assertion),
                Err(reason) => return linked(gateway.refuse(&visit(), reason), links),
            },
        };
        let applicant = gateway.applicant(route, upstream, &arrival);
        // The answer to a login may end the session that it was sent in, and belongs to the next one.
        let session = current.as_ref().filter(|_| applicant.is_none()).map(Current::ended);
        let ends = Ends { session, shutdown: &gateway.shutdown };
        let asks_plainly = links.is_some() || applicant.as_ref().is_some_and(Applicant::may_need_links);
        let Arrival { head, client, request_id, trace, .. } = arrival;
        // What a failure page needs, kept before the head ends.
        let hints = ReaderHints::of(&head);
        let fail = |reason| {
            let carrier = gateway.config.carriers.match_source(&client).map(|profile| profile.name());
            gateway.answer_failure(reason, carrier, gateway.reader(&hints, &client), client.scheme, &request_id)
        };
        let host = head.host().unwrap_or_default().to_owned();
        let stripped = match StrippedHead::of(head, gateway.config.carriers.reserved()) {
            Ok(stripped) if asks_plainly => stripped.adjusted(ask_plainly),
            Ok(stripped) => stripped,
            Err(StripError::ConnectionNamesProtected | StripError::Malformed) => {
                return linked(fail(Reason::MalformedRequest), links);
            }
        };
        gateway.metrics.headers_stripped(stripped.stripped() as u64);
        let mut call = trace.upstream(&upstream.name);
        let forwarded = Forwarded { client: &client, host: &host, request_id: request_id.as_str(), call: &call };
        let request = stripped.with(assertion, &forwarded);
        let body = LimitedBody { body, most_bytes: route.body_bytes };
        match self.upstreams.send(route.upstream, request, body, upgrade, ends).await {
            Ok(answered) => {
                call.answered(answered.response.status().as_u16());
                gateway.count_upstream(route.upstream, None);
                match gateway.answer_of_console(answered, applicant, upstream, &client, links).await {
                    Ok(mut answer) => {
                        gateway.protect_transport(&mut answer, client.scheme);
                        answer
                    }
                    Err((Withheld { reason, retry_after }, links)) => {
                        linked(retry_after_in(fail(reason), retry_after), links)
                    }
                }
            }
            Err(error) => {
                let reason = match error {
                    UpstreamError::Unreachable => Reason::UpstreamUnreachable,
                    UpstreamError::NoneHealthy => Reason::NoHealthyUpstream,
                    UpstreamError::Timeout => Reason::UpstreamTimeout,
                    UpstreamError::BodyTooLarge => Reason::BodyTooLarge,
                    UpstreamError::BodyMalformed => Reason::MalformedRequest,
                    UpstreamError::BodyIdle => Reason::RequestTimeout,
                    UpstreamError::SessionEnded => Reason::SessionExpired,
                };
                call.failed(reason.as_str());
                gateway.count_upstream(route.upstream, Some(reason));
                tracing::warn!(upstream = upstream.name, reason = reason.as_str(), "a request was not served");
                linked(fail(reason), links)
            }
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
        let cache = current.state();
        let with_pin = current.has_pin(now, self.config.session.pin_for);
        let id = self.upstream_id(index).ok_or(Reason::NoRoute)?;
        let kept = |kid| cache.fresh(id, kid, with_pin, now);
        match self.keys.signer().kid().map(kept) {
            Some(Some(assertion)) => return Ok(assertion),
            Some(None) => {}
            None => return Err(Reason::KeySuspended),
        }
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
            auth_time: record.pin_at().filter(|_| with_pin).unwrap_or(record.created_at),
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
