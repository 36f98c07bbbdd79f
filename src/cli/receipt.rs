//! `rotation receipt | verify`: what an auditor gets, and what says whether it is sound.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;

use super::connection::{Connection, path};
use super::failure::Failure;
use super::output::{Document, finish};
use crate::admin::IssuedReceipt;
use crate::receipt::{self, KnownKey, Origin, Survey, Verdict};
use crate::store::{EmbeddedStore, Inspection};

/// More than any receipt; what is longer is not read.
const MOST_BYTES: u64 = 2 << 20;

const VERIFY: &str = "\
Needs no gateway. Says `ok` where nothing was changed since the receipt was sealed, and nothing in it contradicts itself.
Whose seal it is, only --audit-key tells: without it the key in the receipt is taken on trust (`origin: unproven`), and anybody
can make one. Exit codes: 0 ok, 1 not ok, 2 no such file or key.";

#[derive(Subcommand)]
pub(super) enum ReceiptVerb {
    /// The sealed receipt of a rotation that is done: a file for auditors
    Receipt {
        /// The rotation's id
        id: String,
    },
    /// Say whether a receipt is as it was sealed, and name what is not
    #[command(after_help = VERIFY)]
    Verify(Verify),
}

impl ReceiptVerb {
    pub(super) fn run(self, connection: &Connection) -> ExitCode {
        match self {
            // A receipt is a file, so that a pipe gets the document itself.
            Self::Receipt { id } => finish(fetch(connection, &id), connection.json || !io::stdout().is_terminal()),
            // A client's --key that was meant for the receipt must not be taken for a known origin.
            Self::Verify(_) if connection.names_a_gateway() => {
                finish::<Verdict>(Err(Failure::Offline), connection.json)
            }
            Self::Verify(verify) => finish(verify.verdict(), connection.json),
        }
    }
}

/// What `verify` takes.
#[derive(Args)]
pub(super) struct Verify {
    /// The receipt, as `rotation receipt` printed it; `-` for stdin
    file: PathBuf,
    /// A key that may have sealed it, or its fingerprint; several may be named
    #[arg(long, value_name = "KEY")]
    audit_key: Vec<String>,
    /// A store, or a copy of one, in which nothing may need the old key any more
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

fn fetch(connection: &Connection, id: &str) -> Result<IssuedReceipt, Failure> {
    connection.fetch(Method::GET, &path(["rotations", id, "receipt"]))
}

impl Verify {
    fn verdict(&self) -> Result<Verdict, Failure> {
        let known: Option<Vec<_>> = self.audit_key.iter().map(|key| KnownKey::parse(key)).collect();
        let known = known.ok_or(Failure::AuditKey)?;
        let document = self.read()?;
        match &self.store {
            None => Ok(receipt::verify(&document, &known)),
            Some(store) => Ok(receipt::verify_against(&document, &known, &survey(store)?)),
        }
    }

    fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut document = Vec::new();
        let read = if self.file == Path::new("-") {
            io::stdin().lock().take(MOST_BYTES).read_to_end(&mut document)
        } else {
            File::open(&self.file).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut document))
        };
        read.map_err(|error| Failure::File { path: self.file.clone(), source: error })?;
        Ok(document)
    }
}

/// Looks at a store that no gateway uses.
fn survey(path: &Path) -> Result<Survey, Failure> {
    let refused = |why: String| Failure::Store { path: path.to_owned(), why };
    let store = match EmbeddedStore::inspect(path).map_err(|error| refused(error.to_string()))? {
        Inspection::Sound(store) => store,
        Inspection::NotThere => return Err(refused("there is none".to_owned())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(receipt::survey(&store)).map_err(|error| refused(error.to_string()))
}

impl Document for IssuedReceipt {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let shown = [
            ("rotation", "/rotation/id"),
            ("from", "/from/id"),
            ("to", "/to/id"),
            ("started at", "/rotation/started_at"),
            ("finished at", "/rotation/finished_at"),
            ("bindings before", "/counts/total"),
            ("wrapped", "/counts/wrapped"),
            ("flattened", "/counts/flattened"),
            ("purged", "/counts/purged"),
            ("remaining", "/counts/remaining"),
            ("destroyed at", "/addenda/0/from/destroyed_at"),
            ("restarted at", "/addenda/1/process/started_at"),
            ("sealed by", "/seal/key/id"),
            ("fingerprint", "/seal/key/fingerprint"),
        ];
        let row = |(name, pointer): (&str, &str)| {
            let value = self.at(pointer)?;
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some(vec![name.to_owned(), value])
        };
        shown.into_iter().filter_map(row).collect()
    }
}

impl Document for Verdict {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let origin = match self.origin {
            Origin::Known => "known: sealed by a key that was named",
            Origin::Unproven => {
                "UNPROVEN: anybody can make a key and seal a receipt of their own. Name the gateway's with --audit-key, or \
                 compare the fingerprint with one that came another way"
            }
        };
        let ok = match (self.ok, self.origin) {
            (true, Origin::Known) => "yes",
            (true, Origin::Unproven) => "yes: nothing was changed since somebody sealed it",
            (false, _) => "no",
        };
        let mut rows = vec![row("ok", ok), row("origin", origin)];
        rows.extend(self.problems.iter().map(|problem| row("problem", problem)));
        rows.extend(self.rotation.iter().map(|id| row("rotation", id)));
        rows.extend(self.fingerprint.iter().map(|key| row("fingerprint", key)));
        rows
    }

    fn refusal(&self) -> Option<String> {
        (!self.ok).then(|| format!("the receipt is not as it was sealed: {}", self.problems.join("; ")))
    }
}
