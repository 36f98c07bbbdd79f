//! What stands in the audit trail once somebody did something, and that nothing is done which could not stand there.

use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::admin::ClientError;
use sekisho::audit::{Expected, Verdict, Verifier};
use sekisho::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::{Carrier, Harness};

async fn call(harness: &Harness, method: Method, path: &str) -> Result<Value, ClientError> {
    harness.admin().call(method, path).await
}

/// The entries behind `after`.
async fn entries(harness: &Harness, after: u64) -> Vec<Value> {
    let page = call(harness, Method::GET, &format!("/v1/audit?after={after}&limit=1000")).await.unwrap();
    page["entries"].as_array().unwrap().clone()
}

async fn head(harness: &Harness) -> u64 {
    call(harness, Method::GET, "/v1/audit?limit=1").await.unwrap()["head"]["seq"].as_u64().unwrap()
}

/// Action, actor, outcome, object, before, after, count: what an entry says beside its place.
fn said(entry: &Value) -> Value {
    let names = ["action", "actor", "outcome", "object", "before", "after", "count"];
    names.iter().map(|name| entry[name].clone()).filter(|value| !value.is_null()).collect()
}

async fn exported(harness: &Harness, target: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let take = |bytes: &[u8]| {
        text.extend_from_slice(bytes);
        true
    };
    harness.admin().stream(target, take).await.unwrap();
    text
}

fn verdict(text: &[u8]) -> Verdict {
    let mut verifier = Verifier::new(Expected::default());
    let lines = text.strip_suffix(b"\n").expect("a line feed at the end").split(|byte| *byte == b'\n');
    lines.for_each(|line| verifier.line(line));
    verifier.finish()
}

fn own() -> String {
    format!("uid:{}", rustix::process::geteuid().as_raw())
}

#[tokio::test]
async fn every_verb_stands_in_the_trail_with_who_what_and_how_many() {
    let harness = Harness::start().await;
    let me = own();
    let last = head(&harness).await;
    let mut handset = harness.signed_in(Carrier::PrivateApn, "1", "alice").await;
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    let listed = call(&harness, Method::GET, "/v1/bindings").await.unwrap();
    let binding = listed["bindings"][0]["id"].as_str().unwrap().to_owned();
    let listed = call(&harness, Method::GET, "/v1/sessions").await.unwrap();
    let session = listed["sessions"][0]["id"].as_str().unwrap().to_owned();
    call(&harness, Method::DELETE, &format!("/v1/sessions/{session}")).await.unwrap();
    handset.cookies.clear();
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
    for (method, path) in [
        (Method::DELETE, "/v1/accounts/alice/sessions"),
        (Method::POST, "/v1/accounts/alice/suspend"),
        (Method::POST, "/v1/accounts/alice/resume"),
        (Method::DELETE, &*format!("/v1/bindings/{binding}")),
    ] {
        call(&harness, method, path).await.unwrap();
    }
    let line = r#"{"account":"robert","carrier":"private-apn","identifier":"QxCnry00000000000000002"}"#;
    let lines = futures_util::stream::iter([Ok(bytes::Bytes::from(line))]);
    harness.admin().import(lines, |_| ()).await.unwrap();

    let entries = entries(&harness, last).await;
    let expected = [
        json!(["code-issue", me, "begun"]),
        json!(["code-issue", me, "done"]),
        json!(["binding-enrol", "handset", "done", binding]),
        json!(["sessions-end", me, "begun", session]),
        json!(["sessions-end", me, "done", session, 1, 0]),
        json!(["sessions-end", me, "begun"]),
        json!(["sessions-end", me, "done", 1, 0]),
        json!(["account-suspend", me, "begun"]),
        json!(["account-suspend", me, "done", 0, 0]),
        json!(["account-resume", me, "begun"]),
        json!(["account-resume", me, "done"]),
        json!(["binding-revoke", me, "begun", binding]),
        json!(["binding-revoke", me, "done", binding, 1]),
        json!(["bindings-import", me, "begun"]),
        json!(["bindings-import", me, "done", 1]),
    ];
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), expected);
    let alice = &entries[0]["account"];
    assert!(alice.as_str().unwrap().starts_with("p_"));
    for entry in &entries[..13] {
        assert_eq!(&entry["account"], alice, "{entry}");
        assert_eq!((&entry["key"], &entry["time"]), (&json!("u1"), &json!("2026-11-24T00:00:00Z")));
        let begun = entry["of"].as_u64().map(|of| entries.iter().find(|other| other["seq"] == of).unwrap());
        assert_eq!(begun.map(|begun| begun["action"].clone()), entry["of"].as_u64().map(|_| entry["action"].clone()));
    }
    assert!(entries[13]["account"].is_null(), "an import is of many");

    let told = call(&harness, Method::GET, "/v1/audit/pseudonyms/alice").await.unwrap();
    assert_eq!(told, json!({"account": "alice", "pseudonym": alice}));
    let text = exported(&harness, "/v1/audit/export").await;
    assert!(String::from_utf8_lossy(&text).contains(r#""action":"pseudonym-read""#));
    for name in ["alice", "robert", "docomo"] {
        assert!(!String::from_utf8_lossy(&text).contains(name), "{name} is in the trail");
    }
    let found = verdict(&text);
    assert!(found.ok() && found.unverifiable == 0 && found.entries == head(&harness).await, "{found:?}");
    harness.finish().await;
}

#[tokio::test]
async fn what_changes_nothing_leaves_no_entry() {
    let harness = Harness::start().await;
    harness.code("alice").await;
    let before = head(&harness).await;
    let nobody = "00000000-0000-4000-8000-000000000000";
    for (method, path) in [
        (Method::POST, "/v1/accounts/nobody/suspend".to_owned()),
        (Method::POST, "/v1/accounts/nobody/resume".to_owned()),
        (Method::DELETE, "/v1/accounts/nobody/sessions".to_owned()),
        (Method::POST, "/v1/accounts/09012345678/codes".to_owned()),
        (Method::DELETE, format!("/v1/bindings/{nobody}")),
        (Method::DELETE, format!("/v1/sessions/{nobody}")),
        (Method::GET, "/v1/audit/pseudonyms/nobody".to_owned()),
    ] {
        let refused = call(&harness, method, &path).await;
        assert!(matches!(refused, Err(ClientError::Refused(_))), "{path}");
    }
    let empty = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"rubbish\n"))]);
    harness.admin().import(empty, |_| ()).await.unwrap();
    let mut stranger = harness.handset(Carrier::Docomo, "s");
    assert_eq!(stranger.enrol("/", "0000-0000-0000").await.status, StatusCode::FORBIDDEN);
    assert_eq!(head(&harness).await, before);
    harness.finish_without(&["09012345678"]).await;
}

#[tokio::test]
async fn nothing_is_done_that_cannot_stand_in_the_trail() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let before = call(&harness, Method::GET, "/v1/accounts").await.unwrap();
    // Somebody takes the end of the trail from under the gateway; that it was sealed is no hindrance.
    harness.running.upkeep().await.unwrap();
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    let cut = "PRAGMA foreign_keys = OFF; DROP TRIGGER audit_entries_remain; \
               DELETE FROM audit_entries WHERE seq = (SELECT max(seq) FROM audit_entries)";
    store.execute_batch(cut).unwrap();
    for (method, path) in [
        (Method::POST, "/v1/accounts/bob/codes"),
        (Method::POST, "/v1/accounts/alice/codes"),
        (Method::POST, "/v1/accounts/alice/suspend"),
        (Method::DELETE, "/v1/accounts/alice/sessions"),
    ] {
        let Err(ClientError::Refused(refused)) = call(&harness, method, path).await else { panic!("{path}") };
        assert_eq!(refused.reason, "store-unavailable", "{path}");
    }
    let line = r#"{"account":"bob","carrier":"private-apn","identifier":"QxCnry00000000000000002"}"#;
    let lines = futures_util::stream::iter([Ok(bytes::Bytes::from(line))]);
    let refused = harness.admin().import(lines, |_| ()).await;
    assert!(matches!(refused, Err(ClientError::Refused(detail)) if detail.reason == "store-unavailable"));
    assert_eq!(call(&harness, Method::GET, "/v1/accounts").await.unwrap(), before);
    assert_eq!(handset.get("/").await.status, StatusCode::OK, "who is signed in stays so");
    let found = call(&harness, Method::GET, "/v1/audit/verify").await.unwrap();
    assert_eq!((&found["ok"], found["first_bad"].is_u64()), (&json!(false), true), "{found}");
    harness.finish().await;
}

#[tokio::test]
async fn what_a_person_does_and_what_is_done_with_a_stolen_session_stand_in_the_trail() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut second = harness.signed_in(Carrier::PrivateApn, "2", "alice").await;
    let mut victim = harness.signed_in(Carrier::SoftBank, "v", "carol").await;
    let last = head(&harness).await;

    let me = handset.get("/_sekisho/me").await;
    let token = me.hidden("t");
    let listed = call(&harness, Method::GET, "/v1/accounts/alice/bindings").await.unwrap();
    let binding = listed["bindings"][1]["id"].as_str().unwrap().to_owned();
    // It has just signed in, so it is not asked once more.
    let removed = handset.post("/_sekisho/me/remove", &[("t", &token), ("binding", &binding)]).await;
    assert_eq!(removed.status, StatusCode::OK, "{}", removed.text());
    assert_eq!(second.get("/").await.status, StatusCode::UNAUTHORIZED);
    let token = removed.hidden("t");
    handset.post("/_sekisho/me/sessions/end", &[("t", &token), ("session", "all")]).await;

    let session = call(&harness, Method::GET, "/v1/accounts/carol/sessions").await.unwrap();
    let session = session["sessions"][0]["id"].as_str().unwrap().to_owned();
    victim.source = "127.0.1.9".parse().unwrap();
    assert_eq!(victim.get_json("/").await.reason(), "session-device-mismatch");
    assert_ne!(victim.get("/").await.status, StatusCode::OK);

    let entries = entries(&harness, last).await;
    let expected = [
        json!(["binding-revoke", "handset", "begun", binding]),
        json!(["binding-revoke", "handset", "done", binding, 1]),
        json!(["sessions-end", "handset", "begun"]),
        json!(["sessions-end", "handset", "done", 1]),
        json!(["session-device-mismatch", "handset", "done", session]),
    ];
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), expected);
    assert!(entries[0]["account"].is_string() && entries[4]["account"] != entries[0]["account"]);
    harness.finish().await;
}

#[tokio::test]
async fn the_verbs_of_a_rotation_stand_in_the_trail() {
    let harness = Harness::start().await;
    harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let (last, me) = (head(&harness).await, own());
    let start = json!({"purpose": "binding", "paused": true, "reason": "yearly"});
    harness.admin().call_with::<Value>(Method::POST, "/v1/rotations", Some(&start)).await.unwrap();
    call(&harness, Method::POST, "/v1/rotations/r1/abort").await.unwrap();
    for verb in ["pause", "rescan", "resume"] {
        assert!(call(&harness, Method::POST, &format!("/v1/rotations/r7/{verb}")).await.is_err(), "there is no r7");
    }
    assert!(call(&harness, Method::POST, "/v1/rotations/r1/resume").await.is_err(), "it was given up");
    let entries = entries(&harness, last).await;
    let expected = [
        json!(["rotation-start", me, "begun", "binding"]),
        json!(["rotation-start", me, "done", "binding", 1, 1]),
        json!(["rotation-abort", me, "begun", "r1"]),
        json!(["rotation-abort", me, "done", "r1", 0, 0]),
        json!(["rotation-resume", me, "begun", "r1"]),
        json!(["rotation-resume", me, "refused", "r1"]),
    ];
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), expected);
    assert_eq!(entries[0]["reason"], "yearly");
    harness.finish().await;
}

#[tokio::test]
async fn starts_stops_retention_and_clocks_stand_in_the_trail_and_it_is_sealed_by_itself() {
    // No key is due in all that time.
    let long = ["assertion", "session", "audit"].map(|purpose| format!("{purpose}_rotate = \"3640d\"\n")).concat();
    let harness = Harness::with(|config| config.replace("[keys]\n", &format!("[keys]\n{long}"))).await;
    let first: Vec<_> = entries(&harness, 0).await.iter().map(said).collect();
    let fingerprint = first[0][3].as_str().unwrap().to_owned();
    assert_eq!(
        first,
        [
            json!(["audit-key-introduce", "gateway", "done", fingerprint]),
            json!(["gateway-start", "gateway", "done", env!("CARGO_PKG_VERSION")]),
            json!(["key-set-open", "gateway", "done", "a1 u1 k1 s1"]),
        ]
    );
    harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let unverifiable = async |harness: &Harness| {
        let found = call(harness, Method::GET, "/v1/audit/verify").await.unwrap();
        assert_eq!(found["ok"], true, "{found}");
        found["unverifiable"].as_u64().unwrap()
    };
    assert_eq!(unverifiable(&harness).await, 0, "who asks has it sealed first");
    let last = head(&harness).await;

    let harness = harness.restart().await;
    harness.running.upkeep().await.unwrap();
    harness.clock.set(harness.clock.now().minus(Duration::from_mins(5)));
    harness.running.upkeep().await.unwrap();
    harness.clock.advance(Duration::from_hours(24 * 402));
    harness.running.upkeep().await.unwrap();
    let said: Vec<_> = entries(&harness, last).await.iter().map(said).collect();
    assert_eq!(
        said,
        [
            json!(["gateway-stop", "gateway", "done"]),
            json!(["gateway-start", "gateway", "done", env!("CARGO_PKG_VERSION")]),
            json!(["key-set-open", "gateway", "done", "a1 u1 k1 s1"]),
            json!(["clock-set-back", "gateway", "done", 300]),
            json!(["bindings-erase", "retention", "done", 1]),
        ]
    );
    assert_eq!(unverifiable(&harness).await, 0);
    harness.finish().await;
}

#[tokio::test]
async fn the_trail_is_read_in_parts() {
    let harness = Harness::start().await;
    for _ in 0..3 {
        harness.code("alice").await;
    }
    let numbers = async |query: &str| {
        let page = call(&harness, Method::GET, &format!("/v1/audit{query}")).await.unwrap();
        assert_eq!(page["head"]["seq"], 9, "{page}");
        page["entries"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers("").await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(numbers("?limit=2").await, [8, 9]);
    assert_eq!(numbers("?after=2&limit=3").await, [3, 4, 5]);
    assert_eq!(numbers("?after=9").await, [0_u64; 0]);
    assert_eq!(numbers("?after=99").await, [0_u64; 0]);
    for query in ["?after=x", "?limit=0", "?limit=1001", "?after=1&after=2", "?other=1"] {
        for path in ["/v1/audit", "/v1/audit/export"] {
            let refused = call(&harness, Method::GET, &format!("{path}{query}")).await;
            assert!(
                matches!(refused, Err(ClientError::Refused(ref detail)) if detail.reason == "parameter-invalid"),
                "{path}{query}: {refused:?}"
            );
        }
    }
    for after in 0..9 {
        let found = verdict(&exported(&harness, &format!("/v1/audit/export?after={after}")).await);
        assert!(found.ok() && found.entries == 9 - after && found.unverifiable == 0, "behind {after}: {found:?}");
    }
    let refused = call(&harness, Method::GET, "/v1/audit/export?after=10").await;
    assert!(matches!(refused, Err(ClientError::Refused(detail)) if detail.reason == "not-found"));
    harness.finish().await;
}
