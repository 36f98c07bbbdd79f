//! The stdout of the process, for all streams that go there.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::queue::Sink;
use crate::clock::Day;
use crate::logs::{End, Lost};

/// What was written last, by whichever stream.
static END: Mutex<End> = Mutex::new(End::NOTHING);

/// Lines to stdout, those of one stream at a time.
pub(super) struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, _: Day, lines: &[u8]) -> Result<(), Lost> {
        // Nothing panics while it holds the lock.
        END.lock().unwrap_or_else(PoisonError::into_inner).write(&mut Unbuffered, lines)
    }
}

/// Stdout as the system has it: the library's keeps what the system did not take, and tells of no part.
struct Unbuffered;

impl Write for Unbuffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
