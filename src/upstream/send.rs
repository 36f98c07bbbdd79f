//! [`UpstreamRequest`] -> answer: connections, time-outs, streamed bodies. No identity decision.
//!
//! A request is sent twice only if nothing of it can have reached a server: no connection could be made, or an idle
//! one had been closed before the request was written (the codec then gives it back).

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{self, BindClaim};
use super::connect::{Blame, connect};
use super::flow::{Progress, RequestBody, UpstreamBody};
use super::health::Health;
use super::line::Full;
use super::link::Link;
use super::pool::{Lease, Place, Server, Vacancy};
use super::sanitize::UpstreamRequest;
use super::servers::{NoPlace, Servers};
use super::splice::splice;
use crate::body::{Body, BodyError};
use crate::config::{LimitsConfig, UpstreamConfig, UpstreamTimeouts};
use crate::edge::{ClientBody, Outbox};
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
    all: Vec<Upstream>,
    tls: Arc<UpstreamTls>,
    body_idle: Duration,
    /// Where requests leave by, if they do.
    outbox: Option<Arc<Outbox>>,
}

/// A client's body, and how much of it there may be.
pub struct LimitedBody {
    /// The body.
    pub body: ClientBody,
    /// Bytes that its route takes.
    pub most_bytes: u64,
}

/// An upstream's answer.
pub struct Answered {
    /// Its head, hop-by-hop and gateway fields taken out, its body streaming.
    pub response: Response<Body>,
    /// What it said to the gateway of whom the handset should be bound to.
    pub bind: Option<BindClaim>,
}

struct Upstream {
    /// Its index in the configuration.
    index: usize,
    name: Box<str>,
    servers: Arc<Servers>,
    timeout: UpstreamTimeouts,
}

/// An exchange with an upstream that has begun.
struct Begun<'u> {
    upstream: &'u Upstream,
    sending: Sending,
    progress: Option<Arc<Progress>>,
    upgrade: Option<OnUpgrade>,
}

/// How far a request is.
enum Sending {
    /// On its way, as nearly all are at once.
    Asked(Asked),
    /// It has no connection yet. Boxed, as all that most requests do not do; `None` once it was begun.
    Unsent(Option<Box<Unsent>>),
}

struct Unsent {
    found: Result<Place, NoPlace>,
    request: Request<RequestBody>,
}

/// A request on its way over a connection.
struct Asked {
    /// Until there is an answer.
    lease: Option<Lease>,
    asking: Asking,
}

/// The codec's part of it: keeps room for the request, should it come back.
type Asking = Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + Send>>;

impl Asked {
    fn ask(mut lease: Lease, request: Request<RequestBody>) -> Self {
        let asking = Box::pin(lease.link.sender.try_send_request(request));
        Self { lease: Some(lease), asking }
    }

    /// No answer came; `outright`: the request never reached the server.
    fn note_failure(&self, upstream: &Upstream, outright: bool) {
        if let Some(lease) = &self.lease {
            upstream.note_failure(lease.outstanding.server(), lease.link.asked_at, outright);
        }
    }
}

/// Why there is no answer to what was asked.
enum Unanswered {
    /// The connection was closed before the request was written, which is back.
    Returned(Box<Request<RequestBody>>),
    Failed(UpstreamError),
}

impl From<UpstreamError> for Unanswered {
    fn from(error: UpstreamError) -> Self {
        Self::Failed(error)
    }
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
    /// What was revoked, perhaps while its request waited for something else, is neither asked nor answered any more.
    fn check(&self) -> Result<(), UpstreamError> {
        if self.session.is_some_and(|end| end.has_come()) { Err(UpstreamError::SessionEnded) } else { Ok(()) }
    }

    /// Resolves when the session ends or the gateway stops.
    fn any(self) -> impl Future<Output = ()> + Send + 'static {
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

impl Upstreams {
    /// The upstreams in the order of the configuration. `tls` and `health` were built from the same ones and are shared by
    /// all workers. The connections of `former`, this worker's until now, are kept to servers that an upstream of the same
    /// name has still, and that are believed by the same authorities and shown the same certificate.
    #[must_use]
    pub fn new(
        upstreams: &[UpstreamConfig],
        tls: Arc<UpstreamTls>,
        health: &Health,
        limits: &LimitsConfig,
        former: Option<&Self>,
        outbox: Option<Arc<Outbox>>,
    ) -> Self {
        let upstream = |(index, config): (usize, &UpstreamConfig)| {
            let same = |known: &&Upstream| *known.name == *config.name;
            let former = former.and_then(|former| {
                let known = former.all.iter().find(same)?;
                (former.tls.material(known.index) == tls.material(index)).then_some(&*known.servers)
            });
            Upstream {
                index,
                name: config.name.as_str().into(),
                servers: Arc::new(Servers::new(config, health.of(index), former)),
                timeout: config.timeout,
            }
        };
        Self {
            all: upstreams.iter().enumerate().map(upstream).collect(),
            tls,
            body_idle: limits.timeouts.body_idle,
            outbox,
        }
    }

    /// Sends the request and gives back the answer.
    ///
    /// `upstream` is an index into `Config::upstreams`. An upgrade (101) is spliced in a task of its own until both
    /// sides close or one of `ends` fires; bodies fail when their session ends. Dropping the future, or the answer's
    /// body, ends the exchange with the upstream.
    ///
    /// # Errors
    /// [`UpstreamError`]; once a head was given back, failures show in its body.
    pub fn send<'a>(
        &'a self,
        upstream: usize,
        request: UpstreamRequest,
        body: LimitedBody,
        upgrade: Option<OnUpgrade>,
        ends: Ends<'a>,
    ) -> impl Future<Output = Result<Answered, UpstreamError>> + Send + 'a {
        // Composed, and sent where a connection is idle, before there is a future, which would carry the room for all that.
        let mut begun = self.begin(upstream, request, body, upgrade, ends);
        async move {
            // In place: what is moved out of a future's captures has room in it twice.
            let Begun { upstream, sending, progress, upgrade } = begun.as_mut().map_err(|error| *error)?;
            let progress = progress.as_deref();
            let (lease, response) = match sending {
                Sending::Asked(asked) => match upstream.answer(asked, progress).await {
                    Ok(response) => (asked.lease.take(), response),
                    Err(Unanswered::Failed(error)) => return Err(error),
                    Err(Unanswered::Returned(request)) => {
                        asked.lease = None;
                        let again =
                            self.exchange(upstream, upstream.servers.place(Instant::now()), request, progress, ends);
                        let (lease, response) = Box::pin(again).await?;
                        (Some(lease), response)
                    }
                },
                Sending::Unsent(unsent) => {
                    let Some(Unsent { found, request }) = unsent.take().map(|unsent| *unsent) else {
                        return Err(UpstreamError::Unreachable);
                    };
                    let sending = self.exchange(upstream, found, Box::new(request), progress, ends);
                    let (lease, response) = Box::pin(sending).await?;
                    (Some(lease), response)
                }
            };
            let lease = lease.ok_or(UpstreamError::Unreachable)?;
            upstream.answered(lease, response, upgrade.take(), ends)
        }
    }

    fn begin(
        &self,
        upstream: usize,
        request: UpstreamRequest,
        body: LimitedBody,
        upgrade: Option<OnUpgrade>,
        ends: Ends<'_>,
    ) -> Result<Begun<'_>, UpstreamError> {
        let upstream = self.all.get(upstream).ok_or(UpstreamError::Unreachable)?;
        let LimitedBody { body, most_bytes } = body;
        if body.size_hint().lower() > most_bytes {
            return Err(UpstreamError::BodyTooLarge);
        }
        ends.check()?;
        let upgrade = upgrade.filter(|_| request.upgrade);
        let (body, progress) = RequestBody::new(body, most_bytes, self.body_idle, ends.session);
        let request = compose(request, body, upgrade.is_some());
        let sending = match upstream.servers.place(Instant::now()) {
            Ok(Place::Idle(lease)) => Sending::Asked(Asked::ask(lease, request)),
            found => Sending::Unsent(Some(Box::new(Unsent { found, request }))),
        };
        Ok(Begun { upstream, sending, progress, upgrade })
    }

    /// Sends the request over the connection that was `found` for it, or over another one where that was closed.
    async fn exchange(
        &self,
        upstream: &Upstream,
        mut found: Result<Place, NoPlace>,
        mut request: Box<Request<RequestBody>>,
        progress: Option<&Progress>,
        ends: Ends<'_>,
    ) -> Result<(Lease, Response<Incoming>), UpstreamError> {
        let mut tries = upstream.servers.len();
        loop {
            ends.check()?;
            let leased = match found {
                Ok(Place::Idle(lease)) => Some((lease, false)),
                found => self.lease(upstream, found, ends).await?,
            };
            if let Some((lease, is_new)) = leased {
                let mut asked = Asked::ask(lease, *request);
                match upstream.answer(&mut asked, progress).await {
                    Ok(response) => {
                        let lease = asked.lease.ok_or(UpstreamError::Unreachable)?;
                        return Ok((lease, response));
                    }
                    Err(Unanswered::Failed(error)) => return Err(error),
                    Err(Unanswered::Returned(returned)) => {
                        if is_new {
                            asked.note_failure(upstream, true);
                            tries -= 1;
                        }
                        // Else it was idle and is closed; the next one may not be.
                        request = returned;
                    }
                }
            } else {
                tries -= 1;
            }
            if tries == 0 {
                return Err(UpstreamError::Unreachable);
            }
            found = upstream.servers.place(Instant::now());
        }
    }

    /// A connection for a request that `found` none idle, and whether it is new: opened, or waited for. `None` if the server
    /// cannot be reached.
    async fn lease(
        &self,
        upstream: &Upstream,
        found: Result<Place, NoPlace>,
        ends: Ends<'_>,
    ) -> Result<Option<(Lease, bool)>, UpstreamError> {
        let line = &upstream.servers.line;
        let end = Instant::now() + upstream.servers.queue.time;
        let leasing = async {
            let mut place = match found {
                Ok(place) => place,
                Err(NoPlace::NoneHealthy) => return Err(UpstreamError::NoneHealthy),
                Err(NoPlace::Full) => {
                    let waiting = line.wait(&upstream.name, &upstream.servers);
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
                match self.open(upstream, vacancy).await {
                    Ok(lease) => return Ok(Some((lease, true))),
                    Err(NotOpened::Unreachable) => return Ok(None),
                    Err(NotOpened::NoneLeft) => {
                        let waiting = line.beside.wait(&upstream.name, &upstream.servers, end);
                        place = waiting.await.map_err(|Full| UpstreamError::Full)?;
                    }
                }
            }
        };
        match ends.session {
            Some(end) => end.before(pin!(leasing)).await.unwrap_or(Err(UpstreamError::SessionEnded)),
            None => leasing.await,
        }
    }

    async fn open(&self, upstream: &Upstream, vacancy: Vacancy) -> Result<Lease, NotOpened> {
        let Vacancy { slot, outstanding } = vacancy;
        let (server, begun) = (outstanding.server(), Instant::now());
        let place = (Some(slot), self.outbox.as_ref());
        match connect(&self.tls, upstream.index, &server.address, upstream.timeout.connect, place).await {
            Ok((sender, connection)) => Ok(Lease { link: Box::new(Link::new(sender, connection)), outstanding }),
            Err(error) => {
                let blame = error.blame();
                if blame == Blame::Ours {
                    if upstream.servers.line.beside.is_news() {
                        tracing::warn!(
                            upstream = %upstream.name, %error,
                            "no connection to an upstream can be opened; requests wait for those that are open (is LimitNOFILE too low?)",
                        );
                    }
                    return Err(NotOpened::NoneLeft);
                }
                tracing::warn!(
                    upstream = %upstream.name, server = %server.address, %error,
                    "cannot connect to the upstream's server; check that it runs and upstream.servers names it",
                );
                upstream.note_failure(server, begun, blame == Blame::Outright);
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

impl Upstream {
    /// The answer to what was asked.
    async fn answer(&self, asked: &mut Asked, progress: Option<&Progress>) -> Result<Response<Incoming>, Unanswered> {
        let Asked { lease: Some(lease), asking } = asked else { return Err(UpstreamError::Unreachable.into()) };
        let link = &mut lease.link;
        let answered = poll_fn(|cx| {
            if let Poll::Ready(answered) = link.poll(cx, |cx| asking.as_mut().poll(cx)) {
                return Poll::Ready(Some(answered));
            }
            // While the client's body flows, or is waited for, the upstream need not answer.
            let asked_at = link.asked_at;
            let since = progress.map_or(asked_at, |progress| progress.owes_since(Instant::now()).max(asked_at));
            link.alarm.poll_at(since + self.timeout.first_byte, cx).map(|()| None)
        });
        let error = match answered.await {
            Some(Ok(response)) => {
                // From here on it moves with the answer; a body that is still being sent must not wait for who reads that.
                if progress.is_some_and(|progress| !progress.has_gone()) {
                    lease.link.drive_apart();
                }
                self.note_answer(lease);
                return Ok(response);
            }
            Some(Err(mut error)) => match error.take_message() {
                Some(returned) => return Err(Unanswered::Returned(Box::new(returned))),
                None => blame(&error.into_error()),
            },
            None => UpstreamError::Timeout,
        };
        // To give up on a client that keeps it waiting is no fault of the server.
        if matches!(error, UpstreamError::Unreachable | UpstreamError::Timeout)
            && !progress.is_some_and(Progress::was_owed)
        {
            asked.note_failure(self, false);
        }
        Err(error.into())
    }

    /// A sound answer came, whatever it says.
    fn note_answer(&self, lease: &Lease) {
        let server = lease.outstanding.server();
        if server.standing.ejection.answered(lease.link.asked_at) {
            tracing::info!(upstream = %self.name, server = %server.address, "the upstream's server answers again");
        }
    }

    /// None came to what was asked at `asked_at`; `outright`: it never reached the server.
    fn note_failure(&self, server: &Server, asked_at: Instant, outright: bool) {
        if let Some(length) = self.servers.failed(server, asked_at, outright) {
            tracing::warn!(
                upstream = %self.name, server = %server.address, seconds = length.as_secs(),
                "the upstream's server leaves requests without an answer, and gets none for a while",
            );
        }
    }

    /// The answer as it goes on. An upgrade is spliced from here on.
    fn answered(
        &self,
        lease: Lease,
        mut response: Response<Incoming>,
        upgrade: Option<OnUpgrade>,
        ends: Ends<'_>,
    ) -> Result<Answered, UpstreamError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked, so nobody would check what the client says next.
            let Some(client) = upgrade else { return Err(UpstreamError::Unreachable) };
            let server = hyper::upgrade::on(&mut response);
            let Lease { link, outstanding } = lease;
            link.hand_over();
            tokio::spawn(splice(client, server, ends.any(), outstanding));
            let (response, bind) = switching(response);
            return Ok(Answered { response, bind });
        }
        // It may have come to an end while the upstream thought, and not every answer has a body that would be cut.
        ends.check()?;
        let (mut head, body) = response.into_parts();
        let bind = answer::strip(&mut head.headers);
        head.version = Version::HTTP_11;
        let body = Body::Upstream(UpstreamBody::new(body, self.timeout.idle, ends.session, lease));
        Ok(Answered { response: Response::from_parts(head, body), bind })
    }
}

fn blame(error: &hyper::Error) -> UpstreamError {
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(BodyError::TooLarge) => UpstreamError::BodyTooLarge,
        Some(BodyError::Peer(_)) => UpstreamError::BodyMalformed,
        Some(BodyError::Idle) => UpstreamError::BodyIdle,
        Some(BodyError::Ended) => UpstreamError::SessionEnded,
        None => UpstreamError::Unreachable,
    }
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

fn switching(response: Response<Incoming>) -> (Response<Body>, Option<BindClaim>) {
    let (mut head, _) = response.into_parts();
    let protocol = head.headers.get(UPGRADE).cloned();
    let bind = answer::strip(&mut head.headers);
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        head.headers.insert(UPGRADE, protocol);
    }
    head.version = Version::HTTP_11;
    (Response::from_parts(head, Body::empty()), bind)
}
