//! Rotations among what goes wrong around them: suspended keys, a clock that goes back, callers who ask again and again.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use sekisho::clock::Clock as _;
use serde_json::{Value, json};

use crate::admin_input::{Verb, call};
use crate::harness::{Carrier, Handset, Harness};
use crate::import::{import, many};

const DAY: Duration = Duration::from_hours(24);
/// Callers at once.
const CALLERS: usize = 20;

async fn harness() -> Harness {
    Harness::with(|config| config + "\n[limits]\nsign_in = \"1000/1m\"\ncode = \"1000/1m\"\n").await
}

async fn ask(harness: &Harness, method: Method, path: &str, body: Option<Value>) -> Value {
    harness.admin().call_with(method, path, body.as_ref()).await.unwrap()
}

async fn start(harness: &Harness) {
    ask(harness, Method::POST, "/v1/rotations", Some(json!({ "purpose": "binding" }))).await;
}

async fn reaches(harness: &Harness, state: &str) -> Value {
    let reached = async {
        loop {
            let shown = ask(harness, Method::GET, "/v1/rotations/r1", None).await;
            if shown["rotation"]["state"] == state {
                return shown["rotation"].clone();
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), reached).await.expect("it gets there")
}

async fn chains(harness: &Harness) -> Value {
    ask(harness, Method::GET, "/v1/bindings/stats", None).await["chains"].clone()
}

fn imported(harness: &Harness, n: usize) -> Handset {
    harness.handset(Carrier::PrivateApn, &n.to_string())
}

/// Status and reason of a click, as a script hears it.
async fn clicks(handset: &mut Handset) -> (StatusCode, String) {
    let page = handset.get("/").await;
    let entered = handset.get_json(&page.link("/_sekisho/login?")).await;
    let reason = if entered.status.is_client_error() || entered.status.is_server_error() {
        entered.reason()
    } else {
        String::new()
    };
    (entered.status, reason)
}

#[tokio::test]
async fn while_a_key_is_suspended_who_needs_it_waits_and_nothing_is_written() {
    let harness = harness().await;
    import(&harness, many(20)).await;
    let mut inside = imported(&harness, 0);
    assert_eq!(inside.click_sign_in("/").await.status, StatusCode::FOUND);
    start(&harness).await;
    reaches(&harness, "draining").await;
    let mut flattened = imported(&harness, 1);
    assert_eq!(flattened.click_sign_in("/").await.status, StatusCode::FOUND);
    let code = harness.code("newcomer").await;
    let mut newcomer = harness.handset(Carrier::SoftBank, "n");
    let form = newcomer.click_sign_in("/").await;

    ask(&harness, Method::POST, "/v1/keys/k1/suspend", None).await;
    let before = chains(&harness).await;
    let suspended = (StatusCode::SERVICE_UNAVAILABLE, "key-suspended".to_owned());
    // Known or not, they hear the same.
    for n in [2, 3, 900] {
        assert_eq!(clicks(&mut imported(&harness, n)).await, suspended, "{n}");
    }
    let entered = newcomer.type_code(&form, &code).await;
    assert_eq!(entered.status, StatusCode::SERVICE_UNAVAILABLE, "{}", entered.text());
    harness.running.upkeep().await.unwrap();
    assert_eq!(chains(&harness).await, before, "nothing was written");
    // Who is in stays in.
    assert_eq!(inside.get("/").await.status, StatusCode::OK);
    assert_eq!(flattened.get("/").await.status, StatusCode::OK);
    // Neither begins nor ends a rotation meanwhile.
    let (admin, asked) = (harness.admin(), json!({ "purpose": "binding" }));
    let refused = admin.call_with::<Value>(Method::POST, "/v1/rotations", Some(&asked)).await;
    assert!(refused.unwrap_err().to_string().contains("suspended"));

    let harness = harness.restart().await;
    assert_eq!(clicks(&mut imported(&harness, 2)).await, suspended, "over a restart");
    ask(&harness, Method::POST, "/v1/keys/k1/resume", None).await;
    for n in 0..20 {
        assert_eq!(clicks(&mut imported(&harness, n)).await.0, StatusCode::FOUND, "{n}");
    }
    let mut newcomer = harness.handset(Carrier::SoftBank, "n");
    assert_eq!(newcomer.enrol("/", &code).await.status, StatusCode::FOUND, "the code was not spent");
    harness.running.upkeep().await.unwrap();
    let done = reaches(&harness, "done").await;
    assert_eq!((&done["flattened"], &done["purged"]), (&json!(20), &json!(0)));
    harness.finish().await;
}

/// The records cannot be moved until this is dropped: on a real disk because it is full.
fn held(harness: &Harness) -> rusqlite::Connection {
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    let held = "CREATE TRIGGER held BEFORE UPDATE OF chain ON bindings WHEN NEW.chain != 'k2'
                BEGIN SELECT RAISE(ABORT, 'held'); END";
    store.execute_batch(held).unwrap();
    store
}

#[tokio::test]
async fn a_rotation_that_is_paused_amid_its_wrap_moves_nothing_and_costs_no_sign_in() {
    let harness = harness().await;
    import(&harness, many(20)).await;
    let store = held(&harness);
    start(&harness).await;
    assert_eq!(clicks(&mut imported(&harness, 0)).await.0, StatusCode::FOUND, "before any record was moved");
    let paused = ask(&harness, Method::POST, "/v1/rotations/r1/pause", None).await["rotation"].clone();
    assert_eq!(
        (&paused["state"], &paused["unwrapped"], &paused["eta_seconds"]),
        (&json!("paused"), &json!(19), &json!(null))
    );
    store.execute_batch("DROP TRIGGER held").unwrap();

    // Over a restart, whatever is counted, and however often it is asked.
    let harness = harness.restart().await;
    let expected = json!([{"chain": ["k1"], "bindings": 19}, {"chain": ["k2"], "bindings": 1}]);
    for _ in 0..2 {
        harness.running.upkeep().await.unwrap();
        ask(&harness, Method::POST, "/v1/rotations/r1/rescan", None).await;
        assert_eq!(chains(&harness).await, expected);
    }
    let metrics = harness.metrics().await;
    for told in ["unwrapped 19", "rate 0", "eta_seconds 0"] {
        assert!(metrics.contains(&format!("\nsekisho_rotation_{told}\n")), "{told}: {metrics}");
    }
    assert_eq!(clicks(&mut imported(&harness, 1)).await.0, StatusCode::FOUND, "its record is taken off the old key");
    assert_eq!(chains(&harness).await[0]["bindings"], 18);
    ask(&harness, Method::POST, "/v1/rotations/r1/resume", None).await;
    let draining = reaches(&harness, "draining").await;
    assert_eq!((&draining["wrapped"], &draining["flattened"], &draining["purged"]), (&json!(18), &json!(2), &json!(0)));
    for n in 2..20 {
        assert_eq!(clicks(&mut imported(&harness, n)).await.0, StatusCode::FOUND, "{n}");
    }
    harness.running.upkeep().await.unwrap();
    reaches(&harness, "done").await;
    harness.finish().await;
}

#[tokio::test]
async fn a_clock_that_goes_back_during_a_rotation_costs_nobody_anything() {
    let harness = harness().await;
    import(&harness, many(30)).await;
    let asked = json!({ "purpose": "binding", "drain_within": 20 });
    let begun = ask(&harness, Method::POST, "/v1/rotations", Some(asked)).await["rotation"].clone();
    reaches(&harness, "draining").await;
    let begun_at = harness.clock.now();
    for jump in [DAY * 10, DAY * 300, Duration::from_secs(90)] {
        harness.clock.set(begun_at.minus(jump));
        harness.running.upkeep().await.unwrap();
        let now = ask(&harness, Method::GET, "/v1/rotations/r1", None).await["rotation"].clone();
        for member in ["state", "total", "remaining", "drain_by", "started_at"] {
            let expected = if member == "state" { &json!("draining") } else { &begun[member] };
            assert_eq!(&now[member], expected, "{member} after {jump:?}");
        }
    }
    for n in 0..10 {
        assert_eq!(imported(&harness, n).click_sign_in("/").await.status, StatusCode::FOUND, "{n}");
    }
    // Far beyond the deadline at once: a clock that was set erases nothing for a day.
    harness.clock.set(begun_at.plus(DAY * 21));
    harness.running.upkeep().await.unwrap();
    assert_eq!(ask(&harness, Method::GET, "/v1/rotations/r1", None).await["rotation"]["remaining"], 20);
    harness.clock.set(begun_at.plus(DAY));
    harness.running.upkeep().await.unwrap();
    for n in 10..30 {
        assert_eq!(imported(&harness, n).click_sign_in("/").await.status, StatusCode::FOUND, "{n}");
    }
    harness.running.upkeep().await.unwrap();
    let done = reaches(&harness, "done").await;
    assert_eq!((&done["flattened"], &done["purged"]), (&json!(30), &json!(0)));
    let verdict = ask(&harness, Method::GET, "/v1/audit/verify", None).await;
    assert_eq!(verdict["ok"], true, "{verdict}");
    harness.finish().await;
}

/// How often an action stands in the trail as done.
async fn done(harness: &Harness, action: &str) -> usize {
    let page = ask(harness, Method::GET, "/v1/audit?after=0&limit=1000", None).await;
    let entries = page["entries"].as_array().unwrap();
    entries.iter().filter(|entry| entry["action"] == action && entry["outcome"] == "done").count()
}

/// The verb by as many callers at once, all with one `Idempotency-Key` or each with none.
async fn at_once(
    harness: &Harness,
    method: &str,
    path: &str,
    body: &'static str,
    key: Option<&str>,
) -> Vec<(u16, Value)> {
    let verb = Verb { method: method.to_owned(), path: path.to_owned() };
    let mut fields = vec![("Content-Type", "application/json")];
    fields.extend(key.map(|key| ("Idempotency-Key", key)));
    join_all((0..CALLERS).map(|_| call(harness, &verb, &fields, body))).await
}

#[tokio::test]
async fn whoever_asks_again_and_again_at_once_has_it_done_once() {
    let harness = harness().await;
    import(&harness, many(10)).await;
    // Each verb, in an order in which every one can be done: method, path, body, what the trail calls it.
    let verbs: [(&str, &str, &str, &str); 12] = [
        ("POST", "/v1/keys", r#"{"purpose":"session"}"#, "key-generate"),
        ("POST", "/v1/keys/s2/activate", "{}", "key-activate"),
        ("POST", "/v1/keys/s2/suspend", "{}", "key-suspend"),
        ("POST", "/v1/keys/s2/resume", "{}", "key-resume"),
        ("POST", "/v1/keys/s2/compromise", r#"{"reason":"found"}"#, "key-compromise"),
        ("POST", "/v1/keys", r#"{"purpose":"audit"}"#, "key-generate"),
        ("DELETE", "/v1/keys/u2", "{}", "key-destroy"),
        ("POST", "/v1/rotations", r#"{"purpose":"binding","paused":true}"#, "rotation-start"),
        ("POST", "/v1/rotations/r3/abort", "{}", "rotation-abort"),
        ("POST", "/v1/rotations", r#"{"purpose":"binding","paused":true}"#, "rotation-start"),
        ("POST", "/v1/rotations/r4/resume", "{}", "rotation-resume"),
        ("POST", "/v1/keys/k1/compromise", r#"{"reason":"found"}"#, "key-compromise"),
    ];
    // What is so already stays so, and is said again.
    let idempotent_by_nature = ["/v1/keys/s2/suspend", "/v1/keys/s2/resume", "/v1/keys/s2/compromise"];
    for (number, (method, path, body, action)) in verbs.into_iter().enumerate() {
        let before = done(&harness, action).await;
        let key = format!("retry-{number}");
        let answers = at_once(&harness, method, path, body, Some(&key)).await;
        let (first, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 200);
        assert!(!first.is_empty(), "{path}: {others:?}");
        assert!(first.iter().all(|answer| *answer == first[0]), "{path}: {first:?}");
        for (status, refusal) in others {
            assert_eq!((status, &refusal["error"]["reason"]), (409, &json!("idempotency-key-busy")), "{path}");
        }
        // Whoever was told that it is at work gets the answer later.
        for again in at_once(&harness, method, path, body, Some(&key)).await {
            assert_eq!(again, first[0], "{path}");
        }
        assert_eq!(done(&harness, action).await, before + 1, "{path}: once");

        // Without a key each is a request of its own, and the state lets one of them through at most.
        let answers = at_once(&harness, method, path, body, None).await;
        let acted = answers.iter().filter(|(status, _)| *status == 200).count();
        let expected = if idempotent_by_nature.contains(&path) { CALLERS } else { 0 };
        assert_eq!(acted, expected, "{path}: it was done already");
        for (status, refusal) in answers.iter().filter(|(status, _)| *status != 200) {
            assert_eq!(*status, 409, "{path}: {refusal}");
        }
    }
    let verdict = ask(&harness, Method::GET, "/v1/audit/verify", None).await;
    assert_eq!(verdict["ok"], true, "{verdict}");
    harness.finish().await;
}

#[tokio::test]
async fn of_many_who_ask_at_once_one_begins_it() {
    let harness = harness().await;
    import(&harness, many(10)).await;
    // The limit of two, met by many at the same moment.
    let answers = at_once(&harness, "POST", "/v1/rotations", r#"{"purpose":"binding"}"#, None).await;
    let begun = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(begun, 2, "{answers:?}");
    for (_, refusal) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!(refusal["error"]["reason"], "rotation-limit", "{refusal}");
    }
    let keys = ask(&harness, Method::GET, "/v1/keys", None).await;
    let active = |key: &&Value| key["purpose"] == "binding" && key["state"] == "active";
    let active: Vec<_> = keys["keys"].as_array().unwrap().iter().filter(active).map(|key| &key["id"]).collect();
    assert_eq!(active, ["k3"]);
    for n in 0..10 {
        assert_eq!(imported(&harness, n).click_sign_in("/").await.status, StatusCode::FOUND, "{n}");
    }
    harness.finish().await;
}
