//! A finished request as OTLP says it (opentelemetry-proto 1.x, `ExportTraceServiceRequest`).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

use super::recording::{Child, Finished, Outcome, Part};

/// A span's flags say whether its parent is elsewhere (`SpanFlags` of trace.proto).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The message for these requests, of a gateway that calls itself `service`.
pub(super) fn encode<'f>(service: &str, requests: impl Iterator<Item = &'f Finished>) -> Vec<u8> {
    let spans = requests.flat_map(spans).collect();
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let attributes = vec![text("service.name", service), text("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = Resource { attributes, ..Resource::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// How many spans an answer says were refused; what cannot be read refuses none.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

fn spans(request: &Finished) -> Vec<Span> {
    let began = Duration::from_millis(u64::try_from(request.at.unix_millis()).unwrap_or(0));
    let mut spans = vec![own_span(request, began)];
    spans.extend(request.known.children.iter().map(|child| child_span(request, child, began)));
    spans
}

fn own_span(request: &Finished, began: Duration) -> Span {
    let Finished { context, known, .. } = request;
    let method = if request.method == "_OTHER" { "HTTP" } else { request.method };
    let name = known.route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let mut attributes = vec![
        text("http.request.method", request.method),
        text("url.path", &request.path),
        text("url.scheme", request.scheme),
    ];
    attributes.extend(request.version.map(|version| text("network.protocol.version", version)));
    attributes.extend(known.host.as_ref().map(|host| text("server.address", host)));
    attributes.extend(known.route.as_ref().map(|route| text("http.route", route)));
    // A client's mistake is no failure of the server's (semantic conventions for HTTP spans, status).
    let status = outcome(request.outcome, 500, &mut attributes);
    let remote = if context.parent.is_some() { IS_REMOTE } else { 0 };
    Span {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        parent_span_id: context.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        flags: u32::from(context.flags) | HAS_IS_REMOTE | remote,
        name,
        kind: SpanKind::Server as i32,
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(began + request.took),
        attributes,
        status,
        ..Span::default()
    }
}

fn child_span(request: &Finished, child: &Child, began: Duration) -> Span {
    let (name, kind, attributes, status) = match &child.part {
        Part::Stage(stage) => (stage.as_str(), SpanKind::Internal, Vec::new(), None),
        Part::Upstream { name, outcome: ended } => {
            let mut attributes = vec![text("http.request.method", request.method), text("sekisho.upstream", name)];
            let status = outcome(*ended, 400, &mut attributes);
            (if request.method == "_OTHER" { "HTTP" } else { request.method }, SpanKind::Client, attributes, status)
        }
    };
    Span {
        trace_id: request.context.trace.to_vec(),
        span_id: child.span.to_vec(),
        parent_span_id: request.context.span.to_vec(),
        flags: u32::from(request.context.flags) | HAS_IS_REMOTE,
        name: name.to_owned(),
        kind: kind as i32,
        start_time_unix_nano: nanos(began + child.from),
        end_time_unix_nano: nanos(began + child.to),
        attributes,
        status,
        ..Span::default()
    }
}

/// Adds how it ended; an error from the status `bad` on.
fn outcome(outcome: Outcome, bad: u16, attributes: &mut Vec<KeyValue>) -> Option<Status> {
    let failed = Status { code: StatusCode::Error as i32, message: String::new() };
    match outcome {
        Outcome::Answered(status) => {
            attributes.push(number("http.response.status_code", status));
            (status >= bad).then(|| {
                attributes.push(text("error.type", &status.to_string()));
                failed
            })
        }
        Outcome::Failed(reason) => {
            attributes.push(text("error.type", reason));
            Some(failed)
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u16) -> KeyValue {
    attribute(key, Value::IntValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(since_epoch: Duration) -> u64 {
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
