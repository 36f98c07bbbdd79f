//! Which trace a request belongs to (W3C Trace Context), and spans of it for a collector of the operator's (OTLP).
//!
//! In: the head of a request. Out: the `traceparent` that its upstream gets, and, where `[trace]` is configured and the
//! request is sampled, its spans at the collector: one for the request, one for its upstream, one for each stage of a
//! sign-in. What holds: a span is made of the fields of [`SPAN_FIELDS`] and of nothing else, so it holds no query, header,
//! identifier, digest, token, code, cookie or address of a client; a request never waits for the collector. Absent on
//! purpose: `tracestate` and baggage in spans, which are whatever a stranger wrote there.
//!
//! Sending needs the feature `otel`; without it there is no tracer, and the context alone is passed on.

#[cfg(feature = "otel")]
mod collector;
mod context;
#[cfg(feature = "otel")]
mod destination;
#[cfg(feature = "otel")]
mod export;
#[cfg(feature = "otel")]
mod losses;
mod recording;
mod request;
mod request_id;
mod tracer;
#[cfg(not(feature = "otel"))]
mod unbuilt;
#[cfg(feature = "otel")]
mod wire;

pub(crate) use context::set_trace_context;
pub use recording::SPAN_FIELDS;
pub use request::{RequestTrace, Stage, StageSpan, UpstreamCall};
pub use request_id::{RequestId, RequestIds};
pub use tracer::{Asked, TraceError, Tracer};
