//! Builds that lack one rule, and what the gateway makes of them.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use http::HeaderName;
use http::header::TRAILER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::carrier::{Carriers, Networks, ProfileSpec};
use crate::clock::{ManualClock, Timestamp};
use crate::config::{Config, Finding};
use crate::edge::Inherited;
use crate::entropy::SeededEntropy;
use crate::gateway::Running;
use crate::telemetry::Metrics;

/// An own profile, and all built-in ones.
fn carriers() -> Carriers {
    let spec = ProfileSpec {
        header: Some("X-Device-Ref".to_owned()),
        grammar: Some("^[A-Za-z0-9_-]{22,64}$".to_owned()),
        user_agent: Some("any".to_owned()),
        over_tls: Some("accept".to_owned()),
        networks: Some(Networks::List(vec!["127.0.4.0/24".to_owned()])),
        ..ProfileSpec::default()
    };
    Carriers::build(&BTreeMap::from([("private-apn".to_owned(), spec)])).ok().unwrap().0
}

async fn try_out(strip: impl Fn(RawHead) -> Result<StrippedHead, StripError> + Send + Sync + 'static) -> Vec<Survivor> {
    match run(&carriers().forgeable(), Arc::new(strip), &Canary::fresh(&SeededEntropy::new(7))).await {
        Ok(()) => Vec::new(),
        Err(SelfTestError::Survived(survivors)) => survivors,
        Err(SelfTestError::NotCarriedOut(why)) => panic!("{why}"),
    }
}

#[tokio::test]
async fn nothing_survives_all_the_rules() {
    let carriers = carriers();
    assert_eq!(try_out(move |head| StrippedHead::of(head, carriers.reserved())).await, []);
}

#[tokio::test]
async fn every_lost_rule_of_the_carriers_is_named() {
    for rule in ["X-DCMGUID", "X-Jphone-Uid", "X-Device-Ref", "TM_user-id", "X-Nokia-Alias", "imsi", "clid"] {
        let mut carriers = carriers();
        carriers.lose_rule(rule);
        let survivors = try_out(move |head| StrippedHead::of(head, carriers.reserved())).await;
        let folded = crate::edge::fold(rule);
        let named = |survivor: &Survivor| crate::edge::fold(&survivor.spelling).ends_with(&folded);
        assert!(!survivors.is_empty() && survivors.iter().all(named), "{rule}: {survivors:?}");
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for way in [Way::Head, Way::Trailer] {
                let there = |s: &Survivor| s.way == way && s.protocol == protocol;
                assert!(survivors.iter().any(there), "{rule} {way} {protocol}");
            }
        }
    }
}

#[tokio::test]
async fn a_lost_rule_about_identities_is_named_in_the_spelling_that_survived() {
    for lost in ["sekisho_jwt_assertion", "remote.user", "x-forwarded-user", "x_real_ip"] {
        let (carriers, name) = (carriers(), HeaderName::from_static(lost));
        let survivors = try_out(move |head| {
            let kept = head.all(&name).cloned().collect::<Vec<_>>();
            let mut stripped = StrippedHead::of(head, carriers.reserved())?;
            for value in kept {
                stripped.smuggle(&name, value);
            }
            Ok(stripped)
        })
        .await;
        assert!(!survivors.is_empty(), "{lost}");
        assert!(survivors.iter().all(|s| s.spelling.eq_ignore_ascii_case(lost) && s.way == Way::Head), "{survivors:?}");
    }
}

#[tokio::test]
async fn a_second_copy_and_a_trailer_are_missed_too() {
    let (kept, name) = (carriers(), HeaderName::from_static("x-jphone-uid"));
    let survivors = try_out(move |head| {
        let second = head.all(&name).nth(1).cloned();
        let mut stripped = StrippedHead::of(head, kept.reserved())?;
        if let Some(value) = second {
            stripped.smuggle(&name, value);
        }
        Ok(stripped)
    })
    .await;
    assert!(!survivors.is_empty() && survivors.iter().all(|s| s.spelling.eq_ignore_ascii_case("x-jphone-uid")));

    let kept = carriers();
    let survivors = try_out(move |head| {
        let announced = head.all(&TRAILER).cloned().collect::<Vec<_>>();
        let mut stripped = StrippedHead::of(head, kept.reserved())?;
        for value in announced {
            stripped.smuggle(&TRAILER, value);
        }
        Ok(stripped)
    })
    .await;
    assert!(!survivors.is_empty() && survivors.iter().all(|s| s.way == Way::Trailer), "{survivors:?}");
}

#[tokio::test]
async fn a_stage_that_lets_nothing_through_proves_nothing() {
    let outcome =
        run(&carriers().forgeable(), Arc::new(|_| Err(StripError::Malformed)), &Canary::fresh(&SeededEntropy::new(7)))
            .await;
    assert!(matches!(outcome, Err(SelfTestError::NotCarriedOut(_))), "{outcome:?}");
}

/// A whole gateway whose build lacks `rule`; `None`: a sound one.
async fn start(folder: &std::path::Path, upstream: SocketAddr, rule: Option<&str>) -> Running {
    let text = format!(
        r#"
gateway = {{ public_url = "http://admin.example.jp" }}
listener = [{{ serves = "handset", address = "127.0.0.1:0" }}, {{ serves = "ops", address = "127.0.0.1:0" }}]
admin = {{ socket = "admin.sock" }}
carriers.docomo = {{ networks = ["127.0.1.0/24"] }}
upstream = [{{ name = "console", servers = ["http://{upstream}"], audience = "https://console.internal" }}]
route = [{{ path = "/", upstream = "console", access = "public" }}]
store = {{ path = "store.db" }}
keys = {{ kek = {{ file = "kek" }} }}
notice = {{ controller = "Example KK", contact = "https://example.jp/contact", revision = "2026-11-23" }}
log = {{ access = {{ to = "off" }} }}
"#
    );
    std::fs::write(folder.join("kek"), "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n").unwrap();
    let findings = |findings: Vec<Finding>| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let (mut config, _) = Config::parse(&text, &folder.join("gateway.toml")).map_err(findings).unwrap();
    if let Some(rule) = rule {
        config.carriers.lose_rule(rule);
    }
    let clock = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(1_795_478_400_000)));
    let metrics = Arc::new(Metrics::new());
    Running::start(config, clock, Arc::new(SeededEntropy::new(3)), metrics, 1, Inherited::default())
        .await
        .map_err(findings)
        .unwrap()
}

async fn ask(running: &Running, serves: Serves, path: &str) -> String {
    let address = running.listeners().iter().find(|listener| listener.serves == serves).unwrap().address;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin.example.jp\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_build_without_one_rule_never_becomes_ready_and_serves_nobody() {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = upstream.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), address, Some("X-DCMGUID")).await;
    let readiness = ask(&running, Serves::Ops, "/readyz").await;
    assert!(readiness.starts_with("HTTP/1.1 503 "), "{readiness}");
    assert!(readiness.contains("\"ready\":false") && readiness.contains("\"forged_headers\":false"), "{readiness}");
    for path in ["/", "/_sekisho/notice", "/_sekisho/login?to=/"] {
        let answer = ask(&running, Serves::Handset, path).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{path}: {answer}");
    }
    assert!(ask(&running, Serves::Ops, "/healthz").await.starts_with("HTTP/1.1 200 "), "it is alive all the same");
    assert!(running.ready().now_or_never().is_none(), "and no supervisor is told that it is ready");
    running.stop(Duration::ZERO).await;

    // The same build with its rule.
    let running = start(folder.path(), address, None).await;
    assert!(running.ready().now_or_never().is_some());
    let readiness = ask(&running, Serves::Ops, "/readyz").await;
    assert!(readiness.starts_with("HTTP/1.1 200 ") && readiness.contains("\"forged_headers\":true"), "{readiness}");
    assert!(ask(&running, Serves::Handset, "/_sekisho/notice").await.starts_with("HTTP/1.1 200 "));
    running.stop(Duration::ZERO).await;
    assert!(upstream.accept().now_or_never().is_none(), "the operator's upstream was never asked");
}
