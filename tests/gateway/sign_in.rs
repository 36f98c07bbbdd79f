//! Signing in: told before, asked by a click, identified by the network, remembered as a keyed hash.

use http::StatusCode;

use crate::harness::{Carrier, Harness};

#[tokio::test]
async fn every_carrier_signs_in_and_reaches_the_console() {
    let harness = Harness::start().await;
    for (i, carrier) in Carrier::ALL.into_iter().enumerate() {
        let account = format!("account-{i}");
        let mut handset = harness.signed_in(carrier, "a", &account).await;
        let console = handset.get("/orders?page=2").await;
        assert_eq!((console.status, console.text().as_str()), (StatusCode::OK, "<html>console</html>"), "{carrier:?}");
        let received = harness.upstream.last();
        assert_eq!(received.target, "/orders?page=2");
        assert!(received.headers.contains_key("sekisho-jwt-assertion"));
        assert!(!received.headers.contains_key(carrier.header()), "{carrier:?}");

        // Signed out and in again: the binding is there, no code is asked for.
        handset.cookies.clear();
        let entered = handset.click_sign_in("/orders").await;
        assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
        assert_eq!(entered.header("location"), Some("http://admin.example.jp/orders"));
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_plain_get_with_an_identifier_signs_nobody_in() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::Au, "a", "alice").await);
    let mut again = harness.handset(Carrier::Au, "a");
    for path in ["/", "/?guid=ON", "/_sekisho/login?to=/", "/_sekisho/login?to=/&t=AAAA"] {
        let answer = again.get(path).await;
        assert!(answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::FORBIDDEN, "{path}");
        assert!(answer.header("set-cookie").is_none(), "{path}");
    }
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn the_page_tells_before_anything_is_read() {
    let harness = Harness::start().await;
    let mut handset = harness.handset(Carrier::SoftBank, "b");
    let page = handset.get("/admin/users").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(page.header("www-authenticate").is_some());
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let text = page.text();
    for told in ["/_sekisho/notice", "Example KK", "400"] {
        assert!(text.contains(told), "{told} in {text}");
    }
    assert!(page.link("/_sekisho/login?").contains("to=/admin/users"));
    let json = handset.get_json("/admin/users").await;
    assert_eq!((json.status, json.reason().as_str()), (StatusCode::UNAUTHORIZED, "sign-in-required"));
    harness.finish().await;
}
