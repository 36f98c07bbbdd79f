//! `drill compromise`: what would be if a binding key had leaked, found out on a copy of the store.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::access::Security;
use super::body::Asked;
use super::compromise::{self, CompromiseReport};
use super::documents::Refusal;
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Effect, Ends, Event, Outcome};
use crate::rotation::{DrillError, DrillReport, DrillStage, DrillTerms};
use crate::session::SessionPolicy;
use crate::store::ShadowError;

/// How often it is told how far it is.
const TICK: Duration = Duration::from_millis(500);
/// Events that wait for a slow caller; progress beyond is not told.
const EVENTS: usize = 8;
/// Why the key leaked, in the copy's own trail.
const REASON: &str = "drill";

/// Which key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDrill {
    /// A binding key; the active one if unsaid.
    key: Option<String>,
}

/// One line of the answer to a drill. The last one is [`ShownDrill`] or a refusal.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum DrillEvent {
    /// How far it is.
    Progress {
        /// Where.
        progress: DrillProgress,
    },
    /// It is done, and nothing is left of it.
    Done(Box<ShownDrill>),
    /// It ended early, and nothing is left of it.
    Refused(Refusal),
}

/// How far a drill is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DrillProgress {
    /// `copying`, `replacing`, `wrapping` or `erasing`.
    pub stage: String,
    /// Bindings that were moved, while they are.
    pub done: u64,
    /// Bindings in all.
    pub total: u64,
}

/// A drill that was done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ShownDrill {
    /// What it found.
    pub drill: DrillFindings,
}

/// What a drill found. It changed nothing: the report is of a copy of the store that is erased by now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DrillFindings {
    /// For which key.
    pub key: String,
    /// Minutes from the word to a store that is worthless to whoever has the key: what a leak would take here. Without the
    /// copy, and without rests for those who signed in meanwhile.
    pub minutes: f64,
    /// The same and all else in seconds.
    pub seconds: DrillSeconds,
    /// Bindings that are found today by what the key alone made; each is open to whoever has the key and the store.
    pub alone: u64,
    /// The same in the copy, after the wrap.
    pub alone_after: u64,
    /// Bytes of the copy.
    pub bytes: u64,
    /// What `keys compromise` would have reported.
    pub report: CompromiseReport,
}

/// What a drill took, in seconds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DrillSeconds {
    /// To copy the store and open the copy; a leak takes none of it.
    pub copied: f64,
    /// To a fresh key, the end of sessions, and the counts.
    pub replaced: f64,
    /// To wrap all records.
    pub wrapped: f64,
    /// Rests while records were wrapped, for those who signed in.
    pub rested: f64,
}

/// Rehearses `keys compromise` on a copy of the store that is made beside it and erased again: how long it takes here, whom it
/// concerns, which backups, who has to agree to its end. Changes nothing but the audit trail, which tells of it. Takes the
/// KEK, as a leak does, and room on the disk. One at a time.
///
/// The answer begins at once and is one JSON object a line: progress, at last what it found, or why it ended early. Who hangs
/// up calls it off.
#[utoipa::path(
    post, path = "/v1/drills/compromise", request_body = Option<NewDrill>,
    responses((status = 200, body = DrillEvent, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn compromise(
    Security(by): Security,
    State(ops): State<Operations>,
    Asked(asked): Asked<NewDrill>,
) -> Result<Response, Refused> {
    let key = ops.drill.key(asked.key.as_deref()).await?;
    let turn = ops.drill.turn().ok_or(Refused::DrillBusy)?;
    let begun = ops.audit.begin(Event::new(Action::CompromiseDrill, by).object(&key), ops.clock.now()).await?;
    let (events, mut told) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        let drilled = drill(&ops, &key, &events).await;
        drop(turn);
        let (outcome, effect) = match &drilled {
            Ok(done) => (
                Outcome::Done,
                done.compromise.reach.as_ref().map_or(Effect::none(), |reach| Effect::of(reach.bindings)),
            ),
            Err(error) => (error.outcome(), Effect::none()),
        };
        let noted = ops.audit.end(begun, outcome, effect, ops.clock.now()).await;
        let last = match (drilled.map_err(Refused::from), noted) {
            (Ok(done), Ok(())) => DrillEvent::Done(Box::new(ShownDrill { drill: findings(&ops, done).await })),
            (Ok(_), Err(error)) => DrillEvent::Refused(Refused::from(error).document()),
            (Err(refused), _) => DrillEvent::Refused(refused.document()),
        };
        // A caller who is gone does not want to hear it.
        let _ = events.send(line(&last)).await;
    });
    let told = stream::poll_fn(move |context| told.poll_recv(context)).map(Ok::<_, Infallible>);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(told)).into_response())
}

/// Does it, and tells how far it is; calls it off where nobody listens any more, or the gateway stops.
async fn drill(ops: &Operations, key: &str, events: &mpsc::Sender<Bytes>) -> Result<DrillReport, DrillError> {
    let stage = Arc::new(Mutex::new(DrillStage::Copying));
    let stop = ops.shutdown.child_token();
    let now_at = Arc::clone(&stage);
    let tell = move |next| *now_at.lock().unwrap_or_else(PoisonError::into_inner) = next;
    let mut running = std::pin::pin!(ops.drill.run(key, REASON, terms(ops), &stop, &tell));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            drilled = running.as_mut() => return drilled,
            () = events.closed(), if !stop.is_cancelled() => stop.cancel(),
            _ = tick.tick() => {
                let progress = progress(*stage.lock().unwrap_or_else(PoisonError::into_inner));
                // Who reads slowly misses some.
                let _ = events.try_send(line(&DrillEvent::Progress { progress }));
            }
        }
    }
}

fn terms(ops: &Operations) -> DrillTerms {
    let config = ops.config.config();
    let session = &config.session;
    DrillTerms {
        stretch: config.binding.stretch,
        periods: config.keys.periods,
        sessions: SessionPolicy { idle: session.idle, absolute: session.absolute, per_account: session.per_account },
        retention_days: config.binding.retention_days,
    }
}

async fn findings(ops: &Operations, done: DrillReport) -> DrillFindings {
    let DrillReport { compromise, alone, alone_after, bytes, copied_in, replaced_in, wrapped_in, rested } = done;
    DrillFindings {
        key: compromise.key.clone(),
        minutes: rounded((replaced_in + wrapped_in).as_secs_f64() / 60.0),
        seconds: DrillSeconds {
            copied: rounded(copied_in.as_secs_f64()),
            replaced: rounded(replaced_in.as_secs_f64()),
            wrapped: rounded(wrapped_in.as_secs_f64()),
            rested: rounded(rested.as_secs_f64()),
        },
        alone,
        alone_after,
        bytes,
        report: compromise::report(ops, compromise, None, ops.clock.now()).await,
    }
}

/// To the thousandth.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn progress(stage: DrillStage) -> DrillProgress {
    let (stage, done, total) = match stage {
        DrillStage::Copying => ("copying", 0, 0),
        DrillStage::Replacing => ("replacing", 0, 0),
        DrillStage::Wrapping { done, total } => ("wrapping", done, total),
        DrillStage::Erasing => ("erasing", 0, 0),
    };
    DrillProgress { stage: stage.to_owned(), done, total }
}

fn line(event: &DrillEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_else(|_| unreachable!("counts and words become JSON"));
    line.push(b'\n');
    line.into()
}

impl From<DrillError> for Refused {
    fn from(error: DrillError) -> Self {
        match error {
            DrillError::Shadow(ShadowError::Busy) => Self::DrillBusy,
            DrillError::Shadow(ShadowError::NoSpace { needs, free }) => Self::NoSpace { needs, free },
            DrillError::Shadow(ShadowError::Store(error)) => Self::Store(error),
            DrillError::Rotation(error) => error.into(),
            DrillError::Keys(error) => error.into(),
            DrillError::Stalled => Self::DrillStalled,
            DrillError::CalledOff => Self::Stopping,
        }
    }
}
