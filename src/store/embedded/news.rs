//! What people are to be told at their next sign-in.

use async_trait::async_trait;
use rusqlite::{Connection, Row};

use super::EmbeddedStore;
use super::connection::column;
use crate::binding::{AccountId, BindingId};
use crate::carrier::CarrierName;
use crate::clock::Day;
use crate::store::{News, NewsKind, NewsStore, StoreError};

#[async_trait]
impl NewsStore for EmbeddedStore {
    async fn has_news(&self, binding: BindingId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM news WHERE binding = ?1 UNION ALL SELECT 1 FROM bindings b \
                   JOIN notices shown ON shown.seq = b.notice JOIN notices latest ON latest.seq = (SELECT max(seq) FROM notices) \
                   WHERE b.id = ?1 AND shown.digest <> latest.digest";
        self.readers.run(move |conn| Ok(conn.prepare_cached(sql)?.exists([binding.to_string()])?)).await
    }

    async fn take_news(&self, binding: BindingId) -> Result<Vec<News>, StoreError> {
        self.writer
            .run(move |conn| {
                let binding = binding.to_string();
                let mut select = conn.prepare_cached("SELECT * FROM news WHERE binding = ?1 ORDER BY seq")?;
                let news = select.query_and_then([&binding], one)?.collect::<Result<_, StoreError>>()?;
                conn.prepare_cached("DELETE FROM news WHERE binding = ?1")?.execute([&binding])?;
                Ok(news)
            })
            .await
    }
}

/// Tells every handset of the account but the one that is bound just now.
pub(super) fn tell_others(
    conn: &Connection,
    account: &AccountId,
    bound: BindingId,
    day: Day,
) -> Result<(), StoreError> {
    let bound = bound.to_string();
    conn.prepare_cached(
        "INSERT OR IGNORE INTO news (binding, kind, about, carrier, day) \
         SELECT b.id, ?2, n.id, n.carrier, ?4 FROM bindings b, bindings n \
         WHERE b.account = ?1 AND n.id = ?3 AND b.id <> n.id ORDER BY b.seq",
    )?
    .execute((account.as_str(), NewsKind::HandsetBound.as_str(), &bound, day.unix_days()))?;
    Ok(())
}

/// Tells every handset of the account; once, however often it happens before they are told.
pub(super) fn tell_all(
    conn: &Connection,
    account: &AccountId,
    kind: NewsKind,
    about: Option<BindingId>,
    day: Day,
) -> Result<(), StoreError> {
    let about = about.map(|binding| binding.to_string()).unwrap_or_default();
    conn.prepare_cached(
        "INSERT OR IGNORE INTO news (binding, kind, about, carrier, day) \
         SELECT id, ?2, ?3, (SELECT carrier FROM bindings WHERE id = ?3), ?4 FROM bindings WHERE account = ?1 ORDER BY seq",
    )?
    .execute((account.as_str(), kind.as_str(), &about, day.unix_days()))?;
    Ok(())
}

pub(super) fn one(row: &Row<'_>) -> Result<News, StoreError> {
    Ok(News {
        kind: column(row, "kind", |word: String| NewsKind::ALL.into_iter().find(|kind| kind.as_str() == word))?,
        carrier: column(row, "carrier", |name: Option<String>| match name {
            Some(name) => CarrierName::parse(&name).map(Some),
            None => Some(None),
        })?,
        day: column(row, "day", |days| Some(Day::from_unix_days(days)))?,
    })
}
