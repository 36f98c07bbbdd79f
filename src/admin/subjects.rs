//! `subject export | erase | correct | stop | resume | hold | release | erasures`: the privacy officer's work.

use axum::Json;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Privacy;
use super::api::{Answer, Id, account_id, end_sessions, existing, report, show};
use super::approvals::{self, About, Approved, Decision, Grant, Reason};
use super::body::{Asked, NoFields};
use super::documents::{Account, Binding};
use super::operations::Operations;
use super::policy::tongue;
use super::refused::Refused;
use super::subject_documents::{
    ErasedCounts, ErasedSubject, Erasure, Erasures, ExportedSubject, Held, LabelledHandset, ShownHold,
};
use crate::audit::{Action, Effect, Event};
use crate::binding::{AccountId, AccountIdError, AccountState, BindingId, Label};
use crate::store::{ApprovedAction, HoldOutcome, HoldRecord, SessionScope};
use crate::telemetry::{Actor, SecurityEvent};

/// Erasures of one answer.
const MOST: u32 = 1000;

pub(super) fn verbs() -> OpenApiRouter<Operations> {
    OpenApiRouter::new()
        .routes(routes!(export))
        .routes(routes!(erase))
        .routes(routes!(correct))
        .routes(routes!(stop))
        .routes(routes!(resume))
        .routes(routes!(hold))
        .routes(routes!(release))
        .routes(routes!(erasures))
}

/// Everything that is kept of the account, with the purpose and the retention of each item; digests are left out. That
/// somebody asked stands in the audit trail.
#[utoipa::path(
    get, path = "/v1/subjects/{account}/export",
    params(
        ("account" = String, Path),
        ("lang" = Option<String>, Query, description = "`en` or `ja`; `en` if unsaid", pattern = "^(en|ja)$"),
    ),
    responses((status = 200, body = ExportedSubject), Refused)
)]
async fn export(
    Privacy(by): Privacy,
    State(ops): State<Operations>,
    account: Id,
    RawQuery(query): RawQuery,
) -> Answer<ExportedSubject> {
    let account = account_id(account)?;
    let document = ops.promises.subjects.export(&account, tongue(query.as_deref())?, by).await?;
    Ok(Json(ExportedSubject::of(document)))
}

/// Why somebody wants something; not for secrets or anybody's personal data.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Why {
    /// One line of 256 characters at most.
    reason: Option<String>,
}

/// Erases the account and all that is its own, at once and for good: handsets, sessions, codes, the ids that consoles know
/// it by, the key of its pseudonym. Open connections close.
#[utoipa::path(
    delete, path = "/v1/subjects/{account}", params(("account" = String, Path)),
    responses((status = 200, body = ErasedSubject), Refused)
)]
async fn erase(
    Privacy(by): Privacy,
    State(ops): State<Operations>,
    account: Id,
    _: Asked<NoFields>,
) -> Answer<ErasedSubject> {
    let account = account_id(account)?;
    let erased = ops.promises.subjects.erase(&account, by).await?;
    report(&SecurityEvent::SubjectErased { by });
    Ok(Json(ErasedSubject {
        erased: ErasedCounts { bindings: erased.bindings, sessions: erased.sessions, codes: erased.codes },
        certificate: erased.certificate,
    }))
}

/// What a handset is to be called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLabel {
    /// 1 to 20 visible characters, four digits at most; null for none.
    label: Option<String>,
}

/// What is no text is no account, or no binding.
fn no_path(rejection: &PathRejection) -> Refused {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else { return Refused::NotFound };
    if matches!(failed.kind(), ErrorKind::InvalidUtf8InPathParam { key } if key == "account") {
        return AccountIdError::Syntax.into();
    }
    Refused::NotFound
}

/// Gives a handset of the account a label, or none.
#[utoipa::path(
    put, path = "/v1/subjects/{account}/bindings/{id}/label", params(("account" = String, Path), ("id" = String, Path)),
    request_body = NewLabel, responses((status = 200, body = LabelledHandset), Refused)
)]
async fn correct(
    Privacy(by): Privacy,
    State(ops): State<Operations>,
    path: Result<Path<(String, String)>, PathRejection>,
    Asked(asked): Asked<NewLabel>,
) -> Answer<LabelledHandset> {
    let Path((account, id)) = path.map_err(|rejection| no_path(&rejection))?;
    let account = AccountId::parse(&account)?;
    let id = BindingId::parse(&id).ok_or(Refused::NotFound)?;
    let label = asked.label.map(|text| Label::parse(&text)).transpose()?;
    let bindings = ops.bindings.bindings(Some(&account)).await?;
    let record = bindings.into_iter().find(|binding| binding.id == id).ok_or(Refused::NotFound)?;
    let shown = label.as_ref().map(ToString::to_string);
    let work = async {
        if ops.promises.subjects.store.set_label(&account, id, label).await? {
            Ok(((), Effect::none()))
        } else {
            Err(Refused::NotFound)
        }
    };
    let deed = Event::new(Action::SubjectCorrect, by).account(&account).object(id);
    ops.audit.act(deed, &*ops.clock, work).await?;
    Ok(Json(LabelledHandset { binding: Binding::from(&record), label: shown }))
}

/// Keeps the account out because its person asked for that, and ends its sessions; nothing is erased.
#[utoipa::path(
    post, path = "/v1/subjects/{account}/stop", params(("account" = String, Path)),
    responses((status = 200, body = Account), Refused)
)]
async fn stop(Privacy(by): Privacy, State(ops): State<Operations>, account: Id, _: Asked<NoFields>) -> Answer<Account> {
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
    ops.audit.act(Event::new(Action::SubjectStop, by).account(&account), &*ops.clock, work).await?;
    show(&ops, &account).await
}

/// Lets the account in again.
#[utoipa::path(
    post, path = "/v1/subjects/{account}/resume", params(("account" = String, Path)),
    responses((status = 200, body = Account), Refused)
)]
async fn resume(
    Privacy(by): Privacy,
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
    ops.audit.act(Event::new(Action::SubjectResume, by).account(&account), &*ops.clock, work).await?;
    show(&ops, &account).await
}

/// Keeps the account from being erased, by its person, by an officer or by age, until it is released. Where
/// `admin.approvals` wants more people, it waits for them (202); nothing is erased meanwhile either.
#[utoipa::path(
    post, path = "/v1/subjects/{account}/hold", params(("account" = String, Path)), request_body = Why,
    responses((status = 200, body = ShownHold), (status = 202, body = Approved), Refused)
)]
async fn hold(
    Privacy(by): Privacy,
    State(ops): State<Operations>,
    account: Id,
    Asked(why): Asked<Why>,
) -> Result<Response, Refused> {
    let account = account_id(account)?;
    existing(&ops, &account).await?;
    let reason = Reason::read(why.reason)?.named()?;
    if ops.promises.subjects.store.held(&account).await?.is_some() {
        return Err(Refused::SubjectHeld);
    }
    decided(&ops, ApprovedAction::HoldSubject, &account, by, reason).await
}

/// Ends that. It takes as many people as the hold.
#[utoipa::path(
    post, path = "/v1/subjects/{account}/release", params(("account" = String, Path)), request_body = Option<Why>,
    responses((status = 200, body = ShownHold), (status = 202, body = Approved), Refused)
)]
async fn release(
    Privacy(by): Privacy,
    State(ops): State<Operations>,
    account: Id,
    Asked(why): Asked<Why>,
) -> Result<Response, Refused> {
    let account = account_id(account)?;
    existing(&ops, &account).await?;
    let reason = Reason::read(why.reason)?;
    if ops.promises.subjects.store.held(&account).await?.is_none() {
        return Err(Refused::SubjectNotHeld);
    }
    decided(&ops, ApprovedAction::ReleaseSubject, &account, by, reason).await
}

async fn decided(
    ops: &Operations,
    action: ApprovedAction,
    account: &AccountId,
    by: Actor,
    reason: Reason,
) -> Result<Response, Refused> {
    match approvals::require(ops, action, About::Account(account), by, 0, reason).await? {
        Decision::Pending(answer) => Ok(answer),
        Decision::Granted(grant) => {
            change_hold(ops, action, account, grant, by).await?;
            let hold = ops.promises.subjects.store.held(account).await?;
            Ok(Json(ShownHold { account: account.to_string(), hold: hold.as_ref().map(Held::from) }).into_response())
        }
    }
}

/// Places or releases a hold that enough people agreed to.
pub(super) async fn change_hold(
    ops: &Operations,
    action: ApprovedAction,
    account: &AccountId,
    grant: Grant,
    by: Actor,
) -> Result<(), Refused> {
    let places = action == ApprovedAction::HoldSubject;
    let deed = Event::new(if places { Action::SubjectHold } else { Action::SubjectRelease }, by);
    let deed = deed.account(account).reason(&grant.reason);
    let work = async {
        let (now, approval) = (ops.clock.now(), grant.approval());
        let outcome = if places {
            let hold = HoldRecord { reason: grant.reason.clone(), placed_by: by.to_string(), placed_at: now };
            ops.promises.subjects.store.hold(account, hold, approval).await?
        } else {
            ops.promises.subjects.store.release(account, by.to_string(), approval, now).await?
        };
        match outcome {
            HoldOutcome::Done => Ok(((), Effect::none())),
            HoldOutcome::Unchanged if places => Err(Refused::SubjectHeld),
            HoldOutcome::Unchanged => Err(Refused::SubjectNotHeld),
            HoldOutcome::NotThere => Err(Refused::NotFound),
            HoldOutcome::NotApproved => Err(Refused::ApprovalEnded),
        }
    };
    ops.audit.act(deed, &*ops.clock, work).await
}

/// The latest 1000 erasures, the latest first. Whose they were is not kept.
#[utoipa::path(get, path = "/v1/erasures", responses((status = 200, body = Erasures), Refused))]
async fn erasures(_: Privacy, State(ops): State<Operations>) -> Answer<Erasures> {
    let records = ops.promises.subjects.store.erasures(MOST).await?;
    Ok(Json(Erasures { erasures: records.iter().map(Erasure::from).collect() }))
}
