//! One connection: HTTP/1.1 or HTTP/2 until its client, a time-out or the end of the gateway ends it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Due, Protocol, Watchdog};
use super::cork::{Cork, corked};
use super::http1::Http1;
use super::interim::{Answers, Before};
use super::outbox::Outbox;
use super::terms::Place;
use super::turned_away::{Complaints, TurnedAway};
use super::watched::{Answer, RequestGuard, Watched};
use crate::body::Body;
use crate::config::{LimitsConfig, Serves};
use crate::edge::Scheme;

/// What a connection is before its first byte is read.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Who connected: a client, or a trusted proxy.
    pub peer: SocketAddr,
    /// `Https` if this very connection is TLS.
    pub scheme: Scheme,
    /// What its listener serves.
    pub serves: Serves,
}

/// Answers requests; one instance a worker, so that what it holds is never shared between cores.
pub trait Handler: Send + Sync + 'static {
    /// What it keeps with a connection from one request to the next, as long as hyper serves it: what was quiet for a moment is parked
    /// without.
    type Kept: Default + Send + Unpin + 'static;

    /// Answers one request. A panic, before there is something to poll or in it, is answered with 500 and ends nothing else, so what requests share must
    /// stand one that stops between any two awaits.
    fn handle(
        self: &Arc<Self>,
        connection: Connection,
        kept: &Self::Kept,
        request: Request<Incoming>,
    ) -> impl Answers + Send + use<Self>;

    /// A connection ended before its first request, or by one that cannot be read.
    fn turned_away(&self, why: TurnedAway) {
        let _ = why;
    }
}

/// Requests of one HTTP/2 connection at once (RFC 9113 §5.1.2 recommends no fewer than 100).
const STREAMS: u32 = 128;
/// Bytes of request bodies that one stream, and one connection, may send ahead of us.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of answers kept for one stream while its client does not take them.
const SEND_BUFFER: usize = 64 * 1024;
/// How long an HTTP/2 client may leave a PING unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves the connections of one worker.
pub(super) struct Server<H> {
    handler: Arc<H>,
    /// Where its connections leave what they write, if they do.
    pub(super) outbox: Option<Arc<Outbox>>,
    complaints: Complaints,
}

/// Serves one stream as a listener serves its connections, until the client ends it; `http2` as if TLS had agreed on
/// it. For the gateway's test of itself, which needs no port.
pub(crate) async fn serve_stream<H, T>(
    handler: Arc<H>,
    stream: T,
    http2: bool,
    connection: Connection,
    limits: &LimitsConfig,
) where
    H: Handler,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
    Server::new(handler, None).serve(stream, protocol, connection, limits, &CancellationToken::new(), None).await;
}

impl<H: Handler> Server<H> {
    pub(super) fn new(handler: Arc<H>, outbox: Option<Arc<Outbox>>) -> Self {
        Self { handler, outbox, complaints: Complaints::new() }
    }

    /// Counts a connection that ends without a request, and says so if it was not just said.
    pub(super) fn turn_away(&self, why: TurnedAway, error: &dyn std::fmt::Display) {
        self.handler.turned_away(why);
        self.complaints.say(why, error);
    }

    /// Serves requests within `limits` until the connection ends, or, once its requests have, after `closing` fired; an
    /// upgraded stream belongs to the handler from then on, and so does its place.
    pub(super) async fn serve<T>(
        &self,
        stream: T,
        protocol: Protocol,
        connection: Connection,
        limits: &LimitsConfig,
        closing: &CancellationToken,
        place: Option<Place>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new(protocol);
        let watchdog = Watchdog::new(Arc::clone(&activity), &limits.timeouts);
        let stream = Watched::new(stream, Arc::clone(&activity), place);
        let service = || {
            let (handler, activity, kept) = (Arc::clone(&self.handler), Arc::clone(&activity), H::Kept::default());
            service_fn(move |request: Request<Incoming>| {
                if request.extensions().get::<OnUpgrade>().is_some() {
                    activity.upgrade_asked();
                }
                activity.has_body(request.body().size_hint().exact());
                // RFC 9110 §15.2: to HTTP/1.0 nothing is said but the answer.
                let hears = activity.protocol() == Protocol::Http1 && request.version() == Version::HTTP_11;
                let guard = Some(RequestGuard::new(&activity));
                // A panic is an answer too, before there is something to poll and in it.
                let handling = catch_unwind(AssertUnwindSafe(|| handler.handle(connection, &kept, request)));
                Answering { handling: handling.ok(), guard, hears, held_back: None }
            })
        };
        match protocol {
            Protocol::Http1 => {
                let closing = pin!(closing.cancelled());
                let ended = Http1::new(stream, service, watchdog, limits, closing).await;
                if let Some(error) = ended.filter(hyper::Error::is_parse) {
                    self.turn_away(TurnedAway::Unreadable, &error);
                }
            }
            Protocol::Http2 => {
                let (stream, cork) = corked(stream);
                let serving = http2_within(limits).serve_connection(TokioIo::new(stream), service());
                let serving = Uncorking { serving, cork };
                // Boxed, so that HTTP/1 over TLS does not keep the room that HTTP/2 needs.
                Box::pin(drive(serving, watchdog, closing, |uncorking| {
                    Pin::new(&mut uncorking.get_mut().serving).graceful_shutdown();
                }))
                .await;
            }
        }
    }
}

fn http2_within(limits: &LimitsConfig) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        // Each field counts 32 bytes more than it has (RFC 9113 §6.5.2).
        .max_header_list_size(u32::try_from(limits.head_bytes + 32 * limits.headers).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.timeouts.write_idle)
        .keep_alive_timeout(PING_TIMEOUT);
    http2
}

async fn drive<C>(serving: C, mut watchdog: Watchdog, closing: &CancellationToken, close: impl Fn(Pin<&mut C>))
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut serving = pin!(serving);
    let mut closing = pin!(closing.cancelled());
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            // First, so that an answer that ends now already says that it is the last.
            () = &mut closing, if !told => {
                told = true;
                close(serving.as_mut());
            }
            ended = serving.as_mut() => {
                // hyper's errors name a kind and never what was sent.
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            due = poll_fn(|cx| watchdog.poll_due(cx)) => match due {
                Due::Park => {}
                Due::End => close(serving.as_mut()),
                Due::Cut => {
                    tracing::debug!("connection cut: its client kept it waiting");
                    return;
                }
            },
        }
    }
}

/// An HTTP/2 connection, whose frames leave when it was polled.
struct Uncorking<C, T> {
    serving: C,
    cork: Cork<T>,
}

impl<C, T> Future for Uncorking<C, T>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
    T: AsyncWrite + Unpin,
{
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let this = self.get_mut();
        let ended = Pin::new(&mut this.serving).poll(cx);
        match (ended, this.cork.poll_out(cx)) {
            // Its client is gone, which reading finds out as well, only later.
            (Poll::Pending, Poll::Ready(Err(_))) => Poll::Ready(Ok(())),
            (ended, _) => ended,
        }
    }
}

pin_project! {
    /// A request that is being answered, in the room that hyper has for it; none where a panic came before there was something to poll.
    struct Answering<A> {
        #[pin]
        handling: Option<A>,
        guard: Option<RequestGuard>,
        // Whether its client may be told something before its answer.
        hears: bool,
        // The answer, while something before it has still to go.
        held_back: Option<Box<Response<Body>>>,
    }
}

impl<A: Answers> Future for Answering<A> {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(guard) = this.guard.as_ref() else { unreachable!("it is polled to its end once") };
        let unsaid = &guard.activity().unsaid;
        if this.held_back.is_none() {
            let before = Before::new(this.hears.then(|| guard.activity()));
            let response = ready!(poll_caught(this.handling.as_mut(), cx, &before));
            if !unsaid.is_any() {
                return Poll::Ready(Ok(guarded(this.guard, response)));
            }
            this.handling.set(None);
            *this.held_back = Some(Box::new(response));
        }
        // The stream wakes this task when it has gone.
        match this.held_back.take_if(|_| !unsaid.is_any()) {
            Some(response) => Poll::Ready(Ok(guarded(this.guard, *response))),
            None => Poll::Pending,
        }
    }
}

/// The answer, or that to a request whose handler panicked, now or before there was something to poll.
fn poll_caught<A: Answers>(
    mut handling: Pin<&mut Option<A>>,
    cx: &mut Context<'_>,
    before: &Before<'_>,
) -> Poll<Response<Body>> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut handling = Unwound(handling.as_mut());
        handling.0.as_mut().as_pin_mut().map(|handling| handling.poll_answer(cx, before))
    }));
    if let Ok(Some(polled)) = polled {
        return polled;
    }
    // What the panic says may quote the request.
    tracing::error!("a request handler panicked; answered 500");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    Poll::Ready(response)
}

/// Goes with what panics while it is polled: what tells of its end then knows why.
struct Unwound<'a, A>(Pin<&'a mut Option<A>>);

impl<A> Drop for Unwound<'_, A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set(None);
        }
    }
}

/// Its request lasts as long as this answer.
fn guarded(guard: &mut Option<RequestGuard>, response: Response<Body>) -> Response<Answer> {
    let Some(guard) = guard.take() else { unreachable!("it is answered once") };
    guard.answer(response)
}
