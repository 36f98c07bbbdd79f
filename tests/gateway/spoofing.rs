//! What a client says in the gateway's name, or in its carrier's, ends at the gateway: on every route and error path,
//! under every spelling, in heads and trailers, over HTTP/1.1 and HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use sekisho::assertion::AssertionVerifier;
use sekisho::clock::Clock;
use sekisho::edge::fold;

use crate::harness::{Carrier, HOST, Handset, Harness};
use crate::recorder::Received;
use crate::wire::{TestTls, Wire, tls_exchange};

const SPOOFED: &str = include_str!("../data/spoofed_headers.txt");
const STRIP_ALWAYS: &str = include_str!("../data/strip_always.txt");

/// Part of every forged value.
const FORGED: &str = "f0rged";

/// Fields sent at once: a head may have a hundred.
const AT_ONCE: usize = 30;

fn lines(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Names of `strip_always.txt`, of one kind or of all kinds of field but `identifier`.
fn carriers_names(kind: &'static str) -> impl Iterator<Item = &'static str> {
    lines(STRIP_ALWAYS).map(|row| row.split_once(' ').unwrap()).filter(move |(k, _)| *k == kind).map(|(_, name)| name)
}

fn is_identifier(name: &str) -> bool {
    carriers_names("identifier").any(|identifier| fold(identifier) == fold(name))
}

/// Each name as documented, in other cases, and with each separator that a field name may have.
fn respelt(name: &str) -> Vec<String> {
    let mut spellings = vec![name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()];
    for separator in ["_", ".", "~", "!", "|"] {
        let spelling = name.replace(['-', '_'], separator);
        if !spellings.contains(&spelling) {
            spellings.push(spelling);
        }
    }
    spellings
}

/// Everything that no upstream may see from anybody, apart from identifier fields.
fn forgeries() -> Vec<String> {
    let mut names: Vec<String> = lines(SPOOFED).map(str::to_owned).collect();
    let kinds = ["telephone-number", "imsi", "imei", "subscriber-alias", "account-or-plan", "location"];
    for kind in kinds.into_iter().chain(["internal-address"]) {
        let of_kind: Vec<_> = carriers_names(kind).filter(|name| !is_identifier(name)).collect();
        assert!(!of_kind.is_empty(), "{kind}");
        names.extend(of_kind.into_iter().flat_map(respelt));
    }
    for suffix in carriers_names("suffix") {
        names.extend(respelt(&format!("X-Newcomer-{suffix}")));
        names.push(format!("brandnew{suffix}"));
    }
    names
}

/// Nothing forged anywhere, and exactly one statement if one is due.
fn assert_clean(received: &Received, signed_in: bool, case: &str) {
    for headers in [&received.headers, &received.trailers] {
        for (name, value) in headers {
            let text = format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
            assert!(!text.contains(FORGED), "{case}: {text}");
        }
    }
    assert!(!received.target.contains(FORGED), "{case}: {}", received.target);
    let statements: Vec<_> = statements(&received.headers).collect();
    assert_eq!(statements.len(), usize::from(signed_in), "{case}: {statements:?}");
    assert!(statements.iter().all(|name| *name == "sekisho-jwt-assertion"), "{case}: {statements:?}");
    assert_eq!(statements_in_trailers(received), 0, "{case}");
    assert_eq!(received.headers.get_all("sekisho-jwt-assertion").iter().count(), usize::from(signed_in), "{case}");
}

fn statements(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.keys().map(http::HeaderName::as_str).filter(|name| fold(name).contains("sekisho"))
}

fn statements_in_trailers(received: &Received) -> usize {
    statements(&received.trailers).count()
}

/// Sends `names` by themselves and doubled, in heads of [`AT_ONCE`] fields, and checks what arrived.
async fn forge(harness: &Harness, handset: &mut Handset, names: &[String], target: &str, signed_in: bool) {
    for chunk in names.chunks(AT_ONCE) {
        let values: Vec<_> = (0..chunk.len()).map(|i| format!("{FORGED}-{i}")).collect();
        let once: Vec<_> = chunk.iter().zip(&values).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let twice: Vec<_> = once.iter().chain(&once).copied().collect();
        for fields in [once, twice] {
            let before = harness.upstream.received().len();
            let answer = handset.send(Method::GET, target, &fields, Bytes::new()).await;
            let case = format!("{target} with {chunk:?}");
            assert_eq!(answer.status, StatusCode::OK, "{case}: {}", answer.text());
            let received = harness.upstream.received();
            assert_eq!(received.len(), before + 1, "{case}");
            assert_clean(&received[before], signed_in, &case);
        }
    }
}

const ROUTES: [&str; 3] = ["/console", "/public/page", "/signin/form"];

#[tokio::test]
async fn nobody_but_the_gateway_speaks_for_the_gateway_over_http_1() {
    let harness = Harness::start().await;
    let names = forgeries();
    assert!(names.len() > 400, "{}", names.len());
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut stranger = harness.handset(Carrier::Au, "b");
    stranger.identifier = None;
    for target in ROUTES {
        forge(&harness, &mut alice, &names, target, true).await;
    }
    for target in &ROUTES[1..] {
        forge(&harness, &mut stranger, &names, target, false).await;
    }
    // What is there is ours.
    let jwks = alice.get("/_sekisho/jwks.json").await.text();
    let verifier = AssertionVerifier::new(&jwks, "http://admin.example.jp", "https://console.internal").unwrap();
    for received in harness.upstream.received() {
        if let Some(token) = received.headers.get("sekisho-jwt-assertion") {
            verifier.verify(token.to_str().unwrap(), harness.clock.now()).unwrap();
        }
        for name in ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "traceparent"]
        {
            assert_eq!(received.headers.get_all(name).iter().count(), 1, "{name}");
        }
        let of = |name: &str| received.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        assert!(["127.0.3.7", "127.0.2.7"].contains(&of("x-forwarded-for")), "{received:?}");
        assert_eq!((of("x-forwarded-proto"), of("x-forwarded-host")), ("http", HOST));
        assert_eq!((of("x-request-id").len(), of("traceparent").len()), (32, 55));
    }
    harness.finish().await;
}

#[tokio::test]
async fn nobody_but_the_gateway_speaks_for_the_gateway_over_http_2() {
    let tls = TestTls::new();
    let harness = Harness::with(|config| tls.listening(&config)).await;
    let names: Vec<_> = forgeries();
    let mut alice = harness.handset(Carrier::PrivateApn, "a");
    (alice.gateway, alice.tls) = (harness.tls_address(), Some(tls.http2()));
    let code = harness.code("alice").await;
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    assert!(alice.cookies.contains_key("__Host-sekisho"), "{:?}", alice.cookies.keys());
    let mut stranger = harness.handset(Carrier::PrivateApn, "b");
    (stranger.gateway, stranger.tls, stranger.identifier) = (harness.tls_address(), Some(tls.http2()), None);
    // Over HTTP/2 a field of the connection makes the request malformed (RFC 9113 §8.2.2); nothing else differs.
    forge(&harness, &mut alice, &names, "/console", true).await;
    forge(&harness, &mut stranger, &names, "/public/page", false).await;
    forge(&harness, &mut stranger, &names, "/signin/form", false).await;
    assert!(harness.upstream.received().iter().all(|r| r.headers["x-forwarded-proto"] == "https"));
    harness.finish().await;
}

/// An identifier that does not fit may end the request, never pass.
#[tokio::test]
async fn identifier_fields_of_all_profiles_end_at_the_gateway() {
    let harness = Harness::start().await;
    let names: Vec<_> = carriers_names("identifier").flat_map(respelt).collect();
    assert!(names.len() > 40);
    let mut stranger = harness.handset(Carrier::Docomo, "a");
    stranger.identifier = None;
    forge(&harness, &mut stranger, &names, "/public", false).await;
    forge(&harness, &mut stranger, &names, "/signin?guid=ON", false).await;

    let value = format!("{FORGED}-1");
    let mut served = 0;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let session = alice.cookies.clone();
    for name in &names {
        let before = harness.upstream.received().len();
        let answer = alice.send(Method::GET, "/console", &[(name, &value)], Bytes::new()).await;
        let received = harness.upstream.received();
        match answer.status {
            StatusCode::OK => {
                served += 1;
                assert_clean(&received[before], true, name);
            }
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => assert_eq!(received.len(), before, "{name}"),
            status => panic!("{name}: {status}"),
        }
        assert_eq!(alice.cookies, session, "{name}: a field that cannot be judged must not end the session");
    }
    assert!(served > 0, "a profile that is no handset's field here is just removed");
    harness.finish().await;
}

#[tokio::test]
async fn a_true_identifier_is_removed_as_well() {
    let harness = Harness::start().await;
    for (i, carrier) in Carrier::ALL.into_iter().enumerate() {
        let mut handset = harness.signed_in(carrier, "a", &format!("account-{i}")).await;
        for target in ["/?guid=ON", "/public?guid=ON", "/signin?guid=ON&x"] {
            assert_eq!(handset.get(target).await.status, StatusCode::OK, "{carrier:?} {target}");
            let received = harness.upstream.last();
            assert!(!received.headers.contains_key(carrier.header()), "{carrier:?} {target}");
            let all = format!("{received:?}");
            assert!(!all.contains(crate::harness::CANARY) && !all.contains(crate::harness::AU_CANARY), "{carrier:?}");
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn connection_may_not_name_what_the_gateway_protects() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let identifiers = carriers_names("identifier");
    let protected = ["Sekisho-Jwt-Assertion", "sekisho_jwt_assertion", "Sekisho.Jwt~Assertion", "X-Forwarded-For"];
    let relied_on = ["X-Real-IP", "Forwarded", "Remote-User", "X-MSISDN", "Host", "Cookie", "Authorization"];
    for name in protected.into_iter().chain(relied_on).chain(identifiers) {
        for list in [name.to_owned(), format!("close, {name}"), format!("keep-alive,{},", name.to_lowercase())] {
            for target in ROUTES {
                let fields = [("Connection", list.as_str()), ("Accept", "application/json")];
                let answer = alice.send(Method::GET, target, &fields, Bytes::new()).await;
                assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "malformed-request"), "{list}");
            }
        }
    }
    assert!(harness.upstream.received().is_empty());

    // What it may name goes, with what it names.
    let hop = [("Connection", "X-Hop, close"), ("X-Hop", FORGED), ("Keep-Alive", FORGED), ("TE", "gzip")];
    let proxies = [("Proxy-Authorization", FORGED), ("Proxy-Connection", FORGED), ("Proxy-Authenticate", FORGED)];
    let fields: Vec<_> = hop.into_iter().chain(proxies).chain([("X-Kept", "1")]).collect();
    assert_eq!(alice.send(Method::GET, "/console", &fields, Bytes::new()).await.status, StatusCode::OK);
    let received = harness.upstream.last();
    assert_clean(&received, true, "hop-by-hop");
    assert_eq!(received.headers["x-kept"], "1");
    for name in ["x-hop", "keep-alive", "te", "proxy-authorization", "proxy-connection", "proxy-authenticate"] {
        assert!(!received.headers.contains_key(name), "{name}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn trailers_carry_nothing_forged_either() {
    let harness = Harness::start().await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let cookie = format!("Cookie: sekisho={}\r\n", alice.cookies["sekisho"]);
    let protected = ["Sekisho-Jwt-Assertion", "SEKISHO_JWT_ASSERTION", "X-JPHONE-UID", "x_up_subno", "X-Forwarded-For"];
    let relied_on = ["X-MSISDN", "Forwarded", "Cookie", "Authorization", "Host", "Content-Length", "Transfer-Encoding"];
    let names: Vec<_> = protected.into_iter().chain(relied_on).collect();
    let trailers: String = names.iter().flat_map(|name| [name, ": ", FORGED, "\r\n"]).collect();
    for target in ROUTES {
        for announced in [format!("X-Sum, {}", names.join(", ")), format!("X-Sum\r\nTrailer: {}", names.join(","))] {
            let before = harness.upstream.received().len();
            let mut wire = Wire::connect(alice.source, harness.address()).await;
            let head = format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\n{cookie}Trailer: {announced}\r\n");
            let body = format!("5\r\nhello\r\n0\r\nX-Sum: 1\r\n{trailers}\r\n");
            wire.send(format!("{head}TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
            let answer = wire.answer().await;
            assert_eq!(answer.status(), 200, "{answer:?}");
            let received = &harness.upstream.received()[before];
            assert_clean(received, true, target);
            assert_eq!(
                (&received.body[..], received.trailers["x-sum"].as_bytes()),
                (&b"hello"[..], &b"1"[..]),
                "{target}"
            );
            assert_eq!(received.trailers.len(), 1, "{:?}", received.trailers);
            assert_eq!(received.headers["trailer"], "x-sum", "what does not come is not announced");
        }
    }
    harness.finish().await;
}

/// HTTP/2 announces no trailers, so any may come.
#[tokio::test]
async fn trailers_of_http_2_are_filtered_alike() {
    let tls = TestTls::new();
    let harness = Harness::with(|config| tls.listening(&config)).await;
    for announced in ["x-sum, sekisho-jwt-assertion, x-dcmguid, x-forwarded-for", "X-Sum", "", "*, x-sum"] {
        let trailers: HeaderMap =
            ["x-sum", "sekisho-jwt-assertion", "sekisho_jwt_assertion", "x-dcmguid", "x-forwarded-for", "x-other"]
                .into_iter()
                .map(|name| (name.parse().unwrap(), if name == "x-sum" { "1" } else { FORGED }.parse().unwrap()))
                .collect();
        let body = Full::new(Bytes::from_static(b"hello")).with_trailers(std::future::ready(Some(Ok(trailers))));
        let request = Request::post("/public").header("host", HOST).header("te", "trailers");
        let request = request.header("trailer", announced).body(Box::pin(body)).unwrap();
        let source = [127, 0, 4, 7].into();
        let answer = tls_exchange(source, harness.tls_address(), &tls.http2(), request).await;
        assert_eq!(answer.status, StatusCode::OK, "{announced}");
        let received = harness.upstream.last();
        assert_eq!(&received.body[..], b"hello");
        assert_clean(&received, false, announced);
        let names: Vec<_> = received.trailers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, if announced.is_empty() { &[][..] } else { &["x-sum"] }, "{announced}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn error_paths_reach_no_upstream() {
    let harness = Harness::start().await;
    let mut stranger = harness.handset(Carrier::SoftBank, "a");
    stranger.identifier = None;
    let fields = [("Sekisho-Jwt-Assertion", FORGED), ("X-Forwarded-For", FORGED), ("Remote-User", FORGED)];
    for (target, status) in
        [("/console", 401), ("/public/../console", 400), ("/_sekisho/x", 404), ("/_sekisho/me", 401), ("/..", 400)]
    {
        let answer = stranger.send(Method::GET, target, &fields, Bytes::new()).await;
        assert_eq!(answer.status.as_u16(), status, "{target}");
        assert!(!answer.text().contains(FORGED), "{target}");
    }
    FORGED.clone_into(&mut stranger.host);
    assert_eq!(stranger.send(Method::GET, "/public", &fields, Bytes::new()).await.status, 421);
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn serials_are_cut_out_of_the_user_agent() {
    let harness = Harness::start().await;
    let rows = [
        (
            "SoftBank/1.0/930SH/SHJ001/SN012345678901234 Browser/NetFront/3.4",
            "SoftBank/1.0/930SH/SHJ001 Browser/NetFront/3.4",
        ),
        (
            "DoCoMo/2.0 P903i(c100;TB;W24H12;ser012345678901234;icc01234567890123456789)",
            "DoCoMo/2.0 P903i(c100;TB;W24H12)",
        ),
        ("DoCoMo/1.0/F502i/c10/serABCDE012345", "DoCoMo/1.0/F502i/c10"),
        ("KDDI-CA39 UP.Browser/6.2.0.13.1.5 (GUI) MMP/2.0", "KDDI-CA39 UP.Browser/6.2.0.13.1.5 (GUI) MMP/2.0"),
        (
            "Mozilla/5.0 (Android 14; Mobile) Gecko/1 Firefox/120",
            "Mozilla/5.0 (Android 14; Mobile) Gecko/1 Firefox/120",
        ),
    ];
    let mut stranger = harness.handset(Carrier::SoftBank, "a");
    for (sent, expected) in rows {
        sent.clone_into(&mut stranger.user_agent);
        for target in &ROUTES[1..] {
            assert_eq!(stranger.get(target).await.status, StatusCode::OK);
            assert_eq!(harness.upstream.last().headers["user-agent"], expected, "{sent}");
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn gateway_and_carrier_cookies_stay_and_others_pass_byte_for_byte() {
    let harness = Harness::start().await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let token = &alice.cookies["sekisho"];
    let reserved: Vec<_> = carriers_names("cookie").collect();
    assert_eq!(reserved.len(), 4);
    for (sent, expected) in [
        (format!("sekisho={token}"), None),
        (format!("a=1; sekisho={token}; b=\"2 3\";c=%20;  d"), Some("a=1; b=\"2 3\";c=%20;  d")),
        (format!("__Host-sekisho=x; sekisho={token};a=\u{e9}"), Some("a=\u{e9}")),
        (format!("sekisho={token}; sekisho={token}; sekisho2=kept"), Some("sekisho2=kept")),
        (format!("sekisho={token}; {}=09012345678; a=1", reserved.join("=1; ")), Some("a=1")),
        (format!("a=1\r\nCookie: sekisho={token}\r\nCookie: b=2; c=3"), Some("a=1; b=2; c=3")),
    ] {
        let mut wire = Wire::connect(alice.source, harness.address()).await;
        wire.get("/console", &format!("Cookie: {sent}\r\n")).await;
        assert_eq!(wire.answer().await.status(), 200, "{sent}");
        let received = harness.upstream.last();
        assert_clean(&received, true, &sent);
        let cookies: Vec<_> = received.headers.get_all("cookie").iter().map(http::HeaderValue::as_bytes).collect();
        assert_eq!(cookies, expected.iter().map(|e| e.as_bytes()).collect::<Vec<_>>(), "{sent}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn gateway_query_keys_stay_and_others_pass_byte_for_byte() {
    let harness = Harness::start().await;
    let stranger = harness.handset(Carrier::SoftBank, "a");
    let mut wire = Wire::connect(stranger.source, harness.address()).await;
    for (sent, expected) in [
        ("/public?_sk=f0rged", "/public"),
        ("/public?guid=ON", "/public"),
        ("/public?a=1&guid=on&b=%e3%81%82&b=+&&c", "/public?a=1&b=%e3%81%82&b=+&&c"),
        ("/public?%5Fsk=f0rged&GUID=x&x", "/public?x"),
        ("/public?_s%6b=f0rged&%67uid=f0rged", "/public"),
        ("/public?_SK=f0rged", "/public"),
        ("/public?a=_sk&b=guid=ON&guids=1&x_sk=2", "/public?a=_sk&b=guid=ON&guids=1&x_sk=2"),
        ("/public?lat=35.1&lon=139.2&uid=NULLGWDOCOMO", "/public?lat=35.1&lon=139.2&uid=NULLGWDOCOMO"),
        ("/public?", "/public?"),
        ("/public?a?b=/../&c=%00", "/public?a?b=/../&c=%00"),
    ] {
        let referer = format!("Referer: http://{HOST}{sent}\r\n");
        wire.get(sent, &referer).await;
        assert_eq!(wire.answer().await.status(), 200, "{sent}");
        let received = harness.upstream.last();
        assert_eq!(received.target, expected, "{sent}");
        assert_eq!(received.headers["referer"], format!("http://{HOST}{expected}"), "{sent}");
    }
    harness.finish().await;
}
