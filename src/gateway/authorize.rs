//! The forward-auth listener: what a proxy of ours asks before it passes a request on itself.
//!
//! nginx `auth_request`, Caddy and Traefik `forward_auth`, Envoy `ext_authz` each describe the request in their own way;
//! here it is put together again and judged as if it had come to a handset listener. The answer is 200, 401 or 403 and
//! nothing else: `auth_request` turns others into 500 (`interface.md` §3).

use http::header::{CACHE_CONTROL, HOST, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::Gateway;
use super::access_line::AccessLine;
use super::arrival::{Arrival, Held};
use super::handle::Share;
use super::session_check::Presented;
use crate::assertion::{ASSERTION_FIELD, Assertion};
use crate::body::Body;
use crate::carrier::CarrierName;
use crate::config::Access;
use crate::edge::{Client, Connection, RawHead, UnknownSource};
use crate::refusal::Reason;
use crate::session::LastCookie;
use crate::telemetry::{self, SecurityEvent};
use crate::upstream::{Destination, RouteRefusal};

/// The one path that is asked; what follows it is the path in question, for proxies that append it (Envoy).
const AUTHORIZE: &str = "/_sekisho/authorize";
/// Why, for operators and for a proxy that has pages of its own.
const REASON_FIELD: HeaderName = HeaderName::from_static("sekisho-reason");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const URI_FIELDS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-uri"), HeaderName::from_static("x-original-uri")];
const METHOD_FIELDS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-method"), HeaderName::from_static("x-original-method")];

/// A request that may pass: with what is said of it to the upstream, where there is a session.
type Verdict = Result<Option<Assertion>, Refusal>;

/// A request that may not pass.
struct Refusal {
    reason: Reason,
    carrier: Option<CarrierName>,
    client: Option<Client>,
}

impl Refusal {
    const fn early(reason: Reason) -> Self {
        Self { reason, carrier: None, client: None }
    }
}

impl Share {
    /// Answers whether the request that a proxy describes may pass.
    pub(super) async fn authorize(
        &self,
        connection: Connection,
        request: Request<Incoming>,
        line: &mut AccessLine,
    ) -> Response<Body> {
        let gateway = &*self.gateway;
        // A body would be the request's own, and nothing of it counts.
        let (parts, _) = request.into_parts();
        line.trace.route(AUTHORIZE);
        match gateway.judge(connection, parts, line).await {
            Ok(assertion) => allow(assertion),
            Err(refusal) => gateway.deny(&refusal),
        }
    }
}

impl Gateway {
    async fn judge(&self, connection: Connection, mut parts: Parts, line: &mut AccessLine) -> Verdict {
        let proxies = &self.config.gateway.trusted_proxies;
        // Whoever else asks would describe what they like.
        if !proxies.trusts(connection.peer.ip()) {
            return Err(Refusal::early(Reason::UnknownSourceAddress));
        }
        if !self.may_serve() {
            return Err(Refusal::early(Reason::NotReady));
        }
        restore(&mut parts).map_err(Refusal::early)?;
        self.config.gateway.hosts.check_parts(&parts).map_err(|error| Refusal::early(error.into()))?;
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            return Err(Refusal::early(Reason::MethodNotAllowed));
        }
        let head = RawHead::read(parts, &self.head_limits).map_err(|error| Refusal::early(error.into()))?;
        let client = proxies
            .resolve(connection.peer.ip(), connection.scheme, &head)
            .map_err(|UnknownSource| Refusal::early(Reason::UnknownSourceAddress))?;
        line.client = Some(client);
        let carrier = self.config.carriers.match_source(&client).map(|profile| profile.name().clone());
        let refused = |reason| Refusal { reason, carrier: carrier.clone(), client: Some(client) };
        let arrival = Arrival::of(head, client, line, self.clock.now(), &LastCookie::default())
            .map_err(|error| refused(error.into()))?;
        self.may_request(&client).map_err(|_| refused(Reason::RateLimited))?;
        if arrival.is_contradictory() {
            return Err(refused(Reason::MalformedRequest));
        }
        let route = match self.routes.find(arrival.head.path()) {
            Ok(Destination::Route(route)) => route,
            // Our own pages are the handset listener's, which no proxy may stand before with a question.
            Ok(Destination::Gateway) | Err(RouteRefusal::NoRoute) => return Err(refused(Reason::NoRoute)),
            Err(RouteRefusal::Ambiguous) => return Err(refused(Reason::PathAmbiguous)),
        };
        // Sessions live over TLS, and in the clear there is nothing but the way there.
        if self.hands_over(client.scheme) {
            return Err(refused(Reason::SignInRequired));
        }
        let presented = match arrival.held() {
            // The proxy passes the URL on as it is, token and all; nobody puts it into the links of the answer.
            Held::Url(_) => Presented::Nothing,
            Held::Nothing | Held::Cookie(_) | Held::Unusable => self.presented_session(&arrival).await,
        };
        let current = match presented {
            Presented::Live(current) => Some(current),
            Presented::Refused(reason) => return Err(refused(reason)),
            Presented::Nothing if route.access == Access::Session => return Err(refused(Reason::SignInRequired)),
            Presented::Ended if route.access == Access::Session => return Err(refused(Reason::SessionExpired)),
            Presented::Nothing | Presented::Ended => None,
        };
        if self.is_foreign_handshake(&arrival.head) {
            return Err(refused(Reason::ForeignOrigin));
        }
        if current.as_ref().is_some_and(|current| self.lacks_pin(route, current, arrival.now)) {
            return Err(refused(Reason::PinRequired));
        }
        let Some(current) = current else { return Ok(None) };
        self.assertion(&current, route.upstream, arrival.now).await.map(Some).map_err(refused)
    }

    fn deny(&self, refusal: &Refusal) -> Response<Body> {
        let Refusal { reason, carrier, client } = refusal;
        self.metrics.refusal(*reason, carrier.as_ref());
        if reason.is_an_attempt() {
            let event = SecurityEvent::Refused { reason: *reason, carrier: carrier.as_ref() };
            telemetry::security(&event, client.map(|client| client.address), self.config.privacy.client_address);
        }
        let unauthorized = reason.status() == StatusCode::UNAUTHORIZED;
        let mut answer = bare(if unauthorized { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN });
        let fields = answer.headers_mut();
        fields.insert(REASON_FIELD, HeaderValue::from_static(reason.as_str()));
        if unauthorized {
            fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Sekisho realm=\"handset\""));
        }
        answer
    }
}

/// 200 with an empty body: Envoy takes no 204.
fn allow(assertion: Option<Assertion>) -> Response<Body> {
    let mut answer = bare(StatusCode::OK);
    if let Some(assertion) = assertion {
        answer.headers_mut().insert(ASSERTION_FIELD, assertion.value().clone());
    }
    answer
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    // Each answer is about one request of one moment.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Makes the head the one that the proxy was asked with. Where a target or a method is described twice, as when a client
/// adds the field of another proxy's habit, both must say the same.
fn restore(parts: &mut Parts) -> Result<(), Reason> {
    let appended = appended_target(&parts.uri)?;
    let described = agreed(&parts.headers, &URI_FIELDS)?;
    let target = match (appended, described) {
        (Some(appended), Some(described)) if appended != described => return Err(Reason::MalformedRequest),
        (appended, described) => appended.or(described),
    };
    let target = target.filter(|target| target.starts_with('/')).ok_or(Reason::MalformedRequest)?;
    let target = PathAndQuery::try_from(target).map_err(|_| Reason::MalformedRequest)?;
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(target);
    if let Some(host) = only(&parts.headers, &FORWARDED_HOST)? {
        // It takes the place of the name that the proxy called this listener by.
        uri.authority = None;
        uri.scheme = None;
        parts.headers.insert(HOST, host);
        parts.version = http::Version::HTTP_11;
    }
    parts.uri = Uri::from_parts(uri).map_err(|_| Reason::MalformedRequest)?;
    if let Some(method) = agreed(&parts.headers, &METHOD_FIELDS)? {
        parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::MalformedRequest)?;
    }
    Ok(())
}

/// What stands behind [`AUTHORIZE`]; nothing if that is all.
fn appended_target(uri: &Uri) -> Result<Option<String>, Reason> {
    let path = uri.path().strip_prefix(AUTHORIZE).ok_or(Reason::NoRoute)?;
    if path.is_empty() {
        return Ok(None);
    }
    if !path.starts_with('/') {
        return Err(Reason::NoRoute);
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(Some(format!("{path}{query}")))
}

/// A field that may be there once.
fn only(fields: &HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, Reason> {
    let mut values = fields.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Ok(Some(one.clone())),
        (Some(_), Some(_)) => Err(Reason::MalformedRequest),
    }
}

/// What all fields of these names say, if there are any.
fn agreed(fields: &HeaderMap, names: &[HeaderName]) -> Result<Option<String>, Reason> {
    let mut values = names.iter().flat_map(|name| fields.get_all(name));
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|other| other != first) {
        return Err(Reason::MalformedRequest);
    }
    first.to_str().map(|text| Some(text.to_owned())).map_err(|_| Reason::MalformedRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(target: &str, fields: &[(&'static str, &str)]) -> Result<(String, String, String), Reason> {
        let mut request = Request::get(target).header(HOST, "authorize.internal");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        restore(&mut parts)?;
        let host = parts.headers.get(HOST).unwrap().to_str().unwrap().to_owned();
        Ok((parts.method.to_string(), host, parts.uri.to_string()))
    }

    #[test]
    fn a_request_is_put_together_from_what_each_proxy_says_of_it() {
        let of = |method: &str, host: &str, target: &str| Ok((method.to_owned(), host.to_owned(), target.to_owned()));
        for (target, fields, expected) in [
            // nginx, as in deploy/.
            (
                "/_sekisho/authorize",
                &[
                    ("x-original-uri", "/a?b=%20"),
                    ("x-original-method", "POST"),
                    ("x-forwarded-host", "admin.example.jp"),
                ][..],
                of("POST", "admin.example.jp", "/a?b=%20"),
            ),
            // Caddy and Traefik.
            (
                "/_sekisho/authorize",
                &[
                    ("x-forwarded-uri", "/"),
                    ("x-forwarded-method", "GET"),
                    ("x-forwarded-host", "admin.example.jp:8443"),
                ],
                of("GET", "admin.example.jp:8443", "/"),
            ),
            // Envoy.
            ("/_sekisho/authorize/a/b?c", &[], of("GET", "authorize.internal", "/a/b?c")),
            ("/_sekisho/authorize/a", &[("x-forwarded-uri", "/a")], of("GET", "authorize.internal", "/a")),
            (
                "/_sekisho/authorize",
                &[("x-forwarded-uri", "/a"), ("x-original-uri", "/a")],
                of("GET", "authorize.internal", "/a"),
            ),
            ("/_sekisho/authorize/", &[], of("GET", "authorize.internal", "/")),
        ] {
            assert_eq!(restored(target, fields), expected, "{target} {fields:?}");
        }
    }

    #[test]
    fn what_is_described_twice_or_not_at_all_is_refused() {
        for (target, fields, expected) in [
            ("/_sekisho/authorize", &[][..], Reason::MalformedRequest),
            ("/_sekisho/authorize", &[("x-forwarded-uri", "")], Reason::MalformedRequest),
            ("/_sekisho/authorize", &[("x-forwarded-uri", "a")], Reason::MalformedRequest),
            ("/_sekisho/authorize", &[("x-forwarded-uri", "http://admin.example.jp/a")], Reason::MalformedRequest),
            ("/_sekisho/authorize", &[("x-forwarded-uri", "/a b")], Reason::MalformedRequest),
            (
                "/_sekisho/authorize",
                &[("x-forwarded-uri", "/public"), ("x-original-uri", "/")],
                Reason::MalformedRequest,
            ),
            (
                "/_sekisho/authorize",
                &[("x-original-uri", "/public"), ("x-original-uri", "/")],
                Reason::MalformedRequest,
            ),
            ("/_sekisho/authorize/a", &[("x-original-uri", "/public")], Reason::MalformedRequest),
            (
                "/_sekisho/authorize",
                &[("x-original-uri", "/"), ("x-original-method", "GET"), ("x-forwarded-method", "POST")],
                Reason::MalformedRequest,
            ),
            ("/_sekisho/authorize", &[("x-original-uri", "/"), ("x-original-method", "G T")], Reason::MalformedRequest),
            (
                "/_sekisho/authorize",
                &[("x-original-uri", "/"), ("x-forwarded-host", "a"), ("x-forwarded-host", "b")],
                Reason::MalformedRequest,
            ),
            ("/_sekisho/authorized", &[("x-original-uri", "/")], Reason::NoRoute),
            ("/", &[("x-original-uri", "/")], Reason::NoRoute),
        ] {
            assert_eq!(restored(target, fields), Err(expected), "{target} {fields:?}");
        }
    }
}
