//! The trace that a request belongs to (W3C Trace Context); pure.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Continues the client's trace, or begins one; the request id is the gateway's own step in it.
pub(super) fn set_trace_context(fields: &mut HeaderMap, request_id: &str) {
    let mut sent = fields.get_all(TRACEPARENT).iter();
    let continued = match (sent.next(), sent.next()) {
        (Some(one), None) => one.to_str().ok().and_then(parse_traceparent),
        _ => None,
    };
    // The second half of a request id counts from a random number.
    let step = request_id.get(16..).unwrap_or_default();
    let value = match continued {
        _ if !is_hex_id(request_id, 32) || !is_hex_id(step, 16) => None,
        Some((trace, flags)) => Some(["00-", trace, "-", step, "-", flags].concat()),
        // Not sampled: the gateway records no span.
        None => Some(["00-", request_id, "-", step, "-00"].concat()),
    };
    if continued.is_none() || value.is_none() {
        fields.remove(TRACESTATE);
    }
    match value.and_then(|value| HeaderValue::try_from(value).ok()) {
        Some(value) => fields.insert(TRACEPARENT, value),
        None => fields.remove(TRACEPARENT),
    };
}

/// Trace id, and of the flags those that version 00 knows: sampled and random (W3C Trace Context §3.2.2.5).
fn parse_traceparent(text: &str) -> Option<(&str, &'static str)> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_version = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    if !is_version || !is_hex_id(trace, 32) || !is_hex_id(parent, 16) || !is_hex(flags, 2) {
        return None;
    }
    let flags = match u8::from_str_radix(flags, 16).ok()? & 0b11 {
        0 => "00",
        1 => "01",
        2 => "02",
        _ => "03",
    };
    Some((trace, flags))
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

    #[test]
    fn a_trace_is_continued_or_begun() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
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
            let mut fields: Vec<_> = sent.iter().map(|value| ("traceparent", *value)).collect();
            fields.push(("tracestate", "a=1"));
            let mut found: HeaderMap =
                fields.into_iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            set_trace_context(&mut found, "0199aa00112233448899aabbccddeeff");
            assert_eq!(found["traceparent"].to_str().unwrap(), expected, "{sent:?}");
            assert_eq!(found.contains_key("tracestate"), expected.contains(TRACE), "{sent:?}");
        }
        let mut found = HeaderMap::new();
        set_trace_context(&mut found, "no-uuid");
        assert!(found.is_empty());
    }
}
