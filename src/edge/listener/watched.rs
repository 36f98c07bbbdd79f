//! A connection's bytes and answers, each of which notes its [`Activity`].

use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, take};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::{Activity, Protocol};
use super::framing::{Framing, Verdict};
use super::terms::Place;
use crate::body::{Body, BodyError};

/// Bytes that are taken from a stream at once to see whether its client is still there: few, since hyper reads the rest.
const AHEAD: usize = 256;

/// Ends a head, and trailers.
const END: &[u8] = b"\r\n\r\n";

/// A stream that notes when bytes come, go, or cannot go, and while its HTTP/1 request is being answered, whether its client is
/// still there.
///
/// hyper would find that out by reading, for which it takes a new buffer each time, as the request shares the one that it has.
///
/// Of what is sent over HTTP/1 one message at a time is read ([`Framing`]).
#[expect(clippy::struct_excessive_bools, reason = "each may be so whatever the others are")]
pub(super) struct Watched<T> {
    stream: T,
    framing: Framing,
    /// What was read of it and is to be read again.
    put_back: Bytes,
    /// Whether some of that was read to see whether its client is still there.
    is_ahead: bool,
    /// Whether who reads waits for it, and so meets its end.
    is_awaited: bool,
    /// Whether who reads has met its end.
    has_ended: bool,
    /// Whether something could not be written since it was flushed last.
    is_held_up: bool,
    activity: Arc<Activity>,
    /// Here, because an upgraded stream outlives everything else of its connection.
    _place: Option<Place>,
}

impl<T> Watched<T> {
    pub(super) fn new(stream: T, activity: Arc<Activity>, place: Option<Place>) -> Self {
        let framing = match activity.protocol() {
            Protocol::Http1 => Framing::of_http1(),
            Protocol::Http2 => Framing::of_anything(),
        };
        Self {
            stream,
            framing,
            put_back: Bytes::new(),
            is_ahead: false,
            is_awaited: false,
            has_ended: false,
            is_held_up: false,
            activity,
            _place: place,
        }
    }

    /// Has these bytes read again, which are all that was read and not passed on.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.put_back = bytes;
    }

    fn note<R>(&self, written: &Poll<io::Result<R>>) {
        match written {
            Poll::Pending => self.activity.writing_blocked(),
            Poll::Ready(_) => self.activity.bytes_went(),
        }
    }
}

impl<T: AsyncRead + Unpin> Watched<T> {
    /// Reads bytes that are to be put back.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.activity.is_upgraded() && !self.framing.is_refused() {
            self.framing = Framing::of_anything();
        }
        while buf.filled().len() == before && buf.remaining() > 0 {
            if !self.put_back.is_empty() {
                self.read_again(buf);
                continue;
            }
            if self.framing.is_refused() {
                self.has_ended = true;
                break;
            }
            if self.activity.is_being_parked() {
                return Poll::Pending;
            }
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                self.has_ended = true;
                break;
            }
            self.read_anew(buf, before);
        }
        if buf.filled().len() > before {
            self.activity.bytes_came();
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on, of what was put back, what belongs to one message.
    fn read_again(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.put_back.len().min(buf.remaining());
        if self.framing.is_refused() {
            buf.put_slice(&self.put_back.split_to(length));
            return;
        }
        let bytes = self.put_back.get(..length).unwrap_or_default();
        let verdict = self.framing.look(bytes, || self.activity.follows());
        self.put_back.advance(verdict.skip);
        buf.put_slice(&self.put_back.split_to(verdict.pass));
        if self.put_back.is_empty() {
            // Its memory goes too: it may have been empty lines alone.
            self.put_back = Bytes::new();
            self.is_ahead = false;
        }
        self.spoil(verdict, buf);
    }

    /// Passes on, of what was read behind `before`, what belongs to one message.
    fn read_anew(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let bytes = buf.filled_mut().get_mut(before..).unwrap_or_default();
        let verdict = self.framing.look(bytes, || self.activity.follows());
        let Verdict { skip, pass, .. } = verdict;
        if let Some(rest @ [_, ..]) = bytes.get(skip + pass..) {
            self.put_back = Bytes::copy_from_slice(rest);
        }
        if skip > 0 {
            bytes.copy_within(skip..skip + pass, 0);
        }
        buf.set_filled(before + pass);
        self.spoil(verdict, buf);
    }

    /// Has hyper refuse what must be refused, as it refuses anything else that is malformed: no line may have a NUL.
    fn spoil(&mut self, verdict: Verdict, buf: &mut ReadBuf<'_>) {
        if !self.framing.is_refused() {
            return;
        }
        self.put_back = Bytes::new();
        if verdict.spoil
            && let Some(last) = buf.filled_mut().last_mut()
        {
            *last = 0;
            self.put_back = Bytes::from_static(END);
        }
    }

    /// Fails if the client is gone while its request is being answered; has the task woken when it goes, or sends more.
    ///
    /// What it sends is read ahead once and not further: as long as that waits, so does its end. Who reads the stream meets its
    /// end too: where hyper waits for bytes, or has met the end there, what that means is its to say. A body is not looked into, which
    /// would have it pass in pieces of what is read ahead: who gives up within one, and is not asked for more, may leave and nobody
    /// looks, until its answer cannot be written.
    fn check_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.is_awaited || self.has_ended || self.is_ahead || !self.activity.is_answering() {
            return Ok(());
        }
        if self.framing.is_in_body(self.activity.had_body()) {
            return Ok(());
        }
        let mut room = [MaybeUninit::uninit(); AHEAD];
        let mut read = ReadBuf::uninit(&mut room);
        match Pin::new(&mut self.stream).poll_read(cx, &mut read)? {
            Poll::Ready(()) if read.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(()) => {
                // Behind what is refused nothing is read any more.
                if !self.framing.is_refused() {
                    self.put_back = Bytes::from([&self.put_back, read.filled()].concat());
                    self.is_ahead = true;
                }
                Ok(())
            }
            Poll::Pending => Ok(()),
        }
    }

    /// Notes whether what was written went. A client that takes nothing may be gone.
    fn wrote<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.note(&written);
        if written.is_pending() {
            self.is_held_up = true;
            self.check_client(cx)?;
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = this.poll_bytes(cx, buf);
        this.is_awaited = read.is_pending();
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Watched<T> {
    /// Writes what the client is to be told before its answer, which is held back for that; who waits for it is woken when it
    /// has gone.
    fn poll_unsaid(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.activity.unsaid.is_any() {
            let written = self.activity.unsaid.poll_write_to(&mut self.stream, cx);
            ready!(self.wrote(cx, written))?;
        }
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    /// hyper has something to write: not within an interim answer.
    fn poll_may_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.unsaid.is_begun() { self.poll_unsaid(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_may_write(cx))?;
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wrote(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_may_write(cx))?;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // TLS keeps records of its own, so a flush can be what blocks. hyper flushes whenever it was polled and did not meet a client
    // that takes nothing, so this is where its client's end is noticed.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper has nothing left of its own, so here one answer has gone and the next has not begun.
        if this.activity.unsaid.is_any() {
            ready!(this.poll_unsaid(cx))?;
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.note(&flushed);
        this.check_client(cx)?;
        // hyper puts off a request that came meanwhile, and does not come back to it by itself when the answer before has gone.
        if flushed.is_ready() && take(&mut this.is_held_up) {
            cx.waker().wake_by_ref();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.is_being_parked() {
            return Poll::Ready(Ok(()));
        }
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.note(&shut);
        shut
    }
}

/// A request from its complete head to the end of its answer.
pub(super) struct RequestGuard(Arc<Activity>);

impl RequestGuard {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        activity.request_began();
        Self(Arc::clone(activity))
    }

    /// That of its connection.
    pub(super) fn activity(&self) -> &Activity {
        &self.0
    }

    /// The request lasts as long as this answer.
    pub(super) fn answer(self, response: Response<Body>) -> Response<Answer> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.0.upgraded();
        }
        response.map(|body| Answer { body, rest: None, held_up: false, request: self })
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// Bytes of an HTTP/2 answer that are given out at once: the default frame size (RFC 9113 §6.5.2). hyper takes whatever
/// it is given however little the client's window allows, so larger pieces would fill memory and hide a slow client.
const PIECE: usize = 16 * 1024;

/// An answer's body, which notes whether the client takes it.
pub(super) struct Answer {
    body: Body,
    /// What did not fit into the last piece.
    rest: Option<Bytes>,
    held_up: bool,
    request: RequestGuard,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // HTTP/1 is held up by the socket alone, which notes that itself.
        if this.request.0.protocol() == Protocol::Http1 {
            return Pin::new(&mut this.body).poll_frame(cx);
        }
        this.moves();
        let frame = match this.rest.take() {
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
            None => Pin::new(&mut this.body).poll_frame(cx),
        };
        let Poll::Ready(Some(Ok(frame))) = frame else { return frame };
        this.held_up = true;
        this.request.0.answer_held_up();
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) => {
                if data.len() > PIECE {
                    this.rest = Some(data.split_off(PIECE));
                }
                Frame::data(data)
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(rest) = &self.rest {
            let rest = rest.len() as u64;
            match hint.exact() {
                Some(exact) => hint.set_exact(exact + rest),
                None => hint.set_lower(hint.lower() + rest),
            }
        }
        hint
    }
}

impl Answer {
    fn moves(&mut self) {
        if take(&mut self.held_up) {
            self.request.0.answer_moves();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.moves();
    }
}
