//! [`UpstreamRequest`] -> answer: connections, time-outs, streamed bodies. No identity decision.
//!
//! A request is sent twice only if nothing of it can have reached a server: no connection could be made, or an idle
//! one had been closed before the request was written (the codec then gives it back).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connect::{Blame, connect};
use super::exchange::{Answered, Asked, Exchange, Sending};
use super::flow::RequestBody;
use super::health::Health;
use super::line::Full;
use super::link::Link;
use super::pool::{Lease, Place, Vacancy};
use super::sanitize::UpstreamRequest;
use super::servers::{NoPlace, Servers};
use crate::config::{ClientTimeouts, LimitsConfig, UpstreamConfig, UpstreamTimeouts};
use crate::edge::{Before, ClientBody, Outbox};
use crate::session::SessionEnd;
use crate::tls::UpstreamTls;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No server can be reached in time, or the one that was does not speak HTTP or broke off.
    #[error("upstream-unreachable")]
    Unreachable,
    /// Every server fails its probes.
    #[error("no-healthy-upstream")]
    NoneHealthy,
    /// Every server has as many connections as it may, or this machine has no file for more, and none came free in time.
    #[error("no-healthy-upstream")]
    Full,
    /// The request was sent and no answer came in time.
    #[error("upstream-timeout")]
    Timeout,
    /// The client's body is larger than its route takes.
    #[error("body-too-large")]
    BodyTooLarge,
    /// The client's body breaks its framing, or broke off; then nobody reads the answer.
    #[error("malformed-request")]
    BodyMalformed,
    /// The client's body stood still for too long.
    #[error("request-timeout")]
    BodyIdle,
    /// The session ended while the client's body was on its way.
    #[error("session-expired")]
    SessionEnded,
}

/// What a client is told to wait where no server takes its request now: as long as one is passed over at least.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

impl UpstreamError {
    /// After which time another try may go better, where that is so.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::NoneHealthy | Self::Full => Some(AGAIN_AFTER),
            Self::Unreachable
            | Self::Timeout
            | Self::BodyTooLarge
            | Self::BodyMalformed
            | Self::BodyIdle
            | Self::SessionEnded => None,
        }
    }
}

/// The upstreams of one worker: a small pool of idle connections to each server, never shared between cores.
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
    body_idle: Duration,
    /// For a client that takes nothing of an upgraded connection.
    pub(super) write_idle: Duration,
}

/// A client's body, and how much of it there may be.
pub struct LimitedBody {
    /// The body.
    pub body: ClientBody,
    /// Bytes that its route takes.
    pub most_bytes: u64,
}

/// Why an exchange has not begun.
pub struct NotBegun {
    /// The reason.
    pub error: UpstreamError,
    /// The client's body, of which nothing was read.
    pub unread: ClientBody,
}

/// One upstream, as one worker reaches it. Counted, for the few requests that wait for a connection.
pub(super) struct Upstream {
    /// Its index in the configuration.
    index: usize,
    pub(super) name: Box<str>,
    pub(super) servers: Arc<Servers>,
    pub(super) timeout: UpstreamTimeouts,
    tls: Arc<UpstreamTls>,
    /// Where requests leave by, if they do.
    outbox: Option<Arc<Outbox>>,
}

/// What ends an exchange before its own end.
///
/// By reference: to clone a token takes a lock that all cores share, and most exchanges end by themselves.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The end of the session that it belongs to, if there is one.
    pub session: Option<&'a Arc<SessionEnd>>,
    /// The gateway stops. Answers are let finish; what has no end of its own, an upgraded connection, is not.
    pub shutdown: &'a CancellationToken,
}

impl Ends<'_> {
    /// Resolves when the session ends or the gateway stops.
    pub(super) fn any(self) -> impl Future<Output = ()> + Send + 'static {
        let session = self.session.map(|end| end.comes_owned());
        let shutdown = self.shutdown.clone();
        async move {
            match session {
                Some(session) => tokio::select! {
                    () = session => {}
                    () = shutdown.cancelled() => {}
                },
                None => shutdown.cancelled().await,
            }
        }
    }
}

/// What was revoked, perhaps while its request waited for something else, is neither asked nor answered any more.
pub(super) fn unless_ended(session: Option<&Arc<SessionEnd>>) -> Result<(), UpstreamError> {
    if session.is_some_and(|end| end.has_come()) { Err(UpstreamError::SessionEnded) } else { Ok(()) }
}

impl Upstreams {
    /// The upstreams in the order of the configuration. `tls` and `health` were built from the same ones and are shared by
    /// all workers. The connections of `former`, this worker's until now, are kept to servers that an upstream of the same
    /// name has still, and that are believed by the same authorities and shown the same certificate.
    #[must_use]
    pub fn new(
        upstreams: &[UpstreamConfig],
        tls: &Arc<UpstreamTls>,
        health: &Health,
        limits: &LimitsConfig,
        former: Option<&Self>,
        outbox: Option<&Arc<Outbox>>,
    ) -> Self {
        let upstream = |(index, config): (usize, &UpstreamConfig)| {
            let same = |known: &&Arc<Upstream>| *known.name == *config.name;
            let former = former.and_then(|former| {
                let known = former.all.iter().find(same)?;
                (known.tls.material(known.index) == tls.material(index)).then_some(&*known.servers)
            });
            Arc::new(Upstream {
                index,
                name: config.name.as_str().into(),
                servers: Arc::new(Servers::new(config, health.of(index), former)),
                timeout: config.timeout,
                tls: Arc::clone(tls),
                outbox: outbox.cloned(),
            })
        };
        let ClientTimeouts { body_idle, write_idle, .. } = limits.timeouts;
        Self { all: upstreams.iter().enumerate().map(upstream).collect(), body_idle, write_idle }
    }

    /// Sends the request and gives back the answer, as [`begin`](Self::begin) and [`Exchange::poll_answer`] do.
    ///
    /// # Errors
    /// As they.
    pub async fn send(
        &self,
        upstream: usize,
        request: UpstreamRequest,
        body: LimitedBody,
        upgrade: Option<OnUpgrade>,
        ends: Ends<'_>,
    ) -> Result<Answered, UpstreamError> {
        let begun = self.begin(upstream, request, body, upgrade, ends);
        let mut exchange = begun.map_err(|NotBegun { error, .. }| error)?;
        poll_fn(|cx| exchange.poll_answer(self, ends, cx, &Before::nobody())).await
    }

    /// Composes the request and, where a connection is idle, sends it.
    ///
    /// `upstream` is an index into `Config::upstreams`.
    ///
    /// # Errors
    /// [`NotBegun`]: nothing of it was sent.
    pub fn begin(
        &self,
        upstream: usize,
        request: UpstreamRequest,
        body: LimitedBody,
        upgrade: Option<OnUpgrade>,
        ends: Ends<'_>,
    ) -> Result<Exchange, NotBegun> {
        let index = upstream;
        let upstream = match self.taking(index, &body, ends) {
            Ok(upstream) => upstream,
            Err(error) => return Err(NotBegun { error, unread: body.body }),
        };
        let LimitedBody { body, most_bytes } = body;
        let upgrade = upgrade.filter(|_| request.upgrade);
        let (body, progress) = RequestBody::new(body, most_bytes, self.body_idle, ends.session);
        let request = compose(request, body, upgrade.is_some());
        let sending = match upstream.servers.place(Instant::now()) {
            Ok(Place::Idle(lease)) => Sending::Asked(Asked::ask(lease, request, false, upstream.servers.len())),
            found => {
                let (upstream, end) = (Arc::clone(upstream), ends.session.cloned());
                let tries = upstream.servers.len();
                Sending::Seeking(Box::pin(upstream.seek(found, Box::new(request), tries, end)))
            }
        };
        Ok(Exchange { upstream: index, sending, progress, upgrade })
    }

    /// The upstream, if it may be asked.
    fn taking(&self, upstream: usize, body: &LimitedBody, ends: Ends<'_>) -> Result<&Arc<Upstream>, UpstreamError> {
        let upstream = self.get(upstream)?;
        if body.body.size_hint().lower() > body.most_bytes {
            return Err(UpstreamError::BodyTooLarge);
        }
        unless_ended(ends.session)?;
        Ok(upstream)
    }

    pub(super) fn get(&self, upstream: usize) -> Result<&Arc<Upstream>, UpstreamError> {
        self.all.get(upstream).ok_or(UpstreamError::Unreachable)
    }
}

impl Upstream {
    /// Sends the request over a connection to the place that was `found` for it, or to another one, until so many `tries` have
    /// failed. It has what it needs of whom it was asked by, so that it can be waited for anywhere.
    pub(super) async fn seek(
        self: Arc<Self>,
        mut found: Result<Place, NoPlace>,
        request: Box<Request<RequestBody>>,
        mut tries: usize,
        end: Option<Arc<SessionEnd>>,
    ) -> Result<Asked, UpstreamError> {
        loop {
            unless_ended(end.as_ref())?;
            let leased = match found {
                Ok(Place::Idle(lease)) => Some((lease, false)),
                found => self.lease(found, end.as_deref()).await?,
            };
            if let Some((lease, is_new)) = leased {
                return Ok(Asked::ask(lease, *request, is_new, tries));
            }
            tries -= 1;
            if tries == 0 {
                return Err(UpstreamError::Unreachable);
            }
            found = self.servers.place(Instant::now());
        }
    }

    /// A connection for a request that `found` none idle, and whether it is new: opened for it. `None` if the server
    /// cannot be reached.
    async fn lease(
        &self,
        found: Result<Place, NoPlace>,
        session: Option<&SessionEnd>,
    ) -> Result<Option<(Lease, bool)>, UpstreamError> {
        let line = &self.servers.line;
        let end = Instant::now() + self.servers.queue.time;
        let leasing = async {
            let mut place = match found {
                Ok(place) => place,
                Err(NoPlace::NoneHealthy) => return Err(UpstreamError::NoneHealthy),
                Err(NoPlace::Full) => {
                    let waiting = line.wait(&self.name, &self.servers);
                    waiting.await.map_err(|Full| UpstreamError::Full)?
                }
            };
            loop {
                let vacancy = match place {
                    Place::Idle(mut lease) => {
                        lease.link.asked_at = Instant::now();
                        return Ok(Some((lease, false)));
                    }
                    Place::Vacant(vacancy) => vacancy,
                };
                match self.open(vacancy).await {
                    Ok(lease) => return Ok(Some((lease, true))),
                    Err(NotOpened::Unreachable) => return Ok(None),
                    Err(NotOpened::NoneLeft) => {
                        let waiting = line.beside.wait(&self.name, &self.servers, end);
                        place = waiting.await.map_err(|Full| UpstreamError::Full)?;
                    }
                }
            }
        };
        match session {
            Some(end) => end.before(pin!(leasing)).await.unwrap_or(Err(UpstreamError::SessionEnded)),
            None => leasing.await,
        }
    }

    async fn open(&self, vacancy: Vacancy) -> Result<Lease, NotOpened> {
        let Vacancy { slot, outstanding } = vacancy;
        let (server, begun) = (outstanding.server(), Instant::now());
        let place = (Some(slot), self.outbox.as_ref());
        match connect(&self.tls, self.index, &server.address, self.timeout.connect, place).await {
            Ok(opened) => Ok(Lease { link: Box::new(Link::new(opened)), outstanding }),
            Err(error) => {
                let blame = error.blame();
                if blame == Blame::Ours {
                    if self.servers.line.beside.is_news() {
                        tracing::warn!(
                            upstream = %self.name, %error,
                            "no connection to an upstream can be opened; requests wait for those that are open (is LimitNOFILE too low?)",
                        );
                    }
                    return Err(NotOpened::NoneLeft);
                }
                tracing::warn!(
                    upstream = %self.name, server = %server.address, %error,
                    "cannot connect to the upstream's server; check that it runs and upstream.servers names it",
                );
                self.note_failure(server, begun, blame == Blame::Outright);
                Err(NotOpened::Unreachable)
            }
        }
    }
}

/// Why a connection was not opened.
enum NotOpened {
    /// The server takes none.
    Unreachable,
    /// This machine has no file for it.
    NoneLeft,
}

/// HTTP/1.1, with the framing that the body needs.
fn compose(request: UpstreamRequest, body: RequestBody, upgrades: bool) -> Request<RequestBody> {
    let UpstreamRequest { method, target, mut fields, upgrade, trailer } = request;
    if upgrade && !upgrades {
        fields.remove(UPGRADE);
        fields.remove(CONNECTION);
        if fields.contains_key(TE) {
            fields.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    if body.is_end_stream() {
        if trailer {
            fields.remove(TRAILER);
        }
        // These methods anticipate a body, so its absence is said (RFC 9110 §8.6).
        if matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if body.size_hint().exact().is_none() || trailer {
        // Said for GET too, where the codec would otherwise leave the body out; and where trailers may follow a body
        // of known length, as HTTP/2 allows, because here they need chunks.
        fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut composed = Request::new(body);
    *composed.method_mut() = method;
    *composed.uri_mut() = target;
    *composed.headers_mut() = fields;
    composed
}
