//! What a person is told at the next sign-in: another handset, a series of wrong PINs or codes; once.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::harness::{Answer, Carrier, Handset, Harness};
use crate::pin::{WRONG, asked, type_pin, with_pin, with_vault};

async fn harness() -> Harness {
    Harness::with(|config| {
        let limits = "[limits]\nnetwork = \"100000/1m\"\nsign_in = \"1000/1m\"\ncode = \"1000/1m\"\npin = \"100/1m\"";
        format!("{}\n{limits}\n", with_vault(&config))
    })
    .await
}

/// Signs in again; where that leads.
pub(crate) async fn signs_in(handset: &mut Handset, to: &str) -> String {
    handset.cookies.clear();
    let entered = handset.click_sign_in(to).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    entered.header("location").unwrap().strip_prefix("http://admin.example.jp").unwrap().to_owned()
}

async fn kinds(handset: &mut Handset, way: &str) -> Vec<String> {
    let answer = handset.get_json(way).await;
    let news = answer.json()["news"].as_array().unwrap().clone();
    news.iter().map(|news| format!("{} {}", news["kind"].as_str().unwrap(), news["carrier"])).collect()
}

fn shows(answer: &Answer, text: &str) -> bool {
    answer.text().contains(text)
}

#[tokio::test]
async fn another_handset_is_told_of_once_and_never_to_itself() {
    let harness = harness().await;
    let mut first = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    assert_eq!(signs_in(&mut first, "/orders?page=2").await, "/orders?page=2", "nothing to tell");
    let mut second = harness.signed_in(Carrier::SoftBank, "b", "alice").await;
    drop(harness.signed_in(Carrier::Au, "c", "bob").await);
    assert_eq!(signs_in(&mut second, "/").await, "/");
    let way = signs_in(&mut first, "/orders?page=2").await;
    assert_eq!(way, "/_sekisho/news?to=/orders%3Fpage%3D2");
    // What nobody reads is not told yet.
    first.send(Method::HEAD, &way, &[], Bytes::new()).await;
    first.send(Method::GET, &way, &[("Sec-Purpose", "prefetch")], Bytes::new()).await;
    // Nobody else sees it.
    let mut stranger = harness.handset(Carrier::Docomo, "z");
    assert_eq!(stranger.get(&way).await.status, StatusCode::UNAUTHORIZED);
    let mut bob = harness.handset(Carrier::Au, "c");
    assert_eq!(signs_in(&mut bob, "/").await, "/");
    let page = first.get(&way).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(shows(&page, "SoftBank") && shows(&page, "2026-11-24"), "{}", page.text());
    assert_eq!((page.link("/orders"), page.link("/_sekisho/me")), ("/orders?page=2".into(), "/_sekisho/me".into()));
    let again = first.get(&way).await;
    assert_eq!(
        (again.status, again.header("location")),
        (StatusCode::FOUND, Some("http://admin.example.jp/orders?page=2"))
    );
    assert_eq!(signs_in(&mut first, "/").await, "/");
    // The way there is a way on this host.
    let elsewhere = first.get("/_sekisho/news?to=//evil.example").await;
    assert_eq!(elsewhere.header("location"), Some("http://admin.example.jp/"));
    harness.finish().await;
}

#[tokio::test]
async fn a_series_of_wrong_tries_is_told_to_every_handset() {
    let harness = harness().await;
    let mut owner = with_pin(&harness, Carrier::Docomo, "a", "alice").await;
    let mut lost = harness.signed_in(Carrier::SoftBank, "b", "alice").await;
    let way = signs_in(&mut owner, "/").await;
    assert_eq!(kinds(&mut owner, &way).await, ["handset-bound \"softbank\""]);
    for _ in 0..4 {
        let page = asked(&mut lost).await;
        type_pin(&mut lost, &page, WRONG).await;
    }
    assert_eq!(signs_in(&mut owner, "/").await, "/", "four are no series");
    for _ in 0..6 {
        let page = asked(&mut lost).await;
        type_pin(&mut lost, &page, WRONG).await;
    }
    let code = harness.code("alice").await;
    let mut guesser = harness.handset(Carrier::Au, "g");
    let mut page = guesser.click_sign_in("/").await;
    for _ in 0..5 {
        let wrong = format!("{}-0000-0001", &code[..4]);
        page = guesser.type_code(&page, &wrong).await;
    }
    for handset in [&mut owner, &mut lost] {
        let way = signs_in(handset, "/").await;
        assert_eq!(kinds(handset, &way).await, ["wrong-pins \"softbank\"", "wrong-codes null"], "each once");
        assert_eq!(signs_in(handset, "/").await, "/");
    }
    harness.finish().await;
}
