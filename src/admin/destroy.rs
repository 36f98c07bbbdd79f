//! `keys destroy`: wipes a key that nothing needs any more.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;
use utoipa::ToSchema;

use super::access::Security;
use super::approvals::{self, About, Approved, Decision, Grant, Reason};
use super::body::Asked;
use super::if_match::{RevisionMatch, etag};
use super::key_documents::Key;
use super::keys::{not_in_the_trail, untold};
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Effect, Event};
use crate::config::ClientAddressDetail;
use crate::keys::Moment;
use crate::store::{ApprovedAction, KeyDates, KeyRecord, KeyState, StoreError};
use crate::telemetry::{Actor, KeyAction, SecurityEvent, security};

/// Why a key is to be destroyed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DestroyKey {
    /// In the words of whoever asks; not for secrets or anybody's personal data.
    reason: Option<String>,
}

/// Wipes a drained key that cooled off, or one that was never in use, and keeps its tombstone. Where
/// `admin.approvals` wants more people, it waits for them (202).
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
    revision.check(ops.key_store.keys().await?.revision)?;
    let (revision, _) = ops.lifecycle.destruction(&id, None, Moment::of(&*ops.clock)).await?;
    let reason = Reason::read(asked.reason)?;
    match approvals::require(&ops, ApprovedAction::DestroyKey, About::Key(&id), by, revision, reason).await? {
        Decision::Pending(answer) => Ok(answer),
        Decision::Granted(grant) => Ok(destroy(&ops, &id, grant, by).await?.into_response()),
    }
}

/// A key that was destroyed.
pub(super) struct Destroyed {
    /// The revision of the keys.
    revision: u64,
    /// What is left of it.
    pub(super) key: Key,
}

impl IntoResponse for Destroyed {
    fn into_response(self) -> Response {
        ([(header::ETAG, etag(self.revision))], Json(self.key)).into_response()
    }
}

/// Destroys a key. What was done stands, and is not to be taken for undone: whatever fails behind it is a warning.
pub(super) async fn destroy(ops: &Operations, id: &str, grant: Grant, by: Actor) -> Result<Destroyed, Refused> {
    let stored = ops.key_store.keys().await?;
    let key = stored.keys.into_iter().find(|key| key.id == id).ok_or(Refused::NotFound)?;
    let at = Moment::of(&*ops.clock);
    // Whether the keys are as they were when it was asked for is judged where the approval ends.
    let (_, changes) = ops.lifecycle.destruction(id, None, at).await?;
    let deed = Event::new(Action::KeyDestroy, by).object(id).reason(&grant.reason);
    let work = async {
        let before = grant.revision;
        let revision = match grant.change(ops, changes).await {
            Err(Refused::Store(error)) => destroyed_all_the_same(ops, id, before, error).await?,
            answered => answered?,
        };
        let warnings = follow_up(ops).await;
        let event = SecurityEvent::KeyChanged { id, change: KeyAction::Destroyed, by };
        security(&event, None, ClientAddressDetail::None);
        Ok::<_, Refused>(((revision, warnings), Effect::none()))
    };
    let ((revision, mut warnings), unwritten) = ops.audit.act_for_good(deed, &*ops.clock, work).await?;
    warnings.extend(unwritten.as_ref().map(not_in_the_trail));
    ops.receipts.key_destroyed(id, ops.clock.now()).await;
    // Nothing is read back, which could fail: no key changed between the read above and the change, or it had been refused.
    let dates = KeyDates { destroyed_at: Some(at.now), ..key.dates };
    let key = KeyRecord { state: KeyState::Destroyed, dates, ..key };
    Ok(Destroyed { revision, key: Key { warnings, ..Key::of(&key, None) } })
}

/// What follows in memory and in the ledger of backups, each of which upkeep makes up for. Returns what could not be done.
async fn follow_up(ops: &Operations) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(error) = ops.lifecycle.follow().await {
        tracing::error!(%error, "a destroyed key was not let go of yet");
        warnings.push("the gateway has the key in its memory until it can read the store again".to_owned());
    }
    warnings.extend(untold(ops, "that the key is destroyed").await);
    warnings
}

/// Where the store failed it may have come to pass all the same, and only the journal was not emptied. Returns the revision,
/// which was `before`.
async fn destroyed_all_the_same(ops: &Operations, id: &str, before: u64, error: StoreError) -> Result<u64, Refused> {
    // Should it be so, whether or not that can be read now. Where nothing was erased, nothing is lost by it.
    ops.promises.subjects.note_erased();
    let revision = if let StoreError::Unemptied(_) = error {
        before + 1
    } else {
        let stored = ops.key_store.keys().await?;
        if !stored.keys.iter().any(|key| key.id == id && key.state == KeyState::Destroyed) {
            return Err(error.into());
        }
        stored.revision
    };
    tracing::warn!(%error, "the key is destroyed; what it was wrapped as may stay in the journal for some seconds");
    Ok(revision)
}
