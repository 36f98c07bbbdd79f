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
use super::operations::Operations;
use super::refused::Refused;
use super::rotation_documents::{Chains, Rotation, Rotations, ShownRotation};
use crate::config::ClientAddressDetail;
use crate::rotation::{Progress, Start};
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

/// Which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Purpose {
    /// Those that hash handset identifiers.
    Binding,
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
    let StartRotation { purpose: Purpose::Binding, reason, paused, drain_within, expected_loss } = asked;
    let reason = Reason::read(reason)?.0;
    let start = Start { reason, paused, drain_within, expected_loss, revision: revision.expected()? };
    let progress = ops.rotations.start(start, ops.clock.now()).await?;
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
    Ok(shown(&ops.rotations.status(&text(id)?).await?))
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
    let progress = ops.rotations.pause(&text(id)?, revision.expected()?, ops.clock.now()).await?;
    Ok(done(&progress, RotationStep::Paused, by))
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
    let progress = ops.rotations.resume(&text(id)?, revision.expected()?, ops.clock.now()).await?;
    Ok(done(&progress, RotationStep::Resumed, by))
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
    let progress = ops.rotations.abort(&text(id)?, revision.expected()?, ops.clock.now()).await?;
    Ok(done(&progress, RotationStep::Aborted, by))
}

/// Counts the bindings again, and takes the steps that are due.
#[utoipa::path(
    post, path = "/v1/rotations/{id}/rescan", params(("id" = String, Path)),
    responses((status = 200, body = ShownRotation), Refused)
)]
pub(super) async fn rescan(
    _: Security,
    State(ops): State<Operations>,
    id: Id,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    Ok(shown(&ops.rotations.rescan(&text(id)?, ops.clock.now()).await?))
}

/// How many bindings there are by the keys that made their digests.
#[utoipa::path(get, path = "/v1/bindings/stats", responses((status = 200, body = Chains), Refused))]
pub(super) async fn chains(_: SecurityReader, State(ops): State<Operations>) -> Result<Json<Chains>, Refused> {
    Ok(Json(Chains { chains: ops.rotations.chains().await?.into_iter().map(Into::into).collect() }))
}

fn text(id: Id) -> Result<String, Refused> {
    id.map(|Path(id)| id).map_err(|_| Refused::NotFound)
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
