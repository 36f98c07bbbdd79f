//! What of an upstream's answer never reaches a client, and the one thing in it that is for the gateway; pure.

use http::HeaderMap;
use http::header::{
    ALT_SVC, CONNECTION, CONTENT_LENGTH, Entry, HeaderName, HeaderValue, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    TRANSFER_ENCODING,
};

use super::cookies::{cookie_name, is_gateway_cookie};
use super::fields::{options, remove_where};
use crate::edge::{Present, fold, is_gateways_own, is_hop_by_hop};

/// By which an upstream says whose request it answers (`interface.md` §3, console-driven enrolment).
const BIND: &str = "sekisho-bind";
/// What an answer has that [`strip_common`] takes out.
const UNWANTED: Present = Present::HOP_BY_HOP.and(Present::ALT_SVC).and(Present::STRICT_TRANSPORT).and(Present::OWN);

/// What an answer says of whom its handset should be bound to. Any upstream can say it: nothing is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindClaim {
    /// The value of the one field.
    Of(HeaderValue),
    /// Repeated, or under another spelling.
    Unclear,
}

/// Takes out hop-by-hop fields, the gateway's own fields and cookies, `Alt-Svc`, which would lead the client
/// around the gateway, and `Strict-Transport-Security`, which is the gateway's to say. `Trailer` stays: the trailers it announces do too. Gives back what it said of binding.
pub(super) fn strip(fields: &mut HeaderMap) -> Option<BindClaim> {
    let there = Present::of(fields);
    let claim = if there.any(Present::OWN) { bind_claim(fields) } else { None };
    if there.any(Present::CONNECTION) {
        end_connection(fields);
    }
    // The body is as long as its chunks say; a length beside them is a lie (RFC 9112 §6.3).
    if there.any(Present::HOP_BY_HOP) && fields.contains_key(TRANSFER_ENCODING) {
        fields.remove(CONTENT_LENGTH);
    }
    if there.any(Present::SET_COOKIE) && fields.get_all(SET_COOKIE).iter().any(sets_gateway_cookie) {
        let kept: Vec<_> = fields.get_all(SET_COOKIE).iter().filter(|v| !sets_gateway_cookie(v)).cloned().collect();
        fields.remove(SET_COOKIE);
        for value in kept {
            fields.append(SET_COOKIE, value);
        }
    }
    if there.any(UNWANTED) {
        strip_common(fields);
    }
    claim
}

/// Removes `Connection` and what it names.
fn end_connection(fields: &mut HeaderMap) {
    let Entry::Occupied(lists) = fields.entry(CONNECTION) else { return };
    // These name no field but what goes anyhow.
    let plain = |option: &&[u8]| [&b"close"[..], b"keep-alive"].iter().any(|plain| option.eq_ignore_ascii_case(plain));
    let named = options(lists.iter()).filter(|option| !plain(option));
    let named: Vec<_> = named.filter_map(|option| HeaderName::from_bytes(option).ok()).collect();
    lists.remove();
    for name in named {
        // What frames the body is not the upstream's to take away (RFC 9110 §7.6.1 forbids naming it).
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            fields.remove(name);
        }
    }
}

fn bind_claim(fields: &HeaderMap) -> Option<BindClaim> {
    let mut spellings = fields.keys().filter(|name| fold(name.as_str()) == BIND);
    let spelling = spellings.next()?;
    let mut values = fields.get_all(spelling).iter();
    match (values.next(), values.next(), spellings.next()) {
        (Some(value), None, None) if spelling.as_str() == BIND => Some(BindClaim::Of(value.clone())),
        _ => Some(BindClaim::Unclear),
    }
}

/// The same for trailers, where no cookie is ever set.
pub(super) fn strip_trailers(fields: &mut HeaderMap) {
    fields.remove(SET_COOKIE);
    strip_common(fields);
}

fn strip_common(fields: &mut HeaderMap) {
    remove_where(fields, |name| {
        is_hop_by_hop(name) || matches!(*name, ALT_SVC | STRICT_TRANSPORT_SECURITY) || is_gateways_own(name.as_str())
    });
}

fn sets_gateway_cookie(value: &HeaderValue) -> bool {
    let pair = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
    is_gateway_cookie(cookie_name(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn connection_and_gateway_fields_stay_behind() {
        let mut fields = map(&[
            ("connection", "close, x-hop, content-length"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "3"),
            ("content-type", "text/html"),
            ("alt-svc", "h3=\":443\""),
            ("strict-transport-security", "max-age=1"),
            ("sekisho-bind", "account"),
            ("sekisho_bind", "account"),
            ("sekisho.bind", "account"),
            ("sekisho-jwt-assertion", "echo"),
            ("sekishop", "stays"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
        ]);
        assert_eq!(strip(&mut fields), Some(BindClaim::Unclear));
        let expected =
            map(&[("content-length", "3"), ("content-type", "text/html"), ("sekishop", "stays"), ("trailer", "x-sum")]);
        assert_eq!(fields, expected);
    }

    #[test]
    fn one_plain_field_is_a_claim() {
        let unclear = Some(BindClaim::Unclear);
        for (sent, expected) in [
            (&[("sekisho-bind", "alice")][..], Some(BindClaim::Of(HeaderValue::from_static("alice")))),
            (
                &[("sekisho-bind", "alice"), ("connection", "sekisho-bind")],
                Some(BindClaim::Of(HeaderValue::from_static("alice"))),
            ),
            (&[("sekisho-bind", "alice"), ("sekisho-bind", "alice")], unclear.clone()),
            (&[("sekisho-bind", "alice"), ("sekisho_bind", "bob")], unclear.clone()),
            (&[("sekisho.bind", "alice")], unclear.clone()),
            (&[("sekisho-binding", "alice"), ("sekisho-jwt-assertion", "x")], None),
            (&[("content-type", "text/html")], None),
        ] {
            let mut fields = map(sent);
            assert_eq!(strip(&mut fields), expected, "{sent:?}");
            assert!(fields.keys().all(|name| !name.as_str().contains("bind")), "{sent:?}");
        }
    }

    #[test]
    fn an_upstream_sets_its_own_cookies_only() {
        for (value, passes) in [
            ("a=1; Path=/", true),
            ("sekisho2=1", true),
            ("a=sekisho", true),
            ("a=; sekisho=1", true),
            ("sekisho=1", false),
            ("sekisho", false),
            ("SEKISHO=1", false),
            ("  sekisho =1", false),
            ("\tsekisho\t=1; Path=/", false),
            ("=sekisho=1", false),
            (" = sekisho=1", false),
            ("__Host-sekisho=1; Secure", false),
            ("__host-SEKISHO=1", false),
        ] {
            let mut fields = map(&[("set-cookie", "first=1"), ("set-cookie", value), ("set-cookie", "last=1")]);
            strip(&mut fields);
            let left: Vec<_> = fields.get_all(SET_COOKIE).iter().map(|v| v.to_str().unwrap()).collect();
            let expected = if passes { vec!["first=1", value.trim(), "last=1"] } else { vec!["first=1", "last=1"] };
            assert_eq!(left.iter().map(|v| v.trim()).collect::<Vec<_>>(), expected, "{value:?}");
        }
    }

    #[test]
    fn chunks_outrank_a_length() {
        let mut fields = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        strip(&mut fields);
        assert!(fields.is_empty());
    }

    #[test]
    fn trailers_are_filtered_alike() {
        let mut fields = map(&[("x-sum", "1"), ("set-cookie", "a=1"), ("sekisho-bind", "x"), ("connection", "close")]);
        strip_trailers(&mut fields);
        assert_eq!(fields, map(&[("x-sum", "1")]));
    }
}
