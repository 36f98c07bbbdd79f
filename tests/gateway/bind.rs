//! Console-driven enrolment: a console that may bind says whose handset sent the login that it accepted.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

use crate::harness::{Answer, Carrier, Handset, Harness, exchange};
use crate::recorder::Received;

/// A gateway whose console may bind, with a second upstream that may not.
async fn harness() -> Harness {
    with(|config| config).await
}

async fn with(edit: impl FnOnce(String) -> String) -> Harness {
    let harness = Harness::with(|config| {
        let console = "audience = \"https://console.internal\"\n";
        let other = config
            .lines()
            .find(|line| line.starts_with("servers = "))
            .map(|servers| {
                format!(
                    "[[upstream]]\nname = \"other\"\n{servers}\naudience = \"https://other.internal\"\n\
                     [[route]]\npath = \"/other\"\nupstream = \"other\"\naccess = \"login\"\n[binding]\n"
                )
            })
            .unwrap();
        edit(config.replace(console, &format!("{console}may_bind = true\n")).replace("[binding]\n", &other))
    })
    .await;
    harness.upstream.answer(console);
    harness
}

/// A console with a password of its own, that answers a right one with the status and fields that the form names.
fn console(request: &Received) -> Response<Full<Bytes>> {
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let field = |name: &str| {
        form_urlencoded::parse(form.as_bytes())
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.into_owned())
            .unwrap_or_default()
    };
    let status = match field("status").as_str() {
        "" => StatusCode::SEE_OTHER,
        status => status.parse().unwrap(),
    };
    let mut answer = Response::new(Full::new(Bytes::from_static(b"<html>console</html>")));
    if field("password") != "right" {
        return answer;
    }
    *answer.status_mut() = status;
    let fields = answer.headers_mut();
    fields.insert("location", HeaderValue::from_static("/"));
    fields.insert("cache-control", HeaderValue::from_static("public, max-age=60"));
    fields.append("set-cookie", HeaderValue::from_static("console=its-own; Path=/"));
    for (name, value) in
        form_urlencoded::parse(form.as_bytes()).filter(|(name, _)| name.to_lowercase().starts_with("sekisho"))
    {
        fields.append(HeaderName::try_from(&*name).unwrap(), HeaderValue::from_str(&value).unwrap());
    }
    answer
}

const SIGN_IN: &str = "/signin?guid=ON";

/// Types the right password of `account` into the console's form.
async fn log_in(handset: &mut Handset, target: &str, account: &str) -> Answer {
    handset.post(target, &[("password", "right"), ("Sekisho-Bind", account)]).await
}

/// The upstream's answer came as it was, without the header and without a session.
fn passed_without_a_session(answer: &Answer, what: &str) {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{what}: {}", answer.text());
    assert!(!session_cookie(answer), "{what}");
    no_header(answer, what);
}

fn no_header(answer: &Answer, what: &str) {
    let own = answer.headers.keys().find(|name| name.as_str().contains("bind"));
    assert!(own.is_none(), "{what}: {own:?} reached the client");
}

fn session_cookie(answer: &Answer) -> bool {
    answer.headers.get_all("set-cookie").iter().any(|v| v.as_bytes().starts_with(b"sekisho="))
}

async fn outcomes(harness: &Harness, outcome: &str) -> u64 {
    let request = http::Request::get("/metrics").header("Host", "localhost").body(Full::default()).unwrap();
    let text = exchange([127, 0, 0, 1].into(), harness.ops(), request).await.text();
    let line = format!("sekisho_console_bindings_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&line)).unwrap_or_else(|| panic!("{line} in {text}")).parse().unwrap()
}

async fn bindings(harness: &Harness) -> Vec<serde_json::Value> {
    let listed: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    listed["bindings"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_login_at_the_console_binds_and_signs_in_with_every_carrier() {
    let harness = harness().await;
    for (i, carrier) in Carrier::ALL.into_iter().enumerate() {
        let account = format!("account-{i}");
        let mut handset = harness.handset(carrier, "a");
        assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(handset.post(SIGN_IN, &[("password", "wrong")]).await.status, StatusCode::OK);
        assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED, "{carrier:?}: a wrong password");

        let answer = log_in(&mut handset, SIGN_IN, &account).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{carrier:?}: {}", answer.text());
        no_header(&answer, "good path");
        assert_eq!(answer.header("location"), Some("/"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(handset.cookies["console"], "its-own", "the console's own cookie stays");
        let received = harness.upstream.last();
        assert_eq!(received.target, "/signin");
        assert!(!received.headers.contains_key(carrier.header()), "{carrier:?}");

        assert_eq!(handset.get("/orders").await.status, StatusCode::OK);
        assert!(harness.upstream.last().headers.contains_key("sekisho-jwt-assertion"));
        // Bound for good: the next sign-in needs neither password nor code.
        handset.cookies.clear();
        assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND, "{carrier:?}");
    }
    assert_eq!(bindings(&harness).await.len(), 4);
    assert_eq!(outcomes(&harness, "bound").await, 4);
    harness.finish().await;
}

#[tokio::test]
async fn a_second_login_replaces_the_session_and_binds_nothing_anew() {
    let harness = harness().await;
    let mut handset = harness.signed_in(Carrier::Au, "a", "alice").await;
    let old = handset.cookies.clone();
    let answer = log_in(&mut handset, SIGN_IN, "alice").await;
    assert!(session_cookie(&answer));
    assert_ne!(handset.cookies["sekisho"], old["sekisho"]);
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    handset.cookies = old;
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED, "the old session ended");
    assert_eq!((bindings(&harness).await.len(), outcomes(&harness, "already-bound").await), (1, 1));
    harness.finish().await;
}

#[tokio::test]
async fn other_upstreams_and_other_routes_bind_nobody() {
    let harness = harness().await;
    let mut handset = harness.handset(Carrier::PrivateApn, "a");
    for target in ["/other", "/public"] {
        passed_without_a_session(&log_in(&mut handset, target, "alice").await, target);
    }
    assert_eq!(outcomes(&harness, "not-allowed").await, 2);
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
    assert!(bindings(&harness).await.is_empty());

    // On a session route: another handset's session goes on, nothing else is bound.
    let mut bound = harness.signed_in(Carrier::PrivateApn, "b", "bob").await;
    passed_without_a_session(&log_in(&mut bound, "/orders", "carol").await, "session route");
    assert_eq!((outcomes(&harness, "not-allowed").await, bindings(&harness).await.len()), (3, 1));
    assert_eq!(bound.get("/").await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_claim_that_is_not_one_account_binds_nobody() {
    let harness = harness().await;
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    let long = "a".repeat(65);
    let claims: [&[(&str, &str)]; 11] = [
        &[("Sekisho-Bind", "alice"), ("Sekisho-Bind", "alice")],
        &[("Sekisho-Bind", "alice"), ("Sekisho_Bind", "alice")],
        &[("Sekisho_Bind", "alice")],
        &[("sekisho.bind", "alice")],
        &[("Sekisho-Bind", "")],
        &[("Sekisho-Bind", "alice, bob")],
        &[("Sekisho-Bind", "a/b")],
        &[("Sekisho-Bind", "09012345678")],
        &[("Sekisho-Bind", "+81-90-1234-5678")],
        &[("Sekisho-Bind", "alice@example.jp")],
        &[("Sekisho-Bind", &long)],
    ];
    for claim in claims {
        let fields: Vec<_> = [("password", "right")].iter().chain(claim).copied().collect();
        passed_without_a_session(&handset.post(SIGN_IN, &fields).await, &format!("{claim:?}"));
    }
    // A login that failed, says the status, binds nobody either.
    let denied = [("password", "right"), ("status", "403"), ("Sekisho-Bind", "alice")];
    let answer = handset.post(SIGN_IN, &denied).await;
    assert!(answer.status == StatusCode::FORBIDDEN && !session_cookie(&answer));
    no_header(&answer, "403");
    assert_eq!(outcomes(&harness, "malformed").await, 12);
    assert!(bindings(&harness).await.is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn who_cannot_be_identified_reaches_the_console_and_no_session() {
    let harness = harness().await;
    let good = || harness.handset(Carrier::Docomo, "a");
    let mut elsewhere = good();
    elsewhere.source = [127, 0, 8, 8].into();
    let mut other_carrier = good();
    other_carrier.source = [127, 0, 2, 7].into();
    let mut silent = good();
    silent.identifier = None;
    let mut malformed = good();
    malformed.identifier = Some("QxCnry!".into());
    let mut twice = good();
    twice.extra.push(("X-DCMGUID".into(), "QxCnryb".into()));
    let mut crawler = good();
    crawler.user_agent = "DoCoMo/2.0 P07A3(c500;TB;W24H15) (compatible; Googlebot-Mobile/2.1)".into();
    let mut desktop = good();
    desktop.user_agent = Carrier::PrivateApn.user_agent().into();
    let mut unasked = good();
    unasked.extra.push(("X-DCMGUID".into(), "QxCnrya".into()));
    let cases = [
        ("outside every network", elsewhere, SIGN_IN),
        ("another carrier's network", other_carrier, SIGN_IN),
        ("no identifier", silent, SIGN_IN),
        ("malformed", malformed, SIGN_IN),
        ("two identifiers", twice, SIGN_IN),
        ("a crawler", crawler, SIGN_IN),
        ("another browser", desktop, SIGN_IN),
        ("not asked for", unasked, "/signin"),
    ];
    let count = cases.len() as u64;
    for (what, mut handset, target) in cases {
        passed_without_a_session(&log_in(&mut handset, target, "alice").await, what);
        assert_eq!(harness.upstream.last().target, "/signin", "{what}");
    }
    assert_eq!(outcomes(&harness, "not-identified").await, count);
    assert!(bindings(&harness).await.is_empty());
    // The very handset, told apart by nothing else, is bound.
    assert!(session_cookie(&log_in(&mut good(), SIGN_IN, "alice").await));
    harness.finish().await;
}

#[tokio::test]
async fn only_a_form_from_our_own_pages_is_a_click() {
    let harness = harness().await;
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://admin.example.jp:8080"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        let mut handset = harness.handset(Carrier::Au, "a");
        handset.extra.push((name.into(), value.into()));
        passed_without_a_session(&log_in(&mut handset, SIGN_IN, "mallory").await, value);
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let mut handset = harness.handset(Carrier::Au, "a");
        let body = Bytes::from_static(b"password=right&Sekisho-Bind=mallory");
        passed_without_a_session(&handset.send(method.clone(), SIGN_IN, &[], body).await, method.as_str());
    }
    assert_eq!(outcomes(&harness, "not-asked").await, 7);
    assert!(bindings(&harness).await.is_empty());

    let mut handset = harness.handset(Carrier::Au, "a");
    handset.extra.push(("Origin".into(), "http://admin.example.jp".into()));
    assert!(session_cookie(&log_in(&mut handset, SIGN_IN, "alice").await));
    harness.finish().await;
}

#[tokio::test]
async fn nobody_is_rebound_and_a_suspended_account_stays_out() {
    let harness = with(|config| config.replace("[binding]\n", "[binding]\nper_account = 1\n")).await;
    drop(harness.signed_in(Carrier::SoftBank, "a", "alice").await);
    let mut handset = harness.handset(Carrier::SoftBank, "a");
    passed_without_a_session(&log_in(&mut handset, SIGN_IN, "bob").await, "another account's handset");
    let bob = harness.admin().call::<serde_json::Value>(Method::GET, "/v1/accounts/bob").await;
    assert!(bob.is_err(), "a refusal creates no account: {bob:?}");
    let mut second = harness.handset(Carrier::SoftBank, "b");
    passed_without_a_session(&log_in(&mut second, SIGN_IN, "alice").await, "one handset too many");

    harness.admin().call::<serde_json::Value>(Method::POST, "/v1/accounts/alice/suspend").await.unwrap();
    for what in ["bound", "unbound"] {
        let mut handset = harness.handset(Carrier::SoftBank, if what == "bound" { "a" } else { "b" });
        passed_without_a_session(&log_in(&mut handset, SIGN_IN, "alice").await, what);
    }
    assert_eq!(outcomes(&harness, "refused").await, 4);
    let bound = bindings(&harness).await;
    assert_eq!((bound.len(), bound[0]["account"].as_str()), (1, Some("alice")));
    harness.finish().await;
}

#[tokio::test]
async fn a_handset_beyond_its_rate_waits_and_failed_logins_do_not_count() {
    let harness = with(|config| config.replace("[keys]\n", "[limits]\ncode = \"2/1h\"\n[keys]\n")).await;
    let mut handset = harness.handset(Carrier::Au, "a");
    for _ in 0..5 {
        assert_eq!(handset.post(SIGN_IN, &[("password", "wrong")]).await.status, StatusCode::OK);
    }
    for _ in 0..2 {
        assert!(session_cookie(&log_in(&mut handset, SIGN_IN, "alice").await));
    }
    let answer = log_in(&mut handset, SIGN_IN, "alice").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("retry-after"), Some("1800"));
    assert!(!session_cookie(&answer));
    no_header(&answer, "rate-limited");
    assert_eq!(outcomes(&harness, "rate-limited").await, 1);
    harness.finish().await;
}

#[tokio::test]
async fn a_store_that_fails_withholds_the_answer() {
    let harness = harness().await;
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    for (failures, table) in (1..).zip(["bindings", "sessions"]) {
        let mut handset = harness.handset(Carrier::PrivateApn, table.get(..1).unwrap());
        let broken = format!("CREATE TRIGGER broken BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'broken'); END");
        store.execute_batch(&broken).unwrap();
        let answer = log_in(&mut handset, SIGN_IN, "alice").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{table}");
        assert!(!answer.headers.contains_key("set-cookie"), "{table}: nothing of the console's login is shown");
        no_header(&answer, table);
        assert_eq!(outcomes(&harness, "failed").await, failures, "{table}");
        assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED, "{table}");

        store.execute_batch("DROP TRIGGER broken").unwrap();
        assert!(session_cookie(&log_in(&mut handset, SIGN_IN, "alice").await), "{table}");
    }
    drop(store);
    harness.finish().await;
}
