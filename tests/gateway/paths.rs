//! Routes: deny by default, longest prefix of whole segments, one reading of a path or none; forwarded as sent.

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Harness};
use crate::wire::Wire;

const PATHS: &str = include_str!("../data/paths.tsv");

/// `/app` for everybody, `/app/admin` for the signed-in, nothing at the root.
async fn harness() -> Harness {
    Harness::with(|config| routes(&config)).await
}

fn routes(config: &str) -> String {
    config.replace("path = \"/\"", "path = \"/app/admin\"").replace("path = \"/public\"", "path = \"/app\"")
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = PATHS.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split_once('\t').unwrap_or_else(|| panic!("no tab in {row:?}")))
}

#[tokio::test]
async fn every_target_leads_where_all_readers_agree_or_nowhere() {
    let harness = harness().await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    let code = harness.code("alice").await;
    assert_eq!(handset.enrol("/app/admin", &code).await.status, 302);
    let cookie = format!("Cookie: sekisho={}\r\n", handset.cookies["sekisho"]);
    let mut wire = Wire::connect(handset.source, harness.address()).await;
    assert!(rows().count() >= 100);
    for (target, expected) in rows() {
        for (who, cookie) in [("a stranger", ""), ("the signed-in", &cookie)] {
            let before = harness.upstream.received().len();
            wire.get(target, &format!("Accept: application/json\r\n{cookie}")).await;
            let answer = wire.answer().await;
            let received = harness.upstream.received();
            let case = format!("{target:?} of {who}: {answer:?}");
            let reached = match (expected, who) {
                ("public", _) | ("session", "the signed-in") => {
                    assert_eq!(answer.status(), 200, "{case}");
                    assert_eq!(received.last().map(|r| r.target.as_str()), Some(target), "{case}");
                    1
                }
                ("session", _) => {
                    assert_eq!((answer.status(), answer.reason().as_str()), (401, "sign-in-required"), "{case}");
                    0
                }
                ("no-route", _) => {
                    assert_eq!((answer.status(), answer.reason().as_str()), (404, "no-route"), "{case}");
                    0
                }
                ("path-ambiguous", _) => {
                    assert_eq!((answer.status(), answer.reason().as_str()), (400, "path-ambiguous"), "{case}");
                    0
                }
                ("own", _) => 0,
                _ => panic!("{target:?}: {expected:?} is no expectation"),
            };
            assert_eq!(received.len() - before, reached, "{case}");
        }
    }
    harness.finish().await;
}

/// A form of the request line, other fields, the status, and the target that the upstream sees, if any.
const FORMS: &[(&str, &str, u16, Option<&str>)] = &[
    ("GET http://admin.example.jp/app/x?y HTTP/1.1", "Host: admin.example.jp\r\n", 200, Some("/app/x?y")),
    ("GET HTTP://ADMIN.example.jp/app HTTP/1.1", "Host: admin.example.jp\r\n", 200, Some("/app")),
    ("GET http://admin.example.jp/app/../app/x HTTP/1.1", "Host: admin.example.jp\r\n", 200, Some("/app/../app/x")),
    ("GET http://admin.example.jp HTTP/1.1", "Host: admin.example.jp\r\n", 404, None),
    ("GET http://evil.example/app HTTP/1.1", "Host: admin.example.jp\r\n", 421, None),
    ("GET http://admin.example.jp/app HTTP/1.1", "Host: evil.example\r\n", 421, None),
    ("GET http://u@admin.example.jp/app HTTP/1.1", "Host: admin.example.jp\r\n", 421, None),
    ("GET http://admin.example.jp/app HTTP/1.1", "", 421, None),
    ("GET /app HTTP/1.1", "", 421, None),
    ("GET /app HTTP/1.1", "Host: evil.example\r\n", 421, None),
    ("GET /app HTTP/1.1", "Host: admin.example.jp\r\nHost: admin.example.jp\r\n", 421, None),
    ("GET /app HTTP/1.1", "Host: admin.example.jp, evil.example\r\n", 421, None),
    ("GET /app HTTP/1.1", "Host: admin.example.jp:8080\r\n", 200, Some("/app")),
    ("OPTIONS /app HTTP/1.1", "Host: admin.example.jp\r\n", 200, Some("/app")),
    ("PROPFIND /app HTTP/1.1", "Host: admin.example.jp\r\n", 200, Some("/app")),
    ("OPTIONS * HTTP/1.1", "Host: admin.example.jp\r\n", 404, None),
    ("TRACE /app HTTP/1.1", "Host: admin.example.jp\r\n", 405, None),
    ("CONNECT admin.example.jp:443 HTTP/1.1", "Host: admin.example.jp:443\r\n", 405, None),
    ("CONNECT /app HTTP/1.1", "Host: admin.example.jp\r\n", 405, None),
    // A target without a slash is an authority, and not the one that Host names.
    ("GET app HTTP/1.1", "Host: admin.example.jp\r\n", 421, None),
    ("GET ?x HTTP/1.1", "Host: admin.example.jp\r\n", 400, None),
    ("GET /app#x HTTP/1.1", "Host: admin.example.jp\r\n", 200, Some("/app")),
    ("GET /app x HTTP/1.1", "Host: admin.example.jp\r\n", 400, None),
];

#[tokio::test]
async fn other_forms_of_a_target_are_reduced_or_refused() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&routes(&config))).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::SoftBank, "a").source;
    for (line, fields, status, target) in FORMS {
        let before = harness.upstream.received().len();
        let mut wire = Wire::connect(source, harness.address()).await;
        wire.send(format!("{line}\r\n{fields}Connection: close\r\n\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status(), *status, "{line}: {answer:?}");
        let received = harness.upstream.received();
        assert_eq!(received.get(before).map(|r| r.target.as_str()), *target, "{line}");
        if let Some(reached) = received.get(before) {
            let host = reached.headers["host"].to_str().unwrap().to_ascii_lowercase();
            assert!(host.starts_with(HOST), "{line}: {host}");
        }
    }
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_refused_method_names_those_that_are_served() {
    let harness = harness().await;
    let mut wire = Wire::connect(harness.handset(Carrier::Au, "a").source, harness.address()).await;
    for (method, path) in [("DELETE", "/_sekisho/me"), ("PUT", "/_sekisho/logout"), ("GET", "/_sekisho/me/remove")] {
        wire.send(format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status(), 405, "{method} {path}");
        assert!(answer.head.to_ascii_lowercase().contains("\r\nallow: "), "{method} {path}: {}", answer.head);
    }
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}
