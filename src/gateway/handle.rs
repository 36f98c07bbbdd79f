//! Where a request comes in: edge checks first, then our own pages or the route.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::Gateway;
use super::access_line::{AccessLine, RequestIds};
use super::arrival::Arrival;
use super::forward::Passage;
use super::limits::TooOften;
use super::visit::Visit;
use crate::body::Body;
use crate::carrier::{Profile, UserAgent};
use crate::config::Serves;
use crate::edge::{Client, Connection, Handler, HeadError, RawHead, Scheme, TurnedAway, UnknownSource};
use crate::pages::{Reader, ReaderHints};
use crate::refusal::Reason;
use crate::upstream::{Destination, RouteRefusal, Upstreams};

/// One core: its share of the configuration in force, taken anew by the first request that finds another one.
pub struct Worker {
    in_force: Arc<ArcSwap<Gateway>>,
    share: ArcSwap<Share>,
    request_ids: RequestIds,
}

/// One core's share of one configuration: the gateway under it, and connections to the upstreams of its own. A request
/// has one from its head to its end.
pub(super) struct Share {
    pub(super) gateway: Arc<Gateway>,
    pub(super) upstreams: Upstreams,
}

/// What an upstream may be asked with.
const SERVED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What is answered in the clear where sessions live over TLS; everything else is at `public_url` (`interface.md` §4).
const IN_THE_CLEAR: [&str; 5] =
    ["/_sekisho/login", "/_sekisho/enrol", "/_sekisho/bind", "/_sekisho/notice", "/_sekisho/jwks.json"];

impl Worker {
    /// A worker of the gateway in force, with an empty pool.
    #[must_use]
    pub fn new(in_force: Arc<ArcSwap<Gateway>>) -> Self {
        let gateway = in_force.load_full();
        let request_ids = RequestIds::new(&*gateway.entropy);
        let share = Share { upstreams: gateway.connections(None), gateway };
        Self { in_force, share: ArcSwap::from_pointee(share), request_ids }
    }

    /// What a request that begins now is answered with.
    fn share(&self) -> Arc<Share> {
        let share = self.share.load_full();
        if Arc::ptr_eq(&share.gateway, &self.in_force.load()) {
            return share;
        }
        // All tasks of a worker run on one thread, and nothing here waits: no other takes it at the same time.
        let gateway = self.in_force.load_full();
        let next = Arc::new(Share { upstreams: gateway.connections(Some(&share.upstreams)), gateway });
        self.share.store(Arc::clone(&next));
        next
    }
}

impl Share {
    async fn handset(
        &self,
        connection: Connection,
        request: Request<Incoming>,
        line: &mut AccessLine<'_>,
    ) -> Response<Body> {
        let gateway = &*self.gateway;
        let request_id = line.request_id;
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let early = |reason, hints: &ReaderHints| {
            let reader = Gateway::reader_of(hints, None, &UserAgent::parse(hints.user_agent()));
            gateway.refuse_early(reason, reader, &connection, &request_id)
        };
        if let Err(error) = gateway.config.gateway.hosts.check_parts(&parts) {
            return early(error.into(), &ReaderHints::of_refused(&parts.headers));
        }
        if !gateway.may_serve() {
            return early(Reason::NotReady, &ReaderHints::of_refused(&parts.headers));
        }
        // Before the head is judged: a CONNECT has no path.
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            let mut answer = early(Reason::MethodNotAllowed, &ReaderHints::of_refused(&parts.headers));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(SERVED_METHODS));
            return answer;
        }
        let head = match RawHead::take(&mut parts, &gateway.head_limits) {
            Ok(head) => head,
            Err(error) => return early(error.into(), &ReaderHints::of_refused(&parts.headers)),
        };
        let proxies = &gateway.config.gateway.trusted_proxies;
        let client = match proxies.resolve(connection.peer.ip(), connection.scheme, &head) {
            Ok(client) => client,
            Err(UnknownSource) => return early(Reason::UnknownSourceAddress, &ReaderHints::of(&head)),
        };
        line.client = Some(client);
        let mut arrival = match Arrival::of(head, client, line, gateway.clock.now()) {
            Ok(arrival) => arrival,
            Err(error) => return early(error.into(), &ReaderHints::default()),
        };
        if let Err(TooOften { retry_after }) = gateway.may_request(&client) {
            return gateway.refuse_for_now(&Visit::of(gateway, &arrival), retry_after);
        }
        let body = match arrival.take_from_form(body, gateway.config.limits.timeouts.body_idle).await {
            Ok(body) => body,
            Err(reason) => return gateway.refuse(&Visit::of(gateway, &arrival), reason),
        };
        let visit = || Visit::of(gateway, &arrival);
        if arrival.is_contradictory() {
            return gateway.refuse(&visit(), Reason::MalformedRequest);
        }
        let destination = match gateway.routes.find(arrival.head.path()) {
            Ok(destination) => destination,
            Err(RouteRefusal::Ambiguous) => return gateway.refuse_in_place(&visit(), Reason::PathAmbiguous).await,
            Err(RouteRefusal::NoRoute) => return gateway.refuse_in_place(&visit(), Reason::NoRoute).await,
        };
        let in_the_clear = gateway.hands_over(client.scheme);
        if in_the_clear && !IN_THE_CLEAR.contains(&arrival.head.path()) {
            return gateway.to_public_url(&visit());
        }
        match destination {
            Destination::Gateway => {
                // A task of its own: once begun, a sign-out or a removal is done to its end, though its person hangs up.
                let gateway = Arc::clone(&self.gateway);
                let page = tokio::spawn(async move {
                    let visit = Visit::of(&gateway, &arrival);
                    gateway.own_page(&visit, body).await
                });
                let answer = page.await.unwrap_or_else(|_| early(Reason::Internal, &ReaderHints::default()));
                if answer.status() != StatusCode::NOT_FOUND {
                    line.trace.own_page();
                }
                answer
            }
            Destination::Route(route) => {
                line.trace.route(&route.path);
                self.forward(Passage { route, arrival, body, upgrade }).await
            }
        }
    }
}

impl Handler for Worker {
    async fn handle(self: Arc<Self>, connection: Connection, request: Request<Incoming>) -> Response<Body> {
        let share = self.share();
        let gateway = &*share.gateway;
        if connection.serves == Serves::Ops {
            let (parts, _) = request.into_parts();
            return match RawHead::read(parts, &gateway.head_limits) {
                Ok(head) => gateway.ops(&head, connection.scheme).await,
                Err(error) => {
                    gateway.refuse_early(error.into(), Reader::default(), &connection, &self.request_ids.next())
                }
            };
        }
        let mut line = AccessLine::begin(gateway, self.request_ids.next(), &connection, &request);
        let answer = match connection.serves {
            Serves::ForwardAuth => share.authorize(connection, request, &mut line).await,
            // Administrators do not come this way: their listener accepts by itself.
            Serves::Handset | Serves::Ops | Serves::Admin => share.handset(connection, request, &mut line).await,
        };
        line.status = answer.status().as_u16();
        answer
    }

    fn turned_away(&self, why: TurnedAway) {
        self.share.load().gateway.metrics.turned_away(why);
    }
}

impl Gateway {
    /// Whether this client has not sent too many requests lately. Who comes from a carrier's network is not asked.
    pub(super) fn may_request(&self, client: &Client) -> Result<(), TooOften> {
        if self.config.limits.requests.is_none() || self.config.carriers.serves(client.address.ip()) {
            return Ok(());
        }
        self.limits.request(client.address)
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
    ///
    /// A browser that cannot follow is told so, where it can still read it.
    fn to_public_url(&self, visit: &Visit<'_>) -> Response<Body> {
        let head = visit.head;
        if !visit.user_agent.speaks_tls12() {
            return self.refuse(visit, Reason::TlsUnsupported);
        }
        let status = match *head.method() {
            Method::GET | Method::HEAD => StatusCode::FOUND,
            _ => StatusCode::PERMANENT_REDIRECT,
        };
        let query = head.query().map(|q| format!("?{q}")).unwrap_or_default();
        // `Location` is ASCII, a target need not be.
        let target = format!("{}{query}", head.path());
        self.redirect_to(status, &format!("{}{}", self.issuer, utf8_percent_encode(&target, CONTROLS)), Scheme::Http)
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
