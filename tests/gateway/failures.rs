//! What a handset meets when something fails: one reason each, a page in its language or JSON, nothing of the inside.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::net::TcpSocket;

use crate::bystander::Bystander;
use crate::harness::{Answer, Carrier, HOST, Handset, Harness};
use crate::wire::{PlayedUpstream, Wire, soon};

/// Asks for `target` in Japanese, in English and as a script: always `reason` with its status.
async fn refused(handset: &mut Handset, method: &Method, target: &str, body: &[u8], reason: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (fields, language) in [
        (("Accept-Language", "ja,en;q=0.5"), "ja"),
        (("Accept-Language", "en-GB,ja;q=0.5"), "en"),
        (("Accept", "application/json"), "ja"),
    ] {
        let answer = handset.send(method.clone(), target, &[fields], Bytes::copy_from_slice(body)).await;
        let case = format!("{target} {fields:?}: {} {}", answer.status, answer.text());
        assert_eq!(answer.header("content-language"), Some(language), "{case}");
        if fields.0 == "Accept" {
            assert_eq!((answer.header("content-type"), answer.reason().as_str()), (Some("application/json"), reason));
            assert!(!answer.json()["error"]["message"].as_str().unwrap().is_empty(), "{case}");
        } else {
            assert!(answer.text().contains(&format!("lang=\"{language}\"")), "{case}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
        for inside in ["127.0.0.1", "hyper", "refused", "error:", "src/"] {
            assert!(!answer.text().contains(inside), "{inside} in {case}");
        }
        answers.push(answer);
    }
    let status = answers[0].status;
    assert!(answers.iter().all(|answer| answer.status == status), "one status whatever the form");
    answers
}

/// An address where nobody listens, and nobody else will while the socket is held.
fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn routed(config: &str, server: SocketAddr, timeout: &str) -> String {
    let upstream = format!("name = \"broken\"\nservers = [\"http://{server}\"]\naudience = \"https://broken\"");
    let route = "path = \"/broken\"\nupstream = \"broken\"\naccess = \"public\"";
    format!("{config}\n[[upstream]]\n{upstream}\ntimeout = {{ {timeout} }}\n[[route]]\n{route}\n")
}

#[tokio::test]
async fn an_upstream_that_is_not_there() {
    let (_held, nobody) = closed_port();
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&routed(&config, nobody, "connect = \"2s\""))).await;
    let watch = calm.watch(&harness).await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    let answers = refused(&mut handset, &Method::GET, "/broken/x?_sk=1", b"", "upstream-unreachable").await;
    assert_eq!(answers[0].status, StatusCode::BAD_GATEWAY);
    assert_eq!(handset.get("/public").await.status, StatusCode::OK, "the others are not concerned");
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_silent_upstream() {
    let upstream = PlayedUpstream::start().await;
    let timeout = "timeout = { first_byte = \"50ms\" }";
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&config, "public", timeout))).await;
    let watch = calm.watch(&harness).await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    let playing = tokio::spawn(async move {
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut server = upstream.accept().await;
            server.head().await;
            held.push(server);
        }
        // Given up on: the gateway hangs up, so that the upstream can stop as well.
        for mut server in held {
            assert!(server.rest().await.is_empty());
        }
    });
    let answers = refused(&mut handset, &Method::GET, "/played", b"", "upstream-timeout").await;
    assert_eq!(answers[0].status, StatusCode::GATEWAY_TIMEOUT);
    soon(playing).await.unwrap();
    watch.noticed_nothing().await;
    harness.finish().await;
}

/// What an upstream may say that is no HTTP, or only its beginning.
const NO_ANSWERS: &[&str] = &[
    "",
    "HTTP/1.1 200 OK\r\nContent-Le",
    "SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.1 999999 No\r\n\r\n",
];

#[tokio::test]
async fn an_upstream_that_speaks_no_http() {
    let upstream = PlayedUpstream::start().await;
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&config, "public", ""))).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::SoftBank, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    for said in NO_ANSWERS {
        client.get("/played", "Accept: application/json\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(said).await;
        drop(server);
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-unreachable"), "{said:?}");
    }
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let upstream = PlayedUpstream::start().await;
    let calm = Bystander::new().await;
    let timeout = "timeout = { idle = \"100ms\" }";
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&config, "public", timeout))).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::SoftBank, "a").source;
    for (answer, last) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!", &b"half!"[..]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf!\r\n", &b"5\r\nhalf!\r\n"[..]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf!\r\nzz\r\n", &b"5\r\nhalf!\r\n"[..]),
    ] {
        let mut client = Wire::connect(source, harness.address()).await;
        client.get("/played", "").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(answer).await;
        drop(server);
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        // Closed without the last chunk or the last bytes: nobody takes it for whole.
        assert_eq!(String::from_utf8_lossy(&client.rest().await), String::from_utf8_lossy(last), "{answer}");
    }
    // One that stands still is given up on.
    let mut client = Wire::connect(source, harness.address()).await;
    client.get("/played", "").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.rest().await, b"half!");
    assert!(server.rest().await.is_empty());
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn an_upstream_that_resets_its_connections() {
    let upstream = PlayedUpstream::start().await;
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&config, "public", ""))).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::SoftBank, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    for (method, said) in [("GET", ""), ("GET", "HTTP/1.1 200 OK\r\nContent-Le"), ("POST", "")] {
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let head = format!("{method} /played HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\n");
        client.send(format!("{head}{length}\r\n")).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(said).await;
        server.reset();
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-unreachable"), "{method} {said:?}");
    }
    // Within its answer: the client sees that the end is missing.
    client.get("/played", "").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.exactly(5).await, b"half!");
    server.reset();
    assert!(client.rest().await.is_empty());
    // Within a request: nothing of it is sent again.
    let mut client = Wire::connect(source, harness.address()).await;
    let head = format!("PUT /played HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n");
    client.send(format!("{head}Accept: application/json\r\n\r\nhalf!")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(server.exactly(5).await, b"half!");
    server.reset();
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-unreachable"));
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&format!("{config}\n[limits]\nbody = \"4KiB\"\n"))).await;
    let watch = calm.watch(&harness).await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    let answers = refused(&mut handset, &Method::POST, "/public", &[b'x'; 4097], "body-too-large").await;
    assert_eq!(answers[0].status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(harness.upstream.received().is_empty());
    assert_eq!(handset.send(Method::POST, "/public", &[], vec![b'x'; 4096].into()).await.status, StatusCode::OK);
    assert_eq!(harness.upstream.last().body.len(), 4096);

    // Without a length it is found out on the way.
    let mut client = Wire::connect(handset.source, harness.address()).await;
    let head = format!("POST /public HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\n");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    client.try_send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\nx\r\n0\r\n\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason().as_str()), (413, "body-too-large"));
    assert!(harness.upstream.received().iter().all(|received| received.body.len() <= 4096));
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_and_a_url_that_is_too_long() {
    let calm = Bystander::new().await;
    let limits = "[limits]\nheaders = 40\nurl = \"1KiB\"";
    let harness = Harness::with(|config| calm.beside(&format!("{config}\n{limits}\n"))).await;
    let watch = calm.watch(&harness).await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    let long = format!("/public/{}", "x".repeat(1024));
    let answers = refused(&mut handset, &Method::GET, &long, b"", "url-too-long").await;
    assert_eq!(answers[0].status, StatusCode::URI_TOO_LONG);
    handset.extra = (0..40).map(|i| (format!("x-{i}"), "1".to_owned())).collect();
    let answers = refused(&mut handset, &Method::GET, "/public", b"", "request-head-too-large").await;
    assert_eq!(answers[0].status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    // Past the codec's own bounds no page is made: the head was not even read to its end.
    for fields in ["X: 1\r\n".repeat(101), format!("X: {}\r\n", "x".repeat(40_000))] {
        let mut client = Wire::connect(handset.source, harness.address()).await;
        client.try_send(format!("GET /public HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 431 "));
    }
    let mut client = Wire::connect(handset.source, harness.address()).await;
    let target = "x".repeat(40_000);
    client.try_send(format!("GET /{target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 4"));
    assert!(harness.upstream.received().is_empty());
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_host_that_is_not_ours() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&config)).await;
    let watch = calm.watch(&harness).await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    "evil.example".clone_into(&mut handset.host);
    let answers = refused(&mut handset, &Method::GET, "/", b"", "host-not-allowed").await;
    assert_eq!(answers[0].status, StatusCode::MISDIRECTED_REQUEST);
    assert!(!answers[0].text().contains("evil.example"));
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn other_refusals_speak_the_readers_language_too() {
    let harness = Harness::start().await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    for (target, reason, status) in [
        ("/_sekisho/nothing", "no-route", 404),
        ("/public/../x", "path-ambiguous", 400),
        ("/x", "sign-in-required", 401),
        ("/_sekisho/me/remove", "method-not-allowed", 405),
    ] {
        let answers = refused(&mut handset, &Method::GET, target, b"", reason).await;
        assert_eq!(answers[0].status.as_u16(), status, "{target}");
    }
    harness.finish().await;
}

/// A store whose tables are gone answers every call with an error.
#[tokio::test]
async fn a_store_that_fails() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&config)).await;
    let watch = calm.watch(&harness).await;
    // Who they are to their console is known from now on.
    watch.goes_on("before").await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut bob = harness.signed_in(Carrier::SoftBank, "b", "bob").await;
    assert_eq!(alice.get("/console").await.status, StatusCode::OK);
    let before = harness.upstream.received().len();
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    store.execute_batch("PRAGMA foreign_keys = OFF; DROP TABLE subjects; DROP TABLE bindings;").unwrap();
    drop(store);

    // Who bob is to the console was never asked; without an answer he does not get through as nobody.
    let answers = refused(&mut bob, &Method::GET, "/console", b"", "store-unavailable").await;
    assert_eq!(answers[0].status, StatusCode::SERVICE_UNAVAILABLE);
    let answers = refused(&mut bob, &Method::GET, "/public", b"", "store-unavailable").await;
    assert_eq!(answers[0].status, StatusCode::SERVICE_UNAVAILABLE);
    let mut carol = harness.handset(Carrier::Docomo, "c");
    let clicked = carol.click_sign_in("/").await;
    assert_eq!(clicked.status, StatusCode::SERVICE_UNAVAILABLE, "{}", clicked.text());
    assert!(!carol.has_session());
    assert_eq!(harness.upstream.received().len(), before);
    // What needs no store goes on.
    assert_eq!(alice.get("/console").await.status, StatusCode::OK);
    assert_eq!(carol.get("/public").await.status, StatusCode::OK);
    watch.noticed_nothing().await;
    harness.finish().await;
}
