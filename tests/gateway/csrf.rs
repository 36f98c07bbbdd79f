//! No other site makes a browser act: foreign origins, cross-site requests, form tokens of others, GETs.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::harness::{Answer, Carrier, Handset, Harness};

/// Every form of the signed-in person, and the page that has it.
const FORMS: [(&str, &str); 3] = [
    ("/_sekisho/logout", "/_sekisho/logout"),
    ("/_sekisho/me/remove", "/_sekisho/me"),
    ("/_sekisho/me/sessions/end", "/_sekisho/me"),
];

/// What a browser says of a request that another site made it send.
const FOREIGN: [&[(&str, &str)]; 9] = [
    &[("Origin", "http://evil.example")],
    &[("Origin", "null")],
    &[("Origin", "http://admin.example.jp:8080")],
    &[("Origin", "https://admin.example.jp")],
    &[("Origin", "http://admin.example.jp.evil.example")],
    &[("Origin", "http://admin.example.jp"), ("Origin", "http://evil.example")],
    &[("Origin", "")],
    &[("Sec-Fetch-Site", "cross-site")],
    &[("Origin", "http://admin.example.jp"), ("Sec-Fetch-Site", "cross-site")],
];

/// Posts a form as our page would, with these fields beside it; the refusal as JSON.
async fn post(handset: &mut Handset, path: &str, form: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let ours = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")];
    handset.send(Method::POST, path, &[&ours, fields].concat(), Bytes::from(body)).await
}

fn assert_reason(answer: &Answer, reason: &str, case: &str) {
    assert_eq!((answer.status, answer.reason().as_str()), (StatusCode::FORBIDDEN, reason), "{case}");
}

#[tokio::test]
async fn forms_are_taken_from_our_own_pages_only() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let binding: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    let binding = binding["bindings"][0]["id"].as_str().unwrap();
    for (path, page) in FORMS {
        let token = handset.get(page).await.hidden("t");
        let form = [("t", token.as_str()), ("binding", binding)];
        for fields in FOREIGN {
            assert_reason(
                &post(&mut handset, path, &form, fields).await,
                "foreign-origin",
                &format!("{path} {fields:?}"),
            );
        }
        assert_eq!(handset.get("/").await.status, StatusCode::OK, "{path} did nothing");
    }
    // The tokens were not spent by that: our own page goes through.
    let token = handset.get("/_sekisho/logout").await.hidden("t");
    let own = [("Origin", "http://admin.example.jp"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(post(&mut handset, "/_sekisho/logout", &[("t", &token)], &own).await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_form_needs_a_token_of_its_own_session() {
    let harness = Harness::start().await;
    let mut victim = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut attacker = harness.signed_in(Carrier::Docomo, "b", "mallory").await;
    let mut sibling = harness.signed_in(Carrier::Docomo, "c", "alice").await;
    let binding: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/alice/bindings").await.unwrap();
    let binding = binding["bindings"][0]["id"].as_str().unwrap();
    let button = harness.handset(Carrier::Docomo, "a").get("/").await.link("/_sekisho/login?");
    let button = button.split_once("&t=").unwrap().1.split('&').next().unwrap().to_owned();
    for (path, page) in FORMS {
        let another = attacker.get(page).await.hidden("t");
        let same_account = sibling.get(page).await.hidden("t");
        let own = victim.get(page).await.hidden("t");
        let spent = victim.get("/_sekisho/me").await.hidden("t");
        let nobodys = [("t", spent.as_str()), ("binding", "01939c3e-7a10-7b52-9c6e-2f4d1a0b3c00")];
        assert_eq!(post(&mut victim, "/_sekisho/me/remove", &nobodys, &[]).await.status, StatusCode::OK);
        for token in [another.as_str(), &same_account, &button, &spent, &own[1..], "", "AAAA"] {
            let refused = post(&mut victim, path, &[("t", token), ("binding", binding)], &[]).await;
            assert_reason(&refused, "form-token-invalid", path);
        }
        assert_reason(&post(&mut victim, path, &[("binding", binding)], &[]).await, "form-token-invalid", path);
        // In the query it does not count.
        let in_query = format!("{path}?t={own}");
        assert_reason(&post(&mut victim, &in_query, &[("binding", binding)], &[]).await, "form-token-invalid", path);
        assert_eq!(victim.get("/").await.status, StatusCode::OK, "{path} did nothing");
        harness.clock.advance(std::time::Duration::from_mins(10));
        let late = post(&mut victim, path, &[("t", &own), ("binding", binding)], &[]).await;
        assert_reason(&late, "form-token-invalid", "expired");
        for handset in [&mut attacker, &mut sibling] {
            handset.get("/").await;
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn enrolment_is_taken_from_our_own_page_only() {
    let harness = Harness::start().await;
    let code = harness.code("alice").await;
    let mut handset = harness.handset(Carrier::Docomo, "a");
    let page = handset.click_sign_in("/").await;
    let action = page.attribute("action", "/_sekisho/enrol");
    let token = page.hidden("t");
    let form = [("code", code.as_str()), ("t", &token), ("to", "/")];
    for fields in FOREIGN {
        assert_reason(&post(&mut handset, &action, &form, fields).await, "foreign-origin", &format!("{fields:?}"));
    }
    let own = [("Origin", "http://admin.example.jp")];
    let entered = post(&mut handset, &action, &form, &own).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    harness.finish().await;
}

#[tokio::test]
async fn a_form_is_a_form() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let token = handset.get("/_sekisho/logout").await.hidden("t");
    for (kind, status) in [("text/plain", 400), ("application/json", 400), ("multipart/form-data; boundary=x", 400)] {
        let body = Bytes::from(format!("t={token}"));
        let refused = handset.send(Method::POST, "/_sekisho/logout", &[("Content-Type", kind)], body).await;
        assert_eq!(refused.status.as_u16(), status, "{kind}");
    }
    let large = Bytes::from(format!("t={token}&x={}", "x".repeat(5000)));
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    let refused = handset.send(Method::POST, "/_sekisho/logout", &kind, large).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn no_get_and_no_other_method_changes_anything() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let before: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/alice").await.unwrap();
    let token = handset.get("/_sekisho/me").await.hidden("t");
    for path in ["login", "enrol", "logout", "me", "me/remove", "me/sessions/end", "notice", "jwks.json", "x", ""] {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let target = format!("/_sekisho/{path}?t={token}");
            let answer = handset.send(method.clone(), &target, &[], Bytes::new()).await;
            assert!(!answer.status.is_server_error() && !answer.sets_session(), "{method} {path}");
            if !matches!(method, Method::GET | Method::HEAD) {
                assert!(answer.status.is_client_error(), "{method} {path}");
            }
        }
    }
    let after: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/alice").await.unwrap();
    assert_eq!(before, after);
    assert!(harness.upstream.received().is_empty(), "nothing below the prefix reaches an upstream");
    harness.finish().await;
}
