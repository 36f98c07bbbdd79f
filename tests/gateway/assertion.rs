//! The assertion as an upstream meets it: genuine, for it alone, short-lived, stable in what it names.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use sekisho::assertion::{AssertionVerifier, VerifiedClaims, VerifyError};
use sekisho::clock::Clock;

use crate::harness::{Answer, Carrier, Handset, Harness};

const ISSUER: &str = "http://admin.example.jp";
const CONSOLE: &str = "https://console.internal";
const REPORTS: &str = "https://reports.internal";

/// A second upstream, which knows accounts by a pairwise id of its own, and a third that knows the operator's id.
async fn harness() -> Harness {
    let second = |config: String| {
        let server = config.lines().find(|line| line.starts_with("servers")).unwrap().to_owned();
        format!(
            "{config}
[[upstream]]
name = \"reports\"
{server}
audience = \"{REPORTS}\"
[[route]]
path = \"/reports\"
upstream = \"reports\"
access = \"session\"
[[upstream]]
name = \"accounts\"
{server}
audience = \"https://accounts.internal\"
subject = \"account\"
[[route]]
path = \"/accounts\"
upstream = \"accounts\"
access = \"session\"
"
        )
    };
    Harness::with(second).await
}

fn token(harness: &Harness) -> String {
    harness.upstream.last().headers["sekisho-jwt-assertion"].to_str().unwrap().to_owned()
}

async fn jwks(harness: &Harness) -> String {
    harness.handset(Carrier::Au, "x").get("/_sekisho/jwks.json").await.text()
}

/// What the upstream learns from a request for `path`.
async fn learns(harness: &Harness, handset: &mut Handset, path: &str, audience: &str) -> VerifiedClaims {
    assert_eq!(handset.get(path).await.status, StatusCode::OK, "{path}");
    let verifier = AssertionVerifier::new(&jwks(harness).await, ISSUER, audience).unwrap();
    verifier.verify(&token(harness), harness.clock.now()).unwrap()
}

async fn sign_out(handset: &mut Handset) {
    let form = handset.get("/_sekisho/logout").await;
    let t = form.hidden("t");
    assert_eq!(handset.post("/_sekisho/logout", &[("t", &t)]).await.status, StatusCode::OK);
    assert!(!handset.has_session());
}

#[tokio::test]
async fn it_says_who_for_whom_by_whom_and_for_how_long() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let signed_in_at = harness.clock.now().unix_seconds();
    harness.clock.advance(Duration::from_secs(100));
    let claims = learns(&harness, &mut alice, "/", CONSOLE).await;
    assert_eq!((claims.iss.as_str(), claims.aud.as_str()), (ISSUER, CONSOLE));
    assert_eq!((claims.iat, claims.nbf), (signed_in_at + 100, signed_in_at + 100));
    assert_eq!((claims.exp - claims.iat, claims.auth_time), (60, signed_in_at));
    assert_eq!((claims.acr.as_str(), claims.amr), ("urn:sekisho:acr:device", vec!["carrier".to_owned()]));
    assert_eq!(claims.sub.len(), 22, "128 random bits in base64url: {}", claims.sub);
    assert!(claims.jti.len() >= 22, "{}", claims.jti);
    assert_ne!(claims.sid, alice.cookies["sekisho"], "a handle, not the token");

    let header = token(&harness).split('.').next().unwrap().to_owned();
    let header = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    let members: BTreeSet<_> = header.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["alg", "kid", "typ"]));
    assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"sekisho-assertion+jwt".into()));
    harness.finish().await;
}

#[tokio::test]
async fn another_upstream_knows_the_same_person_by_another_name() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let console = learns(&harness, &mut alice, "/", CONSOLE).await;
    let reports = learns(&harness, &mut alice, "/reports/x", REPORTS).await;
    assert_ne!(console.sub, reports.sub);
    assert_ne!(console.sid, reports.sid);
    assert_ne!(console.jti, reports.jti);
    // What was said to one is nothing to the other.
    let verifier = AssertionVerifier::new(&jwks(&harness).await, ISSUER, CONSOLE).unwrap();
    assert_eq!(verifier.verify(&token(&harness), harness.clock.now()), Err(VerifyError::Audience));
    let accounts = learns(&harness, &mut alice, "/accounts", "https://accounts.internal").await;
    assert_eq!(accounts.sub, "alice");
    let mut bob = harness.signed_in(Carrier::Docomo, "b", "bob").await;
    let other = learns(&harness, &mut bob, "/", CONSOLE).await;
    assert!(other.sub != console.sub && other.sid != console.sid);
    assert_eq!(learns(&harness, &mut bob, "/accounts", "https://accounts.internal").await.sub, "bob");
    harness.finish().await;
}

#[tokio::test]
async fn it_is_used_again_for_half_its_life_and_no_longer() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let first = learns(&harness, &mut alice, "/", CONSOLE).await;
    for seconds in [0, 10, 19] {
        harness.clock.advance(Duration::from_secs(seconds));
        let again = learns(&harness, &mut alice, "/orders", CONSOLE).await;
        assert!(again == first, "a cached one is the same: {again:?}");
    }
    harness.clock.advance(Duration::from_secs(1));
    let fresh = learns(&harness, &mut alice, "/", CONSOLE).await;
    assert_eq!((fresh.iat - first.iat, fresh.exp - fresh.iat), (30, 60));
    assert_ne!(fresh.jti, first.jti);
    assert_eq!((&fresh.sub, &fresh.sid, fresh.auth_time), (&first.sub, &first.sid, first.auth_time));

    let mut ids = BTreeSet::from([first.jti, fresh.jti]);
    for _ in 0..20 {
        harness.clock.advance(Duration::from_secs(30));
        assert!(ids.insert(learns(&harness, &mut alice, "/", CONSOLE).await.jti), "a jti names one signature");
    }
    harness.finish().await;
}

#[tokio::test]
async fn the_subject_outlives_sessions_restarts_and_handsets() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let first = learns(&harness, &mut alice, "/", CONSOLE).await;
    let reports = learns(&harness, &mut alice, "/reports", REPORTS).await;
    sign_out(&mut alice).await;
    harness.clock.advance(Duration::from_secs(5));
    assert_eq!(alice.click_sign_in("/").await.status, StatusCode::FOUND);
    let again = learns(&harness, &mut alice, "/", CONSOLE).await;
    assert_eq!(again.sub, first.sub);
    assert_ne!(again.sid, first.sid, "another session");
    assert_eq!(again.auth_time, first.auth_time + 5);

    let mut second = harness.signed_in(Carrier::Au, "b", "alice").await;
    assert_eq!(learns(&harness, &mut second, "/", CONSOLE).await.sub, first.sub);
    assert_eq!(learns(&harness, &mut second, "/reports", REPORTS).await.sub, reports.sub);

    let harness = harness.restart().await;
    (alice.gateway, second.gateway) = (harness.address(), harness.address());
    let restarted = learns(&harness, &mut alice, "/", CONSOLE).await;
    assert_eq!((&restarted.sub, &restarted.sid), (&first.sub, &again.sid), "the session lived on");
    assert_ne!(restarted.jti, again.jti);
    assert_eq!(learns(&harness, &mut second, "/reports", REPORTS).await.sub, reports.sub);
    harness.finish().await;
}

#[tokio::test]
async fn public_and_login_routes_learn_of_a_session_if_there_is_one() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let first = learns(&harness, &mut alice, "/", CONSOLE).await;
    for path in ["/public", "/signin"] {
        assert_eq!(learns(&harness, &mut alice, path, CONSOLE).await.sub, first.sub, "{path}");
    }
    let session = std::mem::take(&mut alice.cookies);
    alice.cookies.insert("sekisho".to_owned(), "A".repeat(32));
    for path in ["/public", "/signin"] {
        assert_eq!(alice.get(path).await.status, StatusCode::OK, "{path}");
        assert!(!harness.upstream.last().headers.contains_key("sekisho-jwt-assertion"), "{path}");
    }
    alice.cookies = session;
    sign_out(&mut alice).await;
    assert_eq!(alice.get("/public").await.status, StatusCode::OK);
    assert!(!harness.upstream.last().headers.contains_key("sekisho-jwt-assertion"));
    harness.finish().await;
}

#[tokio::test]
async fn the_keys_are_published_cacheable_and_without_a_cookie() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut machine = harness.handset(Carrier::Au, "x");
    (machine.gateway, machine.source, machine.identifier) = (harness.ops(), [127, 0, 0, 1].into(), None);
    let no_news = |answer: &Answer, etag: &str| {
        assert_eq!((answer.status, answer.header("etag")), (StatusCode::NOT_MODIFIED, Some(etag)));
        assert!(answer.body.is_empty());
    };
    let mut documents = BTreeSet::new();
    for handset in [&mut alice, &mut machine] {
        let answer = handset.get("/_sekisho/jwks.json").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("cache-control").unwrap().contains("max-age=300"), "{:?}", answer.headers);
        assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
        assert_eq!(answer.header("set-cookie"), None);
        let etag = answer.header("etag").unwrap().to_owned();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
            let fields = [("If-None-Match", known.as_str())];
            let answer = handset.send(Method::GET, "/_sekisho/jwks.json", &fields, Bytes::new()).await;
            no_news(&answer, &etag);
            assert!(answer.header("cache-control").unwrap().contains("max-age=300"));
        }
        let fields = [("If-None-Match", "\"other\"")];
        let changed = handset.send(Method::GET, "/_sekisho/jwks.json", &fields, Bytes::new()).await;
        assert_eq!(changed.body, answer.body);
        let head = handset.send(Method::HEAD, "/_sekisho/jwks.json", &[], Bytes::new()).await;
        assert_eq!((head.status, head.header("etag"), head.body.len()), (StatusCode::OK, Some(etag.as_str()), 0));
        for key in answer.json()["keys"].as_array().unwrap() {
            assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&"EC".into(), &"P-256".into(), &"ES256".into()));
            assert!(key.get("d").is_none(), "no private part");
        }
        documents.insert((etag, answer.text()));
    }
    assert_eq!(documents.len(), 1, "the same keys everywhere");
    let harness = harness.restart().await;
    let after = harness.handset(Carrier::Au, "x").get("/_sekisho/jwks.json").await;
    assert!(documents.contains(&(after.header("etag").unwrap().to_owned(), after.text())), "kept over a restart");
    harness.finish().await;
}
