//! A request that was brought as far as it comes without waiting, and the wait for its answer.
//!
//! The stages are plain functions, each of which ends in this or in the next one: what an async function holds over an await
//! has room in every request's future, which is copied as a whole to where its connection has it, and most requests wait for their upstream alone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;

use super::handle::Share;
use super::sent::Sent;
use crate::body::Body;
use crate::edge::Before;

/// What a request waits for.
pub(super) enum Underway {
    /// The answer of its upstream, as nearly all do.
    Sent(Sent),
    /// Anything else, or nothing more.
    Apart(Apart),
}

/// Boxed, as all that few requests wait for: each would carry the room for it.
pub(super) type Apart = Pin<Box<dyn Future<Output = Next> + Send>>;

/// What such a wait leads to.
pub(super) enum Next {
    /// The answer.
    Answer(Response<Body>),
    /// Another wait.
    Wait(Underway),
}

impl Underway {
    /// Is answered with this. `unread` is what the gateway did not take of a request that it had accepted: its connection is to be
    /// closed for that when the answer leaves, not before.
    pub(super) fn answered(answer: Response<Body>, unread: impl Send + 'static) -> Self {
        Self::Apart(Box::pin(async move {
            drop(unread);
            Next::Answer(answer)
        }))
    }

    /// The answer, once it is there; asked no more then.
    pub(super) fn poll_answer(
        &mut self,
        share: &Arc<Share>,
        cx: &mut Context<'_>,
        before: &Before<'_>,
    ) -> Poll<Response<Body>> {
        loop {
            let next = match self {
                Self::Sent(sent) => ready!(sent.poll_answer(share, cx, before)),
                Self::Apart(apart) => ready!(apart.as_mut().poll(cx)),
            };
            match next {
                Next::Answer(answer) => return Poll::Ready(answer),
                Next::Wait(underway) => *self = underway,
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
        let waiting = wait(Arc::clone(self));
        Underway::Apart(Box::pin(async move { Next::Wait(waiting.await) }))
    }
}
