//! `[trace]`.

use std::collections::{BTreeMap, HashMap};

use http::HeaderName;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT};

use super::values::Context;
use crate::config::origin::Origin;
use crate::config::raw::{self, Secret, Table};
use crate::config::secret_source::SecretSource;
use crate::config::trace::{CollectorUrl, TraceConfig, TraceSampling};

const LONGEST_NAME: usize = 64;
/// What every message to a collector has a field of, or needs one for.
const OURS: [HeaderName; 7] =
    [CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT];

/// `None` where there is no section, or no place to send to.
pub(super) fn check(raw: Option<Table<raw::Trace>>, cx: &mut Context) -> Option<TraceConfig> {
    let Table(raw) = raw?;
    if raw.endpoint.is_none() {
        let problem = "is missing; write where the collector takes OTLP over HTTP, such as \"http://127.0.0.1:4318\"";
        cx.report.missing("trace.endpoint", problem);
    }
    let endpoint = cx.read("trace.endpoint", raw.endpoint.as_deref(), collector_url);
    let headers = headers(raw.headers.unwrap_or_default(), cx);
    let ca = cx.path("trace.ca", raw.ca.as_deref());
    if let Some(CollectorUrl { origin, .. }) = &endpoint {
        if !origin.https && !origin.is_loopback() {
            let problem =
                "sends paths of requests over the network in the clear; use https, or a collector on this machine";
            cx.report.warning("trace.endpoint", problem);
        }
        if !origin.https && ca.is_some() {
            cx.report.warning("trace.ca", "vouches for nobody, since the endpoint is not https");
        }
    }
    let ratio = raw.ratio.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&ratio) {
        cx.report.error("trace.ratio", "must be 0.0 to 1.0: which part of all requests is recorded");
    }
    let sampling = match raw.sampling {
        Some(raw::Sampling::Parent) => TraceSampling::Parent,
        Some(raw::Sampling::Ratio) | None => TraceSampling::Ratio,
    };
    let service = cx.text("trace.service", raw.service.as_deref(), LONGEST_NAME);
    let service = service.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned());
    Some(TraceConfig { endpoint: endpoint?, ratio, sampling, headers, ca, service })
}

/// An origin, and a path that may stand before the collector's own.
fn collector_url(text: &str) -> Result<CollectorUrl, String> {
    let path_at = text.find("://").and_then(|at| Some(at + 3 + text.get(at + 3..)?.find('/')?));
    let (origin, path) = path_at.and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""));
    let origin = Origin::parse(origin).map_err(|error| error.to_string())?;
    let path = path.trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%".contains(&b);
    if !path.bytes().all(plain) {
        return Err("must be an origin and at most a path behind it: no query, no fragment".to_owned());
    }
    if path.ends_with("/v1/traces") {
        return Err("must end before /v1/traces, which is added to it".to_owned());
    }
    Ok(CollectorUrl { origin, path: path.to_owned() })
}

fn headers(written: BTreeMap<String, Secret>, cx: &mut Context) -> Vec<(String, SecretSource)> {
    let (mut headers, mut seen) = (Vec::new(), HashMap::new());
    for (written, secret) in written {
        let key = TraceConfig::header_key(&written);
        let Ok(name) = HeaderName::try_from(written.as_str()) else {
            cx.report.error(&key, "can be no header field");
            continue;
        };
        if OURS.contains(&name) {
            cx.report.error(&key, "is a field that the gateway writes itself");
            continue;
        }
        if let Some(other) = seen.insert(name, written.clone()) {
            cx.report.error(&key, format_args!("is the same field as {other}: upper and lower case are one"));
        }
        headers.extend(cx.secret(&key, secret).map(|secret| (written, secret)));
    }
    headers
}
