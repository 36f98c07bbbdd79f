//! Self-service: a person sees what is kept of their own, and ends it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Answer, Carrier, HOST, Handset, Harness};
use crate::logs;

/// The ids of the handsets on the page, in its order.
fn handsets(page: &Answer) -> Vec<String> {
    let text = page.text();
    text.split("name=\"binding\" value=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

async fn bindings_of(harness: &Harness, account: &str) -> Vec<String> {
    let listed: Value = harness.admin().call(Method::GET, &format!("/v1/accounts/{account}/bindings")).await.unwrap();
    listed["bindings"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect()
}

/// Presses the button beside a handset.
async fn ask(handset: &mut Handset, page: &Answer, binding: &str) -> Answer {
    handset.post("/_sekisho/me/remove", &[("t", &page.hidden("t")), ("binding", binding)]).await
}

/// Sends the form of the page that asks.
async fn confirm(handset: &mut Handset, asked: &Answer) -> Answer {
    let action = asked.attribute("action", "/_sekisho/me/remove");
    let fields = ["t", "binding", "sure"].map(|name| (name, asked.hidden(name)));
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    handset.post(&action, &fields).await
}

/// Both, if the page asks.
async fn remove(handset: &mut Handset, page: &Answer, binding: &str) -> Answer {
    let asked = ask(handset, page, binding).await;
    if asked.text().contains("name=\"sure\"") { confirm(handset, &asked).await } else { asked }
}

async fn assert_signed_out(handset: &mut Handset) {
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_page_shows_what_is_kept_and_nothing_of_others() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    drop(harness.signed_in(Carrier::SoftBank, "b", "alice").await);
    drop(harness.signed_in(Carrier::SoftBank, "c", "bob").await);
    let page = alice.get("/_sekisho/me").await;
    assert_eq!((page.status, page.header("cache-control")), (StatusCode::OK, Some("no-store")));
    let text = page.text();
    for shown in ["alice", "docomo", "SoftBank", "2026-11-24", "400"] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    assert!(!text.contains("bob"));
    assert_eq!(handsets(&page), bindings_of(&harness, "alice").await);
    let mut stranger = harness.handset(Carrier::Docomo, "z");
    let refused = stranger.get_json("/_sekisho/me").await;
    assert_eq!((refused.status, refused.reason().as_str()), (StatusCode::UNAUTHORIZED, "sign-in-required"));
    harness.finish().await;
}

#[tokio::test]
async fn another_handset_is_removed_and_its_sessions_end() {
    let harness = Harness::start().await;
    let mut own = harness.signed_in(Carrier::Docomo, "a", "remover").await;
    let mut lost = harness.signed_in(Carrier::SoftBank, "b", "remover").await;
    let page = own.get("/_sekisho/me").await;
    let [kept, gone] = &handsets(&page)[..] else { panic!("{}", page.text()) };
    let done = remove(&mut own, &page, gone).await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(handsets(&done), std::slice::from_ref(kept));
    assert_signed_out(&mut lost).await;
    lost.cookies.clear();
    assert_eq!(lost.click_sign_in("/").await.status, StatusCode::FORBIDDEN, "it is nobody's");
    assert_eq!(own.get("/").await.status, StatusCode::OK);
    let told = logs::security_events_of("remover").into_iter().find(|line| line.contains("binding-removed")).unwrap();
    assert!(told.contains("carrier=\"softbank\"") && told.contains("by=handset"), "{told}");

    // The same form again, and the same handset again: nothing more happens.
    assert_eq!(remove(&mut own, &page, kept).await.status, StatusCode::FORBIDDEN, "the form is spent");
    assert_eq!(remove(&mut own, &done, gone).await.status, StatusCode::OK);
    assert_eq!(bindings_of(&harness, "remover").await, std::slice::from_ref(kept));
    harness.finish().await;
}

#[tokio::test]
async fn this_handset_is_removed_and_is_out() {
    let harness = Harness::start().await;
    let mut own = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let page = own.get("/_sekisho/me").await;
    let kept = own.cookies.clone();
    let done = remove(&mut own, &page, &handsets(&page)[0]).await;
    assert_eq!(done.status, StatusCode::OK);
    assert!(!own.has_session());
    assert!(bindings_of(&harness, "alice").await.is_empty());
    own.cookies = kept;
    assert_signed_out(&mut own).await;
    assert_eq!(own.click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    harness.finish().await;
}

#[tokio::test]
async fn a_handset_goes_once_it_said_so_itself() {
    let harness = Harness::start().await;
    for (carrier, account) in [(Carrier::Docomo, "alice"), (Carrier::SoftBank, "bob"), (Carrier::PrivateApn, "carol")] {
        let mut own = harness.signed_in(carrier, "a", account).await;
        let bound = bindings_of(&harness, account).await;
        // Long after the sign-in, and with the session alone: it is shown what would go, and asked.
        harness.clock.advance(Duration::from_mins(11));
        let identifier = own.identifier.take();
        let page = own.get("/_sekisho/me").await;
        let asked = ask(&mut own, &page, &bound[0]).await;
        assert_eq!(asked.status, StatusCode::OK);
        assert!(
            asked.text().contains("2026-11-24") && asked.link("/_sekisho/me") == "/_sekisho/me",
            "{}",
            asked.text()
        );
        assert_eq!(bindings_of(&harness, account).await, bound);
        // Who has the session and cannot show the identifier removes nothing.
        let fields = [("t", &*asked.hidden("t")), ("binding", &bound[0]), ("sure", "1")];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let kind = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")];
        let refused = own.send(Method::POST, "/_sekisho/me/remove?guid=ON", &kind, Bytes::from(body)).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (403, "missing-identifier"), "{account}");
        assert_eq!(bindings_of(&harness, account).await, bound);
        own.identifier = identifier;
        // That spent the question's token; asked again, and answered by the handset.
        assert_eq!(confirm(&mut own, &asked).await.status, StatusCode::FORBIDDEN);
        let page = own.get("/_sekisho/me").await;
        assert_eq!(remove(&mut own, &page, &bound[0]).await.status, StatusCode::OK);
        assert!(bindings_of(&harness, account).await.is_empty(), "{account}");
        assert!(!own.has_session());
    }
    // Another handset of the carrier with the cookie: its own identifier gives it away.
    let mut owner = harness.signed_in(Carrier::Docomo, "d", "dora").await;
    harness.clock.advance(Duration::from_mins(11));
    let page = owner.get("/_sekisho/me").await;
    let asked = ask(&mut owner, &page, &handsets(&page)[0]).await;
    assert!(asked.text().contains("name=\"sure\""), "{}", asked.text());
    let mut thief = harness.handset(Carrier::Docomo, "z");
    thief.cookies = owner.cookies.clone();
    assert_eq!(confirm(&mut thief, &asked).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bindings_of(&harness, "dora").await.len(), 1);
    assert_signed_out(&mut owner).await;
    harness.finish().await;
}

#[tokio::test]
async fn what_is_somebody_elses_stays() {
    let harness = Harness::start().await;
    let mut mallory = harness.signed_in(Carrier::Docomo, "m", "mallory").await;
    let mut victim = harness.signed_in(Carrier::SoftBank, "v", "victim").await;
    let theirs = bindings_of(&harness, "victim").await;
    let page = mallory.get("/_sekisho/me").await;
    let answer = remove(&mut mallory, &page, &theirs[0]).await;
    assert_eq!(answer.status, StatusCode::OK);
    // The same answer as for what does not exist: ids of others cannot be told from none.
    let page = mallory.get("/_sekisho/me").await;
    let nothing = remove(&mut mallory, &page, "00000000-0000-4000-8000-000000000000").await;
    let without_token = |a: &Answer| a.text().replace(&a.hidden("t"), "TOKEN");
    assert_eq!(without_token(&answer), without_token(&nothing));
    let page = mallory.get("/_sekisho/me").await;
    assert_eq!(remove(&mut mallory, &page, "no id").await.status, StatusCode::BAD_REQUEST);

    let sessions: Value = harness.admin().call(Method::GET, "/v1/accounts/victim/sessions").await.unwrap();
    let theirs_too = sessions["sessions"][0]["id"].as_str().unwrap();
    let page = mallory.get("/_sekisho/me").await;
    let fields = [("t", &*page.hidden("t")), ("session", theirs_too)];
    mallory.post("/_sekisho/me/sessions/end", &fields).await;
    assert_eq!(bindings_of(&harness, "victim").await, theirs);
    assert_eq!(victim.get("/").await.status, StatusCode::OK);
    assert_eq!(mallory.get("/").await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_person_signs_out_everywhere_or_ends_one_session() {
    let harness = Harness::start().await;
    let mut here = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    harness.clock.advance(Duration::from_secs(1));
    let mut there = harness.signed_in(Carrier::SoftBank, "b", "alice").await;
    let mut bob = harness.signed_in(Carrier::SoftBank, "c", "bob").await;

    let listed: Value = harness.admin().call(Method::GET, "/v1/accounts/alice/sessions").await.unwrap();
    let newest = listed["sessions"][1]["id"].as_str().unwrap();
    let page = here.get("/_sekisho/me").await;
    let one = here.post("/_sekisho/me/sessions/end", &[("t", &page.hidden("t")), ("session", newest)]).await;
    assert_eq!(one.status, StatusCode::OK);
    assert_signed_out(&mut there).await;
    assert_eq!(here.get("/").await.status, StatusCode::OK);

    there.cookies.clear();
    assert_eq!(there.click_sign_in("/").await.status, StatusCode::FOUND);
    let kept = here.cookies.clone();
    let all = here.post("/_sekisho/me/sessions/end", &[("t", &one.hidden("t"))]).await;
    assert_eq!(all.status, StatusCode::OK);
    assert!(!here.has_session());
    here.cookies = kept;
    assert_signed_out(&mut here).await;
    assert_signed_out(&mut there).await;
    assert_eq!(bob.get("/").await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_full_page_of_a_session_in_links_still_fits_the_smallest_handset() {
    let harness = Harness::with(|config| {
        let config =
            config.replace("[binding]", "[session]\ntransport = \"url\"\nper_account = 9\n[binding]\nper_account = 9");
        config.replacen("[[upstream]]", "[limits]\nnetwork = \"100000/1m\"\n[[upstream]]", 1)
    })
    .await;
    for (carrier, account) in
        [(Carrier::Docomo, "full-1"), (Carrier::SoftBank, "full-2"), (Carrier::PrivateApn, "full-3")]
    {
        let mut way = String::new();
        for tail in 1..=9 {
            let entered =
                harness.handset(carrier, &tail.to_string()).enrol("/_sekisho/me", &harness.code(account).await).await;
            assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
            way = entered.header("location").unwrap().split_once(HOST).unwrap().1.to_owned();
        }
        assert!(way.contains("_sk="), "{way}");
        let mut last = harness.handset(carrier, "9");
        for language in ["ja", "en"] {
            let page = last.send(Method::GET, &way, &[("Accept-Language", language)], Bytes::new()).await;
            assert_eq!((page.status, handsets(&page).len()), (StatusCode::OK, 3), "{}", page.text());
            assert!(page.body.len() <= 5 * 1024, "{carrier:?} {language}: {} bytes", page.body.len());
        }
    }
    harness.finish().await;
}
