//! The `security` and `system` streams: what the program says with `tracing`, as JSON lines on stdout.

use std::fmt::{self, Debug, Write as _};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use serde::Serializer as _;
use serde::ser::SerializeMap;
use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use super::json::{Ascii, beginning};
use super::log_choice;
use super::metrics::Metrics;
use super::queue::{LineQueue, WhenFull};
use super::security::TARGET as SECURITY;
use super::security_file;
use super::stdout::Stdout;
use crate::clock::{Clock, Day, Timestamp};
use crate::config::LogLevel;

/// Bytes of a field's value that are kept.
const VALUE_BYTES: usize = 2048;

/// Keeps the writer alive; dropping it writes what waits.
#[must_use = "the log ends when this is dropped"]
pub struct LogGuard(#[expect(dead_code, reason = "held for its drop")] Option<Arc<LineQueue>>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        security_file::close();
    }
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The variable does not parse.
    #[error("SEKISHO_LOG: {0}; write a level such as `info`, or `sekisho::upstream=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A second call in one process.
    #[error("the log was set up already")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The system gave no thread.
    #[error("the log's thread cannot start: {0}")]
    Thread(#[from] io::Error),
}

/// Sends the streams `security`, which may have a file of its own, and `system` to stdout as JSON lines, from `level` on unless `SEKISHO_LOG`, or somebody
/// later, says otherwise; the security stream in any case.
///
/// Lines wait up to a second for a slow reader rather than being dropped, because whoever can flood the log must not
/// be able to hide in it; what is lost even so is counted (`sekisho_log_lines_lost_total{stream="log"}`).
///
/// # Errors
/// [`LogError`]; once a process only.
pub fn init(clock: Arc<dyn Clock>, metrics: &Metrics, level: LogLevel) -> Result<LogGuard, LogError> {
    let queue = Arc::new(LineQueue::start(Box::new(Stdout), Duration::ZERO, metrics.lines_lost("log"))?);
    // The subscriber lives as long as the process; the guard alone must keep the queue, so that dropping it flushes.
    let out = Arc::downgrade(&queue);
    let out = move |stream: &str, day: Day, line: &[u8]| {
        if stream == SECURITY && security_file::write(day, line) {
            return;
        }
        if let Some(queue) = out.upgrade() {
            queue.push(day, line, WhenFull::Wait);
        }
    };
    install(JsonLines { clock, out }, level)?;
    Ok(LogGuard(Some(queue)))
}

/// Sends the same streams to stderr, for a person at a terminal; security to its file, where it has one.
///
/// # Errors
/// As [`init`].
pub fn init_for_people(clock: Arc<dyn Clock>) -> Result<LogGuard, LogError> {
    install(PeopleLines { clock }, LogLevel::Info)?;
    Ok(LogGuard(None))
}

fn install(lines: impl Layer<Registry> + Send + Sync, level: LogLevel) -> Result<(), LogError> {
    let chosen = log_choice::configured(level);
    let (filter, handle) = reload::Layer::new(log_choice::filter(&chosen)?);
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(passing(filter)));
    tracing::subscriber::set_global_default(subscriber)?;
    log_choice::installed(handle, &chosen);
    Ok(())
}

/// What passes beside `chosen`: security always; of libraries nothing below `warn`, for at their finer levels they
/// print what they parse, and that is headers.
fn passing<S: Subscriber + for<'a> LookupSpan<'a>>(chosen: impl Filter<S>) -> impl Filter<S> {
    let ours = |m: &Metadata<'_>| m.target().split("::").next() == Some("sekisho") || *m.level() <= Level::WARN;
    // The hints keep libraries' finer callsites as cheap as if nobody listened.
    let ours = filter_fn(ours).with_max_level_hint(LevelFilter::TRACE);
    let security = filter_fn(|m| m.target() == SECURITY).with_max_level_hint(LevelFilter::INFO);
    chosen.and(ours).or(security)
}

fn stream(event: &Event<'_>) -> &'static str {
    if event.metadata().target() == SECURITY { SECURITY } else { "system" }
}

/// One JSON object a line.
struct JsonLines<W> {
    clock: Arc<dyn Clock>,
    out: W,
}

impl<S: Subscriber, W: Fn(&str, Day, &[u8]) + 'static> Layer<S> for JsonLines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = self.clock.now();
        if let Some(line) = json_line(event, now) {
            (self.out)(stream(event), now.day(), &line);
        }
    }
}

fn json_line(event: &Event<'_>, now: Timestamp) -> Option<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Ascii);
    let mut fields = JsonFields(serializer.serialize_map(None).ok()?);
    fields.entry("time", &now.rfc3339());
    fields.entry("stream", stream(event));
    fields.entry("level", &event.metadata().level().as_str().to_ascii_lowercase());
    event.record(&mut fields);
    let _ = fields.0.end(); // a Vec takes every write
    line.push(b'\n');
    Some(line)
}

struct JsonFields<M>(M);

impl<M: SerializeMap> JsonFields<M> {
    fn entry<T: serde::Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        let _ = self.0.serialize_entry(name, value); // a Vec takes every write
    }

    fn field<T: serde::Serialize + ?Sized>(&mut self, field: &Field, value: &T) {
        // A library's field must not pass for one of the line's own.
        if !matches!(field.name(), "time" | "stream" | "level") {
            self.entry(field.name(), value);
        }
    }
}

impl<M: SerializeMap> Visit for JsonFields<M> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, beginning(value, VALUE_BYTES));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, &value);
    }
}

/// `security  event=signed-in account=demo`, on stderr; a security event whose stream has a file goes there, as JSON.
struct PeopleLines {
    clock: Arc<dyn Clock>,
}

impl<S: Subscriber> Layer<S> for PeopleLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let stream = stream(event);
        if stream == SECURITY {
            let now = self.clock.now();
            if json_line(event, now).is_some_and(|line| security_file::write(now.day(), &line)) {
                return;
            }
        }
        let mut fields = PeopleFields(String::new());
        event.record(&mut fields);
        // Nowhere is left to say that stderr failed.
        let _ = writeln!(io::stderr().lock(), "{stream:<9}{:<6}{}", event.metadata().level(), fields.0);
    }
}

struct PeopleFields(String);

impl Visit for PeopleFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        struct Printable<'a>(&'a mut String);
        impl fmt::Write for Printable<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|c| match c {
                    ' '..='~' => self.0.write_char(c),
                    _ => write!(self.0, "{}", c.escape_unicode()),
                })
            }
        }
        if field.name() != "message" {
            self.0.push_str(field.name());
            self.0.push('=');
        }
        let _ = write!(Printable(&mut self.0), "{value:?}"); // a String takes every write
        self.0.push(' ');
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};
    use tracing_subscriber::EnvFilter;

    use super::*;
    use crate::binding::AccountId;
    use crate::clock::ManualClock;
    use crate::config::ClientAddressDetail;
    use crate::refusal::Reason;
    use crate::telemetry::{Actor, SecurityEvent, security};

    /// The lines that `work` writes with `chosen` in `SEKISHO_LOG`.
    fn logged(chosen: &str, work: impl FnOnce()) -> Vec<Value> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let out = {
            let written = Arc::clone(&written);
            move |_: &str, _: Day, line: &[u8]| written.lock().unwrap().extend_from_slice(line)
        };
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(1_795_530_117_042)));
        let filter = EnvFilter::builder().parse(chosen).unwrap();
        let layer = JsonLines { clock, out }.with_filter(passing(filter));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    const HOSTILE: &str = "a\n{\"stream\":\"security\"}\u{9b}";

    #[test]
    fn a_line_has_its_fields_and_a_hostile_value_stays_in_it() {
        let lines = logged("info", || {
            tracing::warn!(target: "sekisho::test", n = 3, level = "forged", text = HOSTILE, "odd");
        });
        let expected = json!({
            "time": "2026-11-24T14:21:57.042Z", "stream": "system", "level": "warn", "message": "odd", "n": 3,
            "text": HOSTILE,
        });
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn libraries_are_heard_from_warn_on_and_security_always() {
        let account = AccountId::parse("alice").unwrap();
        for (chosen, expected) in [("trace", vec!["ours", "theirs", "null"]), ("off", vec!["null"])] {
            let lines = logged(chosen, || {
                tracing::trace!(target: "sekisho::edge", "ours");
                tracing::debug!(target: "sekishox", "a library's debug line");
                tracing::debug!(target: "h2::hpack", "a library's debug line");
                tracing::warn!(target: "h2::hpack", "theirs");
                let event = SecurityEvent::CodeIssued { account: &account, by: Actor::Uid(1001) };
                security(&event, None, ClientAddressDetail::Prefix);
            });
            let messages: Vec<_> = lines.iter().map(|l| l["message"].as_str().unwrap_or("null")).collect();
            assert_eq!(messages, expected, "{chosen}");
        }
    }

    #[test]
    fn finer_levels_cost_nothing_while_nobody_asked_for_them() {
        for (chosen, hint) in [("info", LevelFilter::INFO), ("off", LevelFilter::INFO), ("debug", LevelFilter::DEBUG)] {
            let filter = passing::<Registry>(EnvFilter::builder().parse(chosen).unwrap());
            assert_eq!(Filter::max_level_hint(&filter), Some(hint), "{chosen}");
        }
    }

    #[test]
    fn a_security_event_has_the_fixed_names_and_nothing_empty() {
        let account = AccountId::parse("alice").unwrap();
        let lines = logged("info", || {
            let ended = SecurityEvent::SessionsEnded { account: Some(&account), count: 2, by: Actor::Uid(0) };
            security(&ended, None, ClientAddressDetail::Prefix);
            let refused = SecurityEvent::Refused { reason: Reason::CodeInvalid, carrier: None };
            security(&refused, None, ClientAddressDetail::Prefix);
        });
        let time = "2026-11-24T14:21:57.042Z";
        let expected = [
            json!({"time": time, "stream": "security", "level": "info", "event": "sessions-ended", "account": "alice",
                   "count": 2, "by": "uid:0"}),
            json!({"time": time, "stream": "security", "level": "info", "event": "refused", "reason": "code-invalid"}),
        ];
        assert_eq!(lines, expected);
    }
}
