//! Bindings that the operator brings along from another system, many in one transaction.

use rusqlite::Connection;

use super::bindings::{account_state, create_account, first_hit, generation, insert};
use super::connection::column;
use crate::binding::{AccountId, AccountState};
use crate::clock::Timestamp;
use crate::store::{BindingRecord, ImportOutcome, ImportedBinding, StoreError};

/// Binds each in order. Runs in one transaction of the only writer, so nothing comes in between.
pub(super) fn import(
    conn: &Connection,
    bindings: &[ImportedBinding],
    per_account: u32,
    now: Timestamp,
) -> Result<Vec<ImportOutcome>, StoreError> {
    let generation = generation(conn)?;
    let one = |binding: &ImportedBinding| {
        if binding.generation == generation {
            import_one(conn, binding, per_account, now)
        } else {
            Ok(ImportOutcome::Stale)
        }
    };
    bindings.iter().map(one).collect()
}

fn import_one(
    conn: &Connection,
    binding: &ImportedBinding,
    per_account: u32,
    now: Timestamp,
) -> Result<ImportOutcome, StoreError> {
    let digests = binding.probes.iter().map(|probe| &probe.digest);
    if let Some(hit) = first_hit(conn, &binding.carrier, digests)? {
        let own = hit.binding.account == binding.account;
        return Ok(if own { ImportOutcome::AlreadyBound } else { ImportOutcome::BoundElsewhere });
    }
    match account(conn, &binding.account)? {
        Some((AccountState::Suspended, _)) => return Ok(ImportOutcome::Suspended),
        Some((AccountState::Active, bound)) if bound >= per_account => return Ok(ImportOutcome::BindingLimit),
        Some((AccountState::Active, _)) => {}
        None => create_account(conn, &binding.account, now)?,
    }
    let today = now.day();
    let record = BindingRecord {
        id: binding.id,
        account: binding.account.clone(),
        carrier: binding.carrier.clone(),
        chain: binding.chain.clone(),
        bound_on: today,
        last_used_on: today,
    };
    insert(conn, &record, &binding.digest, false)?;
    Ok(ImportOutcome::Bound)
}

/// Whether the account may sign in, and how many bindings it has.
fn account(conn: &Connection, account: &AccountId) -> Result<Option<(AccountState, u32)>, StoreError> {
    let mut select = conn.prepare_cached(
        "SELECT state, (SELECT count(*) FROM bindings b WHERE b.account = a.account) AS bindings \
         FROM accounts a WHERE account = ?1",
    )?;
    let mut rows = select.query([account.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((account_state(row)?, column(row, "bindings", Some)?)))
}
