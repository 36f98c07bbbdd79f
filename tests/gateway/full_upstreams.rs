//! Servers of an upstream that have as many connections as they may: who waits, who is turned away, who notices nothing.

use http::{Method, StatusCode};
use tokio::task::JoinHandle;

use crate::bystander::Bystander;
use crate::harness::{Answer, Carrier, Handset, Harness};
use crate::moody::{Mood, MoodyServer, figure, of_server, of_upstream, routed};
use crate::upgrade;
use crate::wire::{PlayedUpstream, Wire, soon};

async fn full(server: &MoodyServer, rest: &str) -> Harness {
    Harness::with(|config| routed(&config, "busy", &[server.address], rest)).await
}

/// Requests that are on their way, each of a handset of its own.
fn ask(harness: &Harness, count: usize) -> Vec<JoinHandle<Answer>> {
    let one = |_| {
        let mut handset = harness.handset(Carrier::Au, "a");
        tokio::spawn(async move { handset.get("/busy").await })
    };
    (0..count).map(one).collect()
}

async fn assert_served(asked: Vec<JoinHandle<Answer>>) {
    for answer in asked {
        let answer = soon(answer).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "ok"));
    }
}

#[tokio::test]
async fn sixty_four_at_once_share_three_connections_and_the_others_notice_nothing() {
    let server = MoodyServer::start(Mood::Holds).await;
    let calm = Bystander::new().await;
    let rest = "connections = 3";
    let harness = Harness::with(|config| calm.beside(&routed(&config, "busy", &[server.address], rest))).await;
    let watch = calm.watch(&harness).await;
    let asked = ask(&harness, 64);
    server.has(3).await;
    figure(&harness, &of_upstream("requests_waiting", "busy"), 61).await;
    figure(&harness, &of_server("connections_open", "busy", server.address), 3).await;
    assert_eq!(server.connections(), 3);
    let status: serde_json::Value = harness.admin().call(Method::GET, "/v1/status").await.unwrap();
    let busy = status["upstreams"].as_array().unwrap().iter().find(|upstream| upstream["name"] == "busy").unwrap();
    assert_eq!((&busy["waiting"], &busy["servers"][0]["connections"]), (&61.into(), &3.into()), "{busy}");

    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    assert_eq!(alice.get("/orders").await.status, StatusCode::OK, "another upstream");

    server.release(64);
    assert_served(asked).await;
    assert_eq!((server.asked(), server.most_in_progress()), (64, 3));
    figure(&harness, &of_upstream("requests_waiting", "busy"), 0).await;
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn who_finds_no_room_to_wait_is_told_so_at_once_and_who_leaves_makes_room() {
    let server = MoodyServer::start(Mood::Holds).await;
    let calm = Bystander::new().await;
    let rest = "connections = 1\nqueue = { length = 1, time = \"15s\" }";
    let harness = Harness::with(|config| calm.beside(&routed(&config, "busy", &[server.address], rest))).await;
    let watch = calm.watch(&harness).await;
    let asked = ask(&harness, 1);
    server.has(1).await;
    let mut leaves = Wire::connect(harness.handset(Carrier::Au, "a").source, harness.address()).await;
    leaves.get("/busy", "").await;
    let waiting = of_upstream("requests_waiting", "busy");
    figure(&harness, &waiting, 1).await;

    let mut late = harness.handset(Carrier::Docomo, "b");
    late.user_agent = "DoCoMo/1.0/P503i/c10".to_owned();
    let page = late.get("/busy").await;
    assert_eq!((page.status, page.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
    assert!(page.header("content-type").unwrap().contains("Shift_JIS") && page.text().contains("管理画面"));
    assert_eq!(late.get_json("/busy").await.reason(), "no-healthy-upstream");
    figure(&harness, &of_upstream("requests_turned_away_total", "busy"), 2).await;

    drop(leaves);
    figure(&harness, &waiting, 0).await;
    let mut all = ask(&harness, 1);
    figure(&harness, &waiting, 1).await;
    server.release(2);
    all.extend(asked);
    assert_served(all).await;
    assert_eq!((server.asked(), server.most_in_progress()), (2, 1), "who left was not asked for");
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn nobody_waits_for_longer_than_is_said() {
    let server = MoodyServer::start(Mood::Holds).await;
    let harness = full(&server, "connections = 1\nqueue = { time = \"10ms\" }").await;
    let asked = ask(&harness, 1);
    server.has(1).await;
    let mut late = harness.handset(Carrier::Au, "b");
    assert_eq!(late.get("/busy").await.status, StatusCode::SERVICE_UNAVAILABLE);
    server.release(2);
    assert_served(asked).await;
    assert_eq!(late.get("/busy").await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_web_socket_is_a_connection() {
    let upstream = PlayedUpstream::start().await;
    let rest = "connections = 1\nqueue = { length = 0 }";
    let harness = Harness::with(|config| upstream.routed(&config, "session", rest)).await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let (client, server) = upgrade::open(&harness, &upstream, &alice).await;
    assert_eq!(alice.get("/played/list").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(alice.get("/orders").await.status, StatusCode::OK);
    drop(client);
    upgrade::assert_ends(server).await;
    figure(&harness, &of_server("connections_open", "played", upstream.address), 0).await;
    let (list, ()) = tokio::join!(alice.get("/played/list"), async {
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlist").await;
    });
    assert_eq!(list.text(), "list");
    harness.finish().await;
}

#[tokio::test]
async fn what_was_revoked_while_it_waited_is_not_asked_for() {
    let upstream = PlayedUpstream::start().await;
    let rest = "connections = 1\nqueue = { time = \"15s\" }";
    let harness = Harness::with(|config| upstream.routed(&config, "session", rest)).await;
    let holds = |mut handset: Handset| tokio::spawn(async move { handset.get("/played/list").await });
    let first = holds(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    let mut server = upstream.accept().await;
    server.head().await;
    let second = holds(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    figure(&harness, &of_upstream("requests_waiting", "played"), 1).await;
    let admin = harness.admin();
    let revoked: serde_json::Value = admin.call(Method::DELETE, "/v1/accounts/alice/sessions").await.unwrap();
    assert_eq!(revoked["revoked"], 1);
    assert_eq!(soon(second).await.unwrap().status, StatusCode::UNAUTHORIZED);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlist").await;
    assert_eq!(soon(first).await.unwrap().text(), "list");
    assert!(server.rest().await.is_empty(), "nothing came after it");
    harness.finish().await;
}
