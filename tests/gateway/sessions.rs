//! Sessions: an opaque token in a cookie, held to the device that opened it, ended everywhere at once.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Answer, CANARY, Carrier, Handset, Harness};

const COOKIE: &str = "sekisho";

fn minutes(n: u64) -> Duration {
    Duration::from_mins(n)
}

fn with_session(config: &str, settings: &str) -> String {
    config.replace("[binding]", &format!("[session]\n{settings}\n[binding]"))
}

async fn assert_lives(handset: &mut Handset) {
    let answer = handset.get("/").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

/// 401 session-expired, and the browser loses the cookie.
async fn assert_ended(handset: &mut Handset) {
    let cookies = handset.cookies.clone();
    let document = handset.get_json("/").await;
    assert_eq!((document.status.as_u16(), document.reason().as_str()), (401, "session-expired"));
    assert!(document.header("www-authenticate").is_some());
    assert_cleared(&document);
    handset.cookies = cookies;
    let page = handset.get("/").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(page.text().contains("/_sekisho/login?"), "{}", page.text());
}

fn assert_cleared(answer: &Answer) {
    let cookie = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie is cleared: {}", answer.text()));
    assert!(cookie.starts_with("sekisho=;") && cookie.contains("Max-Age=0") && cookie.contains("Path=/"), "{cookie}");
}

async fn admin(harness: &Harness, method: Method, path: &str) -> Value {
    harness.admin().call(method, path).await.unwrap()
}

#[tokio::test]
async fn a_session_ends_when_unused_and_lives_when_used() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    for _ in 0..3 {
        harness.clock.advance(Duration::from_millis(30 * 60_000 - 1));
        assert_lives(&mut handset).await;
    }
    harness.clock.advance(minutes(30));
    assert_ended(&mut handset).await;
    assert!(harness.upstream.received().len() == 3);
    harness.finish().await;
}

#[tokio::test]
async fn a_session_ends_after_its_time_however_much_it_is_used() {
    let harness = Harness::with(|config| with_session(&config, "idle = \"30m\"\nabsolute = \"2h\"")).await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    for _ in 0..5 {
        harness.clock.advance(minutes(20));
        assert_lives(&mut handset).await;
    }
    harness.clock.advance(minutes(20));
    assert_ended(&mut handset).await;
    harness.finish().await;
}

#[tokio::test]
async fn one_session_too_many_ends_the_oldest() {
    let harness = Harness::with(|config| with_session(&config, "per_account = 2")).await;
    let mut handsets = Vec::new();
    for tail in ["a", "b", "c"] {
        handsets.push(harness.signed_in(Carrier::Docomo, tail, "alice").await);
        harness.clock.advance(minutes(1));
    }
    let mut bob = harness.signed_in(Carrier::Docomo, "d", "bob").await;
    assert_ended(&mut handsets[0]).await;
    assert_lives(&mut handsets[1]).await;
    assert_lives(&mut handsets[2]).await;
    assert_lives(&mut bob).await;
    harness.finish().await;
}

#[tokio::test]
async fn a_new_sign_in_of_the_same_browser_ends_the_old_session_and_has_a_new_token() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let old = handset.cookies[COOKIE].clone();
    let mut other_browser = harness.handset(Carrier::SoftBank, "a");
    let link = other_browser.get("/").await.link("/_sekisho/login?");
    assert_eq!(handset.get(&link).await.status, StatusCode::FOUND);
    let new = handset.cookies[COOKIE].clone();
    assert_ne!(old, new);
    assert_lives(&mut handset).await;
    handset.cookies.insert(COOKIE.to_owned(), old);
    assert_ended(&mut handset).await;
    let listed = admin(&harness, Method::GET, "/v1/accounts/alice/sessions").await;
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    harness.finish().await;
}

#[tokio::test]
async fn sessions_and_what_ended_of_them_survive_a_restart() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut signed_out = harness.signed_in(Carrier::Docomo, "b", "bob").await;
    let kept = signed_out.cookies.clone();
    let form = signed_out.get("/_sekisho/logout").await;
    assert_eq!(signed_out.post("/_sekisho/logout", &[("t", &form.hidden("t"))]).await.status, StatusCode::OK);
    harness.clock.advance(minutes(20));
    assert_lives(&mut handset).await;
    harness.running.upkeep().await.unwrap();
    harness.clock.advance(Duration::from_secs(30));
    assert_lives(&mut handset).await;

    // The last use counts, however short before the end of the run it was.
    let harness = harness.restart().await;
    handset.gateway = harness.address();
    signed_out.gateway = harness.address();
    signed_out.cookies = kept;
    harness.clock.advance(Duration::from_secs(30 * 60 - 15));
    assert_lives(&mut handset).await;
    assert_ended(&mut signed_out).await;

    // The continuity tag survived too.
    let mut thief = harness.handset(Carrier::Docomo, "t");
    thief.cookies.clone_from(&handset.cookies);
    assert_eq!(thief.get_json("/?guid=ON").await.reason(), "session-device-mismatch");
    harness.finish().await;
}

#[tokio::test]
async fn the_token_is_in_its_cookie_and_nowhere_else() {
    let harness = Harness::start().await;
    let code = harness.code("alice").await;
    let mut handset = harness.handset(Carrier::Docomo, "a");
    let entered = handset.enrol("/", &code).await;
    let token = handset.cookies[COOKIE].clone();
    assert_eq!(token.len(), 32);
    assert_eq!(entered.headers.get_all("set-cookie").iter().count(), 1);
    assert_eq!(entered.header("set-cookie"), Some(&*format!("sekisho={token}; HttpOnly; SameSite=Lax; Path=/")));
    assert!(!entered.header("location").unwrap().contains(&token));
    for path in ["/", "/_sekisho/me", "/_sekisho/logout", "/_sekisho/notice", "/missing", "/public/x"] {
        let answer = handset.get(path).await;
        assert!(answer.header("set-cookie").is_none(), "{path}");
        assert!(answer.headers.values().all(|value| !value.to_str().unwrap().contains(&token)), "{path}");
    }
    for received in harness.upstream.received() {
        assert!(received.headers.values().all(|value| !value.to_str().unwrap().contains(&token)));
    }
    for path in ["/v1/sessions", "/v1/accounts/alice", "/v1/bindings"] {
        assert!(!admin(&harness, Method::GET, path).await.to_string().contains(&token), "{path}");
    }
    let log = harness.finish_without(&[&token]).await;
    assert!(log.contains("\"path\":\"/_sekisho/me\""), "the access log was searched: {log}");
}

/// Behind a proxy of ours that ends TLS.
fn over_tls(harness: &Harness, tail: &str) -> Handset {
    let mut handset = harness.handset(Carrier::PrivateApn, tail);
    handset.extra = vec![
        ("X-Forwarded-For".to_owned(), handset.source.to_string()),
        ("X-Forwarded-Proto".to_owned(), "https".to_owned()),
    ];
    handset.source = "127.0.9.1".parse().unwrap();
    handset
}

#[tokio::test]
async fn over_tls_the_cookie_is_secure_and_the_hosts_own() {
    let harness = Harness::with(|config| config.replace("http://admin", "https://admin")).await;
    let code = harness.code("alice").await;
    let mut handset = over_tls(&harness, "a");
    let entered = handset.enrol("/", &code).await;
    let token = handset.cookies["__Host-sekisho"].clone();
    let expected = format!("__Host-sekisho={token}; HttpOnly; SameSite=Lax; Secure; Path=/");
    assert_eq!(entered.header("set-cookie"), Some(expected.as_str()));
    assert_eq!(entered.header("location"), Some("https://admin.example.jp/"));
    assert_lives(&mut handset).await;

    // The plain name counts for nothing over TLS.
    handset.cookies = [(COOKIE.to_owned(), token)].into();
    assert_eq!(handset.get_json("/").await.reason(), "sign-in-required");

    // In the clear nothing is asked, answered or set.
    let mut plain = harness.handset(Carrier::PrivateApn, "a");
    let moved = plain.get("/orders?page=2").await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (StatusCode::FOUND, Some("https://admin.example.jp/orders?page=2"))
    );
    assert!(moved.header("set-cookie").is_none());
    harness.finish().await;
}

#[tokio::test]
async fn the_secure_cookie_counts_for_nothing_in_the_clear() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::PrivateApn, "a", "alice").await;
    let token = handset.cookies.remove(COOKIE).unwrap();
    handset.cookies.insert("__Host-sekisho".to_owned(), token);
    assert_eq!(handset.get_json("/").await.reason(), "sign-in-required");
    harness.finish().await;
}

#[tokio::test]
async fn two_cookies_that_differ_are_no_session() {
    let harness = Harness::start().await;
    let mut victim = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let attacker = harness.signed_in(Carrier::Docomo, "b", "mallory").await;
    let (own, tossed) = (victim.cookies.remove(COOKIE).unwrap(), attacker.cookies[COOKIE].clone());
    let own_twice = format!("sekisho={own}; sekisho={own}");
    let (first, last) = (format!("sekisho={tossed}; sekisho={own}"), format!("sekisho={own}; a=b; sekisho={tossed}"));
    for (cookies, status) in [
        (vec![own_twice.as_str()], 200),
        (vec![&first], 401),
        (vec![&last], 401),
        (vec!["sekisho=x", &own_twice], 401),
        (vec!["sekisho=", &own_twice], 401),
        (vec!["sekisho_=x; xsekisho=y; Sekisho=z", &own_twice], 200),
    ] {
        let fields: Vec<_> = cookies.iter().map(|cookie| ("Cookie", *cookie)).collect();
        let answer = victim.send(Method::GET, "/", &fields, Bytes::new()).await;
        assert_eq!(answer.status.as_u16(), status, "{cookies:?}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_made_up_token_is_never_adopted() {
    let harness = Harness::start().await;
    for made_up in ["A".repeat(32), "x".to_owned(), String::new(), "A".repeat(4000)] {
        let mut handset = harness.handset(Carrier::Docomo, "a");
        handset.cookies.insert(COOKIE.to_owned(), made_up.clone());
        assert_ended(&mut handset).await;
        let link = handset.get("/").await.link("/_sekisho/login?");
        handset.cookies.insert(COOKIE.to_owned(), made_up.clone());
        let clicked = handset.get(&link).await;
        let entered = if clicked.status == StatusCode::FOUND {
            clicked
        } else {
            let code = harness.code("alice").await;
            handset.type_code(&clicked, &code).await
        };
        assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
        assert_ne!(handset.cookies[COOKIE], made_up);
        assert_lives(&mut handset).await;
        handset.cookies.insert(COOKIE.to_owned(), made_up);
        assert_ended(&mut handset).await;
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_stolen_cookie_ends_the_session_and_opens_nothing() {
    let harness = Harness::start().await;
    for (case, thief) in [
        ("another handset", |h: &Harness| h.handset(Carrier::SoftBank, "t")),
        ("another carrier's network", |h: &Harness| h.handset(Carrier::PrivateApn, "t")),
        ("another carrier's network, without an identifier", |h: &Harness| Handset {
            identifier: None,
            ..h.handset(Carrier::Docomo, "t")
        }),
        ("no carrier's network", |h: &Harness| Handset {
            source: "127.0.200.7".parse().unwrap(),
            identifier: None,
            ..h.handset(Carrier::SoftBank, "v")
        }),
        ("no carrier's network, with the right identifier", |h: &Harness| Handset {
            source: "127.0.200.7".parse().unwrap(),
            ..h.handset(Carrier::SoftBank, "v")
        }),
        ("no carrier's network, with fields that cannot be judged", |h: &Harness| Handset {
            source: "127.0.200.7".parse().unwrap(),
            extra: vec![("X_JPHONE_UID".to_owned(), CANARY.to_owned())],
            ..h.handset(Carrier::SoftBank, "v")
        }),
        ("a proxy of ours that forwards from outside", |h: &Harness| Handset {
            source: "127.0.9.1".parse().unwrap(),
            extra: vec![("X-Forwarded-For".to_owned(), "127.0.3.7, 203.0.113.5".to_owned())],
            ..h.handset(Carrier::SoftBank, "v")
        }),
        ("another carrier's field in the right network", |h: &Harness| Handset {
            identifier: None,
            extra: vec![("X-Device-Ref".to_owned(), Carrier::PrivateApn.identifier("t"))],
            ..h.handset(Carrier::SoftBank, "v")
        }),
    ] as [(&str, fn(&Harness) -> Handset); 8]
    {
        for path in ["/", "/public", "/_sekisho/me", "/_sekisho/logout"] {
            let mut victim = harness.handset(Carrier::SoftBank, "v");
            let clicked = victim.click_sign_in("/").await;
            if clicked.status != StatusCode::FOUND {
                let code = harness.code("alice").await;
                assert_eq!(victim.type_code(&clicked, &code).await.status, StatusCode::FOUND);
            }
            assert_lives(&mut victim).await;
            let before = harness.upstream.received().len();
            let mut thief = thief(&harness);
            thief.cookies.clone_from(&victim.cookies);
            let refused = thief.get_json(path).await;
            assert_eq!(
                (refused.status.as_u16(), &*refused.reason()),
                (403, "session-device-mismatch"),
                "{case} {path}"
            );
            assert_cleared(&refused);
            assert_eq!(harness.upstream.received().len(), before, "{case} {path}");
            assert_ended(&mut victim).await;
            harness.clock.advance(Duration::from_secs(30));
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_session_lives_within_its_network_with_or_without_the_identifier() {
    let harness = Harness::start().await;
    for (i, carrier) in Carrier::ALL.into_iter().enumerate() {
        let mut handset = harness.signed_in(carrier, "a", &format!("account-{i}")).await;
        handset.get("/?guid=ON").await;
        assert_lives(&mut handset).await;
        let identifier = handset.identifier.take();
        assert_lives(&mut handset).await;
        // Fields that cannot be judged say nothing of the device: refused, and the session stays.
        handset.extra.push((carrier.header().to_owned(), "QxCnry.".to_owned()));
        let refused = handset.get_json("/").await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (400, "malformed-identifier"), "{carrier:?}");
        handset.extra.clear();
        handset.identifier = identifier;
        // Another address of the same network, as carriers' gateways take turns.
        handset.source = match handset.source {
            std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::from(u32::from(v4) + 1).into(),
            other @ std::net::IpAddr::V6(_) => other,
        };
        assert_lives(&mut handset).await;
    }
    harness.finish().await;
}

#[tokio::test]
async fn signing_out_ends_the_session_by_post_and_never_by_get() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let form = handset.get("/_sekisho/logout").await;
    assert_eq!(form.status, StatusCode::OK);
    let token = form.hidden("t");
    for path in
        ["/_sekisho/logout".to_owned(), format!("/_sekisho/logout?t={token}"), "/_sekisho/me/sessions/end".to_owned()]
    {
        handset.get(&path).await;
        assert_lives(&mut handset).await;
    }
    let kept = handset.cookies.clone();
    let done = handset.post("/_sekisho/logout", &[("t", &token)]).await;
    assert_eq!(done.status, StatusCode::OK);
    assert_cleared(&done);
    assert!(!handset.has_session());
    handset.cookies.clone_from(&kept);
    assert_ended(&mut handset).await;
    handset.cookies = kept;
    assert_eq!(handset.post("/_sekisho/logout", &[("t", &token)]).await.status, StatusCode::UNAUTHORIZED);
    harness.finish().await;
}

#[tokio::test]
async fn operators_end_sessions_at_once_and_for_good() {
    for (case, method, path) in [
        ("binding", Method::DELETE, "/v1/bindings/{binding}"),
        ("session", Method::DELETE, "/v1/sessions/{session}"),
        ("all", Method::DELETE, "/v1/accounts/alice/sessions"),
        ("account", Method::POST, "/v1/accounts/alice/suspend"),
    ] {
        let harness = Harness::start().await;
        let mut handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
        let mut bob = harness.signed_in(Carrier::Docomo, "b", "bob").await;
        let binding = admin(&harness, Method::GET, "/v1/accounts/alice/bindings").await;
        let session = admin(&harness, Method::GET, "/v1/accounts/alice/sessions").await;
        let path = path.replace("{binding}", binding["bindings"][0]["id"].as_str().unwrap());
        let path = path.replace("{session}", session["sessions"][0]["id"].as_str().unwrap());
        admin(&harness, method, &path).await;
        let kept = handset.cookies.clone();
        assert_ended(&mut handset).await;
        assert_lives(&mut bob).await;

        let harness = harness.restart().await;
        handset.gateway = harness.address();
        bob.gateway = harness.address();
        handset.cookies = kept;
        assert_ended(&mut handset).await;
        assert_lives(&mut bob).await;
        handset.cookies.clear();
        let again = handset.click_sign_in("/").await;
        let comes_back = matches!(case, "session" | "all");
        assert_eq!(again.status == StatusCode::FOUND, comes_back, "{case}: {}", again.status);
        harness.finish().await;
    }
}

/// A sign-in that runs while its account is suspended either finds it suspended or is ended with the others.
#[tokio::test]
async fn no_session_slips_through_a_suspension() {
    let limits = "[limits]\nsign_in = \"10000/1m\"\nnetwork = \"10000/1m\"\n[store]";
    let harness = Harness::with(|config| {
        let config = with_session(&config, "per_account = 100");
        config.replace("[store]", limits)
    })
    .await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    for round in 0..5 {
        let mut clicks = JoinSet::new();
        for _ in 0..8 {
            let mut handset = harness.handset(Carrier::SoftBank, "a");
            let link = handset.get("/").await.link("/_sekisho/login?");
            clicks.spawn(async move {
                let clicked = handset.get(&link).await;
                assert!(matches!(clicked.status, StatusCode::FOUND | StatusCode::FORBIDDEN), "{}", clicked.status);
                handset
            });
        }
        // Once the first is in, the others are at any stage of it.
        let first = clicks.join_next().await.unwrap().unwrap();
        admin(&harness, Method::POST, "/v1/accounts/alice/suspend").await;
        let mut handsets = clicks.join_all().await;
        handsets.push(first);
        let open = admin(&harness, Method::GET, "/v1/accounts/alice/sessions").await;
        assert_eq!(open, serde_json::json!({"sessions": []}), "round {round}");
        for handset in &mut handsets {
            assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED, "round {round}");
        }
        admin(&harness, Method::POST, "/v1/accounts/alice/resume").await;
    }
    harness.finish().await;
}
