//! The hand-over as it is deployed: a plain listener for the identifier, a TLS listener for the session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use rustls::ClientConfig;

use crate::harness::{Answer, Carrier, Handset, Harness};
use crate::wire::TestTls;

const PUBLIC: &str = "https://admin.example.jp";
const PLAIN: &str = "http://admin.example.jp";

async fn harness(tls: &TestTls) -> Harness {
    Harness::with(|config| tls.listening(&config.replace(PLAIN, PUBLIC))).await
}

/// The browser of a handset on its two connections: in the clear its carrier's gateway writes the identifier, into TLS
/// nobody can.
struct Browser {
    clear: Handset,
    tls: Handset,
}

impl Browser {
    fn new(harness: &Harness, client: &Arc<ClientConfig>, carrier: Carrier, tail: &str) -> Self {
        let clear = harness.handset(carrier, tail);
        let mut tls = harness.handset(carrier, tail);
        (tls.gateway, tls.tls, tls.identifier) = (harness.tls_address(), Some(Arc::clone(client)), None);
        Self { clear, tls }
    }

    /// From the sign-in page over TLS, by its button, to the answer in the clear.
    async fn click(&mut self, path: &str) -> Answer {
        let page = self.tls.get(path).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{}", page.text());
        self.follow(&page).await
    }

    /// Clicks the button of a page that came over TLS.
    async fn follow(&mut self, page: &Answer) -> Answer {
        let link = page.link(&format!("{PLAIN}/_sekisho/login?"));
        let answer = self.clear.get(link.strip_prefix(PLAIN).unwrap()).await;
        assert!(answer.headers.get("set-cookie").is_none() && !self.clear.has_session(), "a cookie in the clear");
        answer
    }

    /// Types the code into the form that came in the clear, as a browser that says which page it was on.
    async fn type_code(&mut self, page: &Answer, code: &str) -> Answer {
        let action = page.attribute("action", &format!("{PLAIN}/_sekisho/enrol"));
        let form = [("code", code), ("t", &page.hidden("t")), ("to", &page.hidden("to"))];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let fields = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", PLAIN)];
        let target = action.strip_prefix(PLAIN).unwrap();
        self.clear.send(Method::POST, target, &fields, Bytes::from(body)).await
    }

    /// The way of a new handset up to its ticket, without the origin.
    async fn enrol(&mut self, harness: &Harness, path: &str, account: &str) -> String {
        let code = harness.code(account).await;
        let page = self.click(path).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
        ticket(&self.type_code(&page, &code).await)
    }
}

fn ticket(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::FOUND, "{}", answer.text());
    let location = answer.header("location").unwrap();
    let url = location.strip_prefix(PUBLIC).unwrap_or_else(|| panic!("not over TLS: {location}"));
    assert!(url.starts_with("/_sekisho/ticket?k="), "{url}");
    url.to_owned()
}

fn invalid(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "ticket-invalid"));
    assert!(!answer.sets_session());
}

#[tokio::test]
async fn who_is_identified_in_the_clear_lives_over_tls() {
    let tls = TestTls::new();
    let harness = harness(&tls).await;
    for (client, carrier, account) in [
        (tls.http1(), Carrier::Docomo, "alice"),
        (tls.http2(), Carrier::Au, "bob"),
        (tls.http1(), Carrier::SoftBank, "c"),
    ] {
        let mut browser = Browser::new(&harness, &client, carrier, "a");
        let url = browser.enrol(&harness, "/orders?page=2", account).await;
        let entered = browser.tls.get(&url).await;
        assert_eq!(entered.header("location"), Some("https://admin.example.jp/orders?page=2"), "{}", entered.text());
        assert!(entered.header("set-cookie").unwrap().starts_with("__Host-sekisho="));
        assert_eq!(browser.tls.get("/orders?page=2").await.status, StatusCode::OK);
        assert_eq!(harness.upstream.last().headers["x-forwarded-proto"], "https");
        // The session is none in the clear, and the ticket none a second time.
        let copied = std::mem::replace(&mut browser.clear.cookies, browser.tls.cookies.clone());
        assert_eq!(browser.clear.get("/orders").await.header("location"), Some("https://admin.example.jp/orders"));
        browser.clear.cookies = copied;
        invalid(&Browser::new(&harness, &client, carrier, "a").tls.get_json(&url).await);
        assert_eq!(browser.tls.get("/").await.status, StatusCode::OK, "{account} stays signed in");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_ticket_that_is_late_or_from_another_carrier_opens_nothing() {
    let tls = TestTls::new();
    let harness = harness(&tls).await;
    let client = tls.http1();
    let mut browser = Browser::new(&harness, &client, Carrier::Docomo, "a");
    let url = browser.enrol(&harness, "/", "alice").await;
    harness.clock.advance(Duration::from_mins(1));
    invalid(&browser.tls.get_json(&url).await);

    for other in [Carrier::Au, Carrier::PrivateApn] {
        let url = ticket(&browser.click("/").await);
        invalid(&Browser::new(&harness, &client, other, "b").tls.get_json(&url).await);
        invalid(&browser.tls.get_json(&url).await);
    }
    let url = ticket(&browser.click("/").await);
    harness.clock.advance(Duration::from_millis(59_999));
    assert_eq!(browser.tls.get(&url).await.status, StatusCode::FOUND);
    harness.finish().await;
}

#[tokio::test]
async fn of_twenty_at_once_one_is_let_in() {
    let tls = TestTls::new();
    let harness = harness(&tls).await;
    let mut first = Browser::new(&harness, &tls.http1(), Carrier::Docomo, "a");
    let url = first.enrol(&harness, "/", "alice").await;
    let tries = (0..20).map(|n| {
        let client = if n % 2 == 0 { tls.http1() } else { tls.http2() };
        let mut browser = Browser::new(&harness, &client, Carrier::Docomo, "a").tls;
        let url = url.clone();
        async move {
            let answer = browser.get_json(&url).await;
            (answer, browser)
        }
    });
    let all = futures_util::future::join_all(tries).await;
    let (mut won, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(|(answer, _)| answer.status.is_redirection());
    assert_eq!((won.len(), lost.len()), (1, 19));
    for (answer, browser) in &lost {
        invalid(answer);
        assert!(!browser.has_session());
    }
    assert_eq!(won[0].1.get("/").await.status, StatusCode::OK);
    let sessions: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/alice/sessions").await.unwrap();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
    harness.finish().await;
}

#[tokio::test]
async fn a_binding_that_went_on_the_way_is_made_anew_in_the_clear() {
    let tls = TestTls::new();
    let harness = harness(&tls).await;
    let mut browser = Browser::new(&harness, &tls.http1(), Carrier::Docomo, "a");
    let url = browser.enrol(&harness, "/orders", "alice").await;
    let bindings: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    let id = bindings["bindings"][0]["id"].as_str().unwrap();
    harness.admin().call::<serde_json::Value>(Method::DELETE, &format!("/v1/bindings/{id}")).await.unwrap();

    // No form that posts from TLS into the clear, which browsers send without saying whose page it was on.
    let page = browser.tls.get(&url).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(!page.text().contains("<form") && !browser.tls.has_session(), "{}", page.text());
    let form = browser.follow(&page).await;
    let code = harness.code("alice").await;
    let url = ticket(&browser.type_code(&form, &code).await);
    let entered = browser.tls.get(&url).await;
    assert_eq!(entered.header("location"), Some("https://admin.example.jp/orders"), "{}", entered.text());
    assert_eq!(browser.tls.get("/orders").await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn where_tls_hides_the_identifier_a_handset_is_removed_after_a_sign_in_of_the_last_minutes() {
    let tls = TestTls::new();
    let harness = harness(&tls).await;
    let mut browser = Browser::new(&harness, &tls.http1(), Carrier::Docomo, "a");
    let url = browser.enrol(&harness, "/", "alice").await;
    browser.tls.get(&url).await;
    let bindings: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    let id = bindings["bindings"][0]["id"].as_str().unwrap().to_owned();

    harness.clock.advance(Duration::from_mins(10));
    let me = browser.tls.get("/_sekisho/me").await;
    for sure in ["", "1"] {
        let token = browser.tls.get("/_sekisho/me").await.hidden("t");
        let fields = [("t", token.as_str()), ("binding", &id), ("sure", sure)];
        let answer = browser.tls.post("/_sekisho/me/remove", &fields).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{sure} {}", answer.text());
        assert!(answer.link(&format!("{PLAIN}/_sekisho/login?")).contains("to=/_sekisho/me"), "{}", answer.text());
    }
    assert_eq!(me.status, StatusCode::OK);
    assert_eq!(browser.tls.get("/").await.status, StatusCode::OK, "the session is as it was");

    // Signed in anew, by the button of that page, it goes.
    let url = ticket(&Browser::new(&harness, &tls.http1(), Carrier::Docomo, "a").click("/_sekisho/me").await);
    assert!(browser.tls.get(&url).await.header("location").unwrap().ends_with("/_sekisho/me"));
    let me = browser.tls.get("/_sekisho/me").await;
    let fields = [("t", &*me.hidden("t")), ("binding", &id)];
    assert_eq!(browser.tls.post("/_sekisho/me/remove", &fields).await.status, StatusCode::OK);
    let bindings: serde_json::Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    assert_eq!(bindings["bindings"].as_array().unwrap().len(), 0);
    harness.finish().await;
}
