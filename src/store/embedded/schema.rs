//! The format of the file: which version it is, and how it is brought to the newest one.
//!
//! A version that was released never changes; its checksum is kept in the store, so a store that was made by a
//! differing build is found out. (`rusqlite_migration` pins an older SQLite than this store needs.)

use ring::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension as _};

use crate::clock::Timestamp;

/// `SeKi` in the file's head: what makes an SQLite file a Sekisho store.
pub(super) const APPLICATION_ID: u32 = 0x5365_4b69;

/// The format that this program reads and writes.
pub(super) const FORMAT: Format = Format(&[include_str!("migrations/0001_initial.sql")]);

/// The steps from an empty file to the newest version, one file each.
#[derive(Clone, Copy)]
pub(super) struct Format(pub(super) &'static [&'static str]);

/// Version of the file's format; 0 if it has none.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map(|version| u32::try_from(version).unwrap_or(u32::MAX))
}

impl Format {
    /// The newest version.
    #[expect(clippy::cast_possible_truncation, reason = "a handful")]
    pub(super) const fn newest(self) -> u32 {
        self.0.len() as u32
    }

    /// Applies the steps that are missing, all or none, each with its entry, and marks the file as ours.
    pub(super) fn migrate(self, conn: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        let present = version(conn)?;
        let transaction = conn.unchecked_transaction()?;
        for (version, sql) in self.steps().skip_while(|(step, _)| *step <= present) {
            if version == 1 {
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
                transaction.execute_batch(
                    "CREATE TABLE migrations (version INTEGER PRIMARY KEY, sha256 BLOB NOT NULL, applied_at INTEGER NOT NULL) STRICT",
                )?;
            }
            transaction.execute_batch(sql)?;
            transaction.execute(
                "INSERT INTO migrations (version, sha256, applied_at) VALUES (?1, ?2, ?3)",
                (version, checksum(sql), now.unix_millis()),
            )?;
            transaction.pragma_update(None, "user_version", version)?;
        }
        transaction.commit()
    }

    /// The first version up to `version` that was applied in a form this program does not know.
    pub(super) fn first_foreign_step(self, conn: &Connection, version: u32) -> rusqlite::Result<Option<u32>> {
        let mut applied = conn.prepare("SELECT sha256 FROM migrations WHERE version = ?1")?;
        for (number, sql) in self.steps().take_while(|(step, _)| *step <= version) {
            let stored: Option<Vec<u8>> = applied.query_row([number], |row| row.get(0)).optional()?;
            if stored.as_deref() != Some(checksum(sql).as_slice()) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    fn steps(self) -> impl Iterator<Item = (u32, &'static str)> {
        (1..).zip(self.0.iter().copied())
    }
}

fn checksum(sql: &str) -> Vec<u8> {
    digest(&SHA256, sql.as_bytes()).as_ref().to_vec()
}
