//! `backup`, `backups list | destroy`: a copy of the store goes out encrypted; its key stays in the ledger until somebody
//! destroys it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{AnyRole, Operator, Security};
use super::api::{Answer, Id};
use super::approvals::Reason;
use super::body::{Asked, NoFields};
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Begun, Effect, Event, Outcome};
use crate::backup::{self, BackupError, Taking, hex};
use crate::telemetry::Actor;

/// A backup, as the ledger knows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// 32 hexadecimal digits.
    pub id: String,
    /// `whole`, `unfinished` (nobody got the whole file) or `destroyed` (no copy of the file opens any more).
    pub state: String,
    /// When.
    pub taken_at: String,
    /// By whom.
    pub taken_by: String,
    /// Length of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Accounts in it.
    pub accounts: u64,
    /// Bindings in it.
    pub bindings: u64,
    /// Binding keys that digests in it were made under: one that leaks concerns this backup.
    pub digests_under: Vec<String>,
    /// Keys in it, wrapped under the KEK. The KEK itself is in no backup.
    pub keys: Vec<String>,
    /// What tells that KEK from another; without it this backup cannot be restored.
    pub kek: String,
    /// Counts the changes to the keys up to then.
    pub key_revision: u64,
    /// The id of the store that was copied.
    pub store: String,
    /// When its key was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed_at: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed_by: Option<String>,
}

/// All backups of this store.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Backups {
    /// The latest first.
    pub backups: Vec<Backup>,
}

/// Why a backup is destroyed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DestroyBackup {
    /// In the words of whoever asks; not for secrets or anybody's personal data.
    reason: Option<String>,
}

impl From<backup::Entry> for Backup {
    fn from(entry: backup::Entry) -> Self {
        let state = match (entry.opens(), entry.bytes) {
            (false, _) => "destroyed",
            (true, None) => "unfinished",
            (true, Some(_)) => "whole",
        };
        Self {
            state: state.to_owned(),
            id: entry.id,
            taken_at: entry.taken_at,
            taken_by: entry.taken_by,
            bytes: entry.bytes,
            accounts: entry.accounts,
            bindings: entry.bindings,
            digests_under: entry.digests_under,
            keys: entry.keys,
            kek: entry.kek,
            key_revision: entry.key_revision,
            store: entry.store,
            destroyed_at: entry.destroyed_at,
            destroyed_by: entry.destroyed_by,
        }
    }
}

/// Takes a backup: the answer is its file, encrypted under a key that the ledger has by then. Handsets notice nothing.
///
/// A file that is shorter than Content-Length says is none; the gateway destroys its key.
#[utoipa::path(
    post, path = "/v1/backups",
    responses((status = 200, body = String, content_type = "application/octet-stream"), Refused)
)]
pub(super) async fn take(
    Operator(by): Operator,
    State(ops): State<Operations>,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let id = backup::Backups::fresh_id(&*ops.entropy);
    let event = Event::new(Action::BackupTake, by).object(hex(&id));
    let begun = ops.audit.begin(event, ops.clock.now()).await?;
    // From here on its end is told, also if nobody waits for it any more.
    let mut sending = Sending { ops, by, id: hex(&id), taking: None, begun: Some(begun) };
    let ops = &sending.ops;
    let taking = ops.backups.take(id, &ops.lifecycle.kek(), &*ops.entropy, &by.to_string(), ops.clock.now()).await?;
    let length = taking.length();
    sending.taking = Some(taking);
    let body = Body::from_stream(stream::try_unfold(sending, next));
    let head =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    Ok((head, body).into_response())
}

/// A backup that somebody is getting.
struct Sending {
    ops: Operations,
    by: Actor,
    id: String,
    /// `None` while a piece is made, and behind the last.
    taking: Option<Taking>,
    /// `None` once the trail has its end.
    begun: Option<Begun>,
}

async fn next(mut sending: Sending) -> Result<Option<(Bytes, Sending)>, BackupError> {
    let Some(taking) = sending.taking.take() else { return Ok(None) };
    let bytes = taking.length();
    let made = taking.piece().await.inspect_err(|error| tracing::error!(%error, "a backup broke off"));
    let (piece, rest) = made?;
    sending.taking = rest;
    if sending.taking.is_none()
        && let Some(begun) = sending.begun.take()
    {
        // Before the last piece is out: who has the whole file has one that the trail tells of.
        let ops = &sending.ops;
        ops.audit.end(begun, Outcome::Done, Effect::of(bytes), ops.clock.now()).await?;
        ops.backups.witness(ops.clock.now()).await?;
    }
    Ok(Some((piece, sending)))
}

impl Drop for Sending {
    /// Who hung up has no whole file, and nobody needs its key.
    fn drop(&mut self) {
        let (Some(begun), Ok(runtime)) = (self.begun.take(), tokio::runtime::Handle::try_current()) else { return };
        let (ops, by, id) = (self.ops.clone(), self.by, std::mem::take(&mut self.id));
        drop(self.taking.take());
        runtime.spawn(async move {
            let now = ops.clock.now();
            if let Err(error) = ops.backups.destroy(&id, &by.to_string(), now).await {
                tracing::error!(%error, id, "the key of a backup that broke off is still in the ledger");
            }
            if let Err(error) = ops.audit.end(begun, Outcome::Failed, Effect::none(), now).await {
                tracing::error!(%error, "how a backup ended could not be written into the audit trail");
            }
        });
    }
}

/// All backups of this store, the latest first; those that were destroyed too.
#[utoipa::path(get, path = "/v1/backups", responses((status = 200, body = Backups), Refused))]
pub(super) async fn list(_: AnyRole, State(ops): State<Operations>) -> Answer<Backups> {
    Ok(Json(Backups { backups: ops.backups.list().await?.into_iter().map(Into::into).collect() }))
}

/// One backup.
#[utoipa::path(
    get, path = "/v1/backups/{id}", params(("id" = String, Path)), responses((status = 200, body = Backup), Refused)
)]
pub(super) async fn show(_: AnyRole, State(ops): State<Operations>, id: Id) -> Answer<Backup> {
    let Path(id) = id.map_err(|_| Refused::NotFound)?;
    Ok(Json(ops.backups.entry(&id).await?.ok_or(Refused::NotFound)?.into()))
}

/// Destroys the key of a backup: its file, wherever copies of it are, opens no more.
#[utoipa::path(
    delete, path = "/v1/backups/{id}", params(("id" = String, Path)), request_body = Option<DestroyBackup>,
    responses((status = 200, body = Backup), Refused)
)]
pub(super) async fn destroy(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    Asked(asked): Asked<DestroyBackup>,
) -> Answer<Backup> {
    let Path(id) = id.map_err(|_| Refused::NotFound)?;
    let reason = Reason::read(asked.reason)?;
    let known = ops.backups.entry(&id).await?.ok_or(Refused::NotFound)?;
    if !known.opens() {
        return Ok(Json(known.into()));
    }
    let deed = Event::new(Action::BackupDestroy, by).object(&known.id).reason(&reason.0);
    let work = async {
        let destroyed = ops.backups.destroy(&known.id, &by.to_string(), ops.clock.now()).await?;
        Ok::<_, Refused>((destroyed.ok_or(Refused::NotFound)?, Effect::none()))
    };
    Ok(Json(ops.audit.act(deed, &*ops.clock, work).await?.into()))
}

impl From<BackupError> for Refused {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Busy => Self::BackupBusy,
            BackupError::Kek(error) => Self::KekFailed(error),
            BackupError::Store(error) => Self::Store(error),
            BackupError::Stopping => Self::Stopping,
            BackupError::Ledger(error) => {
                tracing::error!(%error, "a call about backups failed");
                Self::LedgerUnusable
            }
            error @ (BackupError::Archive(_) | BackupError::Destroyed) => {
                tracing::error!(%error, "a call about backups failed");
                Self::Internal
            }
        }
    }
}
