//! What would be if a binding key had leaked: found out on a copy, which leaves nothing and changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use rusqlite::types::Value as Stored;
use rusqlite::{Connection, OpenFlags};
use sekisho::admin::{ClientError, ShownDrill};
use serde_json::{Value, json};

use crate::harness::{Carrier, Harness, files};
use crate::pin::{with_pin, with_vault};

async fn harness() -> Harness {
    Harness::with(|config| {
        format!("{}\n[limits]\nnetwork = \"100000/1m\"\nsign_in = \"1000/1m\"\n", with_vault(&config))
    })
    .await
}

async fn drill(harness: &Harness, key: Option<&str>) -> Result<ShownDrill, String> {
    harness.admin().drill(key, |_| {}).await.map_err(|error| {
        let ClientError::Refused(detail) = error else { panic!("{error}") };
        detail.reason
    })
}

/// What the store keeps, but for the audit trail and for when things were last seen.
fn kept(harness: &Harness) -> BTreeMap<&'static str, Vec<Vec<Stored>>> {
    let store = harness.folder.path().join("store.db");
    let conn = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let tables =
        ["meta", "keys", "schemes", "accounts", "bindings", "pins", "rotations", "canaries", "documents", "tombstones"];
    let rows = |table| {
        let mut select = conn.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let read = select.query_map([], |row| (0..columns).map(|i| row.get(i)).collect()).unwrap();
        read.collect::<Result<Vec<Vec<Stored>>, _>>().unwrap()
    };
    let mut all: BTreeMap<_, _> = tables.map(|table| (table, rows(table))).into();
    let mut sessions = conn.prepare("SELECT hex(token_hash) FROM sessions ORDER BY 1").unwrap();
    let tokens = sessions.query_map([], |row| Ok(vec![row.get(0)?])).unwrap();
    all.insert("sessions", tokens.collect::<Result<_, _>>().unwrap());
    all
}

/// Names of all files, and what is in the ledger.
fn beside(harness: &Harness) -> BTreeMap<String, Vec<u8>> {
    let all = files(harness.folder.path()).into_iter().map(|path| {
        let name = path.display().to_string();
        // How far the audit trail is stands in the witness, and drills are in the trail.
        let told = name.contains(".ledger") && !name.contains("witness");
        let content = if told { std::fs::read(path).unwrap() } else { Vec::new() };
        (name, content)
    });
    all.collect()
}

#[tokio::test]
async fn a_drill_tells_what_a_leak_would_be_and_changes_nothing() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let mut bob = harness.signed_in(Carrier::SoftBank, "b", "bob").await;
    drop(harness.signed_in(Carrier::Docomo, "b", "bob").await);
    let backup = harness.backup().await;
    let (before, others) = (kept(&harness), beside(&harness));

    let stages = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&stages);
    let drilled = harness.admin().drill(None, move |progress| told.lock().unwrap().push(progress.stage)).await.unwrap();
    let document = json!(drilled);
    let found = &document["drill"];
    assert_eq!((&found["key"], &found["alone"], &found["alone_after"]), (&"k1".into(), &3.into(), &0.into()));
    assert!(found["bytes"].as_u64().unwrap() > 0 && found["minutes"].is_number(), "{found}");
    let report = &found["report"];
    let counts = ["bindings", "bindings_with_pin", "bindings_without_pin", "accounts", "sessions_ended"];
    assert_eq!(counts.map(|count| report[count].as_u64().unwrap()), [3, 1, 2, 2, 3], "{report}");
    let steps: Vec<_> = report["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["flagged", "replaced", "sessions-ended", "wrapping", "wrapped"]);
    assert_eq!((&report["backups"][0]["id"], &report["backups"][1]), (&backup["id"], &Value::Null));
    assert!(stages.lock().unwrap().iter().any(|stage| stage == "copying"), "{stages:?}");

    assert!(kept(&harness) == before, "the store changed");
    assert!(beside(&harness) == others, "something was left or changed beside the store");
    for handset in [&mut alice, &mut bob] {
        assert_eq!(handset.get("/").await.status, StatusCode::OK, "its session lives");
        handset.cookies.clear();
        assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND, "and it signs in");
    }
    let page: Value = harness.admin().call(Method::GET, "/v1/audit?limit=100").await.unwrap();
    let entries = page["entries"].as_array().unwrap();
    let of = |entry: &&Value| entry["action"] == "compromise-drill";
    let outcomes: Vec<_> = entries.iter().filter(of).map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["begun", "done"]);
    let ended = entries.iter().rfind(of).unwrap();
    assert_eq!((&ended["object"], &ended["count"]), (&"k1".into(), &3.into()), "{ended}");
    assert!(!page.to_string().contains("rotation-"), "the copy's trail is not this one");
    let verdict: Value = harness.admin().call(Method::GET, "/v1/audit/verify").await.unwrap();
    assert_eq!(verdict["ok"], true, "{verdict}");
    harness.finish().await;
}

#[tokio::test]
async fn one_at_a_time_and_what_a_leak_would_be_refused_is_refused() {
    let harness = harness().await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    let outcomes = join_all((0..4).map(|_| drill(&harness, None))).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.len() < 4, "{refused:?}");
    assert!(refused.iter().all(|reason| *reason == "drill-busy"), "{refused:?}");

    for unknown in ["k9", "a1", "", "../k1", "k1,k2"] {
        assert_eq!(drill(&harness, Some(unknown)).await.unwrap_err(), "not-found", "{unknown}");
    }
    let why = json!({ "reason": "x" });
    let _: Value = harness.admin().call_with(Method::POST, "/v1/keys/k1/compromise", Some(&why)).await.unwrap();
    assert_eq!(drill(&harness, Some("k1")).await.unwrap_err(), "key-state", "it has leaked already");
    let document = json!(drill(&harness, None).await.unwrap());
    assert_eq!(document["drill"]["key"], "k2");
    let asked: Result<Value, _> =
        harness.admin().call_with(Method::POST, "/v1/drills/compromise", Some(&json!({ "kee": "k1" }))).await;
    assert!(matches!(asked, Err(ClientError::Refused(detail)) if detail.reason == "body-malformed"));
    let leftover = files(harness.folder.path()).into_iter().find(|path| path.display().to_string().contains(".drill"));
    assert_eq!(leftover, None);
    harness.finish().await;
}
