//! What a worker's connections write in one turn leaves at its end, all of it together.
//!
//! A turn is what was ready when the first of it was written. To write to a socket wakes its reader, and where that runs on this
//! machine, a console or a load balancer, it falls asleep again before the next write comes, if a whole request lies
//! between: to wake a core that sleeps costs a virtual machine more than the write itself. Held until the turn is over, one
//! write follows the other, and so does the code of the kernel that they run (docs/performance.md). A large piece is not held,
//! since to copy it costs more. And in calm nothing is held: who reads had time to fall asleep anyhow, and what is first would
//! wait for what comes by chance at the same moment.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::{replace, take};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;

use super::halves::Socket;

/// Bytes that are held of one stream at most, as of a head and a small body, and copied together where they come in pieces: one
/// plain write costs the kernel less than to gather them.
const SMALL: usize = 2048;

/// Streams that are held up at most: with so many a turn is over, for the first of them waits for the others.
const MOST: usize = 32;

/// With fewer pieces a turn was calm, and so will be the next one.
const CALM: usize = 8;

/// What the streams of one worker have to send, and what they send it by.
///
/// All of it is used on one thread, so no lock here is ever contended. But each costs a request that is short more than what it
/// guards: so the streams of a worker lie under one together, which a small write takes once, and a turn's end once for all.
/// Users are woken under it, for which a runtime only notes that their turn comes.
#[derive(Default)]
pub struct Outbox {
    streams: Mutex<Streams>,
    /// Streams that take more since the last turn, and whether there are any. Not under the lock of the streams: whoever
    /// polls one has that, and it may wake then.
    woken: Mutex<Vec<usize>>,
    is_woken: AtomicBool,
    /// Who delivers at the end of the turn. It is a task, which has one waker as long as it lives.
    carrier: OnceLock<Waker>,
}

#[derive(Default)]
struct Streams {
    /// Each in its place, as long as it is used. Of the most that there were at once the places stay.
    places: Vec<Option<Box<Held>>>,
    free: Vec<usize>,
    /// Where those are that have something to send. A stream may have gone since, and another have its place: to be
    /// delivered once too often does nothing.
    put: Vec<usize>,
    /// Room for what they hold, from the turns before.
    rooms: Vec<Vec<u8>>,
    /// Pieces of this turn.
    pieces: usize,
    /// With fewer a turn is calm.
    calm: usize,
    /// Whether the last turn was.
    is_calm: bool,
}

impl Outbox {
    /// An outbox whose turns are those of the runtime that this is called in, until it is dropped.
    #[must_use]
    pub fn start() -> Arc<Self> {
        Self::start_with(CALM)
    }

    /// The same, of which turns with fewer pieces are calm.
    fn start_with(calm: usize) -> Arc<Self> {
        let streams = Mutex::new(Streams { calm, is_calm: calm > 0, ..Streams::default() });
        let (woken, is_woken, carrier) = Default::default();
        let outbox = Arc::new(Self { streams, woken, is_woken, carrier });
        tokio::spawn(carry(Arc::downgrade(&outbox)));
        outbox
    }

    /// Sends what is held as far as the streams take it now; what one takes later it is asked for again then.
    ///
    /// Whatever the task has done in its turn that does it: it is done for others.
    fn deliver(&self, streams: &mut Streams) {
        let mut delivering = unconstrained(poll_fn(|_| {
            self.deliver_all(streams);
            Poll::Ready(())
        }));
        let _ = Pin::new(&mut delivering).poll(&mut Context::from_waker(Waker::noop()));
    }

    fn deliver_all(&self, streams: &mut Streams) {
        let Streams { places, put, rooms, .. } = streams;
        if self.is_woken.load(Relaxed) {
            self.is_woken.store(false, Relaxed);
            put.append(&mut lock(&self.woken));
        }
        for place in put.drain(..) {
            let Ok(held) = at(places, place) else { continue };
            let room = held.deliver();
            if room.capacity() > 0 && rooms.len() < MOST {
                rooms.push(room);
            }
        }
    }

    fn wake_carrier(&self) {
        // Before its first turn it has none, and delivers in any case.
        self.carrier.get().into_iter().for_each(Waker::wake_by_ref);
    }
}

/// Delivers at the end of each turn: woken by the first that is put in, it comes behind all that was ready then.
async fn carry(outbox: Weak<Outbox>) {
    poll_fn(|cx| {
        let Some(outbox) = outbox.upgrade() else { return Poll::Ready(()) };
        outbox.carrier.get_or_init(|| cx.waker().clone());
        let streams = &mut *lock(&outbox.streams);
        outbox.deliver(streams);
        streams.end_turn();
        Poll::Pending
    })
    .await;
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.wake_carrier();
    }
}

/// A stream that says it wrote what only lies in the outbox, which sends it without being asked again.
///
/// Where that fails, its user is woken and told with the next thing it asks for. A stream wakes who asked it last, and that may
/// be the outbox: so it is asked for the outbox alone to take what is held, and the user is woken when it did.
///
/// It is its user's to read: only what it is written to lies in the outbox.
pub(crate) struct Outgoing<S: Socket> {
    read: S::Read,
    outbox: Arc<Outbox>,
    place: Arc<Place>,
}

/// Where a stream is in the outbox. Has the rest sent when it takes more; weak, for a stream keeps who waits for it.
struct Place {
    outbox: Weak<Outbox>,
    index: usize,
    /// Whether a flush finds nothing to do: as [`Held::is_settled`] said last. Most do, and to see it takes no lock.
    is_settled: AtomicBool,
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Delivered by the carrier in any case: whoever wakes may hold what the streams need.
        let Some(outbox) = self.outbox.upgrade() else { return };
        lock(&outbox.woken).push(self.index);
        outbox.is_woken.store(true, Relaxed);
        outbox.wake_carrier();
    }
}

/// A stream and what is held of it.
#[expect(clippy::struct_excessive_bools, reason = "each may be so whatever the others are")]
struct Held<W: ?Sized = dyn AsyncWrite + Send + Unpin> {
    place: Arc<Place>,
    /// Its place, to be woken. None where nothing waits for the end of a turn, and its user sends all.
    again: Option<Waker>,
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// Whether it is delivered at the end of this turn.
    is_put: bool,
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
    stream: W,
}

impl<S: Socket> Outgoing<S> {
    /// What is written leaves by `outbox`, if there is one.
    pub(crate) fn new(socket: S, outbox: Option<&Arc<Outbox>>) -> Self {
        let (read, stream) = socket.halves();
        let has_turns = outbox.is_some();
        let outbox = outbox.map_or_else(Arc::default, Arc::clone);
        let place = lock(&outbox.streams).keep(|index| {
            let place = Arc::new(Place { outbox: Arc::downgrade(&outbox), index, is_settled: AtomicBool::new(true) });
            Box::new(Held {
                again: has_turns.then(|| Waker::from(Arc::clone(&place))),
                place,
                bytes: Vec::new(),
                written: 0,
                is_put: false,
                is_unflushed: false,
                failed: None,
                user: None,
                waits: false,
                is_full: false,
                stream,
            })
        });
        Self { read, outbox, place }
    }
}

impl Streams {
    fn end_turn(&mut self) {
        // A stream that takes more wakes the carrier within a turn, too.
        if self.pieces > 0 {
            self.is_calm = self.pieces < self.calm;
            self.pieces = 0;
        }
    }

    /// Gives the stream a place.
    fn keep(&mut self, make: impl FnOnce(usize) -> Box<Held>) -> Arc<Place> {
        let index = self.free.pop().unwrap_or(self.places.len());
        let held = make(index);
        let place = Arc::clone(&held.place);
        match self.places.get_mut(index) {
            Some(free) => *free = Some(held),
            None => self.places.push(Some(held)),
        }
        place
    }

    /// It is not delivered any more.
    fn take_out(&mut self, index: usize) -> Option<Box<Held>> {
        let held = self.places.get_mut(index)?.take()?;
        self.free.push(index);
        Some(held)
    }
}

/// The stream of that place, which is there until its user drops it.
fn at(places: &mut [Option<Box<Held>>], index: usize) -> io::Result<&mut Held> {
    places.get_mut(index).and_then(Option::as_deref_mut).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

impl Held {
    /// Sends what is held. Its memory goes too: idle connections keep none.
    fn send(&mut self, user: &Waker) -> Poll<io::Result<Vec<u8>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let cx = &mut Context::from_waker(self.again.as_ref().unwrap_or(user));
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

    /// Sends what is held, for its user.
    fn poll_out(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.send(cx.waker()).map_ok(drop);
        self.told(cx, sent)
    }

    /// Sends what is held, at the end of a turn. Gives back the room that is free now.
    fn deliver(&mut self) -> Vec<u8> {
        self.is_put = false;
        // Not by its user, who may wait for something else and would not come for what it was told is written.
        let room = match self.send(Waker::noop()) {
            Poll::Ready(Ok(room)) => {
                if take(&mut self.waits) {
                    self.user.take().into_iter().for_each(Waker::wake);
                }
                room
            }
            Poll::Ready(Err(error)) => {
                self.failed = Some(error);
                self.written = 0;
                self.waits = false;
                self.user.take().into_iter().for_each(Waker::wake);
                let mut room = take(&mut self.bytes);
                room.clear();
                room
            }
            Poll::Pending => Vec::new(),
        };
        self.note();
        room
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
        self.note();
        told
    }

    /// Whether there is nothing to send, nor to tell.
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.is_unflushed && self.failed.is_none()
    }

    /// Whether nothing is left that the end of the turn does not do.
    fn is_settled(&self) -> bool {
        self.is_put || self.is_empty()
    }

    /// To be called whenever that may have changed.
    fn note(&self) {
        self.place.is_settled.store(self.is_settled(), Relaxed);
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
        let outbox = &self.outbox;
        let streams = &mut *lock(&outbox.streams);
        let held = at(&mut streams.places, self.place.index)?;
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        // What could not be sent at the end of a turn is sent before more is taken.
        if held.bytes.len() + length > SMALL || held.is_full || !held.is_settled() {
            ready!(held.poll_out(cx))?;
        }
        if length > SMALL || held.is_full {
            held.is_unflushed = true;
            let written = Pin::new(&mut held.stream).poll_write_vectored(cx, slices);
            held.is_full = !matches!(written, Poll::Ready(Ok(written)) if written == length);
            return held.told(cx, written);
        }
        let has_turns = held.again.is_some();
        if held.bytes.capacity() == 0 {
            let most = if has_turns { SMALL } else { length };
            held.bytes = streams.rooms.pop().unwrap_or_else(|| Vec::with_capacity(most));
        }
        for slice in slices {
            held.bytes.extend_from_slice(slice);
        }
        if !has_turns {
            let _ = held.poll_out(cx)?;
            return Poll::Ready(Ok(length));
        }
        held.is_used_by(cx.waker());
        // It was settled, and is.
        if !replace(&mut held.is_put, true) {
            streams.put.push(self.place.index);
            streams.pieces += 1;
            if streams.pieces == 1 {
                outbox.wake_carrier();
            }
            if streams.is_calm || streams.put.len() >= MOST {
                outbox.deliver(streams);
            }
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.place.is_settled.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        at(&mut lock(&self.outbox.streams).places, self.place.index)?.poll_out(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let streams = &mut *lock(&self.outbox.streams);
        let held = at(&mut streams.places, self.place.index)?;
        ready!(held.poll_out(cx))?;
        Pin::new(&mut held.stream).poll_shutdown(cx)
    }
}

/// What was written is sent, as far as the stream takes it, and the stream closes now, not at the end of the turn.
impl<S: Socket> Drop for Outgoing<S> {
    fn drop(&mut self) {
        let held = lock(&self.outbox.streams).take_out(self.place.index);
        if let Some(mut held) = held
            && !held.is_empty()
        {
            held.again = None;
            // Whatever its task has done in its turn: it cannot come again.
            let mut sending = unconstrained(poll_fn(|cx| held.send(cx.waker())));
            let _ = Pin::new(&mut sending).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
