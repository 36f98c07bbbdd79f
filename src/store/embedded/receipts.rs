//! A look at all bindings, canaries, documents as they were issued.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::EmbeddedStore;
use super::chains::Chains;
use super::connection::column;
use crate::binding::{BindingDigest, BindingId, Chain};
use crate::clock::Timestamp;
use crate::store::{Canaries, CanaryPhase, CanaryRecord, Observation, ReceiptStore, Scanned, StoreError, Visit};

#[async_trait]
impl ReceiptStore for EmbeddedStore {
    async fn survey(&self, mut visit: Visit) -> Result<(), StoreError> {
        self.surveyor.run(move |conn| survey(conn, &mut visit)).await
    }

    async fn keep_document(&self, rotation: &str, part: &str, document: String) -> Result<bool, StoreError> {
        let (rotation, part) = (rotation.to_owned(), part.to_owned());
        let sql = "INSERT INTO documents (rotation, part, document) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        self.writer.run(move |conn| Ok(conn.prepare_cached(sql)?.execute((rotation, part, document))? == 1)).await
    }

    async fn document(&self, rotation: &str, part: &str) -> Result<Option<String>, StoreError> {
        let (rotation, part) = (rotation.to_owned(), part.to_owned());
        let sql = "SELECT document FROM documents WHERE rotation = ?1 AND part = ?2";
        let read = move |conn: &Connection| {
            Ok(conn.prepare_cached(sql)?.query_row((rotation, part), |row| row.get(0)).optional()?)
        };
        self.readers.run(read).await
    }

    async fn canaries(&self, rotation: &str) -> Result<Canaries, StoreError> {
        let rotation = rotation.to_owned();
        self.readers.run(move |conn| canaries(conn, &rotation)).await
    }

    async fn observe_canaries(
        &self,
        rotation: &str,
        records: Vec<CanaryRecord>,
        observation: Observation,
    ) -> Result<bool, StoreError> {
        let rotation = rotation.to_owned();
        self.writer.run(move |conn| observe(conn, &rotation, &records, &observation)).await
    }
}

fn survey(conn: &Connection, visit: &mut Visit) -> Result<(), StoreError> {
    // Ids are text in lower case, so that their order is that of their bytes.
    let mut select = conn.prepare_cached("SELECT seq, id, chain, digest FROM bindings ORDER BY id")?;
    let mut rows = select.query([])?;
    // By place, not by name: a survey reads millions.
    let mut chains = Chains::default();
    while let Some(row) = rows.next()? {
        let chain = chains.read(row.get_ref(2)?)?.clone();
        visit(&Scanned {
            position: row
                .get_ref(0)?
                .as_i64()
                .ok()
                .and_then(|seq| seq.try_into().ok())
                .ok_or_else(|| corrupt("seq"))?,
            id: row.get_ref(1)?.as_str().ok().and_then(BindingId::parse).ok_or_else(|| corrupt("id"))?,
            chain,
            digest: row.get(3).map(BindingDigest::from_bytes).map_err(|_| corrupt("digest"))?,
        });
    }
    Ok(())
}

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column}"))
}

fn canaries(conn: &Connection, rotation: &str) -> Result<Canaries, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM canaries WHERE rotation = ?1 ORDER BY seq")?;
    let records = select.query_and_then([rotation], canary)?.collect::<Result<_, _>>()?;
    let mut select = conn.prepare_cached("SELECT * FROM canary_observations WHERE rotation = ?1 ORDER BY seq")?;
    let observed = select.query_and_then([rotation], observation)?.collect::<Result<_, _>>()?;
    Ok(Canaries { records, observed })
}

fn canary(row: &Row<'_>) -> Result<CanaryRecord, StoreError> {
    Ok(CanaryRecord {
        octets: column(row, "octets", Some)?,
        dormant: column(row, "dormant", Some)?,
        chain: column(row, "chain", |text: String| Chain::parse(&text).ok())?,
        digest: column(row, "digest", |bytes| Some(BindingDigest::from_bytes(bytes)))?,
    })
}

fn observation(row: &Row<'_>) -> Result<Observation, StoreError> {
    let phase = |word: String| CanaryPhase::ALL.into_iter().find(|phase| phase.as_str() == word);
    Ok(Observation {
        phase: column(row, "phase", phase)?,
        at: column(row, "at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
        used: column(row, "used", Some)?,
        dormant: column(row, "dormant", Some)?,
        without_old_key: column(row, "without_old_key", Some)?,
    })
}

fn observe(
    conn: &Connection,
    rotation: &str,
    records: &[CanaryRecord],
    observation: &Observation,
) -> Result<bool, StoreError> {
    let Observation { phase, at, used, dormant, without_old_key } = observation;
    let first = conn
        .prepare_cached(
            "INSERT INTO canary_observations (rotation, phase, at, used, dormant, without_old_key) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )?
        .execute((rotation, phase.as_str(), at.unix_millis(), used, dormant, without_old_key))?;
    if first == 0 {
        return Ok(false);
    }
    conn.prepare_cached("DELETE FROM canaries WHERE rotation = ?1")?.execute([rotation])?;
    let mut insert = conn.prepare_cached(
        "INSERT INTO canaries (rotation, octets, dormant, chain, digest) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for CanaryRecord { octets, dormant, chain, digest } in records {
        insert.execute((rotation, octets, dormant, chain.to_string(), digest.as_bytes()))?;
    }
    Ok(true)
}
