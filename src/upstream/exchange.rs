//! A request on its way to an upstream, and the answer as it goes on.
//!
//! Polled by hand: what an async function keeps over an await, or is given, has room in the future of every request.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::answer::{self, BindClaim};
use super::flow::{Progress, RequestBody, UpstreamBody};
use super::pool::{Lease, Server};
use super::send::{Ends, Upstream, UpstreamError, Upstreams, unless_ended};
use super::splice::{Patience, splice};
use crate::body::{Body, BodyError};
use crate::edge::Before;

/// An upstream's answer.
pub struct Answered {
    /// Its head, hop-by-hop and gateway fields taken out, its body streaming.
    pub response: Response<Body>,
    /// What it said to the gateway of whom the handset should be bound to.
    pub bind: Option<BindClaim>,
}

/// An exchange with an upstream that has begun: what the wait for its answer needs, and no more.
///
/// Dropped, it ends the exchange with the upstream.
pub struct Exchange {
    /// Its index. What is held of the upstream itself would be a borrow, which ends before the wait, or counted, in two locked
    /// instructions a request.
    pub(super) upstream: usize,
    pub(super) sending: Sending,
    pub(super) progress: Option<Arc<Progress>>,
    pub(super) upgrade: Option<OnUpgrade>,
}

/// How far a request is.
pub(super) enum Sending {
    /// On its way, as nearly all are at once.
    Asked(Asked),
    /// It has to get a connection first.
    Seeking(Seeking),
}

/// The way of a request that found no connection idle, to where it has one. Boxed, as all that most requests do not do.
pub(super) type Seeking = Pin<Box<dyn Future<Output = Result<Asked, UpstreamError>> + Send>>;

impl Exchange {
    /// The answer, once it is there; asked no more then. `upstreams` and `ends` are those that it was begun with. What the
    /// server says before its answer is said `before` this one.
    ///
    /// An upgrade (101) is spliced in a task of its own until both sides close or one of `ends` fires; bodies fail when their
    /// session ends.
    ///
    /// # Errors
    /// [`UpstreamError`]; once a head was given back, failures show in its body.
    pub fn poll_answer(
        &mut self,
        upstreams: &Upstreams,
        ends: Ends<'_>,
        cx: &mut Context<'_>,
        before: &Before<'_>,
    ) -> Poll<Result<Answered, UpstreamError>> {
        let upstream = upstreams.get(self.upstream)?;
        let (lease, response) = loop {
            let asked = match &mut self.sending {
                Sending::Asked(asked) => asked,
                Sending::Seeking(seeking) => {
                    self.sending = Sending::Asked(ready!(seeking.as_mut().poll(cx))?);
                    continue;
                }
            };
            match ready!(upstream.poll_asked(asked, self.progress.as_deref(), ends, cx, before)) {
                Ok(answer) => break answer,
                Err(Unanswered::Failed(error)) => return Poll::Ready(Err(error)),
                Err(Unanswered::Returned(request)) => {
                    let tries = asked.returned(upstream)?;
                    let found = upstream.servers.place(Instant::now());
                    let seeking = Arc::clone(upstream).seek(found, request, tries, ends.session.cloned());
                    self.sending = Sending::Seeking(Box::pin(seeking));
                }
            }
        };
        let upgrade = self.upgrade.take().map(|client| (client, upstreams.write_idle));
        Poll::Ready(upstream.answered(lease, response, upgrade, ends))
    }
}

/// A request on its way over a connection.
pub(super) struct Asked {
    /// Until there is an answer.
    lease: Option<Lease>,
    asking: Asking,
    /// Whether the connection was opened for it.
    is_new: bool,
    /// How often a server may still fail it outright, until it is given up.
    tries: usize,
}

/// The codec's part of it: keeps room for the request, should it come back.
type Asking = Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + Send>>;

impl Asked {
    /// Sends the request over this connection, which `is_new` where it was opened for it.
    pub(super) fn ask(mut lease: Lease, request: Request<RequestBody>, is_new: bool, tries: usize) -> Self {
        lease.link.heard.ask();
        let asking = Box::pin(lease.link.sender.try_send_request(request));
        Self { lease: Some(lease), asking, is_new, tries }
    }

    /// The connection was closed before the request was written. Gives how often it may still be tried.
    fn returned(&mut self, upstream: &Upstream) -> Result<usize, UpstreamError> {
        // One that was idle may be closed at any time, and the next may not be.
        if self.is_new {
            self.note_failure(upstream, true);
            self.tries -= 1;
        }
        // Before another is looked for, which this one would count against.
        self.lease = None;
        if self.tries == 0 { Err(UpstreamError::Unreachable) } else { Ok(self.tries) }
    }

    /// No answer came; `outright`: the request never reached the server.
    fn note_failure(&self, upstream: &Upstream, outright: bool) {
        if let Some(lease) = &self.lease {
            upstream.note_failure(lease.outstanding.server(), lease.link.asked_at, outright);
        }
    }
}

/// Why there is no answer to what was asked.
pub(super) enum Unanswered {
    /// The connection was closed before the request was written, which is back.
    Returned(Box<Request<RequestBody>>),
    Failed(UpstreamError),
}

impl From<UpstreamError> for Unanswered {
    fn from(error: UpstreamError) -> Self {
        Self::Failed(error)
    }
}

impl Upstream {
    /// The answer to what was asked, and the connection that it comes by.
    fn poll_asked(
        &self,
        asked: &mut Asked,
        progress: Option<&Progress>,
        ends: Ends<'_>,
        cx: &mut Context<'_>,
        before: &Before<'_>,
    ) -> Poll<Result<(Lease, Response<Incoming>), Unanswered>> {
        let Asked { lease: held, asking, .. } = asked;
        let Some(lease) = held else { return Poll::Ready(Err(UpstreamError::Unreachable.into())) };
        let link = &mut lease.link;
        let polled = link.poll(cx, |cx| asking.as_mut().poll(cx));
        if link.heard.is_any() {
            let may_be_told = unless_ended(ends.session).is_ok();
            for interim in link.heard.take().iter().filter(|_| may_be_told) {
                before.say(interim);
            }
        }
        let error = match polled {
            Poll::Ready(Ok(response)) => {
                // From here on it moves with the answer; a body that is still being sent must not wait for who reads that.
                if progress.is_some_and(|progress| !progress.has_gone()) {
                    link.drive_apart();
                }
                self.note_answer(lease);
                return Poll::Ready(
                    held.take().map(|lease| (lease, response)).ok_or(UpstreamError::Unreachable.into()),
                );
            }
            Poll::Ready(Err(mut error)) => match error.take_message() {
                Some(returned) => return Poll::Ready(Err(Unanswered::Returned(Box::new(returned)))),
                None => blame(&error.into_error()),
            },
            Poll::Pending => {
                // While the client's body flows, or is waited for, the upstream need not answer.
                let asked_at = link.asked_at;
                let since = progress.map_or(asked_at, |progress| progress.owes_since(Instant::now()).max(asked_at));
                ready!(link.alarm.poll_at(since + self.timeout.first_byte, cx));
                UpstreamError::Timeout
            }
        };
        // To give up on a client that keeps it waiting is no fault of the server.
        if matches!(error, UpstreamError::Unreachable | UpstreamError::Timeout)
            && !progress.is_some_and(Progress::was_owed)
        {
            asked.note_failure(self, false);
        }
        Poll::Ready(Err(error.into()))
    }

    /// A sound answer came, whatever it says.
    fn note_answer(&self, lease: &Lease) {
        let server = lease.outstanding.server();
        if server.standing.ejection.answered(lease.link.asked_at) {
            tracing::info!(upstream = %self.name, server = %server.address, "the upstream's server answers again");
        }
    }

    /// None came to what was asked at `asked_at`; `outright`: it never reached the server.
    pub(super) fn note_failure(&self, server: &Server, asked_at: Instant, outright: bool) {
        if let Some(length) = self.servers.failed(server, asked_at, outright) {
            tracing::warn!(
                upstream = %self.name, server = %server.address, seconds = length.as_secs(),
                "the upstream's server leaves requests without an answer, and gets none for a while",
            );
        }
    }

    /// The answer as it goes on. An `upgrade` is spliced from here on, with a client that may take nothing for so long.
    fn answered(
        &self,
        lease: Lease,
        mut response: Response<Incoming>,
        upgrade: Option<(OnUpgrade, Duration)>,
        ends: Ends<'_>,
    ) -> Result<Answered, UpstreamError> {
        // It may have come to an end while the upstream thought, and not every answer has a body that would be cut.
        unless_ended(ends.session)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked, so nobody would check what the client says next.
            let Some((client, write_idle)) = upgrade else { return Err(UpstreamError::Unreachable) };
            let server = hyper::upgrade::on(&mut response);
            let Lease { link, outstanding } = lease;
            link.hand_over();
            let patience = Patience { client: write_idle, upstream: self.timeout.idle };
            tokio::spawn(splice(client, server, patience, ends.any(), outstanding));
            let (response, bind) = switching(response);
            return Ok(Answered { response, bind });
        }
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
