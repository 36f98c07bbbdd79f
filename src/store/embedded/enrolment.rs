//! One-time codes, and the one critical section in which a handset is bound.

use rusqlite::Connection;
use subtle::{Choice, ConstantTimeEq as _};

use super::bindings::{account_state, create_account, first_hit, flatten, generation, insert, note_use};
use super::connection::column;
use super::news;
use crate::binding::{AccountId, AccountState};
use crate::clock::Timestamp;
use crate::store::{
    BindingRecord, CodeIssuer, CodeLimits, EnrolOutcome, Enrolment, EnrolmentAuthority, IssueOutcome, NewCode,
    NewsKind, Probe, SERIES, StoreError,
};

/// Binds the handset, or says why not. Runs in one transaction of the only writer, so nothing comes in between.
pub(super) fn enrol(conn: &Connection, enrolment: &Enrolment, now: Timestamp) -> Result<EnrolOutcome, StoreError> {
    if generation(conn)? != enrolment.generation {
        return Ok(EnrolOutcome::Stale);
    }
    let digests = enrolment.probes.iter().map(|probe| &probe.digest);
    let bound = first_hit(conn, &enrolment.carrier, digests)?.map(|hit| hit.binding);
    let entitled = match &enrolment.authority {
        EnrolmentAuthority::Code { selector, macs, handset_tag } => {
            match try_code(conn, selector, macs, handset_tag, now)? {
                Some(entitled) => entitled,
                None => return Ok(EnrolOutcome::CodeInvalid),
            }
        }
        EnrolmentAuthority::Console { account } => named(conn, account)?,
    };
    if entitled.state == AccountState::Suspended {
        return Ok(EnrolOutcome::Suspended);
    }
    match bound {
        Some(binding) if binding.account != entitled.account => Ok(EnrolOutcome::BindingLimit),
        Some(binding) => {
            spend(conn, &enrolment.authority)?;
            Ok(EnrolOutcome::AlreadyBound(use_today(conn, enrolment, binding, now)?, entitled.issuer))
        }
        None if entitled.bindings >= enrolment.per_account => Ok(EnrolOutcome::BindingLimit),
        None => {
            spend(conn, &enrolment.authority)?;
            create_account(conn, &entitled.account, now)?;
            Ok(EnrolOutcome::Bound(bind(conn, enrolment, &entitled.account, now)?, entitled.issuer))
        }
    }
}

/// Keeps a code. The account comes to be if there is none; its older code ends.
pub(super) fn issue_code(conn: &Connection, code: &NewCode) -> Result<IssueOutcome, StoreError> {
    if let Some(handset) = code.asked_by {
        let own =
            "SELECT 1 FROM bindings JOIN accounts USING (account) WHERE id = ?1 AND account = ?2 AND state = 'active'";
        if !conn.prepare_cached(own)?.exists((handset.to_string(), code.account.as_str()))? {
            return Ok(IssueOutcome::NotEntitled);
        }
    }
    let taken = "SELECT 1 FROM codes WHERE selector = ?1 AND account <> ?2 AND expires_at >= ?3 AND wrong_tries < ?4";
    let (account, issued_at) = (code.account.as_str(), code.issued_at.unix_millis());
    if conn.prepare_cached(taken)?.exists((&code.selector, account, issued_at, CodeLimits::IN_ALL))? {
        return Ok(IssueOutcome::SelectorTaken);
    }
    erase_dead_codes(conn, code.issued_at)?;
    conn.prepare_cached("DELETE FROM codes WHERE account = ?1")?.execute([account])?;
    create_account(conn, &code.account, code.issued_at)?;
    conn.prepare_cached(
        "INSERT INTO codes (selector, account, mac, key, issuer, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        &code.selector,
        account,
        code.mac,
        &code.key,
        code.issuer().as_str(),
        issued_at,
        code.expires_at.unix_millis(),
    ))?;
    Ok(IssueOutcome::Issued)
}

/// How many codes could still be typed at `now`.
pub(super) fn live_codes(conn: &Connection, now: Timestamp) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) AS live FROM codes WHERE expires_at >= ?1 AND wrong_tries < ?2";
    let mut select = conn.prepare_cached(sql)?;
    select.query_row((now.unix_millis(), CodeLimits::IN_ALL), |row| {
        Ok(column(row, "live", |count: i64| u64::try_from(count).ok()))
    })?
}

/// Erases codes that are past their end at `now` or out of tries, and the tries with them.
pub(super) fn erase_dead_codes(conn: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let sql = "DELETE FROM codes WHERE expires_at < ?1 OR wrong_tries >= ?2";
    conn.prepare_cached(sql)?.execute((now.unix_millis(), CodeLimits::IN_ALL))?;
    Ok(())
}

/// The account that the authority is for.
struct Entitled {
    account: AccountId,
    state: AccountState,
    bindings: u32,
    /// Of its code.
    issuer: Option<CodeIssuer>,
}

/// The account of that name; one that is not there yet is active and has nothing.
fn named(conn: &Connection, account: &AccountId) -> Result<Entitled, StoreError> {
    let mut select = conn.prepare_cached(
        "SELECT state, (SELECT count(*) FROM bindings b WHERE b.account = a.account) AS bindings \
         FROM accounts a WHERE account = ?1",
    )?;
    let mut rows = select.query([account.as_str()])?;
    let (state, bindings) = match rows.next()? {
        Some(row) => (account_state(row)?, column(row, "bindings", Some)?),
        None => (AccountState::Active, 0),
    };
    Ok(Entitled { account: account.clone(), state, bindings, issuer: None })
}

/// Compares what was typed with the code that the selector names. A wrong try is counted, in the same transaction.
fn try_code(
    conn: &Connection,
    selector: &str,
    macs: &[(String, [u8; 32])],
    handset_tag: &[u8; 16],
    now: Timestamp,
) -> Result<Option<Entitled>, StoreError> {
    let mut select = conn.prepare_cached(
        "SELECT c.account, c.mac, c.key, c.issuer, a.state, \
         (SELECT count(*) FROM bindings b WHERE b.account = c.account) AS bindings \
         FROM codes c JOIN accounts a USING (account) LEFT JOIN code_tries t ON t.selector = c.selector AND t.handset_tag = ?2 \
         WHERE c.selector = ?1 AND c.expires_at >= ?3 AND c.wrong_tries < ?4 AND coalesce(t.wrong_tries, 0) < ?5",
    )?;
    let mut rows =
        select.query((selector, handset_tag, now.unix_millis(), CodeLimits::IN_ALL, CodeLimits::PER_HANDSET))?;
    let Some(row) = rows.next()? else {
        // No code, a dead one, or a handset that is out of tries: the same comparisons, the same kind of write.
        matches(macs, "", &[0; 32]);
        conn.prepare_cached("UPDATE meta SET stray_tries = stray_tries + 1")?.execute([])?;
        return Ok(None);
    };
    let key: String = column(row, "key", Some)?;
    if matches(macs, &key, &column(row, "mac", Some)?) {
        return Ok(Some(Entitled {
            account: column(row, "account", |text: String| AccountId::parse(&text).ok())?,
            state: account_state(row)?,
            bindings: column(row, "bindings", Some)?,
            issuer: Some(column(row, "issuer", |word: String| issuer(&word))?),
        }));
    }
    let account = column(row, "account", |text: String| AccountId::parse(&text).ok())?;
    let mut count = conn
        .prepare_cached("UPDATE codes SET wrong_tries = wrong_tries + 1 WHERE selector = ?1 RETURNING wrong_tries")?;
    let wrong_tries: u32 = count.query_row([selector], |row| row.get(0))?;
    if wrong_tries.is_multiple_of(SERIES) {
        news::tell_all(conn, &account, NewsKind::WrongCodes, None, now.day())?;
    }
    conn.prepare_cached(
        "INSERT INTO code_tries (selector, handset_tag, wrong_tries) VALUES (?1, ?2, 1) \
         ON CONFLICT (selector, handset_tag) DO UPDATE SET wrong_tries = wrong_tries + 1",
    )?
    .execute((selector, handset_tag))?;
    Ok(None)
}

fn issuer(word: &str) -> Option<CodeIssuer> {
    [CodeIssuer::Operator, CodeIssuer::Person].into_iter().find(|issuer| issuer.as_str() == word)
}

/// Whether the hash under the key that made the stored one equals it; all are compared, in constant time.
fn matches(typed: &[(String, [u8; 32])], key: &str, stored: &[u8; 32]) -> bool {
    let right = |(id, mac): &(String, [u8; 32])| mac.ct_eq(stored) & Choice::from(u8::from(id == key));
    typed.iter().map(right).fold(Choice::from(0), |any, one| any | one).into()
}

fn spend(conn: &Connection, authority: &EnrolmentAuthority) -> Result<(), StoreError> {
    if let EnrolmentAuthority::Code { selector, .. } = authority {
        conn.prepare_cached("DELETE FROM codes WHERE selector = ?1")?.execute([selector])?;
    }
    Ok(())
}

fn bind(
    conn: &Connection,
    enrolment: &Enrolment,
    account: &AccountId,
    now: Timestamp,
) -> Result<BindingRecord, StoreError> {
    let today = now.day();
    let record = BindingRecord {
        id: enrolment.id,
        account: account.clone(),
        carrier: enrolment.carrier.clone(),
        chain: enrolment.chain.clone(),
        bound_on: today,
        last_used_on: today,
    };
    insert(conn, &record, &enrolment.digest, true)?;
    news::tell_others(conn, account, record.id, today)?;
    Ok(record)
}

/// A use as a sign-in is one: it flattens the record too.
fn use_today(
    conn: &Connection,
    enrolment: &Enrolment,
    mut binding: BindingRecord,
    now: Timestamp,
) -> Result<BindingRecord, StoreError> {
    let flat = Probe { chain: enrolment.chain.clone(), digest: enrolment.digest.clone() };
    if flatten(conn, binding.id, &flat)? {
        binding.chain = flat.chain;
    }
    binding.last_used_on = binding.last_used_on.max(now.day());
    note_use(conn, binding.id, binding.last_used_on)?;
    Ok(binding)
}
