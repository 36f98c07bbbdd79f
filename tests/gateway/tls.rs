//! TLS: versions, cookies that live there alone, what the plain listener still answers, and what every own answer says.

use bytes::Bytes;
use http::{Method, StatusCode};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::harness::{Answer, Carrier, HOST, Handset, Harness};
use crate::wire::{TestTls, connect, soon, tls_connect};

/// Sessions live over TLS; `others` says whether carriers are served whose identifier comes over plain HTTP.
async fn secure(tls: &TestTls, others: bool) -> Harness {
    Harness::with(|config| {
        let config = config.replace("public_url = \"http:", "public_url = \"https:");
        let off = |config: &str, carrier: &str, network: u8| {
            config.replace(&format!("[carriers.{carrier}]\nnetworks = [\"127.0.{network}.0/24\"]\n"), "")
        };
        let only = |config: String| off(&off(&off(&config, "docomo", 1), "au", 2), "softbank", 3);
        tls.listening(&if others { config } else { only(config) })
    })
    .await
}

fn over_tls(harness: &Harness, tls: &TestTls, tail: &str) -> Handset {
    let mut handset = harness.handset(Carrier::PrivateApn, tail);
    (handset.gateway, handset.tls) = (harness.tls_address(), Some(tls.http1()));
    handset
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let tls = TestTls::new();
    let harness = secure(&tls, true).await;
    let source = [127, 0, 4, 7].into();
    for version in [&TLS12, &TLS13] {
        for (offered, agreed) in [
            (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
            (&["http/1.1"], Some(b"http/1.1")),
            (&["http/1.1", "h2"], Some(b"h2")),
            (&[], None),
        ] {
            let stream = tls_connect(source, harness.tls_address(), &tls.client(&[version], offered)).await;
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version.version), "{offered:?}");
            assert_eq!(session.alpn_protocol(), agreed, "{version:?}");
        }
        let mut handset = over_tls(&harness, &tls, "a");
        handset.tls = Some(tls.client(&[version], &[]));
        assert_eq!(handset.get("/public").await.status, StatusCode::OK);
    }

    // A ClientHello of SSL 3, TLS 1.0, 1.1 and 1.2 with an elliptic suite, two groups and a signature: only the last
    // one is answered, the others are told `protocol_version` (RFC 8446 §6.2).
    for minor in 0..=3 {
        let mut body = vec![3, minor];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
        let extensions = [0, 10, 0, 6, 0, 4, 0, 29, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0];
        body.extend_from_slice(&[0, u8::try_from(extensions.len()).unwrap()]);
        body.extend_from_slice(&extensions);
        let length = u8::try_from(body.len()).unwrap();
        let mut hello = vec![22, 3, minor, 0, length + 4, 1, 0, 0, length];
        hello.extend_from_slice(&body);
        let mut stream = connect(source, harness.tls_address()).await;
        stream.write_all(&hello).await.unwrap();
        let mut answer = [0; 7];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        if minor == 3 {
            assert_eq!(answer[..3], [22, 3, 3]);
        } else {
            assert_eq!((answer[0], answer[5..].to_vec()), (21, vec![2, 70]), "3.{minor}");
        }
    }

    // Plain HTTP to the TLS port gets no answer in the clear.
    let mut stream = connect(source, harness.tls_address()).await;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    harness.finish().await;
}

#[tokio::test]
async fn a_client_without_or_with_another_server_name_gets_the_certificate() {
    let tls = TestTls::new();
    let harness = secure(&tls, true).await;
    let source = [127, 0, 4, 7].into();
    let named = tls_connect(source, harness.tls_address(), &tls.http1()).await;
    let certificate = named.get_ref().1.peer_certificates().unwrap()[0].clone();
    let mut nameless = (*tls.http1()).clone();
    nameless.enable_sni = false;
    // Verified against the name that we know; it is not said.
    let unnamed = tls_connect(source, harness.tls_address(), &nameless.into()).await;
    assert_eq!(unnamed.get_ref().1.peer_certificates().unwrap()[0], certificate);
    let other = ServerName::try_from("other.example").unwrap();
    let tcp = connect(source, harness.tls_address()).await;
    let refused = soon(TlsConnector::from(tls.http1()).connect(other, tcp)).await.unwrap_err();
    assert!(refused.to_string().contains("not valid for name"), "the certificate came, the client declined: {refused}");
    harness.finish().await;
}

#[tokio::test]
async fn a_session_over_tls_has_a_cookie_of_its_own() {
    let tls = TestTls::new();
    let harness = secure(&tls, false).await;
    let mut alice = over_tls(&harness, &tls, "a");
    let code = harness.code("alice").await;
    let entered = alice.enrol("/console", &code).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(entered.header("location"), Some("https://admin.example.jp/console"));
    let cookie = entered.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-sekisho=") && cookie.len() < 4096, "{cookie}");
    let attributes: Vec<_> = cookie.split("; ").skip(1).collect();
    for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(attributes.contains(&attribute), "{attribute} in {cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    assert_eq!(alice.get("/console").await.status, StatusCode::OK);
    let seen = harness.upstream.last();
    assert_eq!(seen.headers["x-forwarded-proto"], "https");
    assert!(!seen.headers.contains_key("cookie"));

    // The same token under the plain name is nothing over TLS, and the other way round.
    let token = alice.cookies.remove("__Host-sekisho").unwrap();
    alice.cookies.insert("sekisho".to_owned(), token.clone());
    assert_eq!(alice.get("/console").await.status, StatusCode::UNAUTHORIZED);
    harness.finish().await;
}

#[tokio::test]
async fn the_plain_listener_points_to_the_public_url_and_sets_no_cookie() {
    let tls = TestTls::new();
    let harness = secure(&tls, false).await;
    let mut alice = over_tls(&harness, &tls, "a");
    let code = harness.code("alice").await;
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    let before = harness.upstream.received().len();
    let mut plain = harness.handset(Carrier::PrivateApn, "a");
    // Even with what a browser would never send in the clear.
    plain.cookies = alice.cookies.clone();
    for (method, target, status) in [
        (Method::GET, "/", 302),
        (Method::GET, "/console/x?a=1&b=%2F", 302),
        (Method::HEAD, "/public", 302),
        (Method::POST, "/public", 308),
        (Method::PUT, "/signin?x", 308),
        (Method::GET, "/_sekisho/me", 302),
        (Method::POST, "/_sekisho/logout", 308),
    ] {
        let answer = plain.send(method.clone(), target, &[], Bytes::new()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {target}");
        assert_eq!(answer.header("location"), Some(&*format!("https://{HOST}{target}")), "{method} {target}");
        assert_eq!(answer.header("set-cookie"), None);
        assert_eq!(answer.header("strict-transport-security"), None, "it counts over TLS only (RFC 6797 §7.2)");
        own(&answer, &format!("{method} {target}"));
    }
    // No WebSocket in the clear (ASVS V4.4.1).
    let handshake = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    assert_eq!(plain.send(Method::GET, "/public", &handshake, Bytes::new()).await.status, StatusCode::FOUND);
    // Where it points to is never the client's to say.
    "evil.example".clone_into(&mut plain.host);
    let answer = plain.get("/").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::MISDIRECTED_REQUEST, None));
    assert_eq!(harness.upstream.received().len(), before);
    assert_eq!(alice.get("/").await.status, StatusCode::OK, "the session lives on");
    harness.finish().await;
}

/// What every answer of our own says (ASVS V3.4, V14.3.2).
fn own(answer: &Answer, case: &str) {
    let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{case}: {:?}", answer.headers));
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{case}: {policy}");
    assert!(policy.contains("base-uri 'none'") && !policy.contains("unsafe"), "{case}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{case}");
    }
    for name in ["server", "via", "x-powered-by"] {
        assert_eq!(answer.header(name), None, "{case}");
    }
    if !answer.body.is_empty() {
        let kind = answer.header("content-type").unwrap();
        assert!(kind == "application/json" || kind.starts_with("text/html; charset="), "{case}: {kind}");
        assert!(!answer.text().contains("<script"), "{case}");
    }
}

#[tokio::test]
async fn every_own_answer_is_protected() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut stranger = harness.handset(Carrier::Docomo, "b");
    let mut foreigner = harness.handset(Carrier::SoftBank, "c");
    "evil.example".clone_into(&mut foreigner.host);
    for accept in ["text/html", "application/json"] {
        let accept = [("Accept", accept)];
        for target in ["/", "/_sekisho/login", "/_sekisho/enrol", "/_sekisho/me"] {
            let answer = stranger.send(Method::GET, target, &accept, Bytes::new()).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{target}");
            own(&answer, target);
        }
        for (method, target, status) in [
            (Method::GET, "/_sekisho/logout", 200),
            (Method::GET, "/_sekisho/me", 200),
            (Method::GET, "/_sekisho/notice", 200),
            (Method::GET, "/_sekisho/nothing", 404),
            (Method::GET, "/..", 400),
            (Method::POST, "/_sekisho/notice", 405),
            (Method::TRACE, "/", 405),
            (Method::POST, "/_sekisho/logout", 400),
        ] {
            let answer = alice.send(method.clone(), target, &accept, Bytes::new()).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {target} {}", answer.text());
            own(&answer, &format!("{method} {target}"));
        }
        own(&foreigner.send(Method::GET, "/", &accept, Bytes::new()).await, "foreign host");
    }
    let entered = alice.click_again().await;
    own(&entered, "signing in");
    harness.finish().await;
}

impl Handset {
    /// Signs in anew.
    async fn click_again(&mut self) -> Answer {
        self.cookies.clear();
        let entered = self.click_sign_in("/").await;
        assert_eq!(entered.status, StatusCode::FOUND);
        entered
    }
}

#[tokio::test]
async fn hsts_is_sent_where_no_handset_needs_plain_http() {
    let tls = TestTls::new();
    for (others, expected) in [(false, true), (true, false)] {
        let harness = secure(&tls, others).await;
        harness.upstream.answer(|_| {
            let answer = http::Response::builder().header("Strict-Transport-Security", "max-age=1");
            answer.body(http_body_util::Full::default()).unwrap()
        });
        let mut handset = over_tls(&harness, &tls, "a");
        for target in ["/", "/public", "/_sekisho/notice", "/_sekisho/jwks.json", "/_sekisho/nothing", "/.."] {
            let answer = handset.get(target).await;
            let sent = answer.header("strict-transport-security");
            if expected {
                let age = sent.unwrap().strip_prefix("max-age=").unwrap().split(';').next().unwrap();
                assert!(age.parse::<u64>().unwrap() >= 31_536_000, "{target}: {sent:?}");
            } else {
                assert_eq!(sent, None, "{target}: it would lock handsets out");
            }
        }
        "evil.example".clone_into(&mut handset.host);
        assert_eq!(handset.get("/").await.header("strict-transport-security").is_some(), expected);
        harness.finish().await;
    }
}

#[tokio::test]
async fn renewed_certificates_are_shown_all_or_none() {
    let tls = TestTls::new();
    let mut harness = secure(&tls, true).await;
    let (source, address) = ([127, 0, 4, 7].into(), harness.tls_address());
    let renewed = tls.renewed();
    assert!(tls.connects(source, address).await, "nobody said that it was renewed");
    harness.reload(|config| config).await.unwrap();
    assert!(renewed.connects(source, address).await && !tls.connects(source, address).await);

    // A certificate beside the key of the one before: what a renewal is in the middle of.
    let half = tls.renewed();
    tls.write_key("-----BEGIN PRIVATE KEY-----\n");
    let findings = harness.reload(|config| config).await.unwrap_err();
    assert!(findings.len() == 1 && findings[0].contains(": listener[2].tls: "), "{findings:?}");
    assert!(renewed.connects(source, address).await && !half.connects(source, address).await);
    harness.finish().await;
}
