//! What people are told, and which of it they were shown.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::EmbeddedStore;
use super::connection::column;
use crate::binding::{AccountId, BindingId};
use crate::clock::Timestamp;
use crate::store::{NewNotice, NoticeChange, NoticeRecord, NoticeStore, NoticeSummary, StoreError};

#[async_trait]
impl NoticeStore for EmbeddedStore {
    async fn put_in_force(&self, notice: NewNotice, now: Timestamp) -> Result<bool, StoreError> {
        self.writer.run(move |conn| put_in_force(conn, &notice, now)).await
    }

    async fn notice(&self, id: u32) -> Result<Option<NoticeRecord>, StoreError> {
        self.readers.run(move |conn| notice(conn, id)).await
    }

    async fn notices(&self, before: Option<u32>, most: u32) -> Result<Vec<NoticeSummary>, StoreError> {
        let sql = "SELECT seq, revision, digest, in_force_from FROM notices WHERE ?1 IS NULL OR seq < ?1 \
                   ORDER BY seq DESC LIMIT ?2";
        self.readers.run(move |conn| conn.prepare_cached(sql)?.query_and_then((before, most), summary)?.collect()).await
    }

    async fn take_notice(&self, binding: BindingId) -> Result<Option<NoticeChange>, StoreError> {
        self.writer.run(move |conn| take_notice(conn, binding)).await
    }

    async fn shown(&self, account: &AccountId) -> Result<Vec<(BindingId, NoticeSummary)>, StoreError> {
        let account = account.clone();
        self.readers.run(move |conn| shown(conn, &account)).await
    }
}

fn put_in_force(conn: &Connection, notice: &NewNotice, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "SELECT digest FROM notices ORDER BY seq DESC LIMIT 1";
    let in_force: Option<[u8; 32]> = conn.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    if in_force == Some(notice.digest) {
        return Ok(false);
    }
    conn.prepare_cached(
        "INSERT INTO notices (seq, revision, document, digest, in_force_from) \
         SELECT coalesce(max(seq), 0) + 1, ?1, ?2, ?3, ?4 FROM notices",
    )?
    .execute((&notice.revision, &notice.document, notice.digest, now.unix_millis()))?;
    Ok(true)
}

fn notice(conn: &Connection, id: u32) -> Result<Option<NoticeRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM notices WHERE seq = ?1")?;
    let mut rows = select.query_and_then([id], record)?;
    rows.next().transpose()
}

fn take_notice(conn: &Connection, binding: BindingId) -> Result<Option<NoticeChange>, StoreError> {
    let binding = binding.to_string();
    let mut select = conn.prepare_cached(
        "SELECT shown.seq, latest.seq FROM bindings b JOIN notices shown ON shown.seq = b.notice \
         JOIN notices latest ON latest.seq = (SELECT max(seq) FROM notices) \
         WHERE b.id = ?1 AND shown.digest <> latest.digest",
    )?;
    let ids: Option<(u32, u32)> = select.query_row([&binding], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((was, is)) = ids else { return Ok(None) };
    conn.prepare_cached("UPDATE bindings SET notice = ?2 WHERE id = ?1")?.execute((&binding, is))?;
    Ok(notice(conn, was)?.zip(notice(conn, is)?).map(|(was, is)| NoticeChange { was, is }))
}

/// Which notice each of the account's handsets was shown.
pub(super) fn shown(conn: &Connection, account: &AccountId) -> Result<Vec<(BindingId, NoticeSummary)>, StoreError> {
    let sql = "SELECT b.id AS binding, n.* FROM bindings b JOIN notices n ON n.seq = b.notice WHERE b.account = ?1 \
               ORDER BY b.seq";
    let mut select = conn.prepare_cached(sql)?;
    let shown = select.query_and_then([account.as_str()], |row| {
        Ok((column(row, "binding", |text: String| BindingId::parse(&text))?, summary(row)?))
    })?;
    shown.collect()
}

fn summary(row: &Row<'_>) -> Result<NoticeSummary, StoreError> {
    Ok(NoticeSummary {
        id: column(row, "seq", Some)?,
        revision: column(row, "revision", Some)?,
        digest: column(row, "digest", Some)?,
        in_force_from: column(row, "in_force_from", |millis| Some(Timestamp::from_unix_millis(millis)))?,
    })
}

fn record(row: &Row<'_>) -> Result<NoticeRecord, StoreError> {
    Ok(NoticeRecord { summary: summary(row)?, document: column(row, "document", Some)? })
}
