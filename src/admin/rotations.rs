//! `rotation start | list | status | pause | resume | abort | rescan`, and `bindings stats`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;
use utoipa::ToSchema;

use super::access::{Security, SecurityReader};
use super::approvals::Reason;
use super::body::{Asked, NoFields};
use super::if_match::{RevisionMatch, etag};
use super::key_documents::Purpose;
use super::operations::Operations;
use super::refused::Refused;
use super::rotation_documents::{Chains, Rotation, Rotations, ShownRotation};
use crate::audit::{Action, Effect, Event};
use crate::config::ClientAddressDetail;
use crate::keys::Moment;
use crate::rotation::{Progress, Start};
use crate::store::KeyPurpose;
use crate::telemetry::{Actor, RotationStep, SecurityEvent, security};

type Id = Result<Path<String>, PathRejection>;

/// What is to be replaced, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartRotation {
    /// Which keys.
    purpose: Purpose,
    /// Why, in the words of whoever asks; not for secrets or anybody's personal data.
    #[serde(default)]
    reason: Option<String>,
    /// Only makes the new key; nothing changes until the rotation is resumed.
    #[serde(default)]
    paused: bool,
    /// Days until bindings that still need the old key are erased: fewer than binding.retention, which it is if unsaid.
    #[serde(default)]
    drain_within: Option<u32>,
    /// How many bindings that is accepted to cost; the refusal without it says how many.
    #[serde(default)]
    expected_loss: Option<u64>,
}

/// Begins to replace the active key.
#[utoipa::path(
    post, path = "/v1/rotations", params(RevisionMatch), request_body = StartRotation,
    responses((status = 200, body = ShownRotation), Refused)
)]
pub(super) async fn start(
    Security(by): Security,
    State(ops): State<Operations>,
    revision: RevisionMatch,
    Asked(asked): Asked<StartRotation>,
) -> Result<Response, Refused> {
    let StartRotation { purpose, reason, paused, drain_within, expected_loss } = asked;
    let reason = Reason::read(reason)?.0;
    let event = Event::new(Action::RotationStart, by).object(KeyPurpose::from(purpose).as_str()).reason(&reason);
    let work = async {
        let revision = revision.expected()?;
        if purpose == Purpose::Binding {
            let start = Start { reason, paused, drain_within, expected_loss, revision };
            return Ok(counted(ops.rotations.start(start, ops.clock.now()).await?));
        }
        // No record is moved by it: there is nothing to hold back, and nothing to lose.
        if paused || drain_within.is_some() || expected_loss.is_some() {
            return Err(Refused::RotationState(
                "only a rotation of the binding keys is paused or has a deadline".into(),
            ));
        }
        let record = ops.lifecycle.start_rotation(purpose.into(), &reason, revision, Moment::of(&*ops.clock)).await?;
        Ok(counted(ops.rotations.status(&record.id).await?))
    };
    let progress = ops.audit.act(event, &*ops.clock, work).await?;
    Ok(done(&progress, RotationStep::Started, by))
}

/// All rotations, the latest first.
#[utoipa::path(get, path = "/v1/rotations", responses((status = 200, body = Rotations), Refused))]
pub(super) async fn list(_: SecurityReader, State(ops): State<Operations>) -> Result<Json<Rotations>, Refused> {
    Ok(Json(Rotations { rotations: ops.rotations.list().await?.iter().map(Rotation::from).collect() }))
}

/// How far a rotation is.
#[utoipa::path(
    get, path = "/v1/rotations/{id}", params(("id" = String, Path)),
    responses((status = 200, body = ShownRotation), Refused)
)]
pub(super) async fn status(_: SecurityReader, State(ops): State<Operations>, id: Id) -> Result<Response, Refused> {
    Ok(shown(&ops.rotations.status(&rotation_id(id)?).await?))
}

/// Stops moving bindings until it is resumed.
#[utoipa::path(
    post, path = "/v1/rotations/{id}/pause", params(("id" = String, Path), RevisionMatch),
    responses((status = 200, body = ShownRotation), Refused)
)]
pub(super) async fn pause(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    revision: RevisionMatch,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let (id, revision) = (existing(&ops, id).await?, revision.expected()?);
    let work = async { Ok(ops.rotations.pause(&id, revision, ops.clock.now()).await?) };
    verb(&ops, &id, (Action::RotationPause, RotationStep::Paused), by, work).await
}

/// Goes on; a rotation that was started paused begins.
#[utoipa::path(
    post, path = "/v1/rotations/{id}/resume", params(("id" = String, Path), RevisionMatch),
    responses((status = 200, body = ShownRotation), Refused)
)]
pub(super) async fn resume(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    revision: RevisionMatch,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let (id, revision) = (existing(&ops, id).await?, revision.expected()?);
    let work = async { Ok(ops.rotations.resume(&id, revision, ops.clock.now()).await?) };
    verb(&ops, &id, (Action::RotationResume, RotationStep::Resumed), by, work).await
}

/// Gives up a rotation that never began.
#[utoipa::path(
    post, path = "/v1/rotations/{id}/abort", params(("id" = String, Path), RevisionMatch),
    responses((status = 200, body = ShownRotation), Refused)
)]
pub(super) async fn abort(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    revision: RevisionMatch,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let (id, revision) = (existing(&ops, id).await?, revision.expected()?);
    let work = async {
        if ops.rotations.status(&id).await?.record.purpose == KeyPurpose::Binding {
            return Ok(ops.rotations.abort(&id, revision, ops.clock.now()).await?);
        }
        ops.lifecycle.abort_rotation(&id, revision, Moment::of(&*ops.clock)).await?;
        Ok(ops.rotations.status(&id).await?)
    };
    verb(&ops, &id, (Action::RotationAbort, RotationStep::Aborted), by, work).await
}

/// Counts the bindings again, and takes the steps that are due.
#[utoipa::path(
    post, path = "/v1/rotations/{id}/rescan", params(("id" = String, Path)),
    responses((status = 200, body = ShownRotation), Refused)
)]
pub(super) async fn rescan(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let id = existing(&ops, id).await?;
    let work = async { Ok::<_, Refused>(counted(ops.rotations.rescan(&id, ops.clock.now()).await?)) };
    let deed = Event::new(Action::RotationRescan, by).object(&id);
    Ok(shown(&ops.audit.act(deed, &*ops.clock, work).await?))
}

/// How many bindings there are by the keys that made their digests.
#[utoipa::path(get, path = "/v1/bindings/stats", responses((status = 200, body = Chains), Refused))]
pub(super) async fn chains(_: SecurityReader, State(ops): State<Operations>) -> Result<Json<Chains>, Refused> {
    Ok(Json(Chains { chains: ops.rotations.chains().await?.into_iter().map(Into::into).collect() }))
}

/// `r` and a short number; anything else is no rotation's id, and comes into no trail.
fn rotation_id(id: Id) -> Result<String, Refused> {
    let shaped = |id: &String| {
        let number = id.strip_prefix('r').unwrap_or_default();
        (1..=6).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    id.ok().map(|Path(id)| id).filter(shaped).ok_or(Refused::NotFound)
}

/// The id of a rotation that there is: of what cannot be done nothing stands in the audit trail.
async fn existing(ops: &Operations, id: Id) -> Result<String, Refused> {
    let id = rotation_id(id)?;
    ops.rotations.status(&id).await?;
    Ok(id)
}

/// Does `work` to a rotation, with what the trail and the security log call it, and answers with how far it is then.
async fn verb(
    ops: &Operations,
    id: &str,
    (action, step): (Action, RotationStep),
    by: Actor,
    work: impl Future<Output = Result<Progress, Refused>> + Send,
) -> Result<Response, Refused> {
    let work = async { work.await.map(counted) };
    let progress = ops.audit.act(Event::new(action, by).object(id), &*ops.clock, work).await?;
    Ok(done(&progress, step, by))
}

/// With what the audit trail says of it at its end: the records that had the old key, and those that still have.
fn counted(progress: Progress) -> (Progress, Effect) {
    let effect = Effect::records(progress.record.total, progress.remaining);
    (progress, effect)
}

fn done(progress: &Progress, step: RotationStep, by: Actor) -> Response {
    let event = SecurityEvent::Rotation { id: &progress.record.id, step, by: Some(by) };
    security(&event, None, ClientAddressDetail::None);
    shown(progress)
}

/// With the revision of the keys as its tag, for `If-Match`.
fn shown(progress: &Progress) -> Response {
    let document = ShownRotation { rotation: progress.into() };
    ([(header::ETAG, etag(progress.revision))], Json(document)).into_response()
}
