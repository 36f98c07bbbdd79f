//! A request that was brought as far as it comes without waiting, and the wait for its answer.
//!
//! The stages are plain functions, each of which ends in this or in the next one: what an async function holds over an await
//! has room in every request's future, which is copied as a whole to where its connection has it, and most requests wait for their upstream alone.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;

use super::handle::Share;
use super::sent::Sent;
use crate::body::Body;

/// What a request waits for.
pub(super) enum Underway {
    /// The answer of its upstream, as nearly all do.
    Sent(Sent),
    /// Anything else, or nothing more.
    Apart(Apart),
}

/// Boxed, as all that few requests wait for: each would carry the room for it.
pub(super) type Apart = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

impl Underway {
    /// Is answered with this. `unread` is what the gateway did not take of a request that it had accepted: its connection is to be
    /// closed for that when the answer leaves, not before.
    pub(super) fn answered(answer: Response<Body>, unread: impl Send + 'static) -> Self {
        Self::Apart(Box::pin(async move {
            drop(unread);
            answer
        }))
    }

    /// Waits for the answer; asked once.
    pub(super) async fn answer(&mut self, share: &Arc<Share>) -> Response<Body> {
        poll_fn(|cx| self.poll_answer(share, cx)).await
    }

    fn poll_answer(&mut self, share: &Arc<Share>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        loop {
            match self {
                Self::Sent(sent) => match ready!(sent.poll_answer(share, cx)) {
                    Ok(answer) => return Poll::Ready(answer),
                    Err(binding) => *self = Self::Apart(binding),
                },
                Self::Apart(apart) => return apart.as_mut().poll(cx),
            }
        }
    }
}

impl Share {
    /// Waits for what few requests do, and goes on with the stage that this leads to.
    pub(super) fn apart<W>(self: &Arc<Self>, wait: impl FnOnce(Arc<Self>) -> W) -> Underway
    where
        W: Future<Output = Underway> + Send + 'static,
    {
        let share = Arc::clone(self);
        let waiting = wait(Arc::clone(self));
        Underway::Apart(Box::pin(async move { waiting.await.answer(&share).await }))
    }
}
