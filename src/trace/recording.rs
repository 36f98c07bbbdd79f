//! What is known of a sampled request: typed fields, bounded, of which spans are made.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Version};

use super::request::Stage;
use crate::clock::Timestamp;

/// Everything that a span may hold, by the name under which it leaves. Names are those of OpenTelemetry's semantic
/// conventions for HTTP, where these have one.
pub const SPAN_FIELDS: &[&str] = &[
    "trace_id",
    "span_id",
    "parent_span_id",
    "name",
    "kind",
    "start_time",
    "end_time",
    "status",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "url.path",
    "url.scheme",
    "server.address",
    "network.protocol.version",
    "error.type",
    "sekisho.upstream",
];

/// Bytes of a path that are kept, as in the access log.
const PATH_BYTES: usize = 512;
/// Child spans of one request; no way through the gateway makes as many.
const MOST_CHILDREN: usize = 32;

/// The ids of a request's own span.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanContext {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    /// The caller's span.
    pub(super) parent: Option<[u8; 8]>,
    /// W3C flags of the trace, sampled included.
    pub(super) flags: u8,
}

/// A request that is recorded, until it is answered.
pub(super) struct Recording {
    pub(super) context: SpanContext,
    at: Timestamp,
    began: Instant,
    method: &'static str,
    path: String,
    scheme: &'static str,
    version: Option<&'static str>,
    /// Locked for as long as a field is set, and never across an await. `None` once the request was answered.
    known: Mutex<Option<Known>>,
}

/// What came to be known on the way.
#[derive(Default)]
pub(super) struct Known {
    pub(super) host: Option<String>,
    pub(super) route: Option<String>,
    pub(super) children: Vec<Child>,
}

/// A part of the request's way.
pub(super) struct Child {
    pub(super) span: [u8; 8],
    pub(super) part: Part,
    /// Since the request began.
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// Which one.
pub(super) enum Part {
    Stage(Stage),
    Upstream { name: String, outcome: Outcome },
}

/// How a request to an upstream, or to the gateway, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With this status.
    Answered(u16),
    /// Without an answer, for this reason.
    Failed(&'static str),
}

/// A request that was answered: all that is sent of it.
pub(super) struct Finished {
    pub(super) context: SpanContext,
    pub(super) at: Timestamp,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) scheme: &'static str,
    pub(super) version: Option<&'static str>,
    pub(super) known: Known,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

impl Finished {
    /// Its spans, its own included.
    pub(super) fn spans(&self) -> u64 {
        1 + self.known.children.len() as u64
    }
}

impl Recording {
    pub(super) fn begin(
        context: SpanContext,
        at: Timestamp,
        method: &Method,
        path: &str,
        scheme: &'static str,
        version: Version,
    ) -> Self {
        Self {
            context,
            at,
            began: Instant::now(),
            method: method_word(method),
            path: beginning(path, PATH_BYTES).to_owned(),
            scheme,
            version: version_word(version),
            known: Mutex::new(Some(Known::default())),
        }
    }

    /// Time since the request began, by a clock that nobody sets.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Adds what came to be known; what comes after the answer is not part of it any more.
    pub(super) fn note(&self, note: impl FnOnce(&mut Known)) {
        if let Some(known) = &mut *self.known() {
            note(known);
        }
    }

    pub(super) fn add(&self, child: Child) {
        self.note(|known| {
            if known.children.len() < MOST_CHILDREN {
                known.children.push(child);
            }
        });
    }

    /// The request was answered. `None` if that was said before.
    pub(super) fn finish(&self, outcome: Outcome) -> Option<Finished> {
        let known = self.known().take()?;
        Some(Finished {
            context: self.context,
            at: self.at,
            method: self.method,
            path: self.path.clone(),
            scheme: self.scheme,
            version: self.version,
            known,
            outcome,
            took: self.elapsed(),
        })
    }

    /// Nothing panics while it holds this, so what poison would protect is whole.
    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A method that is known by name; a stranger's invention would be a label without bound.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}

const fn version_word(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// Up to so many bytes of a text, whole characters.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(path: &str) -> Recording {
        let context = SpanContext { trace: [1; 16], span: [2; 8], parent: None, flags: 1 };
        Recording::begin(context, Timestamp::from_unix_millis(0), &Method::GET, path, "http", Version::HTTP_2)
    }

    #[test]
    fn what_is_kept_of_a_request_is_bounded() {
        let recording = recording(&format!("/{}é", "x".repeat(PATH_BYTES - 2)));
        assert_eq!(recording.path().len(), PATH_BYTES - 1, "no half of a character");
        for _ in 0..2 * MOST_CHILDREN {
            let (from, to) = (Duration::ZERO, Duration::ZERO);
            recording.add(Child { span: [3; 8], part: Part::Stage(Stage::Identify), from, to });
        }
        let finished = recording.finish(Outcome::Answered(200)).unwrap();
        assert_eq!(finished.spans(), 1 + MOST_CHILDREN as u64);
        assert_eq!((finished.version, method_word(&Method::from_bytes(b"BREW").unwrap())), (Some("2"), "_OTHER"));
    }

    #[test]
    fn a_request_is_finished_once_and_what_comes_later_is_dropped() {
        let recording = recording("/");
        assert!(recording.finish(Outcome::Failed("client-left")).is_some());
        recording.note(|_| panic!("it was answered"));
        assert!(recording.finish(Outcome::Answered(200)).is_none());
    }
}
