//! A copy of the file, and tombstones.

use std::fs::File;
use std::path::Path;

use async_trait::async_trait;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, Row};
use tokio::time::Instant;

use super::EmbeddedStore;
use super::connection::{Access, column, connect};
use super::place::DRAFT;
use super::{file, key_change, schema};
use crate::binding::Chain;
use crate::store::{BackupStore, Copied, CopyKind, StoreError, Tombstone, TombstoneKind};

/// What a copy on its way is called, behind the store's own name. It holds what the store holds.
pub(super) const COPY: &str = ".copy";
/// Pages of a slice, 4 MiB: between two, whoever waits for the disk gets it.
const SLICE: i32 = 1024;

/// The rest after a slice of a shadow, as a multiple of what it took.
const SHADOW_REST: u32 = 3;

#[async_trait]
impl BackupStore for EmbeddedStore {
    async fn tombstones(&self, limit: u32) -> Result<(Vec<Tombstone>, u64), StoreError> {
        self.readers
            .run(move |conn| {
                let mut select = conn.prepare_cached("SELECT * FROM tombstones ORDER BY seq LIMIT ?1")?;
                let read: Vec<(u64, Tombstone)> =
                    select.query_and_then([limit], tombstone)?.collect::<Result<_, StoreError>>()?;
                let until = read.last().map_or(0, |(seq, _)| *seq);
                Ok((read.into_iter().map(|(_, tombstone)| tombstone).collect(), until))
            })
            .await
    }

    async fn tombstones_kept(&self, until: u64) -> Result<(), StoreError> {
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        let sql = "DELETE FROM tombstones WHERE seq <= ?1";
        self.writer.run(move |conn| Ok(conn.prepare_cached(sql)?.execute([until]).map(drop)?)).await
    }

    async fn erase_again(&self, tombstones: Vec<Tombstone>) -> Result<u64, StoreError> {
        let found = self.writer.run(move |conn| erase_again(conn, &tombstones)).await?;
        // What was erased is in the journal, and in the file as it was before.
        self.writer.fold().await.map_err(StoreError::behind_what_is_done)?;
        Ok(found)
    }

    async fn copy(&self, kind: CopyKind) -> Result<Copied, StoreError> {
        let draft = file::beside(&self.path, COPY);
        self.copier.run(move |conn| copy(conn, &draft, kind)).await
    }
}

fn tombstone(row: &Row<'_>) -> Result<(u64, Tombstone), StoreError> {
    let kind = column(row, "kind", |word: String| TombstoneKind::ALL.into_iter().find(|k| k.as_str() == word))?;
    let seq = column(row, "seq", |seq: i64| u64::try_from(seq).ok())?;
    Ok((seq, Tombstone { kind, id: column(row, "id", Some)? }))
}

fn erase_again(conn: &Connection, tombstones: &[Tombstone]) -> Result<u64, StoreError> {
    conn.execute_batch("DELETE FROM sessions; DELETE FROM codes; DELETE FROM code_tries;")?;
    let before: i64 = conn.query_row("SELECT coalesce(max(seq), 0) FROM tombstones", [], |row| row.get(0))?;
    let mut found = 0;
    for Tombstone { kind, id } in tombstones {
        match kind {
            TombstoneKind::Binding => {
                found += conn.prepare_cached("DELETE FROM bindings WHERE id = ?1")?.execute([id])?;
            }
            TombstoneKind::Account => {
                let account = "SELECT account FROM accounts WHERE tag = unhex(?1)";
                let forget = format!("DELETE FROM audit_pseudonyms WHERE account IN ({account})");
                conn.prepare_cached(&forget)?.execute([id])?;
                // It was released before the account was erased.
                conn.prepare_cached(&format!("DELETE FROM holds WHERE account IN ({account})"))?.execute([id])?;
                found += conn.prepare_cached("DELETE FROM accounts WHERE tag = unhex(?1)")?.execute([id])?;
            }
        }
    }
    conn.execute("DELETE FROM tombstones WHERE seq > ?1", [before])?;
    Ok(found as u64)
}

fn copy(conn: &Connection, draft: &Path, kind: CopyKind) -> Result<Copied, StoreError> {
    let failed = |error: std::io::Error| StoreError::Unavailable(format!("the copy for a backup: {error}"));
    let copied = file::draft(draft).map_err(failed).and_then(|()| fill(conn, draft, kind));
    let opened = copied.and_then(|copied| {
        let file = File::open(draft).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Copied { file, length, ..copied })
    });
    // With its name it would outlive a process that is killed.
    file::remove_draft(draft).map_err(failed)?;
    opened
}

/// Returns what is in the copy; its file is a stand-in.
pub(super) fn fill(conn: &Connection, draft: &Path, kind: CopyKind) -> Result<Copied, StoreError> {
    let mut copy = connect(draft, Access::Create)?;
    // A copy that breaks off is thrown away.
    copy.execute_batch("PRAGMA synchronous = OFF")?;
    {
        let backup = Backup::new(conn, &mut copy)?;
        loop {
            let begun = Instant::now();
            // The reader is in a transaction: each slice is of the same instant.
            match backup.step(SLICE)? {
                StepResult::Done => break,
                // Nobody waits for a drill: the disk is others' for most of the time.
                StepResult::More if kind == CopyKind::Shadow => std::thread::sleep(begun.elapsed() * SHADOW_REST),
                StepResult::More => std::thread::yield_now(),
                other @ (StepResult::Busy | StepResult::Locked | _) => {
                    return Err(StoreError::Unavailable(format!("another program holds the store: {other:?}")));
                }
            }
        }
    }
    copy.execute_batch("DELETE FROM tombstones;")?;
    if kind == CopyKind::Backup {
        copy.execute_batch("DELETE FROM sessions; DELETE FROM codes; DELETE FROM code_tries; DELETE FROM log_keys;")?;
    }
    let count = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let texts = |sql: &str| -> Result<Vec<String>, StoreError> {
        let mut select = copy.prepare(sql)?;
        Ok(select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    };
    let chains = texts("SELECT DISTINCT chain FROM bindings")?;
    let mut under: Vec<_> =
        chains.iter().filter_map(|chain| Chain::parse(chain).ok()).flat_map(|chain| chain.keys().to_vec()).collect();
    under.sort_unstable();
    under.dedup();
    let described = Copied {
        file: File::open(draft).map_err(|error| StoreError::Unavailable(error.to_string()))?,
        length: 0,
        schema: schema::version(&copy)?,
        accounts: count("SELECT count(*) FROM accounts")?,
        bindings: count("SELECT count(*) FROM bindings")?,
        digests_under: under.iter().map(ToString::to_string).collect(),
        keys: texts("SELECT id FROM keys WHERE wrapped <> x'' ORDER BY purpose, length(id), id")?,
        key_revision: key_change::revision(&copy)?,
    };
    // Brings its journal in.
    copy.close().map_err(|(_, error)| StoreError::from(error))?;
    Ok(described)
}

/// Removes what a process that was killed left of a copy, or of a backup that it was to restore.
pub(super) fn remove_leftovers(store: &Path) -> std::io::Result<()> {
    [COPY, DRAFT].iter().try_for_each(|name| file::remove_draft(&file::beside(store, name)))
}
