//! Connections to the file: how they are opened, that they are held to it, how they fail, how a column is read back.

use std::fmt::Display;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use super::file::{self, Identity};
use crate::store::StoreError;

/// How long to wait for another program (a backup, a shell) to let go of the file.
const BUSY: Duration = Duration::from_secs(5);
/// Prepared statements kept by a connection; more than there are.
const STATEMENTS: usize = 64;
/// Memory for pages that the writer may keep, in KiB. Twice as much as the index of a million digests: each record of a wrap
/// touches two of its pages at random. Taken as it is needed, given back when a wrap is over.
const WRITER_CACHE_KIB: i64 = 64 << 10;
/// Pages in the journal from which on the writer brings it into the file itself, within a commit, 192 MiB. The last resort:
/// SQLite counts those too that are in the file already, of which a journal that is seldom begun anew has many.
const LONGEST_JOURNAL: i64 = 48 << 10;
/// What stands for itself in the path of a `file:` URI.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Make the file if it is missing.
    Create,
    /// Read and write.
    Write,
    /// Read, beside a writer.
    Read,
    /// Read a file that nobody changes meanwhile and that has no journal; leaves no file behind.
    Frozen,
}

/// Where connections lead: the path, and the one file that may be there while the gateway runs.
#[derive(Clone)]
pub(super) struct Place {
    path: PathBuf,
    store: Identity,
}

impl Place {
    /// The store that is at `path` now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), store: file::identity(path)? })
    }

    /// Opens a connection to it.
    ///
    /// # Errors
    /// [`StoreError`], also if another file is there now.
    pub(super) fn connect(&self, access: Access) -> Result<Held, StoreError> {
        self.hold(connect(&self.path, access)?)
    }

    /// Waits until all that was committed so far is on the disk. Holds nobody up but the caller.
    ///
    /// # Errors
    /// [`StoreError`], also if the journal is not there.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        file::sync_journal(&self.path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                moved(error)
            } else {
                StoreError::Unavailable(format!("its journal does not reach the disk ({error})"))
            }
        })
    }

    /// Holds a connection that leads here.
    pub(super) fn hold(&self, conn: Connection) -> Result<Held, StoreError> {
        // The first read opens the journal.
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let journal = file::journal_identity(&self.path).map_err(moved)?;
        let held = Held { journal, place: self.clone(), conn, syncs: Syncs::EachCommit };
        held.in_place()?;
        Ok(held)
    }
}

/// A connection, and the files it was opened on.
pub(super) struct Held {
    conn: Connection,
    place: Place,
    journal: Option<Identity>,
    syncs: Syncs,
}

/// What a connection that writes waits for the disk with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syncs {
    /// With each commit: whatever was committed before, by whomever, is on the disk then too.
    EachCommit,
    /// Only before the journal is brought into the file: a commit survives this process, and with [`Place::sync`] or the
    /// next commit of the other kind the machine.
    Checkpoints,
}

impl Held {
    /// The connection, if its files are still where the next start looks for them: SQLite writes on into files that
    /// were removed, and an answer would promise what nobody finds again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if either was moved away, removed or replaced. Keep the connection then: files that
    /// come back are the ones it knows, and opening anew would mix a new journal with the index of the old one.
    pub(super) fn in_place(&self) -> Result<&Connection, StoreError> {
        let Place { path, store } = &self.place;
        let there = file::identity(path).and_then(|store| Ok((store, file::journal_identity(path)?))).map_err(moved)?;
        if there == (*store, self.journal) { Ok(&self.conn) } else { Err(moved("another is there")) }
    }

    /// What the next transactions wait for. A connection begins with [`Syncs::EachCommit`].
    pub(super) fn sync(&mut self, syncs: Syncs) -> Result<(), StoreError> {
        if self.syncs != syncs {
            self.conn.execute_batch(match syncs {
                Syncs::EachCommit => "PRAGMA synchronous = FULL",
                Syncs::Checkpoints => "PRAGMA synchronous = NORMAL",
            })?;
            self.syncs = syncs;
        }
        Ok(())
    }

    /// Ends what an error left of a transaction.
    pub(super) fn roll_back(&self) {
        if !self.conn.is_autocommit() {
            // One that cannot be ended makes the next fail, and the connection be closed.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }

    /// The connection wherever its files are, to be asked about itself.
    pub(super) const fn connection(&self) -> &Connection {
        &self.conn
    }

    /// The connection wherever its files are, to be closed.
    pub(super) fn into_inner(self) -> Connection {
        self.conn
    }
}

fn moved(why: impl Display) -> StoreError {
    StoreError::Unavailable(format!(
        "its file or journal was moved away, removed or replaced ({why}); put it back, or restart the gateway"
    ))
}

/// Opens a connection.
pub(super) fn connect(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let conn = match access {
        Access::Create => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
        }
        Access::Write => {
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
        }
        Access::Read => {
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
        }
        Access::Frozen => {
            let uri = format!("file:{}?immutable=1", percent_encode(path.as_os_str().as_bytes(), PATH));
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
        }
    };
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Plans follow from the statement alone. Otherwise SQLite (3.54) compiles a statement whose plan a parameter could change
    // each time anew that it is used, although no plan here would change.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    match access {
        // FULL: in WAL mode anything less loses commits that were acknowledged when the power fails.
        // secure_delete: what was erased is overwritten, not just forgotten.
        Access::Create | Access::Write => {
            conn.execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;",
            )?;
            conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
            conn.pragma_update(None, "wal_autocheckpoint", LONGEST_JOURNAL)?;
        }
        Access::Read | Access::Frozen => conn.execute_batch("PRAGMA query_only = ON;")?,
    }
    Ok(conn)
}

/// Runs a statement without parameters and result, prepared once a connection.
pub(super) fn execute(conn: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

/// Reads a column back and judges it again: what this program would not have written is a corrupt record.
pub(super) fn column<T: FromSql, R>(
    row: &Row<'_>,
    name: &'static str,
    judge: impl FnOnce(T) -> Option<R>,
) -> Result<R, StoreError> {
    row.get(name).ok().and_then(judge).ok_or_else(|| StoreError::Corrupt(format!("column {name}")))
}

/// Whether the error says that the file itself is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // Neither kind repeats a value: SQLite names tables and columns, and statements here carry no literals.
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) | None => Self::Corrupt(error.to_string()),
            Some(_) if is_damage(&error) => Self::Corrupt(error.to_string()),
            Some(_) => Self::Unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_is_compiled_once_however_often_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let writes = connect(&path, Access::Create).unwrap();
        writes
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER, b TEXT); CREATE INDEX i ON t (a)")
            .unwrap();
        for conn in [writes, connect(&path, Access::Read).unwrap()] {
            for number in 0..5 {
                let mut select = conn.prepare_cached("SELECT 1 FROM t WHERE a = ?1 AND b = ?2 LIMIT ?3").unwrap();
                assert!(!select.exists((number, number.to_string(), number)).unwrap());
                assert_eq!(select.get_status(StatementStatus::RePrepare), 0, "use {number}");
            }
        }
    }
}
