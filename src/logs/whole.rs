//! Whole lines into whatever takes them, also where it takes a part: a disk that fills up, a pipe whose reader goes.
//!
//! A reader that is strict stops at half a line, and takes what is appended to it for the rest of it.

use std::fs::File;
use std::io::{self, ErrorKind, Seek as _, Write};

/// Lines that did not reach their file or stream.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Lost {
    /// How many.
    pub lines: u64,
    /// Why.
    #[source]
    pub error: io::Error,
}

impl Lost {
    /// None of `lines` got there.
    #[must_use]
    pub fn all(lines: &[u8], error: io::Error) -> Self {
        Self { lines: lines.split(|byte| *byte == b'\n').skip(1).count() as u64, error }
    }
}

/// What the last write left.
#[derive(Debug)]
pub struct End {
    /// Bytes of a line that is not whole: a line feed is due before the next.
    half: usize,
}

impl End {
    /// Nothing, or whole lines.
    pub const NOTHING: Self = Self { half: 0 };
    /// A part of a line, of unknown length.
    pub(super) const WITHIN: Self = Self { half: 1 };

    /// Whether what is written next needs a line feed before it.
    pub(super) const fn is_within(&self) -> bool {
        self.half > 0
    }

    /// Writes whole `lines`, on lines of their own whatever stands before them.
    ///
    /// # Errors
    /// [`Lost`]: those before them are out, and a part of the first of them may be.
    pub fn write(&mut self, out: &mut impl Write, lines: &[u8]) -> Result<(), Lost> {
        if self.is_within() {
            out.write_all(b"\n").map_err(|error| Lost::all(lines, error))?;
            self.half = 0;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let error = match out.write(rest) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(taken) => {
                    rest = rest.get(taken..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let taken = lines.get(..lines.len() - rest.len()).unwrap_or_default();
            let whole = taken.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.half = taken.len() - whole;
            return Err(Lost::all(lines.get(whole..).unwrap_or_default(), error));
        }
        out.flush().map_err(|error| Lost { lines: 0, error })
    }

    /// As [`End::write`], to the end of a regular file, which keeps no part of a line where it lets go of one.
    pub(super) fn append(&mut self, file: &mut File, lines: &[u8]) -> Result<(), Lost> {
        let done = self.write(file, lines);
        // Where the file cannot be cut, such as one that may be appended to and no more, the line feed does.
        if self.is_within() && self.take_back(file).unwrap_or(false) {
            self.half = 0;
        }
        done
    }

    /// Whether the half is gone: it is ours alone as long as nothing stands behind it.
    fn take_back(&self, file: &mut File) -> io::Result<bool> {
        let end = file.stream_position()?;
        if file.metadata()?.len() != end {
            return Ok(false);
        }
        file.set_len(end.saturating_sub(self.half as u64))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for so many bytes.
    struct Room {
        bytes: usize,
        taken: Vec<u8>,
    }

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let some = bytes.get(..self.bytes.min(bytes.len())).unwrap();
            if some.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            self.bytes -= some.len();
            self.taken.extend_from_slice(some);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_follows_half_a_line_stands_on_a_line_of_its_own() {
        for (room, kept, lost) in [
            (0, "", 3),
            (2, "on\n", 3),
            (3, "one\n", 3),
            (4, "one\n", 2),
            (6, "one\ntw\n", 2),
            (8, "one\ntwo\n", 1),
            (13, "one\ntwo\nthree\n", 1),
            (14, "one\ntwo\nthree\n", 0),
        ] {
            let (mut out, mut end) = (Room { bytes: room, taken: Vec::new() }, End::NOTHING);
            let told = end.write(&mut out, b"one\ntwo\nthree\n").err().map_or(0, |error| error.lines);
            assert_eq!(told, lost, "{room}");
            // Still no room, then plenty.
            assert_eq!(end.write(&mut out, b"four\n").unwrap_err().lines, 1, "{room}");
            out.bytes = usize::MAX;
            end.write(&mut out, b"five\n").unwrap();
            end.write(&mut out, b"six\n").unwrap();
            assert_eq!(String::from_utf8(out.taken).unwrap(), format!("{kept}five\nsix\n"), "{room}");
        }
    }
}
