//! The forward-auth listener as a proxy meets it: the same decisions as the handset listener, in three statuses.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use sekisho::assertion::AssertionVerifier;
use sekisho::clock::Clock;
use sekisho::config::Serves;

use crate::harness::{Answer, Carrier, HOST, Handset, Harness, exchange};
use crate::pin::{PIN, asked, type_pin, with_pin, with_vault};

/// Where the proxy of these tests stands, one of `trusted_proxies`.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 1));
const ASSERTION: &str = "sekisho-jwt-assertion";

async fn harness() -> Harness {
    Harness::with(|config| with_listener(&config)).await
}

fn with_listener(config: &str) -> String {
    config.replace("[admin]", "[[listener]]\nserves = \"forward-auth\"\naddress = \"127.0.0.1:0\"\n\n[admin]")
}

/// What a proxy says of a request.
struct Question {
    method: Method,
    target: String,
    fields: Vec<(String, String)>,
    peer: IpAddr,
}

impl Question {
    /// As Caddy asks for a request of `handset`.
    fn of(handset: &Handset, target: &str) -> Self {
        let mut fields: Vec<(String, String)> = [
            ("Host", "sekisho.internal:9100"),
            ("X-Forwarded-For", &handset.source.to_string()),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", HOST),
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Uri", target),
            ("User-Agent", &handset.user_agent),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if let Some(identifier) = handset.identifier.as_ref().filter(|_| handset.carrier != Carrier::Docomo) {
            fields.push((handset.carrier.header().to_owned(), identifier.clone()));
        }
        for (name, value) in &handset.cookies {
            fields.push(("Cookie".to_owned(), format!("{name}={value}")));
        }
        Self { method: Method::GET, target: "/_sekisho/authorize".to_owned(), fields, peer: PROXY }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn and(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    async fn ask(self, harness: &Harness) -> Answer {
        let mut request = Request::builder().method(self.method).uri(self.target);
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        let answer =
            exchange(self.peer, harness.listener(Serves::ForwardAuth), request.body(Full::new(Bytes::new())).unwrap())
                .await;
        assert!(answer.body.is_empty(), "{}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let passes = answer.status == StatusCode::OK;
        assert_eq!(answer.header("sekisho-reason").is_none(), passes, "{:?}", answer.headers);
        assert!(passes || answer.header(ASSERTION).is_none());
        assert_eq!(answer.header("www-authenticate").is_some(), answer.status == StatusCode::UNAUTHORIZED);
        answer
    }

    async fn refusal(self, harness: &Harness) -> (u16, String) {
        let answer = self.ask(harness).await;
        (answer.status.as_u16(), answer.header("sekisho-reason").unwrap_or_default().to_owned())
    }
}

fn refused(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

#[tokio::test]
async fn a_session_passes_with_the_assertion_of_its_upstream() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    let jwks = alice.get("/_sekisho/jwks.json").await.text();
    let verifier = AssertionVerifier::new(&jwks, "http://admin.example.jp", "https://console.internal").unwrap();
    for (question, about) in [
        (Question::of(&alice, "/"), "as Caddy and Traefik ask"),
        (
            Question::of(&alice, "/")
                .without("X-Forwarded-Uri")
                .without("X-Forwarded-Method")
                .and("X-Original-URI", "/a?b=c"),
            "as nginx asks",
        ),
        (
            Question {
                target: "/_sekisho/authorize/a/b?c=d".to_owned(),
                method: Method::POST,
                ..Question::of(&alice, "/")
                    .without("X-Forwarded-Uri")
                    .without("X-Forwarded-Method")
                    .without("X-Forwarded-Host")
                    .set("Host", HOST)
            },
            "as Envoy asks",
        ),
    ] {
        let answer = question.ask(&harness).await;
        assert_eq!(answer.status, StatusCode::OK, "{about}");
        let claims = verifier.verify(answer.header(ASSERTION).unwrap(), harness.clock.now()).unwrap();
        assert_eq!(claims.aud, "https://console.internal", "{about}");
        assert_eq!(answer.headers.get_all(ASSERTION).iter().count(), 1);
    }
    // Elsewhere the same session is asserted too, and nobody needs one.
    let public = Question::of(&alice, "/public/x").ask(&harness).await;
    assert!(public.status == StatusCode::OK && public.header(ASSERTION).is_some());
    let mut nobody = harness.handset(Carrier::Au, "n");
    for path in ["/public", "/signin"] {
        let answer = Question::of(&nobody, path).ask(&harness).await;
        assert!(answer.status == StatusCode::OK && answer.header(ASSERTION).is_none(), "{path}");
    }
    nobody.cookies.insert("sekisho".into(), "A".repeat(32));
    assert_eq!(Question::of(&nobody, "/public").ask(&harness).await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn what_the_handset_listener_refuses_is_refused_with_its_reason() {
    let harness = harness().await;
    let alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    let stranger = harness.handset(Carrier::Au, "n");
    let mut gone = harness.handset(Carrier::Au, "g");
    gone.cookies.insert("sekisho".into(), "A".repeat(32));
    let of = |target| Question::of(&alice, target);
    for (question, expected) in [
        (Question::of(&stranger, "/"), refused(401, "sign-in-required")),
        (Question::of(&gone, "/"), refused(401, "session-expired")),
        (of("/a/..%2fpublic"), refused(403, "path-ambiguous")),
        (of("/_sekisho/me"), refused(403, "no-route")),
        (of("/_sekisho/login?t=x"), refused(403, "no-route")),
        (of("/").set("X-Forwarded-Host", "attacker.example"), refused(403, "host-not-allowed")),
        (of("/").and("X-Forwarded-Host", HOST), refused(403, "malformed-request")),
        (of("/").and("X-Original-URI", "/public"), refused(403, "malformed-request")),
        (of("/").without("X-Forwarded-Uri"), refused(403, "malformed-request")),
        (of("/").set("X-Forwarded-Method", "CONNECT"), refused(403, "method-not-allowed")),
        (of("/").without("X-Forwarded-For"), refused(403, "unknown-source-address")),
        (of("/").set("X-Forwarded-For", "unknown"), refused(403, "unknown-source-address")),
        (of("/").set("X-Forwarded-Uri", &format!("/{}", "a".repeat(9000))), refused(403, "url-too-long")),
        // Whatever a proxy takes itself: others than 401 and 403 it tells its client as a fault of its own.
        ((0..120).fold(of("/"), |asked, n| asked.and(&format!("X-{n}"), "1")), refused(403, "request-head-too-large")),
        (of("/").set("X-Large", &"a".repeat(40_000)), refused(403, "request-head-too-large")),
        (of("/?_sk=a&_sk=b"), refused(403, "malformed-request")),
        (
            of("/").and("Origin", "https://attacker.example").and("Sec-WebSocket-Key", "x"),
            refused(403, "foreign-origin"),
        ),
        // A console may switch without a key, and a proxy may say in its own words what it keeps from the question.
        (
            of("/").and("Connection", "Upgrade").and("Upgrade", "websocket").and("Origin", "http://evil.example"),
            refused(403, "foreign-origin"),
        ),
        (of("/").and("Upgrade", "x").and("Origin", "null"), refused(403, "foreign-origin")),
        (of("/").set("X-Forwarded-Proto", "ws").and("Origin", "null"), refused(403, "foreign-origin")),
        (Question::of(&alice, "/public").and("Upgrade", "x").and("Origin", "null"), refused(403, "foreign-origin")),
        (Question { target: "/".to_owned(), ..of("/") }, refused(403, "no-route")),
        (Question { target: "/_sekisho/notice".to_owned(), ..of("/") }, refused(403, "no-route")),
        // Not the proxy: what it says counts for nothing, whatever it says.
        (Question { peer: Ipv4Addr::LOCALHOST.into(), ..of("/") }, refused(403, "unknown-source-address")),
        (Question { peer: alice.source, ..of("/public") }, refused(403, "unknown-source-address")),
    ] {
        let about = format!("{} {:?}", question.target, question.fields.last());
        assert_eq!(question.refusal(&harness).await, expected, "{about}");
    }
    for passes in [
        of("/"),
        of("/").and("Upgrade", "websocket").and("Sec-WebSocket-Key", "x").and("Origin", &format!("http://{HOST}")),
        of("/").and("Upgrade", "websocket"),
        // What a page elsewhere may read of an answer is between its browser and the console.
        of("/").and("Origin", "http://evil.example"),
    ] {
        let about = format!("{:?}", passes.fields.last());
        assert_eq!(passes.ask(&harness).await.status, StatusCode::OK, "nothing of that ended the session: {about}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn another_device_ends_the_session_here_too() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    let other = harness.handset(Carrier::Au, "b").identifier.unwrap();
    let stolen = Question::of(&alice, "/").set(Carrier::Au.header(), &other);
    assert_eq!(stolen.refusal(&harness).await, refused(403, "session-device-mismatch"));
    assert_eq!(Question::of(&alice, "/").refusal(&harness).await, refused(401, "session-expired"));
    assert_eq!(alice.get("/").await.status, StatusCode::UNAUTHORIZED);
    let mut bob = harness.signed_in(Carrier::Au, "c", "bob").await;
    let elsewhere = Question::of(&bob, "/").set("X-Forwarded-For", "127.0.3.7");
    assert_eq!(elsewhere.refusal(&harness).await, refused(403, "session-device-mismatch"));
    assert_eq!(bob.get("/").await.status, StatusCode::UNAUTHORIZED);
    harness.finish().await;
}

#[tokio::test]
async fn a_session_is_used_and_ends_as_everywhere() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    for _ in 0..4 {
        harness.clock.advance(Duration::from_mins(20));
        assert_eq!(Question::of(&alice, "/").ask(&harness).await.status, StatusCode::OK);
    }
    let form = alice.get("/_sekisho/logout").await;
    let t = form.hidden("t");
    let before = alice.cookies.clone();
    assert_eq!(alice.post("/_sekisho/logout", &[("t", &t)]).await.status, StatusCode::OK);
    alice.cookies = before;
    assert_eq!(Question::of(&alice, "/").refusal(&harness).await, refused(401, "session-expired"));
    harness.finish().await;
}

#[tokio::test]
async fn a_route_that_asks_for_the_pin_is_refused_until_it_was_typed() {
    let harness = Harness::with(|config| with_vault(&with_listener(&config))).await;
    let mut alice = with_pin(&harness, Carrier::Au, "a", "alice").await;
    let plain = harness.signed_in(Carrier::Au, "b", "bob").await;
    let nobody = harness.handset(Carrier::Au, "n");
    for handset in [&alice, &plain] {
        assert_eq!(Question::of(handset, "/vault/7").refusal(&harness).await, refused(403, "pin-required"));
        assert_eq!(Question::of(handset, "/").ask(&harness).await.status, StatusCode::OK);
    }
    assert_eq!(Question::of(&nobody, "/vault").refusal(&harness).await, refused(401, "sign-in-required"));
    let before = Question::of(&alice, "/vault");
    let page = asked(&mut alice).await;
    assert_eq!(type_pin(&mut alice, &page, PIN).await.status, StatusCode::FOUND);
    assert_eq!(before.refusal(&harness).await, refused(401, "session-expired"), "the old token");
    let answer = Question::of(&alice, "/vault").ask(&harness).await;
    assert_eq!(answer.status, StatusCode::OK);
    let jwks = alice.get("/_sekisho/jwks.json").await.text();
    let verifier = AssertionVerifier::new(&jwks, "http://admin.example.jp", "https://console.internal").unwrap();
    let claims = verifier.verify(answer.header(ASSERTION).unwrap(), harness.clock.now()).unwrap();
    assert_eq!((claims.acr.as_str(), claims.amr.len()), ("urn:sekisho:acr:device+pin", 2));
    harness.finish().await;
}

#[tokio::test]
async fn a_token_in_a_url_is_no_session_where_nobody_keeps_it_from_the_upstream() {
    let harness = Harness::with(|config| format!("{}\n[session]\ntransport = \"url\"\n", with_listener(&config))).await;
    let mut alice = harness.handset(Carrier::Au, "a");
    let code = harness.code("alice").await;
    let entered = alice.enrol("/", &code).await;
    let target = entered.header("location").unwrap().strip_prefix("http://admin.example.jp").unwrap().to_owned();
    assert!(target.contains("_sk="));
    assert_eq!(Question::of(&alice, &target).refusal(&harness).await, refused(401, "sign-in-required"));
    assert_eq!(alice.get(&target).await.status, StatusCode::OK, "and it lives on");
    harness.finish().await;
}

#[tokio::test]
async fn in_the_clear_nothing_passes_where_sessions_live_over_tls() {
    let edit = |config: String| {
        with_listener(&config)
            .replace("public_url = \"http://", "plain_url = \"http://admin.example.jp\"\npublic_url = \"https://")
    };
    let harness = Harness::with(edit).await;
    let nobody = harness.handset(Carrier::Au, "a");
    for path in ["/", "/public"] {
        assert_eq!(Question::of(&nobody, path).refusal(&harness).await, refused(401, "sign-in-required"), "{path}");
    }
    let over_tls = Question::of(&nobody, "/public").set("X-Forwarded-Proto", "https").without(Carrier::Au.header());
    assert_eq!(over_tls.ask(&harness).await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_handset_listener_answers_no_such_question() {
    let harness = harness().await;
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    for path in ["/_sekisho/authorize", "/_sekisho/authorize/"] {
        let answer = alice.send(Method::GET, path, &[("X-Forwarded-Uri", "/public")], Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.header(ASSERTION).is_none());
    }
    harness.finish().await;
}
