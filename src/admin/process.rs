//! What the verbs ask of the process itself: another configuration, how it does. Implemented by the gateway, which knows all
//! of it.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Operator;
use super::api::Answer;
use super::body::{Asked, NoFields};
use super::operations::Operations;
use super::refused::Refused;
use super::status::Status;
use crate::config::{Finding, Severity};
use crate::privacy::Promise;
use crate::store::StoreError;
use crate::telemetry::Actor;

/// The process, as far as the verbs can ask something of it.
#[async_trait]
pub trait Process: Send + Sync {
    /// Brings the configuration into force that stands in the file now, certificates and all, if it is sound. Goes on to its
    /// end though nobody waits for it.
    ///
    /// # Errors
    /// [`ReloadError`]; unless the audit trail failed at the very end, the former one holds.
    async fn reload(self: Arc<Self>, by: Actor) -> Result<Reloaded, ReloadError>;

    /// How it does now; also where the store does not answer.
    async fn status(&self) -> Status;

    /// How the promises of the privacy policy stand now.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn posture(&self) -> Result<Vec<Promise>, StoreError>;
}

/// Why a reload was not acknowledged.
#[derive(Debug)]
pub enum ReloadError {
    /// What is wrong with the one in the file, warnings included.
    Findings(Vec<Finding>),
    /// The gateway stops.
    Stopping,
    /// The audit trail could not be written.
    Store(StoreError),
}

impl From<StoreError> for ReloadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl crate::audit::Ends for ReloadError {
    fn outcome(&self) -> crate::audit::Outcome {
        match self {
            Self::Findings(_) | Self::Stopping => crate::audit::Outcome::Refused,
            Self::Store(_) => crate::audit::Outcome::Failed,
        }
    }
}

/// A configuration came into force.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// The file that it was read from.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal; the audit trail names the configuration by it.
    pub sha256: String,
    /// When.
    pub reloaded_at: String,
    /// What `check` would warn of, as `file:line: key: problem`.
    pub warnings: Vec<String>,
}

impl From<ReloadError> for Refused {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Findings(mut findings) => {
                // What keeps it from being used stands together and last, as `check` has it.
                findings.sort_by_key(|finding| finding.severity == Severity::Error);
                Self::ConfigurationUnsound(findings.iter().map(ToString::to_string).collect())
            }
            ReloadError::Stopping => Self::Stopping,
            ReloadError::Store(error) => Self::Store(error),
        }
    }
}

/// Brings the configuration into force that stands in the gateway's file now, if it is sound; otherwise the refusal lists
/// all `findings`, and the former one holds.
#[utoipa::path(post, path = "/v1/reload", responses((status = 200, body = Reloaded), Refused))]
pub(super) async fn reload(
    Operator(by): Operator,
    State(ops): State<Operations>,
    _: Asked<NoFields>,
) -> Answer<Reloaded> {
    Ok(Json(ops.process.reload(by).await?))
}
