//! `bindings import`: a body of any length in, bindings in batches into the store, progress out while it goes on.

use std::pin::{Pin, pin};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::header;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::access::Operator;
use super::documents::{ImportEvent, ImportProgress, Imported, RefusedLine};
use super::lines::{Line, read_lines};
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Begun, Effect, Event, Outcome};
use crate::binding::{DigestError, DigestedLine, ImportLine, ImportRefusal};
use crate::config::ClientAddressDetail;
use crate::store::{ImportOutcome, StoreError};
use crate::telemetry::{Actor, SecurityEvent, security};

/// Bindings in one transaction: enough that its fsync does not count, few enough that a sign-in does not wait for long.
const BATCH: usize = 500;
/// Identifiers that are being hashed. How many of them are stretched at a time is the key ring's business.
const AT_ONCE: usize = 16;
/// Refused lines that are named; the others are counted.
const LISTED: usize = 10_000;
/// How often a batch that does not fill is written, and progress told.
const TICK: Duration = Duration::from_secs(1);
/// How often lines are tried again because the key ring moved.
const ATTEMPTS: u32 = 5;
/// Events that wait for a slow caller; progress beyond is not told.
const EVENTS: usize = 8;
/// How long a caller who was told why it ends may go on sending.
const PATIENCE: Duration = Duration::from_secs(10);

/// Binds handsets whose identifiers another system kept in clear: one JSON object a line, `account`, `carrier`,
/// `identifier`. Accounts are created where there are none.
///
/// The answer begins at once and is one JSON object a line too: progress whenever a batch is durable, at last the
/// counts and the lines that were refused, by number, or why it ended early. A line that was taken before changes
/// nothing, so an import that broke off is run again, and an Idempotency-Key is not needed.
#[utoipa::path(
    post, path = "/v1/bindings/import",
    request_body(content = Option<String>, content_type = "application/x-ndjson"),
    responses((status = 200, body = ImportEvent, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn import(Operator(by): Operator, State(ops): State<Operations>, body: Body) -> Response {
    let (events, mut told) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        let config = ops.config.config();
        let mut lines = pin!(read_lines(body, |line| match line {
            Line::Whole(text) | Line::Unended(text) => ImportLine::read(text, &config.carriers),
            Line::TooLong => Err(ImportRefusal::LineTooLong),
        }));
        let mut import = Import { ops, by, begun: None, events, done: Imported::default(), batch: Vec::new() };
        let ended = import.run(lines.as_mut()).await;
        let Import { ops, begun, events, mut done, .. } = import;
        let (count, unchanged, refused) = (done.imported, done.unchanged, done.refused_in_all());
        let event = SecurityEvent::BindingsImported { count, unchanged, refused, by };
        security(&event, None, ClientAddressDetail::None);
        let outcome = if ended.is_ok() { Outcome::Done } else { Outcome::Failed };
        let noted = match begun {
            Some(begun) => ops.audit.end(begun, outcome, Effect::of(count), ops.clock.now()).await,
            None => Ok(()),
        };
        let last = match ended.and(noted.map_err(Interrupted::from)) {
            Ok(()) => {
                done.refused.sort_unstable_by_key(|refused| refused.line);
                ImportEvent::Done(done)
            }
            Err(Interrupted::ByUs(refused)) => ImportEvent::Refused(refused.document()),
            Err(Interrupted::ByCaller) => return,
        };
        // A caller who is gone does not want to hear it.
        let _ = events.send(event_line(&last)).await;
        // Closing before the body's end would take the last line from a caller who still sends.
        let _ = timeout(PATIENCE, lines.for_each(|_| std::future::ready(()))).await;
    });
    let told = stream::poll_fn(move |context| told.poll_recv(context)).map(Ok::<_, std::convert::Infallible>);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(told)).into_response()
}

/// Why an import ended before its last line.
enum Interrupted {
    ByUs(Refused),
    /// The body broke off. The lines since the last batch are forgotten.
    ByCaller,
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::ByUs(error.into())
    }
}

impl From<DigestError> for Interrupted {
    fn from(error: DigestError) -> Self {
        Self::ByUs(match error {
            DigestError::KeySuspended => Refused::KeySuspended,
            // An import waits for its turn: there is none only when the gateway ends.
            DigestError::Busy => Refused::Stopping,
        })
    }
}

/// An import at work. What `done` counts as imported is durable.
struct Import {
    ops: Operations,
    by: Actor,
    /// Stands in the audit trail before the first batch.
    begun: Option<Begun>,
    events: mpsc::Sender<Bytes>,
    done: Imported,
    /// Lines, each with its number.
    batch: Vec<(u64, DigestedLine)>,
}

type ReadLine = Result<(u64, Result<ImportLine, ImportRefusal>), axum::Error>;

impl Import {
    async fn run(&mut self, lines: Pin<&mut impl Stream<Item = ReadLine>>) -> Result<(), Interrupted> {
        let (keys, entropy, shutdown) = (self.ops.keys.clone(), self.ops.entropy.clone(), self.ops.shutdown.clone());
        let digest = async |line: ReadLine| {
            let (number, line) = line.map_err(|_| Interrupted::ByCaller)?;
            Ok::<_, Interrupted>(match line {
                Ok(line) => (number, Ok(line.digest(&keys.binding, &*entropy).await?)),
                Err(refusal) => (number, Err(refusal)),
            })
        };
        let mut records = pin!(lines.map(digest).buffered(AT_ONCE));
        let mut stopping = pin!(shutdown.cancelled());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                record = records.next() => match record.transpose()? {
                    Some((number, Ok(line))) => {
                        self.batch.push((number, line));
                        if self.batch.len() == BATCH {
                            self.settle().await?;
                        }
                    }
                    Some((number, Err(refusal))) => self.refuse(number, refusal),
                    None => return self.settle().await,
                },
                _ = tick.tick() => self.settle().await?,
                () = stopping.as_mut() => return Err(Interrupted::ByUs(Refused::Stopping)),
            }
        }
    }

    /// Writes the batch, and tells how far it is.
    async fn settle(&mut self) -> Result<(), Interrupted> {
        let mut batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() && self.begun.is_none() {
            let deed = Event::new(Action::BindingsImport, self.by);
            self.begun = Some(self.ops.audit.begin(deed, self.ops.clock.now()).await?);
        }
        let before = self.done.imported;
        for attempt in 1..=ATTEMPTS {
            if batch.is_empty() {
                break;
            }
            batch = self.write(batch, attempt == ATTEMPTS).await?;
        }
        self.ops.metrics.bindings_imported(self.done.imported - before);
        let Imported { imported, unchanged, .. } = self.done;
        let progress = ImportProgress { imported, unchanged, refused: self.done.refused_in_all() };
        match self.events.try_send(event_line(&ImportEvent::Progress { progress })) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Interrupted::ByCaller),
        }
    }

    /// Writes `lines` and counts them; returns those for which the key ring moved on, under the keys that came, unless
    /// this is the last attempt.
    async fn write(
        &mut self,
        lines: Vec<(u64, DigestedLine)>,
        last: bool,
    ) -> Result<Vec<(u64, DigestedLine)>, Interrupted> {
        let (per_account, now) = (self.ops.config.config().binding.per_account, self.ops.clock.now());
        let bindings = lines.iter().map(|(_, line)| line.binding()).collect();
        let outcomes = self.ops.bindings.import(bindings, per_account, now).await?;
        let mut outdated = Vec::new();
        for ((number, line), outcome) in lines.into_iter().zip(outcomes) {
            match ImportRefusal::judge(outcome) {
                Err(_) if outcome == ImportOutcome::Stale && !last => {
                    outdated.push((number, line.again(&self.ops.keys.binding).await?));
                }
                Ok(true) => self.done.imported += 1,
                Ok(false) => self.done.unchanged += 1,
                Err(refusal) => self.refuse(number, refusal),
            }
        }
        Ok(outdated)
    }

    fn refuse(&mut self, line: u64, refusal: ImportRefusal) {
        if self.done.refused.len() < LISTED {
            self.done.refused.push(RefusedLine { line, reason: refusal.as_str().to_owned() });
        } else {
            self.done.refused_beyond += 1;
        }
    }
}

fn event_line(event: &ImportEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_else(|_| unreachable!("counts and words become JSON"));
    line.push(b'\n');
    line.into()
}
