//! A client's body, whose first bytes may have been looked at before it goes where it goes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
    edit: Option<Edit>,
}

/// Changes bytes in place.
type Edit = Box<dyn FnMut(&mut [u8]) + Send>;

impl From<Incoming> for ClientBody {
    fn from(rest: Incoming) -> Self {
        Self { first: Bytes::new(), trailers: None, rest, edit: None }
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

    /// Has every byte that is still to come pass `edit`, in order, however they are cut into pieces.
    pub fn edited(&mut self, edit: impl FnMut(&mut [u8]) + Send + 'static) {
        self.edit = Some(Box::new(edit));
    }

    fn passed(&mut self, data: Bytes) -> Bytes {
        let Some(edit) = &mut self.edit else { return data };
        let mut data = data.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        edit(&mut data);
        data.freeze()
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let first = std::mem::take(&mut this.first);
            return Poll::Ready(Some(Ok(Frame::data(this.passed(first)))));
        }
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut this.rest).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| this.passed(data)))))
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
