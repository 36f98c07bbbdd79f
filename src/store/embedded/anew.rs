//! The store's file, written anew: without what SQLite left of erased records between those that are there.

use std::path::Path;

use rusqlite::Connection;

use super::connection::execute;
use super::file;
use crate::store::StoreError;

/// Copies all that is there, and puts it back in order. Needs as much room on the disk as the store takes, twice for a moment,
/// and memory that does not depend on it.
pub(super) fn write_anew(conn: &Connection) -> Result<(), StoreError> {
    let folder = conn.path().map(|path| file::folder_of(Path::new(path)).to_owned());
    // The copy is a file without a name beside the store, where what it holds is as safe as in the store itself; in memory it
    // would take as much as there are records. All other temporary tables are small and stay in memory.
    if let Some(folder) = folder.as_deref().and_then(Path::to_str) {
        conn.pragma_update(None, "temp_store_directory", folder)?;
        conn.pragma_update(None, "temp_store", "FILE")?;
    }
    let written = execute(conn, "VACUUM");
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_copy_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let conn = Connection::open(folder.path().join("store.db")).unwrap();
        conn.execute_batch("PRAGMA temp_store = MEMORY; CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000));")
            .unwrap();
        write_anew(&conn).unwrap();
        assert_eq!(conn.pragma_query_value(None, "temp_store", |row| row.get::<_, i64>(0)).unwrap(), 2, "memory again");
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["store.db"]);
        assert_eq!(conn.query_row("SELECT length(a) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 100_000);
    }
}
