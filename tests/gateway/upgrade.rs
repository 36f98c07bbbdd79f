//! Upgrades such as WebSocket: passed through with a session, bytes both ways, closed with the session or the gateway.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt as _;

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Handset, Harness};
use crate::pin::{PIN, asked, type_pin, with_pin, with_vault};
use crate::wire::{PlayedUpstream, Wire, soon};

pub(crate) const HANDSHAKE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSekisho-Bind: mallory\r\n\
                      Set-Cookie: sekisho=stolen\r\n\r\n";

async fn harness(upstream: &PlayedUpstream) -> Harness {
    Harness::with(|config| upstream.routed(&config, "session", "")).await
}

fn cookie(handset: &Handset) -> String {
    format!("Cookie: a=1; sekisho={}\r\n", handset.cookies["sekisho"])
}

/// A WebSocket of this handset: its two ends.
pub(crate) async fn open(harness: &Harness, upstream: &PlayedUpstream, handset: &Handset) -> (Wire, Wire) {
    let mut client = Wire::connect(handset.source, harness.address()).await;
    let origin = format!("Origin: http://{HOST}\r\n");
    client.get("/played/ws?guid=ON", &format!("{HANDSHAKE}{origin}{}", cookie(handset))).await;
    let mut server = upstream.accept().await;
    let seen = server.head().await.to_ascii_lowercase();
    assert!(seen.starts_with("get /played/ws http/1.1\r\n"), "{seen}");
    for line in ["connection: upgrade", "upgrade: websocket", "cookie: a=1", "sec-websocket-version: 13"] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
    }
    assert_eq!(seen.matches("sekisho-jwt-assertion: ").count(), 1, "{seen}");
    server.send(SWITCH).await;
    let head = client.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert!(!head.contains("sekisho"), "{head}");
    for word in ["one", "two", "\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
        client.send(word).await;
        assert_eq!(server.exactly(word.len()).await, word.as_bytes());
        server.send(word).await;
        assert_eq!(client.exactly(word.len()).await, word.as_bytes());
    }
    (client, server)
}

pub(crate) async fn assert_both_end(client: Wire, server: Wire) {
    assert_ends(client).await;
    assert_ends(server).await;
}

pub(crate) async fn assert_ends(mut side: Wire) {
    assert!(side.rest().await.is_empty());
}

#[tokio::test]
async fn either_side_may_end_it() {
    let upstream = PlayedUpstream::start().await;
    let harness = harness(&upstream).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let (client, mut server) = open(&harness, &upstream, &alice).await;
    drop(client);
    assert!(server.rest().await.is_empty());
    let (mut client, server) = open(&harness, &upstream, &alice).await;
    drop(server);
    assert!(client.rest().await.is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn a_side_that_takes_nothing_is_cut_and_one_that_is_silent_is_not() {
    let piece = vec![b'x'; 64 * 1024];
    for (sends, write_idle, idle) in [("server", "300ms", "1h"), ("client", "1h", "300ms")] {
        let upstream = PlayedUpstream::start().await;
        let limits = format!("\n[limits.timeouts]\nwrite_idle = \"{write_idle}\"\n");
        let timeout = format!("timeout = {{ idle = \"{idle}\" }}\n");
        let harness = Harness::with(|config| upstream.routed(&config, "session", &timeout) + &limits).await;
        let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
        let (mut silent, mut its_server) = open(&harness, &upstream, &alice).await;
        // One has said all that it has to say, and still hears the other one.
        let (mut half, mut its_other) = open(&harness, &upstream, &alice).await;
        half.stream.shutdown().await.unwrap();
        assert!(its_other.rest().await.is_empty());
        let (mut client, mut server) = open(&harness, &upstream, &alice).await;
        let sender = if sends == "server" { &mut server } else { &mut client };
        soon(async { while sender.try_send(&piece).await {} }).await;
        silent.send("still there").await;
        assert_eq!(its_server.exactly(11).await, b"still there");
        its_other.send("so am I").await;
        assert_eq!(half.exactly(7).await, b"so am I");
        drop((silent, its_server, half, its_other));
        harness.finish().await;
    }
}

#[tokio::test]
async fn a_switch_behind_the_end_of_a_session_is_not_told() {
    let upstream = PlayedUpstream::start().await;
    let harness = harness(&upstream).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut client = Wire::connect(alice.source, harness.address()).await;
    client.get("/played/ws?guid=ON", &format!("{HANDSHAKE}Origin: http://{HOST}\r\n{}", cookie(&alice))).await;
    let mut server = upstream.accept().await;
    server.head().await;
    let ended: serde_json::Value = harness.admin().call(Method::DELETE, "/v1/accounts/alice/sessions").await.unwrap();
    assert_eq!(ended["revoked"], 1, "{ended}");
    server.send(SWITCH).await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 401, "{answer:?}");
    assert!(server.rest().await.is_empty());
    harness.finish_without(&["stolen"]).await;
}

#[tokio::test]
async fn what_its_client_sends_before_it_is_granted_is_passed_on() {
    let upstream = PlayedUpstream::start().await;
    let harness = harness(&upstream).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut client = Wire::connect(alice.source, harness.address()).await;
    let fields = format!("{HANDSHAKE}Origin: http://{HOST}\r\n{}", cookie(&alice));
    client.get("/played/ws", &fields).await;
    let mut server = upstream.accept().await;
    server.head().await;
    let early = "early".repeat(1000);
    client.send(&early).await;
    server.send(SWITCH).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client.send("late").await;
    assert_eq!(server.exactly(5004).await, format!("{early}late").as_bytes());
    server.send("both").await;
    assert_eq!(client.exactly(4).await, b"both");
    drop(client);
    assert_ends(server).await;
    harness.finish().await;
}

#[tokio::test]
async fn signing_out_ends_it() {
    let upstream = PlayedUpstream::start().await;
    let harness = harness(&upstream).await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let bob = harness.signed_in(Carrier::SoftBank, "b", "bob").await;
    let (first_client, first_server) = open(&harness, &upstream, &alice).await;
    let (client, server) = open(&harness, &upstream, &alice).await;
    let (mut others_client, mut others_server) = open(&harness, &upstream, &bob).await;
    let form = alice.get("/_sekisho/logout").await;
    let t = form.hidden("t");
    assert_eq!(alice.post("/_sekisho/logout", &[("t", &t)]).await.status, StatusCode::OK);
    assert_both_end(first_client, first_server).await;
    assert_both_end(client, server).await;
    others_client.send("still").await;
    assert_eq!(others_server.exactly(5).await, b"still");
    drop(others_client);
    assert!(others_server.rest().await.is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn what_an_operator_revokes_ends_at_once() {
    let upstream = PlayedUpstream::start().await;
    let harness = harness(&upstream).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let (client, server) = open(&harness, &upstream, &alice).await;
    let ended: serde_json::Value = harness.admin().call(Method::DELETE, "/v1/accounts/alice/sessions").await.unwrap();
    assert_eq!(ended["revoked"], 1, "{ended}");
    assert_both_end(client, server).await;

    let mut bob = harness.signed_in(Carrier::Docomo, "b", "bob").await;
    let (client, server) = open(&harness, &upstream, &bob).await;
    let held: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/bob/bindings").await.unwrap();
    let id = held["bindings"][0]["id"].as_str().unwrap();
    let _: serde_json::Value = harness.admin().call(Method::DELETE, &format!("/v1/bindings/{id}")).await.unwrap();
    assert_both_end(client, server).await;
    assert_eq!(bob.get_json("/played").await.status, StatusCode::UNAUTHORIZED);
    harness.finish().await;
}

#[tokio::test]
async fn one_of_before_the_pin_ends_with_its_token() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| with_vault(&upstream.routed(&config, "session", ""))).await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let (client, server) = open(&harness, &upstream, &alice).await;
    let page = asked(&mut alice).await;
    assert_eq!(type_pin(&mut alice, &page, PIN).await.status, StatusCode::FOUND);
    assert_both_end(client, server).await;
    drop(open(&harness, &upstream, &alice).await);
    harness.finish().await;
}

#[tokio::test]
async fn a_session_that_is_found_on_another_device_takes_its_sockets_along() {
    let upstream = PlayedUpstream::start().await;
    let harness = harness(&upstream).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let (client, server) = open(&harness, &upstream, &alice).await;
    let mut thief = harness.handset(Carrier::Docomo, "b");
    thief.cookies = alice.cookies.clone();
    assert_eq!(thief.get_json("/").await.reason(), "session-device-mismatch");
    assert_both_end(client, server).await;
    harness.finish().await;
}

#[tokio::test]
async fn a_stranger_or_a_foreign_page_gets_no_socket() {
    let upstream = PlayedUpstream::start().await;
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&config, "session", ""))).await;
    let watch = calm.watch(&harness).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let cookie = cookie(&alice);
    let ended = format!("Cookie: sekisho={}\r\n", "A".repeat(32));
    for (fields, status, reason) in [
        (String::new(), 401, "sign-in-required"),
        (format!("Origin: http://{HOST}\r\n"), 401, "sign-in-required"),
        (ended, 401, "session-expired"),
        (format!("{cookie}Origin: http://evil.example\r\n"), 403, "foreign-origin"),
        (format!("{cookie}Origin: https://{HOST}\r\n"), 403, "foreign-origin"),
        (format!("{cookie}Origin: http://{HOST}:8080\r\n"), 403, "foreign-origin"),
        (format!("{cookie}Origin: http://{HOST}.evil.example\r\n"), 403, "foreign-origin"),
        (format!("{cookie}Origin: null\r\n"), 403, "foreign-origin"),
        (format!("{cookie}Origin: http://{HOST}\r\nOrigin: http://evil.example\r\n"), 403, "foreign-origin"),
    ] {
        let mut client = Wire::connect(alice.source, harness.address()).await;
        client.get("/played/ws", &format!("{HANDSHAKE}Accept: application/json\r\n{fields}")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (status, reason), "{fields}");
    }
    // By whatever it is known, as in a question of forward-auth.
    for fields in ["Connection: Upgrade\r\nUpgrade: x\r\n", "Upgrade: x\r\n", "Sec-WebSocket-Key: x\r\n"] {
        let mut client = Wire::connect(alice.source, harness.address()).await;
        let foreign = format!("Accept: application/json\r\n{cookie}Origin: http://evil.example\r\n");
        client.get("/played/ws", &format!("{fields}{foreign}")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (403, "foreign-origin"), "{fields}");
    }
    // A client that is no browser says no origin.
    let mut client = Wire::connect(alice.source, harness.address()).await;
    client.get("/played/ws", &format!("{HANDSHAKE}{cookie}")).await;
    let mut server = upstream.accept().await;
    assert!(server.head().await.contains("/played/ws"), "the first that reached it");
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"), "an upstream may decline");
    drop(server);
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn another_http_on_the_same_connection_is_not_passed_on() {
    let upstream = PlayedUpstream::start().await;
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&config, "session", ""))).await;
    let watch = calm.watch(&harness).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut client = Wire::connect(alice.source, harness.address()).await;
    let cookie = cookie(&alice);
    let mut server = None;
    for upgrade in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Upgrade: websocket\r\n",
    ] {
        client.get("/played/x", &format!("{upgrade}{cookie}")).await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(upstream.accept().await),
        };
        let seen = server.head().await.to_ascii_lowercase();
        for name in ["upgrade", "connection", "http2-settings"] {
            assert!(!seen.contains(&format!("\r\n{name}:")), "{upgrade}: {seen}");
        }
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.answer().await.status(), 200);
    }
    drop(server);
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn the_gateways_end_ends_it() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| {
        let config = upstream.routed(&config, "session", "");
        format!("{config}\n[[route]]\npath = \"/open\"\nupstream = \"played\"\naccess = \"public\"\n")
    })
    .await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let (client, server) = open(&harness, &upstream, &alice).await;
    // One without a session, that no session can end.
    let mut anonymous = Wire::connect(alice.source, harness.address()).await;
    anonymous.get("/open/ws", HANDSHAKE).await;
    let mut its_server = upstream.accept().await;
    its_server.head().await;
    its_server.send(SWITCH).await;
    anonymous.head().await;
    soon(harness.running.stop(Duration::from_mins(1))).await;
    assert_both_end(client, server).await;
    assert_both_end(anonymous, its_server).await;
}
