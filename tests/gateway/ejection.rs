//! Servers of an upstream that take requests and do not answer them: passed over, until they are back.

use std::net::SocketAddr;

use http::StatusCode;

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Harness};
use crate::moody::{Mood, MoodyServer, figure, of_server, routed};
use crate::wire::{Wire, soon};

/// Requests in a row that a server may leave without an answer.
const FAILURES: usize = 3;

async fn pair(one: &MoodyServer, other: &MoodyServer, rest: &str) -> Harness {
    Harness::with(|config| routed(&config, "pair", &[one.address, other.address], rest)).await
}

/// The statuses of so many requests, one after the other on connections of their own: all workers get some.
async fn ask(harness: &Harness, count: usize) -> Vec<StatusCode> {
    let mut visitor = harness.handset(Carrier::Au, "a");
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(visitor.get("/pair").await.status);
    }
    statuses
}

fn failed(statuses: &[StatusCode]) -> usize {
    statuses.iter().filter(|status| **status != StatusCode::OK).count()
}

async fn ejected(harness: &Harness, server: SocketAddr, is_ejected: bool) {
    figure(harness, &of_server("server_ejected", "pair", server), u64::from(is_ejected)).await;
}

#[tokio::test]
async fn a_server_that_leaves_requests_unanswered_costs_a_few_of_them_and_gets_no_more() {
    for (mood, expected) in [
        (Mood::HangsUp, StatusCode::BAD_GATEWAY),
        (Mood::Babbles, StatusCode::BAD_GATEWAY),
        (Mood::Sulks, StatusCode::GATEWAY_TIMEOUT),
    ] {
        let (ill, well) = (MoodyServer::start(mood).await, MoodyServer::start(Mood::Answers).await);
        let calm = Bystander::new().await;
        let (servers, rest) = ([ill.address, well.address], "timeout = { first_byte = \"300ms\" }");
        let mut harness = Harness::with(|config| calm.beside(&routed(&config, "pair", &servers, rest))).await;
        let watch = calm.watch(&harness).await;
        let statuses = ask(&harness, 40).await;
        assert_eq!(failed(&statuses), FAILURES, "{mood:?}: {statuses:?}");
        assert!(statuses.iter().all(|status| *status == StatusCode::OK || *status == expected), "{statuses:?}");
        assert_eq!((ill.asked(), well.asked()), (FAILURES, 40 - FAILURES));
        ejected(&harness, ill.address, true).await;
        ejected(&harness, well.address, false).await;

        // What is known of it outlives a configuration.
        harness.reload(|config| format!("{config}# another\n")).await.unwrap();
        assert_eq!(failed(&ask(&harness, 10).await), 0);
        assert_eq!((ill.asked(), well.asked()), (FAILURES, 50 - FAILURES));
        figure(&harness, &of_server("ejections_total", "pair", ill.address), 1).await;
        watch.noticed_nothing().await;
        harness.finish().await;
    }
}

#[tokio::test]
async fn statuses_and_what_clients_do_eject_nobody() {
    let (one, other) = (MoodyServer::start(Mood::Complains).await, MoodyServer::start(Mood::Complains).await);
    let harness = pair(&one, &other, "").await;
    let statuses = ask(&harness, 20).await;
    assert_eq!(failed(&statuses), 20);
    assert_eq!((one.asked(), other.asked()), (10, 10), "an answer is an answer");

    one.is(Mood::Holds);
    other.is(Mood::Holds);
    let source = harness.handset(Carrier::Au, "a").source;
    for round in 0..2 * (FAILURES + 1) {
        let mut leaves = Wire::connect(source, harness.address()).await;
        leaves.get("/pair", "").await;
        soon(async {
            while one.asked() + other.asked() <= 20 + round {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(leaves);
        one.has(0).await;
        other.has(0).await;
    }
    for server in [&one, &other] {
        figure(&harness, &of_server("ejections_total", "pair", server.address), 0).await;
        server.is(Mood::Answers);
    }
    assert_eq!(failed(&ask(&harness, 10).await), 0);
    harness.finish().await;
}

#[tokio::test]
async fn where_all_are_ejected_they_are_asked_all_the_same_and_the_first_to_answer_is_back() {
    let (one, other) = (MoodyServer::start(Mood::HangsUp).await, MoodyServer::start(Mood::HangsUp).await);
    let harness = pair(&one, &other, "").await;
    assert_eq!(failed(&ask(&harness, 20).await), 20, "none is answered, and none is 503");
    ejected(&harness, one.address, true).await;
    ejected(&harness, other.address, true).await;
    other.is(Mood::Answers);
    let statuses = ask(&harness, 20).await;
    assert!(failed(&statuses) <= 2, "{statuses:?}");
    assert!(statuses[2..].iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    ejected(&harness, one.address, true).await;
    ejected(&harness, other.address, false).await;
    harness.finish().await;
}

#[tokio::test]
async fn a_server_that_was_down_and_answers_its_probes_again_is_not_passed_over_any_longer() {
    let (one, other) = (MoodyServer::start(Mood::HangsUp).await, MoodyServer::start(Mood::Answers).await);
    let harness = pair(&one, &other, "health = { path = \"/healthz\", interval = \"100ms\" }").await;
    assert_eq!(failed(&ask(&harness, 20).await), FAILURES);
    ejected(&harness, one.address, true).await;
    let up = of_server("server_up", "pair", one.address);
    figure(&harness, &up, 1).await;
    one.is(Mood::Complains);
    figure(&harness, &up, 0).await;
    ejected(&harness, one.address, true).await;
    one.is(Mood::Answers);
    figure(&harness, &up, 1).await;
    // At once, and not when its time is over.
    let now = format!("{} 0", of_server("server_ejected", "pair", one.address));
    assert!(harness.metrics().await.lines().any(|line| line == now));
    let before = one.asked();
    assert_eq!(failed(&ask(&harness, 40).await), 0);
    assert!((1..=8).contains(&(one.asked() - before)), "slowly: {} of 40", one.asked() - before);
    harness.finish().await;
}

#[tokio::test]
async fn clients_that_stop_within_their_bodies_eject_nobody() {
    let (one, other) = (MoodyServer::start(Mood::Sulks).await, MoodyServer::start(Mood::Sulks).await);
    let (servers, rest) = ([one.address, other.address], "timeout = { first_byte = \"100ms\" }");
    let limits = "[limits]\ntimeouts = { body_idle = \"500ms\" }\n[[upstream]]";
    let harness =
        Harness::with(|config| routed(&config, "pair", &servers, rest).replacen("[[upstream]]", limits, 1)).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let post = format!("POST /pair HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\n");
    let mut clients = Vec::new();
    for _ in 0..2 * (FAILURES + 1) {
        let mut client = Wire::connect(source, harness.address()).await;
        client.send(&post).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status(), 408);
    }
    for server in [&one, &other] {
        assert_eq!(server.asked(), FAILURES + 1);
        figure(&harness, &of_server("ejections_total", "pair", server.address), 0).await;
        server.is(Mood::Answers);
    }
    assert_eq!(failed(&ask(&harness, 10).await), 0);
    harness.finish().await;
}
