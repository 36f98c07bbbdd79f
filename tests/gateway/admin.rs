//! What operators meet over the UNIX socket: documents, refusals, keys of idempotency.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::harness::{CANARY, Carrier, Harness};

/// One call, as any program on the host makes it.
async fn call(harness: &Harness, method: &str, path: &str, key: Option<&str>) -> (u16, Value) {
    let stream = tokio::net::UnixStream::connect(harness.folder.path().join("admin.sock")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("Host", "sekisho");
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/json", "{method} {path}");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    driver.abort();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn done(harness: &Harness, method: &str, path: &str) -> Value {
    let (status, document) = call(harness, method, path, None).await;
    assert_eq!(status, 200, "{method} {path}: {document}");
    document
}

#[tokio::test]
async fn every_verb_answers_with_the_document_of_the_contract() {
    let harness = Harness::start().await;
    let issued = done(&harness, "POST", "/v1/accounts/alice/codes").await;
    let code = issued["code"].as_str().unwrap();
    assert_eq!(issued, json!({"account": "alice", "code": code, "expires_at": "2026-11-24T00:10:00Z"}));
    assert!(
        code.len() == 14 && code.split('-').all(|group| group.len() == 4 && group.parse::<u16>().is_ok()),
        "{code}"
    );
    let mut handset = harness.handset(Carrier::Docomo, "a");
    assert_eq!(handset.enrol("/", code).await.status, StatusCode::FOUND);
    harness.clock.advance(std::time::Duration::from_millis(1500));
    assert_eq!(handset.get("/").await.status, StatusCode::OK);

    let bindings = done(&harness, "GET", "/v1/bindings").await;
    let binding = bindings["bindings"][0]["id"].as_str().unwrap().to_owned();
    let day = "2026-11-24";
    let expected = json!({"bindings": [{
        "id": binding, "account": "alice", "carrier": "docomo", "chain": ["k1"], "bound_on": day, "last_used_on": day,
    }]});
    assert_eq!(bindings, expected);
    assert_eq!(done(&harness, "GET", "/v1/accounts/alice/bindings").await, expected);

    let sessions = done(&harness, "GET", "/v1/sessions").await;
    let session = sessions["sessions"][0]["id"].as_str().unwrap().to_owned();
    let expected = json!({"sessions": [{
        "id": session, "account": "alice", "carrier": "docomo", "transport": "cookie",
        "created_at": "2026-11-24T00:00:00Z", "last_seen_at": "2026-11-24T00:00:01.5Z",
        "expires_at": "2026-11-24T12:00:00Z", "pin_at": null,
    }]});
    assert_eq!(sessions, expected);
    assert_eq!(done(&harness, "GET", "/v1/accounts/alice/sessions").await, expected);

    let mut account = done(&harness, "GET", "/v1/accounts/alice").await;
    let subject = account["subjects"]["console"].as_str().unwrap().to_owned();
    assert!(subject.len() >= 22 && !subject.contains("alice"), "{subject}");
    let mut expected = json!({
        "account": "alice", "state": "active", "bindings": 1, "sessions": 1, "has_pin": false,
        "subjects": {"console": subject}, "created_at": "2026-11-24T00:00:00Z",
    });
    assert_eq!(account, expected);
    assert_eq!(done(&harness, "GET", "/v1/accounts").await, json!({"accounts": [account]}));

    account = done(&harness, "POST", "/v1/accounts/alice/suspend").await;
    expected["state"] = "suspended".into();
    expected["sessions"] = 0.into();
    assert_eq!(account, expected);
    account = done(&harness, "POST", "/v1/accounts/alice/resume").await;
    expected["state"] = "active".into();
    assert_eq!(account, expected);

    for (path, revoked) in [("/v1/accounts/alice/sessions", 1), ("/v1/accounts/alice/sessions", 0)] {
        if revoked == 1 {
            handset.cookies.clear();
            assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
        }
        assert_eq!(done(&harness, "DELETE", path).await, json!({"revoked": revoked}));
    }
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
    let sessions = done(&harness, "GET", "/v1/sessions").await;
    let session = sessions["sessions"][0]["id"].as_str().unwrap();
    assert_eq!(done(&harness, "DELETE", &format!("/v1/sessions/{session}")).await, json!({"revoked": 1}));
    assert_eq!(done(&harness, "DELETE", &format!("/v1/bindings/{binding}")).await, json!({"revoked": 1}));
    for path in [format!("/v1/sessions/{session}"), format!("/v1/bindings/{binding}")] {
        assert_eq!(call(&harness, "DELETE", &path, None).await.0, 404, "{path} is gone");
    }
    harness.finish().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_wrong_is_not_repeated() {
    let harness = Harness::start().await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (method, path) in [
        ("GET", "/v1/accounts/nobody".to_owned()),
        ("GET", "/v1/accounts/nobody/bindings".to_owned()),
        ("GET", "/v1/accounts/nobody/sessions".to_owned()),
        ("DELETE", "/v1/accounts/nobody/sessions".to_owned()),
        ("POST", "/v1/accounts/nobody/suspend".to_owned()),
        ("POST", "/v1/accounts/nobody/resume".to_owned()),
        ("DELETE", format!("/v1/bindings/{unknown}")),
        ("DELETE", format!("/v1/sessions/{unknown}")),
        ("DELETE", format!("/v1/bindings/{CANARY}")),
        ("DELETE", "/v1/sessions/%FF".to_owned()),
        ("GET", "/v1/nothing".to_owned()),
        ("GET", "/".to_owned()),
    ] {
        let (status, document) = call(&harness, method, &path, None).await;
        assert_eq!((status, document["error"]["reason"].as_str()), (404, Some("not-found")), "{method} {path}");
        let last = path.rsplit('/').next().unwrap();
        assert!(last.is_empty() || !document.to_string().contains(&format!("/{last}")), "{document}");
    }
    assert_eq!(done(&harness, "GET", "/v1/accounts").await, json!({"accounts": []}), "asking creates nothing");

    for id in ["09012345678", "090-1234-5678", "%2B819012345678", "alice%40example.jp", "a%20b", "%FF", &"a".repeat(65)]
    {
        for (method, verb) in
            [("POST", "/codes"), ("GET", ""), ("GET", "/bindings"), ("DELETE", "/sessions"), ("POST", "/suspend")]
        {
            let (status, document) = call(&harness, method, &format!("/v1/accounts/{id}{verb}"), None).await;
            assert_eq!((status, document["error"]["reason"].as_str()), (400, Some("account-invalid")), "{id}{verb}");
            let text = document.to_string();
            for part in ["0901", "1234", "8190", "example.jp", "aaaa"] {
                assert!(!text.contains(part), "{text}");
            }
        }
    }
    let (status, document) = call(&harness, "PUT", "/v1/accounts/alice", None).await;
    assert_eq!((status, document["error"]["reason"].as_str()), (405, Some("method-not-allowed")));
    harness.finish_without(&["09012345678", "090-1234-5678", "819012345678", "alice@example.jp"]).await;
}

#[tokio::test]
async fn the_same_key_gets_the_first_answer_again() {
    let harness = Harness::start().await;
    let path = "/v1/accounts/alice/codes";
    let first = call(&harness, "POST", path, Some("key-1")).await;
    assert_eq!(first.0, 200);
    assert_eq!(call(&harness, "POST", path, Some("key-1")).await, first);
    let second = call(&harness, "POST", path, Some("key-2")).await;
    assert_ne!(second.1["code"], first.1["code"]);
    let (status, refused) = call(&harness, "POST", "/v1/accounts/bob/codes", Some("key-1")).await;
    assert_eq!((status, refused["error"]["reason"].as_str()), (422, Some("idempotency-key-reused")));
    let (status, refused) = call(&harness, "POST", path, Some("two words")).await;
    assert_eq!((status, refused["error"]["reason"].as_str()), (400, Some("idempotency-key-invalid")));

    // Repeated after the code of the first call was used, it undoes nothing and issues nothing.
    let mut handset = harness.handset(Carrier::Docomo, "a");
    assert_eq!(handset.enrol("/", second.1["code"].as_str().unwrap()).await.status, StatusCode::FOUND);
    assert_eq!(call(&harness, "POST", path, Some("key-2")).await, second);
    let mut other = harness.handset(Carrier::Docomo, "b");
    assert_eq!(other.enrol("/", second.1["code"].as_str().unwrap()).await.status, StatusCode::FORBIDDEN);
    harness.clock.advance(std::time::Duration::from_mins(10));
    assert_ne!(call(&harness, "POST", path, Some("key-1")).await, first, "forgotten with the code");
    harness.finish().await;
}

#[tokio::test]
async fn the_description_lists_every_verb() {
    let harness = Harness::start().await;
    let description = done(&harness, "GET", "/openapi.json").await;
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    for (path, methods) in [
        ("/v1/accounts", &["get"][..]),
        ("/v1/accounts/{account}", &["get"]),
        ("/v1/accounts/{account}/bindings", &["get"]),
        ("/v1/accounts/{account}/codes", &["post"]),
        ("/v1/accounts/{account}/resume", &["post"]),
        ("/v1/accounts/{account}/sessions", &["get", "delete"]),
        ("/v1/accounts/{account}/suspend", &["post"]),
        ("/v1/bindings", &["get"]),
        ("/v1/bindings/{id}", &["delete"]),
        ("/v1/sessions", &["get"]),
        ("/v1/sessions/{id}", &["delete"]),
    ] {
        for method in methods {
            let operation = &description["paths"][path][method];
            assert!(operation["responses"]["200"].is_object(), "{method} {path}: {operation}");
            assert!(operation["responses"]["403"].is_object(), "{method} {path}: {operation}");
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn handset_and_ops_listeners_have_no_admin_api() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let ops = harness.ops();
    for path in ["/v1/accounts", "/v1/accounts/alice/codes", "/openapi.json"] {
        let upstream = handset.send(Method::POST, path, &[], Bytes::new()).await;
        assert_eq!(upstream.text(), "<html>console</html>", "{path} is the console's, if it has one");
        let mut machine = harness.handset(Carrier::Docomo, "a");
        machine.gateway = ops;
        let refused = machine.get(path).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{path}");
    }
    harness.finish().await;
}
