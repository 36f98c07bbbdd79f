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
    rest: Incoming,
    /// Of the few that somebody looks into.
    peeked: Option<Box<Peeked>>,
}

#[derive(Default)]
struct Peeked {
    first: Bytes,
    /// Where the whole body was read.
    trailers: Option<HeaderMap>,
    edit: Option<Edit>,
}

/// Changes bytes in place.
type Edit = Box<dyn FnMut(&mut [u8]) + Send>;

impl From<Incoming> for ClientBody {
    fn from(rest: Incoming) -> Self {
        Self { rest, peeked: None }
    }
}

impl ClientBody {
    /// Reads so many bytes, or to the end of a shorter body, and shows them. Nothing is taken out.
    ///
    /// # Errors
    /// Of the connection; then nothing more can be made of the body.
    pub async fn peek(&mut self, bytes: usize) -> Result<&[u8], hyper::Error> {
        let Peeked { first, trailers, .. } = &mut **self.peeked.get_or_insert_default();
        let mut read = BytesMut::new();
        while first.len() + read.len() < bytes && trailers.is_none() {
            let Some(frame) = self.rest.frame().await else { break };
            match frame?.into_data() {
                Ok(data) if first.is_empty() && read.is_empty() => *first = data,
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => *trailers = frame.into_trailers().ok(),
            }
        }
        if !read.is_empty() {
            let mut whole = BytesMut::with_capacity(first.len() + read.len());
            whole.extend_from_slice(first);
            whole.extend_from_slice(&read);
            *first = whole.freeze();
        }
        Ok(first.get(..bytes).unwrap_or(first))
    }

    /// Takes out the first bytes, of those that [`Self::peek`] has shown.
    pub fn skip(&mut self, bytes: usize) {
        if let Some(peeked) = &mut self.peeked {
            peeked.first = peeked.first.slice(bytes.min(peeked.first.len())..);
        }
    }

    /// Has every byte that is still to come pass `edit`, in order, however they are cut into pieces.
    pub fn edited(&mut self, edit: impl FnMut(&mut [u8]) + Send + 'static) {
        self.peeked.get_or_insert_default().edit = Some(Box::new(edit));
    }
}

impl Peeked {
    /// What was read, then the trailers behind it.
    fn next(&mut self) -> Option<Frame<Bytes>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Some(Frame::data(self.passed(first)));
        }
        self.trailers.take().map(Frame::trailers)
    }

    fn passed(&mut self, data: Bytes) -> Bytes {
        let Some(edit) = &mut self.edit else { return data };
        let mut data = data.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        edit(&mut data);
        data.freeze()
    }

    fn is_over(&self) -> bool {
        self.first.is_empty() && self.trailers.is_none()
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if let Some(frame) = this.peeked.as_mut().and_then(|peeked| peeked.next()) {
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = ready!(Pin::new(&mut this.rest).poll_frame(cx));
        let Some(peeked) = &mut this.peeked else { return Poll::Ready(frame) };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| peeked.passed(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.peeked.as_ref().is_none_or(|peeked| peeked.is_over()) && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.peeked.as_ref().map_or(0, |peeked| peeked.first.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(first.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(first.saturating_add(upper));
        }
        hint
    }
}
