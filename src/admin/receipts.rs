//! `GET /v1/rotations/{id}/receipt`.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::access::SecurityReader;
use super::api::{Answer, Id};
use super::operations::Operations;
use super::refused::Refused;
use crate::receipt::{CanaryError, IssueError};

/// A sealed receipt, as `docs/receipts.md` describes it; `rotation verify` judges it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct IssuedReceipt(Map<String, Value>);

impl IssuedReceipt {
    /// The member at a JSON pointer (RFC 6901).
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        let (first, rest) = pointer.strip_prefix('/')?.split_once('/')?;
        self.0.get(first)?.pointer(&format!("/{rest}"))
    }
}

/// The receipt of a rotation that is done.
#[utoipa::path(
    get, path = "/v1/rotations/{id}/receipt", params(("id" = String, Path)),
    responses((status = 200, body = IssuedReceipt), Refused)
)]
pub(super) async fn receipt(_: SecurityReader, State(ops): State<Operations>, id: Id) -> Answer<IssuedReceipt> {
    let Path(id) = id.map_err(|_| Refused::NotFound)?;
    let issued = ops.receipts.issued(&id, ops.clock.now()).await?;
    Ok(Json(IssuedReceipt(issued)))
}

impl From<IssueError> for Refused {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::NotFound => Self::NotFound,
            IssueError::NotDone(state) => Self::ReceiptNotDue(state.as_str()),
            IssueError::Store(error) | IssueError::Canary(CanaryError::Store(error)) => Self::Store(error),
            IssueError::Canary(CanaryError::Digest(_)) => Self::KeySuspended,
            IssueError::Unsealed(error) => {
                tracing::error!(%error, "no receipt was issued");
                Self::Internal
            }
        }
    }
}
