//! The receipt of a rotation that a running gateway carried out.

use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::admin::ClientError;
use sekisho::receipt::verify;
use serde_json::{Value, json};

use crate::harness::{Carrier, Harness};

/// `keys.cooling`, as it is unless it is set.
const COOLING: Duration = Duration::from_hours(7 * 24);

async fn call(harness: &Harness, method: Method, path: &str, document: Option<Value>) -> Value {
    asked(harness, method, path, document).await.unwrap()
}

async fn asked(harness: &Harness, method: Method, path: &str, document: Option<Value>) -> Result<Value, ClientError> {
    harness.admin().call_with(method, path, document.as_ref()).await
}

/// Has the gateway take the steps that are due until the rotation is there.
async fn reach(harness: &Harness, state: &str) {
    loop {
        let shown = call(harness, Method::POST, "/v1/rotations/r1/rescan", None).await;
        if shown["rotation"]["state"] == state {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn reason(refused: Result<Value, ClientError>) -> String {
    match refused {
        Err(ClientError::Refused(detail)) => detail.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rotation_that_is_done_leaves_a_receipt_that_verifies() {
    let harness = Harness::start().await;
    let receipt = "/v1/rotations/r1/receipt";
    assert_eq!(reason(asked(&harness, Method::GET, receipt, None).await), "not-found");
    let (mut first, mut second) = (harness.handset(Carrier::Docomo, "a"), harness.handset(Carrier::Au, "b"));
    for (handset, account) in [(&mut first, "alice"), (&mut second, "bob")] {
        let code = harness.code(account).await;
        assert_eq!(handset.enrol("/", &code).await.status, StatusCode::FOUND);
    }
    let start = json!({"purpose": "binding", "reason": "yearly"});
    call(&harness, Method::POST, "/v1/rotations", Some(start)).await;
    reach(&harness, "draining").await;
    assert_eq!(reason(asked(&harness, Method::GET, receipt, None).await), "receipt-not-due");

    // One signs in, the other one is taken away.
    first.cookies.clear();
    assert_eq!(first.click_sign_in("/").await.status, StatusCode::FOUND);
    let bindings = call(&harness, Method::GET, "/v1/accounts/bob/bindings", None).await;
    let path = format!("/v1/bindings/{}", bindings["bindings"][0]["id"].as_str().unwrap());
    call(&harness, Method::DELETE, &path, None).await;
    reach(&harness, "done").await;

    let issued = call(&harness, Method::GET, receipt, None).await;
    let verdict = verify(issued.to_string().as_bytes(), &[]);
    assert!(verdict.ok, "{verdict:?}");
    let counts = json!({"total": 2, "wrapped": 2, "flattened": 1, "purged": 1, "remaining": 0});
    assert_eq!(issued["counts"], counts);
    assert_eq!(issued["rotation"]["reason"], "yearly");
    assert_eq!(issued["canaries"]["observed"].as_array().unwrap().len(), 5);
    assert_ne!(issued["roots"]["before"], issued["roots"]["after"]);
    assert_eq!(call(&harness, Method::GET, receipt, None).await, issued, "as issued");
    // Nobody sees the canaries.
    let listed = call(&harness, Method::GET, "/v1/bindings", None).await;
    assert_eq!(listed["bindings"].as_array().unwrap().len(), 1);
    let accounts = call(&harness, Method::GET, "/v1/accounts", None).await;
    assert_eq!(accounts["accounts"].as_array().unwrap().len(), 2);

    // The key goes for good.
    harness.clock.advance(COOLING);
    call(&harness, Method::DELETE, "/v1/keys/k1", None).await;
    let whole = call(&harness, Method::GET, receipt, None).await;
    let verdict = verify(whole.to_string().as_bytes(), &[]);
    assert!(verdict.ok, "{verdict:?}");
    let addendum = &whole["addenda"][0];
    assert_eq!((&addendum["from"]["id"], &addendum["from"]["state"]), (&"k1".into(), &"destroyed".into()));
    assert_eq!(addendum["canaries"]["observed"].as_array().unwrap().len(), 6);
    assert!(addendum["audit"]["entries"].as_u64() > issued["audit"]["entries"].as_u64());
    assert_eq!(whole["addenda"].as_array().unwrap().len(), 1, "the process that had the key runs");

    // What memory held of it ends with the process, and the receipt says when that was, by itself.
    harness.clock.advance(Duration::from_mins(1));
    let harness = harness.restart().await;
    let started = "2026-12-01T00:01:00Z";
    let once = call(&harness, Method::GET, receipt, None).await;
    let verdict = verify(once.to_string().as_bytes(), &[]);
    assert!(verdict.ok, "{verdict:?}");
    let restart = &once["addenda"][1];
    assert_eq!((&restart["part"], &restart["process"]["started_at"]), (&json!("restarted"), &json!(started)));
    assert_eq!(restart["issued_at"], started, "at the start and not when it was asked for");
    harness.clock.advance(Duration::from_mins(1));
    let harness = harness.restart().await;
    assert_eq!(call(&harness, Method::GET, receipt, None).await, once, "the first start after it");
    harness.finish().await;
}
