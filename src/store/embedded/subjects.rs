//! What persons may ask for: one account as a whole, its erasure, holds, labels.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::approvals::carry_out;
use super::bindings::{account_state, binding};
use super::connection::column;
use super::{EmbeddedStore, file, news, notices};
use crate::audit::Pseudonym;
use crate::binding::{AccountId, BindingId, Label};
use crate::clock::{Day, Timestamp};
use crate::store::{
    ApprovedAction, DueBindings, EraseOutcome, ErasureRecord, HoldOutcome, HoldRecord, KeptCode, LabelledBinding,
    Standing, StoreError, SubjectRecord, SubjectStore,
};

/// What stands for an account that no audit entry was ever about.
const NOBODY: &str = "erased";

#[async_trait]
impl SubjectStore for EmbeddedStore {
    async fn subject(&self, account: &AccountId) -> Result<Option<SubjectRecord>, StoreError> {
        let account = account.clone();
        self.readers.run(move |conn| subject(conn, &account)).await
    }

    async fn standing(&self, account: &AccountId, now: Timestamp) -> Result<Standing, StoreError> {
        let account = account.clone();
        self.readers.run(move |conn| standing(conn, &account, now)).await
    }

    async fn erase(
        &self,
        account: &AccountId,
        pseudonym: Option<Pseudonym>,
        now: Timestamp,
    ) -> Result<EraseOutcome, StoreError> {
        let account = account.clone();
        self.writer.run(move |conn| erase(conn, account, pseudonym.as_ref(), now)).await
    }

    async fn unfinished_erasures(&self) -> Result<Vec<ErasureRecord>, StoreError> {
        let sql = "SELECT * FROM erasures WHERE account IS NOT NULL ORDER BY seq";
        self.readers.run(|conn| conn.prepare_cached(sql)?.query_and_then([], erasure)?.collect()).await
    }

    async fn finish_erasure(&self, id: &str) -> Result<bool, StoreError> {
        let Some(seq) = number(id) else { return Ok(false) };
        let sql = "UPDATE erasures SET account = NULL WHERE seq = ?1 AND account IS NOT NULL";
        self.writer.run(move |conn| Ok(conn.prepare_cached(sql)?.execute([seq])? > 0)).await
    }

    async fn erasures(&self, most: u32) -> Result<Vec<ErasureRecord>, StoreError> {
        let sql = "SELECT * FROM erasures ORDER BY seq DESC LIMIT ?1";
        self.readers.run(move |conn| conn.prepare_cached(sql)?.query_and_then([most], erasure)?.collect()).await
    }

    async fn scrub(&self) -> Result<(), StoreError> {
        self.writer.rewrite().await
    }

    async fn copies(&self) -> Result<Vec<(String, bool)>, StoreError> {
        self.readers
            .run(|conn| {
                let path = conn.path().unwrap_or_default().to_owned();
                let found = file::copies_beside(path.as_ref());
                let found = found.map_err(|error| StoreError::Unavailable(error.to_string()))?;
                let whether = |name: String| {
                    let passing = name.ends_with(file::SHADOW);
                    (name, passing)
                };
                Ok(found.into_iter().map(whether).collect())
            })
            .await
    }

    async fn hold(
        &self,
        account: &AccountId,
        hold: HoldRecord,
        approval: Option<&str>,
    ) -> Result<HoldOutcome, StoreError> {
        let (account, approval) = (account.clone(), approval.map(str::to_owned));
        self.writer
            .run(move |conn| {
                let there =
                    conn.prepare_cached("SELECT 1 FROM accounts WHERE account = ?1")?.exists([account.as_str()])?;
                if !there {
                    return Ok(HoldOutcome::NotThere);
                }
                if held(conn, &account)?.is_some() {
                    return Ok(HoldOutcome::Unchanged);
                }
                let HoldRecord { reason, placed_by, placed_at } = hold;
                let action = ApprovedAction::HoldSubject;
                if !carry_out(conn, approval.as_deref(), action, account.as_str(), &placed_by, placed_at)? {
                    return Ok(HoldOutcome::NotApproved);
                }
                conn.prepare_cached(
                    "INSERT INTO holds (account, reason, placed_by, placed_at) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((account.as_str(), reason, placed_by, placed_at.unix_millis()))?;
                Ok(HoldOutcome::Done)
            })
            .await
    }

    async fn release(
        &self,
        account: &AccountId,
        by: String,
        approval: Option<&str>,
        now: Timestamp,
    ) -> Result<HoldOutcome, StoreError> {
        let (account, approval) = (account.clone(), approval.map(str::to_owned));
        self.writer
            .run(move |conn| {
                let there =
                    conn.prepare_cached("SELECT 1 FROM accounts WHERE account = ?1")?.exists([account.as_str()])?;
                if !there {
                    return Ok(HoldOutcome::NotThere);
                }
                if held(conn, &account)?.is_none() {
                    return Ok(HoldOutcome::Unchanged);
                }
                let action = ApprovedAction::ReleaseSubject;
                if !carry_out(conn, approval.as_deref(), action, account.as_str(), &by, now)? {
                    return Ok(HoldOutcome::NotApproved);
                }
                conn.prepare_cached("DELETE FROM holds WHERE account = ?1")?.execute([account.as_str()])?;
                Ok(HoldOutcome::Done)
            })
            .await
    }

    async fn held(&self, account: &AccountId) -> Result<Option<HoldRecord>, StoreError> {
        let account = account.clone();
        self.readers.run(move |conn| held(conn, &account)).await
    }

    async fn set_label(
        &self,
        account: &AccountId,
        binding: BindingId,
        label: Option<Label>,
    ) -> Result<bool, StoreError> {
        let account = account.clone();
        self.writer
            .run(move |conn| {
                let id = binding.to_string();
                let own = "SELECT 1 FROM bindings WHERE id = ?1 AND account = ?2";
                if !conn.prepare_cached(own)?.exists((&id, account.as_str()))? {
                    return Ok(false);
                }
                match label {
                    None => conn.prepare_cached("DELETE FROM binding_labels WHERE binding = ?1")?.execute([&id])?,
                    Some(label) => conn
                        .prepare_cached(
                            "INSERT INTO binding_labels (binding, label) VALUES (?1, ?2) \
                             ON CONFLICT (binding) DO UPDATE SET label = excluded.label",
                        )?
                        .execute((&id, label.as_str()))?,
                };
                Ok(true)
            })
            .await
    }

    async fn due_bindings(&self, unused_since: Day) -> Result<DueBindings, StoreError> {
        let sql = "SELECT count(*) AS due, count(*) FILTER (WHERE account IN (SELECT account FROM holds)) AS held \
                   FROM bindings WHERE last_used_on < ?1";
        let count = |row: &Row<'_>, name| column(row, name, |count: i64| u64::try_from(count).ok());
        self.readers
            .run(move |conn| {
                let mut select = conn.prepare_cached(sql)?;
                let mut rows = select.query([unused_since.unix_days()])?;
                let row = rows.next()?.ok_or_else(|| StoreError::Corrupt("a count without a row".to_owned()))?;
                let (due, held) = (count(row, "due")?, count(row, "held")?);
                Ok(DueBindings { free: due.saturating_sub(held), held })
            })
            .await
    }

    async fn labels(&self, account: &AccountId) -> Result<Vec<(BindingId, Label)>, StoreError> {
        let account = account.clone();
        let sql = "SELECT binding, label FROM binding_labels JOIN bindings ON bindings.id = binding WHERE account = ?1 \
                   ORDER BY seq";
        let read = |row: &Row<'_>| {
            let id = column(row, "binding", |text: String| BindingId::parse(&text))?;
            Ok((id, column(row, "label", |text: String| Label::parse(&text).ok())?))
        };
        self.readers
            .run(move |conn| conn.prepare_cached(sql)?.query_and_then([account.as_str()], read)?.collect())
            .await
    }
}

impl EmbeddedStore {
    /// Every column there is, as `table.column`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fields(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT t.name || '.' || c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
                   WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY 1";
        self.readers
            .run(move |conn| Ok(conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?))
            .await
    }
}

fn subject(conn: &Connection, account: &AccountId) -> Result<Option<SubjectRecord>, StoreError> {
    let name = [account.as_str()];
    let mut select = conn.prepare_cached("SELECT * FROM accounts WHERE account = ?1")?;
    let mut rows = select.query(name)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let shown = notices::shown(conn, account)?;
    let mut bindings = conn.prepare_cached(
        "SELECT b.*, l.label FROM bindings b LEFT JOIN binding_labels l ON l.binding = b.id WHERE account = ?1 \
         ORDER BY b.seq",
    )?;
    let bindings = bindings.query_and_then(name, |row| {
        let label =
            column(row, "label", |text: Option<String>| text.map(|text| Label::parse(&text).ok()).or(Some(None)))?;
        let binding = binding(row)?;
        let told = shown.iter().find(|(id, _)| *id == binding.id).map(|(_, notice)| notice.clone());
        Ok::<_, StoreError>(LabelledBinding { binding, label, told })
    })?;
    let mut code = conn.prepare_cached("SELECT issued_at, expires_at, wrong_tries FROM codes WHERE account = ?1")?;
    let code = code.query_and_then(name, |row| {
        let at = |name| column(row, name, |millis| Some(Timestamp::from_unix_millis(millis)));
        Ok::<_, StoreError>(KeptCode {
            issued_at: at("issued_at")?,
            expires_at: at("expires_at")?,
            wrong_tries: column(row, "wrong_tries", Some)?,
        })
    })?;
    let mut subjects =
        conn.prepare_cached("SELECT upstream, subject FROM subjects WHERE account = ?1 ORDER BY upstream")?;
    let subjects = subjects.query_and_then(name, |row| {
        Ok::<_, StoreError>((column(row, "upstream", Some)?, column(row, "subject", Some)?))
    })?;
    let mut pin = conn.prepare_cached("SELECT set_at FROM pins WHERE account = ?1")?;
    let pin =
        pin.query_and_then(name, |row| column(row, "set_at", |millis| Some(Timestamp::from_unix_millis(millis))))?;
    let of_ones_own = |row: &Row<'_>| column(row, "binding", |text: String| BindingId::parse(&text));
    let mut tries = conn.prepare_cached(
        "SELECT t.* FROM pin_tries t JOIN bindings b ON b.id = t.binding WHERE b.account = ?1 ORDER BY b.seq",
    )?;
    let tries =
        tries.query_and_then(name, |row| Ok::<_, StoreError>((of_ones_own(row)?, column(row, "in_a_row", Some)?)))?;
    let mut news = conn.prepare_cached(
        "SELECT n.* FROM news n JOIN bindings b ON b.id = n.binding WHERE b.account = ?1 ORDER BY n.seq",
    )?;
    let news = news.query_and_then(name, |row| Ok::<_, StoreError>((of_ones_own(row)?, news::one(row)?)))?;
    let record = SubjectRecord {
        account: account.clone(),
        state: account_state(row)?,
        created_at: column(row, "created_at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
        hold: held(conn, account)?,
        bindings: bindings.collect::<Result<_, _>>()?,
        code: code.last().transpose()?,
        pin_set_at: pin.last().transpose()?,
        pin_tries: tries.collect::<Result<_, _>>()?,
        news: news.collect::<Result<_, _>>()?,
        subjects: subjects.collect::<Result<_, _>>()?,
    };
    Ok(Some(record))
}

fn held(conn: &Connection, account: &AccountId) -> Result<Option<HoldRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM holds WHERE account = ?1")?;
    let mut rows = select.query_and_then([account.as_str()], |row| {
        Ok(HoldRecord {
            reason: column(row, "reason", Some)?,
            placed_by: column(row, "placed_by", Some)?,
            placed_at: column(row, "placed_at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
        })
    })?;
    rows.next().transpose()
}

fn standing(conn: &Connection, account: &AccountId, now: Timestamp) -> Result<Standing, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM holds WHERE account = ?1) OR EXISTS (SELECT 1 FROM approvals \
               WHERE action = ?2 AND object = ?1 AND state = 'open' AND expires_at > ?3) AS held \
               FROM accounts WHERE account = ?1";
    let asked = ApprovedAction::HoldSubject.as_str();
    let mut select = conn.prepare_cached(sql)?;
    let held: Option<bool> =
        select.query_row((account.as_str(), asked, now.unix_millis()), |row| row.get("held")).optional()?;
    Ok(match held {
        None => Standing::NotThere,
        Some(true) => Standing::Held,
        Some(false) => Standing::Free,
    })
}

fn erase(
    conn: &Connection,
    account: AccountId,
    pseudonym: Option<&Pseudonym>,
    now: Timestamp,
) -> Result<EraseOutcome, StoreError> {
    match standing(conn, &account, now)? {
        Standing::NotThere => return Ok(EraseOutcome::NotThere),
        Standing::Held => return Ok(EraseOutcome::Held),
        Standing::Free => {}
    }
    let name = account.as_str();
    // One by one, because deletions by a foreign key are not counted.
    let count = |sql| Ok::<_, StoreError>(conn.prepare_cached(sql)?.execute([name])? as u64);
    let bindings = count("DELETE FROM bindings WHERE account = ?1")?;
    let codes = count("DELETE FROM codes WHERE account = ?1")?;
    let subjects = count("DELETE FROM subjects WHERE account = ?1")?;
    count("DELETE FROM accounts WHERE account = ?1")?;
    let pseudonym = pseudonym.map(ToString::to_string);
    let stand_in = pseudonym.as_deref().unwrap_or(NOBODY);
    let about = [ApprovedAction::HoldSubject, ApprovedAction::ReleaseSubject].map(ApprovedAction::as_str);
    conn.prepare_cached(
        "UPDATE approvals SET object = ?2, \
         ended_at = CASE state WHEN 'open' THEN ?5 ELSE ended_at END, \
         state = CASE state WHEN 'open' THEN 'denied' ELSE state END \
         WHERE object = ?1 AND action IN (?3, ?4)",
    )?
    .execute((name, stand_in, about[0], about[1], now.unix_millis()))?;
    conn.prepare_cached(
        "INSERT INTO erasures (account, pseudonym, erased_at, bindings, codes, subjects) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((name, &pseudonym, now.unix_millis(), wide(bindings)?, wide(codes)?, wide(subjects)?))?;
    let id = format!("e{}", conn.last_insert_rowid());
    Ok(EraseOutcome::Erased(ErasureRecord {
        id,
        account: Some(account),
        pseudonym,
        erased_at: now,
        bindings,
        codes,
        subjects,
    }))
}

fn erasure(row: &Row<'_>) -> Result<ErasureRecord, StoreError> {
    let count = |name| column(row, name, |count: i64| u64::try_from(count).ok());
    let account = column(row, "account", |text: Option<String>| {
        text.map_or(Some(None), |text| AccountId::parse(&text).ok().map(Some))
    })?;
    Ok(ErasureRecord {
        id: format!("e{}", column(row, "seq", |seq: i64| Some(seq))?),
        account,
        pseudonym: column(row, "pseudonym", Some)?,
        erased_at: column(row, "erased_at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
        bindings: count("bindings")?,
        codes: count("codes")?,
        subjects: count("subjects")?,
    })
}

fn wide(count: u64) -> Result<i64, StoreError> {
    i64::try_from(count).map_err(|_| StoreError::Corrupt("more rows than a store can have".to_owned()))
}

/// `e12` -> 12; nothing else is an id of ours.
fn number(id: &str) -> Option<i64> {
    let digits = id.strip_prefix('e').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|number: &i64| number.to_string() == digits)
}
