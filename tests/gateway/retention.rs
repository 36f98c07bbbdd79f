//! What is kept ends when the notice says so.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Carrier, Harness};

const DAY: Duration = Duration::from_hours(24);

async fn bindings(harness: &Harness) -> Vec<Value> {
    let listed: Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    listed["bindings"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_binding_unused_for_its_retention_is_erased_and_one_in_use_stays() {
    let harness = Harness::with(|config| config.replace("[binding]", "[binding]\nretention = \"30d\"")).await;
    let mut used = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut unused = harness.signed_in(Carrier::SoftBank, "b", "bob").await;
    harness.clock.advance(DAY * 20);
    used.cookies.clear();
    assert_eq!(used.click_sign_in("/").await.status, StatusCode::FOUND);
    harness.clock.advance(DAY * 10);
    harness.running.upkeep().await.unwrap();
    let kept = bindings(&harness).await;
    assert_eq!(kept.len(), 2, "thirty days are not more than thirty days");
    assert_eq!((&kept[0]["bound_on"], &kept[0]["last_used_on"]), (&"2026-11-24".into(), &"2026-12-14".into()));

    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    let kept = bindings(&harness).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["account"], "alice");
    unused.cookies.clear();
    assert_eq!(unused.click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    used.cookies.clear();
    assert_eq!(used.click_sign_in("/").await.status, StatusCode::FOUND);
    harness.finish().await;
}

#[tokio::test]
async fn the_sessions_of_an_erased_binding_end() {
    // The longest session over the shortest retention: only then does a session outlive its binding.
    let harness = Harness::with(|config| {
        let sessions = "[session]\nidle = \"20d\"\nabsolute = \"20d\"\n[binding]\nretention = \"1d\"";
        config.replace("[binding]", sessions)
    })
    .await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    let ended = handset.get_json("/").await;
    assert_eq!((ended.status, ended.reason().as_str()), (StatusCode::UNAUTHORIZED, "session-expired"));
    let account: Value = harness.admin().call(Method::GET, "/v1/accounts/alice").await.unwrap();
    assert_eq!((&account["bindings"], &account["sessions"]), (&0.into(), &0.into()));
    harness.finish().await;
}

#[tokio::test]
async fn what_expired_is_counted_no_longer() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    assert!(harness.metrics().await.contains("sekisho_sessions_live 1"), "{}", harness.metrics().await);
    harness.clock.advance(Duration::from_mins(30));
    harness.running.upkeep().await.unwrap();
    assert!(harness.metrics().await.contains("sekisho_sessions_live 0"), "{}", harness.metrics().await);
    harness.finish().await;
}
