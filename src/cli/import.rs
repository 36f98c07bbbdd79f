//! `bindings import`: stdin to the gateway, progress to the terminal.

use std::io::{self, Read};
use std::thread;

use bytes::Bytes;
use futures_util::stream;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Document;
use crate::admin::{ImportProgress, Imported};

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for the gateway.
pub(super) const WAITING: usize = 2;

/// Sends stdin, and shows how far the gateway is.
pub(super) fn run(connection: &Connection) -> Result<Imported, Failure> {
    let (chunks, mut read) = mpsc::channel(WAITING);
    // A thread of its own, left alone when the gateway ends first: a read of a terminal cannot be called off.
    let reader = thread::Builder::new().spawn(move || read_chunks(io::stdin().lock(), &chunks))?;
    let lines = stream::poll_fn(move |context| read.poll_recv(context));
    let bar = progress_bar();
    let outcome = connection.run(async |client| client.import(lines, |progress| show(&bar, progress)).await);
    bar.finish_and_clear();
    if outcome.is_err()
        && reader.is_finished()
        && let Ok(Some(error)) = reader.join()
    {
        return Err(error.into());
    }
    outcome
}

/// Hands the input on; the chunks hold identifiers, and are wiped once they were sent. Returns why it could not be
/// read to its end.
pub(super) fn read_chunks(mut input: impl Read, chunks: &mpsc::Sender<io::Result<Bytes>>) -> Option<io::Error> {
    loop {
        let mut chunk = Zeroizing::new(vec![0; CHUNK]);
        match input.read(&mut chunk) {
            Ok(0) => return None,
            Ok(length) => {
                chunk.truncate(length);
                if chunks.blocking_send(Ok(Bytes::from_owner(chunk))).is_err() {
                    return None; // the gateway wants no more
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // Breaks the request off, so that half a line is not taken for a whole one.
                let _ = chunks.blocking_send(Err(error.kind().into()));
                return Some(error);
            }
        }
    }
}

/// On stderr, and only if that is a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} lines, {per_sec}, {elapsed}{msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn show(bar: &ProgressBar, ImportProgress { imported, unchanged, refused }: ImportProgress) {
    bar.set_position(imported + unchanged + refused);
    if refused > 0 {
        bar.set_message(format!(", {} refused", HumanCount(refused)));
    }
}

impl Document for Imported {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let counts = [("imported", self.imported), ("unchanged", self.unchanged), ("refused", self.refused_in_all())];
        let counts = counts.map(|(name, count)| vec![name.to_owned(), count.to_string()]);
        let refused = self.refused.iter().map(|refused| vec![format!("line {}", refused.line), refused.reason.clone()]);
        counts.into_iter().chain(refused).collect()
    }

    fn refusal(&self) -> Option<String> {
        let refused = self.refused_in_all();
        (refused > 0).then(|| format!("{refused} lines were refused; the others are imported"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has, then fails.
    struct Broken(&'static [u8]);
    impl Read for Broken {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { self.0.read(out) }
        }
    }

    #[test]
    fn input_that_cannot_be_read_does_not_look_like_its_end() {
        for (input, whole) in [(Box::new(&b"abc"[..]) as Box<dyn Read>, true), (Box::new(Broken(b"abc")), false)] {
            let (chunks, mut read) = mpsc::channel(9);
            assert_eq!(read_chunks(input, &chunks).is_none(), whole);
            drop(chunks);
            assert_eq!(read.blocking_recv().unwrap().unwrap(), "abc");
            assert_eq!(read.blocking_recv().is_none_or(|chunk| chunk.is_ok()), whole);
        }
    }

    #[test]
    fn a_refused_line_makes_the_command_fail() {
        assert_eq!(Imported { imported: 1, unchanged: 1, ..Imported::default() }.refusal(), None);
        assert!(Imported { refused_beyond: 1, ..Imported::default() }.refusal().is_some());
    }
}
