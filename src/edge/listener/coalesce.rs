//! One plain write where a gathering one would do no more: the kernel takes it cheaper.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are put together, as a head and a small body are. To copy so many costs less than to have the kernel gather
/// them; more, not.
const SMALL: usize = 2048;

/// A stream that gathers what is small by itself.
pub(crate) struct Coalescing<T>(pub(crate) T);

impl<T: AsyncRead + Unpin> AsyncRead for Coalescing<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalescing<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.get_mut().0);
        if let [one] = slices {
            return stream.poll_write(cx, one);
        }
        let mut together = [0; SMALL];
        let mut room = together.as_mut_slice();
        if slices.iter().any(|slice| room.write_all(slice).is_err()) {
            return stream.poll_write_vectored(cx, slices);
        }
        let left = room.len();
        stream.poll_write(cx, together.get(..SMALL - left).unwrap_or_default())
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Notes how it was written to: the lengths of the slices of each write.
    #[derive(Default)]
    struct Kernel(Vec<Vec<usize>>, Vec<u8>);

    impl AsyncWrite for Kernel {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.0.push(slices.iter().map(|slice| slice.len()).collect());
            for slice in slices {
                this.1.extend_from_slice(slice);
            }
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_small_is_one_write_and_what_is_large_is_not_copied() {
        for (lengths, written) in [
            (&[5][..], &[5][..]),
            (&[70_000], &[70_000]),
            (&[3, 4], &[7]),
            (&[1000, 0, 1048], &[SMALL]),
            (&[1000, 1049], &[1000, 1049]),
            (&[200, 65_536], &[200, 65_536]),
        ] {
            let parts: Vec<Vec<u8>> = lengths.iter().map(|length| (0..=250).cycle().take(*length).collect()).collect();
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut stream = Coalescing(Kernel::default());
            let cx = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(taken)) = Pin::new(&mut stream).poll_write_vectored(cx, &slices) else { panic!() };
            assert_eq!(
                (taken, &stream.0.0[..], &stream.0.1),
                (parts.concat().len(), &[written.to_vec()][..], &parts.concat())
            );
        }
    }
}
