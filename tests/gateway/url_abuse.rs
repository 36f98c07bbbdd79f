//! What strangers, old links and bad luck do with the URLs of sessions.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::harness::{Carrier, Handset, Harness};
use crate::url_sessions::{Cookieless, begun, harness, token, with};

/// A browser that is said to keep cookies, and has sent none: it gets its session both ways.
async fn in_both_ways(harness: &Harness, carrier: Carrier, tail: &str, account: &str) -> (Handset, String) {
    let mut handset = harness.handset(carrier, tail);
    let code = harness.code(account).await;
    let page = handset.get("/").await;
    handset.cookies.clear();
    let page = handset.get(&page.link("/_sekisho/login?")).await;
    let entered = handset.type_code(&page, &code).await;
    assert!(handset.cookies.contains_key("sekisho"), "{:?}", entered.headers);
    (handset, begun(&entered))
}

async fn transports(harness: &Harness, account: &str) -> Vec<String> {
    let path = format!("/v1/accounts/{account}/sessions");
    let sessions: serde_json::Value = harness.admin().call(Method::GET, &path).await.unwrap();
    let words = sessions["sessions"].as_array().unwrap().iter().map(|s| s["transport"].as_str().unwrap().to_owned());
    words.collect()
}

#[tokio::test]
async fn a_token_from_a_url_serves_in_no_cookie() {
    let harness = harness().await;
    // Of the same carrier, and without guid=ON the network says nothing of who asks.
    for (tail, account, both) in [("a", "alice", false), ("b", "bob", true)] {
        let (mut owner, url) = if both {
            in_both_ways(&harness, Carrier::Docomo, tail, account).await
        } else {
            let mut owner = Cookieless::new(&harness, Carrier::Docomo, tail);
            let url = owner.enrol(&harness, "/", account).await;
            (owner.into_handset(), url)
        };
        let mut thief = harness.handset(Carrier::Docomo, "z");
        thief.cookies = [("sekisho".to_owned(), token(&url))].into();
        for target in ["/", "/?guid=ON", url.as_str()] {
            let answer = thief.get_json(target).await;
            assert_eq!(
                (answer.status.as_u16(), answer.reason().as_str()),
                (401, "session-expired"),
                "{account} {target}"
            );
            assert!(!thief.has_session(), "it is given none either");
            thief.cookies = [("sekisho".to_owned(), token(&url))].into();
        }
        assert_eq!(owner.get(&url).await.status, StatusCode::OK, "{account}: its owner is not disturbed");
    }
    assert!(harness.upstream.received().iter().all(|r| r.headers.contains_key("sekisho-jwt-assertion")));
    harness.finish().await;
}

#[tokio::test]
async fn once_the_cookie_came_the_url_is_worth_nothing_for_good() {
    let harness = harness().await;
    let (mut handset, url) = in_both_ways(&harness, Carrier::Docomo, "a", "alice").await;
    let sk = token(&url);
    assert_ne!(handset.cookies["sekisho"], sk);
    assert_eq!(transports(&harness, "alice").await, ["url"]);
    // Without its cookie, twice: the links carry it.
    let kept = std::mem::take(&mut handset.cookies);
    assert_eq!(token(&handset.get(&url).await.link("/orders?")), sk);
    assert_eq!(handset.get(&url).await.status, StatusCode::OK);
    handset.cookies = kept.clone();
    let shown = handset.get(&url).await;
    assert!(shown.status == StatusCode::OK && !shown.text().contains("_sk="), "{}", shown.text());
    assert_eq!(transports(&harness, "alice").await, ["cookie"]);

    let harness = harness.restart().await;
    handset.gateway = harness.address();
    handset.cookies.clear();
    assert_eq!(handset.get_json(&url).await.reason(), "session-expired");
    assert_eq!(transports(&harness, "alice").await, ["cookie"]);
    handset.cookies = kept;
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    harness.finish_without(&[&sk]).await;
}

#[tokio::test]
async fn a_sign_in_takes_nothing_over_from_the_url_that_led_to_it() {
    let harness = harness().await;
    let mut attacker = Cookieless::new(&harness, Carrier::Docomo, "a");
    let lure = token(&attacker.enrol(&harness, "/", "mallory").await);
    let mut victim = Cookieless::new(&harness, Carrier::Docomo, "b");
    let mut old = token(&victim.enrol(&harness, "/", "alice").await);
    for (planted, in_button) in [(lure.clone(), false), (lure.clone(), true), (old.clone(), false), (old.clone(), true)]
    {
        // Without guid=ON nobody can tell yet whose handset it is.
        let page = victim.get(&format!("/orders?_sk={planted}")).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(!page.text().contains("_sk="), "{}", page.text());
        let button = page.link("/_sekisho/login?");
        let url = begun(&victim.get(&if in_button { format!("{button}&_sk={planted}") } else { button }).await);
        let new = token(&url);
        assert!(url.starts_with("/orders?") && new != planted && new != old, "{url}");
        assert_eq!(victim.get(&url).await.status, StatusCode::OK);
        old = new;
    }
    // Nor does a place to go to bring one along.
    let page = victim.get("/").await;
    let button = page.link("/_sekisho/login?").replace("to=/&", &format!("to=/orders%3F_sk%3D{lure}%26x%3D1&"));
    let url = begun(&victim.get(&button).await);
    assert!(!url.contains(&lure) && url.contains("x=1"), "{url}");
    let mut keeps = harness.signed_in(Carrier::Au, "c", "carol").await;
    keeps.cookies.remove("sekisho");
    let page = keeps.get("/").await;
    let button = page.link("/_sekisho/login?").replace("to=/&", &format!("to=/orders%3F_sk%3D{lure}%26x%3D1&"));
    assert_eq!(begun(&keeps.get(&button).await), "/orders?x=1");
    harness.finish().await;
}

#[tokio::test]
async fn a_handset_has_one_session_in_its_urls() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    let first = handset.enrol(&harness, "/", "alice").await;
    let page = handset.get("/").await;
    let second = begun(&handset.get(&page.link("/_sekisho/login?")).await);
    assert_eq!(handset.get_json(&first).await.reason(), "session-expired", "the browser's old session ended");
    assert_eq!(handset.get(&second).await.status, StatusCode::OK);
    assert_eq!(transports(&harness, "alice").await, ["url"]);
    harness.finish().await;
}

#[tokio::test]
async fn no_token_travels_in_the_clear_under_an_https_public_url() {
    let harness = with(|config| config.replace("public_url = \"http://", "public_url = \"https://")).await;
    let mut handset = harness.handset(Carrier::Docomo, "a");
    for key in ["_sk", "_SK", "%5Fsk", "_%73k", "%5f%73%6b"] {
        let moved = handset.get(&format!("/orders?page=2&{key}={}", "A".repeat(32))).await;
        assert_eq!(moved.header("location"), Some("https://admin.example.jp/orders?page=2"), "{key}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_browser_that_names_a_port_stays_on_the_site() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    handset.set_host("admin.example.jp:8080");
    let code = harness.code("alice").await;
    let page = handset.get("/orders").await;
    let page = handset.get(&page.link("/_sekisho/login?")).await;
    let entered = handset.type_code(&page, &code).await;
    let location = entered.header("location").unwrap();
    assert!(location.starts_with("http://admin.example.jp:8080/orders?_sk="), "{location}");
    harness.finish().await;
}

#[tokio::test]
async fn who_only_holds_the_url_does_not_keep_it_alive() {
    let harness = harness().await;
    let mut owner = Cookieless::new(&harness, Carrier::Docomo, "a");
    let url = owner.enrol(&harness, "/", "alice").await;
    let bare = url.replace("guid=ON&", "");
    for _ in 0..2 {
        harness.clock.advance(std::time::Duration::from_mins(20));
        let mut other = Cookieless::new(&harness, Carrier::Docomo, "z");
        let reason = other.get_json(&bare).await.reason();
        assert!(matches!(reason.as_str(), "sign-in-required" | "session-expired"), "{reason}");
    }
    assert_eq!(owner.get_json(&url).await.reason(), "session-expired");
    harness.finish().await;
}

#[tokio::test]
async fn one_of_many_at_once_is_signed_in_and_no_url_of_another_is_shown() {
    let harness = harness().await;
    let mut handsets = tokio::task::JoinSet::new();
    let mut codes = Vec::new();
    for i in 0..8 {
        codes.push(harness.code(&format!("account-{i}")).await);
    }
    for (i, code) in codes.into_iter().enumerate() {
        let mut handset = Cookieless::new(&harness, Carrier::SoftBank, &i.to_string());
        handsets.spawn(async move {
            let page = handset.get("/").await;
            let page = handset.get(&page.link("/_sekisho/login?")).await;
            let url = begun(&handset.type_code(&page, &code).await);
            let shown = handset.get(&url).await;
            assert_eq!(shown.status, StatusCode::OK);
            assert_eq!(token(&shown.link("/orders?")), token(&url));
            token(&url)
        });
    }
    let tokens: std::collections::BTreeSet<String> = handsets.join_all().await.into_iter().collect();
    assert_eq!(tokens.len(), 8);
    harness.finish_without(&tokens.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn an_upstream_sees_a_token_nowhere() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let sk = token(&url);
    let page = format!("http://admin.example.jp/orders?page=1&_%73k={sk}");
    for target in [format!("/a?_%73k={sk}&x=1"), format!("/a?x=1&_sk={sk}"), format!("/a?_sK={sk}&x=1")] {
        let fields = [("Referer", page.as_str()), ("Content-Type", "text/plain")];
        let answer = handset.send(Method::POST, &target, &fields, Bytes::from_static(b"body")).await;
        assert_eq!(answer.status, StatusCode::OK, "{target}");
        let received = harness.upstream.last();
        assert_eq!(received.target, "/a?x=1");
        assert_eq!(received.headers["referer"], "http://admin.example.jp/orders?page=1");
        assert!(!format!("{:?}", received.headers).contains(&sk));
    }
    harness.finish_without(&[&sk]).await;
}
