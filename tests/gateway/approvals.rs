//! What takes more than one person: who counts, once each, and that it happens once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::Method;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sekisho::admin::ClientError;
use sekisho::clock::Timestamp;
use sekisho::entropy::SystemEntropy;
use sekisho::store::{
    ApprovalStore as _, ApprovedAction, EmbeddedStore, KeyChange, KeyDates, KeyPurpose, KeyRecord, KeyState,
    KeyStore as _, NewApproval,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::admin_tls::{Authority, call, call_with};
use crate::harness::{Harness, START};

/// A key that nothing needs any more.
const KEY: &str = "s2";

/// People with certificates, and a gateway that wants two of them.
struct Council {
    authority: Authority,
    harness: Harness,
}

type Person = Arc<rustls::ClientConfig>;

impl Council {
    async fn of(approvals: u32) -> Self {
        let authority = Authority::new();
        let names = ["alice", "alice-phone", "bob", "carol"].map(|name| format!("\"cert:{name}\"")).join(", ");
        let roles = format!(
            "security = [{names}, \"uid:0\"]\nauditor = [\"cert:dora\"]\n\
             [admin.people]\nalice = [\"cert:alice\", \"cert:alice-phone\"]"
        );
        let harness = Harness::with(|config| {
            let config =
                config.replace("socket = \"admin.sock\"", &format!("socket = \"admin.sock\"\napprovals = {approvals}"));
            authority.listening(&config, &roles, "")
        });
        let harness = harness.await.restart_after(async |store| plant(store).await).await;
        Self { authority, harness }
    }

    fn person(&self, name: &str) -> Person {
        self.authority.client(Some(&self.authority.issue(name)))
    }

    async fn destroy(&self, who: &Person) -> (u16, Value) {
        call(&self.harness, who, "DELETE", &format!("/v1/keys/{KEY}"), &[]).await.unwrap()
    }

    async fn answer(&self, who: &Person, id: &str, document: &'static str) -> (u16, Value) {
        call_with(&self.harness, who, "POST", &format!("/v1/approvals/{id}"), &[], document).await.unwrap()
    }

    async fn approve(&self, who: &Person, id: &str) -> (u16, Value) {
        self.answer(who, id, "").await
    }

    async fn latest(&self) -> Value {
        let listed = call(&self.harness, &self.person("dora"), "GET", "/v1/approvals", &[]).await.unwrap().1;
        listed["approvals"][0].clone()
    }
}

fn reason((status, document): &(u16, Value)) -> (u16, &str) {
    (*status, document["error"]["reason"].as_str().unwrap_or("none"))
}

fn state((status, document): &(u16, Value)) -> (u16, &str) {
    (*status, document["approval"]["state"].as_str().unwrap_or("none"))
}

/// Opens the store that no gateway has.
fn open(store: &Path) -> EmbeddedStore {
    EmbeddedStore::open(store, START, &SystemEntropy::default()).unwrap().0
}

/// Puts a drained session key in, wrapped as the gateway wraps.
async fn plant(store: &Path) {
    let store = open(store);
    let kek = base64::engine::general_purpose::STANDARD.decode("q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=").unwrap();
    let mut place = Vec::new();
    for part in [b"sekisho/wrapped-key/v1", &store.store_id().await.unwrap()[..], b"session", KEY.as_bytes()] {
        place.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
        place.extend_from_slice(part);
    }
    let nonce = [7; 12];
    let mut sealed = vec![9; 32];
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &kek).unwrap())
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed)
        .unwrap();
    let key = KeyRecord {
        id: KEY.into(),
        purpose: KeyPurpose::Session,
        state: KeyState::Drained,
        suspended: false,
        compromised: false,
        wrapped: [&nonce[..], &sealed].concat(),
        commitment: [8; 32],
        public: None,
        created_at: START,
        dates: KeyDates { drained_at: Some(START.minus(Duration::from_hours(7 * 24))), ..KeyDates::default() },
    };
    let revision = store.keys().await.unwrap().revision;
    store.change(revision, vec![KeyChange::New(key)]).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_key_is_destroyed_once_two_different_people_agreed() {
    let council = Council::of(2).await;
    let [alice, phone, bob] = ["alice", "alice-phone", "bob"].map(|name| council.person(name));
    let path = format!("/v1/keys/{KEY}");
    let asked =
        call_with(&council.harness, &alice, "DELETE", &path, &[], "{\"reason\":\"rotated in May\"}").await.unwrap();
    assert_eq!(
        asked,
        (
            202,
            json!({"approval": {
                "id": "p1", "action": "destroy-key", "object": KEY, "reason": "rotated in May", "state": "open", "needs": 2,
                "given": ["alice"], "revision": 1, "asked_by": "cert:alice", "asked_at": "2026-11-24T00:00:00Z",
                "expires_at": "2026-11-25T00:00:00Z",
            }})
        )
    );
    assert_eq!(council.destroy(&alice).await, asked, "asking again is no second voice");
    assert_eq!(council.destroy(&bob).await, asked, "nor is another's asking");
    assert_eq!(council.latest().await, asked.1["approval"]);

    // Who is not another person.
    for person in [&alice, &phone] {
        assert_eq!(reason(&council.approve(person, "p1").await), (409, "already-approved"));
    }
    let socket = council.harness.admin();
    let by_own_uid = socket.call::<Value>(Method::POST, "/v1/approvals/p1").await;
    assert!(matches!(&by_own_uid, Err(ClientError::Refused(why)) if why.reason == "no-approver"), "{by_own_uid:?}");
    let by_own_uid = socket.call::<Value>(Method::DELETE, &path).await.unwrap();
    assert_eq!(by_own_uid, asked.1, "root may ask, and is nobody's voice");
    assert_eq!(reason(&council.approve(&council.person("dora"), "p1").await), (403, "role-required"));
    assert_eq!(council.latest().await, asked.1["approval"], "nothing of that counted");

    let done = council.approve(&bob, "p1").await;
    assert_eq!(state(&done), (200, "done"));
    let approval = &done.1["approval"];
    assert_eq!(approval["given"], json!(["alice", "bob"]));
    assert_eq!((&approval["ended_by"], &approval["ended_at"]), (&json!("cert:bob"), &json!("2026-11-24T00:00:00Z")));
    let again = council.destroy(&alice).await;
    assert_eq!(reason(&again), (409, "key-state"));
    assert!(again.1["error"]["message"].as_str().unwrap().contains("s2 is destroyed"), "{again:?}");
    assert_eq!(reason(&council.approve(&bob, "p1").await), (409, "approval-ended"));
    // The tombstone is no obstacle to the next start.
    council.harness.restart().await.finish().await;
}

#[tokio::test]
async fn who_asked_who_agreed_and_what_came_of_it_stand_in_the_audit_trail() {
    let council = Council::of(2).await;
    let [alice, bob, dora] = ["alice", "bob", "dora"].map(|name| council.person(name));
    let trail =
        async |query: &str| call(&council.harness, &dora, "GET", &format!("/v1/audit?{query}"), &[]).await.unwrap().1;
    let before = trail("limit=1").await["head"]["seq"].clone();
    let path = format!("/v1/keys/{KEY}");
    call_with(&council.harness, &alice, "DELETE", &path, &[], "{\"reason\":\"rotated in May\"}").await.unwrap();
    assert_eq!(state(&council.answer(&bob, "p1", "{\"decision\":\"deny\"}").await), (200, "denied"));
    assert_eq!(council.destroy(&alice).await.0, 202);
    assert_eq!(reason(&council.approve(&alice, "p2").await), (409, "already-approved"));
    assert_eq!(state(&council.approve(&bob, "p2").await), (200, "done"));
    assert_eq!(reason(&council.destroy(&alice).await), (409, "key-state"), "of what cannot be done there is no entry");

    let page = trail(&format!("after={before}&limit=99")).await;
    let said: Vec<_> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let words =
                ["action", "actor", "object", "outcome", "reason"].map(|name| entry[name].as_str().unwrap_or("-"));
            words.join(" ")
        })
        .collect();
    assert_eq!(
        said,
        [
            "approval-ask cert:alice destroy-key s2 begun rotated in May",
            "approval-ask cert:alice destroy-key s2 done rotated in May",
            "approval-deny cert:bob p1 begun -",
            "approval-deny cert:bob p1 done -",
            "approval-ask cert:alice destroy-key s2 begun -",
            "approval-ask cert:alice destroy-key s2 done -",
            "approval-give cert:alice p2 begun -",
            "approval-give cert:alice p2 refused -",
            "approval-give cert:bob p2 begun -",
            "approval-give cert:bob p2 done -",
            "key-destroy cert:bob s2 begun -",
            "key-destroy cert:bob s2 done -",
        ]
    );
    council.harness.finish().await;
}

#[tokio::test]
async fn of_people_who_agree_at_once_one_carries_it_out() {
    let council = Council::of(2).await;
    assert_eq!(council.destroy(&council.person("alice")).await.0, 202);
    let mut tasks = JoinSet::new();
    let council = Arc::new(council);
    for person in ["bob", "carol", "bob", "carol", "bob", "carol"] {
        let (council, person) = (Arc::clone(&council), council.person(person));
        tasks.spawn(async move { council.approve(&person, "p1").await });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().any(|answer| state(answer) == (200, "done")), "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.0 != 200) {
        // Whoever was between the last voice and its effect finds it ended, or the key gone.
        assert!(matches!(reason(answer), (409, "approval-ended" | "already-approved" | "key-state")), "{answer:?}");
    }
    let council = Arc::into_inner(council).unwrap();
    let harness = council.harness.restart_after(async |store| {
        let store = open(store);
        let keys = store.keys().await.unwrap();
        assert_eq!(keys.revision, 2, "planted, destroyed");
        let key = keys.keys.iter().find(|key| key.id == KEY).unwrap();
        assert_eq!((key.state, key.wrapped.len()), (KeyState::Destroyed, 0));
        store.close().await.unwrap();
    });
    harness.await.finish().await;
}

#[tokio::test]
async fn what_was_denied_or_came_too_late_does_not_happen() {
    let council = Council::of(2).await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| council.person(name));
    for malformed in ["{\"decision\":\"perhaps\"}", "{\"decision\":\"deny\",\"more\":1}", "[]", "{\"decision\":null,"] {
        assert_eq!(reason(&council.answer(&bob, "p1", malformed).await), (400, "body-malformed"), "{malformed}");
    }
    for nothing in ["p1", "p0", "P1", "1", "k1", "%FF", "p1%2F"] {
        assert_eq!(reason(&council.approve(&bob, nothing).await), (404, "not-found"), "{nothing}");
    }
    council.destroy(&alice).await;
    assert_eq!(state(&council.answer(&bob, "p1", "{\"decision\":\"deny\"}").await), (200, "denied"));
    for document in ["", "{\"decision\":\"deny\"}"] {
        assert_eq!(reason(&council.answer(&carol, "p1", document).await), (409, "approval-ended"));
    }
    assert_eq!(council.destroy(&alice).await.1["approval"]["id"], "p2");
    council.harness.clock.advance(Duration::from_hours(24));
    assert_eq!(council.latest().await["state"], "expired");
    assert_eq!(reason(&council.approve(&bob, "p2").await), (409, "approval-ended"));
    let third = council.destroy(&alice).await;
    assert_eq!((state(&third), &third.1["approval"]["id"]), ((202, "open"), &json!("p3")));
    assert_eq!(state(&council.approve(&bob, "p3").await), (200, "done"));
    council.harness.finish().await;
}

#[tokio::test]
async fn what_was_agreed_to_is_about_the_keys_as_they_were() {
    let council = Council::of(2).await;
    let [alice, bob] = ["alice", "bob"].map(|name| council.person(name));
    let path = format!("/v1/keys/{KEY}");
    let matching = async |who: &Person, method: &str, path: &str, value: &str| {
        let answer = call(&council.harness, who, method, path, &[("If-Match", value)]).await.unwrap();
        (answer.0, answer.1["error"]["reason"].as_str().unwrap_or("none").to_owned())
    };
    for (value, expected) in [
        ("\"0\"", (412, "revision-stale")),
        ("W/\"1\"", (412, "revision-stale")),
        ("1", (400, "if-match-invalid")),
        ("\"1\", \"2\"", (400, "if-match-invalid")),
    ] {
        let (status, reason) = matching(&alice, "DELETE", &path, value).await;
        assert_eq!((status, reason.as_str()), expected, "{value}");
    }
    assert_eq!(matching(&alice, "DELETE", &path, "\"1\"").await.0, 202);
    assert_eq!(matching(&bob, "POST", "/v1/approvals/p1", "\"2\"").await, (412, "revision-stale".to_owned()));
    assert_eq!(council.latest().await["given"], json!(["alice"]));

    let Council { authority, harness } = council;
    let harness = harness.restart_after(async |store| {
        let store = open(store);
        store.change(1, vec![KeyChange::Compromise { id: KEY.into() }]).await.unwrap();
        store.close().await.unwrap();
    });
    let council = Council { authority, harness: harness.await };
    assert_eq!(reason(&council.approve(&bob, "p1").await), (412, "revision-stale"));
    assert_eq!(council.latest().await["state"], "expired");
    assert_eq!(reason(&council.approve(&bob, "p1").await), (409, "approval-ended"));
    council.harness.finish().await;
}

/// As a kill right after the last voice leaves it: agreed to, not carried out.
async fn agreed(store: &Path) {
    let store = open(store);
    let revision = store.keys().await.unwrap().revision;
    let asked = store.ask(NewApproval {
        action: ApprovedAction::DestroyKey,
        object: KEY.into(),
        reason: String::new(),
        asked_by: "cert:alice".into(),
        approver: Some("person:alice".into()),
        needs: 2,
        revision,
        at: START,
        expires_at: Timestamp::from_unix_millis(START.unix_millis() + 60_000),
    });
    assert_eq!(asked.await.unwrap().id, "p1");
    store.approve("p1", "cert:bob".into(), START).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_was_agreed_to_before_a_crash_can_be_carried_out_after_it() {
    for by_asking_again in [true, false] {
        let Council { authority, harness } = Council::of(2).await;
        let council = Council { authority, harness: harness.restart_after(async |store| agreed(store).await).await };
        assert_eq!(council.latest().await["given"], json!(["alice", "bob"]));
        if by_asking_again {
            let (status, key) = council.destroy(&council.person("carol")).await;
            assert_eq!((status, &key["id"], &key["state"]), (200, &json!(KEY), &json!("destroyed")));
        } else {
            assert_eq!(state(&council.approve(&council.person("bob"), "p1").await), (200, "done"));
        }
        assert_eq!(council.latest().await["state"], "done");
        assert_eq!(reason(&council.destroy(&council.person("alice")).await), (409, "key-state"));
        council.harness.finish().await;
    }
}

#[tokio::test]
async fn who_agreed_last_hears_what_is_not_done_everywhere_yet() {
    let Council { authority, harness } = Council::of(2).await;
    let council = Council { authority, harness: harness.restart_after(async |store| agreed(store).await).await };
    let ledger = council.harness.folder.path().join("store.db.ledger");
    let elsewhere = ledger.with_extension("elsewhere");
    std::fs::rename(&ledger, &elsewhere).unwrap();
    std::fs::write(&ledger, "in the way").unwrap();
    let (status, carried_out) = council.approve(&council.person("bob"), "p1").await;
    assert_eq!((status, &carried_out["approval"]["state"]), (200, &json!("done")));
    assert!(carried_out["warnings"][0].as_str().unwrap().starts_with("restore no backup"), "{carried_out}");
    std::fs::remove_file(&ledger).unwrap();
    std::fs::rename(&elsewhere, &ledger).unwrap();
    council.harness.finish().await;
}

#[tokio::test]
async fn what_was_carried_out_is_not_called_failed_where_the_approval_cannot_be_read_back() {
    let Council { authority, harness } = Council::of(2).await;
    let council = Council { authority, harness: harness.restart_after(async |store| agreed(store).await).await };
    let store = rusqlite::Connection::open(council.harness.folder.path().join("store.db")).unwrap();
    let broken =
        "CREATE TRIGGER broken AFTER UPDATE OF state ON approvals BEGIN UPDATE approvals SET action = 'none'; END";
    store.execute_batch(broken).unwrap();
    let (status, carried_out) = council.approve(&council.person("bob"), "p1").await;
    store.execute_batch("DROP TRIGGER broken; UPDATE approvals SET action = 'destroy-key'").unwrap();
    assert_eq!((status, &carried_out["approval"]), (200, &council.latest().await));
    assert_eq!(carried_out["approval"]["ended_by"], "cert:bob");
    council.harness.finish().await;
}

#[tokio::test]
async fn where_more_must_agree_today_what_was_agreed_to_waits_for_them() {
    let Council { authority, harness } = Council::of(3).await;
    let council = Council { authority, harness: harness.restart_after(async |store| agreed(store).await).await };
    assert_eq!(state(&council.destroy(&council.person("alice")).await), (202, "open"));
    assert_eq!(reason(&council.approve(&council.person("bob"), "p1").await), (409, "already-approved"));
    assert_eq!(state(&council.approve(&council.person("carol"), "p1").await), (200, "done"));
    council.harness.finish().await;
}

#[tokio::test]
async fn where_one_is_enough_it_happens_at_once() {
    let council = Council::of(1).await;
    for (id, expected) in [("k1", (409, "key-state")), ("k9", (404, "not-found")), ("%FF", (404, "not-found"))] {
        let path = format!("/v1/keys/{id}");
        let answer = call(&council.harness, &council.person("alice"), "DELETE", &path, &[]).await.unwrap();
        assert_eq!(reason(&answer), expected, "{id}");
    }
    let key = council.harness.admin().call::<Value>(Method::DELETE, &format!("/v1/keys/{KEY}")).await.unwrap();
    let created_at = "2026-11-24T00:00:00Z";
    let expected = json!({
        "id": KEY, "purpose": "session", "state": "destroyed", "suspended": false, "compromised": false,
        "created_at": created_at, "drained_at": "2026-11-17T00:00:00Z", "destroyed_at": created_at,
        "commitment": "08".repeat(32),
    });
    assert_eq!(key, expected);
    let listed = call(&council.harness, &council.person("dora"), "GET", "/v1/approvals", &[]).await.unwrap();
    assert_eq!(listed, (200, json!({"approvals": []})));
    council.harness.finish().await;
}
