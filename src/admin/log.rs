//! `log level`: what the system log tells, looked at and chosen anew while the gateway runs.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Operator;
use super::api::Answer;
use super::body::{Asked, NoFields};
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Effect, Event};
use crate::telemetry::{Actor, LogChoice, LogInForce, choose_log, log_in_force};

/// What the system log tells. The security log is written in any case.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLevel {
    /// A level, levels of parts, or both, such as `warn,sekisho::upstream=debug`.
    pub level: String,
    /// What holds after the next reload or start: `SEKISHO_LOG`, or else `log.level`.
    pub configured: String,
}

impl From<LogInForce> for LogLevel {
    fn from(LogInForce { configured, level }: LogInForce) -> Self {
        Self { level, configured }
    }
}

/// What is to be logged from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLogLevel {
    /// As [`LogLevel::level`]: off, error, warn, info, debug or trace, or parts of the program with their own.
    level: String,
}

/// What the system log tells now.
#[utoipa::path(get, path = "/v1/log", responses((status = 200, body = LogLevel), Refused))]
pub(super) async fn show(_: Operator) -> Json<LogLevel> {
    Json(log_in_force().into())
}

/// Chooses anew, until the next reload or start.
#[utoipa::path(
    put, path = "/v1/log", request_body = NewLogLevel, responses((status = 200, body = LogLevel), Refused)
)]
pub(super) async fn choose(
    Operator(by): Operator,
    State(ops): State<Operations>,
    Asked(asked): Asked<NewLogLevel>,
) -> Answer<LogLevel> {
    let choice: LogChoice = asked.level.parse()?;
    change(&ops, by, Some(&choice)).await
}

/// Goes back to what is configured.
#[utoipa::path(delete, path = "/v1/log", responses((status = 200, body = LogLevel), Refused))]
pub(super) async fn reset(
    Operator(by): Operator,
    State(ops): State<Operations>,
    _: Asked<NoFields>,
) -> Answer<LogLevel> {
    change(&ops, by, None).await
}

async fn change(ops: &Operations, by: Actor, choice: Option<&LogChoice>) -> Answer<LogLevel> {
    let object = choice.map_or_else(|| log_in_force().configured, ToString::to_string);
    // In the log as well, while it still tells that much.
    tracing::warn!(%by, level = object, "what the system log tells is chosen anew");
    let work = async { Ok::<_, Refused>((choose_log(choice), Effect::none())) };
    let log = ops.audit.act(Event::new(Action::LogLevel, by).object(object), &*ops.clock, work).await?;
    Ok(Json(log.into()))
}
