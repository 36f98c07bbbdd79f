//! `logs read`: records of a sealed access log in, their lines in clear out, for as long as the key of their day lives.
//!
//! The caller sends the file, also an old copy of it: this API opens what it is given and reads no file of the machine's.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::access::LogReader;
use super::documents::Refusal;
use super::lines::{Line, read_lines};
use super::operations::Operations;
use super::query::parameters;
use super::refused::Refused;
use crate::audit::{Action, Effect, Event};
use crate::clock::Day;
use crate::keys::LogDay;
use crate::logs::{Finding, Found, KeyOfDay, SealedLine, SealedReader};
use crate::telemetry::Actor;

/// Events that wait for a slow caller.
const EVENTS: usize = 8;
/// How long a caller who was told why it ends may go on sending.
const PATIENCE: Duration = Duration::from_secs(10);

/// A line of the answer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum LogEvent {
    /// Lines in clear, whole, each with its line feed.
    Lines {
        /// Their text.
        lines: String,
    },
    /// Something that does not fit, or that cannot be read.
    Finding {
        /// What, and where.
        finding: LogFinding,
    },
    /// The end: all that was sent was looked at.
    Done(LogsRead),
    /// Why it ended early.
    Refused(Refusal),
}

/// Something that does not fit, or that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogFinding {
    /// The line of the file, from 1.
    pub line: u64,
    /// `changed`, `missing`, `repeated`: damage. `torn`, `unclosed`, `open`: what a gateway that was killed, or still writes,
    /// leaves. `destroyed`, `unknown`: there is no key of that day.
    pub found: String,
    /// Whether somebody, or a medium, must have done this to the file.
    pub damage: bool,
    /// The day that it is about, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsRead {
    /// Lines in clear that were handed out.
    pub read: u64,
    /// Records that were changed, missing or repeated.
    pub damaged: u64,
    /// Days of which no key is left or known.
    pub days_without_key: u64,
}

/// Opens the records of a sealed access log: the file goes up, its lines come back, in the order of the file.
///
/// Each day that is opened stands in the audit trail before its first line is handed out. The answer is one JSON object a
/// line; without the last, which has the counts, it broke off. An Idempotency-Key is not needed.
#[utoipa::path(
    post, path = "/v1/logs/read",
    params(
        ("from" = Option<String>, Query, description = "The first day, `YYYY-MM-DD`; without it all", pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
        ("to" = Option<String>, Query, description = "The last day; without it all", pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    ),
    request_body(content = Option<String>, content_type = "text/plain"),
    responses((status = 200, body = LogEvent, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn read(
    LogReader(by): LogReader,
    State(ops): State<Operations>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, Refused> {
    let days = Days::parse(query.as_deref())?;
    let (events, mut told) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        let mut lines = pin!(read_lines(body, |line| match line {
            Line::Whole(text) => (Some(text.to_vec()), true),
            Line::Unended(text) => (Some(text.to_vec()), false),
            Line::TooLong => (None, true),
        }));
        let mut opening = Opening { ops, by, days, keys: HashMap::new(), events, done: LogsRead::default() };
        let mut reader = SealedReader::default();
        let last = loop {
            match lines.next().await {
                None => {
                    let ended = opening.tell(reader.finish()).await;
                    break ended.map(|()| LogEvent::Done(opening.done.clone()));
                }
                // The caller broke off.
                Some(Err(_)) => return,
                Some(Ok((number, (text, ended)))) => {
                    let line = SealedLine::read(number, text.as_deref(), ended);
                    if let Err(interrupted) = opening.take(&mut reader, &line).await {
                        break Err(interrupted);
                    }
                }
            }
        };
        let last = match last {
            Ok(done) => done,
            Err(Interrupted::ByUs(refused)) => LogEvent::Refused(refused.document()),
            Err(Interrupted::ByCaller) => return,
        };
        // A caller who is gone does not want to hear it.
        let _ = opening.events.send(event_line(&last)).await;
        // Closing before the body's end would take the last line from a caller who still sends.
        let _ = timeout(PATIENCE, lines.for_each(|_| std::future::ready(()))).await;
    });
    let told = stream::poll_fn(move |context| told.poll_recv(context)).map(Ok::<_, std::convert::Infallible>);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(told)).into_response())
}

/// The days that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days {
    from: Option<Day>,
    to: Option<Day>,
}

impl Days {
    fn parse(query: Option<&str>) -> Result<Self, Refused> {
        let found = parameters(query, &["from", "to"])?;
        let day = |name: &'static str| {
            let text = found.get(name);
            text.map(|text| Day::parse(text).ok_or(Refused::ParameterInvalid(name))).transpose()
        };
        let (from, to) = (day("from")?, day("to")?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(Refused::ParameterInvalid("to"));
        }
        Ok(Self { from, to })
    }

    fn contain(self, day: Day) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

/// Why it ended before the last line.
enum Interrupted {
    ByUs(Refused),
    ByCaller,
}

/// A file that is being opened.
struct Opening {
    ops: Operations,
    by: Actor,
    days: Days,
    /// Of the days that were met. Those that have a key stand in the audit trail by then.
    keys: HashMap<Day, Arc<LogDay>>,
    events: mpsc::Sender<Bytes>,
    done: LogsRead,
}

impl Opening {
    async fn take(&mut self, reader: &mut SealedReader, line: &SealedLine) -> Result<(), Interrupted> {
        if self.ops.shutdown.is_cancelled() {
            return Err(Interrupted::ByUs(Refused::Stopping));
        }
        let known = match line.day().filter(|day| self.days.contain(*day)) {
            None => None,
            Some(day) => Some(self.key(day).await.map_err(Interrupted::ByUs)?),
        };
        let key = match known.as_deref() {
            None => KeyOfDay::NotAsked,
            Some(LogDay::Key(key)) => KeyOfDay::Key(key),
            Some(LogDay::Destroyed) => KeyOfDay::Destroyed,
            Some(LogDay::Unknown) => KeyOfDay::Unknown,
        };
        self.tell(reader.take(line, key)).await
    }

    /// What is known of a day. That somebody reads it stands in the trail before they can.
    async fn key(&mut self, day: Day) -> Result<Arc<LogDay>, Refused> {
        if let Some(known) = self.keys.get(&day) {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(self.ops.lifecycle.log_key(day).await?);
        if let LogDay::Key(_) = *known {
            let event = Event::new(Action::LogRead, self.by).object(day).effect(Effect::none());
            self.ops.audit.note(event, self.ops.clock.now()).await?;
        }
        // Made-up records can name a great many days; those without a key are asked for again.
        if matches!(*known, LogDay::Key(_)) || self.keys.len() < 1000 {
            self.keys.insert(day, Arc::clone(&known));
        }
        Ok(known)
    }

    async fn tell(&mut self, found: Vec<Found>) -> Result<(), Interrupted> {
        for found in found {
            let event = match found {
                Found::Lines(lines) => {
                    self.done.read += lines.split(|byte| *byte == b'\n').skip(1).count() as u64;
                    LogEvent::Lines { lines: String::from_utf8_lossy(&lines).into_owned() }
                }
                Found::Finding(Finding { line, kind, day }) => {
                    let (damage, without_key) = (kind.is_damage(), kind.is_without_key());
                    self.done.damaged += u64::from(damage);
                    self.done.days_without_key += u64::from(without_key);
                    let (found, day) = (kind.as_str().to_owned(), day.map(|day| day.to_string()));
                    LogEvent::Finding { finding: LogFinding { line, found, damage, day } }
                }
            };
            self.events.send(event_line(&event)).await.map_err(|_| Interrupted::ByCaller)?;
        }
        Ok(())
    }
}

fn event_line(event: &LogEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_else(|_| unreachable!("texts and counts become JSON"));
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_asked_for_once_and_in_their_order() {
        let day = |text| Day::parse(text).unwrap();
        let days = Days::parse(Some("from=2026-11-24&to=2026-11-26")).unwrap();
        for (text, within) in [("2026-11-23", false), ("2026-11-24", true), ("2026-11-26", true), ("2026-11-27", false)]
        {
            assert_eq!(days.contain(day(text)), within, "{text}");
        }
        assert!(Days::parse(None).unwrap().contain(day("1999-01-01")));
        for query in [
            "from=2026-11-27&to=2026-11-26",
            "from=2026-11-31",
            "from=",
            "day=2026-11-26",
            "to=2026-11-26&to=2026-11-26",
        ] {
            assert!(Days::parse(Some(query)).is_err(), "{query}");
        }
    }
}
