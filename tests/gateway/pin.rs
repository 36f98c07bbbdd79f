//! Routes that ask for the PIN, and what a typed one changes.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use sekisho::assertion::{AssertionVerifier, VerifiedClaims};
use sekisho::clock::Clock;
use serde_json::Value;

use crate::forms_by_get::{FIRST, target};
use crate::harness::{Answer, CANARY, Carrier, HOST, Handset, Harness};
use crate::logs;
use crate::upgrade::HANDSHAKE;
use crate::url_sessions::{Cookieless, token};
use crate::wire::Wire;

/// Eight digits, so that a search of all files for it finds nothing by chance.
pub(crate) const PIN: &str = "27193846";
pub(crate) const WRONG: &str = "27193847";

/// `/vault` asks for the PIN.
pub(crate) fn with_vault(config: &str) -> String {
    format!("{config}\n[[route]]\npath = \"/vault\"\nupstream = \"console\"\nassurance = \"device+pin\"\n")
}

async fn harness() -> Harness {
    Harness::with(|config| with_vault(&config)).await
}

async fn with(more: &str) -> Harness {
    Harness::with(|config| format!("{}\n{more}\n", with_vault(&config))).await
}

/// Sets the PIN on the person's own page; `old` is the one so far.
pub(crate) async fn set_pin(handset: &mut Handset, old: &str, pin: &str) -> Answer {
    let page = handset.get("/_sekisho/me/pin").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let action = page.attribute("action", "/_sekisho/me/pin");
    handset.post(&action, &[("t", &page.hidden("t")), ("old", old), ("pin", pin), ("again", pin)]).await
}

/// A signed-in handset of an account whose PIN is [`PIN`].
pub(crate) async fn with_pin(harness: &Harness, carrier: Carrier, tail: &str, account: &str) -> Handset {
    let mut handset = harness.signed_in(carrier, tail, account).await;
    let set = set_pin(&mut handset, "", PIN).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
    handset
}

/// Types it into the form of a page for the PIN.
pub(crate) async fn type_pin(handset: &mut Handset, page: &Answer, pin: &str) -> Answer {
    let action = page.attribute("action", "/_sekisho/");
    let (t, to) = (page.hidden("t"), page.hidden("to"));
    handset.post(&action, &[("pin", pin), ("t", &t), ("to", &to)]).await
}

/// The page for the PIN of `/vault`.
pub(crate) async fn asked(handset: &mut Handset) -> Answer {
    let page = handset.get("/vault").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
    page
}

/// Types a PIN from the page on; the reason of what comes, empty where it is right.
async fn tries(handset: &mut Handset, pin: &str) -> String {
    let page = asked(handset).await;
    handset.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    let answer = type_pin(handset, &page, pin).await;
    handset.extra.pop();
    if answer.status == StatusCode::FOUND { String::new() } else { answer.reason() }
}

async fn learns(harness: &Harness, handset: &mut Handset, path: &str) -> VerifiedClaims {
    assert_eq!(handset.get(path).await.status, StatusCode::OK, "{path}");
    let jwks = harness.handset(Carrier::Au, "x").get("/_sekisho/jwks.json").await.text();
    let verifier = AssertionVerifier::new(&jwks, &format!("http://{HOST}"), "https://console.internal").unwrap();
    let last = harness.upstream.last();
    verifier.verify(last.headers["sekisho-jwt-assertion"].to_str().unwrap(), harness.clock.now()).unwrap()
}

async fn sessions(harness: &Harness, account: &str) -> Vec<Value> {
    let listed: Value = harness.admin().call(Method::GET, &format!("/v1/accounts/{account}/sessions")).await.unwrap();
    listed["sessions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_route_asks_for_the_pin_and_a_right_one_gives_a_new_token() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::Docomo, "a", "stepper").await;
    let before = learns(&harness, &mut alice, "/").await;
    assert_eq!((before.acr.as_str(), before.amr), ("urn:sekisho:acr:device", vec!["carrier".to_owned()]));
    let seen = harness.upstream.received().len();
    let listed = sessions(&harness, "stepper").await;
    assert_eq!(listed[0]["pin_at"], Value::Null);

    harness.clock.advance(Duration::from_mins(2));
    let refused = alice.get_json("/vault/7?page=2").await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (403, "pin-required"));
    let page = alice.get("/vault/7?page=2").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let wrong = type_pin(&mut alice, &page, WRONG).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert!(!wrong.sets_session());
    assert_eq!(alice.get("/vault").await.status, StatusCode::FORBIDDEN);
    assert_eq!(harness.upstream.received().len(), seen, "nothing reached the console");

    let old = alice.cookies.clone();
    let right = type_pin(&mut alice, &wrong, PIN).await;
    assert_eq!(right.status, StatusCode::FOUND, "{}", right.text());
    assert_eq!(right.header("location"), Some("http://admin.example.jp/vault/7?page=2"));
    assert_ne!(alice.cookies["sekisho"], old["sekisho"]);
    let after = learns(&harness, &mut alice, "/vault/7?page=2").await;
    assert_eq!(after.acr, "urn:sekisho:acr:device+pin");
    assert_eq!(after.amr, ["carrier", "pin"]);
    assert_eq!((after.sid, after.sub, after.auth_time), (before.sid, before.sub, before.auth_time + 120));
    assert_eq!(learns(&harness, &mut alice, "/").await.acr, "urn:sekisho:acr:device+pin", "on every route");
    let now = sessions(&harness, "stepper").await;
    assert_eq!((now.len(), &now[0]["id"], &now[0]["expires_at"]), (1, &listed[0]["id"], &listed[0]["expires_at"]));
    assert!(now[0]["pin_at"].is_string());

    let mut left = harness.handset(Carrier::Docomo, "a");
    left.cookies = old;
    assert_eq!(left.get("/").await.status, StatusCode::UNAUTHORIZED, "the old token is dead");
    let events = logs::security_events_of("stepper");
    assert!(events.iter().any(|line| line.contains("event=\"stepped-up\"")), "{events:?}");

    // Durable, device check included, over a restart.
    let harness = harness.restart().await;
    alice.gateway = harness.address();
    assert_eq!(alice.get("/vault?guid=ON").await.status, StatusCode::OK);
    let mut thief = harness.handset(Carrier::Docomo, "z");
    thief.cookies = alice.cookies.clone();
    let refused = thief.get_json("/?guid=ON").await;
    assert_eq!(refused.reason(), "session-device-mismatch");
    assert_eq!(alice.get("/").await.status, StatusCode::UNAUTHORIZED);
    let log = harness.finish_without(&[PIN]).await;
    assert!(log.contains("/_sekisho/pin"), "the access log has the path");
}

#[tokio::test]
async fn a_pin_counts_for_so_long_and_no_longer() {
    let harness = with("[session]\npin_for = \"10m\"").await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    assert_eq!(tries(&mut alice, PIN).await, "");
    harness.clock.advance(Duration::from_secs(599));
    assert_eq!(learns(&harness, &mut alice, "/vault").await.acr, "urn:sekisho:acr:device+pin");
    harness.clock.advance(Duration::from_secs(1));
    assert_eq!(alice.get_json("/vault").await.reason(), "pin-required");
    let after = learns(&harness, &mut alice, "/").await;
    assert_eq!(after.acr, "urn:sekisho:acr:device", "not even the assertion of a moment ago");
    assert_eq!(tries(&mut alice, PIN).await, "");
    assert_eq!(alice.get("/vault").await.status, StatusCode::OK);
    harness.clock.set(harness.clock.now().minus(Duration::from_secs(30)));
    assert_eq!(alice.get_json("/vault").await.reason(), "pin-required", "typed in the future");
    harness.finish().await;
}

#[tokio::test]
async fn an_account_without_a_pin_is_told_how_to_set_one() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    let page = asked(&mut alice).await;
    assert_eq!(page.link("/_sekisho/me/pin"), "/_sekisho/me/pin");
    assert!(!page.text().contains("name=\"pin\""), "{}", page.text());
    // Who sends the form all the same hears the same.
    let me = alice.get("/_sekisho/me").await;
    let answer = alice.post("/_sekisho/pin", &[("pin", PIN), ("t", &me.hidden("t")), ("to", "/vault")]).await;
    assert_eq!(answer.link("/_sekisho/me/pin"), "/_sekisho/me/pin");
    assert_eq!(alice.get("/").await.status, StatusCode::OK);
    let mut nobody = harness.handset(Carrier::Au, "b");
    assert_eq!(nobody.get_json("/vault").await.reason(), "sign-in-required", "first things first");
    harness.finish().await;
}

#[tokio::test]
async fn a_session_in_urls_gets_a_new_one_and_the_old_one_is_dead() {
    let harness = Harness::with(|config| with_vault(&config)).await;
    let mut alice = Cookieless::new(&harness, Carrier::Docomo, "a");
    let way = |answer: &Answer| answer.header("location").unwrap().split_once(HOST).unwrap().1.to_owned();
    let first = alice.enrol(&harness, "/_sekisho/me/pin", "alice").await;
    assert!(first.contains("_sk="), "{first}");
    let page = alice.get(&first).await;
    let action = page.attribute("action", "/_sekisho/me/pin");
    let set = alice.post(&action, &[("t", &page.hidden("t")), ("pin", PIN), ("again", PIN)]).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
    let old = token(&first);
    let page = alice.get(&format!("/vault/a?b=c&guid=ON&_sk={old}")).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let action = page.attribute("action", "/_sekisho/pin");
    let fields = [("t", page.hidden("t")), ("to", page.hidden("to")), ("pin", PIN.to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let stepped = alice.post(&action, &fields).await;
    assert_eq!(stepped.status, StatusCode::FOUND, "{}", stepped.text());
    assert!(stepped.header("set-cookie").is_none());
    let next = way(&stepped);
    assert!(next.starts_with("/vault/a?") && next.contains("b=c") && next.contains("guid=ON"), "{next}");
    assert_ne!(token(&next), old);
    assert_eq!(alice.get(&next).await.status, StatusCode::OK);
    assert_eq!(alice.get(&format!("/?guid=ON&_sk={old}")).await.status, StatusCode::UNAUTHORIZED);
    // Found by somebody of the same carrier, it is worth nothing.
    let mut finder = harness.handset(Carrier::Docomo, "f");
    assert_eq!(finder.get_json(&next).await.reason(), "session-device-mismatch");
    harness.finish_without(&[PIN]).await;
}

#[tokio::test]
async fn wrong_pins_are_few_and_neither_a_restart_nor_haste_gives_more() {
    let harness = with("[limits]\npin = \"6/1h\"\nnetwork = \"100000/1m\"").await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "guessed").await;
    for _ in 0..5 {
        assert_eq!(tries(&mut alice, WRONG).await, "pin-wrong");
    }
    // What can be no PIN is no try.
    assert_eq!(tries(&mut alice, "12a4").await, "pin-wrong");
    let harness = harness.restart().await;
    alice.gateway = harness.address();
    // Twenty at once, and one is heard.
    let mut pages = Vec::new();
    for _ in 0..20 {
        pages.push(asked(&mut alice).await);
    }
    let fields: Vec<_> = pages.iter().map(|page| (page.hidden("t"), page.hidden("to"))).collect();
    let answers = join_all(fields.iter().map(|(t, to)| {
        let mut one = harness.handset(Carrier::SoftBank, "a");
        one.cookies = alice.cookies.clone();
        async move { one.post("/_sekisho/pin", &[("pin", WRONG), ("t", t), ("to", to)]).await.status.as_u16() }
    }))
    .await;
    let count = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(403), count(429)), (1, 19), "{answers:?}");
    let page = asked(&mut alice).await;
    let limited = type_pin(&mut alice, &page, PIN).await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS, "not even the right one is looked at");
    assert_eq!(limited.header("retry-after"), Some("600"));
    assert!(limited.text().contains("[1]"));
    harness.clock.advance(Duration::from_mins(9));
    assert_eq!(tries(&mut alice, PIN).await, "rate-limited");
    harness.clock.advance(Duration::from_mins(1));
    assert_eq!(tries(&mut alice, PIN).await, "");
    let events = logs::security_events_of("guessed");
    assert_eq!(events.iter().filter(|line| line.contains("event=\"wrong-pins\"")).count(), 1, "{events:?}");
    harness.finish().await;
}

#[tokio::test]
async fn after_twenty_in_a_row_there_is_one_a_day_and_another_handset_is_not_kept_waiting() {
    let harness = with(
        "[limits]\npin = \"1000/1m\"\nnetwork = \"100000/1m\"\nsign_in = \"1000/1m\"\n[session]\nabsolute = \"30d\"\nidle = \"30d\"",
    )
    .await;
    let mut owner = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let mut lost = harness.signed_in(Carrier::Docomo, "b", "alice").await;
    for _ in 0..20 {
        assert_eq!(tries(&mut lost, WRONG).await, "pin-wrong");
    }
    assert_eq!(tries(&mut lost, PIN).await, "rate-limited");
    assert_eq!(tries(&mut owner, PIN).await, "", "nobody is locked out by another handset");
    for _ in 0..2 {
        harness.clock.advance(Duration::from_secs(86_399));
        assert_eq!(tries(&mut lost, WRONG).await, "rate-limited");
        harness.clock.advance(Duration::from_secs(1));
        assert_eq!(tries(&mut lost, WRONG).await, "pin-wrong");
        assert_eq!(tries(&mut lost, PIN).await, "rate-limited");
    }
    harness.clock.advance(Duration::from_hours(24));
    assert_eq!(tries(&mut lost, PIN).await, "");
    harness.finish().await;
}

#[tokio::test]
async fn the_form_serves_once_from_our_own_page_for_its_session() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let mut bob = with_pin(&harness, Carrier::SoftBank, "b", "bob").await;
    let page = asked(&mut alice).await;
    let token = page.hidden("t");
    for (field, value, reason) in [
        ("Origin", "http://evil.example", "foreign-origin"),
        ("Origin", "null", "foreign-origin"),
        ("Sec-Fetch-Site", "cross-site", "foreign-origin"),
    ] {
        let kind = "application/x-www-form-urlencoded";
        let fields = [("Content-Type", kind), ("Accept", "application/json"), (field, value)];
        let body = format!("pin={PIN}&t={token}&to=/vault");
        let refused = alice.send(Method::POST, "/_sekisho/pin", &fields, Bytes::from(body)).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (403, reason), "{value}");
    }
    let forms = [vec![("pin", PIN), ("t", &*token)], vec![("pin", PIN)], vec![("pin", PIN), ("t", "forged")]];
    for (index, fields) in forms.iter().enumerate() {
        let handset = if index == 0 { &mut bob } else { &mut alice };
        handset.extra.push(("Accept".to_owned(), "application/json".to_owned()));
        let refused = handset.post("/_sekisho/pin", fields).await;
        handset.extra.pop();
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (403, "form-token-invalid"), "{fields:?}");
    }
    // By GET nothing is typed, in a browser that can post.
    let by_get = alice.get(&format!("/_sekisho/pin?pin={PIN}&t={token}&to=/vault")).await;
    assert_eq!(by_get.status, StatusCode::FORBIDDEN);
    // `to` keeps to this host, and the form of before serves still.
    let entered = alice.post("/_sekisho/pin", &[("pin", PIN), ("t", &token), ("to", "//evil.example/")]).await;
    assert_eq!(entered.header("location"), Some("http://admin.example.jp/"));
    let again = alice.post("/_sekisho/pin", &[("pin", PIN), ("t", &token), ("to", "/vault")]).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "spent, and the session is another");
    assert_eq!(alice.get("/vault").await.status, StatusCode::OK);
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(alice.send(method, "/_sekisho/pin", &[], Bytes::new()).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    harness.finish().await;
}

#[tokio::test]
async fn of_many_at_once_one_gets_the_new_token() {
    let harness = with("[limits]\nnetwork = \"100000/1m\"\npin = \"1000/1m\"").await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        tokens.push(asked(&mut alice).await.hidden("t"));
    }
    let answers = join_all(tokens.iter().map(|t| {
        let mut one = harness.handset(Carrier::SoftBank, "a");
        one.cookies = alice.cookies.clone();
        async move {
            let entered = one.post("/_sekisho/pin", &[("pin", PIN), ("t", t), ("to", "/vault")]).await;
            (entered.status, one)
        }
    }))
    .await;
    let mut entered = 0;
    for (status, mut one) in answers {
        if status == StatusCode::FOUND {
            entered += 1;
            assert_eq!(one.get("/vault").await.status, StatusCode::OK);
        } else {
            assert_eq!(status, StatusCode::UNAUTHORIZED);
        }
    }
    assert_eq!((entered, sessions(&harness, "alice").await.len()), (1, 1));
    assert_eq!(alice.get("/").await.status, StatusCode::UNAUTHORIZED);
    harness.finish().await;
}

#[tokio::test]
async fn a_browser_that_cannot_post_types_it_by_get() {
    let harness = Harness::with(|config| format!("{}\n[session]\ntransport = \"cookie\"\n", with_vault(&config))).await;
    let mut first = harness.handset(Carrier::Docomo, "a");
    FIRST.clone_into(&mut first.user_agent);
    let code = harness.code("alice").await;
    let page = first.click_sign_in("/").await;
    first.get(&target(&page, "/_sekisho/enrol", &[("code", &code)])).await;
    let page = first.get("/_sekisho/me/pin").await;
    let set = first.get(&target(&page, "/_sekisho/me/pin", &[("pin", PIN), ("again", PIN)])).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
    first.extra.push(("Accept-Language".to_owned(), "ja".to_owned()));
    let page = asked(&mut first).await;
    let kind = page.header("content-type").unwrap();
    assert!(kind.contains("Shift_JIS") && page.text().contains("暗証番号"), "{kind}: {}", page.text());
    assert!(page.text().contains("istyle=\"4\""), "the field opens in digits");
    let wrong = first.get(&target(&page, "/_sekisho/pin", &[("pin", WRONG)])).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    let again = first.get(&target(&page, "/_sekisho/pin", &[("pin", PIN)])).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "the form of before is spent");
    let page = asked(&mut first).await;
    let entered = first.get(&target(&page, "/_sekisho/pin", &[("pin", PIN)])).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(first.get("/vault").await.status, StatusCode::OK);
    let log = harness.finish_without(&[PIN]).await;
    assert!(log.contains("/_sekisho/pin"));
}

#[tokio::test]
async fn a_websocket_needs_it_too() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::SoftBank, "a", "alice").await;
    let fields = |alice: &Handset| {
        let (agent, cookie) = (&alice.user_agent, &alice.cookies["sekisho"]);
        format!("{HANDSHAKE}Origin: http://{HOST}\r\nUser-Agent: {agent}\r\nCookie: sekisho={cookie}\r\n")
    };
    let seen = harness.upstream.received().len();
    let mut wire = Wire::connect(alice.source, harness.address()).await;
    wire.get("/vault/ws", &format!("{}Accept: application/json\r\n", fields(&alice))).await;
    let refused = wire.answer().await;
    assert_eq!((refused.status(), refused.reason().as_str()), (403, "pin-required"));
    assert_eq!(harness.upstream.received().len(), seen);
    assert_eq!(tries(&mut alice, PIN).await, "");
    let mut wire = Wire::connect(alice.source, harness.address()).await;
    wire.get("/vault/ws", &fields(&alice)).await;
    assert_eq!(wire.answer().await.status(), 200, "this upstream upgrades nothing");
    harness.finish().await;
}

#[tokio::test]
async fn it_is_the_right_one_under_another_key_after_a_rotation_and_in_full_width() {
    let harness = harness().await;
    let mut alice = with_pin(&harness, Carrier::PrivateApn, "a", "alice").await;
    for purpose in ["session", "binding"] {
        let asked = serde_json::json!({ "purpose": purpose, "reason": "yearly" });
        let _: Value = harness.admin().call_with(Method::POST, "/v1/rotations", Some(&asked)).await.unwrap();
    }
    let harness = harness.restart().await;
    alice.gateway = harness.address();
    assert_eq!(tries(&mut alice, "２７１９３８４６").await, "");
    let metrics = harness.metrics().await;
    assert!(metrics.contains("sekisho_pin_tries_total{outcome=\"right\"} 1"), "{metrics}");
    assert!(!metrics.contains(CANARY));
    harness.finish_without(&[PIN]).await;
}
