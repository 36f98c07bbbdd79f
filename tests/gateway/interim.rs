//! What an upstream says before its answer (1xx, RFC 9110 §15.2) reaches the client before it, and nothing else changes.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Harness};
use crate::url_sessions::{Cookieless, token};
use crate::wire::{PlayedUpstream, TestTls, Wire, soon, tls_connect};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
/// [`HINT`] as it goes on.
const HINTED: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

#[tokio::test]
async fn a_hint_comes_before_its_answer_is_there() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "session", "")).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut client = Wire::connect(alice.source, harness.address()).await;
    let cookie = format!("Cookie: sekisho={}\r\n", alice.cookies["sekisho"]);
    let mut server: Option<Wire> = None;
    // Over a new connection to the upstream, and over one that was used.
    for _ in 0..2 {
        client.get("/played", &cookie).await;
        let server = match &mut server {
            Some(server) => server,
            None => server.insert(upstream.accept().await),
        };
        server.head().await;
        for _ in 0..2 {
            server.send(HINT).await;
            assert_eq!(client.head().await, HINTED);
        }
        server.send(ANSWER).await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "body"));
    }
    drop(server);
    harness.finish().await;
}

#[tokio::test]
async fn it_says_what_an_answer_might() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "public", "")).await;
    let long = "x".repeat(20_000);
    let mut client = Wire::connect([127, 0, 4, 7].into(), harness.address()).await;
    let mut server = None;
    for (sent, told) in [
        // Whatever it says (RFC 9110 §15.2), but not what is about the upstream's own connection.
        ("HTTP/1.1 102 Processing\r\n\r\n".to_owned(), "HTTP/1.1 102 Processing\r\n\r\n"),
        ("HTTP/1.0 199 \r\nA: b\r\nA: c\r\n\r\n".to_owned(), "HTTP/1.1 199 \r\na: b\r\na: c\r\n\r\n"),
        ("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), ""),
        (format!("HTTP/1.1 100 Continue\r\n\r\n{HINT}"), HINTED),
        // What frames a body, belongs to a connection or to the gateway, stays behind.
        (
            "HTTP/1.1 103 x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nKeep-Alive: timeout=5\r\n\
             Connection: X-Hop\r\nX-Hop: 1\r\nSekisho-Bind: alice\r\nSekisho-Jwt-Assertion: x\r\nAlt-Svc: h3=\":443\"\r\n\
             Strict-Transport-Security: max-age=1\r\nSet-Cookie: sekisho=stolen\r\nSet-Cookie: own=1\r\n\r\n"
                .to_owned(),
            "HTTP/1.1 103 Early Hints\r\nset-cookie: own=1\r\n\r\n",
        ),
        // Lines are written strictly, however they came.
        ("HTTP/1.1 103 x\nLink: </a.css>; rel=preload\n\n".to_owned(), HINTED),
        // With more than anybody says in a hint it is dropped, and its answer comes all the same.
        (format!("HTTP/1.1 103 x\r\nLink: {long}\r\n\r\n"), ""),
        (format!("HTTP/1.1 103 x\r\n{}\r\n", "A: b\r\n".repeat(65)), ""),
    ] {
        // In one piece with its answer, and byte by byte.
        for whole in [true, false] {
            client.get("/played", "").await;
            let server = match &mut server {
                Some(server) => server,
                None => server.insert(upstream.accept().await),
            };
            server.head().await;
            let all = format!("{sent}{ANSWER}");
            if whole {
                server.send(&all).await;
            } else {
                for byte in all.as_bytes() {
                    server.send([*byte]).await;
                }
            }
            assert_eq!(String::from_utf8(client.exactly(told.len()).await).unwrap(), told, "{sent}");
            let answer = client.answer().await;
            assert_eq!((answer.status(), answer.text().as_str()), (200, "body"), "{sent}");
        }
    }
    drop(server);
    harness.finish_without(&["stolen"]).await;
}

#[tokio::test]
async fn a_hint_over_tls_comes_before_an_upload_has_gone() {
    let (tls, upstream) = (TestTls::new(), PlayedUpstream::start().await);
    let harness = Harness::with(|config| upstream.routed(&tls.listening(&config), "public", "")).await;
    let mut client = tls_connect([127, 0, 4, 7].into(), harness.tls_address(), &tls.http1()).await;
    let head = format!("POST /played HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(HINT).await;
    let mut told = vec![0; b"HTTP/1.1 100 Continue\r\n\r\n".len() + HINTED.len()];
    soon(client.read_exact(&mut told)).await.unwrap();
    assert_eq!(String::from_utf8(told).unwrap(), format!("HTTP/1.1 100 Continue\r\n\r\n{HINTED}"));
    client.write_all(b"more").await.unwrap();
    assert_eq!(server.exactly(4).await, b"more");
    server.send(ANSWER).await;
    let mut answer = [0; 15];
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    drop((client, server));
    harness.finish().await;
}

#[tokio::test]
async fn a_hint_comes_at_once_over_a_connection_that_took_an_upload() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "public", "")).await;
    let mut client = Wire::connect([127, 0, 4, 7].into(), harness.address()).await;
    client.send(format!("POST /played HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    // While it goes on: the answer comes first.
    server.send(ANSWER).await;
    assert_eq!(client.answer().await.status(), 200);
    client.send("4\r\nmore\r\n0\r\n\r\n").await;
    assert_eq!(server.exactly(14).await, b"4\r\nmore\r\n0\r\n\r\n");
    client.get("/played", "").await;
    assert!(server.head().await.starts_with("GET "), "over the same connection");
    // Whoever hears one by chance, because of something else, does not hear so many in time.
    let hinted = async {
        for _ in 0..200 {
            server.send(HINT).await;
            assert_eq!(client.head().await, HINTED);
        }
    };
    soon(hinted).await;
    server.send(ANSWER).await;
    assert_eq!(client.answer().await.status(), 200);
    drop(server);
    harness.finish().await;
}

#[tokio::test]
async fn what_comes_when_nobody_asked_is_told_to_nobody() {
    let (bystander, upstream) = (Bystander::new().await, PlayedUpstream::start().await);
    let harness = Harness::with(|config| bystander.beside(&upstream.routed(&config, "public", ""))).await;
    let watch = bystander.watch(&harness).await;
    let mut client = Wire::connect([127, 0, 4, 7].into(), harness.address()).await;
    client.get("/played", "").await;
    let mut server = upstream.accept().await;
    let stolen = HINT.replace("Link: ", "Set-Cookie: its=another's; Link=");
    for stray in [&stolen, &format!("{stolen}{ANSWER}"), "HTTP/1.1 1", "H", &stolen[..stolen.len() - 1]] {
        server.head().await;
        server.send(ANSWER).await;
        assert_eq!(client.answer().await.status(), 200);
        // In another segment than the answer, behind which it would be seen at once. It lies there when the next one asks.
        server.send(stray).await;
        client.get("/played", "").await;
        server = upstream.accept().await;
    }
    server.head().await;
    server.send(ANSWER).await;
    assert_eq!(client.answer().await.status(), 200);
    watch.noticed_nothing().await;
    drop(server);
    harness.finish_without(&["another's"]).await;
}

#[tokio::test]
async fn a_pipelined_request_gets_its_hint_behind_the_answer_before() {
    // More than sockets hold.
    const BYTES: usize = 16 * 1024 * 1024;
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "public", "")).await;
    let mut client = Wire::connect([127, 0, 4, 7].into(), harness.address()).await;
    client.get("/played/1", "").await;
    client.get("/played/2", "").await;
    let mut server = upstream.accept().await;
    server.head().await;
    let first = async {
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")).await;
        server.send(vec![b'x'; BYTES]).await;
        assert!(server.head().await.starts_with("GET /played/2 "));
        server.send(format!("{HINT}{ANSWER}")).await;
    };
    let reading = async {
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        assert!(client.exactly(BYTES).await.iter().all(|byte| *byte == b'x'));
        assert_eq!(client.head().await, HINTED);
        assert_eq!(client.answer().await.text(), "body");
    };
    soon(async { tokio::join!(first, reading) }).await;
    drop(server);
    harness.finish().await;
}

#[tokio::test]
async fn a_client_that_knows_no_hints_gets_its_answer() {
    let (tls, upstream) = (TestTls::new(), PlayedUpstream::start().await);
    let bind = "[[route]]\npath = \"/bind\"\nupstream = \"played\"\naccess = \"login\"\n";
    let routed = |config: String| upstream.routed(&tls.listening(&config), "session", "may_bind = true\n") + bind;
    let harness = Harness::with(routed).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let cookie = format!("sekisho={}", alice.cookies["sekisho"]);
    let hinted = async || {
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(format!("{HINT}{}", ANSWER.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))).await;
    };

    // RFC 9110 §15.2: nothing of the kind is sent to HTTP/1.0.
    let mut client = Wire::connect(alice.source, harness.address()).await;
    client.send(format!("GET /played HTTP/1.0\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n")).await;
    hinted().await;
    assert_eq!(client.answer().await.status(), 200);

    // Whose links are rewritten: those of a hint are not.
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "b");
    let sk = token(&handset.enrol(&harness, "/", "bob").await);
    let bob = handset.into_handset();
    let mut client = Wire::connect(bob.source, harness.address()).await;
    let identity = format!("{}: {}\r\n", bob.carrier.header(), bob.identifier.as_deref().unwrap());
    client.get(&format!("/played?_sk={sk}"), &identity).await;
    hinted().await;
    assert_eq!(client.answer().await.status(), 200);

    // Who may be signed in by what comes, and has links rewritten then.
    let carol = Cookieless::new(&harness, Carrier::Docomo, "c").into_handset();
    let mut client = Wire::connect(carol.source, harness.address()).await;
    let identity = format!("{}: {}\r\n", carol.carrier.header(), carol.identifier.as_deref().unwrap());
    let head = format!("POST /bind?guid=ON HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: {}\r\n{identity}", carol.user_agent);
    client.send(format!("{head}Content-Length: 0\r\n\r\n")).await;
    hinted().await;
    assert_eq!(client.answer().await.status(), 200);

    // hyper has no way to send them over HTTP/2.
    let stream = tls_connect([127, 0, 4, 7].into(), harness.tls_address(), &tls.http2()).await;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut dave = harness.handset(Carrier::PrivateApn, "d");
    (dave.gateway, dave.tls) = (harness.tls_address(), Some(tls.http1()));
    let code = harness.code("dave").await;
    dave.enrol("/", &code).await;
    let request = Request::get(format!("https://{HOST}/played"))
        .header("cookie", format!("__Host-sekisho={}", dave.cookies["__Host-sekisho"]))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let asking = tokio::spawn(async move { sender.send_request(request).await.unwrap() });
    hinted().await;
    let answer = soon(asking).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "body");
    harness.finish_without(&[&sk]).await;
}

#[tokio::test]
async fn an_upstream_that_only_hints_has_not_answered() {
    let (bystander, upstream) = (Bystander::new().await, PlayedUpstream::start().await);
    let timeout = "timeout = { first_byte = \"300ms\" }";
    let harness = Harness::with(|config| bystander.beside(&upstream.routed(&config, "public", timeout))).await;
    let watch = bystander.watch(&harness).await;
    let status = |answer: &str| -> u16 { answer.split(' ').nth(1).unwrap().parse().unwrap() };
    // All of it is read by a client that is there, and by one that does not read a byte of it.
    for reads in [true, false] {
        let mut client = Wire::connect([127, 0, 4, 7].into(), harness.address()).await;
        client.get("/played", "").await;
        let mut server = upstream.accept().await;
        server.head().await;
        // Without end, until the gateway hangs up.
        let hinting = tokio::spawn(async move { while server.try_send(HINT).await {} });
        if reads {
            let last = soon(async {
                loop {
                    let head = client.head().await;
                    if head != HINTED {
                        break head;
                    }
                }
            })
            .await;
            assert_eq!(status(&last), 504);
        }
        soon(hinting).await.unwrap();
    }
    // It ends within a hint, or behind one.
    for ending in [&HINT[..HINT.len() - 5], "HTTP/1.1 103 Early Hi", HINT] {
        let mut client = Wire::connect([127, 0, 4, 7].into(), harness.address()).await;
        client.get("/played", "").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(ending).await;
        drop(server);
        let head = client.head().await;
        let last = if head == HINTED { client.head().await } else { head };
        assert_eq!(status(&last), 502, "{ending}");
    }
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn nothing_is_told_behind_the_end_of_a_session() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "session", "")).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut client = Wire::asked_by(&alice, "/played").await;
    let mut server = upstream.accept().await;
    server.head().await;
    let ended: serde_json::Value = harness.admin().call(Method::DELETE, "/v1/accounts/alice/sessions").await.unwrap();
    assert_eq!(ended["revoked"], 1, "{ended}");
    server.send(format!("{HINT}{ANSWER}")).await;
    assert_eq!(client.answer().await.status(), 401);
    drop(server);
    harness.finish().await;
}
