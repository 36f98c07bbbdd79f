//! The end of a session, told to whatever goes on in it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture, WaitForCancellationFutureOwned};

/// Whether a session has ended, for those who look often, and when it does, for those who wait.
///
/// A token alone tells both, the first under a lock that all cores share and each piece of a body would take.
#[derive(Debug, Default)]
pub struct SessionEnd {
    has_come: AtomicBool,
    told: CancellationToken,
}

impl SessionEnd {
    /// The session ends now: when this returns, whoever looks sees it, and whoever waits is woken.
    pub fn come(&self) {
        // First, so that nobody who is told and looks again sees it live.
        self.has_come.store(true, Ordering::Release);
        self.told.cancel();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Acquire)
    }

    /// Resolves when it ends, or at once if it has.
    pub fn comes(&self) -> WaitForCancellationFuture<'_> {
        self.told.cancelled()
    }

    /// The same, for who outlives what it was asked in.
    pub fn comes_owned(&self) -> WaitForCancellationFutureOwned {
        self.told.clone().cancelled_owned()
    }

    /// What `work` comes to, unless the session ends before. The end is waited for only while `work` is.
    pub async fn before<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut coming = pin!(self.comes());
        let outcome = poll_fn(|cx| {
            if self.has_come() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            ready!(coming.as_mut().poll(cx));
            Poll::Ready(None)
        });
        outcome.await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_is_seen_by_who_looks_and_told_to_who_waits() {
        let end = SessionEnd::default();
        let waiting = tokio::spawn(end.comes_owned());
        let mut early = Box::pin(end.comes());
        assert!(!end.has_come() && (&mut early).now_or_never().is_none());
        end.come();
        assert!(end.has_come() && early.now_or_never().is_some() && end.comes().now_or_never().is_some());
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_done_before_the_end_or_not_at_all() {
        let end = SessionEnd::default();
        assert_eq!(end.before(pin!(ready(1))).await, Some(1));
        let cut = async { timeout(Duration::from_secs(1), end.before(pin!(pending::<()>()))).await };
        // In this order: who waits is told.
        let (cut, ()) = tokio::join!(biased; cut, async { end.come() });
        assert_eq!(cut, Ok(None));
        assert_eq!(end.before(pin!(async { unreachable!("it has ended") })).await, None::<()>);
    }
}
