//! Proofs.

use async_trait::async_trait;

use super::EmbeddedStore;
use super::connection::column;
use crate::clock::Timestamp;
use crate::store::{Proof, ProofStore, StoreError};

#[async_trait]
impl ProofStore for EmbeddedStore {
    async fn note_proof(&self, proof: Proof) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO proofs (name, at, ok, detail) VALUES (?1, ?2, ?3, ?4)";
        self.writer
            .run(move |conn| {
                let Proof { name, at, ok, detail } = proof;
                conn.prepare_cached(sql)?.execute((name, at.unix_millis(), ok, detail))?;
                Ok(())
            })
            .await
    }

    async fn proofs(&self) -> Result<Vec<Proof>, StoreError> {
        self.readers
            .run(|conn| {
                let mut select = conn.prepare_cached("SELECT * FROM proofs ORDER BY name")?;
                let proofs = select.query_and_then([], |row| {
                    Ok(Proof {
                        name: column(row, "name", Some)?,
                        at: column(row, "at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
                        ok: column(row, "ok", Some)?,
                        detail: column(row, "detail", Some)?,
                    })
                })?;
                proofs.collect()
            })
            .await
    }
}
