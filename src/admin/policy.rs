//! `policy show`, `retention run | report`.

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::access::{PolicyReader, Privacy};
use super::api::Answer;
use super::body::Asked;
use super::operations::Operations;
use super::query::parameters;
use super::refused::Refused;
use crate::audit::{Action, Effect, Event};
use crate::privacy::{Kept, Periods, REGISTER, Round, Tongue, policy};
use crate::store::Proof;

/// The policy in force, as `docs/privacy.md` describes it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct Policy(pub Map<String, Value>);

/// What is kept for how long, and what is due.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RetentionReport {
    /// One each kind of data.
    pub kinds: Vec<KeptKind>,
    /// Whether nothing that goes by age is erased for now, because the clock was set or is far from the store's last use.
    pub clock_doubted: bool,
    /// The round that was noted last; null before the first.
    pub last_run: Option<LastRun>,
}

/// A kind of data.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeptKind {
    /// As in `policy show`.
    pub kind: String,
    /// For how long.
    pub retention: String,
    /// How many are due; null where age alone does not decide.
    pub due: Option<u64>,
    /// How many would be due and are under legal hold.
    pub held: Option<u64>,
}

/// A round of erasure.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LastRun {
    /// When.
    pub at: String,
    /// Whether the clock was believed.
    pub ok: bool,
    /// How many went.
    pub detail: String,
}

impl From<Proof> for LastRun {
    fn from(proof: Proof) -> Self {
        Self { at: proof.at.rfc3339(), ok: proof.ok, detail: proof.detail }
    }
}

/// Whether something is to be erased.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunRetention {
    /// Only says what would be.
    #[serde(default)]
    dry_run: bool,
}

/// What a round erased, or would.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RetentionRun {
    /// Whether nothing was erased, and the counts are of what would be.
    pub dry_run: bool,
    /// How many went.
    pub erased: RetentionCounts,
    /// Handsets that are old enough and under legal hold; they stay.
    pub held: u64,
    /// Whether the clock is doubted, so that nothing that goes by age was erased.
    pub clock_doubted: bool,
}

/// How many.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RetentionCounts {
    /// Handsets.
    pub bindings: u64,
    /// Rows of the statistics.
    pub statistics: u64,
    /// Files of the access log, a day each.
    pub log_files: u64,
    /// Files of the security log, a day each.
    pub security_log_files: u64,
    /// Keys of days of the sealed access log.
    pub log_keys: u64,
    /// Entries of the audit trail, some at a time.
    pub audit: u64,
    /// Backups whose key was destroyed.
    pub backups: u64,
}

impl RetentionRun {
    fn of(round: Round, dry_run: bool) -> Self {
        let Round { bindings, held, statistics, log_files, security_log_files, log_keys, backups, audit, .. } = round;
        let erased = RetentionCounts { bindings, statistics, log_files, security_log_files, log_keys, audit, backups };
        Self { dry_run, erased, held, clock_doubted: round.clock_doubted }
    }
}

/// Every kind of data that is kept, with purpose, retention and ground, and the settings that decide about it.
#[utoipa::path(
    get, path = "/v1/policy",
    params(("lang" = Option<String>, Query, description = "`en` or `ja`; `en` if unsaid", pattern = "^(en|ja)$")),
    responses((status = 200, body = Policy), Refused)
)]
pub(super) async fn show(_: PolicyReader, State(ops): State<Operations>, RawQuery(query): RawQuery) -> Answer<Policy> {
    match policy(&ops.config.config(), tongue(query.as_deref())?) {
        Value::Object(members) => Ok(Json(Policy(members))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Err(Refused::Internal),
    }
}

/// The language that a query asks for.
pub(super) fn tongue(query: Option<&str>) -> Result<Tongue, Refused> {
    match parameters(query, &["lang"])?.get("lang") {
        None => Ok(Tongue::default()),
        Some(tag) => Tongue::parse(tag).ok_or(Refused::ParameterInvalid("lang")),
    }
}

/// For how long each kind is kept, how many records are due, and when a round last ran.
#[utoipa::path(get, path = "/v1/retention", responses((status = 200, body = RetentionReport), Refused))]
pub(super) async fn report(_: PolicyReader, State(ops): State<Operations>) -> Answer<RetentionReport> {
    let due = ops.promises.retention.due().await?;
    let periods = Periods::of(&ops.config.config());
    let kind = |purpose: &crate::privacy::Purpose| {
        let (due, held) = match purpose.kept {
            Kept::Unused => (Some(due.bindings), Some(due.held)),
            Kept::Statistics => (Some(due.statistics), None),
            Kept::Audit => (Some(due.audit), None),
            Kept::AccessLog if purpose.kind == "log-keys" => (Some(due.log_keys), None),
            Kept::AccessLog => (Some(due.log_files), None),
            Kept::SecurityLog => (Some(due.security_log_files), None),
            Kept::UntilErased
            | Kept::WithBinding
            | Kept::Session
            | Kept::Code
            | Kept::UntilReleased
            | Kept::Elsewhere
            | Kept::WhileNeeded
            | Kept::ForEver
            | Kept::Latest
            | Kept::Process => (None, None),
        };
        let retention = purpose.kept.say(&periods, Tongue::English);
        KeptKind { kind: purpose.kind.to_owned(), retention, due, held }
    };
    let last_run = ops.promises.retention.last().await?.map(LastRun::from);
    Ok(Json(RetentionReport { kinds: REGISTER.iter().map(kind).collect(), clock_doubted: due.clock_doubted, last_run }))
}

/// Erases what is old enough, now instead of at the next round of upkeep; or says what would be.
#[utoipa::path(
    post, path = "/v1/retention/run", request_body = Option<RunRetention>,
    responses((status = 200, body = RetentionRun), Refused)
)]
pub(super) async fn run(
    Privacy(by): Privacy,
    State(ops): State<Operations>,
    Asked(asked): Asked<RunRetention>,
) -> Answer<RetentionRun> {
    if asked.dry_run {
        return Ok(Json(RetentionRun::of(ops.promises.retention.due().await?, true)));
    }
    let work = async {
        ops.sessions.sweep(ops.clock.now(), false).await?;
        let round = ops.promises.retention.round().await?;
        // What ended leaves the file now, and not with the day.
        ops.promises.subjects.note_erased();
        ops.promises.subjects.finish().await?;
        Ok::<_, Refused>((round, Effect::of(round.bindings)))
    };
    let round = ops.audit.act(Event::new(Action::RetentionRun, by), &*ops.clock, work).await?;
    Ok(Json(RetentionRun::of(round, false)))
}
