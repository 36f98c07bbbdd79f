//! Every failure and every page -> status, fields, body. No stage writes an answer of its own.

use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Method, Response, StatusCode};
use zeroize::Zeroizing;

use super::Gateway;
use super::visit::Visit;
use crate::body::Body;
use crate::carrier::CarrierName;
use crate::edge::{Connection, Scheme};
use crate::pages::{self, Page, Reader, Rendered};
use crate::refusal::Reason;
use crate::session::SessionCookie;
use crate::store::Counted;
use crate::telemetry::{self, SecurityEvent};
use crate::trace::RequestId;

/// A year, the least that ASVS V3.4.1 asks for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

impl Gateway {
    /// A refusal with its page, noted for the operator.
    pub(super) fn refuse(&self, visit: &Visit<'_>, reason: Reason) -> Response<Body> {
        self.note_refusal(visit, reason);
        self.page(visit, reason.status(), &visit.refusal(reason, None))
    }

    /// `rate-limited`, with the time after which a try will be heard.
    pub(super) fn refuse_for_now(&self, visit: &Visit<'_>, retry_after: Duration) -> Response<Body> {
        let seconds = whole_seconds(retry_after);
        self.note_refusal(visit, Reason::RateLimited);
        let page = visit.refusal(Reason::RateLimited, Some(seconds));
        let mut answer = self.page(visit, Reason::RateLimited.status(), &page);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        answer
    }

    /// A refusal of a request that no visit could be made of: no head, no host, no address.
    pub(super) fn refuse_early(
        &self,
        reason: Reason,
        reader: Reader,
        connection: &Connection,
        request_id: &RequestId,
    ) -> Response<Body> {
        let event = SecurityEvent::Refused { reason, carrier: None };
        telemetry::security(&event, None, self.config.privacy.client_address);
        self.answer_failure(reason, None, reader, connection.scheme, request_id)
    }

    /// The page of a failure that is nobody's attempt.
    pub(super) fn answer_failure(
        &self,
        reason: Reason,
        carrier: Option<&CarrierName>,
        reader: Reader,
        scheme: Scheme,
        request_id: &RequestId,
    ) -> Response<Body> {
        self.metrics.refusal(reason, carrier);
        let page = Page::Refusal { reason, carrier: None, retry_after_seconds: None, request_id: request_id.as_str() };
        let mut answer = self.respond(reason.status(), pages::render(&page, reader), scheme, false);
        // Others may see another end of such a request, so that what comes behind it is not believed.
        if matches!(reason, Reason::MalformedRequest | Reason::HostNotAllowed) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Counts a refusal, and tells the security team if it says something about an attempt.
    pub(super) fn note_refusal(&self, visit: &Visit<'_>, reason: Reason) {
        let carrier = visit.carrier.map(|profile| profile.name());
        self.metrics.refusal(reason, carrier);
        if reason.is_an_attempt() {
            let event = SecurityEvent::Refused { reason, carrier };
            telemetry::security(&event, Some(visit.client.address), self.config.privacy.client_address);
            if let Some(carrier) = carrier {
                self.promises.statistics.count(Counted::Refusal, carrier, visit.now.day());
            }
        }
    }

    /// One of our own pages.
    pub(super) fn page(&self, visit: &Visit<'_>, status: StatusCode, page: &Page<'_>) -> Response<Body> {
        let head_only = *visit.head.method() == Method::HEAD;
        self.respond(status, pages::render(page, visit.reader), visit.client.scheme, head_only)
    }

    /// Sends the browser to a path on the host that it named (and that the allow-list passed).
    ///
    /// An absolute URL, because browsers of this age follow no relative one (RFC 2616 §14.30); 302 and not 303, which
    /// they do not know, and which every browser answers with GET all the same.
    pub(super) fn redirect(&self, visit: &Visit<'_>, status: StatusCode, to: &str) -> Response<Body> {
        let host = visit.head.host().unwrap_or(&self.config.gateway.public_url.host);
        self.redirect_to(
            status,
            &Zeroizing::new(format!("{}://{host}{to}", visit.client.scheme.as_str())),
            visit.client.scheme,
        )
    }

    /// Sends the browser to a URL of ours.
    pub(super) fn redirect_to(&self, status: StatusCode, url: &str, scheme: Scheme) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = status;
        if let Ok(mut location) = HeaderValue::from_str(url) {
            // It may hold a ticket or a token.
            location.set_sensitive(true);
            answer.headers_mut().insert(LOCATION, location);
        }
        self.protect(&mut answer, scheme);
        answer
    }

    /// Takes the session cookie away from a browser that has one.
    pub(super) fn forget_cookie(answer: &mut Response<Body>, visit: &Visit<'_>) {
        if let Some(cookie) = SessionCookie::of(visit.client.scheme).clear().filter(|_| visit.arrival.has_cookie()) {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
    }

    /// Sets or removes `Strict-Transport-Security`: an upstream that set it would lock handsets out whose identifier
    /// is read over plain HTTP.
    pub(super) fn protect_transport(&self, answer: &mut Response<Body>, scheme: Scheme) {
        if self.strict_transport && scheme == Scheme::Https {
            answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
        }
    }

    fn respond(&self, status: StatusCode, rendered: Rendered, scheme: Scheme, head_only: bool) -> Response<Body> {
        let length = HeaderValue::from(rendered.body.len());
        let mut answer = Response::new(if head_only { Body::empty() } else { Body::full(rendered.body) });
        *answer.status_mut() = status;
        let fields = answer.headers_mut();
        fields.insert(CONTENT_TYPE, rendered.content_type);
        fields.insert(CONTENT_LANGUAGE, HeaderValue::from_static(rendered.language));
        if head_only {
            fields.insert(http::header::CONTENT_LENGTH, length);
        }
        fields.insert(VARY, HeaderValue::from_static("Accept, Accept-Language, User-Agent"));
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2 asks for a challenge; browsers show the page for a scheme that they do not know.
            fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Sekisho realm=\"handset\""));
        }
        self.protect(&mut answer, scheme);
        answer
    }

    /// The fields that every answer of our own carries (ASVS 5.0 V3.4, V14.3.2).
    fn protect(&self, answer: &mut Response<Body>, scheme: Scheme) {
        self.protect_transport(answer, scheme);
        let fields = answer.headers_mut();
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert(CONTENT_SECURITY_POLICY, self.content_security_policy.clone());
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        // `same-origin`, not `no-referrer`: the latter makes browsers send `Origin: null` with our own forms.
        fields.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        fields.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    }
}

/// Says after which time a try will be heard, if there is one.
pub(super) fn retry_after_in(mut answer: Response<Body>, retry_after: Option<Duration>) -> Response<Body> {
    if let Some(retry_after) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
    }
    answer
}

/// Rounded up; at least a second and at most a day.
fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.clamp(1, 86_400)
}

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
