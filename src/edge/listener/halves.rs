//! A socket as two halves that need no lock between them: one is read, the other written to.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

/// A stream that comes apart.
pub(crate) trait Socket {
    /// What is read.
    type Read: AsyncRead + Unpin + Send + 'static;
    /// What is written to. To drop it says nothing to the other side: the socket closes with both halves.
    type Write: AsyncWrite + Unpin + Send + 'static;

    /// Both halves.
    fn halves(self) -> (Self::Read, Self::Write);
}

/// The half of a socket that is written to.
///
/// tokio's own shuts the socket down when it is dropped, if it is not asked to forget that. Whether a stream ends in good order
/// is said where it is known, not by whatever happens to be dropped first.
pub(crate) struct Sending<W: Half>(Option<W>);

/// What tokio has of both kinds of sockets.
pub(crate) trait Half: AsyncWrite + Unpin {
    /// Drops it, and the socket stays as it is.
    fn forget(self);

    /// Sends what the socket takes.
    ///
    /// Not by the C library, whose `send` is a point where a thread may be cancelled: to note that it is not, twice a call,
    /// takes as long as the rest of the call outside of the kernel.
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

impl<W: Half> Sending<W> {
    /// The half, which is there until this is dropped.
    fn half(self: Pin<&mut Self>) -> io::Result<&mut W> {
        self.get_mut().0.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<W: Half> AsyncWrite for Sending<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.half()?.poll_send(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.half()?).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.half()?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.half()?).poll_shutdown(cx)
    }
}

impl<W: Half> Drop for Sending<W> {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

macro_rules! socket {
    ($stream:ty, $read:ty, $write:ty) => {
        impl Socket for $stream {
            type Read = $read;
            type Write = Sending<$write>;

            fn halves(self) -> (Self::Read, Self::Write) {
                let (read, write) = self.into_split();
                (read, Sending(Some(write)))
            }
        }

        impl Half for $write {
            fn forget(self) {
                self.forget();
            }

            fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                let stream: &$stream = self.as_ref();
                loop {
                    ready!(stream.poll_write_ready(cx))?;
                    let sent = stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, SendFlags::NOSIGNAL)?));
                    match sent {
                        // It is full: it was said to take some, and is asked again when it does.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        sent => return Poll::Ready(sent),
                    }
                }
            }
        }
    };
}

socket!(TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf);
socket!(UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf);
