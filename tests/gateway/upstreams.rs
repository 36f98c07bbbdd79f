//! Servers of an upstream: probed, passed over while they are ill, reached by a UNIX socket.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::harness::{Carrier, Harness};
use crate::recorder::RecordingUpstream;
use crate::wire::soon;

/// The console on `servers`, asked for `/healthz` ten times a second, and everything public.
fn probed(config: &str, servers: &[&RecordingUpstream]) -> String {
    let names: Vec<String> = servers.iter().map(|server| format!("\"http://{}\"", server.address)).collect();
    let from = config.lines().find(|line| line.starts_with("servers")).unwrap();
    let to = format!("servers = [{}]\nhealth = {{ path = \"/healthz\", interval = \"100ms\" }}", names.join(", "));
    config.replace(from, &to)
}

fn ill(server: &RecordingUpstream, is_ill: bool) {
    server.answer(move |received| {
        let mut answer = Response::new(Full::new(Bytes::from_static(b"ok")));
        if is_ill && received.target == "/healthz" {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    });
}

/// Waits until the gateway has judged the server so.
async fn judged(harness: &Harness, server: &RecordingUpstream, up: bool) {
    let line = format!(
        "sekisho_upstream_server_up{{upstream=\"console\",server=\"http://{}\"}} {}",
        server.address,
        u8::from(up)
    );
    soon(async { while !harness.metrics().await.lines().any(|there| there == line) {} }).await;
}

fn asked(server: &RecordingUpstream) -> usize {
    server.received().iter().filter(|received| received.target != "/healthz").count()
}

#[tokio::test]
async fn a_server_that_fails_its_probes_gets_no_requests_until_it_is_back() {
    let (one, other) = (RecordingUpstream::start().await, RecordingUpstream::start().await);
    let harness = Harness::with(|config| probed(&config, &[&one, &other])).await;
    let mut visitor = harness.handset(Carrier::Au, "a");
    judged(&harness, &one, true).await;
    judged(&harness, &other, true).await;
    for _ in 0..10 {
        assert_eq!(visitor.get("/public").await.status, StatusCode::OK);
    }
    assert!(asked(&one) > 0 && asked(&other) > 0, "both take their turn");

    ill(&other, true);
    judged(&harness, &other, false).await;
    let before = (asked(&one), asked(&other));
    for _ in 0..20 {
        assert_eq!(visitor.get("/public").await.status, StatusCode::OK);
    }
    assert_eq!((asked(&one), asked(&other)), (before.0 + 20, before.1));

    ill(&one, true);
    judged(&harness, &one, false).await;
    let page = visitor.get("/public").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.text());
    assert_eq!(visitor.get_json("/public").await.reason(), "no-healthy-upstream");
    assert_eq!(asked(&one), before.0 + 20);

    ill(&other, false);
    judged(&harness, &other, true).await;
    assert_eq!(visitor.get("/public").await.status, StatusCode::OK, "who is back alone takes everything at once");
    assert_eq!(asked(&other), before.1 + 1);
    let probe = other.received().into_iter().find(|received| received.target == "/healthz").unwrap();
    assert_eq!(probe.headers["host"], other.address.to_string());
    assert!(!probe.headers.keys().any(|name| name.as_str().starts_with("sekisho")), "a probe is nobody: {probe:?}");
    harness.finish().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_found_out_before_anybody_waits_for_it() {
    let (one, gone) = (RecordingUpstream::start().await, RecordingUpstream::start().await);
    let harness = Harness::with(|config| {
        // A port that answers nobody: bound, and given up before the gateway starts.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        probed(&config, &[&one, &gone]).replace(&gone.address.to_string(), &free.to_string())
    })
    .await;
    soon(async {
        while !harness
            .metrics()
            .await
            .contains("sekisho_upstream_server_up{upstream=\"console\",server=\"http://127.0.0.1:")
        {}
    })
    .await;
    soon(async {
        while harness
            .metrics()
            .await
            .lines()
            .filter(|line| line.starts_with("sekisho_upstream_server_up") && line.ends_with(" 0"))
            .count()
            != 1
        {}
    })
    .await;
    let mut visitor = harness.handset(Carrier::Au, "a");
    for _ in 0..5 {
        assert_eq!(visitor.get("/public").await.status, StatusCode::OK);
    }
    assert_eq!(asked(&one), 5);
    harness.finish().await;
}

#[tokio::test]
async fn a_console_behind_a_unix_socket_is_reached_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (told, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let told = told.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let _ = told.send(request.into_parts().0);
                std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"console")))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let harness = Harness::with(|config| {
        let from = config.lines().find(|line| line.starts_with("servers")).unwrap().to_owned();
        let to = format!("servers = [\"unix:{}\"]\nhealth = {{ path = \"/healthz\" }}", path.display());
        config.replace(&from, &to)
    })
    .await;
    let probe = soon(heard.recv()).await.unwrap();
    assert_eq!((probe.uri.path(), &probe.headers["host"]), ("/healthz", &http::HeaderValue::from_static("localhost")));
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    let answer = alice.get("/orders").await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "console"));
    let request = soon(heard.recv()).await.unwrap();
    assert_eq!(request.uri.path(), "/orders");
    assert!(request.headers.contains_key("sekisho-jwt-assertion"));
    harness.finish().await;
}
