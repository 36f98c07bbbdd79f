//! `keys`: what they are, and every step of their life that a person decides.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Security, SecurityReader};
use super::approvals::Reason;
use super::body::{Asked, NoFields};
use super::if_match::{RevisionMatch, etag};
use super::key_documents::{Key, Keys, PublicKey, Purpose, Rewrapped};
use super::operations::Operations;
use super::refused::Refused;
use super::{compromise, destroy};
use crate::assertion::jwk_of_point;
use crate::audit::{Action, Effect, Event};
use crate::config::ClientAddressDetail;
use crate::keys::{Kek, Moment, Rewrap};
use crate::store::{KeyPurpose, StoreError, StoredKeys};
use crate::telemetry::{Actor, KeyAction, SecurityEvent, security};

/// An id as it stands in the path; what cannot be decoded is no id.
type Id = Result<Path<String>, PathRejection>;

/// What a key is made for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKey {
    /// Not `binding`: records move with those, so a rotation makes them.
    purpose: Purpose,
}

/// Why a key counts as leaked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Leak {
    /// In the words of whoever says so; not for secrets or anybody's personal data.
    reason: String,
}

pub(super) fn verbs() -> OpenApiRouter<Operations> {
    OpenApiRouter::new()
        .routes(routes!(list, generate))
        .routes(routes!(show, destroy::destroy_key))
        .routes(routes!(export_public))
        .routes(routes!(activate))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(compromise))
        .routes(routes!(rewrap))
}

/// All keys, by purpose and age; those that were destroyed too.
#[utoipa::path(get, path = "/v1/keys", responses((status = 200, body = Keys), Refused))]
async fn list(_: SecurityReader, State(ops): State<Operations>) -> Result<Response, Refused> {
    let StoredKeys { keys, revision, .. } = ops.lifecycle.stored().await?;
    let keys = keys.iter().map(|key| Key::of(key, ops.lifecycle.destroyable_at(key))).collect();
    Ok(([(header::ETAG, etag(revision))], Json(Keys { keys, revision })).into_response())
}

/// One key.
#[utoipa::path(get, path = "/v1/keys/{id}", params(("id" = String, Path)), responses((status = 200, body = Key), Refused))]
async fn show(_: SecurityReader, State(ops): State<Operations>, id: Id) -> Result<Response, Refused> {
    answer(&ops, &key_id(id)?).await
}

/// The public half of a key that signs; a destroyed one still has it.
#[utoipa::path(
    get, path = "/v1/keys/{id}/public", params(("id" = String, Path)),
    responses((status = 200, body = PublicKey), Refused)
)]
async fn export_public(_: SecurityReader, State(ops): State<Operations>, id: Id) -> Result<Json<PublicKey>, Refused> {
    let id = key_id(id)?;
    let stored = ops.lifecycle.stored().await?;
    let key = stored.keys.iter().find(|key| key.id == id).ok_or(Refused::NotFound)?;
    let point = key.public.as_deref().ok_or(Refused::NoPublicHalf)?;
    let jwk = jwk_of_point(point).ok_or(Refused::NoPublicHalf)?;
    let purpose = key.purpose.as_str().to_owned();
    Ok(Json(PublicKey { id, purpose, jwk, point: URL_SAFE_NO_PAD.encode(point) }))
}

/// Makes a key that waits to be made active. One that signs assertions is published at once, and may sign once every
/// cache of the JWKS can know it.
#[utoipa::path(
    post, path = "/v1/keys", params(RevisionMatch), request_body = NewKey,
    responses((status = 200, body = Key), Refused)
)]
async fn generate(
    Security(by): Security,
    State(ops): State<Operations>,
    revision: RevisionMatch,
    Asked(asked): Asked<NewKey>,
) -> Result<Response, Refused> {
    let purpose = KeyPurpose::from(asked.purpose);
    let event = Event::new(Action::KeyGenerate, by).object(purpose.as_str());
    let work = async {
        let id = ops.lifecycle.generate(purpose, revision.expected()?, Moment::of(&*ops.clock)).await?;
        report(&id, KeyAction::Generated, by);
        Ok::<_, Refused>((id, Effect::none()))
    };
    let id = ops.audit.act(event, &*ops.clock, work).await?;
    answer(&ops, &id).await
}

/// Makes a pending key the one in use; the former one retires.
#[utoipa::path(
    post, path = "/v1/keys/{id}/activate", params(("id" = String, Path), RevisionMatch),
    responses((status = 200, body = Key), Refused)
)]
async fn activate(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    revision: RevisionMatch,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let id = key_id(id)?;
    let work = async { Ok(ops.lifecycle.activate(&id, revision.expected()?, Moment::of(&*ops.clock)).await?) };
    step(&ops, &id, (Action::KeyActivate, KeyAction::Activated), by, work).await
}

/// Refuses whatever needs the key (503 `key-suspended`), until it is resumed or another one is in use.
#[utoipa::path(
    post, path = "/v1/keys/{id}/suspend", params(("id" = String, Path), RevisionMatch),
    responses((status = 200, body = Key), Refused)
)]
async fn suspend(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    revision: RevisionMatch,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let id = key_id(id)?;
    let work = async {
        ops.lifecycle.suspend(&id, revision.expected()?, Moment::of(&*ops.clock)).await?;
        // A suspended binding key holds a rotation up.
        Ok(ops.rotations.advance(ops.clock.now(), true).await?)
    };
    step(&ops, &id, (Action::KeySuspend, KeyAction::Suspended), by, Box::pin(work)).await
}

/// Ends that.
#[utoipa::path(
    post, path = "/v1/keys/{id}/resume", params(("id" = String, Path), RevisionMatch),
    responses((status = 200, body = Key), Refused)
)]
async fn resume(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    revision: RevisionMatch,
    _: Asked<NoFields>,
) -> Result<Response, Refused> {
    let id = key_id(id)?;
    let work = async {
        ops.lifecycle.resume(&id, revision.expected()?, Moment::of(&*ops.clock)).await?;
        Ok(ops.rotations.advance(ops.clock.now(), true).await?)
    };
    step(&ops, &id, (Action::KeyResume, KeyAction::Resumed), by, Box::pin(work)).await
}

/// The key has leaked. Acts at once: a fresh key takes its place where it was in use, and what it made counts no more.
#[utoipa::path(
    post, path = "/v1/keys/{id}/compromise", params(("id" = String, Path), RevisionMatch), request_body = Leak,
    responses((status = 200, body = Key), Refused)
)]
async fn compromise(
    Security(by): Security,
    State(ops): State<Operations>,
    id: Id,
    revision: RevisionMatch,
    Asked(asked): Asked<Leak>,
) -> Result<Response, Refused> {
    let id = key_id(id)?;
    let reason = Reason::read(Some(asked.reason))?.said()?;
    let event = Event::new(Action::KeyCompromise, by).object(&id).reason(&reason);
    let work = async {
        let revision = revision.expected()?;
        let binding = id.starts_with(KeyPurpose::Binding.letter());
        let at = Moment::of(&*ops.clock);
        let done = if binding {
            ops.rotations.compromise(&id, &reason, revision, &*ops.clock).await.map(Some).map_err(Refused::from)
        } else {
            ops.lifecycle.compromise(&id, &reason, revision, at).await.map(|()| None).map_err(Refused::from)
        };
        if matches!(done, Ok(_) | Err(Refused::FlaggedAlone(_))) {
            report(&id, KeyAction::Compromised, by);
        }
        let done = done?;
        // What was done stands, and is not to be taken for undone: upkeep tells the ledger once it can.
        let untold = untold(&ops, "of the leak").await;
        let effect = done.as_ref().map_or(Effect::none(), |done| Effect::of(done.sessions_ended as u64));
        Ok::<_, Refused>(((done, untold), effect))
    };
    let ((done, untold), unwritten) = ops.audit.act_for_good(event, &*ops.clock, work).await?;
    let mut document = document(&ops, &id).await?;
    if let Some(done) = done {
        let report = compromise::report(&ops, done, untold.as_deref(), ops.clock.now()).await;
        document.1.report = Some(Box::new(report));
    }
    document.1.warnings.extend(untold.into_iter().chain(unwritten.as_ref().map(not_in_the_trail)));
    Ok(tagged(document))
}

/// Has the ledger of backups know what became of a key. Where it cannot be written: what is to be done, as what was done to
/// the key stands. `what` it does not know `of`.
pub(super) async fn untold(ops: &Operations, what: &str) -> Option<String> {
    let error = ops.backups.witness(ops.clock.now()).await.err()?;
    tracing::error!(%error, "the ledger of backups does not know yet {what}");
    Some(format!("restore no backup before the ledger can be written: until then it does not know {what}"))
}

/// What is to be done where the audit trail says of what was done to a key that it began, and could not be told its end.
pub(super) fn not_in_the_trail(error: &StoreError) -> String {
    tracing::error!(%error, "what was done to a key stands in the audit trail as begun alone");
    "keep a note that this was done: its end could not be written into the audit trail, which says that it began"
        .to_owned()
}

/// Wraps every key under `keys.kek_next`, as the configuration names it now, in one step.
#[utoipa::path(
    post, path = "/v1/keys/rewrap", params(RevisionMatch), responses((status = 200, body = Rewrapped), Refused)
)]
async fn rewrap(
    Security(by): Security,
    State(ops): State<Operations>,
    revision: RevisionMatch,
    _: Asked<NoFields>,
) -> Result<Json<Rewrapped>, Refused> {
    // As the configuration stands now and not as it was at start-up: what the next start will read is what counts.
    let source =
        ops.config.config().next_kek_now().map_err(|_| Refused::ConfigurationUnusable)?.ok_or(Refused::NoNextKek)?;
    let (kek, warnings) = Kek::open(&source, &*ops.entropy).await.map_err(Refused::KekUnusable)?;
    for doubt in &warnings {
        tracing::warn!(%doubt, "keys.kek_next");
    }
    let work = async {
        let Rewrap { keys: rewrapped, left } = ops.lifecycle.rewrap(kek, revision.expected()?).await?;
        if let Some(error) = left {
            ops.promises.subjects.note_erased();
            tracing::warn!(%error, "the keys are wrapped anew; what they were wrapped as may stay in the journal for some seconds");
        }
        report("all", KeyAction::Rewrapped, by);
        Ok::<_, Refused>((rewrapped, Effect::of(rewrapped as u64)))
    };
    let rewrapped = ops.audit.act(Event::new(Action::KeysRewrap, by), &*ops.clock, work).await?;
    Ok(Json(Rewrapped { rewrapped, warnings: warnings.iter().map(ToString::to_string).collect() }))
}

/// Does `work` to a key, with what the trail and the security log call it, and answers with the key as it is then.
async fn step(
    ops: &Operations,
    id: &str,
    (action, change): (Action, KeyAction),
    by: Actor,
    work: impl Future<Output = Result<(), Refused>> + Send,
) -> Result<Response, Refused> {
    let work = async {
        work.await?;
        report(id, change, by);
        Ok::<_, Refused>(((), Effect::none()))
    };
    ops.audit.act(Event::new(action, by).object(id), &*ops.clock, work).await?;
    answer(ops, id).await
}

/// A letter and a short number; anything else is no key's id, and comes into no trail.
fn key_id(id: Id) -> Result<String, Refused> {
    let shaped = |id: &str| {
        let mut characters = id.chars();
        let letter = characters.next().is_some_and(|first| KeyPurpose::ALL.iter().any(|p| p.letter() == first));
        letter && (2..=7).contains(&id.len()) && characters.all(|other| other.is_ascii_digit())
    };
    id.ok().map(|Path(id)| id).filter(|id| shaped(id)).ok_or(Refused::NotFound)
}

/// The key as it is now, with the revision as its `ETag`.
async fn answer(ops: &Operations, id: &str) -> Result<Response, Refused> {
    document(ops, id).await.map(tagged)
}

/// The revision of the keys, and the document of one.
async fn document(ops: &Operations, id: &str) -> Result<(u64, Key), Refused> {
    let stored = ops.lifecycle.stored().await?;
    let key = stored.keys.iter().find(|key| key.id == id).ok_or(Refused::NotFound)?;
    Ok((stored.revision, Key::of(key, ops.lifecycle.destroyable_at(key))))
}

fn tagged((revision, key): (u64, Key)) -> Response {
    ([(header::ETAG, etag(revision))], Json(key)).into_response()
}

fn report(id: &str, change: KeyAction, by: Actor) {
    security(&SecurityEvent::KeyChanged { id, change, by }, None, ClientAddressDetail::None);
}
