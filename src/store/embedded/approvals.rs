//! Approvals.

use async_trait::async_trait;
use rusqlite::{Connection, Row};

use super::connection::column;
use super::{EmbeddedStore, key_change};
use crate::clock::Timestamp;
use crate::store::{
    AnswerOutcome, ApprovalRecord, ApprovalState, ApprovalStore, ApprovedAction, ApprovedOutcome, ChangeOutcome,
    GivenApproval, KeyChange, NewApproval, StoreError,
};

#[async_trait]
impl ApprovalStore for EmbeddedStore {
    async fn ask(&self, approval: NewApproval) -> Result<ApprovalRecord, StoreError> {
        self.writer.run(move |conn| ask(conn, &approval)).await
    }

    async fn approvals(&self, now: Timestamp) -> Result<Vec<ApprovalRecord>, StoreError> {
        let read = move |conn: &Connection| {
            let mut select = conn.prepare_cached("SELECT * FROM approvals ORDER BY seq DESC")?;
            let records = select.query_and_then([], |row| approval(conn, row))?;
            let as_of_now = |mut record: ApprovalRecord| {
                if is_late(&record, now) {
                    (record.state, record.ended_at) = (ApprovalState::Expired, Some(record.expires_at));
                }
                record
            };
            records.map(|record| record.map(as_of_now)).collect()
        };
        self.readers.run(read).await
    }

    async fn approve(&self, id: &str, by: String, now: Timestamp) -> Result<AnswerOutcome, StoreError> {
        let Some(seq) = number(id) else { return Ok(AnswerOutcome::NotThere) };
        self.writer.run(move |conn| answer(conn, seq, now, |_| give(conn, seq, &by, now))).await
    }

    async fn deny(&self, id: &str, by: String, now: Timestamp) -> Result<AnswerOutcome, StoreError> {
        let Some(seq) = number(id) else { return Ok(AnswerOutcome::NotThere) };
        let deny = move |conn: &Connection| {
            answer(conn, seq, now, |_| end(conn, seq, ApprovalState::Denied, Some(&by), now).map(|()| true))
        };
        self.writer.run(deny).await
    }

    async fn change_approved(
        &self,
        id: &str,
        changes: Vec<KeyChange>,
        by: String,
        now: Timestamp,
    ) -> Result<ApprovedOutcome, StoreError> {
        let Some(seq) = number(id) else { return Ok(ApprovedOutcome::NotApproved) };
        let erases = key_change::erases(&changes);
        let outcome = self.writer.run(move |conn| change_approved(conn, seq, &changes, &by, now)).await?;
        if erases && matches!(outcome, ApprovedOutcome::Changed(_)) {
            self.writer.fold().await.map_err(StoreError::behind_what_is_done)?;
        }
        Ok(outcome)
    }
}

fn ask(conn: &Connection, new: &NewApproval) -> Result<ApprovalRecord, StoreError> {
    let sql = "SELECT seq FROM approvals WHERE action = ?1 AND object = ?2 AND state = 'open'";
    let mut select = conn.prepare_cached(sql)?;
    let mut open = select.query_and_then((new.action.as_str(), &new.object), |row| column(row, "seq", Some))?;
    if let Some(seq) = open.next().transpose()? {
        let record = current(conn, seq, new.at)?;
        if let Some(record) = record.filter(|record| record.state == ApprovalState::Open) {
            if record.revision == new.revision {
                return Ok(record);
            }
            end(conn, seq, ApprovalState::Expired, None, new.at)?;
        }
    }
    conn.prepare_cached(
        "INSERT INTO approvals (action, object, reason, asked_by, asked_at, expires_at, needs, revision, state) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'open')",
    )?
    .execute((
        new.action.as_str(),
        &new.object,
        &new.reason,
        &new.asked_by,
        new.at.unix_millis(),
        new.expires_at.unix_millis(),
        new.needs,
        i64::try_from(new.revision).unwrap_or(i64::MAX),
    ))?;
    let seq = conn.last_insert_rowid();
    if let Some(approver) = &new.approver {
        give(conn, seq, approver, new.at)?;
    }
    current(conn, seq, new.at)?.ok_or_else(|| StoreError::Corrupt("an approval was not kept".into()))
}

/// Says `yes_or_no` of an open approval; that returns whether it counts.
fn answer(
    conn: &Connection,
    seq: i64,
    now: Timestamp,
    yes_or_no: impl FnOnce(&ApprovalRecord) -> Result<bool, StoreError>,
) -> Result<AnswerOutcome, StoreError> {
    let Some(record) = current(conn, seq, now)? else { return Ok(AnswerOutcome::NotThere) };
    if record.state != ApprovalState::Open {
        return Ok(AnswerOutcome::Ended(record));
    }
    if !yes_or_no(&record)? {
        return Ok(AnswerOutcome::Twice(record));
    }
    Ok(current(conn, seq, now)?.map_or(AnswerOutcome::NotThere, AnswerOutcome::Counted))
}

/// Whether the voice is a new one.
fn give(conn: &Connection, seq: i64, by: &str, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "INSERT INTO approvals_given (approval, given_by, given_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    Ok(conn.prepare_cached(sql)?.execute((seq, by, now.unix_millis()))? == 1)
}

fn change_approved(
    conn: &Connection,
    seq: i64,
    changes: &[KeyChange],
    by: &str,
    now: Timestamp,
) -> Result<ApprovedOutcome, StoreError> {
    let record = current(conn, seq, now)?.filter(|record| record.state == ApprovalState::Open);
    let Some(record) = record.filter(|record| record.given.len() as u64 >= u64::from(record.needs)) else {
        return Ok(ApprovedOutcome::NotApproved);
    };
    match key_change::change(conn, record.revision, changes)? {
        ChangeOutcome::Changed(revision) => {
            end(conn, seq, ApprovalState::Done, Some(by), now)?;
            Ok(ApprovedOutcome::Changed(revision))
        }
        ChangeOutcome::Stale => {
            end(conn, seq, ApprovalState::Expired, None, now)?;
            Ok(ApprovedOutcome::Stale)
        }
        ChangeOutcome::InUse(records) => Ok(ApprovedOutcome::InUse(records)),
    }
}

/// Ends the approval of `action` on `object` that `id` names, because `by` carries it out in this very step. `true` without
/// one: nobody else had to agree.
pub(super) fn carry_out(
    conn: &Connection,
    id: Option<&str>,
    action: ApprovedAction,
    object: &str,
    by: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(id) = id else { return Ok(true) };
    let Some(seq) = number(id) else { return Ok(false) };
    let agreed = current(conn, seq, now)?.is_some_and(|record| {
        record.state == ApprovalState::Open
            && record.action == action
            && record.object == object
            && record.given.len() as u64 >= u64::from(record.needs)
    });
    if agreed {
        end(conn, seq, ApprovalState::Done, Some(by), now)?;
    }
    Ok(agreed)
}

fn end(conn: &Connection, seq: i64, state: ApprovalState, by: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE approvals SET state = ?2, ended_by = ?3, ended_at = ?4 WHERE seq = ?1 AND state = 'open'";
    conn.prepare_cached(sql)?.execute((seq, state.as_str(), by, now.unix_millis()))?;
    Ok(())
}

/// The approval as it is now. One that ran out is ended for good: the clock may be set back.
fn current(conn: &Connection, seq: i64, now: Timestamp) -> Result<Option<ApprovalRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM approvals WHERE seq = ?1")?;
    let read = |select: &mut rusqlite::CachedStatement<'_>| {
        let mut rows = select.query_and_then([seq], |row| approval(conn, row))?;
        rows.next().transpose()
    };
    let found = read(&mut select)?;
    match found {
        Some(record) if is_late(&record, now) => {
            end(conn, seq, ApprovalState::Expired, None, record.expires_at)?;
            read(&mut select)
        }
        found => Ok(found),
    }
}

fn is_late(record: &ApprovalRecord, now: Timestamp) -> bool {
    record.state == ApprovalState::Open && record.expires_at <= now
}

/// `p12` -> 12; nothing else is an id of ours.
fn number(id: &str) -> Option<i64> {
    let digits = id.strip_prefix('p').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|number: &i64| number.to_string() == digits)
}

fn approval(conn: &Connection, row: &Row<'_>) -> Result<ApprovalRecord, StoreError> {
    let instant = |name| column(row, name, |millis| Some(Timestamp::from_unix_millis(millis)));
    let seq: i64 = column(row, "seq", Some)?;
    let sql = "SELECT given_by, given_at FROM approvals_given WHERE approval = ?1 ORDER BY seq";
    let mut select = conn.prepare_cached(sql)?;
    let given = select.query_and_then([seq], |row| {
        let at = column(row, "given_at", |millis| Some(Timestamp::from_unix_millis(millis)))?;
        Ok::<_, StoreError>(GivenApproval { by: column(row, "given_by", Some)?, at })
    })?;
    Ok(ApprovalRecord {
        id: format!("p{seq}"),
        action: column(row, "action", |word: String| ApprovedAction::ALL.into_iter().find(|a| a.as_str() == word))?,
        object: column(row, "object", Some)?,
        reason: column(row, "reason", Some)?,
        asked_by: column(row, "asked_by", Some)?,
        asked_at: instant("asked_at")?,
        expires_at: instant("expires_at")?,
        needs: column(row, "needs", Some)?,
        revision: column(row, "revision", |count: i64| u64::try_from(count).ok())?,
        state: column(row, "state", |word: String| ApprovalState::ALL.into_iter().find(|s| s.as_str() == word))?,
        given: given.collect::<Result<_, _>>()?,
        ended_at: column(row, "ended_at", |millis: Option<i64>| Some(millis.map(Timestamp::from_unix_millis)))?,
        ended_by: column(row, "ended_by", Some)?,
    })
}
