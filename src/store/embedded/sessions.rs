//! Sessions.

use async_trait::async_trait;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use super::EmbeddedStore;
use super::connection::column;
use crate::binding::{AccountId, BindingId};
use crate::carrier::CarrierName;
use crate::clock::Timestamp;
use crate::session::{SessionId, TokenHash};
use crate::store::{Renewal, SessionRecord, SessionScope, SessionStore, SessionVisit, StoreError, TokenTransport};

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

    async fn renew(&self, old: TokenHash, renewal: Renewal) -> Result<bool, StoreError> {
        self.writer.run(move |conn| renew(conn, old, &renewal)).await
    }

    async fn load(&self, mut visit: SessionVisit) -> Result<(), StoreError> {
        self.surveyor
            .run(move |conn| {
                let mut select = conn.prepare(LOAD)?;
                let mut rows = select.query([])?;
                let mut carriers = Vec::new();
                while let Some(row) = rows.next()? {
                    visit(session(row, &mut carriers)?);
                }
                Ok(())
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
        let of_binding = "DELETE FROM sessions WHERE binding = ?1 RETURNING token_hash";
        match scope {
            SessionScope::Id(account, id) => {
                let sql = "DELETE FROM sessions WHERE account = ?1 AND id = ?2 RETURNING token_hash";
                self.writer.run(move |conn| delete(conn, sql, (account.as_str(), id.to_string()))).await
            }
            SessionScope::Account(account) => {
                let sql = "DELETE FROM sessions WHERE account = ?1 RETURNING token_hash";
                self.writer.run(move |conn| delete(conn, sql, [account.as_str()])).await
            }
            SessionScope::Binding(binding) => {
                self.writer.run(move |conn| delete(conn, of_binding, [binding.to_string()])).await
            }
            SessionScope::AnyOf(bindings) => {
                let each = move |conn: &Connection| {
                    let ended = bindings.iter().map(|binding| delete(conn, of_binding, [binding.to_string()]));
                    Ok(ended.collect::<Result<Vec<_>, _>>()?.concat())
                };
                self.writer.run(each).await
            }
        }
    }

    async fn end_one(&self, token: TokenHash) -> Result<bool, StoreError> {
        self.writer.run(move |conn| Ok(end_one(conn, token)?.is_some())).await
    }

    async fn erase(&self, sessions: Vec<TokenHash>) -> Result<(), StoreError> {
        self.writer
            .run(move |conn| {
                let mut delete = conn.prepare_cached("DELETE FROM sessions WHERE token_hash = ?1")?;
                for token in &sessions {
                    delete.execute([token.as_bytes()])?;
                }
                Ok(())
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
    for seq in beyond(conn, session, per_account)? {
        ended.extend(delete(conn, "DELETE FROM sessions WHERE seq = ?1 RETURNING token_hash", [seq])?);
    }
    Ok(ended)
}

/// Which sessions of the account that has just opened `latest` are too many. Most of the time none, which the index says by
/// itself; a `DELETE` that looks for them makes two tables in memory for the answer first.
///
/// By order of opening, not by time: a clock set back must not end the session that is just being opened.
fn beyond(conn: &Connection, latest: &SessionRecord, per_account: u32) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT seq FROM sessions WHERE account = ?1 ORDER BY seq DESC LIMIT -1 OFFSET ?2";
    let mut select = conn.prepare_cached(sql)?;
    let seqs = select.query_map((latest.account.as_str(), per_account), |row| row.get(0))?;
    Ok(seqs.collect::<Result<_, _>>()?)
}

fn renew(conn: &Connection, old: TokenHash, renewal: &Renewal) -> Result<bool, StoreError> {
    let mut delete = conn.prepare_cached(RENEW)?;
    let Some(there) =
        delete.query_and_then([old.as_bytes()], |row| session(row, &mut Vec::new()))?.next().transpose()?
    else {
        return Ok(false);
    };
    let Renewal { token_hash, link, transport, at } = *renewal;
    let (link, pin_at) = (Some(link), Some(at));
    insert(conn, &SessionRecord { token_hash, link, transport, by_code: false, pin_at, last_seen_at: at, ..there })?;
    Ok(true)
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

/// The columns of a session, in the order of `columns!`. Read by place: by name a million rows take twice as long.
const COLUMNS: [&str; 14] = [
    "token_hash",
    "id",
    "account",
    "binding",
    "carrier",
    "continuity",
    "link",
    "sid_seed",
    "transport",
    "by_code",
    "pin_at",
    "created_at",
    "last_seen_at",
    "expires_at",
];
macro_rules! columns {
    () => {
        "token_hash, id, account, binding, carrier, continuity, link, sid_seed, transport, by_code, pin_at, created_at, \
         last_seen_at, expires_at"
    };
}
const LOAD: &str = concat!("SELECT ", columns!(), " FROM sessions ORDER BY seq");
const RENEW: &str = concat!("DELETE FROM sessions WHERE token_hash = ?1 RETURNING ", columns!());

/// `carriers` are the names that were met before.
fn session(row: &Row<'_>, carriers: &mut Vec<CarrierName>) -> Result<SessionRecord, StoreError> {
    Ok(SessionRecord {
        token_hash: at(row, 0, |value| octets(value).map(TokenHash::from_bytes))?,
        id: at(row, 1, |value| SessionId::parse(value.as_str().ok()?))?,
        account: at(row, 2, |value| AccountId::parse(value.as_str().ok()?).ok())?,
        binding: at(row, 3, |value| BindingId::parse(value.as_str().ok()?))?,
        carrier: at(row, 4, |value| shared(value.as_str().ok()?, carriers))?,
        continuity: at(row, 5, octets)?,
        link: optional(row, 6, octets)?,
        sid_seed: at(row, 7, octets)?,
        transport: at(row, 8, |value| match value.as_str().ok()? {
            "cookie" => Some(TokenTransport::Cookie),
            "url" => Some(TokenTransport::Url),
            _ => None,
        })?,
        by_code: at(row, 9, |value| Some(value.as_i64().ok()? != 0))?,
        pin_at: optional(row, 10, millis)?,
        created_at: at(row, 11, millis)?,
        last_seen_at: at(row, 12, millis)?,
        expires_at: at(row, 13, millis)?,
    })
}

fn shared(carrier: &str, carriers: &mut Vec<CarrierName>) -> Option<CarrierName> {
    if let Some(met) = carriers.iter().find(|met| met.as_str() == carrier) {
        return Some(met.clone());
    }
    let new = CarrierName::parse(carrier)?;
    carriers.push(new.clone());
    Some(new)
}

/// Reads a value where it is, and judges it as [`column`] does.
fn at<R>(row: &Row<'_>, place: usize, judge: impl FnOnce(ValueRef<'_>) -> Option<R>) -> Result<R, StoreError> {
    let judged = row.get_ref(place).ok().and_then(judge);
    judged.ok_or_else(|| StoreError::Corrupt(format!("column {}", COLUMNS.get(place).unwrap_or(&"of a session"))))
}

fn optional<R>(
    row: &Row<'_>,
    place: usize,
    judge: impl FnOnce(ValueRef<'_>) -> Option<R>,
) -> Result<Option<R>, StoreError> {
    if row.get_ref(place) == Ok(ValueRef::Null) { Ok(None) } else { at(row, place, judge).map(Some) }
}

fn millis(value: ValueRef<'_>) -> Option<Timestamp> {
    value.as_i64().ok().map(Timestamp::from_unix_millis)
}

fn octets<const N: usize>(value: ValueRef<'_>) -> Option<[u8; N]> {
    value.as_blob().ok()?.try_into().ok()
}
