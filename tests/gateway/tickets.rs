//! The hand-over to TLS: identified in the clear, signed in over TLS, with a ticket in between.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::harness::{Answer, Carrier, Handset, Harness};

pub(crate) const PUBLIC: &str = "https://admin.example.jp";
pub(crate) const PLAIN: &str = "http://admin.example.jp";
/// The trusted proxy that ends TLS.
const PROXY: &str = "127.0.9.1";

async fn harness() -> Harness {
    Harness::with(|config| config.replace(PLAIN, PUBLIC)).await
}

/// The two sides of one handset: in the clear its carrier writes the identifier, over TLS nobody can.
pub(crate) struct Sides {
    pub(crate) clear: Handset,
    pub(crate) tls: Handset,
    /// All that was answered in the clear: what somebody on the line reads.
    overheard: String,
}

impl Sides {
    pub(crate) fn of(harness: &Harness, carrier: Carrier, tail: &str) -> Self {
        let clear = harness.handset(carrier, tail);
        Self { tls: over_tls(harness, carrier, tail), clear, overheard: String::new() }
    }

    fn overhear(&mut self, answer: Answer) -> Answer {
        self.overheard += &whole(&answer);
        answer
    }

    /// From the sign-in page over TLS, by a click, to the answer in the clear.
    async fn click(&mut self, path: &str) -> Answer {
        let page = self.tls.get(path).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{}", page.text());
        let link = page.link(&format!("{PLAIN}/_sekisho/login?"));
        let answer = self.clear.get(link.strip_prefix(PLAIN).unwrap()).await;
        self.overhear(answer)
    }

    /// Enrols, up to the ticket's URL.
    pub(crate) async fn enrol(&mut self, harness: &Harness, path: &str, account: &str) -> String {
        let code = harness.code(account).await;
        let page = self.click(path).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
        let action = page.attribute("action", &format!("{PLAIN}/_sekisho/enrol"));
        let (t, to) = (page.hidden("t"), page.hidden("to"));
        let answer =
            self.clear.post(action.strip_prefix(PLAIN).unwrap(), &[("code", &code), ("t", &t), ("to", &to)]).await;
        ticket(&self.overhear(answer))
    }

    /// Signs in once more, up to the ticket's URL.
    pub(crate) async fn ticket(&mut self) -> String {
        let answer = self.click("/").await;
        ticket(&answer)
    }
}

fn over_tls(harness: &Harness, carrier: Carrier, tail: &str) -> Handset {
    let mut handset = harness.handset(carrier, tail);
    handset.extra = vec![
        ("X-Forwarded-For".to_owned(), handset.source.to_string()),
        ("X-Forwarded-Proto".to_owned(), "https".to_owned()),
    ];
    handset.source = PROXY.parse().unwrap();
    handset.identifier = None;
    handset
}

/// The ticket's URL, without the origin. Nothing else of a session is in an answer in the clear.
fn ticket(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::FOUND, "{}", answer.text());
    assert!(answer.header("set-cookie").is_none(), "a cookie in the clear");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let location = answer.header("location").unwrap();
    let url = location.strip_prefix(PUBLIC).unwrap_or_else(|| panic!("not over TLS: {location}"));
    assert!(url.starts_with("/_sekisho/ticket?k="), "{url}");
    url.to_owned()
}

/// Head and body, as text.
fn whole(answer: &Answer) -> String {
    format!("{:?}{}", answer.headers, answer.text())
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.reason())
}

fn invalid() -> (u16, String) {
    (403, "ticket-invalid".to_owned())
}

#[tokio::test]
async fn what_is_identified_in_the_clear_signs_in_over_tls() {
    let harness = harness().await;
    for (carrier, account) in [(Carrier::Docomo, "alice"), (Carrier::Au, "bob"), (Carrier::SoftBank, "carol")] {
        let mut handset = Sides::of(&harness, carrier, "a");
        let url = handset.enrol(&harness, "/orders?page=2", account).await;
        let entered = handset.tls.get(&url).await;
        assert_eq!(entered.header("location"), Some("https://admin.example.jp/orders?page=2"));
        assert!(entered.header("set-cookie").unwrap().contains("; Secure; "));
        let token = handset.tls.cookies["__Host-sekisho"].clone();
        assert!(handset.overheard.contains(&url) && !handset.overheard.contains(&token), "{}", handset.overheard);
        assert_eq!(handset.tls.get("/orders").await.status, StatusCode::OK);
        assert!(!handset.clear.has_session());

        // Once more, as a handset that is known; the earlier session of this browser ends.
        let again = handset.ticket_of_another_browser(&harness, carrier).await;
        let mut second = over_tls(&harness, carrier, "a");
        assert_eq!(second.get(&again).await.status, StatusCode::FOUND);
        assert_eq!(second.get("/").await.status, StatusCode::OK);
    }
    harness.finish().await;
}

impl Sides {
    async fn ticket_of_another_browser(&mut self, harness: &Harness, carrier: Carrier) -> String {
        Self::of(harness, carrier, "a").ticket().await
    }
}

#[tokio::test]
async fn a_ticket_serves_once() {
    let harness = harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let mut second = over_tls(&harness, Carrier::Docomo, "a");
    assert_eq!(handset.tls.get(&url).await.status, StatusCode::FOUND);
    assert_eq!(refused(&second.get_json(&url).await), invalid());
    assert!(!second.has_session());

    let url = Sides::of(&harness, Carrier::Docomo, "a").ticket().await;
    let tries = (0..20).map(|_| {
        let mut browser = over_tls(&harness, Carrier::Docomo, "a");
        let url = url.clone();
        async move { browser.get_json(&url).await }
    });
    let answers = futures_util::future::join_all(tries).await;
    let won = answers.iter().filter(|answer| answer.status == StatusCode::FOUND).count();
    assert_eq!(won, 1);
    assert!(answers.iter().filter(|answer| answer.status != StatusCode::FOUND).all(|a| refused(a) == invalid()));
    harness.finish().await;
}

#[tokio::test]
async fn a_late_ticket_is_refused() {
    let harness = harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    harness.clock.advance(Duration::from_secs(59));
    assert_eq!(handset.tls.get(&url).await.status, StatusCode::FOUND);

    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    let url = handset.ticket().await;
    harness.clock.advance(Duration::from_mins(1));
    assert_eq!(refused(&handset.tls.get_json(&url).await), invalid());
    let page = handset.tls.get(&url).await;
    assert!(page.text().contains(&format!("{PLAIN}/_sekisho/login?")), "the way back is on the page: {}", page.text());
    harness.finish().await;
}

#[tokio::test]
async fn a_ticket_from_another_network_is_refused_and_spent() {
    let harness = harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    handset.enrol(&harness, "/", "alice").await;
    for carrier in [Carrier::Au, Carrier::PrivateApn] {
        let url = handset.ticket().await;
        assert_eq!(refused(&over_tls(&harness, carrier, "b").get_json(&url).await), invalid());
        assert_eq!(refused(&handset.tls.get_json(&url).await), invalid(), "it was spent elsewhere");
    }
    let url = handset.ticket().await;
    let mut nowhere = over_tls(&harness, Carrier::Docomo, "a");
    nowhere.extra[0].1 = "192.0.2.7".to_owned();
    assert_eq!(refused(&nowhere.get_json(&url).await), invalid());
    for made_up in
        ["", "k", "k=", "k=AAAA", "k=%00", &format!("k={}", "A".repeat(32)), &format!("k={}", "A".repeat(2000))]
    {
        let answer = handset.tls.get_json(&format!("/_sekisho/ticket?{made_up}")).await;
        assert_eq!(refused(&answer), invalid(), "{made_up}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn only_following_a_ticket_spends_it() {
    let harness = harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        let answer = handset.tls.send(method, &url, &[], bytes::Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let ahead = handset.tls.send(Method::GET, &url, &[("Sec-Purpose", "prefetch")], bytes::Bytes::new()).await;
    assert_eq!(ahead.status, StatusCode::FORBIDDEN);
    // In the clear it is only sent on.
    let mut clear = harness.handset(Carrier::Docomo, "a");
    let moved = clear.get(&url).await;
    assert_eq!(moved.header("location"), Some(&*format!("{PUBLIC}{url}")));
    assert!(!clear.has_session());
    assert_eq!(handset.tls.get(&url).await.status, StatusCode::FOUND);
    harness.finish().await;
}

#[tokio::test]
async fn what_was_revoked_on_the_way_opens_nothing() {
    let harness = harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    harness.admin().call::<serde_json::Value>(Method::POST, "/v1/accounts/alice/suspend").await.unwrap();
    let answer = handset.tls.get_json(&url).await;
    assert_eq!(refused(&answer), (403, "not-bound".to_owned()));
    assert!(!handset.tls.has_session());
    harness.finish().await;
}

#[tokio::test]
async fn nothing_of_a_ticket_is_logged_and_it_leads_nowhere_else() {
    let harness = harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let key = url.split(['=', '&']).nth(1).unwrap().to_owned();
    let led_astray = url.replace("to=/", "to=https%3A%2F%2Fevil.example%2F");
    let entered = handset.tls.get(&led_astray).await;
    assert_eq!(entered.header("location"), Some("https://admin.example.jp/"));
    let token = handset.tls.cookies["__Host-sekisho"].clone();
    let log = harness.finish_without(&[&key, &token]).await;
    assert!(log.contains("\"path\":\"/_sekisho/ticket\""), "the access log was searched: {log}");
}

/// A console with a password login that may bind, at `/signin`.
async fn binding_harness() -> Harness {
    let harness = Harness::with(|config| {
        let audience = "audience = \"https://console.internal\"\n";
        config.replace(PLAIN, PUBLIC).replace(audience, &format!("{audience}may_bind = true\n"))
    })
    .await;
    harness.upstream.answer(|request| {
        let mut answer = http::Response::new(http_body_util::Full::default());
        if request.target == "/signin" {
            *answer.status_mut() = StatusCode::SEE_OTHER;
            let account = String::from_utf8(request.body.to_vec()).unwrap().replace("account=", "");
            answer.headers_mut().insert("sekisho-bind", account.parse().unwrap());
            answer.headers_mut().insert("location", "/orders?page=2".parse().unwrap());
            answer.headers_mut().append("set-cookie", "console=its-own; Path=/".parse().unwrap());
        }
        answer
    });
    harness
}

/// Logs in at the console over TLS; the bind ticket's URL, without the origin.
async fn log_in(handset: &mut Sides, account: &str) -> String {
    let answer = handset.tls.post("/signin", &[("account", account)]).await;
    assert_eq!(answer.status, StatusCode::FOUND, "{}", answer.text());
    assert!(answer.header("sekisho-bind").is_none());
    let location = answer.header("location").unwrap();
    assert!(location.starts_with(&format!("{PLAIN}/_sekisho/bind?k=")), "{location}");
    location.strip_prefix(PLAIN).unwrap().to_owned()
}

#[tokio::test]
async fn a_login_at_the_console_over_tls_binds_in_the_clear_and_signs_in_over_tls() {
    let harness = binding_harness().await;
    for (carrier, account) in [(Carrier::Docomo, "alice"), (Carrier::Au, "bob")] {
        let mut handset = Sides::of(&harness, carrier, "a");
        let bind = log_in(&mut handset, account).await;
        assert_eq!(handset.tls.cookies["console"], "its-own", "the console's own cookie stays");
        assert!(!handset.tls.cookies.contains_key("__Host-sekisho"), "not signed in before it is identified");
        let url = ticket(&handset.clear.get(&bind).await);
        let entered = handset.tls.get(&url).await;
        assert_eq!(entered.header("location"), Some("https://admin.example.jp/orders?page=2"));
        assert_eq!(handset.tls.get("/orders").await.status, StatusCode::OK);
        // Bound for good: the next sign-in needs neither password nor code.
        assert!(!Sides::of(&harness, carrier, "a").ticket().await.is_empty());
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_bind_ticket_serves_its_carrier_once() {
    let harness = binding_harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");

    // Another carrier's handset, a page elsewhere, a prefetch, HEAD, late, made up: nobody is bound.
    let bind = log_in(&mut handset, "alice").await;
    assert_eq!(refused(&harness.handset(Carrier::Au, "b").get_json(&bind).await), invalid());
    assert_eq!(refused(&handset.clear.get_json(&bind).await), invalid(), "it was spent elsewhere");
    let bind = log_in(&mut handset, "alice").await;
    harness.clock.advance(Duration::from_mins(1));
    assert_eq!(refused(&handset.clear.get_json(&bind).await), invalid());
    assert_eq!(refused(&handset.clear.get_json("/_sekisho/bind?k=AAAA&guid=ON").await), invalid());
    let bind = log_in(&mut handset, "alice").await;
    for fields in [[("Referer", "http://evil.example/")], [("Sec-Purpose", "prefetch")]] {
        let answer = handset.clear.send(Method::GET, &bind, &fields, bytes::Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{fields:?}");
    }
    let answer = handset.clear.send(Method::HEAD, &bind, &[], bytes::Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let listed: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    assert_eq!(listed["bindings"].as_array().unwrap().len(), 0);

    // None of them spent it.
    ticket(&handset.clear.get(&bind).await);
    assert_eq!(refused(&handset.clear.get_json(&bind).await), invalid());

    // A handset that is bound stays whose it is, and goes on without a session.
    let bind = log_in(&mut handset, "mallory").await;
    let answer = handset.clear.get(&bind).await;
    assert_eq!(answer.header("location"), Some("https://admin.example.jp/orders?page=2"));
    let listed: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    assert_eq!(listed["bindings"].as_array().unwrap().len(), 1);
    assert_eq!(listed["bindings"][0]["account"], "alice");
    harness.finish().await;
}

#[tokio::test]
async fn a_token_that_came_in_the_clear_is_not_said_again() {
    let harness = Harness::with(|config| {
        let config = config.replace(PLAIN, PUBLIC);
        config.replace("[binding]", "[session]\ntransport = \"url\"\n[binding]")
    })
    .await;
    let mut tls = over_tls(&harness, Carrier::PrivateApn, "a");
    tls.identifier = Some(Carrier::PrivateApn.identifier("a"));
    let code = harness.code("alice").await;
    let entered = tls.enrol("/orders", &code).await;
    let location = entered.header("location").unwrap();
    let (_, sk) = location.split_once("_sk=").unwrap_or_else(|| panic!("{location}"));
    assert_eq!(tls.get(&format!("/orders?_sk={sk}")).await.status, StatusCode::OK);

    let mut clear = harness.handset(Carrier::PrivateApn, "a");
    for (target, status, to) in [
        ("/orders?page=2&_sk=", 302, Some("/orders?page=2")),
        ("/orders?%5Fs%6B=", 302, Some("/orders")),
        ("/_sekisho/me?_sk=", 302, Some("/_sekisho/me")),
        ("/_sekisho/ticket?k=x&_sk=", 302, Some("/_sekisho/ticket?k=x")),
        ("/_sekisho/login?to=/&_sk=", 401, None),
        ("/_sekisho/enrol?_sk=", 401, None),
        ("/_sekisho/notice?_sk=", 200, None),
        ("/_sekisho/bind?_sk=", 403, None),
    ] {
        let answer = clear.get(&format!("{target}{sk}")).await;
        assert_eq!(answer.status.as_u16(), status, "{target}");
        assert_eq!(answer.header("location"), to.map(|to| format!("{PUBLIC}{to}")).as_deref(), "{target}");
        assert!(!whole(&answer).contains(sk), "{target}: {}", whole(&answer));
        assert!(answer.header("set-cookie").is_none(), "{target}: not even a probe crosses to TLS");
    }
    assert_eq!(tls.get(&format!("/orders?_sk={sk}")).await.status, StatusCode::OK, "the session lives on");
    harness.finish_without(&[sk]).await;
}

/// Browsers that are older than TLS 1.2.
const OLD: [(Carrier, &str); 4] = [
    (Carrier::Docomo, "DoCoMo/1.0/P503i/c10"),
    (Carrier::Docomo, "DoCoMo/2.0 P903i(c100;TB;W24H12)"),
    (Carrier::Au, "UP.Browser/3.01-HI01 UP.Link/3.4.5.2"),
    (Carrier::SoftBank, "J-PHONE/4.0/J-K51 KW/1.00"),
];

#[tokio::test]
async fn a_browser_that_cannot_follow_to_tls_is_told_so_in_the_clear() {
    let harness = harness().await;
    let told = (403, "tls-unsupported".to_owned());
    for (carrier, user_agent) in OLD {
        let mut handset = harness.handset(carrier, "a");
        user_agent.clone_into(&mut handset.user_agent);
        for target in
            ["/", "/public", "/orders?page=2", "/_sekisho/me", "/_sekisho/login", "/_sekisho/login?t=x&guid=ON"]
        {
            let answer = handset.get_json(target).await;
            assert_eq!(refused(&answer), told, "{user_agent} {target}");
            assert_eq!(answer.header("location"), None);
        }
        for method in [Method::POST, Method::PUT] {
            let answer = handset.send(method, "/signin", &[("Accept", "application/json")], bytes::Bytes::new()).await;
            assert_eq!(refused(&answer), told, "{user_agent}");
        }
        let page = handset.get("/").await;
        assert_eq!(page.header("content-type"), Some("text/html; charset=Shift_JIS"), "{user_agent}");
        assert!(page.text().contains("TLS 1.2"), "{}", page.text());
        assert!(!page.text().contains("/_sekisho/login?"), "no button that leads into a wall: {}", page.text());
        assert_eq!(handset.get("/_sekisho/notice").await.status, StatusCode::OK);
    }
    // Who may be newer is sent on.
    for carrier in Carrier::ALL {
        let answer = harness.handset(carrier, "a").get("/orders").await;
        assert_eq!(answer.header("location"), Some("https://admin.example.jp/orders"), "{carrier:?}");
    }
    harness.finish().await;

    // Where sessions live in the clear, they are served.
    let harness = Harness::start().await;
    for (carrier, user_agent) in OLD {
        let mut handset = harness.handset(carrier, "a");
        user_agent.clone_into(&mut handset.user_agent);
        assert_eq!(refused(&handset.get_json("/").await), (401, "sign-in-required".to_owned()), "{user_agent}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn who_comes_over_tls_is_served_whatever_the_user_agent_says() {
    let harness = harness().await;
    let mut handset = Sides::of(&harness, Carrier::Docomo, "a");
    for side in [&mut handset.clear, &mut handset.tls] {
        "DoCoMo/2.0 P903i(c100;TB;W24H12)".clone_into(&mut side.user_agent);
    }
    let url = handset.enrol(&harness, "/orders", "alice").await;
    assert_eq!(handset.tls.get(&url).await.status, StatusCode::FOUND);
    assert_eq!(handset.tls.get("/orders").await.status, StatusCode::OK);
    harness.finish().await;
}
