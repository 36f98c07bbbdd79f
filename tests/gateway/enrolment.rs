//! Enrolment: one code binds one handset, and a wrong code says no more than that.

use http::StatusCode;

use crate::harness::{Carrier, Harness};

#[tokio::test]
async fn an_unknown_handset_is_asked_for_a_code_and_a_wrong_one_binds_nothing() {
    let harness = Harness::start().await;
    let code = harness.code("alice").await;
    let wrong = format!("{}-0000-0000", &code[..4]);
    let mut handset = harness.handset(Carrier::Docomo, "a");
    let page = handset.click_sign_in("/").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let refused = handset.type_code(&page, &wrong).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.header("set-cookie").is_none());
    let entered = handset.type_code(&refused, &code).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(handset.get("/").await.status, StatusCode::OK);

    let mut thief = harness.handset(Carrier::Docomo, "b");
    let page = thief.click_sign_in("/").await;
    let spent = thief.type_code(&page, &code).await;
    assert_eq!(spent.status, StatusCode::FORBIDDEN, "a code serves once");
    harness.finish().await;
}
