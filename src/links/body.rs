//! The body of a page whose links are rewritten: one frame in, at most one out, nothing waited for.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};

use super::carry::is_about_bytes;
use super::stream::Stream;
use crate::body::{Body, BodyError};

/// A body whose page is rewritten while it passes; read as fast as it is asked for.
pub struct LinkedBody {
    inner: Box<Body>,
    stream: Stream,
    next: Next,
}

/// What comes next.
enum Next {
    /// More of the page.
    Page,
    /// The trailers, after the page's last bytes.
    Trailers(HeaderMap),
    /// Nothing.
    End,
}

impl LinkedBody {
    pub(super) fn new(inner: Body, stream: Stream) -> Self {
        Self { inner: Box::new(inner), stream, next: Next::Page }
    }

    /// The page's last bytes, or what follows them at once.
    fn last(&mut self, trailers: Option<HeaderMap>) -> Option<Frame<Bytes>> {
        let rest = self.stream.finish();
        if rest.is_empty() {
            self.next = Next::End;
            return trailers.map(Frame::trailers);
        }
        self.next = trailers.map_or(Next::End, Next::Trailers);
        Some(Frame::data(rest.into()))
    }
}

impl HttpBody for LinkedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match std::mem::replace(&mut this.next, Next::End) {
            Next::Page => this.next = Next::Page,
            Next::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Next::End => return Poll::Ready(None),
        }
        loop {
            let Poll::Ready(next) = Pin::new(&mut *this.inner).poll_frame(cx) else { return Poll::Pending };
            let frame = match next {
                None => return Poll::Ready(this.last(None).map(Ok)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(bytes) => {
                    let out = this.stream.push(&bytes);
                    // A frame that ends within a tag may let nothing out; an empty one would say so to nobody.
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().ok().map(|mut trailers| {
                        let stale: Vec<_> = trailers.keys().filter(|name| is_about_bytes(name)).cloned().collect();
                        for name in stale {
                            trailers.remove(name);
                        }
                        trailers
                    });
                    return Poll::Ready(this.last(trailers).map(Ok));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.next, Next::End)
    }
}
