//! Accounts and bindings; what it takes to make a binding is in `enrolment`.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::connection::column;
use super::{EmbeddedStore, enrolment, import, rotations};
use crate::binding::{AccountId, AccountState, BindingDigest, BindingId, Chain, KeyId};
use crate::carrier::CarrierName;
use crate::clock::{Day, Timestamp};
use crate::store::{
    AccountRecord, BindingRecord, BindingStore, EnrolOutcome, Enrolment, Hit, ImportOutcome, ImportedBinding,
    IssueOutcome, LookUp, NewCode, Probe, StoreError,
};

const ACCOUNTS: &str = "SELECT *, (SELECT count(*) FROM bindings b WHERE b.account = a.account) AS bindings, \
                        EXISTS (SELECT 1 FROM pins p WHERE p.account = a.account) AS has_pin \
                        FROM accounts a WHERE ?1 IS NULL OR account = ?1 ORDER BY account";

#[async_trait]
impl BindingStore for EmbeddedStore {
    async fn generation(&self) -> Result<u64, StoreError> {
        self.readers.run(generation).await
    }

    async fn resolve(&self, carrier: &CarrierName, probes: &[Probe]) -> Result<LookUp, StoreError> {
        let carrier = carrier.clone();
        let digests: Vec<BindingDigest> = probes.iter().map(|probe| probe.digest.clone()).collect();
        let look_up = move |conn: &Connection| {
            Ok(LookUp { hit: first_hit(conn, &carrier, digests.iter())?, generation: generation(conn)? })
        };
        self.readers.run(look_up).await
    }

    async fn used(&self, id: BindingId, day: Day, flat: Probe, generation: u64) -> Result<bool, StoreError> {
        self.writer.run(move |conn| used(conn, id, day, &flat, generation)).await
    }

    async fn last_use(&self) -> Result<Option<Day>, StoreError> {
        let sql = "SELECT max(last_used_on) AS day FROM bindings";
        let read = |row: &Row<'_>| Ok(column(row, "day", |days: Option<i32>| Some(days.map(Day::from_unix_days))));
        self.readers.run(move |conn| conn.prepare_cached(sql)?.query_row([], read)?).await
    }

    async fn stands(&self, id: BindingId) -> Result<bool, StoreError> {
        self.readers.run(move |conn| stands(conn, &leaked(conn)?, id)).await
    }

    async fn fallen(&self, mut ids: Vec<BindingId>) -> Result<Vec<BindingId>, StoreError> {
        let fallen = move |conn: &Connection| {
            let leaked = leaked(conn)?;
            let mut fallen = Vec::new();
            // In the order of the index, neighbours one after the other.
            ids.sort_unstable();
            for id in ids {
                if !stands(conn, &leaked, id)? {
                    fallen.push(id);
                }
            }
            Ok(fallen)
        };
        self.surveyor.run(fallen).await
    }

    async fn enrol(&self, enrolment: Enrolment, now: Timestamp) -> Result<EnrolOutcome, StoreError> {
        self.writer.run(move |conn| enrolment::enrol(conn, &enrolment, now)).await
    }

    async fn import(
        &self,
        bindings: Vec<ImportedBinding>,
        per_account: u32,
        now: Timestamp,
    ) -> Result<Vec<ImportOutcome>, StoreError> {
        self.writer.run(move |conn| import::import(conn, &bindings, per_account, now)).await
    }

    async fn issue_code(&self, code: NewCode) -> Result<IssueOutcome, StoreError> {
        self.writer.run(move |conn| enrolment::issue_code(conn, &code)).await
    }

    async fn live_codes(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.readers.run(move |conn| enrolment::live_codes(conn, now)).await
    }

    async fn bindings(&self, account: Option<&AccountId>) -> Result<Vec<BindingRecord>, StoreError> {
        let account = account.cloned();
        let sql = "SELECT * FROM bindings WHERE ?1 IS NULL OR account = ?1 ORDER BY seq";
        self.readers
            .run(move |conn| {
                let mut select = conn.prepare_cached(sql)?;
                select.query_and_then([account.as_ref().map(AccountId::as_str)], binding)?.collect()
            })
            .await
    }

    async fn binding(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError> {
        self.readers
            .run(move |conn| {
                let mut select = conn.prepare_cached("SELECT * FROM bindings WHERE id = ?1")?;
                let mut rows = select.query_and_then([id.to_string()], binding)?;
                rows.next().transpose()
            })
            .await
    }

    async fn revoke(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError> {
        self.writer
            .run(move |conn| {
                let mut delete = conn.prepare_cached(
                    "DELETE FROM bindings WHERE id = ?1 AND account NOT IN (SELECT account FROM holds) RETURNING *",
                )?;
                let mut rows = delete.query_and_then([id.to_string()], binding)?;
                rows.next().transpose()
            })
            .await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<AccountRecord>, StoreError> {
        let account = account.clone();
        Ok(self.readers.run(move |conn| accounts(conn, Some(&account))).await?.pop())
    }

    async fn accounts(&self) -> Result<Vec<AccountRecord>, StoreError> {
        self.readers.run(|conn| accounts(conn, None)).await
    }

    async fn set_account_state(&self, account: &AccountId, state: AccountState) -> Result<bool, StoreError> {
        let account = account.clone();
        let sql = "UPDATE accounts SET state = ?2 WHERE account = ?1";
        self.writer
            .run(move |conn| Ok(conn.prepare_cached(sql)?.execute([account.as_str(), state.as_str()])? > 0))
            .await
    }

    async fn subject(&self, account: &AccountId, upstream: &str, fresh: String) -> Result<Option<String>, StoreError> {
        let (account, upstream) = (account.clone(), upstream.to_owned());
        let known = {
            let (account, upstream) = (account.clone(), upstream.clone());
            self.readers.run(move |conn| subject(conn, &account, &upstream)).await?
        };
        // A subject never changes while its account lives, so the snapshot's answer is the answer.
        if known.is_some() {
            return Ok(known);
        }
        self.writer
            .run(move |conn| {
                conn.prepare_cached(
                    "INSERT INTO subjects (account, upstream, subject) SELECT account, ?2, ?3 FROM accounts \
                     WHERE account = ?1 ON CONFLICT (account, upstream) DO NOTHING",
                )?
                .execute((account.as_str(), &upstream, &fresh))?;
                subject(conn, &account, &upstream)
            })
            .await
    }

    async fn purge(&self, now: Timestamp, unused_since: Day, limit: u32) -> Result<Vec<BindingId>, StoreError> {
        let sql = "DELETE FROM bindings WHERE seq IN (SELECT seq FROM bindings WHERE last_used_on < ?1 \
                   AND account NOT IN (SELECT account FROM holds) LIMIT ?2) RETURNING id";
        self.writer
            .run(move |conn| {
                enrolment::erase_dead_codes(conn, now)?;
                let mut delete = conn.prepare_cached(sql)?;
                let erased = delete.query_and_then((unused_since.unix_days(), limit), |row| {
                    column(row, "id", |text: String| BindingId::parse(&text))
                })?;
                erased.collect()
            })
            .await
    }
}

/// Generation of the key ring.
pub(super) fn generation(conn: &Connection) -> Result<u64, StoreError> {
    let mut select = conn.prepare_cached("SELECT generation FROM meta")?;
    select.query_row([], |row| Ok(column(row, "generation", |count: i64| u64::try_from(count).ok())))?
}

/// Looks every digest up; the first in order that is there counts.
pub(super) fn first_hit<'a>(
    conn: &Connection,
    carrier: &CarrierName,
    digests: impl Iterator<Item = &'a BindingDigest>,
) -> Result<Option<Hit>, StoreError> {
    let sql = "SELECT * FROM bindings JOIN accounts USING (account) \
               WHERE folded = ?1 AND digest = ?2 AND carrier = ?3";
    let mut select = conn.prepare_cached(sql)?;
    let leaked = leaked(conn)?;
    let mut first = None;
    for digest in digests {
        let mut rows = select.query((digest.fold(), digest.as_bytes(), carrier.as_str()))?;
        let found = rows.next()?.map(|row| hit(row, &leaked)).transpose()?;
        first = first.or(found);
    }
    Ok(first)
}

/// Makes an active account if there is none of that id.
pub(super) fn create_account(conn: &Connection, account: &AccountId, now: Timestamp) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO accounts (account, state, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?
    .execute((account.as_str(), AccountState::Active.as_str(), now.unix_millis()))?;
    Ok(())
}

/// Whether a binding has that digest: no other may get it.
fn is_taken(conn: &Connection, carrier: &str, digest: &BindingDigest) -> Result<bool, StoreError> {
    let mut select =
        conn.prepare_cached("SELECT 1 FROM bindings WHERE folded = ?1 AND digest = ?2 AND carrier = ?3")?;
    Ok(select.exists((digest.fold(), digest.as_bytes(), carrier))?)
}

/// Puts a new binding in, under the store's scheme. `told`: its person has just seen the sign-in page, which tells them the
/// notice in force.
pub(super) fn insert(
    conn: &Connection,
    record: &BindingRecord,
    digest: &BindingDigest,
    told: bool,
) -> Result<(), StoreError> {
    let mut scheme = conn.prepare_cached("SELECT id FROM schemes ORDER BY rowid")?;
    let scheme: Option<String> = scheme.query_row([], |row| row.get(0)).optional()?;
    let scheme = scheme.ok_or_else(|| StoreError::Corrupt("a binding before there are keys".into()))?;
    if is_taken(conn, record.carrier.as_str(), digest)? {
        // Whoever asks has looked in the same transaction.
        return Err(StoreError::Corrupt("a handset would be bound twice".into()));
    }
    conn.prepare_cached(
        "INSERT INTO bindings (id, account, carrier, scheme, chain, digest, folded, bound_on, last_used_on, notice) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, CASE WHEN ?10 THEN (SELECT max(seq) FROM notices) END)",
    )?
    .execute((
        record.id.to_string(),
        record.account.as_str(),
        record.carrier.as_str(),
        scheme,
        record.chain.to_string(),
        digest.as_bytes(),
        digest.fold(),
        record.bound_on.unix_days(),
        record.last_used_on.unix_days(),
        told,
    ))?;
    Ok(())
}

/// A row of `bindings`.
pub(super) fn binding(row: &Row<'_>) -> Result<BindingRecord, StoreError> {
    let day = |name| column(row, name, |days| Some(Day::from_unix_days(days)));
    Ok(BindingRecord {
        id: column(row, "id", |text: String| BindingId::parse(&text))?,
        account: column(row, "account", |text: String| AccountId::parse(&text).ok())?,
        carrier: column(row, "carrier", |text: String| CarrierName::parse(&text))?,
        chain: column(row, "chain", |text: String| Chain::parse(&text).ok())?,
        bound_on: day("bound_on")?,
        last_used_on: day("last_used_on")?,
    })
}

/// Column `state` of a row of `accounts`.
pub(super) fn account_state(row: &Row<'_>) -> Result<AccountState, StoreError> {
    column(row, "state", |word: String| match word.as_str() {
        "active" => Some(AccountState::Active),
        "suspended" => Some(AccountState::Suspended),
        _ => None,
    })
}

fn hit(row: &Row<'_>, leaked: &[KeyId]) -> Result<Hit, StoreError> {
    let binding = binding(row)?;
    let compromised = binding.chain.keys().iter().any(|key| leaked.contains(key));
    Ok(Hit { account_state: account_state(row)?, compromised, binding })
}

/// The binding keys that are known to have leaked and that a record may still have.
fn leaked(conn: &Connection) -> Result<Vec<KeyId>, StoreError> {
    let sql = "SELECT id FROM keys WHERE purpose = 'binding' AND compromised = 1 AND state <> 'destroyed'";
    let mut select = conn.prepare_cached(sql)?;
    select.query_and_then([], |row| column(row, "id", |id: String| KeyId::parse(&id).ok()))?.collect()
}

fn stands(conn: &Connection, leaked: &[KeyId], id: BindingId) -> Result<bool, StoreError> {
    let sql = "SELECT chain FROM bindings JOIN accounts USING (account) WHERE id = ?1 AND state = 'active'";
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = select.query([id.to_string()])?;
    let Some(row) = rows.next()? else { return Ok(false) };
    // Most of the time none has leaked, and the chain does not matter.
    let chain = || column(row, "chain", |text: String| Chain::parse(&text).ok());
    Ok(leaked.is_empty() || !chain()?.keys().iter().any(|key| leaked.contains(key)))
}

fn used(conn: &Connection, id: BindingId, day: Day, flat: &Probe, made_under: u64) -> Result<bool, StoreError> {
    note_use(conn, id, day)?;
    let in_force = generation(conn)? == made_under;
    if in_force {
        flatten(conn, id, flat)?;
    }
    Ok(in_force)
}

/// The day of the last use, which never moves back; an imported binding's first use tells its person the notice in force.
pub(super) fn note_use(conn: &Connection, id: BindingId, day: Day) -> Result<(), StoreError> {
    let sql = "UPDATE bindings SET last_used_on = max(last_used_on, ?2), \
               notice = coalesce(notice, (SELECT max(seq) FROM notices)) \
               WHERE id = ?1 AND (last_used_on < ?2 OR notice IS NULL)";
    conn.prepare_cached(sql)?.execute((id.to_string(), day.unix_days()))?;
    Ok(())
}

/// Takes the record off every key but that of `flat`, which the key ring in force made. Whether it moved.
pub(super) fn flatten(conn: &Connection, id: BindingId, flat: &Probe) -> Result<bool, StoreError> {
    let id = id.to_string();
    let mut select = conn.prepare_cached("SELECT chain, carrier FROM bindings WHERE id = ?1")?;
    let mut rows = select.query([&id])?;
    let Some(row) = rows.next()? else { return Ok(false) };
    let chain = column(row, "chain", |text: String| Chain::parse(&text).ok())?;
    let carrier: String = column(row, "carrier", Some)?;
    // Records only move towards newer keys, or a look-up that probes in that order would miss one on the move.
    let overtaken = flat.chain.outermost() < chain.outermost();
    if chain == flat.chain || overtaken || is_taken(conn, &carrier, &flat.digest)? {
        return Ok(false);
    }
    let sql = "UPDATE bindings SET chain = ?2, digest = ?3, folded = ?4, rev = rev + 1 WHERE id = ?1";
    let digest = &flat.digest;
    conn.prepare_cached(sql)?.execute((id, flat.chain.to_string(), digest.as_bytes(), digest.fold()))?;
    rotations::count_flattened(conn, &chain, &flat.chain)?;
    Ok(true)
}

fn accounts(conn: &Connection, account: Option<&AccountId>) -> Result<Vec<AccountRecord>, StoreError> {
    let account = [account.map(AccountId::as_str)];
    let mut subjects: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let sql = "SELECT account, upstream, subject FROM subjects WHERE ?1 IS NULL OR account = ?1 ORDER BY upstream";
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = select.query(account)?;
    while let Some(row) = rows.next()? {
        subjects.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
    }
    let mut select = conn.prepare_cached(ACCOUNTS)?;
    let records = select.query_and_then(account, |row| {
        let account = column(row, "account", |text: String| AccountId::parse(&text).ok())?;
        Ok(AccountRecord {
            state: account_state(row)?,
            created_at: column(row, "created_at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
            bindings: column(row, "bindings", Some)?,
            has_pin: column(row, "has_pin", Some)?,
            subjects: subjects.remove(account.as_str()).unwrap_or_default(),
            account,
        })
    })?;
    records.collect()
}

fn subject(conn: &Connection, account: &AccountId, upstream: &str) -> Result<Option<String>, StoreError> {
    let mut select = conn.prepare_cached("SELECT subject FROM subjects WHERE account = ?1 AND upstream = ?2")?;
    Ok(select.query_row((account.as_str(), upstream), |row| row.get(0)).optional()?)
}
