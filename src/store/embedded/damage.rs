//! What is found damaged before the store is used: a start refuses rather than have a sign-in meet it.

use std::hash::{DefaultHasher, Hasher as _};
use std::iter::once;
use std::panic::resume_unwind;
use std::thread;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::schema::Format;
use crate::binding::BindingDigest;

/// Defects named in a refusal; the first ones tell enough.
const DEFECTS: usize = 5;
/// Tables of a million rows. SQLite's own comparison of indexes with tables looks each row up in each index: seconds, where
/// reading both through takes a fraction of that.
const LARGE: [&str; 2] = ["bindings", "sessions"];

/// What is damaged in a store of that version, if anything. Both connections lead to it, so that two cores look at once.
pub(super) fn find(
    format: Format,
    conn: &Connection,
    beside: Connection,
    version: u32,
) -> rusqlite::Result<Option<String>> {
    find_with(thread::Builder::new().name("store-damage".into()), format, conn, beside, version)
}

/// The same; one after the other where no such thread can be had.
fn find_with(
    thread: thread::Builder,
    format: Format,
    conn: &Connection,
    beside: Connection,
    version: u32,
) -> rusqlite::Result<Option<String>> {
    thread::scope(|scope| {
        let contradicting = thread.spawn_scoped(scope, move || contradiction(format, &beside, version));
        let defects = check(conn, &format!("PRAGMA quick_check({DEFECTS})"));
        let contradiction = match contradicting {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => contradiction(format, conn, version),
        };
        // Where pages are damaged, what they say is no matter.
        match defects? {
            None => contradiction,
            defects => Ok(defects),
        }
    })
}

/// What `quick_check` leaves out: above all whether indexes and tables say the same, which finds a changed digest or hash.
fn contradiction(format: Format, conn: &Connection, version: u32) -> rusqlite::Result<Option<String>> {
    for table in names(conn, "SELECT name FROM sqlite_schema WHERE type = 'table'")? {
        let defects = if LARGE.contains(&table.as_str()) {
            differing(conn, &table)?
        } else {
            check(conn, &format!("PRAGMA integrity_check({table})"))?
        };
        if defects.is_some() {
            return Ok(defects);
        }
    }
    let orphan = conn.query_row("PRAGMA foreign_key_check", [], |row| row.get::<_, String>(0)).optional()?;
    if let Some(table) = orphan {
        return Ok(Some(format!("a row of {table} refers to one that is not there")));
    }
    if version == 0 {
        return Ok(Some("it does not tell its format".into()));
    }
    if let Some(step) = format.first_foreign_step(conn, version)? {
        return Ok(Some(format!("step {step} of its format is not the one this program knows")));
    }
    lost_or_twofold(conn)
}

/// A binding that no look-up would find, or two for one handset.
fn lost_or_twofold(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let mut select = conn.prepare("SELECT digest, folded FROM bindings NOT INDEXED")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if row.get(0).map(BindingDigest::from_bytes)?.fold() != row.get::<_, i64>(1)? {
            return Ok(Some("a digest in table bindings is not the one that its index leads to".into()));
        }
    }
    // Hardly two of all digests look the same there, so that next to nothing is left to be compared.
    let sql = "SELECT 1 FROM bindings WHERE folded IN (SELECT folded FROM bindings GROUP BY folded HAVING count(*) > 1) \
               GROUP BY digest, carrier HAVING count(*) > 1";
    let twofold = conn.prepare(sql)?.exists([])?;
    Ok(twofold.then(|| "a handset is bound twice in table bindings".to_owned()))
}

fn check(conn: &Connection, check: &str) -> rusqlite::Result<Option<String>> {
    let defects = names(conn, check)?;
    // A defect of the tree comes with a head line of its own, which tells nothing.
    let lines = defects.iter().flat_map(|defect| defect.lines()).filter(|line| !line.starts_with("***"));
    let lines: Vec<&str> = lines.take(DEFECTS).collect();
    Ok(if lines == ["ok"] { None } else { Some(lines.join("; ")) })
}

/// An index of `table` that does not hold what the table does.
fn differing(conn: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    // The rows are read once for all of the indexes.
    let mut columns = vec!["rowid".to_owned()];
    let (mut indexes, mut choices) = (Vec::new(), Vec::new());
    for index in names(conn, &format!("SELECT name FROM pragma_index_list('{table}')"))? {
        let of_index = names(conn, &format!("SELECT name FROM pragma_index_info('{index}')"))?;
        choices.push(once(0).chain((columns.len()..).take(of_index.len())).collect());
        columns.extend_from_slice(&of_index);
        indexes.push((index, of_index));
    }
    let in_table = sums(conn, &format!("SELECT {} FROM {table} NOT INDEXED", columns.join(", ")), &choices)?;
    for ((index, columns), in_table) in indexes.into_iter().zip(in_table) {
        let rows = format!("SELECT rowid, {} FROM {table} INDEXED BY {index}", columns.join(", "));
        if sums(conn, &rows, &[(0..=columns.len()).collect()])? != [in_table] {
            return Ok(Some(format!("index {index} does not hold what table {table} does")));
        }
    }
    Ok(None)
}

/// How many rows there are, and for each of `choices` of their columns a sum over them that does not depend on their order.
fn sums(conn: &Connection, rows: &str, choices: &[Vec<usize>]) -> rusqlite::Result<Vec<(u64, u64)>> {
    let mut select = conn.prepare(rows)?;
    let mut rows = select.query([])?;
    let mut sums = vec![(0, 0_u64); choices.len()];
    while let Some(row) = rows.next()? {
        for ((count, sum), columns) in sums.iter_mut().zip(choices) {
            *count += 1;
            *sum = sum.wrapping_add(hash(row, columns)?);
        }
    }
    Ok(sums)
}

fn hash(row: &Row<'_>, columns: &[usize]) -> rusqlite::Result<u64> {
    let mut hash = DefaultHasher::new();
    for column in columns {
        match row.get_ref(*column)? {
            ValueRef::Null => hash.write_u8(0),
            ValueRef::Integer(number) => hash.write_i64(number),
            ValueRef::Real(number) => hash.write_u64(number.to_bits()),
            ValueRef::Text(octets) | ValueRef::Blob(octets) => {
                hash.write_usize(octets.len());
                hash.write(octets);
            }
        }
    }
    Ok(hash.finish())
}

fn names(conn: &Connection, select: &str) -> rusqlite::Result<Vec<String>> {
    conn.prepare(select)?.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::entropy::SystemEntropy;
    use crate::store::embedded::{EmbeddedStore, schema};

    #[test]
    fn the_same_is_found_where_no_thread_can_be_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        drop(EmbeddedStore::open(&path, Timestamp::from_unix_millis(0), &SystemEntropy::default()).unwrap());
        let conn = Connection::open(&path).unwrap();
        let version = schema::version(&conn).unwrap();
        let find = |stack_size: usize| {
            let thread = thread::Builder::new().stack_size(stack_size);
            find_with(thread, schema::FORMAT, &conn, Connection::open(&path).unwrap(), version).unwrap()
        };
        let (some, more_than_there_is) = (1 << 20, usize::MAX >> 1);
        assert!(thread::Builder::new().stack_size(more_than_there_is).spawn(|| ()).is_err());
        assert_eq!([find(some), find(more_than_there_is)], [None, None]);
        let orphan = "PRAGMA foreign_keys = OFF; \
                      INSERT INTO audit_checkpoints (seq, key, checkpoint, seal) VALUES (9, 'u1', '', x'')";
        conn.execute_batch(orphan).unwrap();
        let found = Some("a row of audit_checkpoints refers to one that is not there".to_owned());
        assert_eq!([find(some), find(more_than_there_is)], [found.clone(), found]);
    }
}
