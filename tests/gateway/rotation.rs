//! The binding keys are replaced while handsets sign in, enrol and are imported.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Method, StatusCode};
use sekisho::admin::ClientError;
use sekisho::clock::Clock as _;
use sekisho::rotation::RotationError;
use serde_json::{Value, json};

use crate::harness::{Carrier, Handset, Harness, files};
use crate::import::{import, many};

const DAY: Duration = Duration::from_hours(24);

/// Every handset may sign in often: the clock stands still.
async fn harness() -> Harness {
    Harness::with(|config| config + "\n[limits]\nsign_in = \"1000/1m\"\ncode = \"1000/1m\"\n").await
}

async fn start(harness: &Harness, more: Value) -> Result<Value, ClientError> {
    let mut asked = json!({ "purpose": "binding", "reason": "a test" });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let shown: Value = harness.admin().call_with(Method::POST, "/v1/rotations", Some(&asked)).await?;
    Ok(shown["rotation"].clone())
}

async fn verb(harness: &Harness, id: &str, verb: &str) -> Result<Value, ClientError> {
    let shown: Value = harness.admin().call(Method::POST, &format!("/v1/rotations/{id}/{verb}")).await?;
    Ok(shown["rotation"].clone())
}

async fn status(harness: &Harness, id: &str) -> Value {
    let shown: Value = harness.admin().call(Method::GET, &format!("/v1/rotations/{id}")).await.unwrap();
    shown["rotation"].clone()
}

/// Asks until it is in that state.
async fn reaches(harness: &Harness, id: &str, state: &str) -> Value {
    let reached = async {
        loop {
            let rotation = status(harness, id).await;
            let counts = ["flattened", "purged", "remaining"].map(|count| rotation[count].as_u64().unwrap());
            assert_eq!(rotation["total"].as_u64().unwrap(), counts.iter().sum::<u64>(), "{rotation}");
            if rotation["state"] == state {
                return rotation;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(2), reached).await.expect("it gets there")
}

fn reason(outcome: Result<Value, ClientError>) -> String {
    match outcome {
        Err(ClientError::Refused(refusal)) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

async fn chains(harness: &Harness) -> Value {
    harness.admin().call::<Value>(Method::GET, "/v1/bindings/stats").await.unwrap()["chains"].clone()
}

/// The `n`-th of [`many`], from a network address of its own.
fn imported(harness: &Harness, n: usize) -> Handset {
    let mut handset = harness.handset(Carrier::PrivateApn, &n.to_string());
    handset.source = IpAddr::V4(Ipv4Addr::new(127, 0, 4, u8::try_from(n % 250).unwrap() + 1));
    handset
}

async fn signs_in(harness: &Harness, n: usize) -> Handset {
    let mut handset = imported(harness, n);
    let entered = handset.click_sign_in("/").await;
    assert_eq!(entered.status, StatusCode::FOUND, "{n}: {}", entered.text());
    handset
}

/// The digests of all bindings.
fn digests(harness: &Harness) -> HashSet<Vec<u8>> {
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    let mut select = store.prepare("SELECT digest FROM bindings").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// How many of `digests` stand anywhere in the gateway's files: store, journal, whatever lies beside.
fn found(harness: &Harness, digests: &HashSet<Vec<u8>>) -> usize {
    let bytes: Vec<Vec<u8>> = files(harness.folder.path()).iter().map(|file| std::fs::read(file).unwrap()).collect();
    // Most places are no digest's by their first two bytes.
    let start = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut starts = vec![false; 1 << 16];
    for digest in digests {
        starts[start(digest)] = true;
    }
    let windows = bytes.iter().flat_map(|bytes| bytes.windows(32)).filter(|window| starts[start(window)]);
    windows.filter(|window| digests.contains(*window)).collect::<HashSet<_>>().len()
}

#[tokio::test]
async fn keys_are_replaced_while_handsets_sign_in() {
    let harness = harness().await;
    import(&harness, many(1000)).await;
    let mut before = Vec::new();
    for n in 0..5 {
        before.push(signs_in(&harness, n).await);
    }
    let mut small = harness.signed_in(Carrier::Docomo, "a", "small-space").await;
    let code = harness.code("newcomer").await;
    let digests = digests(&harness);
    assert_eq!((digests.len(), found(&harness, &digests)), (1001, 1001));

    let rotation = start(&harness, json!({})).await.unwrap();
    assert_eq!((&rotation["id"], &rotation["from"], &rotation["to"]), (&"r1".into(), &"k1".into(), &"k2".into()));
    assert_eq!((&rotation["state"], &rotation["total"]), (&"running".into(), &1001.into()));
    assert_eq!(rotation["drain_by"], "2027-12-29", "400 days");
    assert_eq!(rotation["next_rotation_on"], "2026-11-24", "a second one may overlap");

    // Sign-ins, an enrolment and an import while records move.
    let harness_ref = &harness;
    let sign_ins = stream::iter(0..60).map(|n| signs_in(harness_ref, n)).buffer_unordered(6).collect::<Vec<_>>();
    let enrolment = async {
        let mut handset = harness_ref.handset(Carrier::SoftBank, "n");
        handset.enrol("/", &code).await.status
    };
    let (_, enrolled, lines) = tokio::join!(sign_ins, enrolment, import(harness_ref, many(1200)));
    assert_eq!(enrolled, StatusCode::FOUND);
    assert_eq!((lines.imported, lines.unchanged, lines.refused_in_all()), (200, 1000, 0));

    let draining = reaches(&harness, "r1", "draining").await;
    assert_eq!((&draining["flattened"], &draining["unwrapped"]), (&60.into(), &0.into()));
    assert_eq!(chains(&harness).await, json!([{"chain":["k1","k2"],"bindings":941},{"chain":["k2"],"bindings":261}]));
    assert!(draining["wrapped"].as_u64().unwrap() >= 941);

    // Of what the old key alone made no file of the store has anything, once upkeep has cleaned up behind the wrap.
    harness.running.upkeep().await.unwrap();
    assert_eq!(found(&harness, &digests), 0);

    // No session ended, and whoever was bound before signs in after.
    for handset in &mut before {
        assert_eq!(handset.get("/").await.status, StatusCode::OK);
    }
    assert_eq!(small.get("/").await.status, StatusCode::OK);
    small.cookies.clear();
    assert_eq!(small.click_sign_in("/").await.status, StatusCode::FOUND);
    for n in [0, 59, 60, 999, 1100] {
        signs_in(&harness, n).await;
    }
    let mut stranger = imported(&harness, 5000);
    assert_eq!(stranger.click_sign_in("/").await.status, StatusCode::FORBIDDEN);

    let metrics = harness.metrics().await;
    let remaining = status(&harness, "r1").await["remaining"].as_u64().unwrap();
    harness.running.upkeep().await.unwrap();
    assert!(harness.metrics().await.contains(&format!("sekisho_rotation_remaining {remaining}")), "{metrics}");
    for told in ["wrapped_total", "unwrapped 0\n", "rate 0\n", "eta_seconds 0\n"] {
        assert!(metrics.contains(&format!("\nsekisho_rotation_{told}")), "{told}: {metrics}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_rotation_goes_on_after_a_restart_and_is_done_when_nobody_needs_the_old_key() {
    let harness = harness().await;
    import(&harness, many(400)).await;
    start(&harness, json!({})).await.unwrap();
    let harness = harness.restart().await;
    reaches(&harness, "r1", "draining").await;
    for n in [0, 17, 399] {
        signs_in(&harness, n).await;
    }
    assert_eq!(reason(verb(&harness, "r1", "pause").await), "key-state");

    // The deadline is the retention: on its last day the records are still there.
    harness.clock.advance(DAY * 400);
    harness.running.upkeep().await.unwrap();
    assert_eq!(status(&harness, "r1").await["remaining"], 397);
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    let done = reaches(&harness, "r1", "done").await;
    assert_eq!((&done["flattened"], &done["purged"], &done["remaining"]), (&3.into(), &397.into(), &0.into()));
    assert!(done["finished_at"].is_string());
    harness.finish().await;
}

#[tokio::test]
async fn two_rotations_overlap_and_a_third_waits() {
    let harness = harness().await;
    import(&harness, many(40)).await;
    start(&harness, json!({})).await.unwrap();
    let second = start(&harness, json!({})).await.unwrap();
    assert_eq!((&second["from"], &second["to"], &second["total"]), (&"k2".into(), &"k3".into(), &40.into()));
    assert_eq!(second["next_rotation_on"], "2027-12-30", "the day after the first one's deadline");
    assert_eq!(reason(start(&harness, json!({})).await), "rotation-limit");
    for n in 0..8 {
        signs_in(&harness, n).await;
    }
    reaches(&harness, "r1", "draining").await;
    reaches(&harness, "r2", "draining").await;
    stream::iter(0..40).map(|n| signs_in(&harness, n)).buffer_unordered(4).collect::<Vec<_>>().await;
    harness.running.upkeep().await.unwrap();
    for id in ["r1", "r2"] {
        let done = reaches(&harness, id, "done").await;
        assert_eq!((&done["flattened"], &done["purged"]), (&40.into(), &0.into()), "{id}");
    }
    assert_eq!(chains(&harness).await, json!([{"chain":["k3"],"bindings":40}]));
    let listed: Value = harness.admin().call(Method::GET, "/v1/rotations").await.unwrap();
    let ids: Vec<_> = listed["rotations"].as_array().unwrap().iter().map(|r| r["id"].clone()).collect();
    assert_eq!(ids, ["r2", "r1"]);
    assert!(start(&harness, json!({})).await.is_ok(), "there is room again");
    harness.finish().await;
}

#[tokio::test]
async fn a_rotation_that_never_began_is_given_up_and_others_only_stop() {
    let harness = harness().await;
    import(&harness, many(50)).await;
    let waiting = start(&harness, json!({ "paused": true })).await.unwrap();
    assert_eq!(
        (&waiting["state"], &waiting["remaining"], &waiting["total"]),
        (&"paused".into(), &50.into(), &50.into())
    );
    assert_eq!(reason(start(&harness, json!({})).await), "key-state", "one waits already");
    signs_in(&harness, 0).await;
    assert_eq!(chains(&harness).await, json!([{"chain":["k1"],"bindings":50}]), "nothing changed");
    let aborted = verb(&harness, "r1", "abort").await.unwrap();
    assert_eq!((&aborted["state"], &aborted["remaining"]), (&"aborted".into(), &0.into()));
    for verb_of_none in ["abort", "pause", "resume"] {
        assert_eq!(reason(verb(&harness, "r1", verb_of_none).await), "key-state", "{verb_of_none}");
        assert_eq!(reason(verb(&harness, "r9", verb_of_none).await), "not-found", "{verb_of_none}");
    }

    // Its key's number is never given again.
    let second = start(&harness, json!({ "paused": true })).await.unwrap();
    assert_eq!((&second["id"], &second["from"], &second["to"]), (&"r2".into(), &"k1".into(), &"k3".into()));
    let resumed = verb(&harness, "r2", "resume").await.unwrap();
    assert_eq!((&resumed["state"], &resumed["total"]), (&"running".into(), &50.into()));
    assert_eq!(reason(verb(&harness, "r2", "abort").await), "key-state", "records only go forwards");
    reaches(&harness, "r2", "draining").await;
    signs_in(&harness, 1).await;
    let counted = verb(&harness, "r2", "rescan").await.unwrap();
    assert_eq!(counted["remaining"], 49);

    for (asked, expected) in [
        (json!({ "purpose": "assertions" }), "body-malformed"),
        (json!({ "drain": 3 }), "body-malformed"),
        (json!({ "drain_within": 0 }), "drain-within-invalid"),
        (json!({ "drain_within": 400 }), "drain-within-invalid"),
        (json!({ "reason": "two\nlines" }), "reason-invalid"),
    ] {
        assert_eq!(reason(start(&harness, asked.clone()).await), expected, "{asked}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_shorter_deadline_costs_what_was_accepted() {
    let harness = harness().await;
    import(&harness, many(10)).await;
    for _ in 0..20 {
        harness.clock.advance(DAY);
        harness.running.upkeep().await.unwrap();
    }
    let mut used = signs_in(&harness, 3).await;
    let refused = start(&harness, json!({ "drain_within": 10 })).await;
    let Err(ClientError::Refused(refusal)) = &refused else { panic!("{refused:?}") };
    assert!(refusal.message.contains("9 bindings"), "{}", refusal.message);
    assert_eq!(reason(refused), "would-lose-bindings");
    let wrong = start(&harness, json!({ "drain_within": 10, "expected_loss": 8 })).await;
    assert_eq!(reason(wrong), "would-lose-bindings");
    let begun = start(&harness, json!({ "drain_within": 10, "expected_loss": 9 })).await.unwrap();
    assert_eq!(begun["drain_by"], "2026-12-24");
    let mut saved = signs_in(&harness, 4).await;
    for _ in 0..10 {
        harness.clock.advance(DAY);
        harness.running.upkeep().await.unwrap();
    }
    assert_eq!(status(&harness, "r1").await["remaining"], 9);
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    let done = reaches(&harness, "r1", "done").await;
    assert_eq!((&done["flattened"], &done["purged"]), (&1.into(), &9.into()));
    used.cookies.clear();
    assert_eq!(used.click_sign_in("/").await.status, StatusCode::FORBIDDEN, "it used the old key last");
    saved.cookies.clear();
    assert_eq!(saved.click_sign_in("/").await.status, StatusCode::FOUND);
    harness.finish().await;
}

#[tokio::test]
async fn a_key_that_leaked_signs_nobody_in() {
    let harness = harness().await;
    import(&harness, many(200)).await;
    let mut victim = signs_in(&harness, 0).await;
    // Of several rotations that are open, it waits for none.
    start(&harness, json!({})).await.unwrap();
    let mut moved_on = signs_in(&harness, 1).await;
    start(&harness, json!({ "paused": true })).await.unwrap();
    assert_eq!(victim.get("/").await.status, StatusCode::OK);

    let rotations = harness.running.rotations();
    let report = rotations.compromise("k1", "laptop lost", None, &*harness.clock).await.unwrap();
    assert_eq!((report.reach.unwrap().bindings, report.sessions_ended), (199, 1));
    assert_eq!(report.rotation.unwrap().record.id, "r1", "it is on its way out already");
    assert_eq!(victim.get("/").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(moved_on.get("/").await.status, StatusCode::OK, "by a new digest");
    let page = victim.click_sign_in("/").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let code = harness.code("account-0").await;
    assert_eq!(victim.type_code(&page, &code).await.status, StatusCode::FOUND, "{}", page.text());
    assert_eq!(victim.get("/").await.status, StatusCode::OK);
    victim.cookies.clear();
    assert_eq!(victim.click_sign_in("/").await.status, StatusCode::FOUND);

    // The active key: a fresh one in the same step, and the rotation that waited is over.
    let report = rotations.compromise("k2", "again", None, &*harness.clock).await.unwrap();
    let rotation = report.rotation.unwrap().record;
    assert_eq!((rotation.id.as_str(), rotation.from.as_str(), rotation.to.as_str()), ("r3", "k2", "k4"));
    assert_eq!(status(&harness, "r2").await["state"], "aborted");
    assert_eq!(victim.get("/").await.status, StatusCode::UNAUTHORIZED);
    let code = harness.code("account-1").await;
    let page = moved_on.click_sign_in("/").await;
    assert_eq!(moved_on.type_code(&page, &code).await.status, StatusCode::FOUND);
    reaches(&harness, "r3", "draining").await;
    for (key, expected) in [("k2", "known to be compromised"), ("k3", "destroyed")] {
        let refused = rotations.compromise(key, "", None, &*harness.clock).await;
        assert!(matches!(&refused, Err(RotationError::State(why)) if why.contains(expected)), "{refused:?}");
    }
    assert!(matches!(rotations.compromise("k9", "", None, &*harness.clock).await, Err(RotationError::NoSuchKey)));

    // A new start ends what a run that died in between left open.
    let harness = harness.restart().await;
    moved_on.gateway = harness.address();
    assert_eq!(moved_on.get("/").await.status, StatusCode::OK);
    assert!(harness.clock.now() >= crate::harness::START);
    harness.finish().await;
}

#[tokio::test]
async fn upkeep_ends_the_sessions_of_a_leaked_key_where_the_call_got_no_further_than_to_flag_it() {
    let harness = harness().await;
    import(&harness, many(3)).await;
    let mut victim = signs_in(&harness, 0).await;
    assert_eq!(victim.get("/").await.status, StatusCode::OK);
    let rotations = harness.running.rotations();
    let mut call = Box::pin(rotations.compromise("k1", "laptop lost", None, &*harness.clock));
    loop {
        assert!((&mut call).now_or_never().is_none(), "it goes a step at a time");
        let key: Value = harness.admin().call(Method::GET, "/v1/keys/k1").await.unwrap();
        if key["compromised"] == true {
            break;
        }
    }
    drop(call);
    harness.running.upkeep().await.unwrap();
    assert_eq!(victim.get("/").await.status, StatusCode::UNAUTHORIZED);
    harness.finish().await;
}
