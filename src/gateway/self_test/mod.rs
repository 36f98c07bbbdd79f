//! The gateway tries to forge itself: no readiness before every forged field was seen to be taken out.
//!
//! In: the names that a client must not say ([`forged`]), and the stage that strips them. Each name is sent in every
//! spelling, twice, in heads, in trailers and named by `Connection`, over HTTP/1.1 and HTTP/2, through the codec of the
//! listeners, `RawHead`, the routes, the stripped head and a connection pool, to a recording upstream on loopback
//! ([`recorder`]); the operator's upstreams see nothing of it. Every forged value is a canary with a number, so what
//! survives is found wherever it stands and named. A field that must arrive goes with each request: a test that
//! reaches nothing has failed. Absent on purpose: any look at the rules that are tested.

mod forged;
mod recorder;
mod sender;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::forged::{Case, Forgeries};
use self::recorder::Recorder;
use crate::body::Body;
use crate::config::{
    Access, Assurance, ClientTimeouts, LimitsConfig, RouteConfig, Serves, SubjectKind, UpstreamConfig, UpstreamQueue,
    UpstreamServer, UpstreamTimeouts,
};
use crate::edge::{Answers, Connection, Handler, HeadLimits, RawHead, Scheme, TrustedProxies};
use crate::privacy::Canary;
use crate::tls::UpstreamTls;
use crate::trace::{RequestId, UpstreamCall};
use crate::upstream::{Destination, Ends, Forwarded, Health, LimitedBody, Routes, StripError, StrippedHead, Upstreams};

/// Names each of its requests.
const REQUEST_ID: &str = "00000000000000010000000000000001";

/// The whole test takes some milliseconds; what takes this long will not end.
const DEADLINE: Duration = Duration::from_secs(30);

/// One lost rule shows in about twenty ways.
const MOST_LINES: usize = 20;

/// The stage under test. Production passes [`StrippedHead::of`] with the carriers' reserved fields.
pub(super) type Strip = dyn Fn(RawHead) -> Result<StrippedHead, StripError> + Send + Sync;

/// Why the gateway may not become ready.
#[derive(Debug, Error)]
pub(super) enum SelfTestError {
    /// A client could say what only the gateway, or a carrier's gateway, may say.
    #[error("forged header fields reach upstreams")]
    Survived(Vec<Survivor>),
    /// Nothing was proved.
    #[error("the self-test could not be carried out: {0}")]
    NotCarriedOut(String),
}

impl SelfTestError {
    /// What survived, or why nothing was proved, a line each.
    pub(super) fn problems(&self) -> Vec<String> {
        match self {
            Self::NotCarriedOut(_) => vec![self.to_string()],
            Self::Survived(survivors) => {
                let line = |Survivor { spelling, way, protocol }: &Survivor| {
                    format!("a forged field would reach upstreams: {spelling} ({way}, {protocol})")
                };
                survivors.iter().take(MOST_LINES).map(line).collect()
            }
        }
    }

    /// Tells the operator.
    pub(super) fn log(&self) {
        match self {
            Self::NotCarriedOut(_) => {
                tracing::error!(error = %self, "handsets are answered 503 until it passes");
            }
            Self::Survived(survivors) => {
                for Survivor { spelling, way, protocol } in survivors.iter().take(MOST_LINES) {
                    tracing::error!(
                        field = %spelling, %way, %protocol,
                        "a forged field would reach upstreams; handsets are answered 503",
                    );
                }
                tracing::error!(count = survivors.len(), "the build or its data lacks a rule; run another version");
            }
        }
    }
}

/// A forged field that reached the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Survivor {
    /// As it was sent.
    pub(super) spelling: String,
    pub(super) way: Way,
    pub(super) protocol: Protocol,
}

/// Where a forged field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Head,
    Trailer,
    /// In the head, and `Connection` names it.
    Connection,
}

/// By which protocol a client sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Trailer => "trailer",
            Self::Connection => "connection",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// Sends `names` in every way through `strip`; `canary` begins every value.
///
/// # Errors
/// [`SelfTestError`]: all that survived, or why nothing was proved.
pub(super) async fn run(names: &[String], strip: Arc<Strip>, canary: &Canary) -> Result<(), SelfTestError> {
    let forgeries = Forgeries::of(names, canary);
    let testing = test(&forgeries, strip);
    match tokio::time::timeout(DEADLINE, testing).await {
        Ok(outcome) => outcome,
        Err(_) => Err(not_carried_out("it did not end in time")),
    }
}

async fn test(forgeries: &Forgeries, strip: Arc<Strip>) -> Result<(), SelfTestError> {
    let recorder = Recorder::start(&forgeries.canary).await.map_err(not_carried_out)?;
    let stage = Arc::new(Stage::new(recorder.address, strip).map_err(not_carried_out)?);
    let of = |protocol| forgeries.cases.iter().enumerate().filter(move |(_, case)| case.protocol == protocol);
    let (first, second) = tokio::join!(
        sender::http1(Arc::clone(&stage), of(Protocol::Http1)),
        sender::http2(Arc::clone(&stage), of(Protocol::Http2)),
    );
    let seen = recorder.stop();
    let survivors: Vec<Survivor> = seen.forged.iter().filter_map(|number| forgeries.survivor(*number)).collect();
    if !survivors.is_empty() {
        return Err(SelfTestError::Survived(survivors));
    }
    first.and(second).map_err(not_carried_out)?;
    // What names a protected field in `Connection` may be refused; everything else has to arrive.
    let arrived = |(number, case): (usize, &Case)| match case.way {
        Way::Head => seen.heads.contains(&number),
        Way::Trailer => seen.trailers.contains(&number),
        Way::Connection => true,
    };
    if forgeries.cases.is_empty() || !forgeries.cases.iter().enumerate().all(arrived) {
        return Err(not_carried_out("a request did not arrive whole"));
    }
    Ok(())
}

fn not_carried_out(error: impl fmt::Display) -> SelfTestError {
    SelfTestError::NotCarriedOut(error.to_string())
}

/// The way of a proxied request without what decides about its client: codec, head, routes, strip, pool.
struct Stage {
    strip: Arc<Strip>,
    routes: Routes,
    proxies: TrustedProxies,
    upstreams: Upstreams,
    request_id: RequestId,
    shutdown: CancellationToken,
}

impl Stage {
    fn new(upstream: SocketAddr, strip: Arc<Strip>) -> Result<Self, &'static str> {
        let server = UpstreamServer::Tcp { https: false, host: upstream.ip().to_string(), port: upstream.port() };
        let config = UpstreamConfig {
            name: "self-test".to_owned(),
            servers: vec![server],
            audience: String::new(),
            may_bind: false,
            subject: SubjectKind::Pairwise,
            ca: None,
            client_certificate: None,
            connections: 16,
            queue: UpstreamQueue { length: 16, time: DEADLINE },
            health: None,
            timeout: UpstreamTimeouts { connect: DEADLINE, first_byte: DEADLINE, idle: DEADLINE },
        };
        let health = Health::new(std::slice::from_ref(&config), None, 0);
        let tls = UpstreamTls::load(&[]).map_err(|_| "TLS cannot be set up")?;
        Ok(Self {
            strip,
            routes: Routes::new(vec![RouteConfig {
                path: "/".to_owned(),
                upstream: 0,
                access: Access::Public,
                assurance: Assurance::Device,
                body_bytes: 1024,
            }]),
            proxies: TrustedProxies::new(Vec::new()),
            upstreams: Upstreams::new(std::slice::from_ref(&config), &Arc::new(tls), &health, &limits(), None, None),
            request_id: RequestId::parse(REQUEST_ID).ok_or("its request has no name")?,
            shutdown: CancellationToken::new(),
        })
    }

    async fn pass(&self, connection: Connection, request: Request<Incoming>) -> Option<Response<Body>> {
        let (parts, body) = request.into_parts();
        let LimitsConfig { head_bytes, headers, url_bytes, .. } = limits();
        let head = RawHead::read(parts, &HeadLimits { head_bytes, headers, url_bytes }).ok()?;
        let client = self.proxies.resolve(connection.peer.ip(), connection.scheme, &head).ok()?;
        let Ok(Destination::Route(route)) = self.routes.find(head.path()) else { return None };
        let upstream = route.upstream;
        let call = UpstreamCall::default();
        let forwarded = Forwarded { client: &client, request_id: &self.request_id, call: &call };
        let request = (self.strip)(head).ok()?.with(None, &forwarded);
        let answered = self
            .upstreams
            .send(
                upstream,
                request,
                LimitedBody { body: body.into(), most_bytes: 1024 },
                None,
                Ends { session: None, shutdown: &self.shutdown },
            )
            .await
            .ok()?;
        Some(answered.response)
    }
}

impl Handler for Stage {
    type Kept = ();

    fn handle(
        self: &Arc<Self>,
        connection: Connection,
        (): &(),
        request: Request<Incoming>,
    ) -> impl Answers + Send + use<> {
        let stage = Arc::clone(self);
        async move {
            stage.pass(connection, request).await.unwrap_or_else(|| {
                let mut refusal = Response::new(Body::empty());
                *refusal.status_mut() = StatusCode::BAD_REQUEST;
                refusal
            })
        }
    }
}

/// As if from a client on a documentation network (RFC 5737).
const CLIENT: Connection = Connection {
    peer: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1),
    scheme: Scheme::Http,
    serves: Serves::Handset,
};

/// Room for many forged fields in one request.
fn limits() -> LimitsConfig {
    let rate = crate::config::Rate { count: 1, period: DEADLINE };
    LimitsConfig {
        sign_in: rate,
        code: rate,
        pin: rate,
        network: rate,
        head_bytes: 64 * 1024,
        headers: forged::MOST_FIELDS,
        body_bytes: 1024,
        url_bytes: 1024,
        connections: None,
        connections_per_address: 1,
        requests: None,
        timeouts: ClientTimeouts {
            handshake: DEADLINE,
            head: DEADLINE,
            body_idle: DEADLINE,
            write_idle: DEADLINE,
            keep_alive: DEADLINE,
        },
    }
}

#[cfg(test)]
mod tests;
