//! A stream that notes how it is read.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// How a stream was read.
#[derive(Default)]
pub(super) struct Reads {
    /// How often it was asked.
    pub(super) asked: AtomicUsize,
    /// How much room it was last read into: hyper's whole buffer, that of a parked connection, or less to see whether who waits
    /// for an answer is still there.
    pub(super) room: AtomicUsize,
    /// Where what it gave was put.
    pub(super) places: Mutex<Vec<usize>>,
}

/// Notes how it is read.
pub(super) struct Noted {
    stream: DuplexStream,
    reads: Arc<Reads>,
}

impl Noted {
    pub(super) fn new(stream: DuplexStream) -> (Self, Arc<Reads>) {
        let reads = Arc::<Reads>::default();
        (Self { stream, reads: Arc::clone(&reads) }, reads)
    }
}

impl AsyncRead for Noted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, reads } = self.get_mut();
        reads.asked.fetch_add(1, Relaxed);
        reads.room.store(buf.remaining(), Relaxed);
        let read = Pin::new(stream).poll_read(cx, buf);
        if let Some(first) = buf.filled().first() {
            reads.places.lock().unwrap().push(std::ptr::from_ref(first).addr());
        }
        read
    }
}

impl AsyncWrite for Noted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
