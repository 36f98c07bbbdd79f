//! Documents on stdout, failures on stderr.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use comfy_table::{Attribute, Cell, Color, Table, presets};
use serde::Serialize;

use super::failure::{Exit, Failure};
use crate::admin::Revoked;

/// A document that a person can read too.
pub(super) trait Document: Serialize {
    /// The columns; none where each row is a name and a value.
    const COLUMNS: &'static [&'static str];

    /// The rows, each as wide as the columns.
    fn rows(&self) -> Vec<Vec<String>>;

    /// Whether somebody has to look after what is in a row, which a terminal shows in red.
    fn is_bad(&self, _row: usize) -> bool {
        false
    }

    /// Why the command that brought it did not do what was asked, if so: for stderr, and exit code 1.
    fn refusal(&self) -> Option<String> {
        None
    }
}

impl Document for Revoked {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec!["revoked".to_owned(), self.revoked.to_string()]]
    }
}

/// Prints what became of a command, and its exit code.
pub(super) fn finish<D: Document>(outcome: Result<D, Failure>, json: bool) -> ExitCode {
    let printed = outcome.and_then(|document| {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        print(&document, json, terminal, &mut stdout.lock())?;
        Ok(document.refusal())
    });
    match printed {
        Ok(None) => Exit::Done.into(),
        Ok(Some(why)) => {
            // Nowhere is left to say that stderr is closed.
            let _ = writeln!(io::stderr(), "sekisho: {why}");
            Exit::Refused.into()
        }
        Err(failure) => end(Err(failure), json),
    }
}

/// Says on stderr why a command failed, if it did, and gives its exit code.
pub(super) fn end(outcome: Result<(), Failure>, json: bool) -> ExitCode {
    let Err(failure) = outcome else { return Exit::Done.into() };
    let exit = failure.exit();
    if exit != Exit::Done {
        // Nowhere is left to say that stderr, or the stdout of the failure itself, is closed.
        let _ = writeln!(io::stderr(), "sekisho: {failure}");
        if json {
            let _ = write_json(&failure.document(), &mut io::stdout().lock());
        }
    }
    exit.into()
}

fn print<D: Document>(document: &D, json: bool, terminal: bool, out: &mut impl Write) -> io::Result<()> {
    if json { write_json(document, out) } else { writeln!(out, "{}", table(document, terminal)) }
}

fn write_json(document: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, document)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Borders and bold heads are a terminal's; a pipe gets columns.
fn table<D: Document>(document: &D, terminal: bool) -> String {
    let mut table = Table::new();
    if !D::COLUMNS.is_empty() {
        table.set_header(D::COLUMNS.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    }
    for (index, row) in document.rows().into_iter().enumerate() {
        let bad = terminal && document.is_bad(index);
        let cell = |text: String| if bad { Cell::new(text).fg(Color::Red) } else { Cell::new(text) };
        table.add_row(row.into_iter().map(cell));
    }
    if terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
    } else {
        table.force_no_tty().load_style(presets::NOTHING);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit(Vec<(&'static str, u32)>);

    impl Document for Fruit {
        const COLUMNS: &'static [&'static str] = &["name", "count"];

        fn rows(&self) -> Vec<Vec<String>> {
            self.0.iter().map(|(name, count)| vec![(*name).to_owned(), count.to_string()]).collect()
        }
    }

    fn printed(document: &impl Document, json: bool, terminal: bool) -> String {
        let mut out = Vec::new();
        print(document, json, terminal, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_pipe_gets_aligned_text_and_json_is_one_line() {
        let fruit = Fruit(vec![("apple", 3), ("みかん", 12)]);
        assert_eq!(printed(&fruit, false, false), "name    count\napple   3\nみかん  12\n");
        assert_eq!(printed(&fruit, true, true), "[[\"apple\",3],[\"みかん\",12]]\n");
        assert_eq!(printed(&Revoked { revoked: 2 }, false, false), "revoked  2\n");
        assert!(printed(&fruit, false, true).starts_with('┌'));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for json in [true, false] {
            let error = print(&Revoked { revoked: 1 }, json, false, &mut Closed).unwrap_err();
            assert_eq!(Failure::from(error).exit(), Exit::Done, "json: {json}");
        }
    }
}
