//! Where a request comes in: edge checks first, then our own pages or the route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::Gateway;
use super::forward::Passage;
use super::visit::Visit;
use crate::body::Body;
use crate::carrier::{CarrierName, Profile, UserAgent};
use crate::config::Serves;
use crate::edge::{Client, Connection, Handler, HeadError, RawHead, Scheme, UnknownSource};
use crate::entropy::{Entropy, random};
use crate::pages::{Reader, ReaderHints};
use crate::refusal::Reason;
use crate::telemetry::Access;
use crate::upstream::{Destination, RouteRefusal, Upstreams};

/// One core's share: the shared gateway and connections to the upstreams of its own.
pub struct Worker {
    pub(super) gateway: Arc<Gateway>,
    pub(super) upstreams: Upstreams,
    request_ids: RequestIds,
}

impl Worker {
    /// A worker with an empty pool.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, upstreams: Upstreams) -> Self {
        let request_ids = RequestIds::new(&*gateway.entropy);
        Self { gateway, upstreams, request_ids }
    }

    async fn handset(&self, connection: Connection, request: Request<Incoming>, log: &mut Log) -> Response<Body> {
        let gateway = &*self.gateway;
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let early = |reason, reader| gateway.refuse_early(reason, reader, connection.scheme, &log.request_id);
        let head = match RawHead::read(parts, &gateway.head_limits) {
            Ok(head) => head,
            Err(error) => return early(error.into(), Reader::default()),
        };
        if let Err(error) = gateway.config.gateway.hosts.check(&head) {
            return early(error.into(), Reader::default());
        }
        let client =
            match gateway.config.gateway.trusted_proxies.resolve(connection.peer.ip(), connection.scheme, &head) {
                Ok(client) => client,
                Err(UnknownSource) => return early(Reason::UnknownSourceAddress, Reader::default()),
            };
        log.client = Some(client);
        let request_id = log.request_id.clone();
        let now = gateway.clock.now();
        let visit = || Visit::of(gateway, &head, client, &request_id, now);
        if matches!(*head.method(), Method::CONNECT | Method::TRACE) {
            return gateway.refuse(&visit(), Reason::MethodNotAllowed);
        }
        let destination = match gateway.routes.find(head.path()) {
            Ok(destination) => destination,
            Err(RouteRefusal::Ambiguous) => return gateway.refuse(&visit(), Reason::PathAmbiguous),
            Err(RouteRefusal::NoRoute) => return gateway.refuse(&visit(), Reason::NoRoute),
        };
        if gateway.config.gateway.public_url.https && client.scheme == Scheme::Http {
            return gateway.to_public_url(&head);
        }
        match destination {
            Destination::Gateway => gateway.own_page(&visit(), body).await,
            Destination::Route(route) => {
                let request_id = &request_id;
                self.forward(Passage { route, head, client, body, upgrade, request_id, now }).await
            }
        }
    }
}

impl Handler for Worker {
    async fn handle(self: Arc<Self>, connection: Connection, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let gateway = &*self.gateway;
        if connection.serves == Serves::Ops {
            let (parts, _) = request.into_parts();
            return match RawHead::read(parts, &gateway.head_limits) {
                Ok(head) => gateway.ops(&head, connection.scheme).await,
                Err(error) => gateway.refuse_early(error.into(), Reader::default(), connection.scheme, ""),
            };
        }
        let logged = gateway.access.is_on().then(|| (request.method().clone(), request.uri().path().to_owned()));
        let mut log = Log { request_id: self.request_ids.next(), client: None };
        let answer = self.handset(connection, request, &mut log).await;
        let duration = started.elapsed();
        let status = answer.status().as_u16();
        gateway.metrics.request(status, duration);
        if let Some((method, path)) = logged {
            let carrier = log.client.and_then(|client| gateway.carrier_of(&client));
            gateway.access.write(&Access {
                method: method.as_str(),
                path: &path,
                status,
                client: log.client.map(|client| client.address),
                duration,
                carrier,
                request_id: &log.request_id,
                at: gateway.clock.now(),
            });
        }
        answer
    }
}

impl Gateway {
    fn carrier_of(&self, client: &Client) -> Option<&CarrierName> {
        self.config.carriers.match_source(client).map(|profile| profile.name())
    }

    /// What this client's browser can read, for answers that need nothing else of it.
    pub(super) fn reader(&self, hints: &ReaderHints, client: &Client) -> Reader {
        let user_agent = UserAgent::parse(hints.user_agent());
        Self::reader_of(hints, self.config.carriers.match_source(client), &user_agent)
    }

    pub(super) fn reader_of(hints: &ReaderHints, carrier: Option<&Arc<Profile>>, user_agent: &UserAgent) -> Reader {
        let reader = Reader::of(hints, carrier.is_some_and(|profile| profile.japanese()), user_agent);
        // An operator may know better than the User-Agent what a profile's browsers read.
        carrier.map_or(reader, |profile| Reader { charset: profile.charset_for(user_agent), ..reader })
    }

    /// Where sessions live over TLS, the plain listener only points there: nothing of a session travels in the clear.
    fn to_public_url(&self, head: &RawHead) -> Response<Body> {
        let status = match *head.method() {
            Method::GET | Method::HEAD => StatusCode::FOUND,
            _ => StatusCode::PERMANENT_REDIRECT,
        };
        let query = head.query().map(|q| format!("?{q}")).unwrap_or_default();
        self.redirect_to(status, &format!("{}{}{query}", self.issuer, head.path()), Scheme::Http)
    }
}

/// What the access log needs to know at the end.
struct Log {
    request_id: String,
    client: Option<Client>,
}

/// Names requests: a random prefix of this worker and a counter, 32 hexadecimal digits. Unique, not secret.
struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    fn new(entropy: &dyn Entropy) -> Self {
        Self { prefix: u64::from_be_bytes(random(entropy)), next: AtomicU64::new(1) }
    }

    fn next(&self) -> String {
        format!("{:016x}{:016x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl From<HeadError> for Reason {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::TooLarge => Self::HeadTooLarge,
            HeadError::UrlTooLong => Self::UrlTooLong,
            HeadError::Malformed => Self::MalformedRequest,
            HeadError::HostNotAllowed => Self::HostNotAllowed,
        }
    }
}
