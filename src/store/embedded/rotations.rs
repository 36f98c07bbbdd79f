//! Rotations: the journal of each, and the records that they move.

use std::cell::OnceCell;
use std::iter::Peekable;
use std::time::Duration;
use std::vec::IntoIter;

use async_trait::async_trait;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row};
use tokio::time::Instant;

use super::bindings::generation;
use super::chains::Chains;
use super::connection::column;
use super::{EmbeddedStore, key_change};
use crate::binding::{BindingDigest, BindingId, Chain, KeyId};
use crate::clock::{Day, Timestamp};
use crate::store::{
    ChangeOutcome, Haste, KeyChange, KeyPurpose, Reach, RotationRecord, RotationState, RotationStore, StoreError,
    Strain, WrapBatch, WrapOutcome, Wrappable, Wrapped,
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
/// For how long an urgent one goes on at a time though others wait.
const URGENT_SLICE: Duration = Duration::from_millis(8);

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
            self.writer.fold().await.map_err(StoreError::behind_what_is_done)?;
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
        self.readers.run(move |conn| wrappable(conn, active, after, limit)).await
    }

    async fn wrap(&self, batch: WrapBatch) -> Result<WrapOutcome, StoreError> {
        let WrapBatch { rotation, fence, generation, cursor, records, haste } = batch;
        let mut left = records.into_iter().peekable();
        let mut moved = 0;
        self.writer.told().burden.is_beside_others(haste == Haste::Gentle);
        loop {
            let slice = Slice { rotation: rotation.clone(), fence, generation, cursor, records: left };
            let gives_way = gives_way(haste, self.writer.is_waited_for());
            let (outcome, rest) = self.writer.run_patiently(move |conn| wrap(conn, slice, gives_way)).await?;
            left = rest;
            match outcome {
                WrapOutcome::Wrapped(more) | WrapOutcome::BrokenOff(more) => moved += more,
                WrapOutcome::Fenced | WrapOutcome::Stale => return Ok(outcome),
            }
            let whole = left.peek().is_none();
            if whole || haste != Haste::Urgent {
                // Beside others it goes to the disk while nobody waits. Alone it goes there with the journal, while the next
                // batch is written.
                if haste == Haste::Gentle {
                    self.writer.sync().await?;
                }
                return Ok(if whole { WrapOutcome::Wrapped(moved) } else { WrapOutcome::BrokenOff(moved) });
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

fn wrappable(conn: &Connection, active: KeyId, after: u64, limit: u32) -> Result<Vec<Wrappable>, StoreError> {
    let mut select = conn.prepare_cached("SELECT seq, rev, chain, digest FROM bindings WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = select.query([position(after)?])?;
    // Judged here, and read by place: for each of millions the same would be worked out in SQL.
    let mut chains = Chains::default();
    let mut found = Vec::new();
    while found.len() < usize::try_from(limit).unwrap_or(usize::MAX)
        && let Some(row) = rows.next()?
    {
        let chain = chains.read(row.get_ref(2)?)?;
        if chain.outermost() < active {
            found.push(Wrappable {
                position: number(row, 0).ok_or_else(|| corrupt("seq"))?,
                rev: number(row, 1).ok_or_else(|| corrupt("rev"))?,
                chain: chain.clone(),
                digest: row.get(3).map(BindingDigest::from_bytes).map_err(|_| corrupt("digest"))?,
            });
        }
    }
    Ok(found)
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

type Records = Peekable<IntoIter<Wrapped>>;

/// What is left of a batch.
struct Slice {
    rotation: String,
    fence: u64,
    generation: u64,
    cursor: u64,
    records: Records,
}

/// Whether a part of a batch ends now, as others wait; its time counts from the first answer.
fn gives_way(haste: Haste, is_waited_for: impl Fn() -> bool) -> impl Fn() -> bool {
    let since = OnceCell::new();
    move || is_waited_for() && (haste != Haste::Urgent || since.get_or_init(Instant::now).elapsed() >= URGENT_SLICE)
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
    let mut moving = Mover::new(conn)?;
    let mut seen = 0_u32;
    while let Some(record) = records.next_if(|_| seen == 0 || !seen.is_multiple_of(BREATH) || !is_waited_for()) {
        seen += 1;
        moving.move_one(&record)?;
    }
    let moves = moving.moves;
    for rotation in &open {
        let (_, to) = binding_keys(rotation)?;
        let past = |before: &Chain, after: &Chain| before.outermost() < to && to <= after.outermost();
        let wrapped = moves.iter().filter(|((before, after), _)| past(before, after)).map(|(_, n)| n).sum();
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

/// In SQL, whether a record is as it was read. Its place may have been given to a new one since, with a `rev` that began
/// anew: that one has another chain.
macro_rules! as_read {
    () => {
        "chain = ?1 AND seq = ?2 AND rev = ?3"
    };
}

/// Moves records one by one, each by one statement that compares and sets.
struct Mover<'conn> {
    conn: &'conn Connection,
    update: CachedStatement<'conn>,
    /// From which chain to which, and how many: neighbours mostly have the same. The statement still has those of the last.
    moves: Vec<((Chain, Chain), u64)>,
    bound: Option<(Chain, Chain)>,
}

impl<'conn> Mover<'conn> {
    fn new(conn: &'conn Connection) -> Result<Self, StoreError> {
        let sql = concat!(
            "UPDATE bindings SET chain = ?4, digest = ?5, folded = ?6, rev = rev + 1 WHERE ",
            as_read!(),
            " AND NOT EXISTS (SELECT 1 FROM bindings AS other \
             WHERE other.folded = ?6 AND other.digest = ?5 AND other.carrier = bindings.carrier)"
        );
        Ok(Self { conn, update: conn.prepare_cached(sql)?, moves: Vec::new(), bound: None })
    }

    fn move_one(&mut self, record: &Wrapped) -> Result<(), StoreError> {
        let Wrapped { position: place, rev, before, chain: after, digest } = record;
        if before.outermost() >= after.outermost() {
            return Ok(());
        }
        if self.bound.as_ref().is_none_or(|(from, to)| (from, to) != (before, after)) {
            self.update.raw_bind_parameter(1, before.to_string())?;
            self.update.raw_bind_parameter(4, after.to_string())?;
            self.bound = Some((before.clone(), after.clone()));
        }
        self.update.raw_bind_parameter(2, position(*place)?)?;
        self.update.raw_bind_parameter(3, position(*rev)?)?;
        self.update.raw_bind_parameter(5, digest.as_bytes())?;
        self.update.raw_bind_parameter(6, digest.fold())?;
        if self.update.raw_execute()? == 0 {
            let still = concat!("SELECT 1 FROM bindings WHERE ", as_read!());
            let params = (before.to_string(), position(*place)?, position(*rev)?);
            return if self.conn.prepare_cached(still)?.exists(params)? {
                Err(StoreError::Corrupt("two bindings would have one digest".into()))
            } else {
                Ok(())
            };
        }
        match self.moves.iter_mut().find(|((from, to), _)| (from, to) == (before, after)) {
            Some((_, count)) => *count += 1,
            None => self.moves.push(((before.clone(), after.clone()), 1)),
        }
        Ok(())
    }
}

fn binding_keys(rotation: &RotationRecord) -> Result<(KeyId, KeyId), StoreError> {
    let id = |text: &str| KeyId::parse(text).map_err(|_| StoreError::Corrupt(format!("a key of {}", rotation.id)));
    Ok((id(&rotation.from)?, id(&rotation.to)?))
}

fn binding_id(row: &Row<'_>) -> Result<BindingId, StoreError> {
    column(row, "id", |text: String| BindingId::parse(&text))
}

/// A count by its place among the columns.
fn number(row: &Row<'_>, place: usize) -> Option<u64> {
    row.get_ref(place).ok()?.as_i64().ok()?.try_into().ok()
}

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column}"))
}

fn count(row: &Row<'_>, name: &'static str) -> Result<u64, StoreError> {
    column(row, name, |count: i64| u64::try_from(count).ok())
}

/// A count or place as SQLite keeps it.
fn position(count: u64) -> Result<i64, StoreError> {
    i64::try_from(count).map_err(|_| StoreError::Corrupt("a count beyond all bindings".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::store::embedded::connection::{Access, connect};

    /// A store with so many bindings under `k1`, which `r1` moves to `k2`.
    fn rotating(path: &std::path::Path, bindings: u8) -> Connection {
        let now = Timestamp::from_unix_millis(1_795_530_000_000);
        drop(EmbeddedStore::open(path, now, &SystemEntropy::default()).unwrap());
        let conn = connect(path, Access::Write).unwrap();
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let record = RotationRecord::new("r1", KeyPurpose::Binding, "k1", "k2", RotationState::Running, now, now.day());
        keep(&conn, &[record], None).unwrap();
        for number in 0..bindings {
            let digest = BindingDigest::from_bytes([number; 32]);
            let sql = "INSERT INTO bindings (id, account, carrier, scheme, chain, digest, folded, bound_on, last_used_on) \
                       VALUES (?1, 'alice', 'docomo', 's', 'k1', ?2, ?3, 1, 1)";
            conn.execute(sql, (number, digest.as_bytes(), digest.fold())).unwrap();
        }
        conn
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_urgent_goes_on_for_a_while_though_others_wait() {
        for (haste, at_once) in [(Haste::Gentle, true), (Haste::Free, true), (Haste::Urgent, false)] {
            let ends = gives_way(haste, || true);
            assert_eq!(ends(), at_once, "{haste:?}");
            tokio::time::advance(URGENT_SLICE).await;
            assert!(ends(), "{haste:?}");
            assert!(!gives_way(haste, || false)(), "{haste:?}: nobody waits");
        }
    }

    #[test]
    fn a_batch_ends_where_somebody_waits_and_the_cursor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let conn = rotating(&folder.path().join("store"), 40);
        let active = KeyId::parse("k2").unwrap();
        let read = wrappable(&conn, active, 0, 100).unwrap();
        let moved = |record: &Wrappable| Wrapped {
            position: record.position,
            rev: record.rev,
            before: record.chain.clone(),
            chain: Chain::parse("k1,k2").unwrap(),
            digest: BindingDigest::from_bytes([record.digest.as_bytes()[0] + 100; 32]),
        };
        let records = read.iter().map(moved).collect::<Vec<_>>().into_iter().peekable();
        let made_by = generation(&conn).unwrap();
        let slice = |records| Slice { rotation: "r1".into(), fence: 0, generation: made_by, cursor: 40, records };
        let journal = || rotations(&conn).unwrap().pop().map(|record| (record.wrapped, record.cursor)).unwrap();

        let (outcome, left) = wrap(&conn, slice(records), || true).unwrap();
        assert_eq!((outcome, left.len(), journal()), (WrapOutcome::Wrapped(16), 24, (16, 0)));
        assert_eq!(wrappable(&conn, active, 0, 100).unwrap().len(), 24, "what is left is read again from there");
        let (outcome, left) = wrap(&conn, slice(left), || false).unwrap();
        assert_eq!((outcome, left.len(), journal()), (WrapOutcome::Wrapped(24), 0, (40, 40)));
    }
}
