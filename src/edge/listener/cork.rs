//! Has the frames of an HTTP/2 connection leave together.
//!
//! h2 writes each frame by itself and flushes after it: over TLS a record and a system call for every answer, however many
//! are ready. Here what it writes is held until the connection was polled, when all that was ready is there.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are held at most: what a TLS record takes (RFC 8446 §5.1). Past it writing waits for the client as it would
/// without a cork.
const MOST: usize = 16 * 1024;

/// A stream that says it wrote what it only holds.
pub(super) struct Corked<T>(Shared<T>);

/// Lets out what the stream holds.
pub(super) struct Cork<T>(Shared<T>);

/// One task owns both ends, so the lock is never contended; it is there because tokio cannot know that.
type Shared<T> = Arc<Mutex<Held<T>>>;

struct Held<T> {
    stream: T,
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// Whether the stream was written to since it was flushed.
    unflushed: bool,
}

/// A stream, and what must be called whenever that stream's user was polled.
pub(super) fn corked<T>(stream: T) -> (Corked<T>, Cork<T>) {
    let held = Held { stream, bytes: Vec::new(), written: 0, unflushed: false };
    let shared = Arc::new(Mutex::new(held));
    (Corked(Arc::clone(&shared)), Cork(shared))
}

impl<T: AsyncWrite + Unpin> Cork<T> {
    /// Writes what is held, and flushes it.
    ///
    /// # Errors
    /// Of the stream.
    pub(super) fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = lock(&self.0);
        ready!(held.poll_out(cx))?;
        if held.unflushed {
            ready!(Pin::new(&mut held.stream).poll_flush(cx))?;
            held.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Held<T> {
    /// Writes what is held. Its memory goes too: idle connections keep none.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left @ [_, ..]) = self.bytes.get(self.written..) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.unflushed = true;
        }
        self.bytes = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(MOST);
        }
        self.bytes.extend_from_slice(bytes);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = lock(&self.0);
        let length = slices.iter().map(|slice| slice.len()).sum();
        if held.bytes.len() + length > MOST {
            ready!(held.poll_out(cx))?;
            if length > MOST {
                held.unflushed = true;
                return Pin::new(&mut held.stream).poll_write_vectored(cx, slices);
            }
        }
        for slice in slices {
            held.hold(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// That is the cork's to do.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = lock(&self.0);
        ready!(held.poll_out(cx))?;
        Pin::new(&mut held.stream).poll_shutdown(cx)
    }
}

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, Held<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes, and notes what it is given at once.
    struct Client {
        takes: usize,
        taken: Vec<Vec<u8>>,
        flushed: usize,
    }

    impl AsyncWrite for Client {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let taken = bytes.len().min(this.takes);
            if taken == 0 {
                return Poll::Pending;
            }
            this.takes -= taken;
            this.taken.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.get_mut().flushed += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn client(takes: usize) -> (Corked<Client>, Cork<Client>) {
        corked(Client { takes, taken: Vec::new(), flushed: 0 })
    }

    fn write(stream: &mut Corked<Client>, bytes: &[u8]) -> Poll<usize> {
        let cx = &mut Context::from_waker(Waker::noop());
        let written = Pin::new(&mut *stream).poll_write(cx, bytes).map(Result::unwrap);
        assert!(Pin::new(stream).poll_flush(cx).is_ready());
        written
    }

    fn let_out(cork: &Cork<Client>) -> Poll<()> {
        cork.poll_out(&mut Context::from_waker(Waker::noop())).map(Result::unwrap)
    }

    #[test]
    fn frames_of_one_poll_leave_together() {
        let (mut stream, cork) = client(usize::MAX);
        assert!(let_out(&cork).is_ready());
        for frame in [&b"one"[..], b"two", b"three"] {
            assert_eq!(write(&mut stream, frame), Poll::Ready(frame.len()));
        }
        assert!(lock(&cork.0).stream.taken.is_empty());
        assert!(let_out(&cork).is_ready() && let_out(&cork).is_ready());
        let held = lock(&cork.0);
        assert_eq!((held.stream.taken.as_slice(), held.stream.flushed), (&[b"onetwothree".to_vec()][..], 1));
        assert_eq!(held.bytes.capacity(), 0, "nothing is kept for a connection that is idle");
    }

    #[test]
    fn a_client_that_takes_nothing_is_waited_for_once_a_record_is_held() {
        let (mut stream, cork) = client(0);
        let frame = [7; MOST / 4];
        for _ in 0..4 {
            assert_eq!(write(&mut stream, &frame), Poll::Ready(frame.len()));
        }
        assert!(write(&mut stream, b"more").is_pending() && let_out(&cork).is_pending());
        lock(&cork.0).stream.takes = MOST / 2;
        assert!(write(&mut stream, b"more").is_pending() && let_out(&cork).is_pending());
        lock(&cork.0).stream.takes = usize::MAX;
        assert_eq!(write(&mut stream, b"more"), Poll::Ready(4));
        assert!(let_out(&cork).is_ready());
        let sent = lock(&cork.0).stream.taken.concat();
        assert_eq!((sent.len(), &sent[MOST..]), (MOST + 4, &b"more"[..]));
    }

    #[test]
    fn what_is_larger_than_a_record_is_not_held() {
        let (mut stream, cork) = client(usize::MAX);
        let large = vec![7; MOST + 1];
        assert!(write(&mut stream, b"small").is_ready());
        assert_eq!(write(&mut stream, &large), Poll::Ready(MOST + 1));
        assert_eq!(lock(&cork.0).stream.taken, [b"small".to_vec(), large]);
        assert!(let_out(&cork).is_ready());
        assert_eq!(lock(&cork.0).stream.flushed, 1);
    }
}
