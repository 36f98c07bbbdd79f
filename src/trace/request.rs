//! One request's way, for the stages that it passes: each says when it begins and ends. Costs a comparison where the request
//! is not sampled.

use std::sync::Arc;
use std::time::Duration;

use super::recording::{Child, Outcome, Part};
use super::tracer::Traced;

/// What the stages of one request write to. Copies are the same request.
#[derive(Clone, Default)]
pub struct RequestTrace(Sampling);

#[derive(Clone, Default)]
enum Sampling {
    /// No tracing is configured.
    #[default]
    Untraced,
    /// This request's turn it was not.
    NotSampled,
    Recorded(Arc<Traced>),
}

/// A part of a sign-in that may take time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The identifier is read out of the request.
    Identify,
    /// Its keyed hashes are computed, and waited for.
    Digest,
    /// The store is asked whose they are.
    Resolve,
    /// The store binds them to the account of a code.
    Enrol,
    /// The store opens a session.
    OpenSession,
}

impl Stage {
    /// The name of its span.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Digest => "digest",
            Self::Resolve => "resolve",
            Self::Enrol => "enrol",
            Self::OpenSession => "open session",
        }
    }
}

/// A stage that has begun; it ends when this is dropped.
#[must_use = "the stage ends when this is dropped"]
pub struct StageSpan {
    _open: Option<Open<Stage>>,
}

/// A request to an upstream; it ends when its answer, or its failure, is told.
#[derive(Default)]
pub struct UpstreamCall(Call);

#[derive(Default)]
enum Call {
    #[default]
    Untraced,
    NotSampled,
    Recorded(Box<Open<UpstreamName>>),
}

struct UpstreamName {
    name: String,
    outcome: Outcome,
}

/// A span that has begun.
struct Open<T: Told> {
    request: Arc<Traced>,
    span: [u8; 8],
    from: Duration,
    of: T,
}

/// The step of a trace that an upstream is told of.
pub(super) enum Step {
    Untraced,
    NotSampled,
    /// By this span.
    Recorded([u8; 8]),
}

/// Where no answer was waited for to its end.
const CLIENT_LEFT: &str = "client-left";

impl RequestTrace {
    pub(super) fn recorded(request: Traced) -> Self {
        Self(Sampling::Recorded(Arc::new(request)))
    }

    pub(super) const fn not_sampled() -> Self {
        Self(Sampling::NotSampled)
    }

    /// The host that was asked for, once it is known to be one of ours; a port is left out.
    pub fn host<'h>(&self, host: impl FnOnce() -> &'h str) {
        if let Sampling::Recorded(request) = &self.0 {
            let host = host();
            let name = match host.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
                _ => host,
            };
            request.recording.note(|known| known.host = Some(name.to_ascii_lowercase()));
        }
    }

    /// The route that was taken: a path of the configuration.
    pub fn route(&self, path: &str) {
        if let Sampling::Recorded(request) = &self.0 {
            request.recording.note(|known| known.route = Some(path.to_owned()));
        }
    }

    /// A page of the gateway's own was shown, whose path is one of few.
    pub fn own_page(&self) {
        if let Sampling::Recorded(request) = &self.0 {
            request.recording.note(|known| known.route = Some(request.recording.path().to_owned()));
        }
    }

    /// A stage begins.
    pub fn stage(&self, stage: Stage) -> StageSpan {
        let open = match &self.0 {
            Sampling::Recorded(request) => Some(Open::begin(request, stage)),
            Sampling::Untraced | Sampling::NotSampled => None,
        };
        StageSpan { _open: open }
    }

    /// A request to the upstream of this name begins.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamCall {
        UpstreamCall(match &self.0 {
            Sampling::Untraced => Call::Untraced,
            Sampling::NotSampled => Call::NotSampled,
            Sampling::Recorded(request) => {
                let of = UpstreamName { name: name.to_owned(), outcome: Outcome::Failed(CLIENT_LEFT) };
                Call::Recorded(Box::new(Open::begin(request, of)))
            }
        })
    }

    /// The request was answered with this status; `None` where its client left before.
    pub fn finish(&self, status: Option<u16>) {
        if let Sampling::Recorded(request) = &self.0 {
            request.finish(status.map_or(Outcome::Failed(CLIENT_LEFT), Outcome::Answered));
        }
    }
}

impl UpstreamCall {
    /// One of a request that is not sampled.
    #[cfg(test)]
    pub(super) const fn not_sampled() -> Self {
        Self(Call::NotSampled)
    }

    /// The upstream answered with this status.
    pub fn answered(&mut self, status: u16) {
        self.ended(Outcome::Answered(status));
    }

    /// There was no answer, for this reason: a word of ours.
    pub fn failed(&mut self, reason: &'static str) {
        self.ended(Outcome::Failed(reason));
    }

    fn ended(&mut self, outcome: Outcome) {
        if let Call::Recorded(mut open) = std::mem::take(&mut self.0) {
            open.of.outcome = outcome;
        }
    }

    pub(super) fn step(&self) -> Step {
        match &self.0 {
            Call::Untraced => Step::Untraced,
            Call::NotSampled => Step::NotSampled,
            Call::Recorded(open) => Step::Recorded(open.span),
        }
    }
}

/// What a span is of, told when it ends.
trait Told {
    fn part(&mut self) -> Part;
}

impl Told for Stage {
    fn part(&mut self) -> Part {
        Part::Stage(*self)
    }
}

impl Told for UpstreamName {
    fn part(&mut self) -> Part {
        Part::Upstream { name: std::mem::take(&mut self.name), outcome: self.outcome }
    }
}

impl<T: Told> Open<T> {
    fn begin(request: &Arc<Traced>, of: T) -> Self {
        let (span, from) = (request.fresh_span(), request.recording.elapsed());
        Self { request: Arc::clone(request), span, from, of }
    }
}

impl<T: Told> Drop for Open<T> {
    fn drop(&mut self) {
        let to = self.request.recording.elapsed();
        let part = self.of.part();
        self.request.recording.add(Child { span: self.span, part, from: self.from, to });
    }
}
