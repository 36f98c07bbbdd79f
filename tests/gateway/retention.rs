//! What is kept ends when the notice says so.

use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::admin::ClientError;
use serde_json::{Value, json};

use crate::admin_tls::{Authority, call_with};
use crate::harness::{Carrier, Harness, contains, files};

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

async fn call(harness: &Harness, method: Method, path: &str, document: Option<&Value>) -> Value {
    harness.admin().call_with(method, path, document).await.unwrap()
}

async fn run(harness: &Harness, dry_run: bool) -> Value {
    call(harness, Method::POST, "/v1/retention/run", Some(&json!({ "dry_run": dry_run }))).await
}

/// What stands in `column` of `table`, as it is written there.
fn written(harness: &Harness, table: &str, column: &str) -> Vec<Vec<u8>> {
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    let mut select = store.prepare(&format!("SELECT CAST({column} AS BLOB) FROM {table}")).unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// How many of the files of the store hold one of `texts`.
fn holding(harness: &Harness, texts: &[Vec<u8>]) -> usize {
    let mut of_store = files(harness.folder.path());
    of_store.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with("store.db"));
    assert!(!of_store.is_empty());
    let holds = |file: &std::path::PathBuf| {
        let bytes = std::fs::read(file).unwrap();
        texts.iter().any(|text| contains(&bytes, text))
    };
    of_store.iter().filter(|file| holds(file)).count()
}

#[tokio::test]
async fn what_is_old_is_gone_from_the_files() {
    let harness = Harness::with(|config| config.replace("[binding]", "[binding]\nretention = \"30d\"")).await;
    let handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    harness.code("bob").await;
    let id = call(&harness, Method::GET, "/v1/accounts/alice/bindings", None).await["bindings"][0]["id"].clone();
    let path = format!("/v1/subjects/alice/bindings/{}/label", id.as_str().unwrap());
    call(&harness, Method::PUT, &path, Some(&json!({ "label": "gone-with-it" }))).await;
    drop(handset);
    let sessions = written(&harness, "sessions", "token_hash");
    let codes = written(&harness, "codes", "mac");
    let bindings = [written(&harness, "bindings", "digest"), vec![b"gone-with-it".to_vec()]].concat();
    for texts in [&sessions, &codes, &bindings] {
        assert!(!texts.is_empty() && holding(&harness, texts) > 0, "there is something to be erased");
    }

    // What ended leaves the file with the day, or when somebody asks.
    harness.clock.advance(Duration::from_mins(31));
    harness.running.upkeep().await.unwrap();
    assert!(written(&harness, "sessions", "token_hash").is_empty() && written(&harness, "codes", "mac").is_empty());
    run(&harness, false).await;
    assert_eq!((holding(&harness, &sessions), holding(&harness, &codes)), (0, 0));
    let again = harness.handset(Carrier::Docomo, "a").click_sign_in("/").await;
    assert_eq!(again.status, StatusCode::FOUND);
    harness.code("bob").await;
    let ended = [written(&harness, "sessions", "token_hash"), written(&harness, "codes", "mac")].concat();
    assert!(ended.len() == 2 && holding(&harness, &ended) > 0);
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    assert_eq!(holding(&harness, &ended), 0);
    assert!(holding(&harness, &bindings) > 0);
    harness.clock.advance(DAY * 30);
    harness.running.upkeep().await.unwrap();
    assert_eq!(holding(&harness, &bindings), 0);
    harness.finish().await;
}

#[tokio::test]
async fn what_a_run_would_erase_is_told_before_and_kept_under_hold() {
    let edit = |config: String| {
        let config = config.replace("[binding]", "[binding]\nretention = \"30d\"");
        format!("{config}[privacy]\naudit_retention = \"20d\"\nstatistics_retention = \"20d\"\n")
    };
    let harness = Harness::with(edit).await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    call(&harness, Method::POST, "/v1/subjects/bob/hold", Some(&json!({ "reason": "case 4711" }))).await;
    harness.running.upkeep().await.unwrap();
    let nothing = json!({ "bindings": 0, "statistics": 0, "audit": 0, "log_files": 0, "security_log_files": 0, "log_keys": 0, "backups": 0 });
    assert_eq!(run(&harness, true).await["erased"], nothing);

    harness.clock.advance(DAY * 31);
    let told = run(&harness, true).await;
    assert_eq!((&told["dry_run"], &told["erased"]["bindings"], &told["held"]), (&true.into(), &1.into(), &1.into()));
    // Of both carriers, enrolments, sign-ins, and that the handset was nobody's before.
    assert_eq!(told["erased"]["statistics"], 6);
    assert!(told["erased"]["audit"].as_u64().unwrap() > 3, "{told}");
    assert_eq!(run(&harness, true).await, told, "nothing was erased");
    assert_eq!(bindings(&harness).await.len(), 2);

    let done = run(&harness, false).await;
    for name in ["bindings", "statistics"] {
        assert_eq!(done["erased"][name], told["erased"][name], "{name}");
    }
    // What was the last entry before the run is not any more.
    assert_eq!(done["erased"]["audit"].as_u64(), told["erased"]["audit"].as_u64().map(|count| count + 1));
    assert_eq!(done["held"], told["held"]);
    assert_eq!(bindings(&harness).await[0]["account"], "bob");
    assert_eq!(run(&harness, false).await["erased"], nothing);
    let report = call(&harness, Method::GET, "/v1/retention", None).await;
    let kind = |name: &str| report["kinds"].as_array().unwrap().iter().find(|kind| kind["kind"] == name).unwrap();
    assert_eq!((&kind("bindings")["due"], &kind("bindings")["held"]), (&0.into(), &1.into()));
    assert_eq!(kind("bindings")["retention"], "until the handset was not used for 30 days");
    assert_eq!((&kind("statistics")["retention"], &kind("audit")["retention"]), (&"20 days".into(), &"20 days".into()));
    let last = &report["last_run"];
    assert_eq!((&last["ok"], &last["at"]), (&true.into(), &"2026-12-25T00:00:00Z".into()));
    assert!(last["detail"].as_str().unwrap().starts_with("erased: bindings 1, statistics 6"), "{last}");
    let page = call(&harness, Method::GET, "/v1/audit?after=0&limit=1000", None).await;
    let runs: Vec<_> = page["entries"].as_array().unwrap().iter().filter(|e| e["action"] == "retention-run").collect();
    assert_eq!(runs.len(), 4, "each that erases is begun and done; a look leaves nothing");
    harness.finish().await;
}

#[tokio::test]
async fn a_clock_that_was_set_erases_nothing_for_whomever() {
    let harness = Harness::with(|config| config.replace("[binding]", "[binding]\nretention = \"30d\"")).await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    harness.running.upkeep().await.unwrap();
    harness.clock.set(crate::harness::START.plus(DAY * 60));
    let done = run(&harness, false).await;
    assert_eq!((&done["erased"]["bindings"], &done["clock_doubted"]), (&0.into(), &true.into()));
    let report = call(&harness, Method::GET, "/v1/retention", None).await;
    assert_eq!((&report["clock_doubted"], &report["last_run"]["ok"]), (&true.into(), &false.into()));
    assert_eq!(bindings(&harness).await.len(), 1);
    harness.clock.advance(DAY);
    assert_eq!(run(&harness, false).await["erased"]["bindings"], 1, "it is believed after a day");
    harness.finish().await;
}

#[tokio::test]
async fn the_policy_is_what_the_configuration_says() {
    let authority = Authority::new();
    let roles = "privacy = [\"cert:officer\"]\nauditor = [\"cert:dora\"]\noperator = [\"cert:op\"]";
    let harness = Harness::with(|config| authority.listening(&config, roles, "")).await;
    let person = |name: &str| authority.client(Some(&authority.issue(name)));
    for (name, method, path, expected) in [
        ("dora", "GET", "/v1/policy", 200),
        ("officer", "GET", "/v1/policy?lang=ja", 200),
        ("op", "GET", "/v1/policy", 403),
        ("dora", "GET", "/v1/retention", 200),
        ("op", "GET", "/v1/retention", 403),
        ("dora", "POST", "/v1/retention/run", 403),
        ("op", "POST", "/v1/retention/run", 403),
        ("officer", "POST", "/v1/retention/run", 200),
        ("officer", "GET", "/v1/policy?lang=fr", 400),
    ] {
        let answered = call_with(&harness, &person(name), method, path, &[], "").await.unwrap();
        assert_eq!(answered.0, expected, "{name} {method} {path}: {}", answered.1);
    }
    let policy = call(&harness, Method::GET, "/v1/policy", None).await;
    assert_eq!(policy["settings"]["binding.retention"], "400d");
    assert_eq!(policy["settings"]["carriers.docomo.header"], "x-dcmguid");
    assert_eq!(
        policy["purposes"]["sessions"]["retention"],
        "until you sign out, 30 minutes without use, or 12 hours at most; gone from the file within a day after that"
    );
    let refused =
        harness.admin().call_with::<Value>(Method::POST, "/v1/retention/run", Some(&json!({ "dry": true }))).await;
    assert!(matches!(&refused, Err(ClientError::Refused(detail)) if detail.reason == "body-malformed"), "{refused:?}");
    harness.finish().await;
}
