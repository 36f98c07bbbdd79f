//! `posture`: how the promises of the privacy policy stand.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::PolicyReader;
use super::api::Answer;
use super::operations::Operations;
use super::refused::Refused;
use crate::clock::Timestamp;
use crate::privacy::Promise;

/// How the promises stand.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Posture {
    /// Whether none is overdue or broken.
    pub ok: bool,
    /// Each of them.
    pub promises: Vec<ShownPromise>,
}

/// A promise.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ShownPromise {
    /// A fixed word.
    pub name: String,
    /// What is promised.
    pub promise: String,
    /// The setting that decides about it; empty where none does.
    pub setting: String,
    /// `kept`, `overdue`, `broken`, or `elsewhere`: others have to keep it.
    pub standing: String,
    /// When that was last seen; null if it never was.
    pub seen_at: Option<String>,
    /// What was seen.
    pub detail: String,
}

impl ShownPromise {
    fn of(promise: Promise) -> Self {
        Self {
            name: promise.name.to_owned(),
            promise: promise.promise.to_owned(),
            setting: promise.setting,
            standing: promise.standing.as_str().to_owned(),
            seen_at: promise.seen_at.map(Timestamp::rfc3339),
            detail: promise.detail,
        }
    }
}

/// Every promise, the setting behind it, and what was last seen of it.
#[utoipa::path(get, path = "/v1/posture", responses((status = 200, body = Posture), Refused))]
pub(super) async fn show(_: PolicyReader, State(ops): State<Operations>) -> Answer<Posture> {
    let promises = ops.process.posture().await?;
    let ok = !promises.iter().any(|promise| promise.standing.is_bad());
    Ok(Json(Posture { ok, promises: promises.into_iter().map(ShownPromise::of).collect() }))
}
