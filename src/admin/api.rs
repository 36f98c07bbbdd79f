//! The admin API's routes: one handler a verb, each a few calls of the stages.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Json, Router, middleware};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Operator;
use super::body::{Asked, NoFields};
use super::documents::{
    Account, Accounts, Binding, Bindings, IssuedCode, Refusal, RefusalDetail, Revoked, Session, Sessions,
};
use super::operations::Operations;
use super::query::{Taken, known_only};
use super::refused::Refused;
use super::replay::{Answers, once};
use super::{
    approvals, audit, backups, drills, import, keys, log, logs, notices, pins, policy, posture, process, receipts,
    rotations, statistics, status, subjects,
};
use crate::audit::{Action, Effect, Event};
use crate::binding::{self, AccountId, AccountIdError, AccountState, BindingId};
use crate::config::ClientAddressDetail;
use crate::session::SessionId;
use crate::store::{AccountRecord, SessionScope};
use crate::telemetry::{Actor, SecurityEvent, security};

pub(super) type Answer<T> = Result<Json<T>, Refused>;
/// An id as it stands in the path; what cannot be decoded is no id.
pub(super) type Id = Result<Path<String>, PathRejection>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sekisho admin API",
        description = "Over the gateway's UNIX socket, or TLS with a client certificate. Every verb needs a role of the \
                       caller's uid or gid, or of the certificate's name. A call that \
                       changes something takes an Idempotency-Key: the same key and request of the same caller, within \
                       ten minutes and one run of the gateway, get the first answer again. A verb without a request body takes none, or {}; any other is refused. \
                       Refusals never repeat input."
    ),
    components(schemas(Refusal, RefusalDetail))
)]
struct Description;

/// The API over `operations`. Each request must carry the [`Peer`](super::Peer) of its connection as an extension.
pub fn router(operations: Operations) -> Router {
    let answers = Arc::new(Answers::new(Arc::clone(&operations.clock)));
    let (routes, description) = verbs(answers);
    routes
        .layer(middleware::from_fn_with_state(Arc::new(Taken::of(&description)), known_only))
        .with_state(operations)
        .route("/openapi.json", axum::routing::get(async move || Json(description.clone())))
        .fallback(async || Refused::NoSuchPath)
        .method_not_allowed_fallback(async || Refused::MethodNotAllowed)
}

fn verbs(answers: Arc<Answers>) -> (Router<Operations>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(issue_code))
        .routes(routes!(accounts))
        .routes(routes!(account))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(pins::clear))
        .routes(routes!(bindings))
        .routes(routes!(account_bindings))
        .routes(routes!(revoke_binding))
        .routes(routes!(sessions))
        .routes(routes!(account_sessions, end_account_sessions))
        .routes(routes!(end_session))
        .routes(routes!(rotations::list, rotations::start))
        .routes(routes!(rotations::status))
        .routes(routes!(rotations::pause))
        .routes(routes!(rotations::resume))
        .routes(routes!(rotations::abort))
        .routes(routes!(rotations::rescan))
        .routes(routes!(rotations::chains))
        .merge(keys::verbs())
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::answer))
        .routes(routes!(audit::entries))
        .routes(routes!(audit::export))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::pseudonym))
        .routes(routes!(receipts::receipt))
        .routes(routes!(process::reload))
        .routes(routes!(status::status))
        .routes(routes!(log::show, log::choose, log::reset))
        .merge(subjects::verbs())
        .routes(routes!(statistics::stats))
        .routes(routes!(policy::show))
        .routes(routes!(notices::history))
        .routes(routes!(notices::one))
        .routes(routes!(posture::show))
        .routes(routes!(policy::report))
        .routes(routes!(policy::run))
        .routes(routes!(backups::show, backups::destroy))
        .layer(middleware::from_fn_with_state(answers, once))
        // Not remembered under an Idempotency-Key: the lines are no part of what a key stands for, and the answer is a
        // stream. It may be asked again as it is.
        .routes(routes!(import::import))
        .routes(routes!(logs::read))
        // Changes nothing, and its answer is a stream.
        .routes(routes!(drills::compromise))
        // The answer is a file, which no memory keeps.
        .routes(routes!(backups::list, backups::take))
        .split_for_parts()
}

/// Issues an enrolment code, and creates the account if there is none.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/codes", params(("account" = String, Path)),
    responses((status = 200, body = IssuedCode), Refused)
)]
async fn issue_code(
    Operator(by): Operator,
    State(ops): State<Operations>,
    account: Id,
    _: Asked<NoFields>,
) -> Answer<IssuedCode> {
    let account = account_id(account)?;
    let now = ops.clock.now();
    let session = ops.keys.session().map_err(|_| Refused::KeySuspended)?;
    let deed = Event::new(Action::CodeIssue, by).account(&account);
    let work = async {
        let issued = binding::issue_code(&*ops.bindings, &session, account.clone(), None, &*ops.entropy, now).await?;
        let issued = issued.ok_or(Refused::Internal)?;
        ops.metrics.code_issued();
        report(&SecurityEvent::CodeIssued { account: &account, by });
        Ok::<_, Refused>((issued, Effect::none()))
    };
    let (code, expires_at) = ops.audit.act(deed, &*ops.clock, work).await?;
    let (account, code) = (account.to_string(), code.expose_grouped());
    Ok(Json(IssuedCode { account, code, expires_at: expires_at.rfc3339() }))
}

/// All accounts, by id.
#[utoipa::path(get, path = "/v1/accounts", responses((status = 200, body = Accounts), Refused))]
async fn accounts(_: Operator, State(ops): State<Operations>) -> Answer<Accounts> {
    let now = ops.clock.now();
    let records = ops.bindings.accounts().await?;
    let document = |record: &AccountRecord| Account::of(record, ops.sessions.list(Some(&record.account), now).len());
    Ok(Json(Accounts { accounts: records.iter().map(document).collect() }))
}

/// One account.
#[utoipa::path(
    get, path = "/v1/accounts/{account}", params(("account" = String, Path)),
    responses((status = 200, body = Account), Refused)
)]
async fn account(_: Operator, State(ops): State<Operations>, account: Id) -> Answer<Account> {
    show(&ops, &account_id(account)?).await
}

/// Keeps the account out and ends its sessions; nothing is erased.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/suspend", params(("account" = String, Path)),
    responses((status = 200, body = Account), Refused)
)]
async fn suspend(
    Operator(by): Operator,
    State(ops): State<Operations>,
    account: Id,
    _: Asked<NoFields>,
) -> Answer<Account> {
    let account = account_id(account)?;
    existing(&ops, &account).await?;
    let work = async {
        // The state first: a sign-in that runs meanwhile finds it when it asks whether its binding still stands.
        if !ops.bindings.set_account_state(&account, AccountState::Suspended).await? {
            return Err(Refused::NotFound);
        }
        report(&SecurityEvent::AccountSuspended { account: &account, by });
        let ended = end_sessions(&ops, SessionScope::Account(account.clone()), Some(&account), by).await?;
        Ok(((), Effect::change(ended, 0)))
    };
    ops.audit.act(Event::new(Action::AccountSuspend, by).account(&account), &*ops.clock, work).await?;
    show(&ops, &account).await
}

/// Lets the account in again.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/resume", params(("account" = String, Path)),
    responses((status = 200, body = Account), Refused)
)]
async fn resume(
    Operator(by): Operator,
    State(ops): State<Operations>,
    account: Id,
    _: Asked<NoFields>,
) -> Answer<Account> {
    let account = account_id(account)?;
    existing(&ops, &account).await?;
    let work = async {
        if !ops.bindings.set_account_state(&account, AccountState::Active).await? {
            return Err(Refused::NotFound);
        }
        report(&SecurityEvent::AccountResumed { account: &account, by });
        Ok(((), Effect::none()))
    };
    ops.audit.act(Event::new(Action::AccountResume, by).account(&account), &*ops.clock, work).await?;
    show(&ops, &account).await
}

/// All bindings, oldest first.
#[utoipa::path(get, path = "/v1/bindings", responses((status = 200, body = Bindings), Refused))]
async fn bindings(_: Operator, State(ops): State<Operations>) -> Answer<Bindings> {
    let records = ops.bindings.bindings(None).await?;
    Ok(Json(Bindings { bindings: records.iter().map(Binding::from).collect() }))
}

/// The bindings of one account, oldest first.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/bindings", params(("account" = String, Path)),
    responses((status = 200, body = Bindings), Refused)
)]
async fn account_bindings(_: Operator, State(ops): State<Operations>, account: Id) -> Answer<Bindings> {
    let account = account_id(account)?;
    existing(&ops, &account).await?;
    let records = ops.bindings.bindings(Some(&account)).await?;
    Ok(Json(Bindings { bindings: records.iter().map(Binding::from).collect() }))
}

/// Erases a binding and ends its sessions.
#[utoipa::path(
    delete, path = "/v1/bindings/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Revoked), Refused)
)]
async fn revoke_binding(
    Operator(by): Operator,
    State(ops): State<Operations>,
    id: Id,
    _: Asked<NoFields>,
) -> Answer<Revoked> {
    let id = id.ok().and_then(|Path(id)| BindingId::parse(&id)).ok_or(Refused::NotFound)?;
    let there = ops.bindings.binding(id).await?;
    // Whose it is; an earlier call may have erased the binding and failed at its sessions.
    let open = || ops.sessions.find(ops.clock.now(), |session| session.facts().binding == id);
    let account = there.map(|record| record.account).or_else(|| open().map(|session| session.facts().account.clone()));
    let account = account.ok_or(Refused::NotFound)?;
    let work = async {
        // The binding first: a sign-in that runs meanwhile finds it gone when it asks whether it still stands.
        let erased = ops.bindings.revoke(id).await?;
        if erased.is_none() && ops.bindings.binding(id).await?.is_some() {
            return Err(Refused::SubjectHeld);
        }
        ops.backups.bury().await?;
        if let Some(record) = &erased {
            report(&SecurityEvent::BindingRemoved { account: &record.account, carrier: &record.carrier, by });
        }
        let ended = end_sessions(&ops, SessionScope::Binding(id), Some(&account), by).await?;
        if erased.is_none() && ended == 0 {
            return Err(Refused::NotFound);
        }
        Ok(((), Effect::of(u64::from(erased.is_some()))))
    };
    let deed = Event::new(Action::BindingRevoke, by).account(&account).object(id);
    ops.audit.act(deed, &*ops.clock, work).await?;
    Ok(Json(Revoked { revoked: 1 }))
}

/// All open sessions, oldest first.
#[utoipa::path(get, path = "/v1/sessions", responses((status = 200, body = Sessions), Refused))]
async fn sessions(_: Operator, State(ops): State<Operations>) -> Answer<Sessions> {
    Ok(Json(list_sessions(&ops, None)))
}

/// The open sessions of one account, oldest first.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/sessions", params(("account" = String, Path)),
    responses((status = 200, body = Sessions), Refused)
)]
async fn account_sessions(_: Operator, State(ops): State<Operations>, account: Id) -> Answer<Sessions> {
    let account = account_id(account)?;
    existing(&ops, &account).await?;
    Ok(Json(list_sessions(&ops, Some(&account))))
}

/// Ends the sessions of one account.
#[utoipa::path(
    delete, path = "/v1/accounts/{account}/sessions", params(("account" = String, Path)),
    responses((status = 200, body = Revoked), Refused)
)]
async fn end_account_sessions(
    Operator(by): Operator,
    State(ops): State<Operations>,
    account: Id,
    _: Asked<NoFields>,
) -> Answer<Revoked> {
    let account = account_id(account)?;
    if list_sessions(&ops, Some(&account)).sessions.is_empty() {
        existing(&ops, &account).await?;
    }
    let work = async {
        let revoked = end_sessions(&ops, SessionScope::Account(account.clone()), Some(&account), by).await?;
        Ok::<_, Refused>((revoked, Effect::change(revoked, 0)))
    };
    let deed = Event::new(Action::SessionsEnd, by).account(&account);
    let revoked = ops.audit.act(deed, &*ops.clock, work).await?;
    Ok(Json(Revoked { revoked }))
}

/// Ends one session.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Revoked), Refused)
)]
async fn end_session(
    Operator(by): Operator,
    State(ops): State<Operations>,
    id: Id,
    _: Asked<NoFields>,
) -> Answer<Revoked> {
    let id = id.ok().and_then(|Path(id)| SessionId::parse(&id)).ok_or(Refused::NotFound)?;
    let found = ops.sessions.find(ops.clock.now(), |session| session.facts().id == id);
    let account = found.ok_or(Refused::NotFound)?.facts().account.clone();
    let work = async {
        match end_sessions(&ops, SessionScope::Id(account.clone(), id), None, by).await? {
            0 => Err(Refused::NotFound),
            revoked => Ok((revoked, Effect::change(revoked, 0))),
        }
    };
    let deed = Event::new(Action::SessionsEnd, by).account(&account).object(id);
    let revoked = ops.audit.act(deed, &*ops.clock, work).await?;
    Ok(Json(Revoked { revoked }))
}

pub(super) fn account_id(id: Id) -> Result<AccountId, Refused> {
    let Path(text) = id.map_err(|_| AccountIdError::Syntax)?;
    Ok(AccountId::parse(&text)?)
}

pub(super) async fn existing(ops: &Operations, account: &AccountId) -> Result<AccountRecord, Refused> {
    ops.bindings.account(account).await?.ok_or(Refused::NotFound)
}

pub(super) async fn show(ops: &Operations, account: &AccountId) -> Answer<Account> {
    let record = existing(ops, account).await?;
    let open = ops.sessions.list(Some(account), ops.clock.now()).len();
    Ok(Json(Account::of(&record, open)))
}

fn list_sessions(ops: &Operations, account: Option<&AccountId>) -> Sessions {
    let open = ops.sessions.list(account, ops.clock.now());
    Sessions { sessions: open.iter().map(|session| Session::of(session)).collect() }
}

pub(super) async fn end_sessions(
    ops: &Operations,
    scope: SessionScope,
    account: Option<&AccountId>,
    by: Actor,
) -> Result<usize, Refused> {
    let count = ops.sessions.end(scope).await?;
    if count > 0 {
        report(&SecurityEvent::SessionsEnded { account, count, by });
    }
    Ok(count)
}

/// Who called is known by name, so an address adds nothing.
pub(super) fn report(event: &SecurityEvent<'_>) {
    security(event, None, ClientAddressDetail::None);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn every_verb_of_the_contract_is_described() {
        let (_, description) = verbs(Arc::new(Answers::new(Arc::new(SystemClock::default()))));
        let described: BTreeSet<String> = serde_json::to_value(&description).unwrap()["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
            .collect();
        let expected = [
            "delete /v1/accounts/{account}/pin",
            "delete /v1/accounts/{account}/sessions",
            "delete /v1/backups/{id}",
            "delete /v1/bindings/{id}",
            "delete /v1/keys/{id}",
            "delete /v1/log",
            "delete /v1/sessions/{id}",
            "delete /v1/subjects/{account}",
            "get /v1/accounts",
            "get /v1/accounts/{account}",
            "get /v1/accounts/{account}/bindings",
            "get /v1/accounts/{account}/sessions",
            "get /v1/approvals",
            "get /v1/audit",
            "get /v1/audit/export",
            "get /v1/audit/pseudonyms/{account}",
            "get /v1/audit/verify",
            "get /v1/backups",
            "get /v1/backups/{id}",
            "get /v1/bindings",
            "get /v1/bindings/stats",
            "get /v1/erasures",
            "get /v1/keys",
            "get /v1/keys/{id}",
            "get /v1/keys/{id}/public",
            "get /v1/log",
            "get /v1/policy",
            "get /v1/policy/history",
            "get /v1/policy/history/{id}",
            "get /v1/posture",
            "get /v1/retention",
            "get /v1/rotations",
            "get /v1/rotations/{id}",
            "get /v1/rotations/{id}/receipt",
            "get /v1/sessions",
            "get /v1/stats",
            "get /v1/status",
            "get /v1/subjects/{account}/export",
            "post /v1/accounts/{account}/codes",
            "post /v1/accounts/{account}/resume",
            "post /v1/accounts/{account}/suspend",
            "post /v1/approvals/{id}",
            "post /v1/backups",
            "post /v1/bindings/import",
            "post /v1/drills/compromise",
            "post /v1/keys",
            "post /v1/keys/rewrap",
            "post /v1/keys/{id}/activate",
            "post /v1/keys/{id}/compromise",
            "post /v1/keys/{id}/resume",
            "post /v1/keys/{id}/suspend",
            "post /v1/logs/read",
            "post /v1/reload",
            "post /v1/retention/run",
            "post /v1/rotations",
            "post /v1/rotations/{id}/abort",
            "post /v1/rotations/{id}/pause",
            "post /v1/rotations/{id}/rescan",
            "post /v1/rotations/{id}/resume",
            "post /v1/subjects/{account}/hold",
            "post /v1/subjects/{account}/release",
            "post /v1/subjects/{account}/resume",
            "post /v1/subjects/{account}/stop",
            "put /v1/log",
            "put /v1/subjects/{account}/bindings/{id}/label",
        ];
        assert_eq!(described, expected.map(str::to_owned).into());
    }

    #[test]
    fn an_account_id_that_is_refused_is_not_repeated() {
        for text in ["09012345678", "a b", ""] {
            let refused = account_id(Ok(Path(text.to_owned()))).unwrap_err().document();
            assert_eq!(refused.error.reason, "account-invalid");
            assert!(text.is_empty() || !refused.error.message.contains(text));
        }
    }
}
