//! What the privacy officer does for a person: export, erasure, correction, stop, hold.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::admin::ClientError;
use sekisho::privacy::CERTIFICATE;
use sekisho::receipt::verify_sealed;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::admin_tls::{Authority, call_with};
use crate::harness::{Answer, Carrier, Handset, Harness, contains, files};
use crate::upgrade;
use crate::wire::PlayedUpstream;

async fn call(harness: &Harness, method: Method, path: &str) -> Result<Value, ClientError> {
    harness.admin().call(method, path).await
}

async fn asked(harness: &Harness, method: Method, path: &str, document: &Value) -> Result<Value, ClientError> {
    harness.admin().call_with(method, path, Some(document)).await
}

fn reason(refused: Result<Value, ClientError>) -> String {
    match refused {
        Err(ClientError::Refused(detail)) => detail.reason,
        other => panic!("{other:?}"),
    }
}

async fn export(harness: &Harness, account: &str) -> Value {
    call(harness, Method::GET, &format!("/v1/subjects/{account}/export")).await.unwrap()
}

fn item<'v>(document: &'v Value, kind: &str) -> &'v Value {
    document["items"].as_array().unwrap().iter().find(|item| item["kind"] == kind).unwrap()
}

async fn binding_of(harness: &Harness, account: &str) -> String {
    let listed = call(harness, Method::GET, &format!("/v1/accounts/{account}/bindings")).await.unwrap();
    listed["bindings"][0]["id"].as_str().unwrap().to_owned()
}

async fn entries(harness: &Harness) -> Vec<Value> {
    let page = call(harness, Method::GET, "/v1/audit?limit=1000&after=0").await.unwrap();
    page["entries"].as_array().unwrap().clone()
}

/// Files of the store in which `text` stands.
fn found_in(harness: &Harness, text: &str) -> Vec<String> {
    let of_store = files(harness.folder.path());
    let holds = |file: &std::path::PathBuf| match std::fs::read(file) {
        Ok(content) => contains(&content, text.as_bytes()),
        // A document of the ledger that got its name meanwhile.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    of_store.iter().filter(|file| holds(file)).map(|file| file.display().to_string()).collect()
}

#[tokio::test]
async fn an_export_has_everything_with_purpose_and_retention_and_no_digest() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    assert_eq!(alice.get("/?guid=ON").await.status, StatusCode::OK);
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    harness.code("alice").await;
    let id = binding_of(&harness, "alice").await;
    let label = json!({ "label": "work <b>" });
    let corrected = asked(&harness, Method::PUT, &format!("/v1/subjects/alice/bindings/{id}/label"), &label).await;
    assert_eq!(corrected.unwrap()["label"], "work <b>");

    let document = export(&harness, "alice").await;
    assert_eq!((&document["account"], &document["language"]), (&"alice".into(), &"en".into()));
    for item in document["items"].as_array().unwrap() {
        for member in ["kind", "what", "purpose", "retention", "legal"] {
            assert!(item[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {item}");
        }
    }
    let bindings = &item(&document, "bindings")["records"];
    let expected = json!([{ "id": id, "carrier": "docomo", "chain": ["k1"], "bound_on": "2026-11-24",
                            "last_used_on": "2026-11-24", "label": "work <b>", "notice_told": {
                                "id": 1, "revision": "2026-11-23", "in_force_from": "2026-11-24T00:00:00Z" } }]);
    assert_eq!(*bindings, expected);
    assert!(item(&document, "bindings")["retention"].as_str().unwrap().contains("400 days"));
    for (kind, count) in [("account", 1), ("labels", 1), ("sessions", 1), ("codes", 1), ("subjects", 1), ("holds", 0)] {
        assert_eq!(item(&document, kind)["records"].as_array().unwrap().len(), count, "{kind}");
    }
    let audit = item(&document, "audit")["records"].as_array().unwrap();
    assert!(audit[0]["pseudonym"].as_str().unwrap().starts_with("p_"));
    let actions: Vec<_> = audit.iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert!(actions.contains(&"code-issue") && actions.contains(&"subject-export"), "{actions:?}");
    let text = document.to_string();
    for absent in ["bob", "digest", "token", "selector", "continuity", "uid:"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    let japanese = call(&harness, Method::GET, "/v1/subjects/alice/export?lang=ja").await.unwrap();
    assert_eq!(item(&japanese, "bindings")["what"], "登録した携帯電話");
    for query in ["lang=fr", "lang=", "lang=en&lang=en", "to=x"] {
        let refused = call(&harness, Method::GET, &format!("/v1/subjects/alice/export?{query}")).await;
        assert_eq!(reason(refused), "parameter-invalid", "{query}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn an_erasure_takes_everything_at_once_and_says_so_under_seal() {
    let harness = Harness::start().await;
    let name = "erase-me-Zq7";
    let mut first = harness.signed_in(Carrier::Docomo, "a", name).await;
    let mut second = harness.signed_in(Carrier::SoftBank, "b", name).await;
    assert_eq!(first.get("/?guid=ON").await.status, StatusCode::OK);
    harness.code(name).await;
    let mut other = harness.signed_in(Carrier::PrivateApn, "1", "bob").await;
    assert!(!found_in(&harness, name).is_empty());

    let erased = call(&harness, Method::DELETE, &format!("/v1/subjects/{name}")).await.unwrap();
    assert_eq!(erased["erased"], json!({ "bindings": 2, "sessions": 2, "codes": 1 }));
    let certificate = serde_json::to_vec(&erased["certificate"]).unwrap();
    let judged = verify_sealed(&certificate, CERTIFICATE, &[]);
    assert!(judged.ok, "{:?}", judged.problems);
    let certificate = &erased["certificate"];
    assert_eq!((&certificate["account"], &certificate["erased"]["bindings"]), (&name.into(), &2.into()));
    assert_eq!((&certificate["scrubbed"], &certificate["copies"]), (&true.into(), &json!([])));
    let in_store: Vec<_> = found_in(&harness, name).into_iter().filter(|file| file.contains("store.db")).collect();
    assert!(in_store.is_empty(), "{in_store:?}");

    for handset in [&mut first, &mut second] {
        assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
        handset.cookies.clear();
        assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FORBIDDEN, "it is nobody's");
    }
    assert_eq!(other.get("/").await.status, StatusCode::OK);
    for path in [format!("/v1/accounts/{name}"), format!("/v1/subjects/{name}/export")] {
        assert_eq!(reason(call(&harness, Method::GET, &path).await), "not-found");
    }
    let again = call(&harness, Method::DELETE, &format!("/v1/subjects/{name}")).await;
    assert_eq!(reason(again), "not-found", "erased twice");
    let held = asked(&harness, Method::POST, &format!("/v1/subjects/{name}/hold"), &json!({"reason": "x"})).await;
    assert_eq!(reason(held), "not-found", "a hold on an erased account");
    let listed = call(&harness, Method::GET, "/v1/erasures").await.unwrap();
    assert_eq!((&listed["erasures"][0]["bindings"], &listed["erasures"][0]["unfinished"]), (&2.into(), &false.into()));

    // The trail says that it happened, to a pseudonym; none came to be since.
    let all = entries(&harness).await;
    let about: Vec<_> = all.iter().filter(|entry| entry["action"] == "subject-erase").collect();
    assert_eq!(about.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect::<Vec<_>>(), ["begun", "done"]);
    assert!(about[0]["account"].is_string() && about[0]["account"] == about[1]["account"]);
    assert!(!json!(all).to_string().contains(name));
    let pseudonym = call(&harness, Method::GET, &format!("/v1/audit/pseudonyms/{name}")).await;
    assert_eq!(reason(pseudonym), "not-found");

    // The same id may begin anew, as somebody else.
    drop(harness.signed_in(Carrier::Docomo, "a", name).await);
    let harness = harness.restart().await;
    assert_eq!(call(&harness, Method::GET, &format!("/v1/accounts/{name}")).await.unwrap()["bindings"], 1);
    harness.finish().await;
}

/// Presses both buttons on the person's own page, in English.
async fn erase_own(handset: &mut Handset) -> Answer {
    handset.extra.push(("Accept-Language".to_owned(), "en".to_owned()));
    let t = handset.get("/_sekisho/me").await.hidden("t");
    let done = handset.post("/_sekisho/me/erase?guid=ON", &[("t", &t), ("sure", "1")]).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    done
}

#[tokio::test]
async fn the_certificate_names_the_backups_that_still_hold_what_was_erased() {
    let harness = Harness::with(|config| format!("{config}\n[backup]\nretention = \"3d\"\n")).await;
    let before = harness.backup().await;
    harness.clock.advance(Duration::from_hours(50));
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    let (destroyed, with_both) = (harness.backup().await, harness.backup().await);
    let path = format!("/v1/backups/{}", destroyed["id"].as_str().unwrap());
    call(&harness, Method::DELETE, &path).await.unwrap();

    let erased = call(&harness, Method::DELETE, "/v1/subjects/bob").await.unwrap();
    let certificate = &erased["certificate"];
    assert!(verify_sealed(&serde_json::to_vec(certificate).unwrap(), CERTIFICATE, &[]).ok, "{certificate}");
    let named = certificate["backups"].as_array().unwrap();
    assert_eq!(named.len(), 1, "neither {before} nor one that nobody opens: {certificate}");
    assert_eq!((&named[0]["id"], &named[0]["taken_at"]), (&with_both["id"], &with_both["taken_at"]));
    assert_eq!(named[0]["until"], "2026-11-29", "the last day by backup.retention");

    // The page of the handset's own says so too; where nothing is left it says nothing.
    let text = "Encrypted backups hold it";
    let page = erase_own(&mut alice).await;
    assert!(page.text().contains(text), "{}", page.text());
    let states = async || {
        let listed = call(&harness, Method::GET, "/v1/backups").await.unwrap();
        let state = |backup: &Value| {
            let all = listed["backups"].as_array().unwrap();
            all.iter().find(|entry| entry["id"] == backup["id"]).unwrap()["state"].as_str().unwrap().to_owned()
        };
        [&before, &with_both].map(state)
    };
    // The first one's last day is the 27th, the other's the 29th.
    harness.clock.advance(Duration::from_hours(46));
    harness.running.upkeep().await.unwrap();
    assert_eq!(states().await, ["destroyed", "whole"]);
    let carol = &mut harness.signed_in(Carrier::Docomo, "c", "carol").await;
    harness.clock.advance(Duration::from_hours(47));
    harness.running.upkeep().await.unwrap();
    assert_eq!(states().await, ["destroyed", "whole"], "on its last day it opens");
    harness.clock.advance(Duration::from_hours(1));
    harness.running.upkeep().await.unwrap();
    assert_eq!(states().await, ["destroyed", "destroyed"]);
    let ended = entries(&harness).await;
    let by_age = ended.iter().filter(|entry| entry["action"] == "backup-destroy" && entry["actor"] == "retention");
    assert_eq!(by_age.count(), 4, "each begun and done: {ended:?}");
    carol.cookies.clear();
    assert_eq!(carol.click_sign_in("/").await.status, StatusCode::FOUND);
    assert!(!erase_own(carol).await.text().contains(text));
    harness.finish().await;
}

#[tokio::test]
async fn an_erasure_closes_open_connections() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "session", "")).await;
    let alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let (client, server) = upgrade::open(&harness, &upstream, &alice).await;
    call(&harness, Method::DELETE, "/v1/subjects/alice").await.unwrap();
    upgrade::assert_both_end(client, server).await;
    harness.finish().await;
}

#[tokio::test]
async fn of_an_account_that_is_not_there_nothing_is_done_and_nothing_is_left() {
    let harness = Harness::start().await;
    let id = "00000000-0000-4000-8000-000000000000";
    let why = json!({ "reason": "x" });
    for (method, path, document) in [
        (Method::GET, "/v1/subjects/absentee/export".to_owned(), None),
        (Method::DELETE, "/v1/subjects/absentee".to_owned(), None),
        (Method::POST, "/v1/subjects/absentee/stop".to_owned(), None),
        (Method::POST, "/v1/subjects/absentee/resume".to_owned(), None),
        (Method::POST, "/v1/subjects/absentee/hold".to_owned(), Some(&why)),
        (Method::POST, "/v1/subjects/absentee/release".to_owned(), Some(&why)),
        (Method::PUT, format!("/v1/subjects/absentee/bindings/{id}/label"), Some(&json!({ "label": "x" }))),
    ] {
        let refused = harness.admin().call_with(method.clone(), &path, document).await;
        assert_eq!(reason(refused), "not-found", "{method} {path}");
    }
    for account in ["09012345678", "a b", "a@b"] {
        let path = format!("/v1/subjects/{}", account.replace(' ', "%20"));
        assert_eq!(reason(call(&harness, Method::DELETE, &path).await), "account-invalid", "{account}");
    }
    assert!(entries(&harness).await.iter().all(|entry| entry["account"].is_null()), "no pseudonym came to be");
    assert!(found_in(&harness, "absentee").is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn a_label_is_of_the_accounts_own_handset_and_no_number() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    let id = binding_of(&harness, "alice").await;
    let put = async |account: &str, id: &str, label: Value| {
        asked(&harness, Method::PUT, &format!("/v1/subjects/{account}/bindings/{id}/label"), &label).await
    };
    assert_eq!(reason(put("bob", &id, json!({"label": "x"})).await), "not-found");
    assert_eq!(reason(put("alice", "x", json!({"label": "x"})).await), "not-found");
    for label in ["090-1234-5678", "０９０１２３４５６７８", "a@b.jp", "", "a\u{202e}b", "x".repeat(21).as_str()]
    {
        assert_eq!(reason(put("alice", &id, json!({ "label": label })).await), "label-invalid", "{label}");
    }
    assert_eq!(put("alice", &id, json!({"label": " 仕事　用 "})).await.unwrap()["label"], "仕事 用");
    assert_eq!(put("alice", &id, json!({"label": null})).await.unwrap()["label"], Value::Null);
    assert!(item(&export(&harness, "alice").await, "labels")["records"].as_array().unwrap().is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn a_stop_keeps_out_and_erases_nothing() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let stopped = call(&harness, Method::POST, "/v1/subjects/alice/stop").await.unwrap();
    assert_eq!(
        (&stopped["state"], &stopped["bindings"], &stopped["sessions"]),
        (&"suspended".into(), &1.into(), &0.into())
    );
    assert_eq!(alice.get("/").await.status, StatusCode::UNAUTHORIZED);
    alice.cookies.clear();
    assert_eq!(alice.click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    assert_eq!(call(&harness, Method::POST, "/v1/subjects/alice/resume").await.unwrap()["state"], "active");
    alice.cookies.clear();
    assert_eq!(alice.click_sign_in("/").await.status, StatusCode::FOUND);
    harness.finish().await;
}

#[tokio::test]
async fn what_is_held_is_not_erased_by_anybody_nor_by_age() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    let why = json!({ "reason": "case 4711" });
    for bad in [json!({}), json!({"reason": ""}), json!({"reason": "a\nb"}), json!({"reason": "x".repeat(257)})] {
        let refused = asked(&harness, Method::POST, "/v1/subjects/alice/hold", &bad).await;
        assert_eq!(reason(refused), "reason-invalid", "{bad}");
    }
    assert_eq!(
        reason(asked(&harness, Method::POST, "/v1/subjects/alice/release", &json!({})).await),
        "subject-not-held"
    );
    let held = asked(&harness, Method::POST, "/v1/subjects/alice/hold", &why).await.unwrap();
    assert_eq!(held["hold"]["reason"], "case 4711");
    assert_eq!(reason(asked(&harness, Method::POST, "/v1/subjects/alice/hold", &why).await), "subject-held");
    assert_eq!(reason(call(&harness, Method::DELETE, "/v1/subjects/alice").await), "subject-held");
    let id = binding_of(&harness, "alice").await;
    assert_eq!(reason(call(&harness, Method::DELETE, &format!("/v1/bindings/{id}")).await), "subject-held");
    let document = export(&harness, "alice").await;
    assert_eq!(item(&document, "holds")["records"][0]["reason"], "case 4711");
    assert_eq!(document["held"], true);

    // Time really passes, and the clock is believed.
    harness.clock.advance(Duration::from_hours(24 * 402));
    harness.running.upkeep().await.unwrap();
    assert_eq!(binding_of(&harness, "alice").await, id);
    let bobs = call(&harness, Method::GET, "/v1/accounts/bob/bindings").await.unwrap();
    assert!(bobs["bindings"].as_array().unwrap().is_empty(), "nobody holds bob's");

    let harness = harness.restart().await;
    let released = asked(&harness, Method::POST, "/v1/subjects/alice/release", &json!({})).await.unwrap();
    assert_eq!(released, json!({ "account": "alice", "hold": null }));
    assert_eq!(call(&harness, Method::DELETE, "/v1/subjects/alice").await.unwrap()["erased"]["bindings"], 1);
    harness.finish().await;
}

#[tokio::test]
async fn a_hold_takes_as_many_people_as_the_end_of_a_key() {
    let authority = Authority::new();
    let roles = "security = [\"cert:alice\", \"cert:bob\"]\nprivacy = [\"cert:officer\"]\noperator = [\"cert:op\"]\n\
                 auditor = [\"cert:dora\"]";
    let harness = Harness::with(|config| {
        let config = config.replace("socket = \"admin.sock\"", "socket = \"admin.sock\"\napprovals = 2");
        authority.listening(&config, roles, "")
    })
    .await;
    drop(harness.signed_in(Carrier::Docomo, "a", "erin").await);
    let person = |name: &str| authority.client(Some(&authority.issue(name)));
    let (officer, alice, op) = (person("officer"), person("alice"), person("op"));
    let post = async |who: &Arc<rustls::ClientConfig>, path: &str, document: &'static str| {
        call_with(&harness, who, "POST", path, &[], document).await.unwrap()
    };
    // Each role does its own.
    for who in [&alice, &op, &person("dora")] {
        for (method, path) in [
            ("GET", "/v1/subjects/erin/export"),
            ("DELETE", "/v1/subjects/erin"),
            ("POST", "/v1/subjects/erin/stop"),
            ("GET", "/v1/erasures"),
        ] {
            let refused = call_with(&harness, who, method, path, &[], "").await.unwrap();
            assert_eq!((refused.0, &refused.1["error"]["reason"]), (403, &"role-required".into()), "{method} {path}");
        }
    }
    let waits = post(&officer, "/v1/subjects/erin/hold", r#"{"reason":"court"}"#).await;
    assert_eq!((waits.0, &waits.1["approval"]["given"]), (202, &json!(["officer"])));
    let id = waits.1["approval"]["id"].as_str().unwrap().to_owned();
    let erase = call_with(&harness, &officer, "DELETE", "/v1/subjects/erin", &[], "").await.unwrap();
    assert_eq!((erase.0, &erase.1["error"]["reason"]), (409, &"subject-held".into()), "nothing goes meanwhile");
    assert_eq!(post(&officer, &format!("/v1/approvals/{id}"), "").await.1["error"]["reason"], "already-approved");
    assert_eq!(post(&op, &format!("/v1/approvals/{id}"), "").await.0, 403);
    let done = post(&alice, &format!("/v1/approvals/{id}"), "").await;
    assert_eq!((done.0, &done.1["approval"]["state"]), (200, &"done".into()), "{done:?}");
    let released = post(&officer, "/v1/subjects/erin/release", "").await;
    assert_eq!(released.0, 202);
    let id = released.1["approval"]["id"].as_str().unwrap().to_owned();
    assert_eq!(post(&person("bob"), &format!("/v1/approvals/{id}"), "").await.0, 200);
    let erased = call_with(&harness, &officer, "DELETE", "/v1/subjects/erin", &[], "").await.unwrap();
    assert_eq!((erased.0, &erased.1["erased"]["bindings"]), (200, &1.into()));
    let listed = call_with(&harness, &officer, "GET", "/v1/approvals", &[], "").await.unwrap().1;
    assert!(!listed.to_string().contains("erin"), "{listed}");
    assert!(!json!(entries(&harness).await).to_string().contains("erin"));
    harness.finish().await;
}

#[tokio::test]
async fn an_erasure_and_sign_ins_at_once_leave_nobody_signed_in() {
    let harness =
        Harness::with(|config| format!("{config}[limits]\nsign_in = \"1000/1m\"\nnetwork = \"10000/1m\"\n")).await;
    for round in 0..5 {
        let account = format!("racer-{round}");
        let mut handset = harness.signed_in(Carrier::SoftBank, "r", &account).await;
        let mut racing = JoinSet::new();
        for _ in 0..6 {
            let mut handset = Handset::new(harness.address(), Carrier::SoftBank, "r");
            racing.spawn(async move {
                let page = handset.get("/").await;
                let status = handset.get(&page.link("/_sekisho/login?")).await.status;
                (handset, status)
            });
        }
        let erased = call(&harness, Method::DELETE, &format!("/v1/subjects/{account}")).await.unwrap();
        assert_eq!(erased["erased"]["bindings"], 1);
        for (mut racer, status) in racing.join_all().await {
            assert!(matches!(status, StatusCode::FOUND | StatusCode::FORBIDDEN), "{status}");
            assert_eq!(racer.get("/").await.status, StatusCode::UNAUTHORIZED, "round {round}");
        }
        assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
        let sessions = call(&harness, Method::GET, "/v1/sessions").await.unwrap();
        assert_eq!(sessions["sessions"], json!([]), "round {round}");
    }
    harness.running.upkeep().await.unwrap();
    assert!(found_in(&harness, "racer-").iter().all(|file| !file.contains("store.db")));
    harness.finish().await;
}

#[tokio::test]
async fn erasures_at_once_are_one() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let admin = harness.admin();
        all.spawn(async move { admin.call::<Value>(Method::DELETE, "/v1/subjects/alice").await });
    }
    let outcomes = all.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(call(&harness, Method::GET, "/v1/erasures").await.unwrap()["erasures"].as_array().unwrap().len(), 1);
    harness.finish().await;
}

#[tokio::test]
async fn an_erasure_during_a_rotation_counts_as_purged() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::Docomo, "a", "alice").await);
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    let start = json!({"purpose": "binding", "reason": "yearly"});
    asked(&harness, Method::POST, "/v1/rotations", &start).await.unwrap();
    call(&harness, Method::DELETE, "/v1/subjects/alice").await.unwrap();
    let mut bob = harness.handset(Carrier::SoftBank, "b");
    assert_eq!(bob.click_sign_in("/").await.status, StatusCode::FOUND);
    harness.clock.advance(Duration::from_mins(1));
    harness.running.rotations().advance(sekisho::clock::Clock::now(&*harness.clock), true).await.unwrap();
    let rotation = call(&harness, Method::GET, "/v1/rotations/r1").await.unwrap();
    let shown = &rotation["rotation"];
    assert_eq!(
        (&shown["total"], &shown["purged"], &shown["remaining"], &shown["state"]),
        (&2.into(), &1.into(), &0.into(), &"done".into()),
        "{rotation}"
    );
    let receipt = call(&harness, Method::GET, "/v1/rotations/r1/receipt").await.unwrap();
    assert!(!receipt.to_string().contains("alice"));
    harness.finish().await;
}

/// What a process that died left of an erasure is made good before anybody is served.
#[tokio::test]
async fn an_erasure_that_was_broken_off_is_finished_at_the_next_start() {
    let harness = Harness::start().await;
    let name = "half-erased-Q9";
    let mut handset = harness.signed_in(Carrier::Docomo, "a", name).await;
    let cookies = handset.cookies.clone();
    let harness = harness
        .restart_after(async |path| {
            use sekisho::store::SubjectStore as _;
            let now = sekisho::clock::Timestamp::from_unix_millis(1_795_478_400_000);
            let entropy = sekisho::entropy::SystemEntropy::default();
            let (store, _) = sekisho::store::EmbeddedStore::open(path, now, &entropy).unwrap();
            let account = sekisho::binding::AccountId::parse(name).unwrap();
            store.erase(&account, None, now).await.unwrap();
            store.close().await.unwrap();
        })
        .await;
    assert!(found_in(&harness, name).iter().all(|file| !file.contains("store.db")));
    let listed = call(&harness, Method::GET, "/v1/erasures").await.unwrap();
    assert_eq!(listed["erasures"][0]["unfinished"], false);
    handset.gateway = harness.address();
    handset.cookies = cookies;
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
    let last = entries(&harness).await;
    let said = last.iter().rev().find(|entry| entry["action"] == "subject-erase").unwrap();
    assert_eq!((&said["actor"], &said["object"]), (&"gateway".into(), &"e1".into()));
    harness.finish().await;
}
