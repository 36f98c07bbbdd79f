//! `drill compromise`: what a leak of a binding key would be, in minutes and counts.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::compromise;
use super::connection::Connection;
use super::failure::Failure;
use super::output::Document;
use crate::admin::{DrillProgress, ShownDrill};

const COMPROMISE: &str = "\
Does what `keys compromise` does, on a copy of the store beside it that is erased again, and reports what a leak would be: how long it takes
here, whom it concerns, which backups hold digests of the key, who has to agree to its end. Nothing changes but the audit trail, which
tells of the drill. It needs the KEK and twice the room of the store, and gives way to handsets that sign in. Ctrl-C calls it off.";

#[derive(Args)]
pub(super) struct Drill {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Rehearse that a binding key has leaked; changes nothing
    #[command(after_help = COMPROMISE)]
    Compromise {
        /// The key's id, as `keys list` shows it [default: the active one]
        id: Option<String>,
    },
}

impl Drill {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb: Verb::Compromise { id } } = self;
        connection.finish(drill(&connection, id.as_deref()))
    }
}

fn drill(connection: &Connection, key: Option<&str>) -> Result<ShownDrill, Failure> {
    // On stderr, and only if that is a terminal.
    let style = ProgressStyle::with_template("{spinner} {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let outcome = connection.run(async |client| client.drill(key, |progress| tell(&bar, &progress)).await);
    bar.finish_and_clear();
    outcome
}

fn tell(bar: &ProgressBar, DrillProgress { stage, done, total }: &DrillProgress) {
    let counts = if *total == 0 { String::new() } else { format!(" {done} of {total} bindings") };
    bar.set_message(format!("{stage}{counts}"));
    bar.tick();
}

impl Document for ShownDrill {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let drill = &self.drill;
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let seconds = |seconds: f64| format!("{seconds} s");
        let mut rows = vec![
            row("drill for", format!("{}; nothing was changed", drill.key)),
            row("a leak would take", format!("{} minutes", drill.minutes)),
            row("until replaced", seconds(drill.seconds.replaced)),
            row("until wrapped", seconds(drill.seconds.wrapped)),
            row("rested for sign-ins", seconds(drill.seconds.rested)),
            row("copied", format!("{} bytes in {}", drill.bytes, seconds(drill.seconds.copied))),
            row("found by that key alone", format!("{}; after the wrap {}", drill.alone, drill.alone_after)),
        ];
        rows.extend(compromise::rows(&drill.report));
        rows
    }
}
