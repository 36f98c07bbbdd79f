//! Changes to the keys: compare-and-set on their revision, and what no change may break.

use rusqlite::{Connection, OptionalExtension as _};

use super::connection::column;
use super::rotations::innermost;
use super::{keys, log_keys};
use crate::binding::KeyId;
use crate::clock::Timestamp;
use crate::store::{ChangeOutcome, KeyChange, KeyPurpose, KeyRecord, KeyState, StoreError};

/// Counts the changes to any key.
pub(super) fn revision(conn: &Connection) -> Result<u64, StoreError> {
    let mut select = conn.prepare_cached("SELECT revision FROM meta")?;
    select.query_row([], |row| Ok(column(row, "revision", |count: i64| u64::try_from(count).ok())))?
}

/// Makes all changes or none. An outcome that refuses has changed nothing: what needs no change is judged first.
pub(super) fn change(conn: &Connection, expected: u64, changes: &[KeyChange]) -> Result<ChangeOutcome, StoreError> {
    let current = revision(conn)?;
    if current != expected {
        return Ok(ChangeOutcome::Stale);
    }
    if !log_keys::all_rewrapped(conn, changes)? {
        return Ok(ChangeOutcome::Stale);
    }
    if let Some(records) = in_use(conn, changes)? {
        return Ok(ChangeOutcome::InUse(records));
    }
    let mut about_binding = false;
    // What retires goes before what takes its place: never are two active.
    let retiring = |change: &&KeyChange| matches!(change, KeyChange::Move { from: KeyState::Active, .. });
    let in_order = changes.iter().filter(retiring).chain(changes.iter().filter(|change| !retiring(change)));
    for change in in_order {
        about_binding |= apply(conn, change)? == Some(KeyPurpose::Binding);
    }
    exactly_one_active(conn)?;
    let generation = i64::from(about_binding);
    conn.prepare_cached("UPDATE meta SET revision = revision + 1, generation = generation + ?1")?
        .execute([generation])?;
    Ok(ChangeOutcome::Changed(current + 1))
}

/// Whether one of the changes takes wrapped bytes away: then the journal, and the file as it was before, still have them.
pub(super) fn erases(changes: &[KeyChange]) -> bool {
    let erases = |change: &KeyChange| {
        matches!(
            change,
            KeyChange::Move { to: KeyState::Destroyed, .. }
                | KeyChange::Rewrap { .. }
                | KeyChange::RewrapPinSecret { .. }
                | KeyChange::RewrapLogKeys(_)
        )
    };
    changes.iter().any(erases)
}

/// How many records forbid one of the changes (clause 20).
fn in_use(conn: &Connection, changes: &[KeyChange]) -> Result<Option<u64>, StoreError> {
    for change in changes {
        let KeyChange::Move { id, from, to, .. } = change else { continue };
        if record(conn, id)?.purpose != KeyPurpose::Binding {
            continue;
        }
        let records = match (from, to) {
            (KeyState::Active | KeyState::Retiring, KeyState::Inner) => outermost_on(conn, id)?,
            (KeyState::Active | KeyState::Retiring | KeyState::Inner, KeyState::Drained | KeyState::Destroyed) => {
                not_past(conn, id)?
            }
            _ => 0,
        };
        if records > 0 {
            return Ok(Some(records));
        }
    }
    Ok(None)
}

/// How many records have the key as their outermost. A scan of all: asked only when a key changes its state.
fn outermost_on(conn: &Connection, id: &str) -> Result<u64, StoreError> {
    count(conn, "SELECT count(*) AS records FROM bindings WHERE chain = ?1 OR chain LIKE '%,' || ?1", id)
}

/// How many records have a chain that begins with the key or an older one: it contains the key, or the next wrap puts
/// it in.
pub(super) fn not_past(conn: &Connection, id: &str) -> Result<u64, StoreError> {
    let number = KeyId::parse(id).map_err(|_| broken(id, "has no id of the form k1"))?.number();
    let sql = concat!("SELECT count(*) AS records FROM bindings WHERE ", innermost!(), " <= ?1");
    let mut select = conn.prepare_cached(sql)?;
    select.query_row([number], |row| Ok(column(row, "records", |count: i64| u64::try_from(count).ok())))?
}

fn count(conn: &Connection, sql: &str, id: &str) -> Result<u64, StoreError> {
    let mut select = conn.prepare_cached(sql)?;
    select.query_row([id], |row| Ok(column(row, "records", |count: i64| u64::try_from(count).ok())))?
}

/// Makes one change; returns what the key is for, if it is about one.
fn apply(conn: &Connection, change: &KeyChange) -> Result<Option<KeyPurpose>, StoreError> {
    let purpose = match change {
        KeyChange::New(record) => {
            if conn.prepare_cached("SELECT 1 FROM keys WHERE id = ?1")?.exists([&record.id])? {
                return Err(broken(&record.id, "is there already"));
            }
            keys::insert(conn, record)?;
            record.purpose
        }
        KeyChange::Move { id, from, to, at } => {
            let record = record(conn, id)?;
            if record.state != *from || !forwards(*from, *to) {
                return Err(broken(id, "would not move forwards"));
            }
            enter(conn, id, *to, *at)?;
            record.purpose
        }
        KeyChange::Suspend { id, suspended } => {
            flag(conn, id, "UPDATE keys SET suspended = ?2 WHERE id = ?1", *suspended)?
        }
        KeyChange::Compromise { id } => flag(conn, id, "UPDATE keys SET compromised = ?2 WHERE id = ?1", true)?,
        KeyChange::Rewrap { id, wrapped } => {
            let record = record(conn, id)?;
            if record.state == KeyState::Destroyed {
                return Err(broken(id, "is destroyed"));
            }
            conn.prepare_cached("UPDATE keys SET wrapped = ?2 WHERE id = ?1")?.execute((id, wrapped))?;
            record.purpose
        }
        KeyChange::RewrapPinSecret { wrapped } => {
            conn.prepare_cached("UPDATE schemes SET pin_secret = ?1")?.execute([wrapped])?;
            return Ok(None);
        }
        KeyChange::RewrapLogKeys(rewrapped) => {
            log_keys::rewrap(conn, rewrapped)?;
            return Ok(None);
        }
    };
    Ok(Some(purpose))
}

fn forwards(from: KeyState, to: KeyState) -> bool {
    let place = |state| KeyState::ALL.iter().position(|other| *other == state);
    place(from) < place(to)
}

fn enter(conn: &Connection, id: &str, to: KeyState, at: Timestamp) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE keys SET state = ?2 WHERE id = ?1")?.execute((id, to.as_str()))?;
    let dated = match to {
        KeyState::Pending | KeyState::Inner => return Ok(()),
        KeyState::Active => "UPDATE keys SET activated_at = ?2 WHERE id = ?1",
        KeyState::Retiring => "UPDATE keys SET retired_at = ?2 WHERE id = ?1",
        KeyState::Drained => "UPDATE keys SET drained_at = ?2 WHERE id = ?1",
        // Overwritten in place (secure_delete); what the journal holds of it goes with the checkpoint that follows.
        KeyState::Destroyed => "UPDATE keys SET destroyed_at = ?2, wrapped = x'' WHERE id = ?1",
    };
    conn.prepare_cached(dated)?.execute((id, at.unix_millis()))?;
    Ok(())
}

fn flag(conn: &Connection, id: &str, sql: &str, value: bool) -> Result<KeyPurpose, StoreError> {
    let record = record(conn, id)?;
    conn.prepare_cached(sql)?.execute((id, value))?;
    Ok(record.purpose)
}

fn record(conn: &Connection, id: &str) -> Result<KeyRecord, StoreError> {
    keys::key_by_id(conn, id)?.ok_or_else(|| broken(id, "is not there"))
}

fn exactly_one_active(conn: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT purpose FROM keys GROUP BY purpose HAVING sum(state = 'active') <> 1";
    let without: Option<String> = conn.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    without.map_or(Ok(()), |purpose| Err(StoreError::Corrupt(format!("not exactly one {purpose} key would be active"))))
}

fn broken(id: &str, why: &str) -> StoreError {
    StoreError::Corrupt(format!("key {id} {why}"))
}
