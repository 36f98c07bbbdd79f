//! Ready only after the gateway's test of itself, which the operator's upstreams never see.

use futures_util::FutureExt;
use http::{Request, StatusCode};
use http_body_util::Full;

use crate::harness::{Carrier, Harness, exchange};

#[tokio::test]
async fn the_self_test_passed_before_the_first_request_and_asked_no_real_upstream() {
    let harness = Harness::start().await;
    let request = Request::get("/readyz").header("Host", "localhost").body(Full::default()).unwrap();
    let answer = exchange([127, 0, 0, 1].into(), harness.ops(), request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let parts = answer.json();
    for part in ["ready", "listeners", "store", "keys", "forged_headers", "caught_up"] {
        assert_eq!(parts[part], true, "{part} in {parts}");
    }
    assert!(harness.running.ready().now_or_never().is_some(), "a supervisor would be told");
    assert!(harness.upstream.received().is_empty());
    assert_eq!(harness.handset(Carrier::Au, "a").get("/public").await.status, StatusCode::OK);
    assert_eq!(harness.upstream.received().len(), 1);
    harness.finish().await;
}
