//! `policy history`: what people were told of their data, and from when to when.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::access::PolicyReader;
use super::api::{Answer, Id};
use super::operations::Operations;
use super::refused::Refused;
use crate::backup::hex;
use crate::clock::Timestamp;
use crate::store::NoticeSummary;

/// How many are listed: the latest.
const MOST_LISTED: u32 = 1000;

/// The notices that were in force, the latest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Notices {
    /// The latest thousand.
    pub notices: Vec<ShownNotice>,
}

/// When a notice was in force.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ShownNotice {
    /// 1 for the first.
    pub id: u32,
    /// Its revision date.
    pub revision: String,
    /// From when.
    pub in_force_from: String,
    /// Until when; null of the one that is.
    pub in_force_until: Option<String>,
    /// Of all that it says: two that say the same have the same.
    pub sha256: String,
}

/// A notice with all that it says.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ToldNotice {
    /// Which.
    #[serde(flatten)]
    pub shown: ShownNotice,
    /// What it was made from (`facts`), and the words of it (`ja`, `en`).
    #[schema(value_type = Object)]
    pub told: Map<String, Value>,
}

impl ShownNotice {
    fn of(summary: &NoticeSummary, until: Option<Timestamp>) -> Self {
        Self {
            id: summary.id,
            revision: summary.revision.clone(),
            in_force_from: summary.in_force_from.rfc3339(),
            in_force_until: until.map(Timestamp::rfc3339),
            sha256: hex(&summary.digest),
        }
    }
}

/// The notices that were in force, the latest first.
#[utoipa::path(get, path = "/v1/policy/history", responses((status = 200, body = Notices), Refused))]
pub(super) async fn history(_: PolicyReader, State(ops): State<Operations>) -> Answer<Notices> {
    let mut until = None;
    let listed = ops.notices.notices(None, MOST_LISTED).await?;
    let shown = listed.iter().map(|summary| ShownNotice::of(summary, until.replace(summary.in_force_from)));
    Ok(Json(Notices { notices: shown.collect() }))
}

/// One of them, with all that it says.
#[utoipa::path(
    get, path = "/v1/policy/history/{id}", params(("id" = String, Path)),
    responses((status = 200, body = ToldNotice), Refused)
)]
pub(super) async fn one(_: PolicyReader, State(ops): State<Operations>, id: Id) -> Answer<ToldNotice> {
    let id: u32 = id.ok().and_then(|id| id.0.parse().ok()).ok_or(Refused::NotFound)?;
    let record = ops.notices.notice(id).await?.ok_or(Refused::NotFound)?;
    let next = ops.notices.notice(id.saturating_add(1)).await?;
    let until = next.map(|next| next.summary.in_force_from);
    let told = serde_json::from_str(&record.document).map_err(|_| Refused::Internal)?;
    Ok(Json(ToldNotice { shown: ShownNotice::of(&record.summary, until), told }))
}
