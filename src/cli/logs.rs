//! `logs read`: a sealed log to the gateway, its lines in clear to stdout.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::{Args, Subcommand};
use futures_util::stream;
use tokio::sync::mpsc;

use super::connection::Connection;
use super::days::{day, span};
use super::failure::{Exit, Failure, Findings};
use super::import::{WAITING, read_chunks};
use crate::admin::{LogEvent, LogFinding, LogsRead};
use crate::audit::plain;
use crate::clock::Day;
use crate::config::{AccessLog, Config};
use crate::logs::days_put_aside;

const READ: &str = "\
The gateway opens what it is sent and reads no file itself: FILE may be a copy from a backup, and - is stdin. Without FILE the files are
read that the configuration of --config names, as far as this user may. Each day that is read stands in the audit trail. A day whose key
was destroyed at the end of privacy.access_log_retention is past reading, in every copy. What does not fit is told on stderr, by the
line of its file; with --json each piece of the answer is a line of JSON on stdout.
Exit codes: 0 all was read, 1 refused, or something does not fit or has no key any more, 2 usage, 3 no gateway answers.";

/// Characters of a file's name in a message.
const MOST_NAME: usize = 256;

#[derive(Args)]
pub(super) struct Logs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The lines of a sealed access log, in clear on stdout; for the roles privacy and auditor
    #[command(after_help = READ)]
    Read {
        /// One day (UTC) alone
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = day, conflicts_with_all = ["from", "to"])]
        day: Option<Day>,
        /// Not the days before
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
        from: Option<Day>,
        /// Not the days after
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
        to: Option<Day>,
        /// Sealed logs, in the order of their days
        files: Vec<PathBuf>,
    },
}

impl Logs {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb: Verb::Read { day, from, to, files } } = self;
        let read = files_of(&connection, files).and_then(|files| {
            let days = span(day.or(from), day.or(to));
            let mut all = true;
            for file in files {
                all &= read(&connection, &days, &file)?;
            }
            Ok(all)
        });
        match read {
            Ok(true) => Exit::Done.into(),
            Ok(false) => Exit::Refused.into(),
            Err(failure) => connection.end(Err(failure)),
        }
    }
}

/// Those that were named, or those that the configuration names.
fn files_of(connection: &Connection, named: Vec<PathBuf>) -> Result<Vec<PathBuf>, Failure> {
    if !named.is_empty() {
        return Ok(named);
    }
    let file = connection.config_file().ok_or(Failure::NoLog)?;
    let (config, _) = Config::load(file).map_err(|found| Failure::Configuration(Findings(found)))?;
    let AccessLog::File(path) = config.log.access else { return Err(Failure::NoLog) };
    let at = |source| Failure::File { path: path.clone(), source };
    let mut files = days_put_aside(&path, Day::from_unix_days(i32::MAX)).map_err(at)?;
    files.sort_unstable();
    files.extend(path.try_exists().map_err(at)?.then_some(path));
    Ok(files)
}

/// Whether all that was asked for was read.
fn read(connection: &Connection, days: &str, file: &Path) -> Result<bool, Failure> {
    let input: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).map_err(|source| Failure::File { path: file.to_owned(), source })?)
    };
    let (chunks, mut read) = mpsc::channel(WAITING);
    // A thread of its own, left alone when the gateway ends first: a read of a terminal cannot be called off.
    let reader = thread::Builder::new().spawn(move || read_chunks(input, &chunks))?;
    let bytes = stream::poll_fn(move |context| read.poll_recv(context));
    let mut written = Ok(());
    let outcome = connection.run(async |client| {
        let take = |event: LogEvent| {
            written = show(&event, connection.json(), file);
            written.is_ok()
        };
        client.read_logs(days, bytes, take).await
    });
    if outcome.is_err()
        && reader.is_finished()
        && let Ok(Some(source)) = reader.join()
    {
        return Err(Failure::File { path: file.to_owned(), source });
    }
    written?;
    let LogsRead { damaged, days_without_key, .. } = outcome?;
    io::stdout().flush()?;
    Ok(damaged == 0 && days_without_key == 0)
}

fn show(event: &LogEvent, json: bool, file: &Path) -> io::Result<()> {
    if json {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        return io::stdout().lock().write_all(&line);
    }
    match event {
        LogEvent::Lines { lines } => io::stdout().lock().write_all(lines.as_bytes()),
        LogEvent::Finding { finding } => {
            let file = plain(&file.display().to_string(), MOST_NAME);
            writeln!(io::stderr(), "sekisho: {file}: {}", told(finding))
        }
        LogEvent::Done(_) | LogEvent::Refused(_) => Ok(()),
    }
}

fn told(finding: &LogFinding) -> String {
    let what = match finding.found.as_str() {
        "changed" => "this is no record, or it was changed",
        "missing" => "records before this one are missing, or were changed",
        "repeated" => "this record stands here a second time, or in another place than it was written",
        "torn" => "the gateway was killed while it wrote this; these lines are lost",
        "unclosed" => {
            "what was written before this has no end: the gateway was killed, or the last records are missing"
        }
        "open" => "the file has no end: the gateway is writing it, it was killed, or the last records are missing",
        "destroyed" => {
            "the key of this day was destroyed at the end of the retention; no copy of its lines can be read"
        }
        "unknown" => "this gateway's store has no key of this day; is the log another gateway's?",
        _ => "something that this version does not know",
    };
    let day = finding.day.as_ref().map(|day| format!("{}: ", plain(day, 16))).unwrap_or_default();
    format!("line {}: {day}{what}", finding.line)
}
