//! Which spans a request leaves, and what may not stand in them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{Method, StatusCode};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Code;
use sekisho::trace::SPAN_FIELDS;

use crate::collector::{Collector, Seen};
use crate::harness::{AU_CANARY, CANARY, Carrier, HOST, Harness, contains};
use crate::wire::{PlayedUpstream, TestTls, Wire};

/// 1.1.2000 in nanoseconds: before that there was no gateway.
const YEAR_2000: u64 = 946_684_800_000_000_000;

fn lies_within(inner: &Seen, outer: &Seen) {
    let (a, b) = (inner.span.start_time_unix_nano, inner.span.end_time_unix_nano);
    let (from, to) = (outer.span.start_time_unix_nano, outer.span.end_time_unix_nano);
    assert!(YEAR_2000 < from && from <= a && a <= b && b <= to, "{inner:?} in {outer:?}");
}

#[tokio::test]
async fn a_sign_in_and_a_proxied_request_are_trees() {
    let collector = Collector::start().await;
    let harness = Harness::with(|config| collector.configured(&config, "service = \"gate\"")).await;
    let mut alice = harness.handset(Carrier::SoftBank, "a");
    let code = harness.code("alice").await;
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    let enrolled = collector.request("/_sekisho/enrol").await;
    assert_eq!(enrolled.span.name, "POST /_sekisho/enrol");
    let stages = collector.children(&enrolled);
    for stage in ["identify", "digest", "enrol", "open session"] {
        assert_eq!(stages[stage].span.kind, SpanKind::Internal as i32);
        lies_within(&stages[stage], &enrolled);
    }
    // The click before it found the handset bound to nobody.
    let clicked = collector.span(|span| span.is("url.path", "/_sekisho/login")).await;
    assert!(
        clicked.is("http.response.status_code", "403") && clicked.span.status.is_none(),
        "no error of the server's"
    );
    let first: BTreeSet<_> = collector.children(&clicked).into_keys().collect();
    assert_eq!(first, ["digest", "identify", "resolve"].map(str::to_owned).into());

    // A query, a cookie, a serial in the User-Agent, another host's spelling: nothing of it is in a span.
    alice.host = HOST.to_uppercase();
    assert_eq!(alice.get("/orders?page=QUERYSECRET").await.status, StatusCode::OK);
    let request = collector.request("/orders").await;
    let sent = harness.upstream.last();
    let header = |name: &str| sent.headers[name].to_str().unwrap().to_owned();
    assert_eq!(request.span.kind, SpanKind::Server as i32);
    assert_eq!((request.span.name.as_str(), request.parent().as_str()), ("GET /", ""));
    assert_eq!(request.trace(), header("x-request-id"), "the access log's name for it");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.route", "/"),
        ("url.scheme", "http"),
        ("server.address", HOST),
        ("network.protocol.version", "1.1"),
    ] {
        assert!(request.is(key, value), "{key}: {request:?}");
    }
    let calls = collector.children(&request);
    let call = &calls["GET"];
    assert!(calls.len() == 1 && call.span.kind == SpanKind::Client as i32);
    assert!(call.is("sekisho.upstream", "console") && call.is("http.response.status_code", "200"), "{call:?}");
    assert_eq!(header("traceparent"), format!("00-{}-{}-01", request.trace(), call.id()), "below the call");
    lies_within(call, &request);

    let message = &collector.messages()[0];
    assert_eq!(message.target, "/v1/traces");
    assert_eq!(message.headers["content-type"], "application/x-protobuf");
    assert_eq!(message.resource["service.name"], "gate");
    let allowed: BTreeSet<&str> = SPAN_FIELDS.iter().copied().collect();
    for span in collector.spans() {
        assert!(span.attributes.keys().all(|key| allowed.contains(key.as_str())), "{span:?}");
        assert!(span.span.events.is_empty() && span.span.links.is_empty() && span.span.trace_state.is_empty());
    }
    let received = collector.bytes();
    let token = alice.cookies["sekisho"].clone();
    let serial = "012345678901234";
    assert!(alice.user_agent.contains(serial));
    for secret in [CANARY, AU_CANARY, "alice", "QUERYSECRET", &token, &code, serial, "127.0.3", "MIDP"] {
        assert!(!contains(&received, secret.as_bytes()), "{secret} left for the collector");
    }
    assert!(harness.metrics().await.contains("sekisho_trace_spans_total{outcome=\"not-taken\"} 0"));
    harness.finish().await;
}

#[tokio::test]
async fn refusals_failures_and_strange_requests_have_spans_too() {
    let (collector, tls) = (Collector::start().await, TestTls::new());
    let harness = Harness::with(|config| {
        let listener = "[[listener]]\nserves = \"forward-auth\"\naddress = \"127.0.0.1:0\"\n\n[admin]";
        let away = "[[upstream]]\nname = \"away\"\nservers = [\"http://127.0.0.1:1\"]\naudience = \"https://away\"\n\
                    [[route]]\npath = \"/away\"\nupstream = \"away\"\naccess = \"public\"\n";
        let config = tls.listening(&config.replace("[admin]", listener));
        collector.configured(&format!("{config}\n{away}"), "")
    })
    .await;
    let mut visitor = harness.handset(Carrier::PrivateApn, "a");
    let strange = Method::from_bytes(b"BREW").unwrap();
    let cases = [
        (Method::GET, "/_sekisho/no/such/page", 404, "GET", ""),
        (Method::GET, "/private", 401, "GET /", ""),
        (Method::GET, "/away/x", 502, "GET /away", "502"),
        (strange, "/public/strange", 200, "HTTP /public", ""),
    ];
    for (method, path, status, name, error) in cases {
        assert_eq!(visitor.send(method, path, &[], Bytes::new()).await.status, status, "{path}");
        let span = collector.request(path).await;
        assert_eq!(span.span.name, name, "{path}");
        assert!(span.is("http.response.status_code", &status.to_string()), "{span:?}");
        let failed = span.span.status.as_ref().is_some_and(|status| status.code == Code::Error as i32);
        assert_eq!((failed, span.attributes.get("error.type").map_or("", |e| e)), (!error.is_empty(), error), "{path}");
    }
    assert!(collector.request("/public/strange").await.is("http.request.method", "_OTHER"));
    let call = collector.span(|span| span.is("sekisho.upstream", "away")).await;
    assert!(
        call.is("error.type", "upstream-unreachable") && !call.attributes.contains_key("http.response.status_code")
    );

    (visitor.gateway, visitor.tls) = (harness.tls_address(), Some(tls.http2()));
    assert_eq!(visitor.get("/public/over/tls").await.status, StatusCode::OK);
    let span = collector.request("/public/over/tls").await;
    assert!(span.is("network.protocol.version", "2") && span.is("url.scheme", "https"), "{span:?}");

    // What a proxy asks about stands in no span; a host that is not ours does not either.
    let question = http::Request::get("/_sekisho/authorize")
        .header("Host", "sekisho.internal")
        .header("X-Forwarded-For", "127.0.8.1")
        .header("X-Forwarded-Host", HOST)
        .header("X-Forwarded-Uri", "/public?ASKEDSECRET")
        .body(http_body_util::Full::default())
        .unwrap();
    let proxy = Ipv4Addr::new(127, 0, 9, 1).into();
    let answer =
        crate::harness::exchange(proxy, harness.listener(sekisho::config::Serves::ForwardAuth), question).await;
    assert_eq!(answer.status, StatusCode::OK);
    let asked = collector.request("/_sekisho/authorize").await;
    assert!(asked.span.name == "GET /_sekisho/authorize" && asked.is("server.address", HOST), "{asked:?}");
    let mut stranger = harness.handset(Carrier::PrivateApn, "b");
    "evil.example".clone_into(&mut stranger.host);
    assert_eq!(stranger.get("/evil").await.status, StatusCode::MISDIRECTED_REQUEST);
    assert!(!collector.request("/evil").await.attributes.contains_key("server.address"));
    let received = collector.bytes();
    for secret in ["ASKEDSECRET", "evil.example", "BREW", CANARY] {
        assert!(!contains(&received, secret.as_bytes()), "{secret} left for the collector");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_leaves_a_whole_tree() {
    let (collector, upstream) = (Collector::start().await, PlayedUpstream::start().await);
    let harness = Harness::with(|config| collector.configured(&upstream.routed(&config, "public", ""), "")).await;
    let source = harness.handset(Carrier::PrivateApn, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    client.send(format!("GET /played/left HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    drop(client);
    let request = collector.request("/played/left").await;
    assert!(!request.attributes.contains_key("http.response.status_code"), "{request:?}");
    // What the request waited for ends before the request does, or nobody learnt what that was.
    let calls: Vec<_> = collector.children(&request).into_values().collect();
    assert!(calls.len() == 1 && calls[0].is("sekisho.upstream", "played"), "{calls:?}");
    assert!(calls[0].is("error.type", "client-left"), "{calls:?}");
    lies_within(&calls[0], &request);
    harness.finish().await;
}
