//! Bodies on their way in both directions: bounded in size and in silence, never collected.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::answer;
use super::pool::Lease;
use crate::body::BodyError;
use crate::edge::ClientBody;

/// A client's body on its way to an upstream.
pub(super) struct RequestBody {
    inner: ClientBody,
    /// Bytes that may still come.
    left: u64,
    watch: Watch,
    progress: Option<Arc<Progress>>,
}

impl RequestBody {
    /// Fails past `limit` bytes, when the client is silent for `idle`, or when its session `ended`. `progress` is there
    /// unless the body is empty.
    pub(super) fn new(
        inner: ClientBody,
        limit: u64,
        idle: Duration,
        ended: Option<&Arc<CancellationToken>>,
    ) -> (Self, Option<Arc<Progress>>) {
        let progress = (!inner.is_end_stream()).then(|| Arc::new(Progress::new()));
        let ended = ended.filter(|_| progress.is_some());
        (Self { inner, left: limit, watch: Watch::new(idle, ended), progress: progress.clone() }, progress)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(this.watch.poll_frame(&mut this.inner, cx));
        if let Some(progress) = &this.progress {
            progress.moved();
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => this.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// When a client's body last moved: the time for the upstream's first byte counts from its last one.
pub(super) struct Progress {
    started: Instant,
    moved_after: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        Self { started: Instant::now(), moved_after: AtomicU64::new(0) }
    }

    fn moved(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_after.store(millis, Ordering::Relaxed);
    }

    /// What is left of `limit` since the last movement.
    pub(super) fn left_of(&self, limit: Duration) -> Option<Duration> {
        let end = Duration::from_millis(self.moved_after.load(Ordering::Relaxed)) + limit;
        end.checked_sub(self.started.elapsed()).filter(|left| !left.is_zero())
    }
}

/// An upstream's body on its way to the client. Its connection goes back to the pool when the last byte has passed;
/// dropped earlier, the connection is closed.
pub struct UpstreamBody {
    inner: Incoming,
    watch: Watch,
    lease: Option<Lease>,
}

impl UpstreamBody {
    /// Fails when the upstream is silent for `idle`, or when the session that it was asked for `ended`.
    pub(super) fn new(inner: Incoming, idle: Duration, ended: Option<&Arc<CancellationToken>>, lease: Lease) -> Self {
        let mut body = Self { inner, watch: Watch::new(idle, ended), lease: Some(lease) };
        body.release_at_end();
        body
    }

    fn release_at_end(&mut self) {
        if self.inner.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(this.watch.poll_frame(&mut this.inner, cx)) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    answer::strip_trailers(trailers);
                }
                this.release_at_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.lease = None;
                Some(Err(error))
            }
            None => {
                this.release();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Notices that a body stands still, or that the session it belongs to has ended. Timer and notice are made when the
/// body is first waited for, and the timer is moved only when it fires, so that a flowing body touches neither.
struct Watch {
    limit: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    ended: Option<Arc<CancellationToken>>,
    notice: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Watch {
    fn new(limit: Duration, ended: Option<&Arc<CancellationToken>>) -> Self {
        Self { limit, since: None, timer: None, ended: ended.cloned(), notice: None }
    }

    fn poll_frame(
        &mut self,
        body: &mut (impl HttpBody<Data = Bytes, Error = hyper::Error> + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended.as_ref().is_some_and(|ended| ended.is_cancelled()) {
            return Poll::Ready(Some(Err(BodyError::Ended)));
        }
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            self.since = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Peer)));
        }
        if let Some(ended) = &self.ended {
            let notice = self.notice.get_or_insert_with(|| Box::pin(CancellationToken::clone(ended).cancelled_owned()));
            if notice.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(BodyError::Ended)));
            }
        }
        let end = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= end {
                return Poll::Ready(Some(Err(BodyError::Idle)));
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_answer_counts_from_the_last_movement() {
        const LIMIT: Duration = Duration::from_secs(30);
        let progress = Progress::new();
        advance(Duration::from_secs(20)).await;
        progress.moved();
        assert_eq!(progress.left_of(LIMIT), Some(LIMIT));
        advance(Duration::from_secs(20)).await;
        assert_eq!(progress.left_of(LIMIT), Some(Duration::from_secs(10)));
        advance(Duration::from_secs(10)).await;
        assert_eq!(progress.left_of(LIMIT), None);
    }
}
