//! Connections to the file: how they are opened, how they fail, how a column is read back.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use crate::store::StoreError;

/// How long to wait for another program (a backup, a shell) to let go of the file.
const BUSY: Duration = Duration::from_secs(5);
/// Prepared statements kept by a connection; more than there are.
const STATEMENTS: usize = 64;
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
    match access {
        // FULL: in WAL mode anything less loses commits that were acknowledged when the power fails.
        // secure_delete: what was erased is overwritten, not just forgotten.
        Access::Create | Access::Write => conn.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;",
        )?,
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
