//! `keys destroy`: wipes a key that nothing needs any more.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;
use utoipa::ToSchema;

use super::access::Security;
use super::approvals::{self, Approved, Decision, Grant, Reason};
use super::body::Asked;
use super::documents::Key;
use super::if_match::{RevisionMatch, etag};
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Effect, Event};
use crate::config::ClientAddressDetail;
use crate::store::{ApprovedAction, KeyChange, KeyRecord, KeyState, StoredKeys};
use crate::telemetry::{Actor, SecurityEvent, security};

/// Why a key is to be destroyed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DestroyKey {
    /// In the words of whoever asks; not for secrets or anybody's personal data.
    reason: Option<String>,
}

/// Wipes a drained key and keeps its tombstone. Where `admin.approvals` wants more people, it waits for them (202).
#[utoipa::path(
    delete, path = "/v1/keys/{id}", params(("id" = String, Path), RevisionMatch), request_body = Option<DestroyKey>,
    responses((status = 200, body = Key), (status = 202, body = Approved), Refused)
)]
pub(super) async fn destroy_key(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Result<Path<String>, PathRejection>,
    revision: RevisionMatch,
    Asked(asked): Asked<DestroyKey>,
) -> Result<Response, Refused> {
    let Path(id) = id.map_err(|_| Refused::NotFound)?;
    let stored = ops.key_store.keys().await?;
    revision.check(stored.revision)?;
    destroyable(&stored, &id)?;
    let reason = Reason::read(asked.reason)?;
    match approvals::require(&ops, ApprovedAction::DestroyKey, &id, by, stored.revision, reason).await? {
        Decision::Pending(answer) => Ok(answer),
        Decision::Granted(grant) => {
            let (revision, key) = destroy(&ops, &id, grant, by).await?;
            Ok(([(header::ETAG, etag(revision))], Json(Key::of(&key))).into_response())
        }
    }
}

/// Destroys a key. Returns the revision now in force, and what is left of the key.
pub(super) async fn destroy(ops: &Operations, id: &str, grant: Grant, by: Actor) -> Result<(u64, KeyRecord), Refused> {
    destroyable(&ops.key_store.keys().await?, id)?;
    let (id, at) = (id.to_owned(), ops.clock.now());
    let change = KeyChange::Move { id: id.clone(), from: KeyState::Drained, to: KeyState::Destroyed, at };
    let deed = Event::new(Action::KeyDestroy, by).object(&id).reason(&grant.reason);
    let work = async { Ok::<_, Refused>((grant.change(ops, vec![change]).await?, Effect::none())) };
    let revision = ops.audit.act(deed, &*ops.clock, work).await?;
    security(&SecurityEvent::KeyDestroyed { key: &id, by }, None, ClientAddressDetail::None);
    let key = ops.key_store.keys().await?.keys.into_iter().find(|key| key.id == id).ok_or(Refused::NotFound)?;
    Ok((revision, key))
}

fn destroyable(stored: &StoredKeys, id: &str) -> Result<(), Refused> {
    let key = stored.keys.iter().find(|key| key.id == id).ok_or(Refused::NotFound)?;
    if key.state == KeyState::Drained { Ok(()) } else { Err(Refused::KeyState(key.state.as_str())) }
}
