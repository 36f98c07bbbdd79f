//! A client's body, whose first bytes may have been looked at before it goes where it goes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// A client's body: what was read of it to be looked at, then the rest as it comes.
pub struct ClientBody {
    first: Bytes,
    /// Where the whole body was read.
    trailers: Option<HeaderMap>,
    rest: Incoming,
}

impl From<Incoming> for ClientBody {
    fn from(rest: Incoming) -> Self {
        Self { first: Bytes::new(), trailers: None, rest }
    }
}

impl ClientBody {
    /// Reads so many bytes, or to the end of a shorter body, and shows them. Nothing is taken out.
    ///
    /// # Errors
    /// Of the connection; then nothing more can be made of the body.
    pub async fn peek(&mut self, bytes: usize) -> Result<&[u8], hyper::Error> {
        let mut read = BytesMut::new();
        while self.first.len() + read.len() < bytes && self.trailers.is_none() {
            let Some(frame) = self.rest.frame().await else { break };
            match frame?.into_data() {
                Ok(data) if self.first.is_empty() && read.is_empty() => self.first = data,
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        if !read.is_empty() {
            let mut whole = BytesMut::with_capacity(self.first.len() + read.len());
            whole.extend_from_slice(&self.first);
            whole.extend_from_slice(&read);
            self.first = whole.freeze();
        }
        Ok(self.first.get(..bytes).unwrap_or(&self.first))
    }

    /// Takes out the first bytes, of those that [`Self::peek`] has shown.
    pub fn skip(&mut self, bytes: usize) {
        self.first = self.first.slice(bytes.min(self.first.len())..);
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first)))));
        }
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut this.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (first, rest) = (self.first.len() as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(first.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(first.saturating_add(upper));
        }
        hint
    }
}
