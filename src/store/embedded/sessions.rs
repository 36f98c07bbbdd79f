//! Sessions.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use super::EmbeddedStore;
use super::connection::column;
use crate::binding::{AccountId, BindingId};
use crate::carrier::CarrierName;
use crate::clock::Timestamp;
use crate::session::{SessionId, TokenHash};
use crate::store::{SessionRecord, SessionScope, SessionStore, StoreError, TokenTransport};

#[async_trait]
impl SessionStore for EmbeddedStore {
    async fn open(
        &self,
        session: SessionRecord,
        per_account: u32,
        replaces: Option<TokenHash>,
    ) -> Result<Vec<TokenHash>, StoreError> {
        self.writer.run(move |conn| open(conn, &session, per_account, replaces)).await
    }

    async fn renew(&self, old: TokenHash, renewed: SessionRecord) -> Result<bool, StoreError> {
        self.writer
            .run(move |conn| {
                let there = end_one(conn, old)?.is_some();
                if there {
                    insert(conn, &renewed)?;
                }
                Ok(there)
            })
            .await
    }

    async fn load(&self, now: Timestamp) -> Result<Vec<SessionRecord>, StoreError> {
        self.readers
            .run(move |conn| {
                let mut select = conn.prepare("SELECT * FROM sessions WHERE expires_at > ?1 ORDER BY seq")?;
                select.query_and_then([now.unix_millis()], session)?.collect()
            })
            .await
    }

    async fn touch(&self, seen: Vec<(TokenHash, Timestamp)>) -> Result<(), StoreError> {
        let sql = "UPDATE sessions SET last_seen_at = ?2 WHERE token_hash = ?1 AND last_seen_at < ?2";
        self.writer
            .run(move |conn| {
                let mut update = conn.prepare_cached(sql)?;
                for (token, at) in &seen {
                    update.execute((token.as_bytes(), at.unix_millis()))?;
                }
                Ok(())
            })
            .await
    }

    async fn keep_in_cookie(&self, token: TokenHash) -> Result<(), StoreError> {
        let sql = "UPDATE sessions SET transport = ?2 WHERE token_hash = ?1";
        self.writer
            .run(move |conn| {
                conn.prepare_cached(sql)?.execute((token.as_bytes(), TokenTransport::Cookie.as_str()))?;
                Ok(())
            })
            .await
    }

    async fn end(&self, scope: SessionScope) -> Result<Vec<TokenHash>, StoreError> {
        self.writer
            .run(move |conn| match scope {
                SessionScope::Id(id) => {
                    delete(conn, "DELETE FROM sessions WHERE id = ?1 RETURNING token_hash", [id.to_string()])
                }
                SessionScope::Account(account) => {
                    delete(conn, "DELETE FROM sessions WHERE account = ?1 RETURNING token_hash", [account.as_str()])
                }
                SessionScope::Binding(binding) => {
                    delete(conn, "DELETE FROM sessions WHERE binding = ?1 RETURNING token_hash", [binding.to_string()])
                }
            })
            .await
    }

    async fn end_one(&self, token: TokenHash) -> Result<bool, StoreError> {
        self.writer.run(move |conn| Ok(end_one(conn, token)?.is_some())).await
    }

    async fn purge(&self, now: Timestamp, idle_since: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM sessions WHERE expires_at <= ?1 OR last_seen_at < ?2";
        self.writer
            .run(move |conn| {
                let erased = conn.prepare_cached(sql)?.execute((now.unix_millis(), idle_since.unix_millis()))?;
                Ok(u64::try_from(erased).unwrap_or(u64::MAX))
            })
            .await
    }
}

fn open(
    conn: &Connection,
    session: &SessionRecord,
    per_account: u32,
    replaces: Option<TokenHash>,
) -> Result<Vec<TokenHash>, StoreError> {
    let mut ended = Vec::new();
    if let Some(token) = replaces {
        ended.extend(end_one(conn, token)?);
    }
    insert(conn, session)?;
    // By order of opening, not by time: a clock set back must not end the session that is just being opened.
    ended.extend(delete(
        conn,
        "DELETE FROM sessions WHERE seq IN (SELECT seq FROM sessions WHERE account = ?1 ORDER BY seq DESC \
         LIMIT -1 OFFSET ?2) RETURNING token_hash",
        (session.account.as_str(), per_account),
    )?);
    Ok(ended)
}

fn insert(conn: &Connection, session: &SessionRecord) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO sessions (token_hash, id, account, binding, carrier, continuity, link, sid_seed, transport, by_code, \
         pin_at, created_at, last_seen_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute((
        session.token_hash.as_bytes(),
        session.id.to_string(),
        session.account.as_str(),
        session.binding.to_string(),
        session.carrier.as_str(),
        session.continuity,
        session.link,
        session.sid_seed,
        session.transport.as_str(),
        session.by_code,
        session.pin_at.map(Timestamp::unix_millis),
        session.created_at.unix_millis(),
        session.last_seen_at.unix_millis(),
        session.expires_at.unix_millis(),
    ))?;
    Ok(())
}

fn end_one(conn: &Connection, token: TokenHash) -> Result<Option<TokenHash>, StoreError> {
    let mut delete = conn.prepare_cached("DELETE FROM sessions WHERE token_hash = ?1 RETURNING token_hash")?;
    let ended = delete.query_row([token.as_bytes()], |row| row.get(0)).optional()?;
    Ok(ended.map(TokenHash::from_bytes))
}

fn delete(conn: &Connection, sql: &'static str, params: impl Params) -> Result<Vec<TokenHash>, StoreError> {
    let mut delete = conn.prepare_cached(sql)?;
    delete.query_and_then(params, |row| column(row, "token_hash", |hash| Some(TokenHash::from_bytes(hash))))?.collect()
}

fn session(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
    let instant = |name| column(row, name, |millis| Some(Timestamp::from_unix_millis(millis)));
    Ok(SessionRecord {
        token_hash: column(row, "token_hash", |hash| Some(TokenHash::from_bytes(hash)))?,
        id: column(row, "id", |text: String| SessionId::parse(&text))?,
        account: column(row, "account", |text: String| AccountId::parse(&text).ok())?,
        binding: column(row, "binding", |text: String| BindingId::parse(&text))?,
        carrier: column(row, "carrier", |text: String| CarrierName::parse(&text))?,
        continuity: column(row, "continuity", Some)?,
        link: column(row, "link", Some)?,
        sid_seed: column(row, "sid_seed", Some)?,
        transport: column(row, "transport", |word: String| match word.as_str() {
            "cookie" => Some(TokenTransport::Cookie),
            "url" => Some(TokenTransport::Url),
            _ => None,
        })?,
        by_code: column(row, "by_code", Some)?,
        pin_at: column(row, "pin_at", |millis: Option<i64>| Some(millis.map(Timestamp::from_unix_millis)))?,
        created_at: instant("created_at")?,
        last_seen_at: instant("last_seen_at")?,
        expires_at: instant("expires_at")?,
    })
}
