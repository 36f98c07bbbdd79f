//! Adding a handset by a code that the person makes on one of their own.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::forms_by_get::{FIRST, target};
use crate::harness::{Answer, Carrier, HOST, Handset, Harness};
use crate::logs;
use crate::news::signs_in;
use crate::pin::{PIN, WRONG, asked, set_pin, type_pin, with_pin, with_vault};
use crate::url_sessions::{Cookieless, token};

const PAGE: &str = "/_sekisho/me/add";

async fn harness() -> Harness {
    with("10/1h", 3).await
}

async fn with(codes: &str, per_account: u32) -> Harness {
    Harness::with(|config| {
        let limits = "[limits]\nnetwork = \"100000/1m\"\nsign_in = \"1000/1m\"\npin = \"100/1m\"";
        let config = config.replace("[binding]", &format!("[binding]\nper_account = {per_account}"));
        format!("{}\n{limits}\ncode = \"{codes}\"\n", with_vault(&config))
    })
    .await
}

/// Sends the form of the page.
async fn press(handset: &mut Handset, pin: &str) -> Answer {
    let page = handset.get(PAGE).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let (action, t) = (page.attribute("action", PAGE), page.hidden("t"));
    handset.post(&action, &[("t", &t), ("pin", pin)]).await
}

/// The same as a script; the reason of a refusal, or nothing.
async fn pressed(handset: &mut Handset, pin: &str) -> String {
    let page = handset.get(PAGE).await;
    let (action, t) = (page.attribute("action", PAGE), page.hidden("t"));
    handset.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    let answer = handset.post(&action, &[("t", &t), ("pin", pin)]).await;
    handset.extra.pop();
    if answer.status == StatusCode::OK { String::new() } else { answer.reason() }
}

/// The code on a page.
fn code(page: &Answer) -> String {
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let text = page.text();
    let code = text.split("<b>").nth(1).and_then(|rest| rest.split("</b>").next()).unwrap().to_owned();
    assert!(code.len() == 14 && code.split('-').all(|part| part.len() == 4), "{code}");
    code
}

async fn bindings(harness: &Harness, account: &str) -> usize {
    let listed: Value = harness.admin().call(Method::GET, &format!("/v1/accounts/{account}/bindings")).await.unwrap();
    listed["bindings"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_code_adds_a_handset_and_the_others_are_told() {
    let harness = harness().await;
    let mut own = harness.signed_in(Carrier::Docomo, "a", "adder").await;
    let link = own.get("/_sekisho/me").await.link(PAGE);
    assert_eq!(link, PAGE);
    let page = press(&mut own, "").await;
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(page.text().contains(&format!("http://{HOST}")), "{}", page.text());
    let first = code(&page);
    let second = code(&press(&mut own, "").await);
    assert_ne!(first, second);
    let mut other = harness.handset(Carrier::SoftBank, "b");
    let form = other.click_sign_in("/").await;
    let refused = other.type_code(&form, &first).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "a second code ends the first");
    assert_eq!(other.type_code(&refused, &second).await.status, StatusCode::FOUND);
    assert_eq!(bindings(&harness, "adder").await, 2);
    let mut third = harness.handset(Carrier::Au, "c");
    assert_eq!(third.enrol("/", &second).await.status, StatusCode::FORBIDDEN, "it serves once");
    assert!(signs_in(&mut own, "/").await.starts_with("/_sekisho/news?"));

    let late = code(&press(&mut own, "").await);
    harness.clock.advance(Duration::from_secs(601));
    assert_eq!(harness.handset(Carrier::Au, "c").enrol("/", &late).await.status, StatusCode::FORBIDDEN, "ten minutes");
    let told = logs::security_events_of("adder");
    assert_eq!(
        told.iter().filter(|line| line.contains("code-issued") && line.contains("by=handset")).count(),
        3,
        "{told:?}"
    );
    let page: Value = harness.admin().call(Method::GET, "/v1/audit?after=0&limit=1000").await.unwrap();
    let issued = page["entries"].as_array().unwrap().iter();
    let issued = issued.filter(|entry| entry["action"] == "code-issue" && entry["actor"] == "handset");
    assert_eq!(issued.count(), 6, "each begun and done");
    harness.finish_without(&[&first, &second, &late, &second.replace('-', "")]).await;
}

#[tokio::test]
async fn only_the_handset_itself_gets_one_from_its_own_page() {
    let harness = harness().await;
    let mut own = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    harness.clock.advance(Duration::from_mins(11));
    // Who has the session and no identifier.
    let identifier = own.identifier.take();
    assert_eq!(pressed(&mut own, "").await, "missing-identifier");
    own.identifier = identifier;
    // A page elsewhere, a form that was sent, and a look.
    let page = own.get(PAGE).await;
    let t = page.hidden("t");
    own.extra.push(("Origin".to_owned(), "http://evil.example".to_owned()));
    assert_eq!(own.post(PAGE, &[("t", &t)]).await.status, StatusCode::FORBIDDEN);
    own.extra.pop();
    assert_eq!(own.post(PAGE, &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(own.get(&format!("{PAGE}?t={t}")).await.hidden("t").len(), t.len(), "a browser that posts is asked");
    code(&own.post(PAGE, &[("t", &t)]).await);
    assert_eq!(own.post(PAGE, &[("t", &t)]).await.status, StatusCode::FORBIDDEN, "once");
    assert_eq!(own.send(Method::PUT, PAGE, &[], Bytes::new()).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let mut stranger = harness.handset(Carrier::SoftBank, "z");
    assert_eq!(stranger.get_json(PAGE).await.reason(), "sign-in-required");
    // A handset of the carrier that stole the cookie gives itself away.
    let page = own.get(PAGE).await;
    stranger.cookies = own.cookies.clone();
    assert_eq!(stranger.post(PAGE, &[("t", &page.hidden("t"))]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(own.get_json("/").await.reason(), "session-expired");
    harness.finish().await;
}

#[tokio::test]
async fn who_has_a_pin_types_it_and_the_code_is_no_way_around_it() {
    let harness = harness().await;
    let mut own = with_pin(&harness, Carrier::Docomo, "a", "alice").await;
    for wrong in ["", WRONG, "27a9"] {
        assert_eq!(pressed(&mut own, wrong).await, "pin-wrong", "{wrong}");
    }
    let page = press(&mut own, WRONG).await;
    assert!(page.text().contains("type=\"password\"") && !page.text().contains("<b>"), "{}", page.text());
    // Not even in a session in which it was typed.
    let vault = asked(&mut own).await;
    assert_eq!(type_pin(&mut own, &vault, PIN).await.status, StatusCode::FOUND);
    assert_eq!(pressed(&mut own, "").await, "pin-wrong");
    let made = code(&press(&mut own, PIN).await);
    harness.clock.advance(Duration::from_secs(1));
    let mut other = harness.handset(Carrier::SoftBank, "b");
    assert_eq!(other.enrol("/", &made).await.status, StatusCode::FOUND);
    // Who reads the code over a shoulder has no PIN by it.
    let set = set_pin(&mut other, "", "61803398").await;
    assert_eq!(set.status, StatusCode::FORBIDDEN, "{}", set.text());
    assert_eq!(asked(&mut other).await.status, StatusCode::FORBIDDEN);
    // The operator's code is one.
    harness.clock.advance(Duration::from_secs(1));
    let mut third = harness.signed_in(Carrier::Au, "c", "alice").await;
    assert_eq!(set_pin(&mut third, "", "61803398").await.status, StatusCode::OK);
    harness.finish_without(&[&made]).await;
}

#[tokio::test]
async fn an_account_that_is_full_gets_none_and_many_are_refused() {
    let harness = with("6/1h", 2).await;
    let mut own = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut second = harness.signed_in(Carrier::SoftBank, "b", "alice").await;
    assert_eq!(pressed(&mut own, "").await, "binding-limit");
    let page = second.get("/_sekisho/me").await;
    let id = page.text().split("name=\"binding\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(
        second.post("/_sekisho/me/remove", &[("t", &page.hidden("t")), ("binding", &id)]).await.status,
        StatusCode::OK
    );
    for _ in 0..5 {
        code(&press(&mut second, "").await);
    }
    let refused = press(&mut second, "").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.header("retry-after").is_some());
    let code = harness.code("alice").await;
    assert_eq!(
        harness.handset(Carrier::Au, "c").enrol("/", &code).await.status,
        StatusCode::FOUND,
        "the operator's is heard"
    );
    harness.finish().await;
}

#[tokio::test]
async fn a_browser_of_1999_adds_one_without_cookies() {
    let harness = harness().await;
    let mut first = Cookieless::new(&harness, Carrier::Docomo, "a");
    first.set_user_agent(FIRST);
    let page = first.get("/").await;
    let form = first.get(&page.link("/_sekisho/login?")).await;
    let typed = [("code", harness.code("alice").await)];
    let way = target(&form, "/_sekisho/enrol", &[("code", &typed[0].1)]);
    let entered = crate::url_sessions::begun(&first.get(&way).await);
    let sk = token(&entered);
    let me = first.get(&format!("/_sekisho/me?_sk={sk}&guid=ON")).await;
    let page = first.get(&me.link(PAGE)).await;
    assert!(page.text().starts_with("<html>"), "{}", page.text());
    let sent = target(&page, PAGE, &[]);
    let elsewhere = first.send(Method::GET, &sent, &[("Referer", "http://evil.example/")], Bytes::new()).await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN, "no click of ours");
    let page = first.get(&page.link("/_sekisho/me")).await;
    let page = first.get(&page.link(PAGE)).await;
    let made = code(&first.get(&target(&page, PAGE, &[])).await);
    assert_eq!(harness.handset(Carrier::Au, "b").enrol("/", &made).await.status, StatusCode::FOUND);
    assert_eq!(bindings(&harness, "alice").await, 2);
    harness.finish_without(&[&made, &sk]).await;
}
