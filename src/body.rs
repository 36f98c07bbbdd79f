//! The body of an answer: a page in memory, or a stream that was never collected.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use thiserror::Error;

use crate::links::LinkedBody;
use crate::upstream::UpstreamBody;

/// Why a stream ended before its end; the connection is closed, so the client sees it too.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The other side failed.
    #[error("the other side's body failed")]
    Peer(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("the body stood still for too long")]
    Idle,
    /// The session that it belongs to ended: what it may see ends at once.
    #[error("the session ended")]
    Ended,
    /// More bytes than allowed.
    #[error("the body is too large")]
    TooLarge,
}

/// The body of an answer.
pub enum Body {
    /// In memory; `None` once it was given out.
    Full(Option<Bytes>),
    /// An upstream's answer, passed on as it comes.
    Upstream(UpstreamBody),
    /// A page whose links are rewritten as it passes.
    Linked(Box<LinkedBody>),
}

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Full(None)
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Linked(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Linked(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Upstream(body) => body.size_hint(),
            Self::Linked(body) => body.size_hint(),
        }
    }
}
