//! `audit tail | export | verify | pseudonym`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;

use super::connection::{Connection, path};
use super::failure::Failure;
use super::output::Document;
use crate::admin::{AuditEntry, AuditHead, AuditKeyPrint, AuditPage, AuditPseudonym, AuditVerdict};
use crate::audit::{EntryHash, Expected, MOST_LINE_BYTES, Verifier, plain};

/// How often `--follow` asks for more.
const FOLLOW: Duration = Duration::from_secs(1);
/// Characters of a cell: as many as the longest text of an entry may have.
const MOST_CELL: usize = 512;
/// Entries of one answer, at most.
const PAGE: u32 = 1000;

const VERIFY: &str = "\
With FILE, an export, nothing is asked of a gateway; - is stdin. Without it the running gateway judges its own trail.
An export vouches for itself unless --audit-key names a fingerprint that was noted down when the gateway was set up, and --head
a hash that was noted down later: then it can be neither made up nor cut off.
Exit codes: 0 nothing contradicts, 1 something does (its entry is named).";

#[derive(Args)]
pub(super) struct Audit {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The last entries
    Tail {
        /// How many
        #[arg(short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
        count: u32,
        /// Go on with what comes; with --json a line each
        #[arg(long, short)]
        follow: bool,
    },
    /// The trail as JSON lines on stdout, with all that verification elsewhere needs
    Export {
        /// Begin with this entry
        #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        from: u64,
    },
    /// Whether the trail is what it was
    #[command(after_help = VERIFY)]
    Verify {
        /// An export
        file: Option<PathBuf>,
        /// The fingerprint of an audit key that is known to be the gateway's; may be repeated
        #[arg(long = "audit-key", value_name = "FINGERPRINT", requires = "file", allow_hyphen_values = true, value_parser = fingerprint)]
        keys: Vec<String>,
        /// The hash of an entry that must be in it
        #[arg(long, value_name = "HASH", requires = "file", value_parser = entry_hash)]
        head: Option<EntryHash>,
        /// How many entries there must be
        #[arg(long, value_name = "N", requires = "file")]
        expect_entries: Option<u64>,
        /// It must be the whole trail, but for what the gateway erased because it was old enough
        #[arg(long, requires = "file")]
        whole: bool,
    },
    /// Who an account is in the trail; that you asked will stand there
    Pseudonym {
        /// Its id
        account: String,
    },
}

impl Audit {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            Verb::Tail { count, follow: false } => connection.finish(tail(&connection, count)),
            Verb::Tail { count, follow: true } => connection.end(follow(&connection, count)),
            Verb::Export { from } => connection.end(export(&connection, from)),
            Verb::Verify { file: None, .. } => connection.call::<AuditVerdict>(Method::GET, &path(["audit", "verify"])),
            Verb::Verify { file: Some(file), keys, head, expect_entries, whole } => {
                let expected = Expected { keys, head, entries: expect_entries, whole };
                let verdict = verify(&file, expected).map_err(|source| Failure::File { path: file, source });
                connection.finish(verdict)
            }
            Verb::Pseudonym { account } => {
                connection.call::<AuditPseudonym>(Method::GET, &path(["audit", "pseudonyms", &account]))
            }
        }
    }
}

fn fingerprint(text: &str) -> Result<String, &'static str> {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.len() == 43 && text.bytes().all(base64url) {
        Ok(text.to_owned())
    } else {
        Err("a fingerprint is 43 characters of base64url, as `audit verify` shows them")
    }
}

fn entry_hash(text: &str) -> Result<EntryHash, &'static str> {
    EntryHash::parse(text).ok_or("the hash of an entry is 64 lower-case hexadecimal digits")
}

fn tail(connection: &Connection, count: u32) -> Result<AuditPage, Failure> {
    let mut page: AuditPage = connection.fetch(Method::GET, &format!("/v1/audit?limit={}", count.max(1)))?;
    if count == 0 {
        page.entries.clear();
    }
    Ok(page)
}

/// Prints the last entries, and what comes behind them, until whoever reads goes away.
fn follow(connection: &Connection, count: u32) -> Result<(), Failure> {
    let mut page = tail(connection, count)?;
    let mut last = page.head.as_ref().map_or(0, |head| head.seq);
    loop {
        let mut out = io::stdout().lock();
        for entry in &page.entries {
            last = last.max(entry.seq);
            if connection.json() {
                serde_json::to_writer(&mut out, entry).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            } else {
                writeln!(out, "{}", row(entry).join("  "))?;
            }
        }
        out.flush()?;
        drop(out);
        if page.entries.len() < PAGE as usize {
            std::thread::sleep(FOLLOW);
        }
        page = connection.fetch(Method::GET, &format!("/v1/audit?after={last}&limit={PAGE}"))?;
    }
}

fn export(connection: &Connection, from: u64) -> Result<(), Failure> {
    let target = format!("/v1/audit/export?after={}", from - 1);
    let mut written = Ok(());
    connection.run(async |client| {
        client
            .stream(&target, |bytes| {
                written = io::stdout().lock().write_all(bytes);
                written.is_ok()
            })
            .await
    })?;
    written.and_then(|()| io::stdout().lock().flush()).map_err(Failure::from)
}

/// Judges a file line by line; memory does not grow with it.
fn verify(file: &Path, expected: Expected) -> io::Result<AuditVerdict> {
    let input: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(file)?) };
    let mut input = BufReader::new(input);
    let mut verifier = Verifier::new(expected);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than a line may have, and its line feed.
        input.by_ref().take(MOST_LINE_BYTES as u64 + 2).read_until(b'\n', &mut line)?;
        match line.split_last() {
            None => return Ok(verifier.finish().into()),
            Some((b'\n', text)) => verifier.line(text),
            Some(_) if line.len() > MOST_LINE_BYTES => {
                verifier.line(&line);
                input.skip_until(b'\n')?;
            }
            Some(_) => verifier.broken_off(),
        }
    }
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let number = |name: &str, value: Option<u64>| value.map(|value| format!("{name} {value}"));
    let counts = [number("before", entry.before), number("after", entry.after), number("count", entry.count)];
    let outcome = entry.of.map_or_else(|| entry.outcome.clone(), |of| format!("{} ({of})", entry.outcome));
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let cells = [
        entry.seq.to_string(),
        entry.time.clone(),
        entry.actor.clone(),
        entry.action.clone(),
        outcome,
        text(&entry.account),
        text(&entry.object),
        counts.into_iter().flatten().collect::<Vec<_>>().join(", "),
        text(&entry.reason),
    ];
    // What the gateway wrote steers no terminal; what somebody made of it in the store might.
    cells.map(|cell| plain(&cell, MOST_CELL)).into()
}

impl Document for AuditPage {
    const COLUMNS: &'static [&'static str] =
        &["seq", "time", "who", "what", "outcome", "account", "object", "counts", "why"];

    fn rows(&self) -> Vec<Vec<String>> {
        self.entries.iter().map(row).collect()
    }
}

impl Document for AuditVerdict {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row("ok", if self.ok { "yes" } else { "NO" }.to_owned()),
            row("entries", self.entries.to_string()),
            row("unverifiable", self.unverifiable.to_string()),
        ];
        if self.erased > 0 {
            rows.push(row("erased before", format!("{}, old enough by privacy.audit_retention", self.erased)));
        } else if self.from > 1 {
            rows.push(row("begins", format!("with entry {}: a part of a trail", self.from)));
        }
        rows.extend(self.first_bad.map(|seq| row("first bad entry", seq.to_string())));
        rows.extend(self.line.filter(|line| *line > 0).map(|line| row("line", line.to_string())));
        rows.extend(self.problem.as_ref().map(|problem| row("problem", problem.clone())));
        rows.extend(self.head.as_ref().map(|AuditHead { seq, hash }| row("head", format!("{seq} {hash}"))));
        rows.extend(
            self.keys.iter().map(|AuditKeyPrint { id, fingerprint }| row(&format!("key {id}"), fingerprint.clone())),
        );
        rows
    }

    fn refusal(&self) -> Option<String> {
        let what = || self.problem.as_deref().unwrap_or("the trail is not what it was");
        (!self.ok).then(|| self.first_bad.map_or_else(|| what().to_owned(), |seq| format!("entry {seq}: {}", what())))
    }
}

impl Document for AuditPseudonym {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec!["account".to_owned(), self.account.clone()], vec!["pseudonym".to_owned(), self.pseudonym.clone()]]
    }
}
