//! Rotations: the journal of each, and the records that they move.

use std::iter::Peekable;
use std::vec::IntoIter;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::bindings::generation;
use super::connection::column;
use super::{EmbeddedStore, key_change};
use crate::binding::{BindingDigest, BindingId, Chain, KeyId};
use crate::clock::{Day, Timestamp};
use crate::store::{
    ChangeOutcome, KeyChange, KeyPurpose, Reach, RotationRecord, RotationState, RotationStore, StoreError, Strain,
    WrapBatch, WrapOutcome, Wrappable,
};

/// The number of a chain's innermost key, in SQL: what stands behind the first letter, up to the comma.
macro_rules! innermost {
    () => {
        "CAST(substr(chain, 2) AS INTEGER)"
    };
}
pub(super) use innermost;

/// Records after which a batch looks whether others wait: a tenth of a millisecond.
const BREATH: u32 = 16;

const UPSERT: &str = "INSERT INTO rotations (id, purpose, from_key, to_key, state, reason, started_at, finished_at, \
                      drain_by, total, wrapped, flattened, cursor, fence, root_before, root_after) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) \
                      ON CONFLICT (id) DO UPDATE SET state = ?5, reason = ?6, finished_at = ?8, drain_by = ?9, \
                      root_before = ?15, root_after = ?16";

#[async_trait]
impl RotationStore for EmbeddedStore {
    async fn rotations(&self) -> Result<Vec<RotationRecord>, StoreError> {
        self.readers.run(rotations).await
    }

    async fn change_with(
        &self,
        revision: u64,
        keys: Vec<KeyChange>,
        rotations: Vec<RotationRecord>,
        count_total: Option<String>,
    ) -> Result<ChangeOutcome, StoreError> {
        let erases = key_change::erases(&keys);
        let outcome = self
            .writer
            .run(move |conn| {
                let outcome = key_change::change(conn, revision, &keys)?;
                if let ChangeOutcome::Changed(_) = outcome {
                    keep(conn, &rotations, count_total.as_deref())?;
                }
                Ok(outcome)
            })
            .await?;
        if erases && matches!(outcome, ChangeOutcome::Changed(_)) {
            // The journal, and the file as it was before, still have the wrapped key.
            self.writer.fold().await?;
        }
        Ok(outcome)
    }

    async fn take_fence(&self, rotation: &str) -> Result<Option<u64>, StoreError> {
        let id = rotation.to_owned();
        let sql = "UPDATE rotations SET fence = fence + 1 WHERE id = ?1 RETURNING fence";
        self.writer
            .run(move |conn| {
                let mut update = conn.prepare_cached(sql)?;
                let mut rows = update.query_and_then([id], |row| count(row, "fence"))?;
                rows.next().transpose()
            })
            .await
    }

    async fn wrappable(&self, active: KeyId, after: u64, limit: u32) -> Result<Vec<Wrappable>, StoreError> {
        // No key is younger than the active one, so every other outermost key is older.
        let sql = "SELECT seq, rev, chain, digest FROM bindings \
                   WHERE seq > ?1 AND chain <> ?2 AND chain NOT LIKE '%,' || ?2 ORDER BY seq LIMIT ?3";
        self.readers
            .run(move |conn| {
                let mut select = conn.prepare_cached(sql)?;
                let read = |row: &Row<'_>| {
                    Ok(Wrappable {
                        position: count(row, "seq")?,
                        rev: count(row, "rev")?,
                        chain: chain(row)?,
                        digest: digest(row)?,
                    })
                };
                select.query_and_then((position(after)?, active.to_string(), limit), read)?.collect()
            })
            .await
    }

    async fn wrap(&self, batch: WrapBatch) -> Result<WrapOutcome, StoreError> {
        let WrapBatch { rotation, fence, generation, cursor, records } = batch;
        let mut left = records.into_iter().peekable();
        let mut moved = 0;
        loop {
            let slice = Slice { rotation: rotation.clone(), fence, generation, cursor, records: left };
            let is_waited_for = self.writer.is_waited_for();
            let (outcome, rest) = self.writer.run_patiently(move |conn| wrap(conn, slice, is_waited_for)).await?;
            left = rest;
            match outcome {
                WrapOutcome::Wrapped(more) => moved += more,
                WrapOutcome::Fenced | WrapOutcome::Stale => return Ok(outcome),
            }
            if left.peek().is_none() {
                self.writer.sync().await?;
                return Ok(WrapOutcome::Wrapped(moved));
            }
        }
    }

    fn strain(&self) -> Strain {
        self.writer.told().burden.strain()
    }

    async fn chains(&self) -> Result<Vec<(Chain, u64)>, StoreError> {
        self.readers.run(chains).await
    }

    async fn reach(&self, key: KeyId) -> Result<Reach, StoreError> {
        let sql = "SELECT count(*) AS bindings, count(DISTINCT account) AS accounts, \
                   count(CASE WHEN EXISTS (SELECT 1 FROM pins WHERE pins.account = bindings.account) THEN 1 END) AS with_pin \
                   FROM bindings WHERE ',' || chain || ',' LIKE '%,' || ?1 || ',%'";
        let read = |row: &Row<'_>| {
            let count = |name| count(row, name);
            Ok(Reach { bindings: count("bindings")?, with_pin: count("with_pin")?, accounts: count("accounts")? })
        };
        self.surveyor.run(move |conn| conn.prepare(sql)?.query_row([key.to_string()], |row| Ok(read(row)))?).await
    }

    async fn unused_since(&self, day: Day) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) AS records FROM bindings WHERE last_used_on < ?1";
        self.readers
            .run(move |conn| conn.prepare_cached(sql)?.query_row([day.unix_days()], |row| Ok(count(row, "records")))?)
            .await
    }

    async fn purgeable(&self, key: KeyId) -> Result<u64, StoreError> {
        let sql = concat!(
            "SELECT count(*) AS records FROM bindings WHERE ",
            innermost!(),
            " <= ?1 AND account NOT IN (SELECT account FROM holds)"
        );
        let read = move |conn: &Connection| {
            let count: i64 = conn.prepare_cached(sql)?.query_row([key.number()], |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        };
        self.readers.run(read).await
    }

    async fn purge_chain(&self, key: KeyId, limit: u32) -> Result<Vec<BindingId>, StoreError> {
        let sql = concat!(
            "SELECT seq FROM bindings WHERE ",
            innermost!(),
            " <= ?1 AND account NOT IN (SELECT account FROM holds) LIMIT ?2"
        );
        let read = move |conn: &Connection| {
            let mut select = conn.prepare_cached(sql)?;
            select.query_and_then((key.number(), limit), |row| Ok(row.get(0)?))?.collect()
        };
        let places: Vec<i64> = self.surveyor.run(read).await?;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        // Judged again: a sign-in may have taken it off the key since, a hold may keep it now, or a new record may stand in its
        // place.
        let sql = concat!(
            "DELETE FROM bindings WHERE seq = ?2 AND ",
            innermost!(),
            " <= ?1 AND account NOT IN (SELECT account FROM holds) RETURNING id"
        );
        let erase = move |conn: &Connection| {
            let mut delete = conn.prepare_cached(sql)?;
            let mut one =
                |place: i64| delete.query_row((key.number(), place), |row| Ok(binding_id(row))).optional()?.transpose();
            places.into_iter().filter_map(|place| one(place).transpose()).collect()
        };
        self.writer.run(erase).await
    }
}

/// Counts a record that moved from `before` to `after` by a sign-in, for each open rotation that it is past now.
pub(super) fn count_flattened(conn: &Connection, before: &Chain, after: &Chain) -> Result<(), StoreError> {
    for rotation in open(conn)? {
        let (from, _) = binding_keys(&rotation)?;
        if before.innermost() <= from && from < after.innermost() {
            conn.prepare_cached("UPDATE rotations SET flattened = flattened + 1 WHERE id = ?1")?
                .execute([&rotation.id])?;
        }
    }
    Ok(())
}

/// Counted here: SQLite would sort all records for it, of which a store has millions and a handful of chains.
fn chains(conn: &Connection) -> Result<Vec<(Chain, u64)>, StoreError> {
    let mut select = conn.prepare_cached("SELECT chain FROM bindings")?;
    let mut rows = select.query([])?;
    let mut counts: Vec<(String, u64)> = Vec::new();
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str().map_err(|_| StoreError::Corrupt("column chain".into()))?;
        match counts.iter_mut().find(|(known, _)| known == text) {
            Some((_, count)) => *count += 1,
            None => counts.push((text.to_owned(), 1)),
        }
    }
    let parsed = |(text, count): (String, u64)| Chain::parse(&text).map(|chain| (chain, count));
    let mut chains: Vec<_> = counts
        .into_iter()
        .map(parsed)
        .collect::<Result<_, _>>()
        .map_err(|_| StoreError::Corrupt("column chain".into()))?;
    chains.sort();
    Ok(chains)
}

/// The latest first.
fn rotations(conn: &Connection) -> Result<Vec<RotationRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM rotations ORDER BY length(id) DESC, id DESC")?;
    select.query_and_then([], rotation)?.collect()
}

/// The rotations of binding keys that still have something to do; at most a few.
fn open(conn: &Connection) -> Result<Vec<RotationRecord>, StoreError> {
    let mut select =
        conn.prepare_cached("SELECT * FROM rotations WHERE purpose = 'binding' AND finished_at IS NULL")?;
    select.query_and_then([], rotation)?.collect()
}

fn rotation(row: &Row<'_>) -> Result<RotationRecord, StoreError> {
    let time = |name| column(row, name, |millis| Some(Timestamp::from_unix_millis(millis)));
    let finished = |millis: Option<i64>| Some(millis.map(Timestamp::from_unix_millis));
    Ok(RotationRecord {
        id: column(row, "id", Some)?,
        purpose: column(row, "purpose", |word: String| KeyPurpose::ALL.into_iter().find(|p| p.as_str() == word))?,
        from: column(row, "from_key", Some)?,
        to: column(row, "to_key", Some)?,
        state: column(row, "state", |word: String| RotationState::ALL.into_iter().find(|s| s.as_str() == word))?,
        reason: column(row, "reason", Some)?,
        started_at: time("started_at")?,
        finished_at: column(row, "finished_at", finished)?,
        drain_by: column(row, "drain_by", |days| Some(Day::from_unix_days(days)))?,
        total: count(row, "total")?,
        wrapped: count(row, "wrapped")?,
        flattened: count(row, "flattened")?,
        cursor: count(row, "cursor")?,
        fence: count(row, "fence")?,
        root_before: column(row, "root_before", Some)?,
        root_after: column(row, "root_after", Some)?,
    })
}

/// Puts rotations in, or in the place of the ones of their ids.
fn keep(conn: &Connection, rotations: &[RotationRecord], count_total: Option<&str>) -> Result<(), StoreError> {
    for record in rotations {
        conn.prepare_cached(UPSERT)?.execute(rusqlite::params![
            record.id,
            record.purpose.as_str(),
            record.from,
            record.to,
            record.state.as_str(),
            record.reason,
            record.started_at.unix_millis(),
            record.finished_at.map(Timestamp::unix_millis),
            record.drain_by.unix_days(),
            position(record.total)?,
            position(record.wrapped)?,
            position(record.flattened)?,
            position(record.cursor)?,
            position(record.fence)?,
            record.root_before,
            record.root_after,
        ])?;
    }
    if rotations.iter().any(|record| matches!(record.state, RotationState::Draining | RotationState::Done)) {
        // The pages that the wrap went through.
        conn.execute_batch("PRAGMA shrink_memory")?;
    }
    if let Some(id) = count_total {
        let sql = "UPDATE rotations SET total = (SELECT count(*) FROM bindings) WHERE id = ?1";
        conn.prepare_cached(sql)?.execute([id])?;
    }
    Ok(())
}

type Records = Peekable<IntoIter<Wrappable>>;

/// What is left of a batch.
struct Slice {
    rotation: String,
    fence: u64,
    generation: u64,
    cursor: u64,
    records: Records,
}

/// Moves records until somebody waits, and gives back those that are left.
fn wrap(
    conn: &Connection,
    slice: Slice,
    is_waited_for: impl Fn() -> bool,
) -> Result<(WrapOutcome, Records), StoreError> {
    let Slice { rotation, fence, generation: made_by, cursor, mut records } = slice;
    let open = open(conn)?;
    let ours = open.iter().find(|record| record.id == rotation);
    if !ours.is_some_and(|ours| ours.state == RotationState::Running && ours.fence == fence) {
        return Ok((WrapOutcome::Fenced, records));
    }
    if generation(conn)? != made_by {
        return Ok((WrapOutcome::Stale, records));
    }
    let mut select = conn.prepare_cached("SELECT chain, rev FROM bindings WHERE seq = ?1")?;
    let sql = "UPDATE bindings SET chain = ?2, digest = ?3, rev = rev + 1 WHERE seq = ?1";
    let mut update = conn.prepare_cached(sql)?;
    // A store has a handful of chains: each is read and written once a batch.
    let mut known: Vec<(String, KeyId)> = Vec::new();
    let mut written: Option<(Chain, String)> = None;
    // The same of moves.
    let mut moves: Vec<((KeyId, KeyId), u64)> = Vec::new();
    let mut seen = 0_u32;
    while let Some(record) = records.next_if(|_| seen == 0 || !seen.is_multiple_of(BREATH) || !is_waited_for()) {
        seen += 1;
        let place = position(record.position)?;
        let found = select.query_row([place], |row| {
            let text = row.get_ref(0)?.as_str()?;
            let outermost = known.iter().find(|(known, _)| known == text).map(|(_, outermost)| *outermost);
            Ok((outermost.ok_or_else(|| text.to_owned()), row.get::<_, i64>(1)?))
        });
        let Some((before, rev)) = found.optional()? else { continue };
        let before = match before {
            Ok(outermost) => outermost,
            Err(text) => {
                let chain = Chain::parse(&text).map_err(|_| StoreError::Corrupt("column chain".into()))?;
                known.push((text, chain.outermost()));
                chain.outermost()
            }
        };
        let after = record.chain.outermost();
        // Its place may have been given to a new record since, with a `rev` that began anew: that one is under the
        // active key.
        if rev != position(record.rev)? || before >= after {
            continue;
        }
        let (_, text) = match &mut written {
            Some(same) if same.0 == record.chain => same,
            other => other.insert((record.chain.clone(), record.chain.to_string())),
        };
        update.execute((place, &*text, record.digest.as_bytes()))?;
        match moves.iter_mut().find(|(kind, _)| *kind == (before, after)) {
            Some((_, count)) => *count += 1,
            None => moves.push(((before, after), 1)),
        }
    }
    for rotation in &open {
        let (_, to) = binding_keys(rotation)?;
        let wrapped = moves.iter().filter(|((before, after), _)| *before < to && to <= *after).map(|(_, n)| n).sum();
        conn.prepare_cached("UPDATE rotations SET wrapped = wrapped + ?2 WHERE id = ?1")?
            .execute((&rotation.id, position(wrapped)?))?;
    }
    // The records come in any order: only behind the last of them is there nothing left of the batch.
    if records.peek().is_none() {
        let sql = "UPDATE rotations SET cursor = ?2 WHERE id = ?1";
        conn.prepare_cached(sql)?.execute((&rotation, position(cursor)?))?;
    }
    Ok((WrapOutcome::Wrapped(moves.iter().map(|(_, count)| count).sum()), records))
}

fn binding_keys(rotation: &RotationRecord) -> Result<(KeyId, KeyId), StoreError> {
    let id = |text: &str| KeyId::parse(text).map_err(|_| StoreError::Corrupt(format!("a key of {}", rotation.id)));
    Ok((id(&rotation.from)?, id(&rotation.to)?))
}

fn chain(row: &Row<'_>) -> Result<Chain, StoreError> {
    column(row, "chain", |text: String| Chain::parse(&text).ok())
}

fn digest(row: &Row<'_>) -> Result<BindingDigest, StoreError> {
    column(row, "digest", |bytes| Some(BindingDigest::from_bytes(bytes)))
}

fn binding_id(row: &Row<'_>) -> Result<BindingId, StoreError> {
    column(row, "id", |text: String| BindingId::parse(&text))
}

fn count(row: &Row<'_>, name: &'static str) -> Result<u64, StoreError> {
    column(row, name, |count: i64| u64::try_from(count).ok())
}

/// A count or place as SQLite keeps it.
fn position(count: u64) -> Result<i64, StoreError> {
    i64::try_from(count).map_err(|_| StoreError::Corrupt("a count beyond all bindings".into()))
}
