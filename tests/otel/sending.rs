//! How spans get to the collector: no request waits for it, nothing is lost silently.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::collector::Collector;
use crate::harness::{Carrier, Harness, contains};
use crate::wire::{pem, soon};

async fn visit(harness: &Harness, path: &str) {
    assert_eq!(harness.handset(Carrier::PrivateApn, "a").get(path).await.status, StatusCode::OK, "{path}");
}

/// How many spans came to this end.
async fn count(harness: &Harness, outcome: &str) -> u64 {
    let text = harness.metrics().await;
    let line = format!("sekisho_trace_spans_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
}

/// What was told of this collector, a line each.
fn told(collector: SocketAddr) -> Vec<String> {
    let of = format!("collector=http://{collector} ");
    crate::logs::captured().lines().filter(|line| line.contains(&of)).map(str::to_owned).collect()
}

/// How many spans of this collector's were told to be lost.
fn told_lost(collector: SocketAddr) -> u64 {
    let number =
        |line: &String| line.split_once("not_taken=").unwrap().1.split(' ').next().unwrap().parse::<u64>().unwrap();
    told(collector).iter().map(number).sum()
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_silent_or_away() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let to = |address: SocketAddr| {
        move |config: String| {
            format!("{}\n[trace]\nendpoint = \"http://{address}\"\n", config.split("\n[trace]").next().unwrap())
        }
    };
    let mut harness = Harness::with(to(silent.local_addr().unwrap())).await;
    visit(&harness, "/public/1").await;
    // It has taken the message, and says nothing to it.
    let held = soon(silent.accept()).await.unwrap();
    let began = Instant::now();
    for _ in 0..50 {
        visit(&harness, "/public/2").await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "they waited");
    harness.reload(to(closed)).await.unwrap();
    visit(&harness, "/public/3").await;
    drop((held, silent));
    let told = format!("collector=http://{closed}");
    soon(async {
        while !crate::logs::captured().contains(&told) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(count(&harness, "sent").await, 0);
    let began = Instant::now();
    harness.finish().await;
    assert!(began.elapsed() < Duration::from_secs(8), "the end waited for the collector");
}

#[tokio::test]
async fn what_may_be_taken_later_is_sent_again_and_the_rest_is_counted() {
    let collector = Collector::start().await;
    // The last one first: away for a moment, taken in part, not understood.
    collector.answer(&[(StatusCode::BAD_REQUEST, 0), (StatusCode::OK, 1), (StatusCode::SERVICE_UNAVAILABLE, 0)]);
    let harness = Harness::with(|config| collector.configured(&config, "")).await;
    visit(&harness, "/public/1").await;
    collector.request("/public/1").await;
    assert_eq!(collector.messages().len(), 2);
    soon(async { while count(&harness, "sent").await < 1 {} }).await;
    assert_eq!((count(&harness, "sent").await, count(&harness, "not-taken").await), (1, 1));
    visit(&harness, "/public/2").await;
    soon(async { while count(&harness, "not-taken").await < 3 {} }).await;
    assert_eq!(collector.messages().len(), 3, "what is not understood is not sent again");
    visit(&harness, "/public/3").await;
    collector.request("/public/3").await;
    assert_eq!(collector.connections(), 1, "the connection is kept");
    // The last spans are sent before the gateway ends.
    visit(&harness, "/public/last").await;
    harness.finish().await;
    assert!(collector.spans().iter().any(|span| span.is("url.path", "/public/last")));
    // The first problem at once, and what it cost by then in the end.
    let told = told(collector.address);
    assert!(told.len() == 2 && told[0].contains("503") && told[1].contains("400"), "{told:?}");
    assert_eq!(told_lost(collector.address), 3);
}

#[tokio::test]
async fn spans_that_are_refused_of_a_message_that_is_taken_are_told() {
    let collector = Collector::start().await;
    collector.answer(&[(StatusCode::OK, 1)]);
    let harness = Harness::with(|config| collector.configured(&config, "")).await;
    visit(&harness, "/public/1").await;
    soon(async {
        while told(collector.address).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let told = told(collector.address);
    assert!(told[0].contains("refused spans of it") && told[0].contains("not_taken=1"), "{told:?}");
    harness.finish().await;
}

#[tokio::test]
async fn a_reload_parts_with_no_collector_that_stays_the_same() {
    let collector = Collector::start().await;
    let mut harness = Harness::with(|config| collector.configured(&config, "service = \"gate\"")).await;
    visit(&harness, "/public/before").await;
    collector.request("/public/before").await;
    harness.reload(|config| config.replace("Example KK", "Another KK")).await.unwrap();
    visit(&harness, "/public/after").await;
    collector.request("/public/after").await;
    assert_eq!(collector.connections(), 1);

    // One that changes leaves the former three seconds, and counts and tells what they were too short for.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (from, to) = (collector.address, silent.local_addr().unwrap());
    harness.reload(|config| config.replace(&from.to_string(), &to.to_string())).await.unwrap();
    visit(&harness, "/public/silent").await;
    let held = soon(silent.accept()).await.unwrap();
    visit(&harness, "/public/waits").await;
    harness.reload(|config| config.replace(&to.to_string(), &from.to_string())).await.unwrap();
    visit(&harness, "/public/newest").await;
    collector.request("/public/newest").await;
    drop(held);
    harness.finish().await;
    assert_eq!(told_lost(to), 4, "{:?}", told(to));
}

#[tokio::test]
async fn another_collector_comes_with_a_reload() {
    let (first, second) = (Collector::start().await, Collector::start().await);
    let mut harness = Harness::with(|config| first.configured(&config, "")).await;
    let secret = harness.folder.path().join("collector.token");
    std::fs::write(&secret, "Bearer COLLECTORSECRET\n").unwrap();
    visit(&harness, "/public/first").await;
    let (from, to) = (first.address.to_string(), second.address.to_string());
    let more = "headers = { Authorization = { file = \"collector.token\" } }";
    harness.reload(|config| format!("{}{more}\n", config.replace(&from, &format!("{to}/base")))).await.unwrap();
    visit(&harness, "/public/second").await;
    first.request("/public/first").await;
    second.request("/public/second").await;
    assert_eq!(second.messages()[0].target, "/base/v1/traces");
    assert_eq!(second.messages()[0].headers["authorization"], "Bearer COLLECTORSECRET");

    // What cannot be used changes nothing, and does not repeat the secret.
    for (written, told) in [("Bearer \u{1}x", "trace.headers.Authorization: "), ("", "trace.headers.Authorization: ")] {
        std::fs::write(&secret, written).unwrap();
        let findings = harness.reload(|config| config.replace("Example KK", "Another KK")).await.unwrap_err();
        assert!(findings.iter().any(|finding| finding.contains(told) && !finding.contains("Bearer")), "{findings:?}");
    }
    visit(&harness, "/public/third").await;
    second.request("/public/third").await;
    // Without the section nothing is recorded, and the caller's decision is passed on again.
    harness.reload(|config| config.split("\n[trace]").next().unwrap().to_owned()).await.unwrap();
    visit(&harness, "/public/off").await;
    harness.finish().await;
    let all = [first.spans(), second.spans()].concat();
    assert!(!all.iter().any(|span| span.is("url.path", "/public/off")));
    assert!(!first.spans().iter().any(|span| span.is("url.path", "/public/second")));
    assert!(!crate::logs::captured().contains("COLLECTORSECRET"));
}

#[tokio::test]
async fn a_collector_is_verified() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let collector = Collector::serving(Some(TlsAcceptor::from(Arc::new(server)))).await;
    let port = collector.address.port();
    let trace = |ca: &str| format!("\n[trace]\nendpoint = \"https://localhost:{port}\"\nca = \"{ca}\"\n");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut harness = Harness::start().await;
    for (file, certificate) in [("ca.pem", made.cert.der()), ("other.pem", other.cert.der())] {
        std::fs::write(harness.folder.path().join(file), pem("CERTIFICATE", certificate)).unwrap();
    }
    harness.reload(|config| format!("{config}{}", trace("other.pem"))).await.unwrap();
    visit(&harness, "/public/unverified").await;
    harness.reload(|config| config.replace("other.pem", "ca.pem")).await.unwrap();
    visit(&harness, "/public/verified").await;
    collector.request("/public/verified").await;
    assert!(!contains(&collector.bytes(), b"unverified"));
    let findings = harness.reload(|config| config.replace("ca.pem", "none.pem")).await.unwrap_err();
    assert!(findings.iter().any(|finding| finding.contains(": trace.ca: ")), "{findings:?}");
    harness.finish().await;
}
