//! HTTP/1 on one stream: hyper while requests come, the stream alone while none do.
//!
//! hyper keeps the 8 KiB that it reads heads into, and its codec, for as long as a connection lives, and most connections wait
//! most of their time. So one that has been quiet is parked: hyper is let go and the stream kept. When bytes come, a new
//! hyper goes on where the last one ended. A busy connection never gets there.

use std::convert::Infallible;
use std::mem::{MaybeUninit, replace};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFuture;

use super::activity::{Due, Watchdog};
use super::closing::Closing;
use super::watched::{Answer, Watched};
use crate::config::LimitsConfig;

/// hyper refuses a smaller buffer.
const SMALLEST_BUFFER: usize = 8 * 1024;
/// hyper reads this many fields without allocating.
const USUAL_HEADERS: usize = 100;
/// Bytes that are taken from a parked stream at once: most heads are shorter, and the rest is hyper's to read.
pub(super) const FIRST: usize = 2 * 1024;

/// A connection to its end: of its client, of its time, or, once its requests have ended, after `closing` fired.
pub(super) struct Http1<'a, 'p, T, F, S>
where
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible>,
{
    state: State<T, S>,
    /// Makes who answers, anew for each hyper.
    service: F,
    watchdog: Watchdog,
    limits: &'a LimitsConfig,
    closing: Closing<'a, 'p>,
}

/// Small: what serves is apart, so that its room is free while nothing does.
enum State<T, S>
where
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible>,
{
    Serving(Box<UpgradeableConnection<TokioIo<Watched<T>>, S>>),
    Parked(Watched<T>),
    /// Nothing is left: its stream was handed over.
    Gone,
}

impl<'a, 'p, T, F, S> Http1<'a, 'p, T, F, S>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> S,
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible>,
{
    pub(super) fn new(
        stream: Watched<T>,
        service: F,
        watchdog: Watchdog,
        limits: &'a LimitsConfig,
        closing: Pin<&'p mut WaitForCancellationFuture<'a>>,
    ) -> Self {
        let state = State::serve(limits, stream, service());
        Self { state, service, watchdog, limits, closing: Closing::new(closing) }
    }

    /// Lets the connection end once its request has.
    fn close(&mut self) {
        self.unpark(Bytes::new());
        if let State::Serving(serving) = &mut self.state {
            Pin::new(&mut **serving).graceful_shutdown();
        }
    }

    /// Lets go of hyper, which is between two requests; gives `Ready` if there is nothing left to keep.
    ///
    /// The last request had no body ([`Activity`](super::activity::Activity)), so all of it was read, and its answer was
    /// written. hyper is asked to end, and does at once, without reading; should it not, the connection ends.
    fn poll_park(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Error>> {
        let State::Serving(serving) = &mut self.state else { return Poll::Pending };
        self.watchdog.parks(true);
        Pin::new(&mut **serving).graceful_shutdown();
        let ended = Pin::new(&mut **serving).poll(cx);
        self.watchdog.parks(false);
        match ended {
            Poll::Pending => self.watchdog.ends(),
            Poll::Ready(Err(error)) => return over(Err(error)),
            Poll::Ready(Ok(())) => {
                let State::Serving(serving) = replace(&mut self.state, State::Gone) else { return Poll::Pending };
                let Some(parts) = serving.into_parts() else { return Poll::Ready(None) };
                // It was given no byte of a next head, or this were no moment to park it.
                if parts.read_buf.is_empty() {
                    self.state = State::Parked(parts.io.into_inner());
                }
            }
        }
        Poll::Pending
    }

    /// Has a new hyper go on with what was `read` of the stream and what is still to come.
    fn unpark(&mut self, read: Bytes) {
        match replace(&mut self.state, State::Gone) {
            State::Parked(mut stream) => {
                stream.put_back(read);
                self.state = State::serve(self.limits, stream, (self.service)());
            }
            other @ (State::Serving(_) | State::Gone) => self.state = other,
        }
    }
}

impl<T, S> State<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible>,
{
    fn serve(limits: &LimitsConfig, stream: Watched<T>, service: S) -> Self {
        Self::Serving(Box::new(within(limits).serve_connection(TokioIo::new(stream), service).with_upgrades()))
    }
}

impl<T, F, S> Future for Http1<'_, '_, T, F, S>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> S + Unpin,
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible> + Unpin,
{
    /// What ended it, where that is a fault.
    type Output = Option<hyper::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // First, so that an answer that ends now already says that it is the last.
        if this.closing.poll(cx).is_ready() {
            this.close();
        }
        loop {
            match &mut this.state {
                State::Serving(serving) => {
                    if let Poll::Ready(ended) = Pin::new(&mut **serving).poll(cx) {
                        return over(ended);
                    }
                    match ready!(this.watchdog.poll_due(cx)) {
                        Due::Park => {
                            if let Poll::Ready(ended) = this.poll_park(cx) {
                                return Poll::Ready(ended);
                            }
                        }
                        Due::End => this.close(),
                        Due::Cut => {
                            tracing::debug!("connection cut: its client kept it waiting");
                            return Poll::Ready(None);
                        }
                    }
                }
                State::Parked(stream) => {
                    let mut room = [MaybeUninit::uninit(); FIRST];
                    let mut read = ReadBuf::uninit(&mut room);
                    if stream.poll_first(cx, &mut read).is_ready() {
                        // An end or an error is there again when hyper reads, which knows what to do.
                        this.unpark(Bytes::copy_from_slice(read.filled()));
                    } else {
                        ready!(this.watchdog.poll_end_of_quiet(cx));
                        this.close();
                    }
                }
                State::Gone => return Poll::Ready(None),
            }
        }
    }
}

fn over(ended: hyper::Result<()>) -> Poll<Option<hyper::Error>> {
    let error = ended.err();
    // hyper's errors name a kind and never what was sent.
    if let Some(error) = &error {
        tracing::debug!(%error, "connection ended");
    }
    Poll::Ready(error)
}

fn within(limits: &LimitsConfig) -> Builder {
    let mut http1 = Builder::new();
    http1
        // The client's end is noticed by the stream (`Watched`), which needs no buffer for that.
        .half_close(true)
        .max_buf_size(limits.head_bytes.max(SMALLEST_BUFFER))
        // The buffer alone is no bound: one read may overshoot it.
        .max_header_size(limits.head_bytes)
        // The watchdog does this, and tells a slow head from an idle connection.
        .header_read_timeout(None);
    if limits.headers > USUAL_HEADERS {
        http1.max_headers(limits.headers);
    }
    http1
}
