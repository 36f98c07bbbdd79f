//! Setting, changing, removing and forgetting the PIN.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Answer, Carrier, Handset, Harness};
use crate::logs;
use crate::pin::{PIN, WRONG, asked, set_pin, type_pin, with_pin, with_vault};

const OTHER: &str = "61803398";

async fn harness() -> Harness {
    Harness::with(|config| {
        let limits = "[limits]\nnetwork = \"100000/1m\"\nsign_in = \"1000/1m\"\ncode = \"1000/1m\"\npin = \"100/1m\"";
        format!("{}\n{limits}\n", with_vault(&config))
    })
    .await
}

async fn has_pin(harness: &Harness, account: &str) -> bool {
    let shown: Value = harness.admin().call(Method::GET, &format!("/v1/accounts/{account}")).await.unwrap();
    shown["has_pin"].as_bool().unwrap()
}

/// Sends the form of the person's page with these fields, as a script that reads the reason of a refusal.
async fn send(handset: &mut Handset, fields: &[(&str, &str)]) -> (u16, String) {
    let page = handset.get("/_sekisho/me/pin").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let (action, token) = (page.attribute("action", "/_sekisho/me/pin"), page.hidden("t"));
    handset.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    let answer = handset.post(&action, &[&[("t", token.as_str())], fields].concat()).await;
    handset.extra.pop();
    (answer.status.as_u16(), if answer.status == StatusCode::OK { String::new() } else { answer.reason() })
}

fn done() -> (u16, String) {
    (200, String::new())
}

fn refused(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

async fn opens_vault(handset: &mut Handset, pin: &str) -> bool {
    let page = asked(handset).await;
    type_pin(handset, &page, pin).await.status == StatusCode::FOUND
}

/// Signs in by a code that the operator issued, from the page for the PIN.
async fn by_code(harness: &Harness, handset: &mut Handset, page: &Answer, account: &str) {
    let link = page.link("/_sekisho/login?");
    assert!(link.contains("by=code"), "{link}");
    harness.clock.advance(Duration::from_secs(1));
    let form = handset.get(&link).await;
    assert_eq!(form.status, StatusCode::FORBIDDEN, "{}", form.text());
    let entered = handset.type_code(&form, &harness.code(account).await).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
}

#[tokio::test]
async fn a_pin_is_set_twice_typed_and_not_the_first_that_anybody_tries() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "setter").await;
    assert!(!has_pin(&harness, "setter").await);
    for (pin, again) in [
        ("", ""),
        ("123", "123"),
        ("271938461", "271938461"),
        ("27a9", "27a9"),
        (PIN, OTHER),
        (PIN, ""),
        ("0000", "0000"),
        ("1234", "1234"),
        ("4545", "4545"),
    ] {
        assert_eq!(send(&mut alice, &[("pin", pin), ("again", again)]).await, refused(400, "pin-invalid"), "{pin}");
    }
    assert!(!has_pin(&harness, "setter").await);
    let mut program = harness.signed_in(Carrier::Docomo, "p", "program").await;
    assert_eq!(send(&mut program, &[("pin", "0000")]).await, refused(400, "pin-invalid"));
    assert_eq!(send(&mut program, &[("pin", PIN)]).await, done(), "once, where there is no second field");
    let page = set_pin(&mut alice, "", PIN).await;
    assert!(page.text().contains("2026-11-24") && !page.text().contains(PIN), "{}", page.text());
    assert!(has_pin(&harness, "setter").await);
    let shown = alice.get_json("/_sekisho/me").await.json();
    assert_eq!((&shown["has_pin"], &shown["pin_set_on"]), (&true.into(), &"2026-11-24".into()));
    assert!(opens_vault(&mut alice, PIN).await);
    let events = logs::security_events_of("setter");
    assert!(events.iter().any(|line| line.contains("event=\"pin-set\"")), "{events:?}");
    harness.finish_without(&[PIN, OTHER]).await;
}

#[tokio::test]
async fn a_session_alone_sets_none() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    harness.clock.advance(Duration::from_mins(11));
    let identifier = alice.identifier.take();
    assert_eq!(send(&mut alice, &[("pin", PIN), ("again", PIN)]).await, refused(403, "missing-identifier"));
    assert!(!has_pin(&harness, "alice").await);
    alice.identifier = identifier;
    assert_eq!(send(&mut alice, &[("pin", PIN), ("again", PIN)]).await, done());
    harness.finish().await;
}

#[tokio::test]
async fn who_does_not_know_it_neither_changes_nor_removes_it() {
    let harness = harness().await;
    let mut owner = with_pin(&harness, Carrier::SoftBank, "a", "kept").await;
    // A thief of the handset, who signs in with it afresh.
    let mut thief = harness.handset(Carrier::SoftBank, "a");
    assert_eq!(thief.click_sign_in("/").await.status, StatusCode::FOUND);
    for fields in [
        &[("pin", OTHER), ("again", OTHER)][..],
        &[("pin", OTHER), ("again", OTHER), ("old", "")],
        &[("pin", OTHER), ("again", OTHER), ("old", WRONG)],
        &[("remove", "1")],
        &[("remove", "1"), ("old", WRONG)],
    ] {
        assert_eq!(send(&mut thief, fields).await, refused(403, "pin-wrong"), "{fields:?}");
    }
    assert!(has_pin(&harness, "kept").await);
    assert!(opens_vault(&mut owner, PIN).await);

    assert_eq!(send(&mut owner, &[("old", PIN), ("pin", OTHER), ("again", OTHER)]).await, done());
    assert!(!opens_vault(&mut thief, PIN).await);
    assert!(opens_vault(&mut thief, OTHER).await);
    assert_eq!(send(&mut owner, &[("old", PIN), ("remove", "1")]).await, refused(403, "pin-wrong"));
    assert_eq!(send(&mut owner, &[("old", OTHER), ("remove", "1")]).await, done());
    assert!(!has_pin(&harness, "kept").await);
    assert_eq!(thief.get("/vault").await.status, StatusCode::UNAUTHORIZED, "a session of a PIN that is gone is over");
    assert_eq!(send(&mut owner, &[("remove", "1")]).await, done(), "there is none to remove");
    let events = logs::security_events_of("kept");
    let told = |event: &str| events.iter().filter(|line| line.contains(event)).count();
    assert_eq!((told("event=\"pin-set\""), told("event=\"pin-removed\"")), (2, 1), "{events:?}");
    harness.finish_without(&[PIN, OTHER]).await;
}

#[tokio::test]
async fn guesses_on_the_page_count_as_everywhere() {
    let harness = Harness::with(|config| format!("{}\n[limits]\npin = \"3/1h\"\n", with_vault(&config))).await;
    let mut thief = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    for _ in 0..2 {
        assert_eq!(send(&mut thief, &[("old", WRONG), ("remove", "1")]).await, refused(403, "pin-wrong"));
    }
    let page = asked(&mut thief).await;
    assert_eq!(type_pin(&mut thief, &page, WRONG).await.status, StatusCode::FORBIDDEN);
    assert_eq!(send(&mut thief, &[("old", PIN), ("remove", "1")]).await, refused(429, "rate-limited"));
    assert!(has_pin(&harness, "alice").await);
    harness.finish().await;
}

#[tokio::test]
async fn who_forgot_it_sets_another_by_a_new_enrolment_code() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::Docomo, "a", "alice").await;
    let page = asked(&mut alice).await;
    by_code(&harness, &mut alice, &page, "alice").await;
    let page = alice.get("/_sekisho/me/pin").await;
    assert!(!page.text().contains("name=\"old\""), "{}", page.text());
    assert_eq!(send(&mut alice, &[("pin", OTHER), ("again", OTHER)]).await, done());
    // The code stood in for the one that was forgotten, and for no other.
    assert!(alice.get("/_sekisho/me/pin").await.text().contains("name=\"old\""));
    assert_eq!(send(&mut alice, &[("pin", PIN), ("again", PIN)]).await, refused(403, "pin-wrong"));
    assert_eq!(send(&mut alice, &[("remove", "1")]).await, refused(403, "pin-wrong"));
    assert!(!opens_vault(&mut alice, PIN).await);
    assert!(opens_vault(&mut alice, OTHER).await);
    let bindings: Value = harness.admin().call(Method::GET, "/v1/accounts/alice/bindings").await.unwrap();
    assert_eq!(bindings["bindings"].as_array().unwrap().len(), 1, "it is the same handset");

    // Ten minutes, and no longer; in a session that was opened by a code, and in no other.
    let page = asked_anew(&harness, &mut alice).await;
    by_code(&harness, &mut alice, &page, "alice").await;
    harness.clock.advance(Duration::from_mins(10));
    assert_eq!(send(&mut alice, &[("pin", PIN), ("again", PIN)]).await, refused(403, "pin-wrong"));
    // Another person's code is no help.
    let page = alice.get("/_sekisho/me/pin").await;
    let form = alice.get(&page.link("/_sekisho/login?")).await;
    assert_eq!(alice.type_code(&form, &harness.code("mallory").await).await.status, StatusCode::FORBIDDEN);
    assert!(has_pin(&harness, "alice").await);
    harness.finish_without(&[PIN, OTHER]).await;
}

/// The page for the PIN in a session that has just begun.
async fn asked_anew(harness: &Harness, handset: &mut Handset) -> Answer {
    handset.cookies.clear();
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
    let _ = harness;
    asked(handset).await
}

#[tokio::test]
async fn an_operator_takes_it_away_and_that_stands_in_the_trail() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let mut plain = harness.signed_in(Carrier::Docomo, "b", "alice").await;
    assert!(opens_vault(&mut alice, PIN).await);
    let clear = async |account: &str| {
        harness.admin().call::<Value>(Method::DELETE, &format!("/v1/accounts/{account}/pin")).await
    };
    assert_eq!(clear("alice").await.unwrap()["has_pin"], false);
    assert_eq!(alice.get("/").await.status, StatusCode::UNAUTHORIZED, "it was signed in by a PIN that is gone");
    assert_eq!(plain.get("/").await.status, StatusCode::OK);
    assert_eq!(clear("alice").await.unwrap()["has_pin"], false, "again");
    assert!(clear("nobody").await.is_err());
    let trail: Value = harness.admin().call(Method::GET, "/v1/audit?after=0&limit=100").await.unwrap();
    let actions: Vec<_> = trail["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {}", entry["action"].as_str().unwrap(), entry["outcome"].as_str().unwrap()))
        .filter(|action| action.contains("pin") || action.contains("step"))
        .collect();
    assert_eq!(
        actions,
        ["pin-set begun", "pin-set done", "session-step-up done", "pin-remove begun", "pin-remove done"]
    );
    harness.finish().await;
}

#[tokio::test]
async fn the_form_is_refused_from_elsewhere() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let page = alice.get("/_sekisho/me/pin").await;
    let body = format!("t={}&pin={PIN}&again={PIN}", page.hidden("t"));
    for (field, value) in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        let fields = [("Content-Type", "application/x-www-form-urlencoded"), (field, value)];
        let refused = alice.send(Method::POST, "/_sekisho/me/pin", &fields, Bytes::from(body.clone())).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
    let by_get = alice.get(&format!("/_sekisho/me/pin?{body}")).await;
    assert_eq!(by_get.status, StatusCode::OK, "the page, and nothing more");
    assert!(!has_pin(&harness, "alice").await);
    harness.finish().await;
}
