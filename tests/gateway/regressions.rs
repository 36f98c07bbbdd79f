//! What once went wrong, one test each.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Carrier, HOST, Harness, START};
use crate::logs;
use crate::wire::{PlayedUpstream, Wire, soon};

/// A client that hung up in the middle of signing out kept a session that nobody could end any more.
#[tokio::test]
async fn a_sign_out_is_done_to_its_end_though_its_person_hangs_up() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice-hangs-up").await;
    let form_token = alice.get("/_sekisho/logout").await.hidden("t");
    // While somebody else holds the store, the sign-out waits inside it.
    let holder = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut client = Wire::connect(alice.source, harness.address()).await;
    let body = format!("t={form_token}");
    client
        .send(format!(
            "POST /_sekisho/logout HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: {}\r\nCookie: sekisho={}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            alice.user_agent,
            alice.cookies["sekisho"],
            body.len(),
        ))
        .await;
    // Told to go on: the sign-out has begun.
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send(body).await;
    drop(client);
    // The access log says when the gateway has noticed.
    soon(async {
        let log = harness.folder.path().join("access.log");
        while !std::fs::read_to_string(&log).unwrap().contains("\"status\":499") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    holder.execute_batch("COMMIT").unwrap();
    soon(Box::pin(async { while alice.get("/").await.status == StatusCode::OK {} })).await;
    let left: Value = harness.admin().call(Method::GET, "/v1/sessions").await.unwrap();
    assert_eq!(left["sessions"], serde_json::json!([]));
    soon(async {
        while !logs::security_events_of("alice-hangs-up").iter().any(|event| event.contains("signed-out")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    harness.finish().await;
}

/// An answer that streams went on after its session was revoked.
#[tokio::test]
async fn a_streamed_answer_ends_with_its_session() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "session", "")).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut client = Wire::asked_by(&alice, "/played").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.head().await;
    client.exactly(8).await;
    let revoked: Value = harness.admin().call(Method::DELETE, "/v1/accounts/alice/sessions").await.unwrap();
    assert_eq!(revoked["revoked"], 1);
    assert_eq!(client.rest().await, b"", "the connection ends, without the chunk that would end the body");
    assert_eq!(server.rest().await, b"", "and the upstream is told");
    harness.finish().await;
}

/// One wrong clock erased every binding.
#[tokio::test]
async fn a_clock_that_was_set_erases_nothing_for_a_day() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    harness.running.upkeep().await.unwrap();
    let bindings = async || {
        harness.running.upkeep().await.unwrap();
        let listed: Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
        listed["bindings"].as_array().unwrap().len()
    };
    harness.clock.set(START.plus(Duration::from_hours(24) * 402));
    assert_eq!(bindings().await, 1);
    harness.clock.advance(Duration::from_hours(23));
    assert_eq!(bindings().await, 1);
    harness.clock.advance(Duration::from_hours(1));
    assert_eq!(bindings().await, 0);
    harness.finish().await;
}
