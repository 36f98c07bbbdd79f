//! Whole lines on their way to a slow writer: a bounded buffer and one thread that empties it.
//!
//! Own code rather than tracing-appender, which costs an allocation, a wake-up and a write for every line and keeps
//! silent about lines that the writer refused; here a line is a copy under a short lock, and every lost line counts.

use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use crate::clock::Day;
use crate::logs::{DayFile, Lost};

/// Bytes that may wait for the writer.
const CAPACITY: usize = 4 << 20;
/// So many waiting bytes are written without gathering more.
const ENOUGH: usize = 64 << 10;
/// How long a line that matters waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// What becomes of a line that finds the buffer full. Lost lines are counted in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// It waits for room, which slows its caller down; lost if the writer stands still.
    Wait,
    /// It is lost at once.
    Drop,
}

/// The buffer and its thread. Dropping it writes what waits, then ends the thread.
pub(super) struct LineQueue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    buffer: Mutex<Buffer>,
    filled: Condvar,
    emptied: Condvar,
    settled: Condvar,
    lost: Counter,
}

#[derive(Default)]
struct Buffer {
    waiting: Vec<u8>,
    /// Of which day they are, in order: so many bytes each.
    days: Vec<(Day, usize)>,
    /// How often somebody asked for what waits to be written at once, and how often that was done.
    asked: u64,
    done: u64,
    /// Takes the place of the writer.
    next: Option<Writer>,
    closed: bool,
    stuck: bool,
}

/// Takes whole lines, some at a time.
pub(super) trait Sink: Send {
    /// Writes `lines`, which are of `day`. None says that the day has come.
    fn write(&mut self, day: Day, lines: &[u8]) -> Result<(), Lost>;
}

impl Sink for DayFile {
    fn write(&mut self, day: Day, lines: &[u8]) -> Result<(), Lost> {
        self.append(day, lines)
    }
}

/// Where lines go.
pub(super) type Writer = Box<dyn Sink>;

impl LineQueue {
    /// Starts the thread. Lines gather for `gather` before they are written together; `lost` counts those that never
    /// reached `writer`.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub(super) fn start(writer: Writer, gather: Duration, lost: Counter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            buffer: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            settled: Condvar::new(),
            lost,
        });
        let thread = thread::Builder::new().name("log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write_until_closed(writer, gather)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has lines that wait, and those to come, go to `writer`; the one before is closed.
    pub(super) fn redirect(&self, writer: Writer) {
        self.shared.lock().next = Some(writer);
        self.shared.filled.notify_one();
    }

    /// Has what waits written at once, and the writer know that it is `day`. Waits for that, a second at most.
    pub(super) fn settle(&self, day: Day) {
        let shared = &self.shared;
        let mut buffer = shared.lock();
        buffer.days.push((day, 0));
        buffer.asked += 1;
        let asked = buffer.asked;
        shared.filled.notify_one();
        let undone = |buffer: &mut Buffer| buffer.done < asked;
        drop(shared.settled.wait_timeout_while(buffer, PATIENCE, undone));
    }

    /// Hands a line of `day` over, its line feed included.
    pub(super) fn push(&self, day: Day, line: &[u8], when_full: WhenFull) {
        let shared = &self.shared;
        let full = |buffer: &mut Buffer| !buffer.waiting.is_empty() && buffer.waiting.len() + line.len() > CAPACITY;
        let mut buffer = shared.lock();
        if full(&mut buffer) && when_full == WhenFull::Wait && !buffer.stuck {
            let waited = shared.emptied.wait_timeout_while(buffer, PATIENCE, full);
            buffer = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if full(&mut buffer) {
            // Whoever reads our output has stopped. One caller has waited for it; the next ones do not, or a stranger
            // who causes lines could hold every core.
            buffer.stuck |= when_full == WhenFull::Wait;
            shared.lost.inc();
            return;
        }
        let before = buffer.waiting.len();
        buffer.waiting.extend_from_slice(line);
        match buffer.days.last_mut() {
            Some((last, bytes)) if *last == day => *bytes += line.len(),
            _ => buffer.days.push((day, line.len())),
        }
        // The thread sleeps only while nothing waits, or while it gathers.
        if before == 0 || (before < ENOUGH && buffer.waiting.len() >= ENOUGH) {
            shared.filled.notify_one();
        }
    }
}

impl Drop for LineQueue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; were it to, its lines are lost already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Nothing panics while it holds the lock, so what poison would protect is whole.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_until_closed(&self, mut writer: Writer, gather: Duration) {
        let (mut taken, mut days) = (Vec::new(), Vec::new());
        loop {
            let hurries = |b: &Buffer| b.next.is_some() || b.closed || b.done < b.asked;
            let idle = |b: &mut Buffer| b.waiting.is_empty() && !hurries(b);
            let buffer = self.filled.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let few = |b: &mut Buffer| b.waiting.len() < ENOUGH && !hurries(b);
            let gathered = self.filled.wait_timeout_while(buffer, gather, few);
            let mut buffer = gathered.unwrap_or_else(PoisonError::into_inner).0;
            let next = buffer.next.take();
            let asked = buffer.asked;
            if buffer.waiting.is_empty() && next.is_none() && buffer.done == asked {
                return; // closed
            }
            mem::swap(&mut buffer.waiting, &mut taken);
            mem::swap(&mut buffer.days, &mut days);
            buffer.stuck = false;
            drop(buffer);
            self.emptied.notify_all();
            if let Some(next) = next {
                writer = next;
            }
            let mut rest = taken.as_slice();
            for (day, bytes) in days.drain(..) {
                let (lines, more) = rest.split_at_checked(bytes).unwrap_or((rest, &[]));
                rest = more;
                if let Err(Lost { lines, .. }) = writer.write(day, lines) {
                    self.lost.inc_by(lines);
                }
            }
            taken.clear();
            self.lock().done = asked;
            self.settled.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const DAY: Day = Day::from_unix_days(20_783);

    /// A writer that takes each batch only when told to.
    struct Gate {
        open: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Sink for Gate {
        fn write(&mut self, _: Day, lines: &[u8]) -> Result<(), Lost> {
            self.open.recv().map_err(|_| Lost::all(lines, io::ErrorKind::BrokenPipe.into()))?;
            self.written.lock().unwrap().extend_from_slice(lines);
            Ok(())
        }
    }

    #[test]
    fn lines_are_whole_and_flushed_at_the_end() {
        let (open, gate) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let lost = Counter::default();
        let writer = Gate { open: gate, written: Arc::clone(&written) };
        let queue = LineQueue::start(Box::new(writer), Duration::from_mins(10), lost.clone()).unwrap();
        queue.push(DAY, b"one\n", WhenFull::Drop);
        queue.push(DAY, b"two\n", WhenFull::Wait);
        open.send(()).unwrap();
        drop(queue);
        assert_eq!(*written.lock().unwrap(), b"one\ntwo\n");
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn lines_that_wait_go_to_the_next_writer_and_the_former_one_is_closed() {
        let (open, gate) = mpsc::channel();
        let (former, next) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let lost = Counter::default();
        let queue = LineQueue::start(
            Box::new(Gate { open: gate, written: Arc::clone(&former) }),
            Duration::from_mins(10),
            lost.clone(),
        );
        let queue = queue.unwrap();
        queue.push(DAY, b"one\n", WhenFull::Drop);
        let (open_next, gate_next) = mpsc::channel();
        queue.redirect(Box::new(Gate { open: gate_next, written: Arc::clone(&next) }));
        open_next.send(()).unwrap();
        // Its receiver goes with the former writer.
        while open.send(()).is_ok() {
            thread::yield_now();
        }
        drop(queue);
        assert_eq!((former.lock().unwrap().len(), &**next.lock().unwrap()), (0, &b"one\n"[..]));
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn lines_reach_the_writer_by_day_and_at_once_where_somebody_asks() {
        type Written = Vec<(Day, Vec<u8>)>;
        struct Days(Arc<Mutex<Written>>);
        impl Sink for Days {
            fn write(&mut self, day: Day, lines: &[u8]) -> Result<(), Lost> {
                self.0.lock().unwrap().push((day, lines.to_vec()));
                Ok(())
            }
        }
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Box::new(Days(Arc::clone(&written)));
        let queue = LineQueue::start(writer, Duration::from_mins(10), Counter::default()).unwrap();
        let next = Day::from_unix_days(20_784);
        queue.push(DAY, b"one\n", WhenFull::Drop);
        queue.push(DAY, b"two\n", WhenFull::Drop);
        queue.push(next, b"three\n", WhenFull::Drop);
        queue.settle(next);
        let expected = [(DAY, b"one\ntwo\n".to_vec()), (next, b"three\n".to_vec()), (next, vec![])];
        assert_eq!(*written.lock().unwrap(), expected);
        queue.settle(next);
        assert_eq!(written.lock().unwrap().len(), 4, "nothing waits, and the day is told");
    }

    #[test]
    fn lines_beyond_the_bound_and_lines_refused_by_the_writer_are_counted() {
        let (open, gate) = mpsc::channel();
        let lost = Counter::default();
        let writer = Gate { open: gate, written: Arc::default() };
        let queue = LineQueue::start(Box::new(writer), Duration::from_mins(10), lost.clone()).unwrap();
        let line = vec![b'x'; ENOUGH - 1];
        for _ in 0..(2 * CAPACITY / ENOUGH + 4) {
            queue.push(DAY, &line, WhenFull::Drop);
        }
        assert!(lost.get() > 0);
        let beyond = lost.get();
        queue.push(DAY, b"\n", WhenFull::Drop);
        drop(open);
        drop(queue);
        assert!(lost.get() > beyond, "the writer's refusal counts too");
    }
}
