//! Bodies stream both ways: nothing waits for the end of a body, nothing of it is lost, and a client that goes takes
//! its request along.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Harness};
use crate::wire::{PlayedUpstream, TestTls, Wire, soon, tls_connect};

/// Eight MiB in which no block repeats.
fn large() -> Bytes {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..2 * 1024 * 1024).flat_map(|_| next()).collect::<Vec<u8>>().into()
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

#[tokio::test]
async fn the_first_byte_arrives_before_the_last_is_sent() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "session", "")).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut client = Wire::asked_by(&alice, "/played").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"), "the head comes before any of the body");
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        server.send(&chunk).await;
        assert_eq!(client.exactly(chunk.len()).await, chunk.as_bytes());
    }
    server.send("0\r\n\r\n").await;
    assert_eq!(client.exactly(5).await, b"0\r\n\r\n");
    drop(server);
    harness.finish().await;
}

#[tokio::test]
async fn an_upload_goes_on_though_nobody_reads_the_answer_that_has_begun() {
    // More than sockets hold, in both directions.
    const BYTES: usize = 64 * 1024 * 1024;
    let upstream = PlayedUpstream::start().await;
    let limits = "\n[limits]\nbody = \"64MiB\"\n";
    let harness = Harness::with(|config| upstream.routed(&config, "public", "") + limits).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    client.send(format!("PUT /played HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {BYTES}\r\n\r\n")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    let (mut reading, mut writing) = server.stream.into_split();
    let answering = tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        writing.write_all(head.as_bytes()).await.unwrap();
        writing.write_all(&vec![7; BYTES]).await.unwrap();
        writing
    });
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    let taking = tokio::spawn(async move {
        let taken = tokio::io::copy(&mut (&mut reading).take(BYTES as u64), &mut tokio::io::sink()).await;
        (taken.unwrap(), reading)
    });
    client.send(vec![5; BYTES]).await;
    let (taken, _reading) = soon(taking).await.unwrap();
    assert_eq!(taken, BYTES as u64);
    assert!(client.exactly(BYTES).await.iter().all(|byte| *byte == 7));
    answering.await.unwrap();
    harness.finish().await;
}

#[tokio::test]
async fn an_upload_reaches_the_upstream_as_it_comes_and_may_be_answered_early() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "public", "")).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    let head = format!("PUT /played HTTP/1.1\r\nHost: {HOST}\r\n");
    client.send(format!("{head}Content-Length: 10\r\n\r\nfirst")).await;
    let mut server = upstream.accept().await;
    let seen = server.head().await;
    assert!(seen.contains("content-length: 10\r\n"), "{seen}");
    assert_eq!(server.exactly(5).await, b"first");
    client.send("-last").await;
    assert_eq!(server.exactly(5).await, b"-last");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 204);

    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")).await;
    let seen = server.head().await;
    assert!(seen.contains("transfer-encoding: chunked\r\n") && !seen.contains("content-length"), "{seen}");
    assert_eq!(server.exactly(8).await, b"3\r\none\r\n");
    server.send("HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\n\r\nearly").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text().as_str()), (409, "early"));
    drop(server);
    harness.finish().await;
}

#[tokio::test]
async fn a_client_that_expects_is_told_to_go_on() {
    let harness = Harness::start().await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    let head = format!("POST /public HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\n");
    client.send(format!("{head}Content-Length: 4\r\n\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("body").await;
    assert_eq!(client.answer().await.status(), 200);
    let received = harness.upstream.last();
    assert_eq!(&received.body[..], b"body");
    assert!(!received.headers.contains_key("expect"));
    harness.finish().await;
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let tls = TestTls::new();
    let harness = Harness::with(|config| tls.listening(&config)).await;
    let (up, down) = (large(), large().iter().rev().copied().collect::<Bytes>());
    let (sum_up, sum_down) = (sum(&up), sum(&down));
    assert_ne!(sum_up, sum_down);
    let answer = down.clone();
    harness.upstream.answer(move |_| Response::new(Full::new(answer.clone())));
    let mut handset = harness.handset(Carrier::PrivateApn, "a");
    for (address, client) in [
        (harness.address(), None),
        (harness.tls_address(), Some(tls.http1())),
        (harness.tls_address(), Some(tls.http2())),
    ] {
        (handset.gateway, handset.tls) = (address, client);
        let answer = handset.send(Method::POST, "/public", &[], up.clone()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!((answer.body.len(), sum(&answer.body) == sum_down), (down.len(), true));
        let received = harness.upstream.last();
        assert_eq!((received.body.len(), sum(&received.body) == sum_up), (up.len(), true));
    }
    harness.finish().await;
}

#[tokio::test]
async fn many_streams_of_one_connection_are_answered_as_they_finish() {
    let tls = TestTls::new();
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&tls.listening(&config), "public", "")).await;
    let stream = tls_connect([127, 0, 4, 7].into(), harness.tls_address(), &tls.http2()).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut asked = Vec::new();
    let mut servers = Vec::new();
    for i in 0..5 {
        let request = Request::get(format!("https://{HOST}/played/{i}")).body(Full::<Bytes>::default()).unwrap();
        asked.push(sender.send_request(request));
        let mut server = upstream.accept().await;
        assert!(server.head().await.starts_with(&format!("GET /played/{i} ")));
        servers.push(server);
    }
    // The last one first.
    while let (Some(answer), Some(mut server)) = (asked.pop(), servers.pop()) {
        let body = asked.len().to_string();
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{body}")).await;
        let answer = soon(answer).await.unwrap();
        assert!(!answer.headers().contains_key("connection"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_client_that_goes_takes_its_request_along() {
    let upstream = PlayedUpstream::start().await;
    let calm = Bystander::new().await;
    let tls = TestTls::new();
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&tls.listening(&config), "public", ""))).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::Au, "a").source;

    // While it waits for an answer.
    let mut client = Wire::connect(source, harness.address()).await;
    client.get("/played/waiting", "").await;
    let mut server = upstream.accept().await;
    server.head().await;
    drop(client);
    assert!(server.rest().await.is_empty(), "the gateway hung up");

    // Over TLS, with a good-bye and without.
    for says_so in [true, false] {
        let mut client = tls_connect(source, harness.tls_address(), &tls.http1()).await;
        let head = format!("GET /played/waiting HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut server = upstream.accept().await;
        server.head().await;
        if says_so {
            client.shutdown().await.unwrap();
        }
        let (tcp, _) = client.into_inner();
        drop(tcp);
        assert!(server.rest().await.is_empty(), "the gateway hung up");
    }

    // When it has sent a body, all of which was passed on.
    let mut client = Wire::connect(source, harness.address()).await;
    client.send(format!("POST /played/up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nwh")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    client.send("ole").await;
    assert_eq!(server.exactly(5).await, b"whole");
    drop(client);
    assert!(server.rest().await.is_empty(), "the gateway hung up");

    // While it uploads: the upstream never takes the part for the whole.
    let mut client = Wire::connect(source, harness.address()).await;
    client.send(format!("POST /played/up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\npart")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(server.exactly(4).await, b"part");
    drop(client);
    assert!(server.rest().await.is_empty());
    let mut client = Wire::connect(source, harness.address()).await;
    client.send(format!("POST /played/up HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    client.send("4\r\npart\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(server.exactly(9).await, b"4\r\npart\r\n");
    drop(client);
    assert!(server.rest().await.is_empty(), "no last chunk");

    // While it reads: the upstream need not send the rest.
    let mut client = Wire::connect(source, harness.address()).await;
    client.get("/played/down", "").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    client.head().await;
    client.exactly(10).await;
    drop(client);
    soon(async { while server.try_send("5\r\nagain\r\n").await {} }).await;
    watch.noticed_nothing().await;
    harness.finish().await;
}
