//! Keys of the days of the sealed access log.

use rusqlite::{Connection, Row};

use super::connection::column;
use super::key_change;
use crate::clock::Day;
use crate::store::{KeyChange, LogKeyOutcome, LogKeyRecord, StoreError};

/// All there are, oldest first.
pub(super) fn all(conn: &Connection) -> Result<Vec<LogKeyRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM log_keys ORDER BY day")?;
    select.query_and_then([], record)?.collect()
}

/// Days before this have no key any more.
pub(super) fn from(conn: &Connection) -> Result<Option<Day>, StoreError> {
    let mut select = conn.prepare_cached("SELECT log_keys_from FROM meta")?;
    let read =
        |row: &Row<'_>| Ok(column(row, "log_keys_from", |days: Option<i32>| Some(days.map(Day::from_unix_days))));
    select.query_row([], read)?
}

/// Keeps a day's first key, unless its time is over.
pub(super) fn keep(conn: &Connection, key: &LogKeyRecord, revision: u64) -> Result<LogKeyOutcome, StoreError> {
    if from(conn)?.is_some_and(|from| key.day < from) {
        return Ok(LogKeyOutcome::Past);
    }
    if key_change::revision(conn)? != revision {
        return Ok(LogKeyOutcome::Stale);
    }
    conn.prepare_cached("INSERT INTO log_keys (day, wrapped) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute((key.day.unix_days(), &key.wrapped))?;
    let mut select = conn.prepare_cached("SELECT * FROM log_keys WHERE day = ?1")?;
    Ok(LogKeyOutcome::There(select.query_row([key.day.unix_days()], |row| Ok(record(row)))??))
}

/// Destroys the keys of days before `before`, for good.
pub(super) fn destroy(conn: &Connection, before: Day) -> Result<u64, StoreError> {
    let destroyed = conn.prepare_cached("DELETE FROM log_keys WHERE day < ?1")?.execute([before.unix_days()])?;
    if destroyed > 0 {
        conn.prepare_cached("UPDATE meta SET log_keys_from = ?1 WHERE coalesce(log_keys_from < ?1, true)")?
            .execute([before.unix_days()])?;
    }
    Ok(destroyed as u64)
}

/// Whether changes that wrap keys under another KEK are about the key of each log day: one that was made in between would
/// be left behind.
pub(super) fn all_rewrapped(conn: &Connection, changes: &[KeyChange]) -> Result<bool, StoreError> {
    let mut days = None;
    for change in changes {
        match change {
            KeyChange::RewrapLogKeys(keys) => days = Some(keys.iter().map(|key| key.day).collect()),
            KeyChange::RewrapPinSecret { .. } => {
                days.get_or_insert_with(Vec::new);
            }
            KeyChange::New(_)
            | KeyChange::Move { .. }
            | KeyChange::Suspend { .. }
            | KeyChange::Compromise { .. }
            | KeyChange::Rewrap { .. } => {}
        }
    }
    let Some(days) = days else { return Ok(true) };
    let there: Vec<Day> = all(conn)?.into_iter().map(|key| key.day).collect();
    Ok(there == days)
}

/// Puts the same keys in, wrapped anew.
pub(super) fn rewrap(conn: &Connection, keys: &[LogKeyRecord]) -> Result<(), StoreError> {
    let mut update = conn.prepare_cached("UPDATE log_keys SET wrapped = ?2 WHERE day = ?1")?;
    for key in keys {
        update.execute((key.day.unix_days(), &key.wrapped))?;
    }
    Ok(())
}

fn record(row: &Row<'_>) -> Result<LogKeyRecord, StoreError> {
    Ok(LogKeyRecord {
        day: column(row, "day", |days| Some(Day::from_unix_days(days)))?,
        wrapped: column(row, "wrapped", Some)?,
    })
}
