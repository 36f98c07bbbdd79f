//! Wrapped keys and the scheme.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::bindings::generation;
use super::connection::column;
use super::{EmbeddedStore, key_change, log_keys};
use crate::clock::{Day, Timestamp};
use crate::store::{
    ChangeOutcome, DestroyedLogKeys, KeyChange, KeyDates, KeyPurpose, KeyRecord, KeyState, KeyStore, LogKeyOutcome,
    LogKeyRecord, RotationStore as _, SchemeRecord, StoreError, StoredKeys, StretchParameters,
};

#[async_trait]
impl KeyStore for EmbeddedStore {
    async fn store_id(&self) -> Result<[u8; 16], StoreError> {
        Ok(self.store_id)
    }

    async fn keys(&self) -> Result<StoredKeys, StoreError> {
        let read = |conn: &Connection| {
            Ok(StoredKeys {
                keys: keys(conn)?,
                scheme: scheme(conn)?,
                log_keys: log_keys::all(conn)?,
                log_keys_from: log_keys::from(conn)?,
                generation: generation(conn)?,
                revision: key_change::revision(conn)?,
            })
        };
        self.readers.run(read).await
    }

    async fn initialise(&self, keys: Vec<KeyRecord>, scheme: SchemeRecord) -> Result<(), StoreError> {
        self.writer.run(move |conn| initialise(conn, &keys, &scheme)).await
    }

    async fn change(&self, revision: u64, changes: Vec<KeyChange>) -> Result<ChangeOutcome, StoreError> {
        self.change_with(revision, changes, Vec::new(), None).await
    }

    async fn keep_log_key(&self, key: LogKeyRecord, revision: u64) -> Result<LogKeyOutcome, StoreError> {
        self.writer.run(move |conn| log_keys::keep(conn, &key, revision)).await
    }

    async fn destroy_log_keys(&self, before: Day) -> Result<DestroyedLogKeys, StoreError> {
        let count = self.writer.run(move |conn| log_keys::destroy(conn, before)).await?;
        // Overwritten in place; the journal, and the file as it was before, still have the wrapped keys.
        let unemptied = if count > 0 { self.writer.fold().await.err() } else { None };
        Ok(DestroyedLogKeys { count, unemptied: unemptied.map(StoreError::behind_what_is_done) })
    }

    async fn bound_under(&self, scheme: &str) -> Result<u64, StoreError> {
        let scheme = scheme.to_owned();
        self.readers
            .run(move |conn| {
                let mut count = conn.prepare_cached("SELECT count(*) AS bindings FROM bindings WHERE scheme = ?1")?;
                count.query_row([scheme], |row| Ok(column(row, "bindings", |n: i64| u64::try_from(n).ok())))?
            })
            .await
    }
}

/// By purpose, and by the number after the letter.
fn keys(conn: &Connection) -> Result<Vec<KeyRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM keys ORDER BY purpose, length(id), id")?;
    select.query_and_then([], key)?.collect()
}

/// One key.
pub(super) fn key_by_id(conn: &Connection, id: &str) -> Result<Option<KeyRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM keys WHERE id = ?1")?;
    let mut rows = select.query_and_then([id], key)?;
    rows.next().transpose()
}

fn key(row: &Row<'_>) -> Result<KeyRecord, StoreError> {
    let date = |name| column(row, name, |millis: Option<i64>| Some(millis.map(Timestamp::from_unix_millis)));
    Ok(KeyRecord {
        id: column(row, "id", Some)?,
        purpose: column(row, "purpose", |word: String| KeyPurpose::ALL.into_iter().find(|p| p.as_str() == word))?,
        state: column(row, "state", |word: String| KeyState::ALL.into_iter().find(|s| s.as_str() == word))?,
        suspended: column(row, "suspended", Some)?,
        compromised: column(row, "compromised", Some)?,
        wrapped: column(row, "wrapped", Some)?,
        commitment: column(row, "commitment", Some)?,
        public: column(row, "public", Some)?,
        created_at: column(row, "created_at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
        dates: KeyDates {
            activated_at: date("activated_at")?,
            retired_at: date("retired_at")?,
            drained_at: date("drained_at")?,
            destroyed_at: date("destroyed_at")?,
        },
    })
}

fn scheme(conn: &Connection) -> Result<Option<SchemeRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM schemes ORDER BY rowid")?;
    let mut rows = select.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let memory_kib: Option<u32> = column(row, "memory_kib", Some)?;
    let passes: Option<u32> = column(row, "passes", Some)?;
    Ok(Some(SchemeRecord {
        id: column(row, "id", Some)?,
        stretch: memory_kib.zip(passes).map(|(memory_kib, passes)| StretchParameters { memory_kib, passes }),
        salt: column(row, "salt", Some)?,
        pin_secret: column(row, "pin_secret", Some)?,
    }))
}

fn initialise(conn: &Connection, keys: &[KeyRecord], scheme: &SchemeRecord) -> Result<(), StoreError> {
    let there = "SELECT 1 WHERE EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM schemes)";
    if conn.query_row(there, [], |_| Ok(())).optional()?.is_some() {
        return Ok(());
    }
    for key in keys {
        insert(conn, key)?;
    }
    let (memory_kib, passes) = scheme.stretch.map(|stretch| (stretch.memory_kib, stretch.passes)).unzip();
    conn.execute(
        "INSERT INTO schemes (id, memory_kib, passes, salt, pin_secret) VALUES (?1, ?2, ?3, ?4, ?5)",
        (&scheme.id, memory_kib, passes, scheme.salt, &scheme.pin_secret),
    )?;
    conn.execute("UPDATE meta SET had_keys = 1", [])?;
    Ok(())
}

/// Puts a key in that was not there.
pub(super) fn insert(conn: &Connection, key: &KeyRecord) -> Result<(), StoreError> {
    let KeyDates { activated_at, retired_at, drained_at, destroyed_at } = key.dates;
    let millis = |date: Option<Timestamp>| date.map(Timestamp::unix_millis);
    conn.prepare_cached(
        "INSERT INTO keys (id, purpose, state, suspended, compromised, wrapped, commitment, public, created_at, \
         activated_at, retired_at, drained_at, destroyed_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute((
        &key.id,
        key.purpose.as_str(),
        key.state.as_str(),
        key.suspended,
        key.compromised,
        &key.wrapped,
        key.commitment,
        &key.public,
        key.created_at.unix_millis(),
        millis(activated_at),
        millis(retired_at),
        millis(drained_at),
        millis(destroyed_at),
    ))?;
    Ok(())
}
