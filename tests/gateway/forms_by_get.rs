//! Browsers that cannot post: the same forms by GET, and nothing that a link or a page elsewhere could do with them.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Answer, Carrier, HOST, Handset, Harness};

/// One of the first i-mode handsets.
pub(crate) const FIRST: &str = "DoCoMo/1.0/D501i";

/// The forms of the signed-in person, and the page that has each.
const FORMS: [(&str, &str); 3] = [
    ("/_sekisho/logout", "/_sekisho/logout"),
    ("/_sekisho/me/remove", "/_sekisho/me"),
    ("/_sekisho/me/sessions/end", "/_sekisho/me"),
];

/// What a browser says of a request that no person made on our own page.
const NO_CLICK: [(&str, &str); 9] = [
    ("Origin", "http://evil.example"),
    ("Origin", "null"),
    ("Origin", "http://admin.example.jp:8080"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Dest", "image"),
    ("Sec-Fetch-Dest", "iframe"),
    ("Sec-Purpose", "prefetch;prerender"),
    ("Referer", "http://evil.example/"),
    ("Referer", "http://admin.example.jp.evil.example/"),
];

async fn harness() -> Harness {
    // These browsers keep no cookies. Here the forms are looked at, not the way that the session takes.
    Harness::with(|config| format!("{config}\n[session]\ntransport = \"cookie\"\n")).await
}

fn first_handset(harness: &Harness, tail: &str) -> Handset {
    let mut handset = harness.handset(Carrier::Docomo, tail);
    FIRST.clone_into(&mut handset.user_agent);
    handset
}

/// Sends the first form with this action as a browser does by GET: its fields become the query.
pub(crate) fn target(page: &Answer, action: &str, typed: &[(&str, &str)]) -> String {
    let text = page.text();
    let form = text.split("<form ").find(|form| form.contains(&format!("action=\"{action}"))).unwrap();
    let form = form.split("</form>").next().unwrap();
    assert!(form.starts_with("method=\"get\""), "{form}");
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(typed);
    for field in form.split("<input type=\"hidden\" name=\"").skip(1) {
        let (name, rest) = field.split_once("\" value=\"").unwrap();
        query.append_pair(name, &rest.split('"').next().unwrap().replace("&#38;", "&"));
    }
    format!("{action}?{}", query.finish())
}

async fn enrolled(harness: &Harness, tail: &str, account: &str) -> Handset {
    let mut handset = first_handset(harness, tail);
    let code = harness.code(account).await;
    let page = handset.click_sign_in("/").await;
    let entered = handset.get(&target(&page, "/_sekisho/enrol", &[("code", &code)])).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    handset
}

async fn state(harness: &Harness, account: &str) -> Value {
    harness.admin().call(Method::GET, &format!("/v1/accounts/{account}")).await.unwrap()
}

async fn refused(handset: &mut Handset, target: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let fields = [&[("Accept", "application/json")], fields].concat();
    let answer = handset.send(Method::GET, target, &fields, Bytes::new()).await;
    (answer.status.as_u16(), answer.json()["error"]["reason"].as_str().unwrap_or_default().to_owned())
}

fn forbidden(reason: &str) -> (u16, String) {
    (403, reason.to_owned())
}

#[tokio::test]
async fn the_whole_way_goes_without_a_post() {
    let harness = harness().await;
    let code = harness.code("alice").await;
    let mut handset = first_handset(&harness, "a");
    let page = handset.click_sign_in("/orders?page=2").await;
    let wrong = handset.get(&target(&page, "/_sekisho/enrol", &[("code", "0000-0000-0000")])).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    let typed = format!("{}-{}-{}", &code[..4], &code[4..8], &code[8..]);
    let entered = handset.get(&target(&wrong, "/_sekisho/enrol", &[("code", &typed)])).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(entered.header("location"), Some(&*format!("http://{HOST}/orders?page=2")));
    // A browser that tells where it comes from does not tell the code.
    let came_from = format!("http://{HOST}/_sekisho/enrol?code={code}&t=spent");
    handset.send(Method::GET, "/orders", &[("Referer", &came_from)], Bytes::new()).await;
    let told = harness.upstream.received();
    let referer = told.last().unwrap().headers.get("referer").unwrap();
    assert_eq!(referer, &*format!("http://{HOST}/_sekisho/enrol"));

    let page = handset.get("/_sekisho/logout").await;
    let out = handset.get(&target(&page, "/_sekisho/logout", &[])).await;
    assert_eq!(out.status, StatusCode::OK);
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);

    handset.cookies.clear();
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND, "it is bound");
    harness.clock.advance(Duration::from_mins(11));
    let page = handset.get("/_sekisho/me").await;
    let asked = handset.get(&target(&page, "/_sekisho/me/remove", &[])).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text());
    assert_eq!(state(&harness, "alice").await["bindings"], 1, "it is only asked");
    let sure = target(&asked, "/_sekisho/me/remove?guid=ON", &[]).replace("?guid=ON?", "?");
    assert!(sure.contains("guid=ON") && sure.contains("sure=1"), "{sure}");
    let removed = handset.get(&sure).await;
    assert_eq!(removed.status, StatusCode::OK, "{}", removed.text());
    assert_eq!(state(&harness, "alice").await["bindings"], 0);
    let access = harness.finish_without(&[&code, &typed]).await;
    assert!(!access.contains(&code) && !access.contains(&typed) && access.contains("/_sekisho/enrol"));
}

#[tokio::test]
async fn a_form_by_get_needs_an_unspent_token_of_its_own() {
    let harness = harness().await;
    let mut victim = enrolled(&harness, "a", "alice").await;
    let mut attacker = enrolled(&harness, "b", "mallory").await;
    let button = first_handset(&harness, "c").get("/").await.link("/_sekisho/login?");
    let button = button.split_once("&t=").unwrap().1.split('&').next().unwrap().to_owned();
    let spent = victim.get("/_sekisho/me").await.hidden("t");
    let unknown = format!("/_sekisho/me/remove?t={spent}&binding=01939c3e-7a10-7b52-9c6e-2f4d1a0b3c00");
    assert_eq!(victim.get(&unknown).await.status, StatusCode::OK);
    assert_eq!(victim.get("/").await.status, StatusCode::OK);
    let before = state(&harness, "alice").await;
    let binding: Value = harness.admin().call(Method::GET, "/v1/accounts/alice/bindings").await.unwrap();
    let binding = binding["bindings"][0]["id"].as_str().unwrap();
    for (path, page) in FORMS {
        let others = attacker.get(page).await.hidden("t");
        let own = victim.get(page).await.hidden("t");
        for token in ["", "AAAA", &others, &button, &spent, &own[1..]] {
            let asked = refused(&mut victim, &format!("{path}?t={token}&binding={binding}"), &[]).await;
            assert_eq!(asked, forbidden("form-token-invalid"), "{path} {token}");
        }
        // Which of two tokens is meant is not guessed: the first counts.
        let twice = format!("{path}?t=AAAA&t={own}&binding={binding}");
        assert_eq!(refused(&mut victim, &twice, &[]).await, forbidden("form-token-invalid"), "{path}");
        for no_click in NO_CLICK {
            let asked = refused(&mut victim, &format!("{path}?t={own}&binding={binding}"), &[no_click]).await;
            assert_eq!(asked, forbidden("foreign-origin"), "{path} {no_click:?}");
        }
        // Without a token it is the page of the form.
        let shown = victim.get(&format!("{path}?binding={binding}")).await;
        assert_eq!(shown.status, StatusCode::OK, "{path}");
        assert!(shown.text().contains(&format!("action=\"{path}\"")), "{path}: {}", shown.text());
        for method in [Method::HEAD, Method::PUT, Method::DELETE] {
            victim.send(method, &format!("{path}?t={own}&binding={binding}"), &[], Bytes::new()).await;
        }
        assert_eq!(state(&harness, "alice").await, before, "{path} changed something");
        assert_eq!(victim.get("/").await.status, StatusCode::OK, "{path} did nothing");
    }
    harness.finish().await;
}

#[tokio::test]
async fn enrolment_by_get_is_a_click_on_our_own_page() {
    let harness = harness().await;
    let code = harness.code("alice").await;
    let mut victim = first_handset(&harness, "a");
    let mut attacker = first_handset(&harness, "b");
    let others = target(&attacker.click_sign_in("/").await, "/_sekisho/enrol", &[("code", &code)]);
    let own = target(&victim.click_sign_in("/").await, "/_sekisho/enrol", &[("code", &code)]);
    for no_click in NO_CLICK {
        assert_eq!(refused(&mut victim, &own, &[no_click]).await, forbidden("foreign-origin"), "{no_click:?}");
    }
    for target in [others.as_str(), &own.replace("t=", "x="), &own.replace("&t=", "&t=x")] {
        assert_eq!(refused(&mut victim, target, &[]).await, forbidden("form-token-invalid"), "{target}");
    }
    // Without a code it is a bookmark of the form.
    let bookmark = own.replace("code=", "c=");
    assert_eq!(refused(&mut victim, &bookmark, &[]).await, (401, "sign-in-required".to_owned()));
    assert_eq!(victim.send(Method::HEAD, &own, &[], Bytes::new()).await.status, StatusCode::UNAUTHORIZED);
    // The carrier's query is a field of the form: without it the handset is not recognised.
    let unasked = own.replace("guid=ON", "");
    assert_eq!(refused(&mut victim, &unasked, &[]).await, forbidden("missing-identifier"));
    assert_eq!(state(&harness, "alice").await["bindings"], 0);
    // None of that spent the token.
    assert_eq!(victim.get(&own).await.status, StatusCode::FOUND);
    assert_eq!(refused(&mut victim, &own, &[]).await, forbidden("form-token-invalid"), "spent");
    harness.finish_without(&[&code]).await;
}

#[tokio::test]
async fn a_browser_that_posts_changes_nothing_by_get() {
    let harness = harness().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let before = state(&harness, "alice").await;
    let token = handset.get("/_sekisho/me").await.hidden("t");
    assert_eq!(handset.get(&format!("/_sekisho/logout?t={token}")).await.status, StatusCode::OK);
    for path in ["/_sekisho/me/remove", "/_sekisho/me/sessions/end"] {
        let answer = handset.get(&format!("{path}?t={token}")).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")), "{path}");
    }
    assert_eq!(state(&harness, "alice").await, before);
    // One that may be unable to post, and can, posts.
    let code = harness.code("bob").await;
    let mut late = first_handset(&harness, "b");
    let page = late.click_sign_in("/").await;
    let form = [("code", code.as_str()), ("t", &page.hidden("t")), ("to", "/")];
    assert_eq!(late.post("/_sekisho/enrol?guid=ON", &form).await.status, StatusCode::FOUND);
    harness.finish().await;
}

#[tokio::test]
async fn a_handset_that_loses_queries_is_told_so() {
    let harness = harness().await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    "J-PHONE/2.0/J-SA02".clone_into(&mut handset.user_agent);
    let page = handset.get("/").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    let said = page.text();
    // The button's link, as this browser asks for it.
    let clicked = handset.get(page.link("/_sekisho/login?").split('?').next().unwrap()).await;
    assert_eq!(clicked.status, StatusCode::FORBIDDEN);
    let told = clicked.text();
    assert!(!told.contains("/_sekisho/login"), "{told}");
    let happened = told.split("<p>").nth(1).unwrap().split("</p>").next().unwrap();
    assert!(said.contains(happened), "it is said before the click, too: {happened} in {said}");
    assert_eq!(refused(&mut handset, "/_sekisho/login", &[]).await, forbidden("handset-unsupported"));
    let mut other = harness.handset(Carrier::SoftBank, "a");
    assert_eq!(refused(&mut other, "/_sekisho/login", &[]).await, (401, "sign-in-required".to_owned()));
    assert_eq!(handset.get("/_sekisho/notice").await.status, StatusCode::OK);
    assert_eq!(handset.get("/public").await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn where_sessions_live_over_tls_the_code_goes_to_the_plain_listener_by_get_too() {
    let plain = format!("http://{HOST}");
    let harness = Harness::with(|config| config.replace(&plain, &format!("https://{HOST}"))).await;
    let code = harness.code("alice").await;
    let mut clear = first_handset(&harness, "a");
    let mut tls = first_handset(&harness, "a");
    tls.extra = vec![
        ("X-Forwarded-For".to_owned(), tls.source.to_string()),
        ("X-Forwarded-Proto".to_owned(), "https".to_owned()),
    ];
    tls.source = "127.0.9.1".parse().unwrap();
    tls.identifier = None;
    let button = tls.get("/").await.link(&format!("{plain}/_sekisho/login?"));
    let page = clear.get(button.strip_prefix(&plain).unwrap()).await;
    let sent = target(&page, &format!("{plain}/_sekisho/enrol"), &[("code", &code)]);
    let entered = clear.get(sent.strip_prefix(&plain).unwrap()).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    let ticket = entered.header("location").unwrap();
    assert!(ticket.starts_with(&format!("https://{HOST}/_sekisho/ticket?")) && !ticket.contains(&code), "{ticket}");
    assert!(entered.header("set-cookie").is_none());
    harness.finish_without(&[&code]).await;
}
