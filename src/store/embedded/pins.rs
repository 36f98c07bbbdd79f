//! PINs and the tries at them.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};
use subtle::ConstantTimeEq as _;

use super::connection::column;
use super::{EmbeddedStore, news};
use crate::binding::{AccountId, BindingId};
use crate::clock::Timestamp;
use crate::store::{NewsKind, Over, PinPace, PinRecord, PinStore, PinTries, PinTry, PinVerdict, SERIES, StoreError};

#[async_trait]
impl PinStore for EmbeddedStore {
    async fn pin(&self, account: &AccountId) -> Result<Option<PinRecord>, StoreError> {
        let account = account.clone();
        self.readers.run(move |conn| pin(conn, &account)).await
    }

    async fn pin_wait(&self, binding: BindingId, pace: PinPace, now: Timestamp) -> Result<Duration, StoreError> {
        self.readers.run(move |conn| Ok(pace.wait(tries(conn, binding)?, now))).await
    }

    async fn judge_pin(&self, typed: PinTry, pace: PinPace, now: Timestamp) -> Result<PinVerdict, StoreError> {
        self.writer.run(move |conn| judge(conn, &typed, pace, now)).await
    }

    async fn set_pin(
        &self,
        account: &AccountId,
        pin: PinRecord,
        over: Over,
        binding: BindingId,
    ) -> Result<bool, StoreError> {
        let account = account.clone();
        self.writer.run(move |conn| set(conn, &account, &pin, over, binding)).await
    }

    async fn clear_pin(&self, account: &AccountId, over: Over) -> Result<bool, StoreError> {
        let account = account.clone();
        self.writer
            .run(move |conn| {
                if !holds(over, pin(conn, &account)?.as_ref()) {
                    return Ok(false);
                }
                Ok(conn.prepare_cached("DELETE FROM pins WHERE account = ?1")?.execute([account.as_str()])? > 0)
            })
            .await
    }
}

fn pin(conn: &Connection, account: &AccountId) -> Result<Option<PinRecord>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM pins WHERE account = ?1")?;
    let mut rows = select.query_and_then([account.as_str()], record)?;
    rows.next().transpose()
}

fn record(row: &Row<'_>) -> Result<PinRecord, StoreError> {
    Ok(PinRecord {
        salt: column(row, "salt", Some)?,
        mac: column(row, "mac", Some)?,
        set_at: column(row, "set_at", |millis| Some(Timestamp::from_unix_millis(millis)))?,
    })
}

fn tries(conn: &Connection, binding: BindingId) -> Result<Option<PinTries>, StoreError> {
    let mut select = conn.prepare_cached("SELECT * FROM pin_tries WHERE binding = ?1")?;
    let mut rows = select.query_and_then([binding.to_string()], |row| {
        Ok::<_, StoreError>(PinTries {
            in_a_row: column(row, "in_a_row", Some)?,
            busy_until: column(row, "busy_until", |millis| Some(Timestamp::from_unix_millis(millis)))?,
        })
    })?;
    rows.next().transpose()
}

fn judge(conn: &Connection, typed: &PinTry, pace: PinPace, now: Timestamp) -> Result<PinVerdict, StoreError> {
    let binding = typed.binding.to_string();
    let mut select = conn.prepare_cached("SELECT account FROM bindings WHERE id = ?1")?;
    let account: Option<String> = select.query_row([&binding], |row| row.get(0)).optional()?;
    let account = account.and_then(|account| AccountId::parse(&account).ok());
    let Some(account) = account else { return Ok(PinVerdict::None) };
    let Some(stored) = pin(conn, &account)? else { return Ok(PinVerdict::None) };
    let before = tries(conn, typed.binding)?;
    let wait = pace.wait(before, now);
    if !wait.is_zero() {
        return Ok(PinVerdict::TooOften(wait));
    }
    if stored.salt != typed.salt {
        return Ok(PinVerdict::Changed);
    }
    if bool::from(stored.mac.ct_eq(&typed.mac)) {
        forget_tries(conn, typed.binding)?;
        return Ok(PinVerdict::Right);
    }
    let PinTries { in_a_row, busy_until } = pace.after(before, now);
    conn.prepare_cached(
        "INSERT INTO pin_tries (binding, in_a_row, busy_until) VALUES (?1, ?2, ?3) \
         ON CONFLICT (binding) DO UPDATE SET in_a_row = ?2, busy_until = ?3",
    )?
    .execute((&binding, in_a_row, busy_until.unix_millis()))?;
    if in_a_row.is_multiple_of(SERIES) {
        news::tell_all(conn, &account, NewsKind::WrongPins, Some(typed.binding), now.day())?;
    }
    Ok(PinVerdict::Wrong { in_a_row })
}

fn set(
    conn: &Connection,
    account: &AccountId,
    new: &PinRecord,
    over: Over,
    binding: BindingId,
) -> Result<bool, StoreError> {
    if !holds(over, pin(conn, account)?.as_ref()) {
        return Ok(false);
    }
    // A PIN needs its account, and the keys their scheme.
    let set = conn
        .prepare_cached(
            "INSERT INTO pins (account, scheme, salt, mac, set_at) \
             SELECT account, (SELECT id FROM schemes ORDER BY rowid LIMIT 1), ?2, ?3, ?4 FROM accounts WHERE account = ?1 \
             ON CONFLICT (account) DO UPDATE SET scheme = excluded.scheme, salt = ?2, mac = ?3, set_at = ?4",
        )?
        .execute((account.as_str(), new.salt, new.mac, new.set_at.unix_millis()))?;
    forget_tries(conn, binding)?;
    Ok(set > 0)
}

fn holds(over: Over, there: Option<&PinRecord>) -> bool {
    match over {
        Over::Nothing => there.is_none(),
        Over::Of(salt) => there.is_some_and(|pin| pin.salt == salt),
        Over::Anything => true,
    }
}

fn forget_tries(conn: &Connection, binding: BindingId) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM pin_tries WHERE binding = ?1")?.execute([binding.to_string()])?;
    Ok(())
}
