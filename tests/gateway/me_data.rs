//! What a person does with their data on their own handset.

use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::privacy::CERTIFICATE;
use sekisho::receipt::verify_sealed;
use serde_json::{Value, json};

use crate::harness::{Answer, Carrier, Handset, Harness};

async fn call(harness: &Harness, method: Method, path: &str) -> Value {
    harness.admin().call(method, path).await.unwrap()
}

/// Sends the form of `page` that goes to `path`.
async fn press(handset: &mut Handset, page: &Answer, path: &str) -> Answer {
    let action = page.attribute("action", path);
    let t = page.hidden("t");
    let mut fields = vec![("t", t.as_str())];
    if page.text().contains("name=\"sure\"") {
        fields.push(("sure", "1"));
    }
    handset.post(&action, &fields).await
}

async fn state_of(harness: &Harness, account: &str) -> Value {
    call(harness, Method::GET, &format!("/v1/accounts/{account}")).await["state"].clone()
}

async fn is_gone(harness: &Harness, account: &str) -> bool {
    harness.admin().call::<Value>(Method::GET, &format!("/v1/accounts/{account}")).await.is_err()
}

#[tokio::test]
async fn the_copy_is_the_persons_own_and_in_their_language() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    let page = alice.get("/_sekisho/me").await;
    let copy = alice.get(&page.link("/_sekisho/me/export")).await;
    assert_eq!((copy.status, copy.header("cache-control")), (StatusCode::OK, Some("no-store")));
    assert_eq!(copy.header("content-type"), Some("application/json"));
    let document = copy.json();
    assert_eq!((&document["account"], &document["language"]), (&"alice".into(), &"ja".into()));
    assert!(!document.to_string().contains("bob"));
    alice.extra.push(("Accept-Language".to_owned(), "en".to_owned()));
    assert_eq!(alice.get("/_sekisho/me/export").await.json()["language"], "en");
    let mut stranger = harness.handset(Carrier::Docomo, "z");
    assert_eq!(stranger.get_json("/_sekisho/me/export").await.reason(), "sign-in-required");
    assert_eq!(alice.post("/_sekisho/me/export", &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
    harness.finish().await;
}

#[tokio::test]
async fn a_handset_is_named_and_the_name_stays_text() {
    let harness = Harness::start().await;
    for (carrier, account) in [(Carrier::Docomo, "alice"), (Carrier::PrivateApn, "carol")] {
        let mut own = harness.signed_in(carrier, "a", account).await;
        let link = own_link(&mut own, "/_sekisho/me/data").await;
        let page = own.get(&link).await;
        let form = own.get(&page.link("/_sekisho/me/label?binding=")).await;
        let (t, binding) = (form.hidden("t"), form.hidden("binding"));
        // In the charset of its page, as a browser sends it.
        let named = own.post("/_sekisho/me/label", &[("t", &t), ("binding", &binding), ("label", "<b>7 & x")]).await;
        assert_eq!(named.status, StatusCode::OK, "{}", named.text());
        let me = own.get("/_sekisho/me").await.text();
        assert!(me.contains("&#60;b&#62;7 &#38; x") && !me.contains("<b>7"), "{me}");

        let form = own.get(&format!("/_sekisho/me/label?binding={binding}")).await;
        let t = form.hidden("t");
        let refused =
            own.post("/_sekisho/me/label", &[("t", &t), ("binding", &binding), ("label", "090-1234-5678")]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(!refused.text().contains("1234-5678"), "what was refused is not repeated");
        let t = refused.hidden("t");
        let again = own.post("/_sekisho/me/label", &[("t", &t), ("binding", &binding), ("label", " ")]).await;
        assert_eq!(again.status, StatusCode::OK);
        assert!(!own.get("/_sekisho/me").await.text().contains("7 &#38; x"), "it was taken away");
    }
    harness.finish().await;
}

async fn own_link(handset: &mut Handset, prefix: &str) -> String {
    handset.get("/_sekisho/me").await.link(prefix)
}

#[tokio::test]
async fn another_persons_handset_is_not_named() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    drop(harness.signed_in(Carrier::SoftBank, "b", "bob").await);
    let bobs = call(&harness, Method::GET, "/v1/accounts/bob/bindings").await["bindings"][0]["id"].clone();
    let bobs = bobs.as_str().unwrap();
    let form = alice.get(&format!("/_sekisho/me/label?binding={bobs}")).await;
    assert!(!form.text().contains("name=\"label\""), "{}", form.text());
    let t = form.hidden("t");
    let named = alice.post("/_sekisho/me/label", &[("t", &t), ("binding", bobs), ("label", "mine")]).await;
    assert_eq!(named.status, StatusCode::OK);
    let export = call(&harness, Method::GET, "/v1/subjects/bob/export").await;
    assert!(!export.to_string().contains("mine"));
    for id in ["", "x", "00000000-0000-4000-8000-000000000000"] {
        let t = alice.get("/_sekisho/me").await.hidden("t");
        let answer = alice.post("/_sekisho/me/label", &[("t", &t), ("binding", id), ("label", "x")]).await;
        assert!(matches!(answer.status, StatusCode::OK | StatusCode::BAD_REQUEST), "{id}: {}", answer.status);
    }
    harness.finish().await;
}

#[tokio::test]
async fn everything_is_erased_once_the_handset_said_so_twice() {
    let harness = Harness::start().await;
    for (carrier, account) in [(Carrier::Docomo, "alice"), (Carrier::SoftBank, "bob"), (Carrier::PrivateApn, "carol")] {
        let mut own = harness.signed_in(carrier, "a", account).await;
        let mut other = harness.signed_in(carrier, "b", account).await;
        // Long after the sign-in, with the session alone.
        harness.clock.advance(Duration::from_mins(11));
        let identifier = own.identifier.take();
        let page = own.get("/_sekisho/me").await;
        let asked = press(&mut own, &page, "/_sekisho/me/erase").await;
        assert_eq!(asked.status, StatusCode::OK);
        assert!(asked.text().contains("name=\"sure\""), "{}", asked.text());
        assert!(!is_gone(&harness, account).await);
        let refused = press(&mut own, &asked, "/_sekisho/me/erase").await;
        assert_ne!(refused.status, StatusCode::OK, "without its identifier it is nobody in particular");
        assert!(!is_gone(&harness, account).await);

        own.identifier = identifier;
        let page = own.get("/_sekisho/me?guid=ON").await;
        let asked = press(&mut own, &page, "/_sekisho/me/erase").await;
        let done = press(&mut own, &asked, "/_sekisho/me/erase").await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text());
        assert!(!own.has_session() && is_gone(&harness, account).await);
        assert_eq!(other.get("/").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(own.click_sign_in("/").await.status, StatusCode::FORBIDDEN, "it is nobody's");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_script_gets_the_certificate() {
    let harness = Harness::start().await;
    let mut own = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let t = own.get("/_sekisho/me").await.hidden("t");
    own.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    let done = own.post("/_sekisho/me/erase?guid=ON", &[("t", &t), ("sure", "1")]).await.json();
    assert_eq!(done["erased"], true);
    assert!(verify_sealed(&serde_json::to_vec(&done["certificate"]).unwrap(), CERTIFICATE, &[]).ok);
    harness.finish().await;
}

#[tokio::test]
async fn a_stop_is_lifted_by_the_contact_alone() {
    let harness = Harness::start().await;
    let mut own = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let page = own.get("/_sekisho/me/data").await;
    let asked = press(&mut own, &page, "/_sekisho/me/stop").await;
    assert_eq!(state_of(&harness, "alice").await, "active");
    let done = press(&mut own, &asked, "/_sekisho/me/stop").await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(state_of(&harness, "alice").await, "suspended");
    assert!(!own.has_session());
    assert_eq!(own.click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    call(&harness, Method::POST, "/v1/subjects/alice/resume").await;
    assert_eq!(own.click_sign_in("/").await.status, StatusCode::FOUND);
    harness.finish().await;
}

#[tokio::test]
async fn what_is_held_says_so_and_stays() {
    let harness = Harness::start().await;
    let mut own = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let why = json!({ "reason": "case 4711" });
    let _: Value = harness.admin().call_with(Method::POST, "/v1/subjects/alice/hold", Some(&why)).await.unwrap();
    let page = own.get("/_sekisho/me").await;
    let asked = press(&mut own, &page, "/_sekisho/me/erase").await;
    own.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    let refused = press(&mut own, &asked, "/_sekisho/me/erase").await;
    assert_eq!((refused.status, refused.reason().as_str()), (StatusCode::FORBIDDEN, "subject-held"));
    own.extra.clear();
    let page = own.get("/_sekisho/me").await;
    let (t, binding) = (page.hidden("t"), page.hidden("binding"));
    let refused = own.post("/_sekisho/me/remove", &[("t", &t), ("binding", &binding)]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    assert_eq!(own.get("/").await.status, StatusCode::OK, "the session stays as well");
    assert!(own.get("/_sekisho/me/data").await.status == StatusCode::OK);
    assert!(own.get("/_sekisho/me/export").await.text().contains("case 4711"));
    harness.finish().await;
}

#[tokio::test]
async fn forms_are_of_this_session_and_sent_once_from_here() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut bob = harness.signed_in(Carrier::SoftBank, "b", "bob").await;
    let t = bob.get("/_sekisho/me").await.hidden("t");
    for path in ["/_sekisho/me/erase?guid=ON", "/_sekisho/me/stop?guid=ON", "/_sekisho/me/label"] {
        for fields in [vec![("sure", "1")], vec![("t", t.as_str()), ("sure", "1")], vec![("t", "x"), ("sure", "1")]] {
            let refused = alice.post(path, &fields).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path} {fields:?}");
        }
        let own = alice.get("/_sekisho/me").await.hidden("t");
        alice.extra.push(("Origin".to_owned(), "http://evil.example".to_owned()));
        assert_eq!(alice.post(path, &[("t", &own), ("sure", "1")]).await.status, StatusCode::FORBIDDEN, "{path}");
        alice.extra.clear();
        // A link does nothing, even one with a token in it, to a browser that posts.
        let link = format!("{path}{}t={own}&sure=1", if path.contains('?') { '&' } else { '?' });
        alice.get(&link).await;
        assert_eq!(state_of(&harness, "alice").await, "active", "{path}");
    }
    harness.finish().await;
}
