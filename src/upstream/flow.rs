//! Bodies on their way in both directions: bounded in size and in silence, never collected.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::answer;
use super::pool::Lease;
use crate::body::BodyError;
use crate::edge::ClientBody;
use crate::session::SessionEnd;

/// Bytes of a body that any server's socket takes at once.
const SMALL: u64 = 64 * 1024;

/// A client's body on its way to an upstream; nothing where there is none, as in most requests.
pub(super) struct RequestBody(Option<Box<Upload>>);

struct Upload {
    inner: ClientBody,
    /// Bytes that may still come.
    left: u64,
    watch: Watch,
    progress: Arc<Progress>,
}

impl RequestBody {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Fails past `limit` bytes, when the client is silent for `idle`, or at the `end` of its session. `progress` is there
    /// unless the body is empty.
    pub(super) fn new(
        inner: ClientBody,
        limit: u64,
        idle: Duration,
        end: Option<&Arc<SessionEnd>>,
    ) -> (Self, Option<Arc<Progress>>) {
        if inner.is_end_stream() {
            return (Self::none(), None);
        }
        let is_small = inner.size_hint().upper().is_some_and(|bytes| bytes <= SMALL);
        let progress = Arc::new(Progress::new(is_small));
        let upload = Upload { inner, left: limit, watch: Watch::new(idle, end), progress: Arc::clone(&progress) };
        (Self(Some(Box::new(upload))), Some(progress))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(upload) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let inner = &mut upload.inner;
        let Poll::Ready(frame) = upload.watch.poll_frame(cx, |cx| Pin::new(inner).poll_frame(cx)) else {
            upload.progress.stands_still();
            return Poll::Pending;
        };
        upload.progress.moved();
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match upload.left.checked_sub(data.len() as u64) {
                Some(left) => upload.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |upload| upload.inner.size_hint())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.progress.is_over.store(true, Ordering::Relaxed);
    }
}

/// When a client's body last moved, and whose turn it is: the time for the upstream's first byte counts from the body's
/// last one, and not while the client owes the next.
pub(super) struct Progress {
    started: Instant,
    moved_after: AtomicU64,
    is_owed: AtomicBool,
    is_over: AtomicBool,
    /// Whether it is known to have few bytes.
    is_small: bool,
}

impl Progress {
    fn new(is_small: bool) -> Self {
        let (is_owed, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { started: Instant::now(), moved_after: AtomicU64::new(0), is_owed, is_over, is_small }
    }

    fn moved(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_after.store(millis, Ordering::Relaxed);
        self.is_owed.store(false, Ordering::Relaxed);
    }

    fn stands_still(&self) {
        self.is_owed.store(true, Ordering::Relaxed);
    }

    /// From when on the upstream owes its first byte, as it looks `now`. While the client owes a piece that is `now`: its
    /// next piece comes no earlier, so who looks again when the time from `now` is over looks in time.
    pub(super) fn owes_since(&self, now: Instant) -> Instant {
        if self.was_owed() && !self.is_over() { now } else { self.moved_at() }
    }

    /// Whether the codec was given all of it, or wants no more.
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether all of it has gone, as far as is known here: what the codec has may stand in its buffer.
    pub(super) fn has_gone(&self) -> bool {
        self.is_over() && self.is_small
    }

    /// Whether the client owes a piece, or did when the exchange ended.
    pub(super) fn was_owed(&self) -> bool {
        self.is_owed.load(Ordering::Relaxed)
    }

    /// When it moved last, or began.
    fn moved_at(&self) -> Instant {
        self.started + Duration::from_millis(self.moved_after.load(Ordering::Relaxed))
    }
}

/// An upstream's body on its way to the client. Its connection goes back to the pool when the last byte has passed;
/// dropped earlier, the connection is closed.
pub struct UpstreamBody {
    inner: Incoming,
    watch: Watch,
    lease: Option<Lease>,
    /// Why no more of it comes, until that is told.
    broken: Option<BodyError>,
}

impl UpstreamBody {
    /// Fails when the upstream is silent for `idle`, or at the `end` of the session that it was asked for.
    pub(super) fn new(inner: Incoming, idle: Duration, end: Option<&Arc<SessionEnd>>, lease: Lease) -> Self {
        let mut body = Self { inner, watch: Watch::new(idle, end), lease: Some(lease), broken: None };
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
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Self { inner, watch, lease, .. } = this;
        let frame = watch.poll_frame(cx, |cx| match lease {
            Some(lease) => lease.link.poll(cx, |cx| Pin::new(&mut *inner).poll_frame(cx)),
            None => Pin::new(inner).poll_frame(cx),
        });
        Poll::Ready(match ready!(frame) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    answer::strip_trailers(trailers);
                }
                this.release_at_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.lease = None;
                // A turn later, so that what the client takes at once has left, the head above all: told of an error hyper lets
                // go of all that it holds.
                this.broken = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
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

/// A timer that is moved only when it fires: what is waited for comes before that nearly always, and then it was not
/// touched.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once it is `end`, which may be another one each time.
    pub(super) fn poll_at(&mut self, end: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            // Whatever the task has done in its turn: what comes without end would put this off without end.
            ready!(pin!(unconstrained(timer.as_mut())).poll(cx));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

/// Notices that a body stands still, or that the session it belongs to has ended. Timer and notice are made when the
/// body is first waited for, so that one that flows touches neither.
struct Watch {
    limit: Duration,
    since: Option<Instant>,
    alarm: Alarm,
    end: Option<Arc<SessionEnd>>,
    notice: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Watch {
    fn new(limit: Duration, end: Option<&Arc<SessionEnd>>) -> Self {
        Self { limit, since: None, alarm: Alarm::default(), end: end.cloned(), notice: None }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        next: impl FnOnce(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.end.as_ref().is_some_and(|end| end.has_come()) {
            return Poll::Ready(Some(Err(BodyError::Ended)));
        }
        if let Poll::Ready(frame) = next(cx) {
            self.since = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Peer)));
        }
        if let Some(end) = &self.end {
            let notice = self.notice.get_or_insert_with(|| Box::pin(end.comes_owned()));
            if notice.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(BodyError::Ended)));
            }
        }
        let end = *self.since.get_or_insert_with(Instant::now) + self.limit;
        self.alarm.poll_at(end, cx).map(|()| Some(Err(BodyError::Idle)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// What a body of such a watch gives, of which more is there, or nothing yet.
    fn frame(watch: &mut Watch, is_there: bool, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = if is_there { Poll::Ready(Some(Ok(Frame::data(Bytes::new())))) } else { Poll::Pending };
        watch.poll_frame(cx, |_| next)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_flows_ends_with_its_session() {
        let end = Arc::new(SessionEnd::default());
        let mut watch = Watch::new(LIMIT, Some(&end));
        let mut next = async || poll_fn(|cx| frame(&mut watch, true, cx)).await;
        assert!(matches!(next().await, Some(Ok(_))));
        end.come();
        assert!(matches!(next().await, Some(Err(BodyError::Ended))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_ends_with_its_session() {
        let end = Arc::new(SessionEnd::default());
        let mut watch = Watch::new(LIMIT, Some(&end));
        let (began, waiting) = (Instant::now(), poll_fn(|cx| frame(&mut watch, false, cx)));
        let (frame, ()) = tokio::join!(biased; waiting, async { end.come() });
        assert!(matches!(frame, Some(Err(BodyError::Ended))) && began == Instant::now());
    }

    async fn pass(seconds: u64) {
        advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_answer_counts_from_the_last_movement() {
        let progress = Progress::new(true);
        pass(20).await;
        progress.moved();
        let last = Instant::now();
        pass(20).await;
        assert_eq!(progress.owes_since(Instant::now()), last);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_answer_does_not_count_while_the_client_owes_a_piece() {
        let (progress, mut alarm) = (Progress::new(true), Alarm::default());
        let mut is_due = async || {
            poll_fn(|cx| Poll::Ready(alarm.poll_at(progress.owes_since(Instant::now()) + LIMIT, cx))).await.is_ready()
        };
        assert!(!is_due().await);
        progress.stands_still();
        pass(50).await;
        assert!(!is_due().await, "the client owes");
        pass(20).await;
        progress.moved();
        // Nobody looks now: what was set has to go off in time for the rest.
        pass(10).await;
        assert!(!is_due().await);
        pass(20).await;
        assert!(is_due().await);
        progress.stands_still();
        pass(50).await;
        progress.is_over.store(true, Ordering::Relaxed);
        assert!(is_due().await, "nothing more can come of it");
        assert!(progress.was_owed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_goes_off_at_the_end_that_it_was_given_last() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (now, end, is_due) in
            [(0, 1, false), (1, 3, false), (2, 3, false), (2, 2, true), (2, 9, false), (9, 9, true)]
        {
            advance(at(now) - Instant::now()).await;
            let due = poll_fn(|cx| Poll::Ready(alarm.poll_at(at(end), cx))).await;
            assert_eq!(due.is_ready(), is_due, "at {now} s for {end} s");
        }
    }
}
