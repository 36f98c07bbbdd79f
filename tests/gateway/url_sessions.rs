//! Sessions of browsers that keep no cookies.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::harness::{Answer, Carrier, Handset, Harness};

/// A docomo browser of the first generation: it keeps no cookies.
const IMODE_1: &str = "DoCoMo/2.0 N2001(c10;ser0123456789abcde)";

/// A console with links of every kind.
pub(crate) async fn harness() -> Harness {
    with(|config| config).await
}

pub(crate) async fn with(edit: impl FnOnce(String) -> String) -> Harness {
    let harness = Harness::with(edit).await;
    harness.upstream.answer(|request| {
        let mut answer = Response::new(Full::new(Bytes::from_static(
            b"<html><body><a href=\"/orders?page=2\">next</a> <a href=\"http://www.example.com/x\">out</a>\
              <form method=\"get\" action=\"/find\"><input name=\"q\"></form></body></html>",
        )));
        answer.headers_mut().insert("content-type", "text/html; charset=Shift_JIS".parse().unwrap());
        if request.target.starts_with("/moved") {
            *answer.status_mut() = StatusCode::FOUND;
            answer.headers_mut().insert("location", "/orders".parse().unwrap());
        }
        answer
    });
    harness
}

/// A browser that drops every cookie.
pub(crate) struct Cookieless(Handset);

impl Cookieless {
    pub(crate) fn new(harness: &Harness, carrier: Carrier, tail: &str) -> Self {
        let mut handset = harness.handset(carrier, tail);
        if carrier == Carrier::Docomo {
            IMODE_1.clone_into(&mut handset.user_agent);
        }
        Self(handset)
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        let answer = self.0.get(target).await;
        self.0.cookies.clear();
        answer
    }

    pub(crate) async fn get_json(&mut self, target: &str) -> Answer {
        let answer = self.0.get_json(target).await;
        self.0.cookies.clear();
        answer
    }

    pub(crate) async fn send(&mut self, method: Method, target: &str, fields: &[(&str, &str)], body: Bytes) -> Answer {
        let answer = self.0.send(method, target, fields, body).await;
        self.0.cookies.clear();
        answer
    }

    pub(crate) async fn post(&mut self, target: &str, fields: &[(&str, &str)]) -> Answer {
        let answer = self.0.post(target, fields).await;
        self.0.cookies.clear();
        answer
    }

    pub(crate) fn set_user_agent(&mut self, user_agent: &str) {
        user_agent.clone_into(&mut self.0.user_agent);
    }

    pub(crate) async fn type_code(&mut self, page: &Answer, code: &str) -> Answer {
        let answer = self.0.type_code(page, code).await;
        self.0.cookies.clear();
        answer
    }

    pub(crate) fn set_host(&mut self, host: &str) {
        host.clone_into(&mut self.0.host);
    }

    /// From now on it keeps cookies.
    pub(crate) fn into_handset(self) -> Handset {
        self.0
    }

    /// From the sign-in page to the URL that the new session begins at.
    pub(crate) async fn enrol(&mut self, harness: &Harness, path: &str, account: &str) -> String {
        let code = harness.code(account).await;
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        let page = self.get(&page.link("/_sekisho/login?")).await;
        let entered = self.0.type_code(&page, &code).await;
        self.0.cookies.clear();
        begun(&entered)
    }
}

/// Where a new session begins, without the origin.
pub(crate) fn begun(entered: &Answer) -> String {
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    let location = entered.header("location").unwrap();
    location.strip_prefix("http://admin.example.jp").unwrap_or_else(|| panic!("{location}")).to_owned()
}

pub(crate) fn token(url: &str) -> String {
    let (_, rest) = url.split_once("_sk=").unwrap_or_else(|| panic!("no token in {url}"));
    rest.split(['&', '#']).next().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_without_cookies_walks_through_the_console_and_out() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::Docomo, "a");
    let code = harness.code("alice").await;
    let page = handset.get("/orders?page=1").await;
    assert!(page.header("set-cookie").is_none(), "it is known to keep none");
    assert!(!page.text().contains("_sk="), "no token before sign-in");
    let page = handset.get(&page.link("/_sekisho/login?")).await;
    let entered = handset.0.type_code(&page, &code).await;
    assert!(entered.header("set-cookie").is_none());
    let url = begun(&entered);
    assert!(url.starts_with("/orders?") && url.contains("page=1") && url.to_lowercase().contains("guid=on"), "{url}");
    let sk = token(&url);

    let shown = handset.get(&url).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.text());
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    let received = harness.upstream.last();
    assert_eq!(received.target, "/orders?page=1");
    assert_eq!(received.headers["accept-encoding"], "identity");
    assert!(received.headers.contains_key("sekisho-jwt-assertion"));

    let next = shown.link("/orders?");
    assert_eq!(token(&next), sk);
    assert!(next.to_lowercase().contains("guid=on") && next.contains("page=2"), "{next}");
    assert!(shown.text().contains("name=\"_sk\""), "a GET form carries it in a field: {}", shown.text());
    let out = shown.link("/_sekisho/leave?");
    assert!(!shown.text().contains("http://www.example.com/x\">out"), "{}", shown.text());
    assert!(!out.contains(&sk), "{out}");
    assert_eq!(handset.get(&next).await.status, StatusCode::OK);

    // Off the site by a page that knows no token.
    let leave = handset.get(&out).await;
    assert_eq!(leave.status, StatusCode::OK);
    assert!(leave.text().contains("href=\"http://www.example.com/x\""), "{}", leave.text());
    assert!(!leave.text().contains(&sk));
    assert!(leave.header("location").is_none());
    let changed = out.replace("www.example.com", "evil.example");
    assert_eq!(handset.get(&changed).await.status, StatusCode::FORBIDDEN);

    // A redirect of the console's keeps the session.
    let moved = handset.get(&format!("/moved?guid=ON&_sk={sk}")).await;
    assert_eq!(token(moved.header("location").unwrap()), sk);

    // Our own pages carry it too; signing out ends it.
    let me = handset.get(&format!("/_sekisho/me?guid=ON&_sk={sk}")).await;
    assert_eq!(me.status, StatusCode::OK, "{}", me.text());
    let out = handset.get(&me.link("/_sekisho/logout")).await;
    let action = out.attribute("action", "/_sekisho/logout");
    assert_eq!(token(&action), sk);
    let t = out.hidden("t");
    let done = handset.0.post(&action, &[("t", &t)]).await;
    assert!(done.status.is_success() || done.status.is_redirection(), "{}", done.text());
    assert!(!done.text().contains(&sk));
    assert_eq!(handset.get_json(&next).await.reason(), "session-expired");
    let log = harness.finish_without(&[&sk]).await;
    assert!(log.contains("\"path\":\"/orders\""));
}

#[tokio::test]
async fn whose_cookies_come_back_gets_a_cookie_and_whose_do_not_gets_both_or_a_url() {
    let harness = harness().await;
    // It sends the probe back.
    let mut keeps = harness.handset(Carrier::Au, "a");
    let code = harness.code("alice").await;
    let entered = keeps.enrol("/", &code).await;
    assert_eq!(begun(&entered), "/");
    assert!(keeps.cookies.contains_key("sekisho"));

    // It is said to keep cookies and did not: its person refuses them.
    let mut refuses = Cookieless::new(&harness, Carrier::Au, "b");
    let url = refuses.enrol(&harness, "/", "bob").await;
    let sk = token(&url);
    assert_eq!(refuses.get(&url).await.status, StatusCode::OK);

    let sessions: serde_json::Value = harness.admin().call(Method::GET, "/v1/accounts/bob/sessions").await.unwrap();
    assert_eq!(sessions["sessions"][0]["transport"], "url");
    harness.finish_without(&[&sk]).await;

    let harness = with(|config| format!("{config}\n[session]\ntransport = \"cookie\"\n")).await;
    let mut none = Cookieless::new(&harness, Carrier::Docomo, "a");
    let url = none.enrol(&harness, "/", "alice").await;
    assert_eq!(url, "/");
    harness.finish().await;

    let harness = with(|config| format!("{config}\n[session]\ntransport = \"url\"\n")).await;
    let mut handset = harness.handset(Carrier::Au, "a");
    let code = harness.code("alice").await;
    let entered = handset.enrol("/", &code).await;
    assert!(entered.header("set-cookie").is_none());
    token(&begun(&entered));
    harness.finish().await;
}

#[tokio::test]
async fn a_url_that_leaked_is_worth_nothing_elsewhere() {
    let harness = harness().await;
    for (tail, account, thief, reason) in [
        ("a", "alice", Carrier::Docomo, "session-device-mismatch"),
        ("b", "bob", Carrier::Au, "session-device-mismatch"),
        ("c", "carol", Carrier::PrivateApn, "session-device-mismatch"),
    ] {
        let mut handset = Cookieless::new(&harness, Carrier::Docomo, tail);
        let url = handset.enrol(&harness, "/", account).await;
        let mut other = Cookieless::new(&harness, thief, "z");
        let target = if url.contains("guid") { url.clone() } else { format!("{url}&guid=ON") };
        assert_eq!(other.get_json(&target).await.reason(), reason, "{account}");
        // It ended for its owner too.
        assert_eq!(handset.get_json(&url).await.reason(), "session-expired", "{account}");
    }
    // Without the identifier the sign-in page comes, and nothing ends.
    let mut handset = Cookieless::new(&harness, Carrier::Docomo, "d");
    let url = handset.enrol(&harness, "/", "dora").await;
    let bare = format!("/?_sk={}", token(&url));
    assert_eq!(handset.get_json(&bare).await.reason(), "sign-in-required");
    assert_eq!(handset.get(&url).await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_token_is_taken_from_one_place_and_from_us_alone() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let sk = token(&url);

    // Two are nobody's, a made-up one is nobody's, however the key is spelt.
    for two in [format!("_sk={sk}&_sk={sk}"), format!("_sk={sk}&%5Fsk={sk}"), format!("_sk={sk}&_sk=")] {
        let answer = handset.get_json(&format!("/?guid=ON&{two}")).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "malformed-request"), "{two}");
    }
    let made_up = "A".repeat(32);
    assert_eq!(handset.get_json(&format!("/?guid=ON&_sk={made_up}")).await.reason(), "session-expired");
    assert_eq!(handset.get_json("/?guid=ON&_sk=").await.reason(), "session-expired");
    let page = handset.get(&format!("/orders?guid=ON&_sk={made_up}")).await;
    assert!(!page.text().contains(&made_up), "a dead bookmark opens the sign-in page without its token");
    assert_eq!(handset.get(&format!("/?guid=ON&%5Fsk={sk}")).await.status, StatusCode::OK);
    assert_eq!(harness.upstream.last().target, "/");

    // A cookie goes first, even a dead one; a token of a cookie serves in no URL.
    let dead = [("Cookie", format!("sekisho={made_up}"))];
    let fields: Vec<_> = dead.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = handset.0.send(Method::GET, &url, &fields, Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let mut keeps = harness.signed_in(Carrier::Au, "b", "bob").await;
    let copied = keeps.cookies["sekisho"].clone();
    keeps.cookies.clear();
    assert_eq!(keeps.get_json(&format!("/?_sk={copied}")).await.reason(), "session-expired");

    // Nothing that a sign-in page was asked with is adopted.
    let mut fresh = Cookieless::new(&harness, Carrier::Docomo, "a");
    let page = fresh.get(&format!("/?_sk={made_up}")).await;
    let entered = fresh.get(&page.link("/_sekisho/login?")).await;
    let new = token(&begun(&entered));
    assert!(new != made_up && new != sk);
    harness.finish().await;
}

#[tokio::test]
async fn a_session_in_urls_survives_a_restart_and_ends_with_its_binding() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let harness = harness.restart().await;
    handset.0.gateway = harness.address();
    assert_eq!(handset.get(&url).await.status, StatusCode::OK);
    harness.admin().call::<serde_json::Value>(Method::POST, "/v1/accounts/alice/suspend").await.unwrap();
    assert_eq!(handset.get_json(&url).await.reason(), "session-expired");
    harness.finish().await;
}
