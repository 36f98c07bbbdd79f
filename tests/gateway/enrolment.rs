//! Enrolment: one code binds one handset, and a wrong code says no more than that.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::task::JoinSet;

use crate::harness::{Answer, Carrier, Handset, Harness};

/// Many tries a handset, so that only the code's own counters are met.
async fn patient() -> Harness {
    Harness::with(|config| with_limits(&config, "code = \"1000/1h\"\nsign_in = \"1000/1m\"")).await
}

fn with_limits(config: &str, limits: &str) -> String {
    config.replace("[store]", &format!("[limits]\n{limits}\n[store]"))
}

/// Another code with the same first four digits.
fn wrong(code: &str) -> String {
    let secret = if code.ends_with("0000") { "1111-1111" } else { "0000-0000" };
    format!("{}-{secret}", &code[..4])
}

/// Types the wrong code so often, each time into the form that the answer brought.
async fn miss(handset: &mut Handset, code: &str, times: usize) {
    let mut page = handset.click_sign_in("/").await;
    for _ in 0..times {
        page = handset.type_code(&page, &wrong(code)).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
    }
}

/// The whole way of a new handset; the refusal as a script sees it.
async fn reason_of(handset: &mut Handset, code: &str) -> String {
    let page = handset.click_sign_in("/").await;
    handset.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    let refused = handset.type_code(&page, code).await;
    handset.extra.pop();
    assert!(refused.header("set-cookie").is_none(), "{}", refused.text());
    refused.reason()
}

async fn assert_enrols(handset: &mut Handset, code: &str) {
    let entered = handset.enrol("/", code).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_handset_is_asked_for_a_code_and_a_wrong_one_binds_nothing() {
    let harness = Harness::start().await;
    let code = harness.code("alice").await;
    let mut handset = harness.handset(Carrier::Docomo, "a");
    let page = handset.click_sign_in("/orders?page=2").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let refused = handset.type_code(&page, &wrong(&code)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.header("set-cookie").is_none());
    let entered = handset.type_code(&refused, &code).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(entered.header("location"), Some("http://admin.example.jp/orders?page=2"));
    assert_eq!(handset.get("/").await.status, StatusCode::OK);

    let mut thief = harness.handset(Carrier::Docomo, "b");
    assert_eq!(reason_of(&mut thief, &code).await, "code-invalid", "a code serves once");
    harness.finish_without(&[&code, &code.replace('-', ""), &code[5..]]).await;
}

#[tokio::test]
async fn a_handset_has_five_wrong_tries_and_takes_nobody_elses() {
    let harness = patient().await;
    let code = harness.code("alice").await;
    let mut guesser = harness.handset(Carrier::Docomo, "a");
    miss(&mut guesser, &code, 5).await;
    assert_eq!(reason_of(&mut guesser, &code).await, "code-invalid", "the right code comes too late");
    let mut unlucky = harness.handset(Carrier::SoftBank, "b");
    miss(&mut unlucky, &code, 4).await;
    assert_enrols(&mut unlucky, &code).await;

    let next = harness.code("bob").await;
    assert_enrols(&mut guesser, &next).await;
    harness.finish().await;
}

#[tokio::test]
async fn codes_and_the_tries_at_them_survive_a_restart() {
    let harness = patient().await;
    let code = harness.code("alice").await;
    let mut guesser = harness.handset(Carrier::Docomo, "a");
    miss(&mut guesser, &code, 5).await;
    let harness = harness.restart().await;
    guesser.gateway = harness.address();
    assert_eq!(reason_of(&mut guesser, &code).await, "code-invalid");
    assert_enrols(&mut harness.handset(Carrier::Docomo, "b"), &code).await;
    let harness = harness.restart().await;
    assert_eq!(reason_of(&mut harness.handset(Carrier::Docomo, "c"), &code).await, "code-invalid", "it stays spent");
    harness.finish().await;
}

#[tokio::test]
async fn a_code_has_twenty_wrong_tries_in_all() {
    let harness = patient().await;
    for (account, last, survives) in [("alice", 4, true), ("bob", 5, false)] {
        let code = harness.code(account).await;
        for (tail, times) in [("a", 5), ("b", 5), ("c", 5), ("d", last)] {
            miss(&mut harness.handset(Carrier::SoftBank, tail), &code, times).await;
        }
        let mut owner = harness.handset(Carrier::Docomo, &account[..1]);
        if survives {
            assert_enrols(&mut owner, &code).await;
        } else {
            assert_eq!(reason_of(&mut owner, &code).await, "code-invalid");
            let fresh = harness.code(account).await;
            assert_enrols(&mut owner, &fresh).await;
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn twenty_handsets_at_once_and_one_gets_in() {
    let harness = Harness::start().await;
    let code = harness.code("alice").await;
    let mut tries = JoinSet::new();
    for tail in "abcdefghijklmnopqrst".chars() {
        let mut handset = harness.handset(Carrier::Docomo, &tail.to_string());
        let (page, code) = (handset.click_sign_in("/").await, code.clone());
        tries.spawn(async move { handset.type_code(&page, &code).await.status });
    }
    let statuses = tries.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::FOUND).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::FORBIDDEN).count(), 19, "{statuses:?}");
    let bound: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/alice/bindings").await.unwrap();
    assert_eq!(bound["bindings"].as_array().unwrap().len(), 1);
    harness.finish().await;
}

#[tokio::test]
async fn one_handset_at_ten_accounts_at_once_becomes_one_account_s() {
    let harness = Harness::start().await;
    let mut forms = Vec::new();
    for account in 0..10 {
        let code = harness.code(&format!("account-{account}")).await;
        let mut browser = harness.handset(Carrier::SoftBank, "a");
        let page = browser.click_sign_in("/").await;
        forms.push(async move { browser.type_code(&page, &code).await.status });
    }
    let tries: JoinSet<_> = forms.into_iter().collect();
    let statuses = tries.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::FOUND).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::FORBIDDEN).count(), 9, "{statuses:?}");
    let bound: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    assert_eq!(bound["bindings"].as_array().unwrap().len(), 1);
    harness.finish().await;
}

#[tokio::test]
async fn a_code_lives_ten_minutes_and_until_the_next_of_its_account() {
    let harness = Harness::start().await;
    let minutes = |n: u64| Duration::from_mins(n);
    let in_time = harness.code("alice").await;
    harness.clock.advance(minutes(10));
    assert_enrols(&mut harness.handset(Carrier::Docomo, "a"), &in_time).await;

    let late = harness.code("bob").await;
    harness.clock.advance(minutes(10) + Duration::from_millis(1));
    assert_eq!(reason_of(&mut harness.handset(Carrier::Docomo, "b"), &late).await, "code-invalid");

    let (older, newer) = (harness.code("bob").await, harness.code("bob").await);
    let mut handset = harness.handset(Carrier::Docomo, "b");
    assert_eq!(reason_of(&mut handset, &older).await, "code-invalid");
    assert_enrols(&mut handset, &newer).await;
    harness.finish().await;
}

/// How a code may come from a Japanese keypad: the four groups of `1234-5678-9012` in other signs.
fn full_width(code: &str, separator: &str) -> String {
    let wide = |digit: char| char::from_u32(u32::from(digit) - u32::from('0') + u32::from('０')).unwrap();
    code.chars().map(|c| if c == '-' { separator.to_owned() } else { wide(c).to_string() }).collect()
}

/// Fills the form in as a browser does that was sent the page in `encoding`.
async fn type_in(handset: &mut Handset, page: &Answer, code: &str, encoding: &'static encoding_rs::Encoding) -> Answer {
    let (bytes, _, lossy) = encoding.encode(code);
    assert!(!lossy, "{code}");
    let code: String = form_urlencoded::byte_serialize(&bytes).collect();
    let body = format!("code={code}&t={}&to=%2F", page.hidden("t"));
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    handset.send(Method::POST, &page.attribute("action", "/_sekisho/enrol"), &kind, Bytes::from(body)).await
}

#[tokio::test]
async fn codes_are_taken_as_keypads_write_them_in_the_charset_of_the_page() {
    let harness = Harness::start().await;
    let (sjis, utf8) = (encoding_rs::SHIFT_JIS, encoding_rs::UTF_8);
    for (i, (carrier, user_agent, encoding)) in [
        (Carrier::Docomo, "DoCoMo/1.0/N503i/c10", sjis),
        (Carrier::Au, Carrier::Au.user_agent(), sjis),
        (Carrier::SoftBank, Carrier::SoftBank.user_agent(), utf8),
    ]
    .into_iter()
    .enumerate()
    {
        let styles: [fn(&str) -> String; 4] = [
            |code| full_width(code, "－"),
            |code| full_width(code, "ー"),
            |code| full_width(code, "\u{3000}"),
            |code| format!(" {} ", code.replace('-', "")),
        ];
        for (j, style) in styles.into_iter().enumerate() {
            let code = harness.code(&format!("account-{i}-{j}")).await;
            let mut handset = harness.handset(carrier, &j.to_string());
            user_agent.clone_into(&mut handset.user_agent);
            let page = handset.click_sign_in("/").await;
            let charset = format!("charset={}", encoding.name());
            assert!(page.header("content-type").unwrap().ends_with(&charset), "{carrier:?} {:?}", page.headers);
            let typed = style(&code);
            let entered = type_in(&mut handset, &page, &typed, encoding).await;
            assert_eq!(entered.status, StatusCode::FOUND, "{carrier:?} {typed}");
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_bound_handset_is_nobody_elses_and_an_account_has_its_fill() {
    let harness = Harness::with(|config| config.replace("[binding]", "[binding]\nper_account = 2")).await;
    let mut first = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    drop(harness.signed_in(Carrier::Docomo, "b", "alice").await);

    // The handset is alice's; bob's code does not move it, and is not spent by the try.
    let bobs = harness.code("bob").await;
    suspend(&harness, "alice", true).await;
    first.cookies.clear();
    assert_eq!(reason_of(&mut first, &bobs).await, "binding-limit");
    suspend(&harness, "alice", false).await;
    assert_enrols(&mut harness.handset(Carrier::Docomo, "c"), &bobs).await;

    // Alice has two handsets; a third needs one of them to go first.
    let third = harness.code("alice").await;
    let mut handset = harness.handset(Carrier::SoftBank, "d");
    assert_eq!(reason_of(&mut handset, &third).await, "binding-limit");
    let bound: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/alice/bindings").await.unwrap();
    let oldest = bound["bindings"][0]["id"].as_str().unwrap();
    let _: serde_json::Value = harness.admin().call(Method::DELETE, &format!("/v1/bindings/{oldest}")).await.unwrap();
    assert_enrols(&mut handset, &third).await;
    harness.finish().await;
}

async fn suspend(harness: &Harness, account: &str, suspended: bool) {
    let verb = if suspended { "suspend" } else { "resume" };
    let path = format!("/v1/accounts/{account}/{verb}");
    let _: serde_json::Value = harness.admin().call(Method::POST, &path).await.unwrap();
}

#[tokio::test]
async fn a_form_serves_the_handset_that_it_was_made_for_once_and_for_ten_minutes() {
    let harness = Harness::start().await;
    let code = harness.code("alice").await;
    let mut own = harness.handset(Carrier::SoftBank, "a");
    let page = own.click_sign_in("/").await;

    // Another handset of the same network and browser: login CSRF would post its own form from a victim's handset.
    let mut other = harness.handset(Carrier::SoftBank, "b");
    let refused = other.type_code(&page, &code).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text().contains("/_sekisho/login?"), "the sign-in page comes back");
    let json = [("code", code.as_str()), ("t", &page.hidden("t")), ("to", "/")];
    other.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    assert_eq!(other.post("/_sekisho/enrol", &json).await.reason(), "form-token-invalid");

    // The button's token is no token of the form, and none is none.
    let login = own.get("/").await.link("/_sekisho/login?");
    let button = login.split_once("&t=").unwrap().1.split('&').next().unwrap();
    own.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    for token in [button, "", "AAAA"] {
        let fields = [("code", code.as_str()), ("t", token), ("to", "/")];
        let refused = own.post("/_sekisho/enrol", &fields).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (403, "form-token-invalid"), "{token}");
    }
    own.extra.clear();

    // Spent by a wrong code; the page that comes back has another.
    let again = own.type_code(&page, &wrong(&code)).await;
    let spent = own.type_code(&page, &code).await;
    assert_eq!(spent.status, StatusCode::FORBIDDEN);
    assert!(spent.text().contains("/_sekisho/login?"));

    harness.clock.advance(Duration::from_mins(10));
    let code = harness.code("alice").await;
    let late = own.type_code(&again, &code).await;
    assert!(late.status == StatusCode::FORBIDDEN && late.text().contains("/_sekisho/login?"), "{}", late.text());
    assert_enrols(&mut own, &code).await;
    harness.finish().await;
}

#[tokio::test]
async fn the_identifier_is_read_again_from_the_post() {
    let harness = Harness::start().await;
    for (carrier, identifier, source, reason) in [
        (Carrier::SoftBank, None, None, "missing-identifier"),
        (Carrier::SoftBank, Some(Carrier::SoftBank.identifier("b")), None, "form-token-invalid"),
        (Carrier::SoftBank, Some("QxCnry".to_owned()), None, "malformed-identifier"),
        (Carrier::SoftBank, Some(Carrier::SoftBank.identifier("a")), Some("127.0.200.7"), "untrusted-network"),
        (Carrier::SoftBank, Some(Carrier::SoftBank.identifier("a")), Some("127.0.1.7"), "carrier-mismatch"),
    ] {
        let code = harness.code("alice").await;
        let mut handset = harness.handset(carrier, "a");
        let page = handset.click_sign_in("/").await;
        handset.identifier = identifier;
        if let Some(source) = source {
            handset.source = source.parse().unwrap();
        }
        handset.extra.push(("Accept".to_owned(), "application/json".to_owned()));
        assert_eq!(handset.type_code(&page, &code).await.reason(), reason);
    }
    // docomo's gateway writes it only where the form's action asks.
    let code = harness.code("alice").await;
    let mut handset = harness.handset(Carrier::Docomo, "a");
    let page = handset.click_sign_in("/").await;
    assert!(page.attribute("action", "/_sekisho/enrol").ends_with("guid=ON"));
    let fields = [("code", code.as_str()), ("t", &page.hidden("t")), ("to", "/")];
    handset.extra.push(("Accept".to_owned(), "application/json".to_owned()));
    assert_eq!(handset.post("/_sekisho/enrol", &fields).await.reason(), "missing-identifier");
    harness.finish().await;
}

fn assert_rate_limited(answer: &Answer, most: u64) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=most).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_handset_that_types_too_often_waits_and_nobody_else_does() {
    let harness = Harness::with(|config| with_limits(&config, "code = \"3/1h\"\nsign_in = \"100/1m\"")).await;
    let code = harness.code("alice").await;
    let mut hasty = harness.handset(Carrier::Docomo, "a");
    let mut page = hasty.click_sign_in("/").await;
    for _ in 0..3 {
        page = hasty.type_code(&page, &wrong(&code)).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
    }
    assert_rate_limited(&hasty.type_code(&page, &code).await, 1200);
    assert_eq!(reason_of(&mut hasty, &code).await, "rate-limited");
    assert_enrols(&mut harness.handset(Carrier::Docomo, "b"), &code).await;
    harness.clock.advance(Duration::from_mins(20));
    let code = harness.code("alice").await;
    assert_enrols(&mut hasty, &code).await;
    harness.finish().await;
}

#[tokio::test]
async fn a_network_beyond_its_rate_is_slowed_and_the_right_code_passes() {
    // The clock stands still: beyond the first four tries, each waits for the next quarter of a second.
    let harness = Harness::with(|config| with_limits(&config, "network = \"4/1s\"")).await;
    let turn = Duration::from_millis(240);
    let code = harness.code("alice").await;
    for tail in ["a", "b", "c", "d"] {
        assert_eq!(harness.handset(Carrier::Docomo, tail).click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    }
    let mut owner = harness.handset(Carrier::Docomo, "e");
    let started = Instant::now();
    let page = owner.click_sign_in("/").await;
    assert!(started.elapsed() >= turn, "a click of that network waits its turn");
    let started = Instant::now();
    let entered = owner.type_code(&page, &code).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert!(started.elapsed() >= turn, "so does a code");
    // Many at once are no way around it.
    let mut crowd = JoinSet::new();
    for tail in ["f", "g", "h", "i"] {
        let mut handset = harness.handset(Carrier::Docomo, tail);
        let link = handset.get("/").await.link("/_sekisho/login?");
        crowd.spawn(async move { handset.get(&link).await.status });
    }
    let started = Instant::now();
    assert!(crowd.join_all().await.iter().all(|status| *status == StatusCode::FORBIDDEN));
    assert!(started.elapsed() >= turn * 4, "{:?}", started.elapsed());

    harness.finish().await;
}

/// Status, fields and body, without what is new in each: the form token and the moment.
fn seen(answer: &Answer) -> (StatusCode, Vec<(String, String)>, String) {
    let mut fields: Vec<_> =
        answer.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    fields.retain(|(name, _)| name != "date");
    fields.sort();
    (answer.status, fields, answer.text().replace(&answer.hidden("t"), "TOKEN"))
}

#[tokio::test]
async fn unknown_suspended_and_revoked_handsets_hear_the_same() {
    let harness = patient().await;
    let mut suspended = harness.signed_in(Carrier::Docomo, "s", "sus").await;
    let mut revoked = harness.signed_in(Carrier::Docomo, "r", "rev").await;
    suspend(&harness, "sus", true).await;
    let bound: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/rev/bindings").await.unwrap();
    let id = bound["bindings"][0]["id"].as_str().unwrap();
    let _: serde_json::Value = harness.admin().call(Method::DELETE, &format!("/v1/bindings/{id}")).await.unwrap();

    let mut pages = Vec::new();
    for handset in [&mut harness.handset(Carrier::Docomo, "u"), &mut suspended, &mut revoked] {
        handset.cookies.clear();
        pages.push(handset.click_sign_in("/").await);
    }
    assert_eq!(pages[0].status, StatusCode::FORBIDDEN);
    assert_eq!(seen(&pages[0]), seen(&pages[1]), "suspended");
    assert_eq!(seen(&pages[0]), seen(&pages[2]), "revoked");

    // A wrong code, one of nobody, and the right code of a suspended account: one answer.
    let (wrong, of_suspended) = (wrong(&harness.code("new").await), harness.code("sus").await);
    let mut stranger = harness.handset(Carrier::Docomo, "v");
    let mut answers = Vec::new();
    for code in [wrong.as_str(), &of_suspended, "9999-9999-9999", "12", ""] {
        let page = stranger.click_sign_in("/").await;
        answers.push(stranger.type_code(&page, code).await);
    }
    for answer in &answers {
        assert_eq!(seen(answer), seen(&answers[0]));
    }

    suspend(&harness, "sus", false).await;
    suspended.cookies.clear();
    assert_eq!(suspended.click_sign_in("/").await.status, StatusCode::FOUND, "resumed");
    assert_eq!(suspended.get("/").await.status, StatusCode::OK);
    harness.finish().await;
}
