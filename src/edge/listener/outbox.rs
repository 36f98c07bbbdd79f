//! What a worker's connections write in one turn leaves at its end, all of it together.
//!
//! A turn is what was ready when the first of it was written. To write to a socket wakes its reader, and where that runs on this
//! machine, a console or a load balancer, it falls asleep again before the next write comes, if a whole request lies
//! between: to wake a core that sleeps costs a virtual machine more than the write itself. Held until the turn is over, one
//! write follows the other, and so does the code of the kernel that they run (docs/performance.md). A large piece is not held,
//! since to copy it costs more.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::{replace, take};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are held of one stream at most, as of a head and a small body, and copied together where they come in pieces: one
/// plain write costs the kernel less than to gather them.
const SMALL: usize = 2048;

/// Streams that are held up at most: with so many a turn is over, for the first of them waits for the others.
const MOST: usize = 32;

/// The streams of one worker that have something to send.
pub struct Outbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    streams: Vec<Arc<dyn Deliver>>,
    /// Room for them, and for what they hold, from the turns before.
    former: Vec<Arc<dyn Deliver>>,
    rooms: Vec<Vec<u8>>,
    /// Who delivers at the end of the turn.
    carrier: Option<Waker>,
}

/// A stream that has something to send.
trait Deliver: Send + Sync {
    /// Sends it as far as the stream takes it now; what it takes later it is asked for again then. Gives back the room that
    /// is free now.
    fn deliver(&self) -> Vec<u8>;
}

impl Outbox {
    /// An outbox whose turns are those of the runtime that this is called in, until it is dropped.
    #[must_use]
    pub fn start() -> Arc<Self> {
        let outbox = Arc::new(Self(Mutex::default()));
        tokio::spawn(carry(Arc::downgrade(&outbox)));
        outbox
    }

    /// Has it delivered at the end of this turn. A stream is put in once, until it is delivered.
    fn put(&self, stream: Arc<dyn Deliver>) {
        let mut waiting = lock(&self.0);
        waiting.streams.push(stream);
        match waiting.streams.len() {
            1 => waiting.carrier.iter().for_each(Waker::wake_by_ref),
            MOST => {
                drop(waiting);
                self.deliver();
            }
            _ => {}
        }
    }

    fn deliver(&self) {
        let mut waiting = lock(&self.0);
        let former = take(&mut waiting.former);
        let mut streams = replace(&mut waiting.streams, former);
        drop(waiting);
        for stream in streams.drain(..) {
            let room = stream.deliver();
            if room.capacity() > 0 {
                let mut waiting = lock(&self.0);
                if waiting.rooms.len() < MOST {
                    waiting.rooms.push(room);
                }
            }
        }
        lock(&self.0).former = streams;
    }

    /// It is not delivered any more.
    fn take_out(&self, stream: &Arc<dyn Deliver>) {
        lock(&self.0).streams.retain(|waiting| !Arc::ptr_eq(waiting, stream));
    }

    fn room(&self) -> Vec<u8> {
        lock(&self.0).rooms.pop().unwrap_or_else(|| Vec::with_capacity(SMALL))
    }
}

/// Delivers at the end of each turn: woken by the first that is put in, it comes behind all that was ready then.
async fn carry(outbox: Weak<Outbox>) {
    poll_fn(|cx| {
        let Some(outbox) = outbox.upgrade() else { return Poll::Ready(()) };
        outbox.deliver();
        let mut waiting = lock(&outbox.0);
        if !waiting.carrier.as_ref().is_some_and(|carrier| carrier.will_wake(cx.waker())) {
            waiting.carrier = Some(cx.waker().clone());
        }
        if !waiting.streams.is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let waiting = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        waiting.carrier.iter().for_each(Waker::wake_by_ref);
    }
}

/// A stream that says it wrote what only lies in the outbox, which sends it without being asked again.
///
/// Where that fails, its user is woken and told with the next thing it asks for.
pub(crate) struct Outgoing<T: AsyncWrite + Unpin + Send + 'static>(Arc<Outlet<T>>);

struct Outlet<T> {
    /// One task uses the stream, and the outbox between that task's turns, so the lock is never contended.
    held: Mutex<Held<T>>,
    /// None where nothing is held.
    outbox: Option<Arc<Outbox>>,
    /// Whether it lies in the outbox. Not under the lock, which whoever polls the stream has, and a stream may wake then.
    is_put: AtomicBool,
    /// Has the rest sent when the stream takes more.
    again: Waker,
}

struct Held<T> {
    stream: T,
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// Whether the stream was written to since it was flushed.
    is_unflushed: bool,
    failed: Option<io::Error>,
    /// Who wrote last.
    user: Option<Waker>,
}

impl<T: AsyncWrite + Unpin + Send + 'static> Outgoing<T> {
    /// What is written leaves by `outbox`, if there is one.
    pub(crate) fn new(stream: T, outbox: Option<&Arc<Outbox>>) -> Self {
        let held = Held { stream, bytes: Vec::new(), written: 0, is_unflushed: false, failed: None, user: None };
        let (held, outbox, is_put) = (Mutex::new(held), outbox.cloned(), AtomicBool::new(false));
        Self(Arc::new_cyclic(|outlet| {
            let again = Waker::from(Arc::new(Again(Weak::clone(outlet))));
            Outlet { held, outbox, is_put, again }
        }))
    }
}

impl<T: AsyncWrite + Unpin> Held<T> {
    /// Sends what is held. Its memory goes too: idle connections keep none.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while let Some(left @ [_, ..]) = self.bytes.get(self.written..) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        self.written = 0;
        let mut room = take(&mut self.bytes);
        room.clear();
        Poll::Ready(Ok(room))
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.is_unflushed && self.failed.is_none()
    }
}

impl<T: AsyncWrite + Unpin + Send + 'static> Deliver for Outlet<T> {
    fn deliver(&self) -> Vec<u8> {
        let mut held = lock(&self.held);
        self.is_put.store(false, Relaxed);
        // Not by its user, who may wait for something else and would not come for what it was told is written.
        match held.poll_out(&mut Context::from_waker(&self.again)) {
            Poll::Ready(Ok(room)) => room,
            Poll::Ready(Err(error)) => {
                held.failed = Some(error);
                held.written = 0;
                held.user.take().into_iter().for_each(Waker::wake);
                let mut room = take(&mut held.bytes);
                room.clear();
                room
            }
            Poll::Pending => Vec::new(),
        }
    }
}

/// Told by a stream that it takes more. Weak, for the stream keeps who waits for it.
struct Again<T>(Weak<Outlet<T>>);

impl<T: AsyncWrite + Unpin + Send + 'static> Wake for Again<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(outlet) = self.0.upgrade() {
            outlet.put();
        }
    }
}

impl<T: AsyncWrite + Unpin + Send + 'static> Outlet<T> {
    fn is_put(&self) -> bool {
        self.is_put.load(Relaxed)
    }

    /// Has what it holds sent at the end of the turn.
    fn put(self: &Arc<Self>) {
        if let Some(outbox) = &self.outbox
            && !self.is_put.swap(true, Relaxed)
        {
            outbox.put(Arc::clone(self) as Arc<dyn Deliver>);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Outgoing<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0.held).stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin + Send + 'static> AsyncWrite for Outgoing<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outlet = &self.0;
        let mut held = lock(&outlet.held);
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        // What could not be sent at the end of a turn is sent before more is taken.
        if held.bytes.len() + length > SMALL || !(outlet.is_put() || held.is_empty()) {
            ready!(held.poll_out(cx))?;
        }
        if length > SMALL {
            held.is_unflushed = true;
            return Pin::new(&mut held.stream).poll_write_vectored(cx, slices);
        }
        if held.bytes.capacity() == 0 {
            held.bytes = outlet.outbox.as_ref().map_or_else(|| Vec::with_capacity(length), |outbox| outbox.room());
        }
        for slice in slices {
            held.bytes.extend_from_slice(slice);
        }
        if outlet.outbox.is_none() {
            let _ = held.poll_out(cx)?;
            return Poll::Ready(Ok(length));
        }
        if !held.user.as_ref().is_some_and(|user| user.will_wake(cx.waker())) {
            held.user = Some(cx.waker().clone());
        }
        drop(held);
        outlet.put();
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = lock(&self.0.held);
        if self.0.is_put() || held.is_empty() { Poll::Ready(Ok(())) } else { held.poll_out(cx).map_ok(drop) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = lock(&self.0.held);
        ready!(held.poll_out(cx))?;
        Pin::new(&mut held.stream).poll_shutdown(cx)
    }
}

/// What was written is sent, as far as the stream takes it, and the stream closes now, not at the end of the turn.
impl<T: AsyncWrite + Unpin + Send + 'static> Drop for Outgoing<T> {
    fn drop(&mut self) {
        let mut held = lock(&self.0.held);
        if self.0.is_put() {
            let _ = held.poll_out(&mut Context::from_waker(Waker::noop()));
            drop(held);
            if let Some(outbox) = &self.0.outbox {
                outbox.take_out(&(Arc::clone(&self.0) as Arc<dyn Deliver>));
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::yield_now;

    use super::*;

    type Written = (Vec<Vec<usize>>, Vec<u8>);

    /// Notes how it was written to: the lengths of the slices of each write, and their bytes. Then it fails, if it is to.
    #[derive(Clone, Default)]
    struct Kernel {
        written: Arc<Mutex<Written>>,
        broken: Arc<AtomicBool>,
    }

    impl Kernel {
        fn bytes(&self) -> Vec<u8> {
            lock(&self.written).1.clone()
        }
    }

    impl AsyncWrite for Kernel {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            if self.broken.load(Relaxed) {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let mut written = lock(&self.written);
            written.0.push(slices.iter().map(|slice| slice.len()).collect());
            for slice in slices {
                written.1.extend_from_slice(slice);
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

    fn pair(outbox: &Arc<Outbox>, room: usize) -> (Outgoing<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(room);
        (Outgoing::new(near, Some(outbox)), far)
    }

    #[tokio::test]
    async fn what_is_small_is_one_write_and_what_is_large_is_not_copied() {
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
            for outbox in [None, Some(Outbox::start())] {
                let kernel = Kernel::default();
                let mut stream = Outgoing::new(kernel.clone(), outbox.as_ref());
                assert_eq!(stream.write_vectored(&slices).await.unwrap(), parts.concat().len());
                yield_now().await;
                assert_eq!(*lock(&kernel.written), (vec![written.to_vec()], parts.concat()));
            }
        }
    }

    #[tokio::test]
    async fn what_streams_write_in_one_turn_leaves_at_its_end() {
        let outbox = Outbox::start();
        let kernels: [Kernel; 3] = Default::default();
        let mut streams = kernels.clone().map(|kernel| Outgoing::new(kernel, Some(&outbox)));
        for round in 1..3 {
            for stream in &mut streams {
                stream.write_all(b"he").await.unwrap();
                stream.write_all(b"ad").await.unwrap();
                stream.flush().await.unwrap();
            }
            assert!(kernels.iter().all(|kernel| kernel.bytes() == b"head".repeat(round - 1)), "until then nothing");
            yield_now().await;
            assert!(kernels.iter().all(|kernel| kernel.bytes() == b"head".repeat(round)));
            assert!(kernels.iter().all(|kernel| lock(&kernel.written).0.len() == round), "in one write");
            assert!(streams.iter().all(|stream| lock(&stream.0.held).bytes.capacity() == 0), "its room is free");
        }
        assert_eq!(lock(&outbox.0).rooms.len(), 3);
    }

    #[tokio::test]
    async fn a_turn_ends_when_many_are_held_up() {
        let outbox = Outbox::start();
        let kernel = Kernel::default();
        let mut streams: Vec<_> = (0..=MOST).map(|_| Outgoing::new(kernel.clone(), Some(&outbox))).collect();
        for stream in &mut streams {
            stream.write_all(b"x").await.unwrap();
        }
        assert_eq!(kernel.bytes().len(), MOST);
        yield_now().await;
        assert_eq!(kernel.bytes().len(), MOST + 1);
    }

    #[tokio::test]
    async fn nothing_overtakes() {
        let kernel = Kernel::default();
        let mut stream = Outgoing::new(kernel.clone(), Some(&Outbox::start()));
        let large = vec![b'l'; SMALL + 1];
        stream.write_all(b"first").await.unwrap();
        stream.write_all(&large).await.unwrap();
        stream.write_all(b"last").await.unwrap();
        stream.shutdown().await.unwrap();
        let expected = [&b"first"[..], &large, b"last"].concat();
        assert_eq!(kernel.bytes(), expected);
        yield_now().await;
        assert_eq!(kernel.bytes(), expected, "and nothing is sent twice");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_sent_later_and_nobody_has_to_ask() {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox, 8);
        near.write_all(b"more than eight bytes").await.unwrap();
        near.flush().await.unwrap();
        yield_now().await;
        let mut read = [0; 21];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"more than eight bytes");
        near.write_all(b"again more than eight").await.unwrap();
        yield_now().await;
        // Now its user waits for it.
        let (flushed, came) = tokio::join!(near.flush(), far.read_exact(&mut read));
        flushed.unwrap();
        came.unwrap();
        assert_eq!(&read, b"again more than eight");
    }

    #[tokio::test]
    async fn more_is_taken_when_what_was_held_is_sent() {
        let (mut near, mut far) = pair(&Outbox::start(), 8);
        near.write_all(b"0123456789").await.unwrap();
        yield_now().await;
        let mut writing = Box::pin(async move { near.write_all(b"abc").await });
        assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it is blocked");
        let mut read = [0; 13];
        let (written, came) = tokio::join!(writing, far.read_exact(&mut read));
        written.unwrap();
        came.unwrap();
        assert_eq!(&read, b"0123456789abc");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_who_wrote() {
        let outbox = Outbox::start();
        let kernel = Kernel::default();
        let mut stream = Outgoing::new(kernel.clone(), Some(&outbox));
        kernel.broken.store(true, Relaxed);
        let mut is_woken = false;
        let told = poll_fn(|cx| {
            if replace(&mut is_woken, true) {
                return Pin::new(&mut stream).poll_flush(cx);
            }
            assert!(Pin::new(&mut stream).poll_write(cx, b"lost").is_ready());
            Poll::Pending
        });
        assert_eq!(told.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(lock(&stream.0.held).bytes.is_empty());
    }

    #[tokio::test]
    async fn what_is_dropped_is_sent_and_closed_at_once() {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox, 64);
        near.write_all(b"the last words").await.unwrap();
        let outlet = Arc::downgrade(&near.0);
        drop(near);
        assert!(outlet.upgrade().is_none(), "closed before the turn is over");
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "the last words");
    }

    #[tokio::test]
    async fn a_stream_that_takes_no_more_closes_when_it_is_dropped() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_far, _) = listener.accept().await.unwrap();
        let mut near = Outgoing::new(near, Some(&Outbox::start()));
        let much = vec![0; 256 * 1024];
        while poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_write(cx, &much).is_ready())).await {}
        let written = poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_write(cx, b"no room").is_ready())).await;
        assert!(written, "it is held");
        yield_now().await;
        let outlet = Arc::downgrade(&near.0);
        drop(near);
        assert!(outlet.upgrade().is_none());
    }

    #[tokio::test]
    async fn the_carrier_goes_with_its_outbox() {
        let outbox = Outbox::start();
        yield_now().await;
        let metrics = tokio::runtime::Handle::current().metrics();
        assert_eq!(metrics.num_alive_tasks(), 1);
        drop(outbox);
        yield_now().await;
        assert_eq!(metrics.num_alive_tasks(), 0);
    }
}
