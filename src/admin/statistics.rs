//! `stats`: how many, per day and carrier; small counts withheld.

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Privacy;
use super::api::Answer;
use super::operations::Operations;
use super::query::parameters;
use super::refused::Refused;
use crate::clock::Day;
use crate::privacy::{MOST_DAYS, ShownCount};
use crate::store::Counted;

/// Days that are shown where nobody says which.
const DAYS: u32 = 30;

/// How many there were.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// The first day asked for.
    pub from: String,
    /// The last.
    pub to: String,
    /// Smaller counts are withheld.
    pub floor: u64,
    /// Bound handsets that signed in.
    pub sign_ins: Vec<Stat>,
    /// Handsets that were bound.
    pub enrolments: Vec<Stat>,
    /// Requests that were refused.
    pub refusals: Vec<Stat>,
}

/// A count of a day and a carrier.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Stat {
    /// The day, UTC.
    pub day: String,
    /// The carrier profile.
    pub carrier: String,
    /// How many; null where that is withheld.
    pub count: Option<u64>,
    /// Whether the day is not over: the count is rounded down to a multiple of the floor.
    pub open: bool,
}

/// How many sign-ins, enrolments and refusals there were, per day and carrier. Counts under `privacy.statistics_floor`, and
/// those that would tell one of these, are null.
#[utoipa::path(
    get, path = "/v1/stats",
    params(
        ("from" = Option<String>, Query, description = "The first day, YYYY-MM-DD; 30 days before `to` if absent"),
        ("to" = Option<String>, Query, description = "The last day, YYYY-MM-DD; today if absent"),
    ),
    responses((status = 200, body = Stats), Refused)
)]
pub(super) async fn stats(_: Privacy, State(ops): State<Operations>, RawQuery(query): RawQuery) -> Answer<Stats> {
    let asked = parameters(query.as_deref(), &["from", "to"])?;
    let day = |name: &'static str| {
        asked.get(name).map(|text| Day::parse(text).ok_or(Refused::ParameterInvalid(name))).transpose()
    };
    let today = ops.clock.now().day();
    let to = day("to")?.unwrap_or(today);
    let from = day("from")?.unwrap_or_else(|| to.minus_days(DAYS));
    let days = i64::from(to.unix_days()) - i64::from(from.unix_days());
    if !(0..i64::from(MOST_DAYS)).contains(&days) {
        return Err(Refused::ParameterInvalid("from"));
    }
    let config = ops.config.config();
    let enabled = config.carriers.profiles().iter().filter(|profile| profile.enabled());
    let carriers: Vec<_> = enabled.map(|profile| profile.name().clone()).collect();
    let floor = config.privacy.statistics_floor;
    let shown = ops.promises.statistics.shown((from, to), &carriers, floor, today).await?;
    let of = |kind: Counted| shown.iter().filter(|cell| cell.kind == kind).map(Stat::of).collect();
    Ok(Json(Stats {
        from: from.to_string(),
        to: to.to_string(),
        floor,
        sign_ins: of(Counted::SignIn),
        enrolments: of(Counted::Enrolment),
        refusals: of(Counted::Refusal),
    }))
}

impl Stat {
    fn of(cell: &ShownCount) -> Self {
        let ShownCount { day, carrier, count, open, .. } = cell;
        Self { day: day.to_string(), carrier: carrier.to_string(), count: *count, open: *open }
    }
}
