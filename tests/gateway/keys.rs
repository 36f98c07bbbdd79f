//! The keys of a running gateway: replaced under its requests, by schedule and by hand, and none of them backwards.

use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::admin::ClientError;
use sekisho::assertion::{AssertionVerifier, VerifiedClaims};
use sekisho::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::harness::{Carrier, Handset, Harness, contains};
use crate::logs;

const ISSUER: &str = "http://admin.example.jp";
const AUDIENCE: &str = "https://console.internal";
const DAY: Duration = Duration::from_hours(24);

/// With settings in `[keys]`.
async fn with_keys(settings: &str) -> Harness {
    Harness::with(|config| config.replace("[keys]\n", &format!("[keys]\n{settings}\n"))).await
}

async fn call(harness: &Harness, method: Method, path: &str, document: Option<Value>) -> Result<Value, String> {
    match harness.admin().call_with(method, path, document.as_ref()).await {
        Ok(document) => Ok(document),
        Err(ClientError::Refused(refusal)) => Err(format!("{}: {}", refusal.reason, refusal.message)),
        Err(error) => panic!("{error}"),
    }
}

async fn post(harness: &Harness, path: &str) -> Result<Value, String> {
    call(harness, Method::POST, path, None).await
}

async fn compromise(harness: &Harness, id: &str) -> Value {
    let leak = json!({"reason": "found in a bucket"});
    call(harness, Method::POST, &format!("/v1/keys/{id}/compromise"), Some(leak)).await.unwrap()
}

/// `a1 active, k1 active, …`, by purpose and age.
async fn keys(harness: &Harness) -> String {
    let document = call(harness, Method::GET, "/v1/keys", None).await.unwrap();
    let keys = document["keys"].as_array().unwrap();
    let text = |key: &Value| format!("{} {}", key["id"].as_str().unwrap(), key["state"].as_str().unwrap());
    keys.iter().map(text).collect::<Vec<_>>().join(", ")
}

async fn pass(harness: &Harness, time: Duration) {
    harness.clock.advance(time);
    harness.running.upkeep().await.unwrap();
}

fn token(harness: &Harness) -> String {
    harness.upstream.last().headers["sekisho-jwt-assertion"].to_str().unwrap().to_owned()
}

fn kid_of(token: &str) -> String {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

/// The published document and its max-age in seconds.
async fn jwks(harness: &Harness) -> (String, u64) {
    let answer = harness.handset(Carrier::Au, "x").get("/_sekisho/jwks.json").await;
    let caching = answer.headers["cache-control"].to_str().unwrap().to_owned();
    let (_, seconds) = caching.split_once("max-age=").unwrap();
    (answer.text(), seconds.parse().unwrap())
}

/// What the console learns from a request, by the keys that are published now.
async fn learns(harness: &Harness, handset: &mut Handset) -> VerifiedClaims {
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    let verifier = AssertionVerifier::new(&jwks(harness).await.0, ISSUER, AUDIENCE).unwrap();
    verifier.verify(&token(harness), harness.clock.now()).unwrap()
}

/// An upstream that keeps the JWKS exactly as long as it may, and does not look again before.
struct CachingVerifier {
    verifier: AssertionVerifier,
    stale_at: Timestamp,
}

impl CachingVerifier {
    async fn fetch(harness: &Harness) -> Self {
        let (document, max_age) = jwks(harness).await;
        let verifier = AssertionVerifier::new(&document, ISSUER, AUDIENCE).unwrap();
        Self { verifier, stale_at: harness.clock.now().plus(Duration::from_secs(max_age)) }
    }
}

#[tokio::test]
async fn a_verifier_that_keeps_the_jwks_as_long_as_it_may_knows_every_key_of_a_planned_rotation() {
    let harness = with_keys("assertion_publish = \"6m\"\nassertion_rotate = \"1d\"").await;
    pass(&harness, DAY.saturating_sub(Duration::from_mins(15))).await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut verifier = CachingVerifier::fetch(&harness).await;
    let mut kids = Vec::new();
    for _ in 0..80 {
        pass(&harness, Duration::from_secs(25)).await;
        if harness.clock.now() >= verifier.stale_at {
            verifier = CachingVerifier::fetch(&harness).await;
        }
        assert_eq!(alice.get("/").await.status, StatusCode::OK);
        let token = token(&harness);
        verifier.verifier.verify(&token, harness.clock.now()).unwrap();
        kids.push(kid_of(&token));
    }
    kids.dedup();
    assert_eq!(kids.len(), 2, "the key was replaced once");
    assert!(keys(&harness).await.starts_with("a1 retiring, a2 active"), "{}", keys(&harness).await);
    pass(&harness, DAY).await;
    assert!(keys(&harness).await.starts_with("a1 drained, a2"), "{}", keys(&harness).await);
    assert!(!jwks(&harness).await.0.contains(&kids[0]));
    harness.finish().await;
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_rotation_goes_on_with_it() {
    let harness = with_keys("assertion_publish = \"6m\"").await;
    post_purpose(&harness, "assertion").await.unwrap();
    let (published, _) = jwks(&harness).await;
    assert_eq!(published.matches("\"kid\"").count(), 2, "published before it signs");
    let harness = harness.restart().await;
    assert_eq!(jwks(&harness).await.0, published);
    pass(&harness, Duration::from_secs(359)).await;
    assert!(post(&harness, "/v1/keys/a2/activate").await.unwrap_err().contains("upstreams may not know it"));
    pass(&harness, Duration::from_mins(6)).await;
    let active = post(&harness, "/v1/keys/a2/activate").await.unwrap();
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    learns(&harness, &mut alice).await;
    assert_eq!(kid_of(&token(&harness)), active["kid"].as_str().unwrap());
    let harness = harness.restart().await;
    assert!(keys(&harness).await.starts_with("a1 retiring, a2 active"));
    harness.finish().await;
}

async fn post_purpose(harness: &Harness, purpose: &str) -> Result<Value, String> {
    call(harness, Method::POST, "/v1/keys", Some(json!({ "purpose": purpose }))).await
}

#[tokio::test]
async fn a_leaked_assertion_key_is_gone_at_once_and_no_session_ends() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let before = learns(&harness, &mut alice).await;
    let leaked = kid_of(&token(&harness));
    assert_eq!(jwks(&harness).await.1, 300);
    let document = compromise(&harness, "a1").await;
    assert_eq!((document["state"].as_str(), document["compromised"].as_bool()), (Some("retiring"), Some(true)));

    let (published, max_age) = jwks(&harness).await;
    assert!(!published.contains(&leaked), "out of the JWKS");
    assert_eq!(max_age, 0, "nobody may keep it");
    let after = learns(&harness, &mut alice).await;
    assert_ne!(kid_of(&token(&harness)), leaked, "the assertion that was kept is not used again");
    assert_eq!((before.sid, before.sub), (after.sid, after.sub), "the console sees the same session");
    pass(&harness, DAY).await;
    assert_eq!(jwks(&harness).await.1, 300, "the incident is over");
    assert!(keys(&harness).await.starts_with("a1 drained, a2 active"));
    assert!(!logs::captured().contains("found in a bucket"), "a reason is for those who may read it");
    harness.finish().await;
}

#[tokio::test]
async fn while_a_key_is_suspended_what_needs_it_is_refused_and_the_gateway_starts_all_the_same() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    learns(&harness, &mut alice).await;
    let requests = harness.upstream.received().len();
    post(&harness, "/v1/keys/a1/suspend").await.unwrap();
    post(&harness, "/v1/keys/s1/suspend").await.unwrap();
    let harness = harness.restart().await;
    alice.gateway = harness.address();
    let refused = alice.get_json("/").await;
    assert_eq!(
        (refused.status, refused.json()["error"]["reason"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("key-suspended"))
    );
    assert_eq!(harness.upstream.received().len(), requests, "nothing reaches the upstream without an assertion");
    assert_eq!(jwks(&harness).await, ("{\"keys\":[]}".to_owned(), 0));
    assert!(post(&harness, "/v1/accounts/bob/codes").await.unwrap_err().starts_with("key-suspended"));
    post(&harness, "/v1/keys/a1/resume").await.unwrap();
    post(&harness, "/v1/keys/s1/resume").await.unwrap();
    learns(&harness, &mut alice).await;
    harness.signed_in(Carrier::Au, "b", "bob").await;
    harness.finish().await;
}

#[tokio::test]
async fn a_code_outlives_the_rotation_of_its_key_and_not_its_compromise() {
    let harness = Harness::start().await;
    let codes = [harness.code("alice").await, harness.code("bob").await];
    post_purpose(&harness, "session").await.unwrap();
    post(&harness, "/v1/keys/s2/activate").await.unwrap();
    let mut alice = harness.handset(Carrier::Docomo, "a");
    assert_eq!(alice.enrol("/", &codes[0]).await.status, StatusCode::FOUND);
    compromise(&harness, "s1").await;
    let mut bob = harness.handset(Carrier::Au, "b");
    assert_eq!(
        bob.enrol("/", &codes[1]).await.status,
        StatusCode::FORBIDDEN,
        "whoever has the key could have found it"
    );
    let code = harness.code("bob").await;
    compromise(&harness, "s2").await;
    assert_eq!(bob.enrol("/", &code).await.status, StatusCode::FORBIDDEN);
    let code = harness.code("bob").await;
    assert_eq!(bob.enrol("/", &code).await.status, StatusCode::FOUND);
    assert!(keys(&harness).await.ends_with("s1 drained, s2 drained, s3 active"), "{}", keys(&harness).await);
    harness.finish().await;
}

#[tokio::test]
async fn the_documents_tell_states_and_dates_and_nothing_of_the_material() {
    let harness = Harness::start().await;
    let document = call(&harness, Method::GET, "/v1/keys", None).await.unwrap();
    assert_eq!(keys(&harness).await, "a1 active, u1 active, k1 active, s1 active");
    assert_eq!(document["revision"], 0);
    let a1 = &document["keys"][0];
    let fields: Vec<_> = a1.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        ["activated_at", "commitment", "compromised", "created_at", "id", "kid", "purpose", "state", "suspended"]
    );
    assert_eq!(call(&harness, Method::GET, "/v1/keys/a1", None).await.unwrap(), *a1);
    let public = call(&harness, Method::GET, "/v1/keys/a1/public", None).await.unwrap();
    let published: Value = serde_json::from_str(&jwks(&harness).await.0).unwrap();
    assert_eq!(public["jwk"], published["keys"][0]);
    assert_eq!(public["jwk"]["kid"], a1["kid"]);
    assert!(call(&harness, Method::GET, "/v1/keys/u1/public", None).await.unwrap()["jwk"]["x"].is_string());
    for id in ["k1", "s1", "a9", "%2e", "a1%00"] {
        let refusal = call(&harness, Method::GET, &format!("/v1/keys/{id}/public"), None).await.unwrap_err();
        assert!(refusal.starts_with("not-found"), "{id}: {refusal}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn what_a_state_forbids_is_refused_with_the_state_and_what_to_do() {
    let harness = Harness::start().await;
    post_purpose(&harness, "audit").await.unwrap();
    post(&harness, "/v1/keys/u2/activate").await.unwrap();
    for (path, said) in [
        ("/v1/keys/u1/activate", "key-state: u1 is drained: only a pending key"),
        ("/v1/keys/u2/activate", "key-state: u2 is active: only a pending key"),
        ("/v1/keys/u1/suspend", "key-state: u1 is drained: an audit key"),
        ("/v1/keys/k9/suspend", "not-found"),
        ("/v1/keys/K1/suspend", "not-found"),
        ("/v1/keys/k1/compromise", "body-malformed"),
        ("/v1/keys/rewrap", "kek: the configuration names no keys.kek_next"),
    ] {
        let refusal = post(&harness, path).await.unwrap_err();
        assert!(refusal.starts_with(said), "{path}: {refusal}");
    }
    for (purpose, said) in [("binding", "key-state: binding keys are made"), ("mac", "body-malformed")] {
        assert!(post_purpose(&harness, purpose).await.unwrap_err().starts_with(said), "{purpose}");
    }
    post_purpose(&harness, "audit").await.unwrap();
    assert!(post_purpose(&harness, "audit").await.unwrap_err().starts_with("key-state: u3 is pending"));
    for reason in [json!(""), json!("  "), json!("a\nb"), json!("x".repeat(257)), json!(7), json!(null)] {
        let asked = Some(json!({ "reason": reason }));
        let refusal = call(&harness, Method::POST, "/v1/keys/u2/compromise", asked).await.unwrap_err();
        assert!(refusal.starts_with("reason-invalid") || refusal.starts_with("body-malformed"), "{reason}: {refusal}");
    }
    assert_eq!(keys(&harness).await, "a1 active, u1 drained, u2 active, u3 pending, k1 active, s1 active");
    harness.finish().await;
}

#[tokio::test]
async fn a_key_is_destroyed_once_it_cooled_off_and_its_public_half_stays() {
    let harness = with_keys("cooling = \"2d\"").await;
    post_purpose(&harness, "audit").await.unwrap();
    post(&harness, "/v1/keys/u2/activate").await.unwrap();
    let public = call(&harness, Method::GET, "/v1/keys/u1/public", None).await.unwrap();
    let destroy = async |id: &str| call(&harness, Method::DELETE, &format!("/v1/keys/{id}"), None).await;
    let early = destroy("u1").await.unwrap_err();
    assert!(early.starts_with("key-state: u1 is drained: it cools off until 2026-11-26T00:00:00Z"), "{early}");
    for (id, said) in [("u2", "rotate first"), ("k1", "rotate first"), ("u9", "not-found")] {
        assert!(destroy(id).await.unwrap_err().contains(said), "{id}");
    }
    pass(&harness, 2 * DAY).await;
    // Somebody reads the file meanwhile, so that the journal is not emptied: done is done.
    let reader = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM keys;").unwrap();
    let gone = destroy("u1").await.unwrap();
    drop(reader);
    assert_eq!(
        (gone["state"].as_str(), gone["destroyed_at"].as_str()),
        (Some("destroyed"), Some("2026-11-26T00:00:00Z"))
    );
    assert!(destroy("u1").await.unwrap_err().contains("nothing is left"));
    assert_eq!(call(&harness, Method::GET, "/v1/keys/u1/public", None).await.unwrap(), public);
    let harness = harness.restart().await;
    assert!(keys(&harness).await.contains("u1 destroyed, u2 active"), "the tombstone stays");
    harness.finish().await;
}

#[tokio::test]
async fn what_was_done_to_a_key_stands_and_it_is_told_that_the_ledger_does_not_know() {
    let harness = Harness::start().await;
    let id = post_purpose(&harness, "session").await.unwrap()["id"].as_str().unwrap().to_owned();
    let [ledger, elsewhere] = ["store.db.ledger", "elsewhere"].map(|name| harness.folder.path().join(name));
    std::fs::rename(&ledger, &elsewhere).unwrap();
    std::fs::write(&ledger, "in the way").unwrap();
    let destroy = async || call(&harness, Method::DELETE, &format!("/v1/keys/{id}"), None).await;
    let warns = |document: &Value, what: &str| {
        let told = format!("restore no backup before the ledger can be written: until then it does not know {what}");
        assert_eq!(document["warnings"], json!([told]), "{document}");
    };
    let gone = destroy().await.unwrap();
    assert_eq!(gone["state"], "destroyed");
    warns(&gone, "that the key is destroyed");
    assert!(destroy().await.unwrap_err().contains("nothing is left"));
    for id in ["a1", "s1", "u1", "k1"] {
        let leaked = compromise(&harness, id).await;
        assert_eq!(leaked["compromised"], true);
        warns(&leaked, "of the leak");
    }
    std::fs::remove_file(&ledger).unwrap();
    std::fs::rename(&elsewhere, &ledger).unwrap();
    let page = call(&harness, Method::GET, "/v1/audit?limit=100", None).await.unwrap();
    let ends = page["entries"].as_array().unwrap().iter().filter(|e| e["action"] == "key-destroy");
    assert_eq!(ends.map(|e| e["outcome"].as_str().unwrap()).collect::<Vec<_>>(), ["begun", "done"], "once");
    harness.finish().await;
}

#[tokio::test]
async fn what_was_done_to_a_key_stands_where_the_trail_takes_no_end_of_it() {
    let harness = Harness::start().await;
    let id = post_purpose(&harness, "session").await.unwrap()["id"].as_str().unwrap().to_owned();
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    let full = "CREATE TRIGGER endless BEFORE INSERT ON audit_entries WHEN instr(NEW.entry, '\"done\"') > 0 \
                BEGIN SELECT RAISE(ABORT, 'full'); END";
    store.execute_batch(full).unwrap();
    let destroy = async || call(&harness, Method::DELETE, &format!("/v1/keys/{id}"), None).await;
    let warns = |document: &Value| {
        let told = "keep a note that this was done: its end could not be written into the audit trail, which says that it began";
        assert_eq!(document["warnings"], json!([told]), "{document}");
    };
    let gone = destroy().await.unwrap();
    assert_eq!(gone["state"], "destroyed");
    warns(&gone);
    for id in ["a1", "s1", "u1", "k1"] {
        let leaked = compromise(&harness, id).await;
        assert_eq!(leaked["compromised"], true);
        warns(&leaked);
    }
    assert!(post_purpose(&harness, "session").await.is_err(), "what can be asked for again is not acknowledged");
    store.execute_batch("DROP TRIGGER endless").unwrap();
    assert!(destroy().await.unwrap_err().contains("nothing is left"));
    harness.finish().await;
}

#[tokio::test]
async fn a_key_that_was_destroyed_is_shown_where_nothing_can_be_read_behind_it() {
    let harness = Harness::start().await;
    let path = harness.folder.path().join("store.db");
    let store = rusqlite::Connection::open(&path).unwrap();
    let as_it_was = "UPDATE keys SET state = 'destroyed' WHERE state = 'nowhere'";
    for unreadable_after in ["UPDATE OF state ON keys", "INSERT ON audit_entries WHEN instr(NEW.entry, '\"done\"') > 0"]
    {
        let id = post_purpose(&harness, "session").await.unwrap()["id"].as_str().unwrap().to_owned();
        let broken = format!(
            "CREATE TRIGGER broken AFTER {unreadable_after} \
             BEGIN UPDATE keys SET state = 'nowhere' WHERE id = '{id}'; END"
        );
        store.execute_batch(&broken).unwrap();
        // The journal is not emptied while somebody reads, so that the store says of the change itself that it failed.
        let reader = rusqlite::Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM keys;").unwrap();
        let gone = call(&harness, Method::DELETE, &format!("/v1/keys/{id}"), None).await.unwrap();
        drop(reader);
        assert!(call(&harness, Method::GET, "/v1/keys", None).await.is_err(), "nothing can be read");
        store.execute_batch(&format!("DROP TRIGGER broken; {as_it_was}")).unwrap();
        let mut shown = call(&harness, Method::GET, &format!("/v1/keys/{id}"), None).await.unwrap();
        assert_eq!(shown["state"], "destroyed");
        if let Some(warnings) = gone.get("warnings") {
            shown["warnings"] = warnings.clone();
        }
        assert_eq!(gone, shown, "as it is");
    }
    harness.finish().await;
}

/// A read of the store by somebody else, which keeps its journal from being emptied until it is dropped; and what key `id` is
/// wrapped as.
fn read_by_somebody(harness: &Harness, id: &str) -> (rusqlite::Connection, Vec<u8>) {
    let reader = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let wrapped = reader.query_row("SELECT wrapped FROM keys WHERE id = ?1", [id], |row| row.get(0)).unwrap();
    (reader, wrapped)
}

#[tokio::test]
async fn what_a_key_was_wrapped_as_goes_later_where_the_journal_is_read_and_nothing_is_taken_for_undone() {
    let harness = Harness::start().await;
    let holds = |wrapped: &[u8]| {
        let files = ["store.db", "store.db-wal"].map(|name| std::fs::read(harness.folder.path().join(name)).unwrap());
        files.iter().any(|file| contains(file, wrapped))
    };
    let document = json!({ "purpose": "binding", "reason": "a test", "paused": true });
    call(&harness, Method::POST, "/v1/rotations", Some(document)).await.unwrap();
    let (reader, wrapped) = read_by_somebody(&harness, "k2");
    let aborted = post(&harness, "/v1/rotations/r1/abort").await.unwrap();
    assert_eq!(aborted["rotation"]["state"], "aborted", "{aborted}");
    assert!(holds(&wrapped));
    drop(reader);
    // A round of upkeep may have met the reader.
    pass(&harness, Duration::from_mins(10)).await;
    assert!(!holds(&wrapped));
    assert_eq!(keys(&harness).await, "a1 active, u1 active, k1 active, k2 destroyed, s1 active");

    // What fails is not tried at each round, since each try writes the whole store.
    let id = post_purpose(&harness, "session").await.unwrap()["id"].as_str().unwrap().to_owned();
    let (reader, wrapped) = read_by_somebody(&harness, &id);
    call(&harness, Method::DELETE, &format!("/v1/keys/{id}"), None).await.unwrap();
    harness.running.upkeep().await.unwrap();
    drop(reader);
    harness.running.upkeep().await.unwrap();
    assert!(holds(&wrapped), "it is not time yet");
    pass(&harness, Duration::from_mins(10)).await;
    assert!(!holds(&wrapped));
    harness.finish().await;
}

#[tokio::test]
async fn the_trail_goes_on_under_the_next_audit_key_and_names_who_did_what() {
    let harness = Harness::start().await;
    post_purpose(&harness, "audit").await.unwrap();
    post(&harness, "/v1/keys/u2/activate").await.unwrap();
    compromise(&harness, "a1").await;
    pass(&harness, Duration::from_secs(5)).await;
    let page = call(&harness, Method::GET, "/v1/audit?limit=100", None).await.unwrap();
    let entries = page["entries"].as_array().unwrap();
    let done = |action: &str, object: &str| {
        let matches = |e: &&Value| e["action"] == action && e["outcome"] == "done" && e["object"] == object;
        entries.iter().find(matches).unwrap_or_else(|| panic!("{action}: {page}"))
    };
    done("key-generate", "audit");
    done("key-activate", "u2");
    done("key-compromise", "a1");
    assert!(entries.iter().any(|e| e["action"] == "key-compromise" && e["reason"] == "found in a bucket"), "{page}");
    let introduced = entries.iter().filter(|e| e["action"] == "audit-key-introduce").count();
    assert_eq!(introduced, 2, "u1 and u2: {page}");
    let verdict = call(&harness, Method::GET, "/v1/audit/verify", None).await.unwrap();
    assert_eq!((&verdict["ok"], &verdict["first_bad"]), (&json!(true), &json!(null)), "{verdict}");
    let harness = harness.restart().await;
    let verdict = call(&harness, Method::GET, "/v1/audit/verify", None).await.unwrap();
    assert_eq!(verdict["ok"], true, "{verdict}");
    harness.finish().await;
}

#[tokio::test]
async fn monitoring_sees_how_old_the_keys_are() {
    let harness = Harness::start().await;
    pass(&harness, Duration::from_hours(5)).await;
    compromise(&harness, "s1").await;
    pass(&harness, Duration::from_mins(1)).await;
    let metrics = harness.metrics().await;
    for line in [
        "sekisho_key_age_seconds{purpose=\"binding\"} 18060",
        "sekisho_key_age_seconds{purpose=\"assertion\"} 18060",
        "sekisho_key_age_seconds{purpose=\"session\"} 60",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_leaked_binding_key_is_replaced_by_a_rotation_and_its_answer_is_the_report() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let document = compromise(&harness, "k1").await;
    assert_eq!((document["id"].as_str(), document["compromised"].as_bool()), (Some("k1"), Some(true)));
    let report = &document["report"];
    assert_eq!((report["bindings"].as_u64(), report["sessions_ended"].as_u64()), (Some(1), Some(1)));
    assert_eq!(report["rotation"], "r1");
    let steps: Vec<&str> = report["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["flagged", "replaced", "sessions-ended", "wrapping"]);
    let page = alice.click_sign_in("/").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "its records sign nobody in");
    let code = harness.code("alice").await;
    assert_eq!(alice.type_code(&page, &code).await.status, StatusCode::FOUND, "until a new code");
    assert!(call(&harness, Method::POST, "/v1/keys/k9/compromise", Some(json!({"reason": "x"}))).await.is_err());
    harness.finish().await;
}

#[tokio::test]
async fn the_other_keys_rotate_by_the_same_verb() {
    let harness = Harness::start().await;
    let start = |purpose: &str| json!({"purpose": purpose, "reason": "yearly"});
    // The next one may begin once this one's key is in use: that of the assertions is published for a day before.
    for (purpose, id, state, from, to, next) in [
        ("assertion", "r1", "running", "a1", "a2", "2026-11-25"),
        ("session", "r2", "draining", "s1", "s2", "2026-11-24"),
        ("audit", "r3", "done", "u1", "u2", "2026-11-24"),
    ] {
        let shown = call(&harness, Method::POST, "/v1/rotations", Some(start(purpose))).await.unwrap();
        let rotation = &shown["rotation"];
        let said = ["id", "state", "from", "to", "purpose"].map(|name| rotation[name].as_str().unwrap());
        assert_eq!(said, [id, state, from, to, purpose]);
        assert_eq!(rotation["next_rotation_on"], next, "{purpose}");
        assert_eq!((rotation["total"].as_u64(), rotation["remaining"].as_u64()), (Some(0), Some(0)));
    }
    let paused = json!({"purpose": "session", "paused": true});
    assert!(call(&harness, Method::POST, "/v1/rotations", Some(paused)).await.unwrap_err().starts_with("key-state"));
    let aborted = post(&harness, "/v1/rotations/r1/abort").await.unwrap();
    assert_eq!(aborted["rotation"]["state"], "aborted");
    assert!(post(&harness, "/v1/rotations/r2/abort").await.is_err(), "its key is in use");
    harness.finish().await;
}
