//! `RawHead` -> [`StrippedHead`] -> [`UpstreamRequest`]: what a client may not say is taken out, then the gateway speaks.
//!
//! The order is: hop-by-hop fields; fields reserved under any spelling; cookies; query keys; serials. Only then is
//! anything added, so that no client's copy stands beside ours. A name is compared folded ([`fold`]), because
//! software behind us may read `X_Real.IP` as `X-Real-IP`. RFC 9110 §7.6, RFC 9113 §8.2.3, W3C Trace Context.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT,
    Entry, HOST, HeaderName, HeaderValue, REFERER, TE, TRAILER, UPGRADE, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version};

use super::cookies::clean_cookies;
use super::fields::{address, is_identity, is_relied_on, options, remove_where, without_own_query, without_query_keys};
use crate::assertion::{ASSERTION_FIELD, Assertion};
use crate::carrier::ReservedFields;
use crate::edge::{Client, Present, RawHead, fold, is_hop_by_hop};
use crate::trace::{RequestId, UpstreamCall, set_trace_context};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Fields that are added to a head: the four above, `traceparent` and the assertion.
const ADDED: usize = 6;

/// What a head has that ends with its connection, or is said anew.
const CONNECTIONS: Present = Present::CONNECTION.and(Present::HOP_BY_HOP).and(Present::SAID_ANEW);
/// What a head has that no profile may claim, as [`is_reserved`] says.
const ORDINARY: Present = Present::HOST
    .and(Present::USER_AGENT)
    .and(Present::ACCEPT)
    .and(Present::CODING)
    .and(Present::CONTENT_TYPE)
    .and(Present::COOKIE);

/// The head without anything that must not pass: hop-by-hop and reserved fields, gateway cookies, `_sk`, `guid`,
/// serials. Nothing was added yet.
pub struct StrippedHead {
    method: Method,
    target: Uri,
    fields: HeaderMap,
    upgrade: bool,
    stripped: usize,
    /// Whether it announces trailers.
    trailer: bool,
    /// Whether the client sent a trace.
    traced: bool,
    /// As the client named it; the `Host` field says the same.
    host: Option<HeaderValue>,
}

/// Why a head cannot be made fit for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// `Connection` names a field that the gateway protects.
    #[error("malformed-request")]
    ConnectionNamesProtected,
    /// `Connection` breaks its grammar, or the method makes a tunnel (CONNECT) or an echo of our fields (TRACE).
    #[error("malformed-request")]
    Malformed,
}

/// What the gateway says of the client.
pub struct Forwarded<'a> {
    /// Who asks.
    pub client: &'a Client,
    /// `X-Request-Id`. Also the trace id of `traceparent` where the client sent none.
    pub request_id: &'a RequestId,
    /// The step of its trace that the upstream is.
    pub call: &'a UpstreamCall,
}

/// A request that may be sent: the client's copies of our fields are gone, and there is one assertion or none.
pub struct UpstreamRequest {
    pub(super) method: Method,
    /// Origin-form.
    pub(super) target: Uri,
    pub(super) fields: HeaderMap,
    /// Whether it asks for an upgrade that is passed on.
    pub(super) upgrade: bool,
    /// Whether it announces trailers.
    pub(super) trailer: bool,
}

impl StrippedHead {
    /// Takes out what must not pass.
    ///
    /// # Errors
    /// [`StripError`].
    pub fn of(head: RawHead, reserved: &ReservedFields) -> Result<Self, StripError> {
        Self::strip(head, reserved)
    }

    /// How many reserved names were taken out; a client that sends any is an attacker or a broken relay.
    #[must_use]
    pub const fn stripped(&self) -> usize {
        self.stripped
    }

    /// With fields changed that say which answer is wanted; what speaks for the gateway is added later.
    #[must_use]
    pub(crate) fn adjusted(mut self, adjust: impl FnOnce(&mut HeaderMap)) -> Self {
        adjust(&mut self.fields);
        self
    }

    /// As if the rule had been lost that takes this field out.
    #[cfg(test)]
    pub(crate) fn smuggle(&mut self, name: &HeaderName, value: HeaderValue) {
        self.fields.append(name, value);
    }

    /// Adds what the gateway itself says; exactly one assertion, or none.
    #[must_use]
    pub fn with(self, assertion: Option<Assertion>, forwarded: &Forwarded<'_>) -> UpstreamRequest {
        self.add(assertion.map(|assertion| assertion.value().clone()), forwarded)
    }

    pub(super) fn strip(head: RawHead, reserved: &impl Reserved) -> Result<Self, StripError> {
        let (version, there) = (head.version(), head.present());
        let host = head.host_value();
        let is_field = host.is_some() && !head.has_authority();
        let (method, uri, mut fields) = head.into_parts();
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(StripError::Malformed);
        }
        if !is_field {
            set(&mut fields, HOST, host.clone());
        }
        let (upgrade, te) =
            if there.any(CONNECTIONS) { end_connection(&mut fields, version, reserved)? } else { (None, false) };
        let stripped =
            if there.beyond(ORDINARY) { remove_where(&mut fields, |name| is_reserved(name, reserved)) } else { 0 };
        if there.any(Present::TRAILER) {
            clean_trailer(&mut fields, reserved);
        }
        if there.any(Present::COOKIE) {
            clean_cookies(&mut fields, |name| reserved.holds_cookie(name));
        }
        if there.any(Present::REFERER)
            && let Entry::Occupied(mut referers) = fields.entry(REFERER)
        {
            for value in referers.iter_mut() {
                if let Some(cut) = without_own_query(value.as_bytes()) {
                    *value = HeaderValue::from_maybe_shared(Bytes::from(cut)).map_err(|_| StripError::Malformed)?;
                }
            }
        }
        if there.any(Present::USER_AGENT)
            && let Entry::Occupied(mut user_agents) = fields.entry(USER_AGENT)
        {
            for value in user_agents.iter_mut() {
                if let Some(redacted) = reserved.redact_user_agent(value) {
                    *value = redacted;
                }
            }
        }
        if upgrade.is_some() || te {
            let options = match (&upgrade, te) {
                (Some(_), true) => "upgrade, te",
                (Some(_), false) => "upgrade",
                (None, _) => "te",
            };
            fields.insert(CONNECTION, HeaderValue::from_static(options));
        }
        if te {
            fields.insert(TE, HeaderValue::from_static("trailers"));
        }
        let upgrades = upgrade.is_some();
        if let Some(upgrade) = upgrade {
            fields.insert(UPGRADE, upgrade);
        }
        let traced = there.any(Present::TRACE);
        let trailer = there.any(Present::TRAILER) && fields.contains_key(TRAILER);
        Ok(Self { method, target: origin_form(&uri)?, fields, upgrade: upgrades, stripped, trailer, traced, host })
    }

    pub(super) fn add(self, assertion: Option<HeaderValue>, forwarded: &Forwarded<'_>) -> UpstreamRequest {
        let Self { method, target, mut fields, upgrade, trailer, traced, host, .. } = self;
        // At once, instead of twice on the way.
        fields.reserve(ADDED);
        set(&mut fields, X_FORWARDED_HOST, host);
        set(&mut fields, X_FORWARDED_FOR, address(forwarded.client.address.ip()));
        fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(forwarded.client.scheme.as_str()));
        set(&mut fields, X_REQUEST_ID, HeaderValue::from_bytes(forwarded.request_id.as_bytes()).ok());
        set_trace_context(&mut fields, forwarded.request_id, traced, forwarded.call);
        set(&mut fields, ASSERTION_FIELD, assertion);
        UpstreamRequest { method, target, fields, upgrade, trailer }
    }
}

/// What carriers reserve; a trait so that the rules here are tested without profiles.
pub(super) trait Reserved {
    fn holds(&self, name: &str) -> bool;
    fn holds_cookie(&self, name: &str) -> bool;
    fn redact_user_agent(&self, value: &HeaderValue) -> Option<HeaderValue>;
}

impl Reserved for ReservedFields {
    fn holds(&self, name: &str) -> bool {
        self.holds(name)
    }
    fn holds_cookie(&self, name: &str) -> bool {
        self.holds_cookie(name)
    }
    fn redact_user_agent(&self, value: &HeaderValue) -> Option<HeaderValue> {
        self.redact_user_agent(value)
    }
}

/// Set or remove, never only set.
fn set(fields: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => fields.insert(name, value),
        None => fields.remove(name),
    };
}

/// Removes what belongs to the connection. Gives back the `Upgrade` to be passed on, and whether trailers are welcome.
fn end_connection(
    fields: &mut HeaderMap,
    version: Version,
    reserved: &impl Reserved,
) -> Result<(Option<HeaderValue>, bool), StripError> {
    let mut named = Vec::new();
    let mut asks_upgrade = false;
    for option in options(fields.get_all(CONNECTION).iter()) {
        if option.eq_ignore_ascii_case(b"upgrade") {
            asks_upgrade = true;
        } else if ![&b"close"[..], b"keep-alive", b"te"].iter().any(|plain| option.eq_ignore_ascii_case(plain)) {
            let name = HeaderName::from_bytes(option).map_err(|_| StripError::Malformed)?;
            let folded = fold(name.as_str());
            if is_identity(&folded) || is_relied_on(&folded) || reserved.holds(name.as_str()) {
                return Err(StripError::ConnectionNamesProtected);
            }
            named.push(name);
        }
    }
    let mut upgrades = fields.get_all(UPGRADE).iter();
    let upgrade = match (upgrades.next(), upgrades.next()) {
        (Some(one), None) if asks_upgrade && version == Version::HTTP_11 && may_pass(one) => Some(one.clone()),
        _ => None,
    };
    let te = fields.get_all(TE).iter().any(|list| {
        list.as_bytes().split(|b| *b == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    // The HTTP codec answered the expectation and knows the length of the body; both are said anew.
    let said_anew = |name: &HeaderName| matches!(*name, EXPECT | CONTENT_LENGTH);
    remove_where(fields, |name| is_hop_by_hop(name) || said_anew(name) || named.contains(name));
    Ok((upgrade, te))
}

/// Another HTTP or TLS on the same connection would carry requests past the gateway (h2c smuggling).
fn may_pass(upgrade: &HeaderValue) -> bool {
    let protocols = upgrade.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let name = |protocol: &[u8]| protocol.split(|b| *b == b'/').next().unwrap_or_default().to_ascii_lowercase();
    protocols.map(name).all(|name| !matches!(name.as_slice(), b"" | b"h2" | b"h2c" | b"h3" | b"http" | b"tls"))
}

fn is_reserved(name: &HeaderName, reserved: &impl Reserved) -> bool {
    // Nearly every request has these, and no profile may claim one of them.
    if matches!(
        *name,
        HOST | USER_AGENT | ACCEPT | ACCEPT_ENCODING | ACCEPT_LANGUAGE | CACHE_CONTROL | CONTENT_TYPE | COOKIE
    ) {
        return false;
    }
    let name = name.as_str();
    let is_folded = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let ours = if is_folded {
        is_identity(name)
    } else {
        let folded = fold(name);
        is_identity(&folded) || is_relied_on(&folded)
    };
    ours || reserved.holds(name)
}

/// Only trailers that are announced are sent on, so what must not pass is taken out of the announcement.
fn clean_trailer(fields: &mut HeaderMap, reserved: &impl Reserved) {
    let names = fields.get_all(TRAILER).iter().flat_map(|list| list.as_bytes().split(|b| *b == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let kept: Vec<_> = names.filter(|name| !is_reserved(name, reserved) && !is_relied_on(name.as_str())).collect();
    let list = kept.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    set(fields, TRAILER, HeaderValue::try_from(list).ok().filter(|list| !list.is_empty()));
}

fn origin_form(uri: &Uri) -> Result<Uri, StripError> {
    let target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    match without_query_keys(target.as_str().as_bytes()) {
        None => Ok(Uri::from(target)),
        Some(cut) => {
            let cut = PathAndQuery::from_maybe_shared(Bytes::from(cut)).map_err(|_| StripError::Malformed)?;
            Ok(Uri::from(cut))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::edge::{HeadLimits, Scheme, TrustedProxies};
    use crate::upstream::tests::StandIn;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 65_536, headers: 100, url_bytes: 8192 };
    const REQUEST_ID: &str = "0199aa00112233448899aabbccddeeff";

    fn head(request: http::request::Builder) -> RawHead {
        RawHead::read(request.body(()).unwrap().into_parts().0, &LIMITS).unwrap()
    }

    fn request(target: &str, fields: &[(&str, &str)]) -> http::request::Builder {
        fields.iter().fold(Request::get(target), |request, (name, value)| request.header(*name, value.as_bytes()))
    }

    fn strip(target: &str, fields: &[(&str, &str)]) -> Result<StrippedHead, StripError> {
        StrippedHead::strip(head(request(target, fields)), &StandIn)
    }

    fn left(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let text = |(n, v): (&HeaderName, &HeaderValue)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into());
        strip("/", fields).unwrap().fields.iter().map(text).collect()
    }

    #[test]
    fn fields_that_speak_for_the_gateway_or_a_peer_are_taken_out() {
        for name in [
            "Sekisho-Jwt-Assertion",
            "sekisho_jwt_assertion",
            "Sekisho.Jwt~Assertion",
            "X-Sekisho-Anything",
            "SEKISHO-BIND",
            "Remote-User",
            "REMOTE_USER",
            "Remote-Groups",
            "X-Remote-User",
            "X-Remote-Group",
            "X-Auth-Request-Email",
            "X_Auth_Request_User",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-Forwarded.For",
            "X-Forwarded-User",
            "X-Forwarded-Email",
            "X-Forwarded-Groups",
            "X-Forwarded-Preferred-Username",
            "X-Forwarded-Prefix",
            "Forwarded",
            "X-Real-IP",
            "X_Real_IP",
            "X-Pomerium-Jwt-Assertion",
            "Cf-Access-Jwt-Assertion",
            "Cf-Access-Authenticated-User-Email",
            "X-Goog-IAP-JWT-Assertion",
            "X-Goog-Authenticated-User-Email",
            "X-Amzn-Oidc-Data",
            "X-Amzn-Oidc-Identity",
            "X-WebAuth-User",
            "X-Original-URL",
            "X-Rewrite-Url",
            "True-Client-IP",
            "Proxy",
            "Host_",
            "X-Subscriber",
            "x_subscriber",
        ] {
            let head = strip("/", &[("accept", "*/*"), (name, "x")]).unwrap();
            if name == "Host_" {
                assert_eq!(head.stripped(), 0, "{name} folds onto nothing");
            } else {
                assert_eq!((head.fields.len(), head.stripped()), (1, 1), "{name}");
            }
        }
    }

    #[test]
    fn misspelt_standard_fields_are_taken_out() {
        for name in
            ["Content_Length", "Transfer_Encoding", "transfer~encoding", "Content.Type", "X_Request_Id", "User_Agent"]
        {
            assert_eq!(left(&[(name, "1")]), [], "{name}");
        }
    }

    #[test]
    fn ordinary_fields_pass_unchanged() {
        let fields = [
            ("accept", "*/*"),
            ("authorization", "Basic eA=="),
            ("x-api-key", "k"),
            ("x_custom", "1"),
            ("accept", "text/html"),
            ("x-up-devcap-zone", "1"),
            ("x-auth-token", "t"),
            ("sekishop", "1"),
        ];
        let mut expected: Vec<_> = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        expected.sort();
        let mut found = left(&fields);
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(strip("/", &fields).unwrap().stripped(), 0);
    }

    #[test]
    fn the_connection_ends_here() {
        let plain = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let ws = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")];
        for (fields, expected) in [
            (&[("connection", "keep-alive"), ("keep-alive", "5"), ("proxy-connection", "x")][..], vec![]),
            (&[("connection", "x-hop, , close"), ("x-hop", "1"), ("x-other", "2")], vec![plain("x-other", "2")]),
            (&[("connection", "te"), ("te", "gzip")], vec![]),
            (&[("te", "gzip, Trailers")], vec![plain("connection", "te"), plain("te", "trailers")]),
            (&[("transfer-encoding", "chunked"), ("content-length", "5"), ("expect", "100-continue")], vec![]),
            (&[("proxy-authorization", "Basic eA==")], vec![]),
            (&[("upgrade", "websocket")], vec![]),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], vec![]),
            (&[("connection", "upgrade"), ("upgrade", "websocket, H2C")], vec![]),
            (&[("connection", "upgrade"), ("upgrade", "TLS/1.0")], vec![]),
            (&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AA")], vec![]),
            (&ws, vec![plain("connection", "upgrade"), plain("sec-websocket-key", "k"), plain("upgrade", "websocket")]),
            (&[("trailer", "X-Sum, Remote-User, Host, X-Subscriber")], vec![plain("trailer", "x-sum")]),
            (&[("trailer", "Sekisho-Bind")], vec![]),
        ] {
            let mut found = left(fields);
            found.sort();
            assert_eq!(found, expected, "{fields:?}");
        }
        assert!(strip("/", &ws).unwrap().upgrade);
        let h2 = request("/", &ws).version(Version::HTTP_2);
        assert!(!StrippedHead::strip(head(h2), &StandIn).unwrap().upgrade);
    }

    #[test]
    fn connection_may_not_name_what_the_gateway_protects() {
        for option in [
            "Sekisho-Jwt-Assertion",
            "x-forwarded-for",
            "X_Forwarded_For",
            "remote-user",
            "Cookie",
            "Host",
            "Authorization",
            "Content-Length",
            "Transfer-Encoding",
            "close, x-request-id",
            "x-subscriber",
        ] {
            assert_eq!(
                strip("/", &[("connection", option)]).err(),
                Some(StripError::ConnectionNamesProtected),
                "{option}"
            );
        }
        assert_eq!(strip("/", &[("connection", "a b")]).err(), Some(StripError::Malformed));
    }

    #[test]
    fn tunnels_and_echoes_are_refused() {
        assert_eq!(
            StrippedHead::strip(head(request("/", &[]).method("TRACE")), &StandIn).err(),
            Some(StripError::Malformed)
        );
    }

    #[test]
    fn the_target_keeps_every_other_byte() {
        for (sent, expected) in [
            ("/", "/"),
            ("/?", "/?"),
            ("/a%2Fb/../c;d//e?x=%20&&y=+&z", "/a%2Fb/../c;d//e?x=%20&&y=+&z"),
            ("/a?_sk=t", "/a"),
            ("/a?guid=ON", "/a"),
            ("/a?_sk=t&guid=ON", "/a"),
            ("/a?x=1&_sk=t", "/a?x=1"),
            ("/a?_sk=t&x=1", "/a?x=1"),
            ("/a?x=1&_sk=t&&y=%zz", "/a?x=1&&y=%zz"),
            ("/a?%5fsk=t&x", "/a?x"),
            ("/a?%5F%73%6B=t&x", "/a?x"),
            ("/a?g%75id=ON&x", "/a?x"),
            ("/a?GUID=on&x", "/a?x"),
            ("/a?guid", "/a"),
            ("/a?guide=1&x_sk=2&y=_sk", "/a?guide=1&x_sk=2&y=_sk"),
            ("/a?x=?_sk=t", "/a?x=?_sk=t"),
            ("http://admin.example.jp/a?x=1", "/a?x=1"),
            ("http://admin.example.jp", "/"),
            ("http://admin.example.jp?_sk=t&x", "/?x"),
        ] {
            assert_eq!(strip(sent, &[]).unwrap().target.to_string(), expected, "{sent}");
        }
    }

    #[test]
    fn the_session_does_not_leak_by_referer() {
        for (sent, expected) in [
            ("http://admin.example.jp/a?x=1", "http://admin.example.jp/a?x=1"),
            ("http://admin.example.jp/a?_sk=t", "http://admin.example.jp/a"),
            ("http://admin.example.jp/a?x=1&_sk=t#f?_sk", "http://admin.example.jp/a?x=1#f?_sk"),
            ("http://admin.example.jp/_sekisho/enrol?code=1&t=x#f", "http://admin.example.jp/_sekisho/enrol"),
            ("http://admin.example.jp/_sekisho/me", "http://admin.example.jp/_sekisho/me"),
            ("http://admin.example.jp/a?to=/_sekisho/me", "http://admin.example.jp/a?to=/_sekisho/me"),
        ] {
            let expected = [("referer".to_owned(), "x".to_owned()), ("referer".to_owned(), expected.to_owned())];
            assert_eq!(left(&[("referer", "x"), ("referer", sent)]), expected);
        }
    }

    #[test]
    fn serials_are_cut_out_of_every_user_agent() {
        let found = left(&[("user-agent", "Phone/serial"), ("user-agent", "Other/serial")]);
        assert_eq!(found.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>(), ["Phone/", "Other/"]);
    }

    fn finished(fields: &[(&str, &str)], assertion: Option<&'static str>) -> HeaderMap {
        finish(head(request("/", fields)), assertion)
    }

    fn finish(head: RawHead, assertion: Option<&'static str>) -> HeaderMap {
        let client = TrustedProxies::new(vec![]).resolve("192.0.2.7".parse().unwrap(), Scheme::Https, &head).unwrap();
        let (request_id, call) = (RequestId::parse(REQUEST_ID).unwrap(), UpstreamCall::default());
        let forwarded = Forwarded { client: &client, request_id: &request_id, call: &call };
        StrippedHead::strip(head, &StandIn).unwrap().add(assertion.map(HeaderValue::from_static), &forwarded).fields
    }

    #[test]
    fn the_gateway_speaks_once() {
        let forged = [
            ("host", "admin.example.jp:8443"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("x-request-id", "1"),
            ("x-request-id", "2"),
            ("sekisho-jwt-assertion", "forged"),
            ("sekisho-jwt-assertion", "forged"),
        ];
        let fields = finished(&forged, Some("signed"));
        for (name, expected) in [
            ("host", "admin.example.jp:8443"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "admin.example.jp:8443"),
            ("x-request-id", REQUEST_ID),
            ("sekisho-jwt-assertion", "signed"),
        ] {
            let found: Vec<_> = fields.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(found, [expected], "{name}");
        }
        assert!(!finished(&forged, None).contains_key(ASSERTION_FIELD));
        let authority = request("http://admin.example.jp:8443/", &[("host", "evil.example"), ("host", "b.example")]);
        assert_eq!(finish(head(authority), None)["host"], "admin.example.jp:8443");
        let several = finished(&[("host", "a.example"), ("host", "b.example")], None);
        assert!(!several.contains_key("host") && !several.contains_key("x-forwarded-host"));
    }

    proptest! {
        #[test]
        fn no_reserved_name_survives_any_spelling(
            name in prop::sample::select(vec![
                "sekisho-jwt-assertion", "remote-user", "x-forwarded-for", "x-real-ip", "x-subscriber", "forwarded",
                "cf-access-jwt-assertion", "x-auth-request-user",
            ]),
            separators in prop::collection::vec(prop::sample::select(vec!['-', '_', '.', '~', '!', '+']), 4),
            upper in any::<u32>(),
        ) {
            let mut separators = separators.into_iter();
            let spelt: String = name.chars().enumerate().map(|(i, c)| match c {
                '-' => separators.next().unwrap_or('_'),
                c if upper >> (i % 32) & 1 == 1 => c.to_ascii_uppercase(),
                c => c,
            }).collect();
            prop_assert_eq!(left(&[("accept", "*/*"), (&spelt, "x")]), [("accept".to_owned(), "*/*".to_owned())]);
        }

        #[test]
        fn no_session_token_survives_in_cookies_or_query(
            cookies in "[ab=; \"]{0,12}", more in "[ab=; \"]{0,12}", query in "[a&=%]{0,8}",
        ) {
            let cookie = format!("{cookies};sekisho=CANARY;{more}");
            let target = format!("/?{query}&_sk=CANARY&{query}");
            let head = strip(&target, &[("cookie", &cookie)]).unwrap();
            prop_assert!(!head.target.to_string().contains("CANARY"));
            prop_assert!(head.fields.values().all(|v| !String::from_utf8_lossy(v.as_bytes()).contains("CANARY")));
        }
    }
}
