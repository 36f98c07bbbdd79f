//! `backup FILE`, `backups list | destroy`, `restore FILE`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use serde_json::json;

use super::connection::{Connection, path};
use super::failure::Failure;
use super::output::{Document, finish};
use crate::admin;
use crate::backup::{ArchiveReader, hex};
use crate::gateway::{Restored, restore};

const BACKUP: &str = "\
The file holds the whole store but sessions and codes, encrypted under a key of its own. That key is in the gateway's ledger
(backup.ledger), wrapped under the KEK: to restore, it takes the file, the ledger and the KEK, and no two of them are enough. Keep the three
apart. `backups destroy` takes the key out of the ledger, and no copy of the file opens any more.
FILE must not be there yet, and is there only when it is whole.";

const RESTORE: &str = "\
No gateway may be using the store. Everything is verified before a byte of the store changes. With --replace a store that is there is kept
beside it; without, it is a refusal. At its next start the gateway finds the store older than the ledger knows it, erases again what was
erased since, replaces keys that were replaced since, and serves handsets only then.
Exit codes: 0 restored, 1 refused (nothing was changed), 2 usage or configuration.";

#[derive(Args)]
#[command(after_help = BACKUP)]
pub(super) struct Backup {
    /// Where to write it
    file: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(super) struct Backups {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// All backups, the latest first, and which keys each holds digests of
    List,
    /// Destroy the key of a backup: no copy of its file opens any more
    Destroy {
        /// The backup's id, as `backups list` shows it
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Args)]
#[command(after_help = RESTORE)]
pub(super) struct Restore {
    /// The backup
    file: PathBuf,
    /// The gateway's configuration: store, KEK and ledger
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Replace a store that is there, and keep it beside
    #[arg(long)]
    replace: bool,
    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    json: bool,
}

/// A backup that was written.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    backup: admin::Backup,
    /// Whether the KEK is in it.
    holds_kek: bool,
}

impl Backup {
    pub(super) fn run(self) -> ExitCode {
        let Self { file, connection } = self;
        connection.finish(write(&connection, &file))
    }
}

impl Backups {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            Verb::List => connection.call::<admin::Backups>(Method::GET, &path(["backups"])),
            Verb::Destroy { id, reason } => {
                let document = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
                connection.call_with::<admin::Backup>(Method::DELETE, &path(["backups", &id]), &document)
            }
        }
    }
}

impl Restore {
    pub(super) fn run(self) -> ExitCode {
        let Self { file, config, replace, json } = self;
        let restored = restore(&config, &file, replace).map_err(Failure::Restore);
        finish(restored, json)
    }
}

/// Gets a backup under another name; it has its own once it is whole and on the disk.
fn write(connection: &Connection, file: &Path) -> Result<Written, Failure> {
    let at = |source| Failure::Output { path: file.to_owned(), source };
    if file.try_exists().map_err(at)? {
        return Err(at(io::ErrorKind::AlreadyExists.into()));
    }
    let draft = Draft::beside(file).map_err(at)?;
    let mut written = Ok(());
    connection.run(async |client| {
        let take = |bytes: &[u8]| {
            written = (&draft.file).write_all(bytes);
            written.is_ok()
        };
        client.receive(Method::POST, &path(["backups"]), take).await
    })?;
    written.and_then(|()| draft.file.sync_all()).map_err(at)?;
    let head = File::open(&draft.path).map_err(at)?;
    let head = ArchiveReader::head(BufReader::new(head)).map_err(|error| at(io::Error::other(error)))?;
    let id = hex(&head.header().backup_id);
    let backup: admin::Backup = connection.fetch(Method::GET, &path(["backups", &id]))?;
    draft.rename(file).map_err(at)?;
    Ok(Written { file: file.to_owned(), backup, holds_kek: false })
}

/// A file on its way, removed unless it comes to its end.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn beside(file: &Path) -> io::Result<Self> {
        let mut path = file.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        let draft = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // What a run that was killed left there is taken over; what another writes now is not.
        draft.try_lock().map_err(io::Error::from)?;
        draft.set_len(0)?;
        Ok(Self { path, file: draft })
    }

    fn rename(self, file: &Path) -> io::Result<()> {
        renameat_with(CWD, &self.path, CWD, file, RenameFlags::NOREPLACE)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It has another name already, or is of no use.
        let _ = fs::remove_file(&self.path);
    }
}

impl Document for Written {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![row("file", self.file.display().to_string())];
        rows.extend(self.backup.rows());
        rows.push(row("KEK", "not in it; keep it, and the ledger, apart from this file".to_owned()));
        rows
    }
}

impl Document for admin::Backup {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row("id", self.id.clone()),
            row("state", self.state.clone()),
            row("taken at", self.taken_at.clone()),
            row("taken by", self.taken_by.clone()),
        ];
        rows.extend(self.bytes.map(|bytes| row("bytes", bytes.to_string())));
        rows.extend([
            row("accounts", self.accounts.to_string()),
            row("bindings", self.bindings.to_string()),
            row("digests under", self.digests_under.join(" ")),
            row("keys in it", self.keys.join(" ")),
            row("needs the KEK", self.kek.clone()),
            row("store", self.store.clone()),
        ]);
        rows.extend(self.destroyed_at.clone().map(|at| row("destroyed at", at)));
        rows.extend(self.destroyed_by.clone().map(|by| row("destroyed by", by)));
        rows
    }
}

impl Document for admin::Backups {
    const COLUMNS: &'static [&'static str] = &["id", "taken at", "state", "bytes", "bindings", "digests under", "KEK"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |b: &admin::Backup| {
            let bytes = b.bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
            let (id, at, state) = (b.id.clone(), b.taken_at.clone(), b.state.clone());
            vec![id, at, state, bytes, b.bindings.to_string(), b.digests_under.join(" "), b.kek.clone()]
        };
        self.backups.iter().map(row).collect()
    }
}

impl Document for Restored {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row("restored", self.backup.clone()),
            row("taken at", self.taken_at.clone()),
            row("store", self.store.display().to_string()),
        ];
        rows.extend(self.former.as_ref().map(|former| row("former store", former.display().to_string())));
        rows.push(row(
            "next",
            "start the gateway: it erases again what was erased since, and replaces keys".to_owned(),
        ));
        rows
    }
}
