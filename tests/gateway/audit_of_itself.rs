//! What the gateway does by itself stands in the trail as what people do: who, what, when, why, and how many before and after.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Carrier, Harness};
use crate::import::{import, many};

const DAY: Duration = Duration::from_hours(24);

/// Entries of `actor`, as action, outcome, object, before, after.
async fn done_by(harness: &Harness, actor: &str) -> (Vec<Value>, Vec<String>) {
    let page: Value = harness.admin().call(Method::GET, "/v1/audit?after=0&limit=1000").await.unwrap();
    let entries = page["entries"].as_array().unwrap();
    let of_keys = |entry: &&Value| {
        let action = entry["action"].as_str().unwrap();
        entry["actor"] == actor && (action.starts_with("rotation-") || action.starts_with("key-schedule"))
    };
    let names = ["action", "outcome", "object", "before", "after"];
    let said = |entry: &Value| names.iter().map(|name| entry[name].clone()).filter(|value| !value.is_null()).collect();
    let theirs: Vec<&Value> = entries.iter().filter(of_keys).collect();
    for entry in theirs.iter().filter(|entry| entry["outcome"] == "done") {
        let begun = entries.iter().find(|begun| begun["seq"] == entry["of"]).expect("it was begun");
        assert_eq!((&begun["action"], &begun["outcome"]), (&entry["action"], &json!("begun")), "{entry}");
        assert!(entry["time"].is_string() && begun["seq"].as_u64() < entry["seq"].as_u64(), "{entry}");
    }
    let why =
        theirs.iter().filter(|entry| entry["outcome"] == "done").map(|e| e["reason"].as_str().unwrap().to_owned());
    (theirs.iter().map(|entry| said(entry)).collect(), why.collect())
}

async fn reaches(harness: &Harness, state: &str) {
    let reached = async {
        loop {
            let shown: Value = harness.admin().call(Method::GET, "/v1/rotations/r1").await.unwrap();
            if shown["rotation"]["state"] == state {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), reached).await.expect("it gets there");
}

#[tokio::test]
async fn each_step_of_a_rotation_is_the_gateways_own() {
    let harness = Harness::with(|config| config + "\n[limits]\nsign_in = \"1000/1m\"\n").await;
    import(&harness, many(5)).await;
    let asked = json!({ "purpose": "binding", "reason": "half-yearly", "drain_within": 10 });
    let _: Value = harness.admin().call_with(Method::POST, "/v1/rotations", Some(&asked)).await.unwrap();
    reaches(&harness, "draining").await;
    let mut handset = harness.handset(Carrier::PrivateApn, "0");
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
    for _ in 0..11 {
        harness.clock.advance(DAY);
        harness.running.upkeep().await.unwrap();
    }
    reaches(&harness, "done").await;
    let (steps, why) = done_by(&harness, "gateway").await;
    let pairs = [
        (json!(["rotation-drain", "begun", "r1"]), json!(["rotation-drain", "done", "r1", 5, 5])),
        (json!(["rotation-purge", "begun", "r1"]), json!(["rotation-purge", "done", "r1", 4, 0])),
        (json!(["rotation-finish", "begun", "r1"]), json!(["rotation-finish", "done", "r1", 5, 0])),
    ];
    assert_eq!(steps, pairs.into_iter().flat_map(|(begun, done)| [begun, done]).collect::<Vec<_>>());
    let expected = [
        "every record is under k2; k1 is inner",
        "not moved off k1 by its deadline, 2026-12-04",
        "no record needs k1; it is drained",
    ];
    assert_eq!(why, expected);
    let verdict: Value = harness.admin().call(Method::GET, "/v1/audit/verify").await.unwrap();
    assert_eq!((&verdict["ok"], &verdict["unverifiable"]), (&json!(true), &json!(0)), "{verdict}");
    harness.finish().await;
}

#[tokio::test]
async fn keys_that_are_due_are_replaced_by_the_schedule() {
    let harness = Harness::with(|config| {
        config.replace(
            "kek = { file = \"kek\" }",
            "kek = { file = \"kek\" }\nsession_rotate = \"2d\"\nassertion_rotate = \"3d\"",
        )
    })
    .await;
    for _ in 0..5 {
        harness.clock.advance(DAY);
        harness.running.upkeep().await.unwrap();
    }
    let (steps, why) = done_by(&harness, "schedule").await;
    let done: Vec<&Value> = steps.iter().filter(|step| step[1] == "done").map(|step| &step[2]).collect();
    assert_eq!(steps.len(), 2 * done.len(), "each begun and done: {steps:?}");
    assert_eq!(why.first().map(String::as_str), Some("rotation r1 running: a2 made, pending"), "{why:?}");
    for wanted in [
        "rotation r1 draining: a1 active to retiring, a2 pending to active",
        "rotation r2 draining: s2 made, active, s1 active to retiring",
        "rotation r2 done: s1 retiring to drained",
    ] {
        assert!(why.iter().any(|why| why == wanted), "{wanted}: {why:?}");
    }
    assert!(done.iter().any(|object| **object == "a1 a2"), "{done:?}");
    harness.finish().await;
}

/// `from`, `erased` and whether all of it is sound.
async fn kept(harness: &Harness) -> (u64, u64, bool) {
    let verdict: Value = harness.admin().call(Method::GET, "/v1/audit/verify").await.unwrap();
    assert_eq!(verdict["unverifiable"], 0, "{verdict}");
    (verdict["from"].as_u64().unwrap(), verdict["erased"].as_u64().unwrap(), verdict["ok"] == true)
}

#[tokio::test]
async fn entries_are_kept_as_long_as_privacy_says_and_no_clock_that_is_set_shortens_that() {
    let harness = Harness::with(|config| config + "[privacy]\naudit_retention = \"30d\"\n").await;
    harness.code("alice").await;
    for _ in 0..30 {
        harness.clock.advance(DAY);
        harness.running.upkeep().await.unwrap();
    }
    assert_eq!(kept(&harness).await, (1, 0, true), "thirty days old, and not older");
    // A clock that jumps erases nothing, nor one that is set back; after a day it is believed.
    harness.clock.set(crate::harness::START.plus(DAY * 430));
    harness.running.upkeep().await.unwrap();
    assert_eq!(kept(&harness).await, (1, 0, true));
    harness.clock.set(crate::harness::START.plus(DAY * 30));
    harness.running.upkeep().await.unwrap();
    for _ in 0..2 {
        harness.clock.advance(DAY);
        harness.running.upkeep().await.unwrap();
    }
    // The entry of the clock that went back has the right time; all of the first day is gone.
    let (from, erased, sound) = kept(&harness).await;
    assert!(sound && from > 5 && erased == from - 1, "{from} {erased}");
    let page: Value = harness.admin().call(Method::GET, "/v1/audit?after=0&limit=1000").await.unwrap();
    let entries = page["entries"].as_array().unwrap();
    assert_eq!(entries[0]["seq"], from);
    assert!(entries.iter().all(|entry| entry["action"] != "code-issue"), "{page}");
    let erasures = entries.iter().filter(|entry| entry["action"] == "audit-erase");
    assert_eq!(erasures.map(|entry| &entry["actor"]).collect::<Vec<_>>(), ["retention", "retention"]);

    let harness = harness.restart().await;
    harness.running.upkeep().await.unwrap();
    assert_eq!(kept(&harness).await, (from, erased, true), "over a restart");
    harness.finish().await;
}
