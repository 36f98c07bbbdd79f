//! The audit trail: the chain is made where the entry is written.

use async_trait::async_trait;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::EmbeddedStore;
use super::connection::column;
use crate::audit::{Entry, EntryHash, Pseudonym, Tip};
use crate::binding::AccountId;
use crate::keys::AuditPublicKey;
use crate::secret::SecretBytes;
use crate::store::{AuditStore, NewAuditEntry, SealingKey, StoreError, StoredAuditEntry, StoredCheckpoint};

const CHECKPOINTS: &str = "SELECT * FROM audit_checkpoints WHERE seq > ?1 AND seq <= ?2 ORDER BY seq, length(key), key";
const SEALING_KEYS: &str = "SELECT * FROM audit_keys WHERE id IN (SELECT key FROM audit_checkpoints \
                            WHERE seq > ?1 AND seq <= ?2) ORDER BY length(id), id";

#[async_trait]
impl AuditStore for EmbeddedStore {
    async fn append(&self, entry: NewAuditEntry) -> Result<Entry, StoreError> {
        let store_id = self.store_id;
        self.writer.run(move |conn| append(conn, &store_id, &entry)).await
    }

    async fn audit_head(&self) -> Result<Option<Tip>, StoreError> {
        self.readers.run(head).await
    }

    async fn audit_entries(&self, after: u64, limit: u32) -> Result<Vec<StoredAuditEntry>, StoreError> {
        let after = number(after)?;
        self.readers
            .run(move |conn| {
                let sql = "SELECT * FROM audit_entries WHERE seq > ?1 ORDER BY seq LIMIT ?2";
                conn.prepare_cached(sql)?.query_and_then((after, limit), stored_entry)?.collect()
            })
            .await
    }

    async fn erase_before(&self, seq: u64) -> Result<u64, StoreError> {
        self.writer.run(move |conn| erase_before(conn, seq)).await
    }

    async fn audit_entries_about(&self, pseudonym: &Pseudonym) -> Result<Vec<StoredAuditEntry>, StoreError> {
        let pseudonym = pseudonym.to_string();
        // Of the thread for long reads: a trail of years is read whole.
        self.surveyor
            .run(move |conn| {
                let sql = "SELECT * FROM audit_entries WHERE instr(entry, ?1) > 0 ORDER BY seq";
                conn.prepare_cached(sql)?.query_and_then([pseudonym], stored_entry)?.collect()
            })
            .await
    }

    async fn keep_checkpoint(&self, checkpoint: StoredCheckpoint, hash: EntryHash) -> Result<bool, StoreError> {
        self.writer
            .run(move |conn| {
                let fits = hash_of(conn, checkpoint.seq)? == Some(hash);
                if fits {
                    let sql = "INSERT INTO audit_checkpoints (seq, key, checkpoint, seal) VALUES (?1, ?2, ?3, ?4) \
                               ON CONFLICT DO NOTHING";
                    let StoredCheckpoint { seq, key, text, seal } = checkpoint;
                    conn.prepare_cached(sql)?.execute((number(seq)?, key, text, seal))?;
                }
                Ok(fits)
            })
            .await
    }

    async fn checkpoints(&self, after: u64, until: u64) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let bounds = (number(after)?, number(until)?);
        self.readers
            .run(move |conn| conn.prepare_cached(CHECKPOINTS)?.query_and_then(bounds, checkpoint)?.collect())
            .await
    }

    async fn last_checkpoint(&self) -> Result<Option<StoredCheckpoint>, StoreError> {
        self.readers
            .run(|conn| {
                let sql = "SELECT * FROM audit_checkpoints ORDER BY seq DESC, length(key) DESC, key DESC LIMIT 1";
                conn.prepare_cached(sql)?.query_and_then([], checkpoint)?.next().transpose()
            })
            .await
    }

    async fn keep_sealing_key(&self, key: SealingKey) -> Result<(), StoreError> {
        self.writer
            .run(move |conn| {
                let sql = "INSERT INTO audit_keys (id, public) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
                conn.prepare_cached(sql)?.execute((key.id, key.public.text()))?;
                Ok(())
            })
            .await
    }

    async fn sealing_keys(&self, after: u64, until: u64) -> Result<Vec<SealingKey>, StoreError> {
        let bounds = (number(after)?, number(until)?);
        self.readers
            .run(move |conn| conn.prepare_cached(SEALING_KEYS)?.query_and_then(bounds, sealing_key)?.collect())
            .await
    }

    async fn sealing_key(&self, id: &str) -> Result<Option<SealingKey>, StoreError> {
        let id = id.to_owned();
        self.readers
            .run(move |conn| {
                let mut select = conn.prepare_cached("SELECT * FROM audit_keys WHERE id = ?1")?;
                select.query_and_then([id], sealing_key)?.next().transpose()
            })
            .await
    }

    async fn pseudonym(&self, account: &AccountId) -> Result<Option<Pseudonym>, StoreError> {
        let account = account.clone();
        self.readers.run(move |conn| Ok(key_of(conn, &account)?.map(|key| Pseudonym::of(&account, &key)))).await
    }

    async fn forget_pseudonym(&self, account: &AccountId) -> Result<bool, StoreError> {
        let account = account.clone();
        // Overwritten in place (secure_delete); what the journal holds of it goes with the next checkpoint of SQLite.
        let sql = "DELETE FROM audit_pseudonyms WHERE account = ?1";
        self.writer.run(move |conn| Ok(conn.prepare_cached(sql)?.execute([account.as_str()])? > 0)).await
    }
}

fn append(conn: &Connection, store_id: &[u8; 16], new: &NewAuditEntry) -> Result<Entry, StoreError> {
    if let Some(known) = new.known
        && known.seq > 0
        && hash_of(conn, known.seq)? != Some(known.hash)
    {
        return Err(StoreError::Corrupt(format!(
            "the audit trail no longer holds entry {} as it was written",
            known.seq
        )));
    }
    let tip = head(conn)?.unwrap_or(Tip { seq: 0, hash: EntryHash::before_all(store_id) });
    let pseudonym = new.event.whose().map(|account| pseudonym(conn, account, &new.fresh)).transpose()?;
    let entry = new.event.entry(tip, new.at, &new.key, pseudonym.as_ref());
    let (text, hash) = (entry.text(), entry.hash());
    conn.prepare_cached("INSERT INTO audit_entries (seq, entry, hash) VALUES (?1, ?2, ?3)")?.execute((
        number(entry.seq)?,
        text,
        hash.as_bytes(),
    ))?;
    Ok(entry)
}

/// What the triggers let go is before `audit_begin`.
fn erase_before(conn: &Connection, seq: u64) -> Result<u64, StoreError> {
    if hash_of(conn, seq)?.is_none() {
        return Err(StoreError::Corrupt(format!("the audit trail has no entry {seq} to begin with")));
    }
    let place = [number(seq)?];
    conn.prepare_cached("UPDATE audit_begin SET seq = ?1 WHERE seq < ?1")?.execute(place)?;
    conn.prepare_cached("DELETE FROM audit_checkpoints WHERE seq < ?1")?.execute(place)?;
    let erased = conn.prepare_cached("DELETE FROM audit_entries WHERE seq < ?1")?.execute(place)?;
    Ok(erased as u64)
}

fn pseudonym(conn: &Connection, account: &AccountId, fresh: &SecretBytes) -> Result<Pseudonym, StoreError> {
    if let Some(key) = key_of(conn, account)? {
        return Ok(Pseudonym::of(account, &key));
    }
    let sql = "INSERT INTO audit_pseudonyms (account, key) VALUES (?1, ?2)";
    conn.prepare_cached(sql)?.execute((account.as_str(), fresh.expose()))?;
    Ok(Pseudonym::of(account, fresh))
}

fn key_of(conn: &Connection, account: &AccountId) -> Result<Option<SecretBytes>, StoreError> {
    let mut select = conn.prepare_cached("SELECT key FROM audit_pseudonyms WHERE account = ?1")?;
    let mut rows = select
        .query_and_then([account.as_str()], |row| column(row, "key", |key: Vec<u8>| Some(SecretBytes::new(key))))?;
    rows.next().transpose()
}

fn head(conn: &Connection) -> Result<Option<Tip>, StoreError> {
    let mut select = conn.prepare_cached("SELECT seq, hash FROM audit_entries ORDER BY seq DESC LIMIT 1")?;
    let mut rows = select.query_and_then([], |row| {
        let hash = column(row, "hash", |bytes: [u8; 32]| Some(EntryHash::from_bytes(bytes)))?;
        Ok::<_, StoreError>(Tip { seq: column(row, "seq", |seq: i64| u64::try_from(seq).ok())?, hash })
    })?;
    rows.next().transpose()
}

fn hash_of(conn: &Connection, seq: u64) -> Result<Option<EntryHash>, StoreError> {
    let mut select = conn.prepare_cached("SELECT hash FROM audit_entries WHERE seq = ?1")?;
    let found: Option<[u8; 32]> = select.query_row([number(seq)?], |row| row.get(0)).optional()?;
    Ok(found.map(EntryHash::from_bytes))
}

/// Gives out whatever is there: what cannot be right is for verification to name, not for the store to refuse.
fn stored_entry(row: &Row<'_>) -> Result<StoredAuditEntry, StoreError> {
    let hash = row.get::<_, [u8; 32]>("hash").unwrap_or_default();
    Ok(StoredAuditEntry {
        seq: column(row, "seq", |seq: i64| u64::try_from(seq).ok())?,
        text: text(row, "entry")?,
        hash: EntryHash::from_bytes(hash),
    })
}

/// A text, whatever bytes it has become.
fn text(row: &Row<'_>, name: &'static str) -> Result<String, StoreError> {
    match row.get_ref(name)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Ok(String::new()),
    }
}

fn checkpoint(row: &Row<'_>) -> Result<StoredCheckpoint, StoreError> {
    Ok(StoredCheckpoint {
        seq: column(row, "seq", |seq: i64| u64::try_from(seq).ok())?,
        key: column(row, "key", Some)?,
        text: text(row, "checkpoint")?,
        seal: column(row, "seal", Some)?,
    })
}

fn sealing_key(row: &Row<'_>) -> Result<SealingKey, StoreError> {
    Ok(SealingKey {
        id: column(row, "id", Some)?,
        public: column(row, "public", |text: String| AuditPublicKey::parse(&text))?,
    })
}

fn number(seq: u64) -> Result<i64, StoreError> {
    i64::try_from(seq).map_err(|_| StoreError::Corrupt("an audit trail has fewer entries".to_owned()))
}
