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
pub struct LinkedBody<B = Box<Body>> {
    inner: B,
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

impl<B> LinkedBody<B> {
    pub(super) const fn new(inner: B, stream: Stream) -> Self {
        Self { inner, stream, next: Next::Page }
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

impl<B: HttpBody<Data = Bytes, Error = BodyError> + Unpin> HttpBody for LinkedBody<B> {
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
            let Poll::Ready(next) = Pin::new(&mut this.inner).poll_frame(cx) else { return Poll::Pending };
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

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::links::markup::Page;
    use crate::links::testing::{TOKEN, plan};

    /// What a reader gets of these frames, each once it asks; `!` is a failure, and where it stood there is silence.
    fn read(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> Vec<String> {
        let stream = Stream::new(Page::new(plan(None), None, false), None);
        let mut body = LinkedBody::new(StreamBody::new(stream::iter(frames).chain(stream::pending())), stream);
        let mut seen = Vec::new();
        while let Some(Some(frame)) = body.frame().now_or_never() {
            seen.push(match frame.map(Frame::into_data) {
                Ok(Ok(data)) => String::from_utf8(data.into()).unwrap().replace(TOKEN, "T"),
                Ok(Err(trailers)) => format!("{:?}", trailers.into_trailers().unwrap()),
                Err(error) => format!("! {error}"),
            });
        }
        assert_eq!(body.is_end_stream(), seen.last().is_some_and(|last| last.starts_with('{')), "{seen:?}");
        seen
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_frame_is_not_kept_waiting_for_the_next() {
        assert_eq!(
            read(["<p>one", "two<a hr", "ef=/a", ">three"].map(|text| Ok(data(text))).into()),
            ["<p>one", "two", "<a href=/a?_sk=T>three",]
        );
    }

    #[test]
    fn trailers_follow_the_last_bytes_without_what_was_said_of_them() {
        let trailers = [("x-checked", "1"), ("content-digest", "sha-256=:x:"), ("etag", "x")]
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()));
        let trailers = || Ok(Frame::trailers(HeaderMap::from_iter(trailers.clone())));
        assert_eq!(read(vec![Ok(data("<a href=/a")), trailers()]), ["<a href=/a", "{\"x-checked\": \"1\"}"]);
        assert_eq!(read(vec![Ok(data("<p>")), trailers()]), ["<p>", "{\"x-checked\": \"1\"}"]);
    }

    #[test]
    fn a_failure_is_passed_on() {
        assert_eq!(read(vec![Ok(data("<p><a")), Err(BodyError::Idle)]), ["<p>", "! the body stood still for too long"]);
    }

    #[test]
    fn the_end_brings_what_was_held() {
        let stream = Stream::new(Page::new(plan(None), None, false), None);
        let body = LinkedBody::new(StreamBody::new(stream::iter([Ok(data("<p><a href=/a"))])), stream);
        assert_eq!(body.collect().now_or_never().unwrap().unwrap().to_bytes(), "<p><a href=/a");
    }
}
