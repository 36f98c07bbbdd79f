//! `posture`: every promise, and what was last seen of it.

use http::Method;
use serde_json::Value;

use crate::harness::Harness;

pub(crate) async fn posture(harness: &Harness) -> Value {
    harness.admin().call(Method::GET, "/v1/posture").await.unwrap()
}

pub(crate) fn standing<'p>(posture: &'p Value, name: &str) -> &'p str {
    let promises = posture["promises"].as_array().unwrap();
    promises.iter().find(|promise| promise["name"] == name).unwrap()["standing"].as_str().unwrap()
}

#[tokio::test]
async fn promises_are_kept_and_a_key_that_leaked_is_told() {
    let harness = Harness::start().await;
    harness.running.upkeep().await.unwrap();
    let before = posture(&harness).await;
    assert_eq!(before["ok"], true, "{before}");
    assert_eq!((standing(&before, "retention"), standing(&before, "access-log")), ("kept", "kept"));
    let canary = &before["promises"].as_array().unwrap()[11];
    assert!(canary["detail"].as_str().unwrap().starts_with("a canary is in none of "), "{canary}");
    assert!(harness.metrics().await.contains("sekisho_promise_kept{promise=\"leaked-keys\"} 1"));

    // A binding still needs the key that leaked.
    let alice = harness.signed_in(crate::harness::Carrier::Au, "a", "alice").await;
    drop(alice);
    let reason = serde_json::json!({ "reason": "a drill" });
    let told = harness.admin().call_with::<Value>(Method::POST, "/v1/keys/k1/compromise", Some(&reason)).await;
    assert!(told.is_ok(), "{told:?}");
    let after = posture(&harness).await;
    assert_eq!((&after["ok"], standing(&after, "leaked-keys")), (&Value::Bool(false), "broken"), "{after}");
    assert!(harness.metrics().await.contains("sekisho_promise_kept{promise=\"leaked-keys\"} 0"));
    harness.finish().await;
}
