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
use tokio::task::coop::unconstrained;

use super::halves::Socket;

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

    /// Has it delivered at the end of this turn. A stream is put in once, until it is delivered. Gives back room for what it
    /// holds, if `has_room` is not set, and whether so many wait that the turn is over.
    fn put(&self, stream: Arc<dyn Deliver>, has_room: bool) -> (Option<Vec<u8>>, bool) {
        let mut waiting = lock(&self.0);
        waiting.streams.push(stream);
        if waiting.streams.len() == 1 {
            waiting.carrier.iter().for_each(Waker::wake_by_ref);
        }
        let room = if has_room { None } else { waiting.rooms.pop() };
        (room, waiting.streams.len() >= MOST)
    }

    fn deliver(&self) {
        let mut waiting = lock(&self.0);
        let (former, mut rooms) = (take(&mut waiting.former), take(&mut waiting.rooms));
        let mut streams = replace(&mut waiting.streams, former);
        drop(waiting);
        for stream in streams.drain(..) {
            let room = stream.deliver();
            if room.capacity() > 0 && rooms.len() < MOST {
                rooms.push(room);
            }
        }
        let mut waiting = lock(&self.0);
        (waiting.former, waiting.rooms) = (streams, rooms);
    }

    /// It is not delivered any more.
    fn take_out(&self, stream: &Arc<dyn Deliver>) {
        lock(&self.0).streams.retain(|waiting| !Arc::ptr_eq(waiting, stream));
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
/// Where that fails, its user is woken and told with the next thing it asks for. A stream wakes who asked it last, and that may
/// be the outbox: so it is asked for the outbox alone to take what is held, and the user is woken when it did.
///
/// It is its user's to read: only what it is written to is shared with the outbox.
pub(crate) struct Outgoing<S: Socket> {
    read: S::Read,
    outlet: Arc<Outlet<S::Write>>,
}

struct Outlet<W> {
    /// One task uses the stream, and the outbox between that task's turns, so the lock is never contended.
    held: Mutex<Held<W>>,
    /// None where nothing is held.
    outbox: Option<Arc<Outbox>>,
    /// Whether it lies in the outbox. Not under the lock, which whoever polls the stream has, and a stream may wake then.
    is_put: AtomicBool,
    /// Whether there is nothing to send, nor to tell: as [`Held::is_empty`] said last. Most streams that are flushed are so,
    /// and to see it takes no lock.
    is_empty: AtomicBool,
    /// Has the rest sent when the stream takes more.
    again: Waker,
}

struct Held<W> {
    stream: W,
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// Whether the stream was written to since it was flushed.
    is_unflushed: bool,
    failed: Option<io::Error>,
    /// Who wrote last, or waits.
    user: Option<Waker>,
    /// Whether the user was told to wait.
    waits: bool,
    /// Whether the stream did not take all of the last large piece. Then nothing is held either: it would wait for the stream
    /// here, where its user, who believes that it went, neither waits nor notices.
    is_full: bool,
}

impl<S: Socket> Outgoing<S> {
    /// What is written leaves by `outbox`, if there is one.
    pub(crate) fn new(socket: S, outbox: Option<&Arc<Outbox>>) -> Self {
        let (read, stream) = socket.halves();
        let held = Held {
            stream,
            bytes: Vec::new(),
            written: 0,
            is_unflushed: false,
            failed: None,
            user: None,
            waits: false,
            is_full: false,
        };
        let (held, outbox) = (Mutex::new(held), outbox.cloned());
        let (is_put, is_empty) = (AtomicBool::new(false), AtomicBool::new(true));
        let outlet = Arc::new_cyclic(|outlet| {
            let again = Waker::from(Arc::new(Again(Weak::clone(outlet))));
            Outlet { held, outbox, is_put, is_empty, again }
        });
        Self { read, outlet }
    }
}

impl<W: AsyncWrite + Unpin> Held<W> {
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

    fn is_used_by(&mut self, user: &Waker) {
        if !self.user.as_ref().is_some_and(|known| known.will_wake(user)) {
            self.user = Some(user.clone());
        }
    }

    /// Its user is told so, and woken when what was held is sent.
    fn told<R>(&mut self, cx: &Context<'_>, told: Poll<R>) -> Poll<R> {
        self.waits = told.is_pending();
        if self.waits {
            self.is_used_by(cx.waker());
        }
        told
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.is_unflushed && self.failed.is_none()
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Deliver for Outlet<W> {
    fn deliver(&self) -> Vec<u8> {
        let mut held = lock(&self.held);
        self.is_put.store(false, Relaxed);
        // Not by its user, who may wait for something else and would not come for what it was told is written.
        let room = match held.poll_out(&mut Context::from_waker(&self.again)) {
            Poll::Ready(Ok(room)) => {
                if take(&mut held.waits) {
                    held.user.take().into_iter().for_each(Waker::wake);
                }
                room
            }
            Poll::Ready(Err(error)) => {
                held.failed = Some(error);
                held.written = 0;
                held.waits = false;
                held.user.take().into_iter().for_each(Waker::wake);
                let mut room = take(&mut held.bytes);
                room.clear();
                room
            }
            Poll::Pending => Vec::new(),
        };
        self.note(&held);
        room
    }
}

/// Told by a stream that it takes more. Weak, for the stream keeps who waits for it.
struct Again<W>(Weak<Outlet<W>>);

impl<W: AsyncWrite + Unpin + Send + 'static> Wake for Again<W> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Delivered by the carrier in any case: whoever wakes may hold what the streams need.
        if let Some(outlet) = self.0.upgrade()
            && let Some(outbox) = &outlet.outbox
        {
            let _ = outlet.put(outbox, true);
        }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Outlet<W> {
    fn is_put(&self) -> bool {
        self.is_put.load(Relaxed)
    }

    /// To be called whenever what is held may have changed, before the lock is free.
    fn note(&self, held: &Held<W>) {
        self.is_empty.store(held.is_empty(), Relaxed);
    }

    /// Has what it holds sent at the end of the turn. Gives back what the outbox does when it is put there.
    fn put(self: &Arc<Self>, outbox: &Outbox, has_room: bool) -> (Option<Vec<u8>>, bool) {
        if self.is_put.swap(true, Relaxed) {
            return (None, false);
        }
        outbox.put(Arc::clone(self) as Arc<dyn Deliver>, has_room)
    }

    /// Sends what is held, for its user.
    fn poll_out(&self, held: &mut Held<W>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = if self.outbox.is_none() {
            held.poll_out(cx).map_ok(drop)
        } else {
            let sent = held.poll_out(&mut Context::from_waker(&self.again)).map_ok(drop);
            held.told(cx, sent)
        };
        self.note(held);
        sent
    }
}

impl<S: Socket> AsyncRead for Outgoing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl<S: Socket> AsyncWrite for Outgoing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outlet = &self.outlet;
        let mut held = lock(&outlet.held);
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        // What could not be sent at the end of a turn is sent before more is taken.
        if held.bytes.len() + length > SMALL || held.is_full || !(outlet.is_put() || held.is_empty()) {
            ready!(outlet.poll_out(&mut held, cx))?;
        }
        if length > SMALL || held.is_full {
            held.is_unflushed = true;
            let written = Pin::new(&mut held.stream).poll_write_vectored(cx, slices);
            held.is_full = !matches!(written, Poll::Ready(Ok(written)) if written == length);
            outlet.note(&held);
            return held.told(cx, written);
        }
        let has_room = held.bytes.capacity() > 0;
        let (room, is_over) = match &outlet.outbox {
            Some(outbox) => outlet.put(outbox, has_room),
            None => (None, false),
        };
        if !has_room {
            let most = if outlet.outbox.is_some() { SMALL } else { length };
            held.bytes = room.unwrap_or_else(|| Vec::with_capacity(most));
        }
        for slice in slices {
            held.bytes.extend_from_slice(slice);
        }
        outlet.is_empty.store(false, Relaxed);
        let Some(outbox) = &outlet.outbox else {
            let _ = outlet.poll_out(&mut held, cx)?;
            return Poll::Ready(Ok(length));
        };
        held.is_used_by(cx.waker());
        drop(held);
        if is_over {
            outbox.deliver();
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outlet = &self.outlet;
        if outlet.is_put() || outlet.is_empty.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        outlet.poll_out(&mut lock(&outlet.held), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = lock(&self.outlet.held);
        ready!(self.outlet.poll_out(&mut held, cx))?;
        Pin::new(&mut held.stream).poll_shutdown(cx)
    }
}

/// What was written is sent, as far as the stream takes it, and the stream closes now, not at the end of the turn.
impl<S: Socket> Drop for Outgoing<S> {
    fn drop(&mut self) {
        let outlet = &self.outlet;
        let mut held = lock(&outlet.held);
        if !held.is_empty() {
            // Whatever its task has done in its turn: it cannot come again.
            let mut sending = unconstrained(poll_fn(|cx| held.poll_out(cx)));
            let _ = Pin::new(&mut sending).poll(&mut Context::from_waker(Waker::noop()));
        }
        drop(held);
        if outlet.is_put()
            && let Some(outbox) = &outlet.outbox
        {
            outbox.take_out(&(Arc::clone(outlet) as Arc<dyn Deliver>));
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
