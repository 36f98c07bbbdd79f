//! What machines ask for: keys, health, readiness, metrics. Reads no session.

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use serde::Serialize;

use super::Gateway;
use crate::admin::ReadinessParts;
use crate::body::Body;
use crate::edge::{RawHead, Scheme};
use crate::refusal::Reason;
use crate::telemetry::Metrics;

/// What `/readyz` shows.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(flatten)]
    parts: ReadinessParts,
}

impl Gateway {
    /// The public keys of the assertions (RFC 7517); cached for five minutes, as `assertion.md` says, or not at all while
    /// keys come and go faster.
    pub(super) fn jwks(&self, head: &RawHead, scheme: Scheme) -> Response<Body> {
        let (document, etag, max_age) = {
            let signer = self.keys.signer();
            let (document, etag) = signer.jwks();
            (document, etag, signer.jwks_max_age())
        };
        let unchanged = head.all(&IF_NONE_MATCH).any(|known| matches_tag(known.as_bytes(), etag.as_bytes()));
        let mut answer = if unchanged {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        } else {
            let mut answer = plain(StatusCode::OK, "application/jwk-set+json", document, head.method());
            answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            answer
        };
        let caching = HeaderValue::try_from(format!("public, max-age={}", max_age.as_secs()));
        let caching = caching.unwrap_or_else(|_| HeaderValue::from_static("no-store"));
        answer.headers_mut().insert(CACHE_CONTROL, caching);
        answer.headers_mut().insert(ETAG, etag);
        answer.headers_mut().insert(CROSS_ORIGIN, HeaderValue::from_static("cross-origin"));
        self.protect_transport(&mut answer, scheme);
        answer
    }

    /// A request on an ops listener.
    pub(super) async fn ops(&self, head: &RawHead, scheme: Scheme) -> Response<Body> {
        if !matches!(*head.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(Reason::MethodNotAllowed.status(), TEXT, "GET or HEAD\n", head.method());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match head.path() {
            "/healthz" => plain(StatusCode::OK, TEXT, "alive\n", head.method()),
            "/readyz" => self.readiness(head.method()).await,
            "/metrics" => {
                self.metrics.live_sessions(self.sessions.len());
                self.metrics.open_connections(self.admission.open());
                self.tell_of_upstreams();
                plain(StatusCode::OK, Metrics::CONTENT_TYPE, self.metrics.render(), head.method())
            }
            "/_sekisho/jwks.json" => self.jwks(head, scheme),
            _ => plain(Reason::NoRoute.status(), TEXT, "no such page\n", head.method()),
        }
    }

    /// Whether handsets are served, and what that hangs on. Asks the store.
    pub(super) async fn readiness_parts(&self) -> (bool, ReadinessParts) {
        let listeners = self.is_ready();
        let store = self.bindings.generation().await.is_ok();
        let keys = self.key_store.keys().await.is_ok_and(|stored| !stored.keys.is_empty() && stored.scheme.is_some());
        let forged_headers = self.is_unforgeable();
        let caught_up = self.is_caught_up();
        let parts = ReadinessParts { listeners, store, keys, forged_headers, caught_up };
        (listeners && store && keys && forged_headers && caught_up, parts)
    }

    async fn readiness(&self, method: &Method) -> Response<Body> {
        let (ready, parts) = self.readiness_parts().await;
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let readiness = Readiness { ready, parts };
        plain(status, "application/json", serde_json::to_string(&readiness).unwrap_or_default(), method)
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const CROSS_ORIGIN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

fn plain(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<bytes::Bytes>,
    method: &Method,
) -> Response<Body> {
    let body = body.into();
    let length = HeaderValue::from(body.len());
    let mut answer = Response::new(if *method == Method::HEAD { Body::empty() } else { Body::full(body) });
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Weak comparison of `If-None-Match` with our strong tag (RFC 9110 §13.1.2).
fn matches_tag(known: &[u8], etag: &[u8]) -> bool {
    known
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}
