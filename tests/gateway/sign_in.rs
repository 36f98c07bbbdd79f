//! Signing in: told before, asked by a click, identified by the network, remembered as a keyed hash.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::task::JoinSet;

use crate::harness::{Answer, Carrier, Handset, Harness};
use crate::logs;

#[tokio::test]
async fn every_carrier_signs_in_and_reaches_the_console() {
    let harness = Harness::start().await;
    for (i, carrier) in Carrier::ALL.into_iter().enumerate() {
        let account = format!("account-{i}");
        let mut handset = harness.signed_in(carrier, "a", &account).await;
        let console = handset.get("/orders?page=2").await;
        assert_eq!((console.status, console.text().as_str()), (StatusCode::OK, "<html>console</html>"), "{carrier:?}");
        let received = harness.upstream.last();
        assert_eq!(received.target, "/orders?page=2");
        assert!(received.headers.contains_key("sekisho-jwt-assertion"));
        assert!(!received.headers.contains_key(carrier.header()), "{carrier:?}");

        // Signed out and in again: the binding is there, no code is asked for.
        handset.cookies.clear();
        let entered = handset.click_sign_in("/orders").await;
        assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
        assert_eq!(entered.header("location"), Some("http://admin.example.jp/orders"));
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_plain_get_with_an_identifier_signs_nobody_in() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::Au, "a", "alice").await);
    let mut again = harness.handset(Carrier::Au, "a");
    for path in ["/", "/?guid=ON", "/_sekisho/login?to=/", "/_sekisho/login?to=/&t=AAAA"] {
        let answer = again.get(path).await;
        assert!(answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::FORBIDDEN, "{path}");
        assert!(!answer.sets_session(), "{path}");
    }
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn the_page_tells_before_anything_is_read() {
    let harness = Harness::start().await;
    let mut handset = harness.handset(Carrier::SoftBank, "b");
    let page = handset.get("/admin/users").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(page.header("www-authenticate").is_some());
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let text = page.text();
    for told in ["/_sekisho/notice", "Example KK", "400"] {
        assert!(text.contains(told), "{told} in {text}");
    }
    assert!(page.link("/_sekisho/login?").contains("to=/admin/users"));
    let json = handset.get_json("/admin/users").await;
    assert_eq!((json.status, json.reason().as_str()), (StatusCode::UNAUTHORIZED, "sign-in-required"));
    harness.finish().await;
}

/// A bound handset without a session, and the link of the button on its sign-in page.
async fn at_the_button(harness: &Harness) -> (Handset, String) {
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    let link = handset.get("/").await.link("/_sekisho/login?");
    (handset, link)
}

/// The sign-in page is back and nothing was opened.
fn assert_not_entered(answer: &Answer, status: u16, case: &str) {
    assert_eq!(answer.status.as_u16(), status, "{case}: {}", answer.text());
    assert!(!answer.sets_session(), "{case}");
    assert!(answer.header("location").is_none(), "{case}");
}

#[tokio::test]
async fn no_identifier_is_read_before_the_click() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    // Not a click: nothing is spent either, so that the click that comes after it counts.
    let (mut handset, link) = at_the_button(&harness).await;
    for (method, fields) in [
        (Method::GET, [("Sec-Fetch-Site", "cross-site")]),
        (Method::GET, [("Sec-Purpose", "prefetch")]),
        (Method::GET, [("Sec-Purpose", "prefetch;prerender")]),
        (Method::GET, [("Purpose", "prefetch")]),
        (Method::GET, [("X-Moz", "prefetch")]),
        (Method::HEAD, [("Sec-Fetch-Site", "same-origin")]),
    ] {
        let answer = handset.send(method.clone(), &link, &fields, Bytes::new()).await;
        assert_not_entered(&answer, 401, &format!("{method} {fields:?}"));
        if method == Method::GET {
            assert!(answer.text().contains("/_sekisho/login?"));
        }
    }
    // An identifier that would be refused is not even looked at.
    let identifier = handset.identifier.replace("QxCnry".to_owned());
    assert_eq!(handset.get_json("/_sekisho/login?to=/").await.reason(), "sign-in-required");
    assert_eq!(handset.get_json("/_sekisho/login?to=/&t=AAAA").await.reason(), "form-token-invalid");
    handset.identifier = identifier;
    let entered = handset.send(Method::GET, &link, &[("Sec-Fetch-Site", "same-origin")], Bytes::new()).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    harness.finish().await;
}

#[tokio::test]
async fn a_button_serves_its_browser_in_its_network_once_and_for_ten_minutes() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);

    let (mut handset, link) = at_the_button(&harness).await;
    assert_eq!(handset.get(&link).await.status, StatusCode::FOUND);
    handset.cookies.clear();
    assert_not_entered(&handset.get(&link).await, 403, "spent");

    let (_, link) = at_the_button(&harness).await;
    let mut clicks = JoinSet::new();
    for _ in 0..20 {
        let (mut handset, link) = (harness.handset(Carrier::SoftBank, "a"), link.clone());
        clicks.spawn(async move { handset.get(&link).await.status });
    }
    let statuses = clicks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::FOUND).count(), 1, "{statuses:?}");

    let (mut handset, link) = at_the_button(&harness).await;
    harness.clock.advance(Duration::from_mins(10));
    assert_not_entered(&handset.get(&link).await, 403, "expired");
    assert_eq!(handset.get_json(&link).await.reason(), "form-token-invalid");

    let (mut handset, link) = at_the_button(&harness).await;
    "SoftBank/1.0/831SH/SHJ002 Browser/NetFront/3.4 Profile/MIDP-2.0".clone_into(&mut handset.user_agent);
    assert_not_entered(&handset.get(&link).await, 403, "another browser's");

    // A profile whose browsers are any: the token is held to the network all the same.
    let (mut handset, link) = at_the_button(&harness).await;
    handset.source = harness.handset(Carrier::PrivateApn, "a").source;
    assert_not_entered(&handset.get(&link).await, 403, "another carrier's");

    let (mut handset, link) = at_the_button(&harness).await;
    let harness = harness.restart().await;
    handset.gateway = harness.address();
    assert_not_entered(&handset.get(&link).await, 403, "of the run before");
    harness.finish().await;
}

#[tokio::test]
async fn where_one_came_from_is_where_one_goes_on_and_nowhere_else() {
    let harness = Harness::start().await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    for (to, location) in [
        ("/orders?page=2%26sort=up", "/orders?page=2&sort=up"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/%5Cevil.example/", "/"),
        ("%5Cevil.example", "/"),
        ("/%0D%0ASet-Cookie:x=y", "/"),
        ("/_sekisho/logout", "/"),
        ("/_sekisho/me", "/_sekisho/me"),
        ("", "/"),
    ] {
        let (mut handset, link) = at_the_button(&harness).await;
        let link = link.replace("to=/&", &format!("to={to}&"));
        let entered = handset.get(&link).await;
        let expected = format!("http://admin.example.jp{location}");
        assert_eq!((entered.status, entered.header("location")), (StatusCode::FOUND, Some(expected.as_str())), "{to}");
        harness.clock.advance(Duration::from_secs(10));
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_place_to_go_on_to_may_be_as_long_as_the_browsers_urls_can_be_with_it() {
    let harness = Harness::start().await;
    let mut longest = Vec::new();
    for carrier in [Carrier::Au, Carrier::Docomo, Carrier::PrivateApn] {
        let code = harness.code(&format!("{carrier:?}")).await;
        assert_eq!(harness.handset(carrier, "a").enrol("/", &code).await.status, StatusCode::FOUND);
        let mut kept = 0;
        for length in (100..2100).step_by(10) {
            let wanted = format!("/list?q={}", "x".repeat(length - 8));
            let mut handset = harness.handset(carrier, "a");
            let link = handset.get(&wanted).await.link("/_sekisho/login");
            if link.contains("%3Fq") {
                kept = length;
            } else {
                assert!(link.contains("to=/list&"), "the path stays: {link}");
                break;
            }
        }
        let wanted = format!("/list?q={}", "x".repeat(kept - 8));
        let entered = harness.handset(carrier, "a").click_sign_in(&wanted).await;
        assert_eq!(entered.header("location"), Some(&*format!("http://admin.example.jp{wanted}")), "{carrier:?}");
        longest.push(kept);
    }
    // Of the 256, 512 and 2048 that they hold, less the origin, 69 of the link, `&guid=ON` where a carrier asks for that, and
    // the escapes of `?` and `=`.
    assert_eq!(longest, [160, 400, 1950]);
    harness.finish().await;
}

#[tokio::test]
async fn a_place_to_go_on_to_leaves_room_for_the_sign_in_in_the_urls_that_the_gateway_takes() {
    let harness = Harness::with(|config| {
        format!("{config}\n[limits]\nurl = \"512B\"\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\n")
    })
    .await;
    let code = harness.code("alice").await;
    assert_eq!(harness.handset(Carrier::PrivateApn, "a").enrol("/", &code).await.status, StatusCode::FOUND);
    let mut kept = 0;
    for length in (300..510).step_by(10) {
        let wanted = format!("/list?q={}", "x".repeat(length - 8));
        let entered = harness.handset(Carrier::PrivateApn, "a").click_sign_in(&wanted).await;
        assert_eq!(entered.status, StatusCode::FOUND, "{length}: {}", entered.text());
        let place = entered.header("location").unwrap().strip_prefix("http://admin.example.jp").unwrap();
        if place == wanted {
            kept = length;
        } else {
            assert_eq!(place, "/list", "the path stays");
        }
    }
    assert_eq!(kept, 430);
    harness.finish().await;
}

#[tokio::test]
async fn what_a_stranger_wrote_is_shown_as_text() {
    let harness = Harness::start().await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    for path in ["/a?q=\"><script>x</script>", "/a?q='><b>&#38;"] {
        let target = path.replace('<', "%3C").replace('>', "%3E").replace('"', "%22");
        let page = handset.get(&target).await;
        assert!(!page.text().contains("<script") && !page.text().contains("<b>&"), "{}", page.text());
        let to: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
        let link = page.link("/_sekisho/login?");
        let token = link.split_once("&t=").unwrap().1;
        let form = handset.get(&format!("/_sekisho/login?to={to}&t={token}")).await;
        assert_eq!(form.status, StatusCode::FORBIDDEN);
        assert!(!form.text().contains("<script") && !form.text().contains("'><b>"), "{}", form.text());
    }
    harness.finish().await;
}

#[tokio::test]
async fn the_same_text_in_two_carriers_is_two_handsets() {
    let harness = Harness::with(|config| {
        let other = "[carriers.other-apn]\nheader = \"X-Other-Ref\"\ngrammar = \"^[A-Za-z0-9_-]{22,64}$\"\n\
                     user_agent = \"any\"\nover_tls = \"accept\"\nnetworks = [\"127.0.5.0/24\"]\n[[upstream]]";
        config.replacen("[[upstream]]", other, 1)
    })
    .await;
    drop(harness.signed_in(Carrier::PrivateApn, "a", "alice").await);
    let mut other = harness.handset(Carrier::PrivateApn, "a");
    let identifier = other.identifier.take().unwrap();
    other.source = "127.0.5.7".parse().unwrap();
    other.extra.push(("X-Other-Ref".to_owned(), identifier));
    let clicked = other.click_sign_in("/").await;
    assert_eq!(clicked.status, StatusCode::FORBIDDEN);
    assert!(clicked.text().contains("/_sekisho/enrol"));
    harness.finish().await;
}

#[tokio::test]
async fn a_handset_and_an_account_sign_in_so_often_and_no_more() {
    let limits = "[limits]\nsign_in = \"3/1m\"\n[store]";
    let harness = Harness::with(|config| config.replace("[store]", limits)).await;
    let mut handsets = Vec::new();
    for tail in ["a", "b"] {
        handsets.push(harness.signed_in(Carrier::Docomo, tail, "alice").await);
    }
    harness.clock.advance(Duration::from_mins(1));
    let mut again = async |i: usize| {
        let handset: &mut Handset = &mut handsets[i];
        handset.cookies.clear();
        handset.click_sign_in("/").await
    };
    for i in [0, 0, 1] {
        assert_eq!(again(i).await.status, StatusCode::FOUND);
    }
    // The account's fourth, though only the second of this handset.
    let refused = again(1).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    harness.clock.advance(Duration::from_secs(20));
    assert_eq!(again(1).await.status, StatusCode::FOUND);

    // A handset that nobody knows has its own rate.
    let mut stranger = harness.handset(Carrier::Docomo, "c");
    for _ in 0..3 {
        assert_eq!(stranger.click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    }
    let refused = stranger.click_sign_in("/").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(harness.handset(Carrier::Docomo, "d").click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    harness.finish().await;
}

#[tokio::test]
async fn sign_ins_and_refusals_are_told_to_the_security_team() {
    let harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Docomo, "a", "told-of").await;
    let mut thief = harness.handset(Carrier::Docomo, "b");
    thief.cookies.clone_from(&handset.cookies);
    assert_eq!(thief.get("/?guid=ON").await.status, StatusCode::FORBIDDEN);
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
    let events = logs::security_events_of("told-of");
    let of = |line: &String| line.split("event=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let kinds: Vec<String> = events.iter().map(of).collect();
    assert_eq!(kinds, ["code-issued", "enrolled", "signed-in", "device-mismatch"], "{events:?}");
    for event in &events[1..] {
        assert!(event.contains("carrier=\"docomo\"") && event.contains("client=127.0.1.0/24"), "{event}");
    }
    let metrics = harness.metrics().await;
    assert!(metrics.contains("session-device-mismatch"), "{metrics}");
    harness.finish().await;
}
