//! What machines ask for, where they alone can ask.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::harness::{Carrier, Handset, Harness};

const MACHINES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

fn machine(harness: &Harness) -> Handset {
    let mut machine = harness.handset(Carrier::Au, "x");
    (machine.gateway, machine.source, machine.identifier) = (harness.ops(), IpAddr::from([127, 0, 0, 1]), None);
    machine
}

#[tokio::test]
async fn the_ops_listener_tells_machines_and_nothing_else() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    let mut machine = machine(&harness);
    "10.0.0.1:9090".clone_into(&mut machine.host);
    assert_eq!(machine.get("/healthz").await.status, StatusCode::OK);
    let ready = machine.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (StatusCode::OK, Some(true)), "{}", ready.text());
    let metrics = machine.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().contains("openmetrics-text"), "{:?}", metrics.headers);
    let text = metrics.text();
    assert!(text.contains("sekisho_"), "{text}");
    assert!(!text.contains("alice"), "no account in metrics: {text}");
    for path in MACHINES {
        let head = machine.send(Method::HEAD, path, &[], Bytes::new()).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0), "{path}");
        for method in [Method::POST, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            let answer = machine.send(method.clone(), path, &[], Bytes::new()).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
        let answer = machine.get(path).await;
        for name in ["server", "set-cookie", "x-powered-by", "via"] {
            assert_eq!(answer.header(name), None, "{path}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    for path in ["/", "/public", "/_sekisho/me", "/_sekisho/login", "/healthz/", "/metrics/../healthz", "/v1/accounts"]
    {
        assert_eq!(machine.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn metrics_tell_sign_ins_refusals_codes_and_the_store() {
    let harness = Harness::start().await;
    let count = async |line: &str| {
        let text = harness.metrics().await;
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no {line} in {text}"))
    };
    let writes = count("sekisho_store_write_duration_seconds_count").await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    assert!(count("sekisho_store_write_duration_seconds_count").await >= writes + 3, "code, binding, session");
    // A round of upkeep may be writing now; that ends.
    let at_rest = async { while count("sekisho_store_writes_waiting").await != 0 {} };
    tokio::time::timeout(Duration::from_secs(10), at_rest).await.expect("nothing is left waiting");
    assert_eq!(count("sekisho_sign_ins_total{carrier=\"softbank\"}").await, 1);
    assert_eq!(count("sekisho_enrolments_total{carrier=\"softbank\"}").await, 1);
    assert_eq!(count("sekisho_refusals_total{reason=\"not-bound\",carrier=\"softbank\"}").await, 1);

    let code = harness.code("bob").await;
    harness.running.upkeep().await.unwrap();
    assert_eq!(count("sekisho_codes_live").await, 1);
    assert_eq!(count("sekisho_code_issued_total").await, 2);
    drop(harness.handset(Carrier::Docomo, "b").enrol("/", &code).await);
    harness.running.upkeep().await.unwrap();
    assert_eq!(count("sekisho_codes_live").await, 0);

    // The network says the carrier; what the request says of itself makes no label.
    let mut liar = harness.handset(Carrier::Au, "c");
    liar.source = [127, 0, 200, 7].into();
    drop(liar.click_sign_in("/").await);
    assert_eq!(count("sekisho_refusals_total{reason=\"untrusted-network\",carrier=\"\"}").await, 1);
    let text = harness.metrics().await;
    assert!(!text.contains("carrier=\"au\""), "{text}");
    harness.finish().await;
}

#[tokio::test]
async fn handsets_do_not_reach_what_is_for_machines() {
    // Without a route at the root these paths are nobody's.
    let harness = Harness::with(|config| config.replace("path = \"/\"\n", "path = \"/console\"\n")).await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    for path in MACHINES {
        let answer = handset.get_json(path).await;
        assert_eq!((answer.status, answer.reason().as_str()), (StatusCode::NOT_FOUND, "no-route"), "{path}");
    }
    for path in ["/_sekisho/healthz", "/_sekisho/readyz", "/_sekisho/metrics", "/_sekisho/openapi.json"] {
        assert_eq!(handset.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn under_a_route_they_are_the_upstreams_own() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    for path in MACHINES {
        assert_eq!(alice.get(path).await.text(), "<html>console</html>", "{path}");
        assert_eq!(harness.upstream.last().target, path);
    }
    harness.finish().await;
}
