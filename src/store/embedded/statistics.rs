//! Statistics.

use async_trait::async_trait;
use rusqlite::{Connection, Row};

use super::EmbeddedStore;
use super::connection::column;
use crate::carrier::CarrierName;
use crate::clock::Day;
use crate::store::{Counted, DayCount, StatisticsStore, StoreError};

#[async_trait]
impl StatisticsStore for EmbeddedStore {
    async fn add_counts(&self, counts: Vec<DayCount>) -> Result<(), StoreError> {
        let sql = "INSERT INTO statistics (day, carrier, kind, count) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (day, carrier, kind) DO UPDATE SET count = count + excluded.count";
        self.writer
            .run(move |conn| {
                let mut insert = conn.prepare_cached(sql)?;
                for DayCount { day, carrier, kind, count } in &counts {
                    let count = i64::try_from(*count).unwrap_or(i64::MAX);
                    insert.execute((day.unix_days(), carrier.as_str(), kind.as_str(), count))?;
                }
                Ok(())
            })
            .await
    }

    async fn counts(&self, from: Day, to: Day) -> Result<Vec<DayCount>, StoreError> {
        let sql = "SELECT * FROM statistics WHERE day BETWEEN ?1 AND ?2 ORDER BY day, carrier, kind";
        let bounds = (from.unix_days(), to.unix_days());
        self.readers.run(move |conn| conn.prepare_cached(sql)?.query_and_then(bounds, day_count)?.collect()).await
    }

    async fn first_counted(&self) -> Result<Option<Day>, StoreError> {
        let read = |conn: &Connection| {
            let mut select = conn.prepare_cached("SELECT min(day) AS day FROM statistics")?;
            let first = |row: &Row<'_>| Ok(column(row, "day", |days: Option<i32>| Some(days.map(Day::from_unix_days))));
            select.query_row([], first)?
        };
        self.readers.run(read).await
    }

    async fn counted_before(&self, before: Day) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM statistics WHERE day < ?1";
        let read = move |conn: &Connection| {
            let count: i64 = conn.prepare_cached(sql)?.query_row([before.unix_days()], |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        };
        self.readers.run(read).await
    }

    async fn erase_counts(&self, before: Day) -> Result<u64, StoreError> {
        let sql = "DELETE FROM statistics WHERE day < ?1";
        self.writer.run(move |conn| Ok(conn.prepare_cached(sql)?.execute([before.unix_days()])? as u64)).await
    }
}

fn day_count(row: &Row<'_>) -> Result<DayCount, StoreError> {
    Ok(DayCount {
        day: column(row, "day", |days| Some(Day::from_unix_days(days)))?,
        carrier: column(row, "carrier", |text: String| CarrierName::parse(&text))?,
        kind: column(row, "kind", |word: String| Counted::ALL.into_iter().find(|kind| kind.as_str() == word))?,
        count: column(row, "count", |count: i64| u64::try_from(count).ok())?,
    })
}
