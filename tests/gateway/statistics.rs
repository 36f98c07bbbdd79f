//! Statistics: what is shown of how many, and what is not.

use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::admin::ClientError;
use serde_json::{Value, json};

use crate::harness::{Carrier, Harness};

const DAY: Duration = Duration::from_hours(24);

async fn stats(harness: &Harness, query: &str) -> Result<Value, ClientError> {
    harness.admin().call(Method::GET, &format!("/v1/stats{query}")).await
}

/// Day, carrier and count of the sign-ins.
async fn sign_ins(harness: &Harness, query: &str) -> Vec<Value> {
    let shown = stats(harness, query).await.unwrap();
    let row = |cell: &Value| json!([cell["day"], cell["carrier"], cell["count"]]);
    shown["sign_ins"].as_array().unwrap().iter().map(row).collect()
}

async fn signs_in(harness: &Harness, carrier: Carrier, tail: &str, times: usize) {
    for _ in 0..times {
        let mut handset = harness.handset(carrier, tail);
        assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
    }
}

#[tokio::test]
async fn small_counts_are_withheld_and_days_that_are_over_stay_as_they_are() {
    let edit = |config: String| format!("{config}[limits]\nsign_in = \"1000/1m\"\n[privacy]\nstatistics_floor = 4\n");
    let harness = Harness::with(edit).await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    signs_in(&harness, Carrier::Docomo, "a", 4).await;
    let shown = stats(&harness, "").await.unwrap();
    assert_eq!((&shown["floor"], &shown["to"]), (&4.into(), &"2026-11-24".into()));
    let today = sign_ins(&harness, "").await;
    let row = |carrier: &str, count: Value| json!(["2026-11-24", carrier, count]);
    // Five and one: the day is not over, so that five is shown as four.
    let open =
        ["au", "docomo", "private-apn", "softbank"].map(|name| row(name, (name == "docomo").then_some(4).into()));
    assert_eq!(today, open);

    harness.clock.advance(DAY);
    // Softbank's one could be worked out of a sum: docomo's goes with it.
    let over = ["au", "docomo", "private-apn", "softbank"].map(|name| row(name, Value::Null));
    assert_eq!(sign_ins(&harness, "?to=2026-11-24").await, over);
    for range in ["?from=2026-11-24&to=2026-11-24", "?from=2026-11-20&to=2026-11-24"] {
        assert_eq!(sign_ins(&harness, range).await, over, "{range}");
    }
    assert_eq!(sign_ins(&harness, "?from=2026-11-24&to=2026-11-25").await[..4], over);

    // What was counted is there after a restart, and is erased with its time.
    let harness = harness.restart().await;
    signs_in(&harness, Carrier::Docomo, "a", 4).await;
    harness.clock.advance(DAY);
    let shown = sign_ins(&harness, "?from=2026-11-25&to=2026-11-25").await;
    assert_eq!(shown[1], json!(["2026-11-25", "docomo", 4]));
    let text = stats(&harness, "").await.unwrap().to_string();
    assert!(!text.contains("alice") && !text.contains("bob"));
    harness.finish().await;
}

#[tokio::test]
async fn statistics_end_with_their_retention() {
    let edit = |config: String| {
        format!(
            "{config}[limits]\nsign_in = \"1000/1m\"\n[privacy]\nstatistics_floor = 1\nstatistics_retention = \"30d\"\n"
        )
    };
    let harness = Harness::with(edit).await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    harness.running.upkeep().await.unwrap();
    harness.clock.advance(DAY * 30);
    harness.running.upkeep().await.unwrap();
    assert_eq!(sign_ins(&harness, "?from=2026-11-24&to=2026-11-24").await.len(), 4);
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    assert!(sign_ins(&harness, "?from=2026-11-24&to=2026-11-24").await.is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn a_range_is_of_days_and_bounded() {
    let harness = Harness::start().await;
    for query in [
        "?from=x",
        "?from=2026-11-31",
        "?from=2026-11-24&to=2026-11-23",
        "?from=2020-01-01&to=2026-11-24",
        "?from=2026-11-24&from=2026-11-24",
        "?day=2026-11-24",
        "?to=2026-11-24T00:00:00Z",
    ] {
        let refused = stats(&harness, query).await;
        assert!(
            matches!(&refused, Err(ClientError::Refused(d)) if d.reason == "parameter-invalid"),
            "{query} {refused:?}"
        );
    }
    harness.finish().await;
}
