//! What people are told of their data: kept from the moment it is in force, and told once to who was told something else.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::forms_by_get::FIRST;
use crate::harness::{Carrier, Handset, Harness};
use crate::news::signs_in;
use crate::posture::{posture, standing};
use crate::url_sessions::{Cookieless, begun, token};

const NEWS: &str = "/_sekisho/news?to=/orders";

async fn harness() -> Harness {
    Harness::with(|config| {
        let limits = "[limits]\nnetwork = \"100000/1m\"\nsign_in = \"1000/1m\"\ncode = \"1000/1m\"";
        format!("{config}\n{limits}\n")
    })
    .await
}

fn kept_for(days: u32) -> impl FnOnce(String) -> String {
    move |config| config.replace("[binding]", &format!("[binding]\nretention = \"{days}d\""))
}

fn revised(config: &str) -> String {
    config.replace("2026-11-23", "2026-12-01")
}

async fn told(handset: &mut Handset) -> Value {
    let answer = handset.get_json(NEWS).await;
    answer.json()["notice"].clone()
}

fn headings(notice: &Value) -> Vec<String> {
    notice["changes"].as_array().unwrap().iter().map(|change| change["heading"].as_str().unwrap().to_owned()).collect()
}

async fn history(harness: &Harness) -> Vec<(u64, String, bool)> {
    let history: Value = harness.admin().call(Method::GET, "/v1/policy/history").await.unwrap();
    let one = |notice: &Value| {
        let revision = notice["revision"].as_str().unwrap().to_owned();
        (notice["id"].as_u64().unwrap(), revision, notice["in_force_until"].is_null())
    };
    history["notices"].as_array().unwrap().iter().map(one).collect()
}

fn day(days: u64) -> std::time::Duration {
    std::time::Duration::from_hours(24 * days)
}

#[tokio::test]
async fn former_notices_say_what_they_said() {
    let mut harness = harness().await;
    let mut anybody = harness.handset(Carrier::SoftBank, "z");
    let first = anybody.get("/_sekisho/notice").await.text();
    assert!(first.contains("400日") && !first.contains("revision="), "{first}");
    harness.clock.advance(day(2));
    harness.reload(|config| revised(&kept_for(30)(config))).await.unwrap();
    harness.clock.advance(day(1));
    // The same again is no revision, and a restart neither.
    harness.reload(|config| format!("{config}\n# the same\n")).await.unwrap();
    let mut harness = harness.restart().await;
    anybody.gateway = harness.address();
    let now = anybody.get("/_sekisho/notice").await;
    assert!(now.text().contains("30日使われない") && now.text().contains("2026-12-01"), "{}", now.text());
    let former = anybody.get(&now.link("/_sekisho/notice?revision=")).await;
    assert_eq!(former.status, StatusCode::OK);
    let text = former.text();
    for said in ["400日使われない", "2026-11-23", "2026-11-24から2026-11-26まで"] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert_eq!(former.link("/_sekisho/notice\""), "/_sekisho/notice");
    anybody.extra.push(("Accept-Language".to_owned(), "en".to_owned()));
    for named in ["1", "2026-11-23"] {
        let english = anybody.get(&format!("/_sekisho/notice?revision={named}")).await.text();
        assert!(english.contains("not used for 400 days") && english.contains("former notice"), "{english}");
    }
    for (named, status) in [
        ("2", 200),
        ("2026-12-01", 200),
        ("3", 404),
        ("0", 404),
        ("-1", 404),
        ("", 404),
        ("99999999999", 404),
        ("x", 404),
    ] {
        let answer = anybody.get(&format!("/_sekisho/notice?revision={named}")).await;
        assert_eq!(answer.status.as_u16(), status, "{named}: {}", answer.text());
        assert!(status != 200 || answer.text().contains("30 days"), "{named}");
    }
    let document = anybody.get_json("/_sekisho/notice").await.json();
    assert_eq!(document["earlier"][0]["revision"], "2026-11-23");
    assert_eq!((&document["notice"]["retention_days"], &document["former"]), (&30.into(), &Value::Null));

    // The operator's and the auditor's view of it.
    assert_eq!(history(&harness).await, [(2, "2026-12-01".to_owned(), true), (1, "2026-11-23".to_owned(), false)]);
    let one: Value = harness.admin().call(Method::GET, "/v1/policy/history/1").await.unwrap();
    assert_eq!(
        (&one["in_force_until"], &one["told"]["facts"]["retention_days"]),
        (&"2026-11-26T00:00:00Z".into(), &400.into())
    );
    let page: Value = harness.admin().call(Method::GET, "/v1/audit?after=0&limit=1000").await.unwrap();
    let changes = page["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "notice-change");
    let changes: Vec<_> = changes.map(|entry| entry["object"].as_str().unwrap().to_owned()).collect();
    assert_eq!(changes.len(), 2, "begun and done, once: {changes:?}");
    assert!(changes[0].starts_with("2026-12-01 ") && changes[0].len() == "2026-12-01 ".len() + 64, "{changes:?}");

    // Back to what was in force before: another time, under its old date.
    harness.reload(|config| config.replace("2026-12-01", "2026-11-23").replace("\"30d\"", "\"400d\"")).await.unwrap();
    assert_eq!(history(&harness).await.len(), 3);
    harness.finish().await;
}

#[tokio::test]
async fn a_changed_notice_is_told_once_to_each_handset_that_was_told_another() {
    let mut harness = harness().await;
    let mut first = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    let mut second = harness.signed_in(Carrier::SoftBank, "b", "alice").await;
    let mut idle = harness.signed_in(Carrier::Au, "c", "carol").await;
    assert_eq!(signs_in(&mut second, "/orders").await, "/orders");
    signs_in(&mut first, "/orders").await;
    first.get(NEWS).await; // of the second handset
    harness.reload(|config| revised(&kept_for(30)(config))).await.unwrap();
    let mut later = harness.signed_in(Carrier::PrivateApn, "d", "dora").await;
    assert_eq!(signs_in(&mut later, "/orders").await, "/orders", "the sign-in page told it");

    assert_eq!(signs_in(&mut first, "/orders").await, NEWS);
    // What nobody reads is not told yet; what is told survives a restart, in which nothing is told twice.
    first.send(Method::HEAD, NEWS, &[], Bytes::new()).await;
    let me = first.get_json("/_sekisho/me").await.json();
    assert_eq!(me["notice_revision"], "2026-11-23");
    let harness = harness.restart().await;
    for handset in [&mut first, &mut second, &mut idle, &mut later] {
        handset.gateway = harness.address();
    }
    assert_eq!(signs_in(&mut first, "/orders").await, NEWS);
    let page = first.get(NEWS).await;
    assert_eq!(page.status, StatusCode::OK);
    let text = page.text();
    for said in ["2026-11-24に変わりました", "30日使われない", "2026-12-01", "保存期間"] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert!(!text.contains("利用目的") && !text.contains("心当たり"), "{text}");
    assert_eq!((page.link("/orders"), page.link("/_sekisho/notice")), ("/orders".into(), "/_sekisho/notice".into()));
    assert_eq!(first.get(NEWS).await.status, StatusCode::FOUND);
    let harness = harness.restart().await;
    for handset in [&mut first, &mut second, &mut idle, &mut later] {
        handset.gateway = harness.address();
    }
    assert_eq!(signs_in(&mut first, "/orders").await, "/orders");
    assert_eq!(first.get_json("/_sekisho/me").await.json()["notice_revision"], "2026-12-01");
    assert!(first.get("/_sekisho/me").await.text().contains("2026-12-01改定"));

    // The account's other handset, in English, beside other news; many pages at once tell it once.
    second.extra.push(("Accept-Language".to_owned(), "en".to_owned()));
    drop(harness.signed_in(Carrier::PrivateApn, "e", "alice").await);
    assert_eq!(signs_in(&mut second, "/orders").await, NEWS);
    let once = second.get(NEWS).await.text();
    assert!(once.contains("not used for 30 days") && once.contains("was enrolled"), "{once}");
    signs_in(&mut idle, "/orders").await;
    let asking: Vec<_> = (0..6)
        .map(|_| {
            let mut same = harness.handset(Carrier::Au, "c");
            same.cookies = idle.cookies.clone();
            async move { same.get(NEWS).await.status }
        })
        .collect();
    let pages = join_all(asking).await;
    assert_eq!(pages.iter().filter(|status| **status == StatusCode::OK).count(), 1, "{pages:?}");

    let export: Value = harness.admin().call(Method::GET, "/v1/subjects/alice/export").await.unwrap();
    let bindings = export["items"].as_array().unwrap().iter().find(|item| item["kind"] == "bindings").unwrap();
    assert_eq!(bindings["records"][0]["notice_told"]["revision"], "2026-12-01", "{bindings}");
    harness.finish().await;
}

#[tokio::test]
async fn a_fact_that_changes_under_the_same_date_is_doubtful_and_told_all_the_same() {
    let mut harness = harness().await;
    let mut handset = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let reloaded = harness.reload(kept_for(30)).await.unwrap();
    let doubt = reloaded.warnings.iter().find(|warning| warning.contains("notice.revision"));
    assert!(doubt.is_some_and(|doubt| doubt.contains("binding.retention")), "{:?}", reloaded.warnings);
    assert_eq!(signs_in(&mut handset, "/orders").await, NEWS);
    assert_eq!(headings(&told(&mut handset).await), ["保存期間"]);
    // It stays doubtful until another day is written; that alone is news, too.
    let again = harness.reload(|config| format!("{config}\n# the same\n")).await.unwrap();
    assert!(again.warnings.iter().any(|warning| warning.contains("notice.revision")), "{:?}", again.warnings);
    assert_eq!(standing(&posture(&harness).await, "notice"), "broken");
    let dated = harness.reload(|config| revised(&config)).await.unwrap();
    assert_eq!(standing(&posture(&harness).await, "notice"), "kept");
    assert!(!dated.warnings.iter().any(|warning| warning.contains("notice.revision")), "{:?}", dated.warnings);
    assert_eq!(signs_in(&mut handset, "/orders").await, NEWS);
    let page = handset.get(NEWS).await.text();
    assert!(page.contains("改定日だけ") && page.contains("2026-12-01"), "{page}");
    // A configuration that is refused tells nobody anything.
    harness
        .reload(|config| config.replace("Example KK", "Another KK").replace("\"kek\"", "\"gone\""))
        .await
        .unwrap_err();
    assert_eq!(history(&harness).await.len(), 3);
    assert_eq!(signs_in(&mut handset, "/orders").await, "/orders");
    harness.reload(|config| config.replace("Example KK", "Another KK")).await.unwrap();
    signs_in(&mut handset, "/orders").await;
    let notice = told(&mut handset).await;
    assert_eq!(headings(&notice), ["取扱者"]);
    harness.finish().await;
}

#[tokio::test]
async fn nobody_is_read_under_a_notice_that_their_page_did_not_tell() {
    let mut harness = harness().await;
    let (code, mut handset) = (harness.code("alice").await, harness.handset(Carrier::SoftBank, "a"));
    let page = handset.get("/orders").await;
    let form = handset.click_sign_in("/orders").await;
    harness.reload(|config| config.replace("Example KK", "Another KK")).await.unwrap();
    let again = handset.get(&page.link("/_sekisho/login?")).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN);
    assert!(again.text().contains("Another KK"), "{}", again.text());
    let refused = handset.type_code(&form, &code).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text().contains("Another KK"), "{}", refused.text());
    let form = handset.get(&again.link("/_sekisho/login?")).await;
    assert_eq!(handset.type_code(&form, &code).await.status, StatusCode::FOUND, "the code was not spent");
    harness.finish().await;
}

#[tokio::test]
async fn it_is_told_without_cookies_and_in_shift_jis() {
    let mut harness = harness().await;
    let mut first = Cookieless::new(&harness, Carrier::Docomo, "a");
    first.enrol(&harness, "/", "alice").await;
    harness.reload(|config| revised(&kept_for(30)(config))).await.unwrap();
    let page = first.get("/orders").await;
    let news = begun(&first.get(&page.link("/_sekisho/login?")).await);
    assert!(news.starts_with("/_sekisho/news?") && news.contains("to=/orders") && news.contains("_sk="), "{news}");
    let page = first.get(&news).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert!(page.header("content-type").unwrap().contains("Shift_JIS"));
    assert!(page.text().contains("30日使われない"), "{}", page.text());
    let onward = page.link("/orders");
    assert_eq!(token(&onward), token(&news), "{onward}");
    assert_eq!(first.get(&onward).await.status, StatusCode::OK);
    let notice = first.get(&page.link("/_sekisho/notice")).await;
    let former = first.get(&notice.link("/_sekisho/notice?")).await;
    assert!(former.text().contains("400日使われない"), "{}", former.text());
    assert!(former.link("/_sekisho/me").contains("_sk="));
    assert_eq!(begun(&first.get(&news).await).split('?').next(), Some("/orders"), "once");

    // One of the first browsers, which cannot post.
    let mut oldest = harness.handset(Carrier::Docomo, "b");
    FIRST.clone_into(&mut oldest.user_agent);
    let page = oldest.get("/_sekisho/notice").await;
    let former = oldest.get(&page.link("/_sekisho/notice?revision=1")).await;
    assert!(former.text().starts_with("<html>") && former.text().contains("2026-11-23"), "{}", former.text());
    harness.finish().await;
}
