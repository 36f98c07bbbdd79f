//! A binding key has leaked: who has a PIN signs in by it, and is taken off that key.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Carrier, HOST, Handset, Harness};
use crate::pin::{PIN, WRONG, type_pin, with_pin, with_vault};
use crate::tickets::{PLAIN, PUBLIC, Sides};

async fn harness() -> Harness {
    Harness::with(|config| {
        format!("{}\n[limits]\nnetwork = \"100000/1m\"\nsign_in = \"1000/1m\"\npin = \"3/1h\"\n", with_vault(&config))
    })
    .await
}

async fn compromise(harness: &Harness, key: &str) -> Value {
    let asked = json!({ "reason": "laptop lost" });
    let path = format!("/v1/keys/{key}/compromise");
    harness.admin().call_with(Method::POST, &path, Some(&asked)).await.unwrap()
}

/// The binding key that makes new records.
async fn active(harness: &Harness) -> String {
    let listed: Value = harness.admin().call(Method::GET, "/v1/keys").await.unwrap();
    let mut keys = listed["keys"].as_array().unwrap().iter();
    let active = keys.find(|key| key["purpose"] == "binding" && key["state"] == "active").unwrap();
    active["id"].as_str().unwrap().to_owned()
}

async fn chain(harness: &Harness, account: &str) -> Value {
    let path = format!("/v1/accounts/{account}/bindings");
    harness.admin().call::<Value>(Method::GET, &path).await.unwrap()["bindings"][0]["chain"].clone()
}

/// The page for the PIN that comes instead of a session.
async fn locked(handset: &mut Handset) -> Answer {
    let page = handset.click_sign_in("/vault").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
    assert!(page.text().contains("action=\"/_sekisho/unlock"), "{}", page.text());
    assert!(!handset.has_session());
    page
}

#[tokio::test]
async fn the_right_pin_takes_the_handset_off_the_leaked_key_and_signs_in() {
    let harness = harness().await;
    for (carrier, account) in [(Carrier::Docomo, "alice"), (Carrier::PrivateApn, "bob")] {
        let mut handset = with_pin(&harness, carrier, "a", account).await;
        let key = chain(&harness, account).await[0].as_str().unwrap().to_owned();
        compromise(&harness, &key).await;
        assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED, "its session ended");
        handset.cookies.clear();
        let page = locked(&mut handset).await;
        let wrong = type_pin(&mut handset, &page, WRONG).await;
        assert_eq!(wrong.status, StatusCode::FORBIDDEN);
        assert!(!handset.has_session());
        assert_eq!(type_pin(&mut handset, &page, PIN).await.status, StatusCode::FORBIDDEN, "its form is spent");
        // The key ring moves on while the form is open, as it does when all records are off the leaked key.
        let now = active(&harness).await;
        for verb in ["suspend", "resume"] {
            let path = format!("/v1/keys/{now}/{verb}");
            let _: Value = harness.admin().call(Method::POST, &path).await.unwrap();
        }
        let entered = type_pin(&mut handset, &wrong, PIN).await;
        assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
        assert_eq!(entered.header("location"), Some(&*format!("http://{HOST}/vault")));
        assert_eq!(handset.get("/vault?guid=ON").await.status, StatusCode::OK, "the PIN counts for the route too");
        let now = chain(&harness, account).await;
        assert_eq!(now, json!([active(&harness).await]));
        assert_ne!(now[0], key.as_str());
        handset.cookies.clear();
        assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND, "as ever");
    }
    harness.finish_without(&[PIN]).await;
}

#[tokio::test]
async fn another_leak_while_the_form_is_open_asks_for_the_handset_again() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    compromise(&harness, "k1").await;
    alice.cookies.clear();
    let page = locked(&mut alice).await;
    compromise(&harness, &active(&harness).await).await;
    let again = type_pin(&mut alice, &page, PIN).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED, "{}", again.text());
    assert!(!alice.has_session());
    let page = locked(&mut alice).await;
    assert_eq!(type_pin(&mut alice, &page, PIN).await.status, StatusCode::FOUND);
    assert_eq!(chain(&harness, "alice").await, json!(["k3"]));
    harness.finish().await;
}

#[tokio::test]
async fn without_a_pin_it_takes_a_code_and_so_it_does_for_who_forgot_it() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let mut bob = harness.signed_in(Carrier::SoftBank, "b", "bob").await;
    drop(harness.signed_in(Carrier::Docomo, "b", "bob").await);
    let (backup, gone) = (harness.backup().await, harness.backup().await);
    let gone = format!("/v1/backups/{}", gone["id"].as_str().unwrap());
    let _: Value = harness.admin().call(Method::DELETE, &gone).await.unwrap();
    let report = &compromise(&harness, "k1").await["report"];
    let counts = ["bindings", "bindings_with_pin", "bindings_without_pin", "accounts", "sessions_ended"];
    assert_eq!(counts.map(|count| report[count].as_u64().unwrap()), [3, 1, 2, 2, 3], "{report}");
    assert_eq!((&report["key"], &report["reason"]), (&"k1".into(), &"laptop lost".into()));
    assert_eq!(report["backups"].as_array().unwrap().len(), 1, "one that nobody opens concerns nobody: {report}");
    assert_eq!((&report["backups"][0]["id"], &report["backups"][0]["bindings"]), (&backup["id"], &3.into()));
    assert_eq!(report["approvals"], json!({ "needs": 1, "approvers": [] }));
    let due =
        json!({ "preliminary_by": "2026-11-29", "final_by": "2026-12-24", "final_by_if_malicious": "2027-01-23" });
    assert_eq!(report["notices"], due);
    let destroy = format!("sekisho backups destroy {}", backup["id"].as_str().unwrap());
    assert!(report["next"].as_array().unwrap().contains(&destroy.into()), "{report}");
    // Backups from after the wrap hold nothing that the fresh key had no part in.
    let later = compromise(&harness, &active(&harness).await).await["report"].clone();
    assert_eq!((&later["backups"], &later["key"]), (&json!([]), &"k2".into()), "{later}");
    let page = bob.click_sign_in("/").await;
    assert!(page.text().contains("action=\"/_sekisho/enrol"), "{}", page.text());
    let stranger = harness.handset(Carrier::SoftBank, "z").click_sign_in("/").await;
    let same = |page: &Answer| page.text().replace(&page.hidden("t"), "TOKEN");
    assert_eq!(same(&page), same(&stranger), "it hears what an unknown handset hears");
    let page = locked(&mut alice).await;
    let form = alice.get(&page.link("/_sekisho/login?")).await;
    let entered = alice.type_code(&form, &harness.code("alice").await).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(chain(&harness, "alice").await, json!(["k3"]));
    harness.finish().await;
}

#[tokio::test]
async fn guesses_are_few_and_another_handset_has_no_use_for_the_form() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    compromise(&harness, "k1").await;
    alice.cookies.clear();
    let page = locked(&mut alice).await;
    let mut other = harness.handset(Carrier::SoftBank, "z");
    let refused = type_pin(&mut other, &page, PIN).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(!other.has_session());
    let page = locked(&mut alice).await;
    let identifier = alice.identifier.take();
    assert_eq!(
        type_pin(&mut alice, &page, PIN).await.status,
        StatusCode::FORBIDDEN,
        "nor has a form without a handset"
    );
    alice.identifier = identifier;
    let mut elsewhere = harness.handset(Carrier::Docomo, "a");
    let page = locked(&mut alice).await;
    assert_eq!(type_pin(&mut elsewhere, &page, PIN).await.status, StatusCode::FORBIDDEN);
    for _ in 0..3 {
        let page = locked(&mut alice).await;
        assert_eq!(type_pin(&mut alice, &page, WRONG).await.status, StatusCode::FORBIDDEN);
    }
    let page = locked(&mut alice).await;
    let limited = type_pin(&mut alice, &page, PIN).await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(limited.header("retry-after").is_some());
    assert_eq!(chain(&harness, "alice").await.as_array().unwrap()[0], "k1");
    // Revoked while its form was open.
    harness.clock.advance(std::time::Duration::from_hours(2));
    let page = locked(&mut alice).await;
    let bindings: Value = harness.admin().call(Method::GET, "/v1/accounts/alice/bindings").await.unwrap();
    let id = bindings["bindings"][0]["id"].as_str().unwrap();
    let _: Value = harness.admin().call(Method::DELETE, &format!("/v1/bindings/{id}")).await.unwrap();
    let gone = type_pin(&mut alice, &page, PIN).await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
    assert!(!alice.has_session());
    harness.finish().await;
}

#[tokio::test]
async fn under_an_https_public_url_it_is_typed_over_tls() {
    let harness = Harness::with(|config| with_vault(&config.replace(PLAIN, PUBLIC))).await;
    let mut sides = Sides::of(&harness, Carrier::SoftBank, "a");
    let ticket = sides.enrol(&harness, "/_sekisho/me/pin", "alice").await;
    assert_eq!(sides.tls.get(&ticket).await.status, StatusCode::FOUND);
    let page = sides.tls.get("/_sekisho/me/pin").await;
    let set = sides.tls.post("/_sekisho/me/pin", &[("t", &page.hidden("t")), ("pin", PIN), ("again", PIN)]).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
    compromise(&harness, "k1").await;
    sides.tls.cookies.clear();
    let ticket = sides.ticket().await;
    let page = sides.tls.get(&ticket).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(!sides.tls.has_session());
    let entered = type_pin(&mut sides.tls, &page, PIN).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert!(entered.sets_session());
    assert_eq!(sides.tls.get("/vault").await.status, StatusCode::OK);
    assert_eq!(chain(&harness, "alice").await, json!(["k2"]));
    harness.finish_without(&[PIN]).await;
}
