//! `DELETE /v1/accounts/{account}/pin`: for a person who has forgotten it and cannot type a code.

use axum::extract::State;

use super::access::Operator;
use super::api::{Answer, Id, account_id, existing, report, show};
use super::body::{Asked, NoFields};
use super::documents::Account;
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Effect, Event};
use crate::store::Over;
use crate::telemetry::SecurityEvent;

/// Takes the account's PIN away, and ends the sessions in which it was typed. Whoever holds one of the handsets may set
/// the next one.
#[utoipa::path(
    delete, path = "/v1/accounts/{account}/pin", params(("account" = String, Path)),
    responses((status = 200, body = Account), Refused)
)]
pub(super) async fn clear(
    Operator(by): Operator,
    State(ops): State<Operations>,
    account: Id,
    _: Asked<NoFields>,
) -> Answer<Account> {
    let account = account_id(account)?;
    if !existing(&ops, &account).await?.has_pin {
        return show(&ops, &account).await;
    }
    let work = async {
        let cleared = ops.pins.clear_pin(&account, Over::Anything).await?;
        if cleared {
            report(&SecurityEvent::PinRemoved { account: &account, by });
        }
        let stepped_up = ops.sessions.list(Some(&account), ops.clock.now());
        for session in stepped_up.iter().filter(|session| session.pin_at().is_some()) {
            ops.sessions.end_one(session.facts().token_hash).await?;
        }
        Ok::<_, Refused>(((), Effect::of(u64::from(cleared))))
    };
    ops.audit.act(Event::new(Action::PinRemove, by).account(&account), &*ops.clock, work).await?;
    show(&ops, &account).await
}
