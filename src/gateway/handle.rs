//! Where a request comes in: edge checks first, then our own pages or the route.

use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use arc_swap::{ArcSwap, Cache};
use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::Gateway;
use super::access_line::AccessLine;
use super::arrival::Arrival;
use super::forward::Passage;
use super::limits::TooOften;
use super::underway::Underway;
use super::visit::Visit;
use crate::body::Body;
use crate::carrier::{Profile, UserAgent};
use crate::config::Serves;
use crate::edge::{
    Answers, Before, Client, ClientBody, Connection, Handler, HeadError, Outbox, RawHead, Scheme, TurnedAway,
    UnknownSource,
};
use crate::pages::{Reader, ReaderHints};
use crate::refusal::Reason;
use crate::session::LastCookie;
use crate::trace::RequestIds;
use crate::upstream::{Destination, RouteRefusal, Upstreams};

/// One core: its share of the configuration in force, taken anew by the first request that finds another one.
pub struct Worker {
    in_use: Mutex<InUse>,
    request_ids: RequestIds,
    outbox: Arc<Outbox>,
}

/// Where the configuration in force is looked up, and what was made of it. A cache costs a comparison where nothing changed;
/// its lock is one core's alone, and held for no longer.
struct InUse {
    in_force: Cache<Arc<ArcSwap<Gateway>>, Arc<Gateway>>,
    share: Arc<Share>,
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
    /// A worker of the gateway in force, with an empty pool, whose requests to upstreams leave by `outbox`.
    #[must_use]
    pub fn new(in_force: Arc<ArcSwap<Gateway>>, outbox: Arc<Outbox>) -> Self {
        let mut in_force = Cache::new(in_force);
        let gateway = Arc::clone(in_force.load());
        let request_ids = RequestIds::new(&*gateway.entropy);
        let share = Arc::new(Share { upstreams: gateway.connections(None, &outbox), gateway });
        Self { in_use: Mutex::new(InUse { in_force, share }), request_ids, outbox }
    }

    /// What a request that begins now is answered with.
    fn share(&self) -> Arc<Share> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let InUse { in_force, share } = &mut *in_use;
        let gateway = in_force.load();
        if !Arc::ptr_eq(&share.gateway, gateway) {
            let upstreams = gateway.connections(Some(&share.upstreams), &self.outbox);
            *share = Arc::new(Share { upstreams, gateway: Arc::clone(gateway) });
        }
        Arc::clone(share)
    }
}

/// A request whose head, host and client were accepted.
struct Arrived {
    /// Boxed, so that it stays in one place however many stages pass it on.
    arrival: Box<Arrival>,
    body: Incoming,
    upgrade: Option<OnUpgrade>,
}

impl Share {
    /// Judges what needs no waiting for. Not asynchronous: what it looks at would take room in every request's future.
    fn arrive(
        connection: &Connection,
        last: &LastCookie,
        request: Request<Incoming>,
        line: &mut AccessLine,
    ) -> Result<Arrived, Box<Response<Body>>> {
        let gateway = &*line.share.gateway;
        let request_id = line.request_id;
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let early = |reason, hints: &ReaderHints| {
            let reader = Gateway::reader_of(hints, None, &UserAgent::parse(hints.user_agent()));
            Box::new(gateway.refuse_early(reason, reader, connection, &request_id))
        };
        if let Err(error) = gateway.config.gateway.hosts.check_parts(&parts) {
            return Err(early(error.into(), &ReaderHints::of_refused(&parts.headers)));
        }
        if !gateway.may_serve() {
            return Err(early(Reason::NotReady, &ReaderHints::of_refused(&parts.headers)));
        }
        // Before the head is judged: a CONNECT has no path.
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            let mut answer = early(Reason::MethodNotAllowed, &ReaderHints::of_refused(&parts.headers));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(SERVED_METHODS));
            return Err(answer);
        }
        let head = match RawHead::take(&mut parts, &gateway.head_limits) {
            Ok(head) => head,
            Err(error) => return Err(early(error.into(), &ReaderHints::of_refused(&parts.headers))),
        };
        let proxies = &gateway.config.gateway.trusted_proxies;
        let client = match proxies.resolve(connection.peer.ip(), connection.scheme, &head) {
            Ok(client) => client,
            Err(UnknownSource) => return Err(early(Reason::UnknownSourceAddress, &ReaderHints::of(&head))),
        };
        line.client = Some(client);
        let arrival = match Arrival::of(head, client, line, gateway.clock.now(), last) {
            Ok(arrival) => Box::new(arrival),
            Err(error) => return Err(early(error.into(), &ReaderHints::default())),
        };
        if let Err(TooOften { retry_after }) = gateway.may_request(&client) {
            return Err(Box::new(gateway.refuse_for_now(&Visit::of(gateway, &arrival), retry_after)));
        }
        Ok(Arrived { arrival, body, upgrade })
    }

    /// Goes on with an accepted request: takes the token out of a form first.
    fn handset(self: &Arc<Self>, arrived: Arrived, connection: Connection) -> Underway {
        let Arrived { mut arrival, body, upgrade } = arrived;
        match arrival.form_encoding(&body) {
            None => self.direct(Passage { arrival, body: ClientBody::from(body), upgrade }, connection),
            Some(encoding) => self.apart(move |share| async move {
                let gateway = &*share.gateway;
                let idle = gateway.config.limits.timeouts.body_idle;
                match arrival.take_from_form(body, encoding, idle).await {
                    Ok(body) => share.direct(Passage { arrival, body, upgrade }, connection),
                    Err(reason) => Underway::answered(gateway.refuse(&Visit::of(gateway, &arrival), reason), upgrade),
                }
            }),
        }
    }

    /// Finds where a request leads, and goes on with it there.
    fn direct(self: &Arc<Self>, passage: Passage, connection: Connection) -> Underway {
        let gateway = &*self.gateway;
        let arrival = &passage.arrival;
        if arrival.is_contradictory() {
            return self.end_here(passage, |visit| gateway.refuse(visit, Reason::MalformedRequest));
        }
        let destination = match gateway.routes.find(arrival.head.path()) {
            Ok(destination) => destination,
            Err(refusal) => {
                let reason = match refusal {
                    RouteRefusal::Ambiguous => Reason::PathAmbiguous,
                    RouteRefusal::NoRoute => Reason::NoRoute,
                };
                return self.apart(move |share| async move {
                    let gateway = &*share.gateway;
                    let refused = gateway.refuse_in_place(&Visit::of(gateway, &passage.arrival), reason).await;
                    Underway::answered(refused, passage)
                });
            }
        };
        if gateway.hands_over(arrival.client.scheme) && !IN_THE_CLEAR.contains(&arrival.head.path()) {
            return self.end_here(passage, |visit| gateway.to_public_url(visit));
        }
        match destination {
            Destination::Gateway => self.own_page(passage, connection),
            Destination::Route(route) => {
                arrival.trace.route(&route.path);
                self.forward(route, passage)
            }
        }
    }

    /// Answers with one of our own pages.
    fn own_page(self: &Arc<Self>, passage: Passage, connection: Connection) -> Underway {
        self.apart(move |share| async move {
            let Passage { arrival, body, upgrade } = passage;
            let (request_id, trace) = (arrival.request_id, arrival.trace.clone());
            // A task of its own: once begun, a sign-out or a removal is done to its end, though its person hangs up.
            let gateway = Arc::clone(&share.gateway);
            let page = tokio::spawn(async move {
                let visit = Visit::of(&gateway, &arrival);
                gateway.own_page(&visit, body).await
            });
            let answer = page.await.unwrap_or_else(|_| {
                let reader = Gateway::reader_of(&ReaderHints::default(), None, &UserAgent::parse(""));
                share.gateway.refuse_early(Reason::Internal, reader, &connection, &request_id)
            });
            if answer.status() != StatusCode::NOT_FOUND {
                trace.own_page();
            }
            Underway::answered(answer, upgrade)
        })
    }
}

/// A request that has begun, and what is waited for.
#[expect(clippy::large_enum_variant, reason = "nearly all requests are handsets'")]
enum Begun {
    /// A handset's, and its line; in this order, so that the line is written behind all that the request did, wherever it ends.
    Handset(Underway, AccessLine),
    /// Another listener's.
    Other(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Worker {
    fn begin(&self, share: Arc<Share>, connection: Connection, last: &LastCookie, request: Request<Incoming>) -> Begun {
        if connection.serves == Serves::Ops {
            let (parts, _) = request.into_parts();
            let gateway = Arc::clone(&share.gateway);
            return Begun::Other(match RawHead::read(parts, &gateway.head_limits) {
                Ok(head) => Box::pin(async move { gateway.ops(&head, connection.scheme).await }),
                Err(error) => Box::pin(ready(gateway.refuse_early(
                    error.into(),
                    Reader::default(),
                    &connection,
                    &self.request_ids.next(),
                ))),
            });
        }
        let mut line = AccessLine::begin(share, self.request_ids.next(), &connection, &request);
        match connection.serves {
            Serves::ForwardAuth => {
                Begun::Other(Box::pin(async move {
                    // As a whole: of what has a destructor a closure would take the number alone.
                    let mut line = line;
                    let share = Arc::clone(&line.share);
                    let answer = share.authorize(connection, request, &mut line).await;
                    line.status = answer.status().as_u16();
                    answer
                }))
            }
            // Administrators do not come this way: their listener accepts by itself.
            Serves::Handset | Serves::Ops | Serves::Admin => {
                let underway = match Share::arrive(&connection, last, request, &mut line) {
                    Ok(arrived) => line.share.handset(arrived, connection),
                    Err(refused) => Underway::answered(*refused, ()),
                };
                Begun::Handset(underway, line)
            }
        }
    }
}

impl Answers for Begun {
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>, before: &Before<'_>) -> Poll<Response<Body>> {
        match self.get_mut() {
            Self::Handset(underway, line) => underway.poll_answer(&line.share, cx, before).map(|answer| {
                line.status = answer.status().as_u16();
                answer
            }),
            Self::Other(answering) => answering.as_mut().poll(cx),
        }
    }
}

impl Handler for Worker {
    type Kept = LastCookie;

    fn handle(
        self: &Arc<Self>,
        connection: Connection,
        last: &LastCookie,
        request: Request<Incoming>,
    ) -> impl Answers + Send + use<> {
        self.begin(self.share(), connection, last, request)
    }

    fn turned_away(&self, why: TurnedAway) {
        self.share().gateway.metrics.turned_away(why);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_is_answered_in_is_small() {
        fn room<F>(_: impl FnOnce(Arc<Worker>, Connection, Request<Incoming>) -> F) -> usize {
            size_of::<F>()
        }
        // Each connection has room for one, and it is copied there as a whole. What few requests wait for belongs into a box.
        let bytes =
            room(|worker, connection, request| Worker::handle(&worker, connection, &LastCookie::default(), request));
        assert!(bytes <= 320, "{bytes}");
    }
}
