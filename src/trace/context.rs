//! The trace that a request belongs to (W3C Trace Context); pure.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::request::{Step, UpstreamCall};
use super::request_id::{RequestId, hexadecimal};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Whether the caller records the trace.
pub(super) const SAMPLED: u8 = 0b01;
/// Flags that version 00 knows: sampled, and random trace id (W3C Trace Context §3.2.2.5).
const KNOWN: u8 = 0b11;

/// What a request says of the trace that it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    /// 32 digits.
    pub(super) trace: &'a str,
    /// 16 digits: the caller's own span.
    pub(super) parent: &'a str,
    /// Those of [`KNOWN`].
    pub(super) flags: u8,
}

impl<'a> Incoming<'a> {
    /// None where there is nothing, several or nothing that can be read: then the gateway begins a trace of its own.
    pub(super) fn of(fields: &'a HeaderMap) -> Option<Self> {
        let mut sent = fields.get_all(TRACEPARENT).iter();
        match (sent.next(), sent.next()) {
            (Some(one), None) => one.to_str().ok().and_then(Self::parse),
            _ => None,
        }
    }

    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_version = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        if !is_version || !is_hex_id(trace, 32) || !is_hex_id(parent, 16) || !is_hex(flags, 2) {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()? & KNOWN;
        Some(Self { trace, parent, flags })
    }
}

/// Continues the client's trace, or begins one. The step that the upstream sees is the span of `call` where it is
/// recorded, and made of the request id where it is not.
///
/// Where the gateway samples, its own decision is told. Where it does not, the caller's is: it alone knows.
///
/// `traced`: whether the client sent a field of that context at all.
pub(crate) fn set_trace_context(fields: &mut HeaderMap, request_id: &RequestId, traced: bool, call: &UpstreamCall) {
    let continued = traced.then(|| Incoming::of(fields)).flatten();
    let (trace, flags) =
        continued.map_or((&request_id.as_bytes()[..], 0), |incoming| (incoming.trace.as_bytes(), incoming.flags));
    let value = match call.step() {
        Step::Untraced => traceparent(trace, request_id.step(), flags),
        Step::NotSampled => traceparent(trace, request_id.step(), flags & !SAMPLED),
        Step::Recorded(span) => traceparent(trace, &hexadecimal(u64::from_be_bytes(span)), flags | SAMPLED),
    };
    if traced && (continued.is_none() || value.is_none()) {
        fields.remove(TRACESTATE);
    }
    match value {
        Some(value) => fields.insert(TRACEPARENT, value),
        None => fields.remove(TRACEPARENT),
    };
}

/// Without a `String` on the way, as every request has one.
fn traceparent(trace: &[u8], step: &[u8; 16], flags: u8) -> Option<HeaderValue> {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text.get_mut(3..35)?.copy_from_slice(trace.first_chunk::<32>()?);
    text.get_mut(36..52)?.copy_from_slice(step);
    *text.last_mut()? += flags & KNOWN;
    HeaderValue::from_bytes(&text).ok()
}

fn is_hex_id(text: &str, digits: usize) -> bool {
    is_hex(text, digits) && text.bytes().any(|b| b != b'0')
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const REQUEST: &str = "0199aa00112233448899aabbccddeeff";

    /// What comes of these `traceparent` fields and a `tracestate`.
    fn set(sent: &[&str], call: &UpstreamCall) -> HeaderMap {
        let mut fields: Vec<_> = sent.iter().map(|value| ("traceparent", *value)).collect();
        fields.push(("tracestate", "a=1"));
        let mut found: HeaderMap = fields.into_iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        set_trace_context(&mut found, &RequestId::parse(REQUEST).unwrap(), true, call);
        found
    }

    #[test]
    fn a_trace_is_continued_or_begun() {
        let own = "00-0199aa00112233448899aabbccddeeff-8899aabbccddeeff-00";
        let continued = |flags: &str| format!("00-{TRACE}-8899aabbccddeeff-{flags}");
        for (sent, expected) in [
            (&[][..], own.to_owned()),
            (&[&format!("00-{TRACE}-00f067aa0ba902b7-01")[..]], continued("01")),
            (&[&format!("00-{TRACE}-00f067aa0ba902b7-ff")], continued("03")),
            (&[&format!("cc-{TRACE}-00f067aa0ba902b7-01-later")], continued("01")),
            (&[&format!("00-{TRACE}-00f067aa0ba902b7-01-later")], own.to_owned()),
            (&[&format!("ff-{TRACE}-00f067aa0ba902b7-01")], own.to_owned()),
            (&[&format!("00-{TRACE}-0000000000000000-01")], own.to_owned()),
            (&[&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))], own.to_owned()),
            (&[&format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase())], own.to_owned()),
            (&[&format!("00-{TRACE}-00f067aa0ba902b7-+1")], own.to_owned()),
            (&["x"], own.to_owned()),
            (&[own, own], own.to_owned()),
        ] {
            let found = set(sent, &UpstreamCall::default());
            assert_eq!(found["traceparent"].to_str().unwrap(), expected, "{sent:?}");
            assert_eq!(found.contains_key("tracestate"), expected.contains(TRACE), "{sent:?}");
        }
    }

    #[test]
    fn who_samples_tells_its_own_decision() {
        let sampled = format!("00-{TRACE}-00f067aa0ba902b7-03");
        for (sent, expected) in [
            (&[&sampled[..]][..], format!("00-{TRACE}-8899aabbccddeeff-02")),
            (&[], format!("00-{REQUEST}-8899aabbccddeeff-00")),
        ] {
            let found = set(sent, &UpstreamCall::not_sampled());
            assert_eq!(found["traceparent"].to_str().unwrap(), expected);
        }
    }
}
