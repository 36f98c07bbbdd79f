//! Ways in and about of sessions in URLs: a console's own login, TLS, sockets, forms by GET, our own pages.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::forms_by_get::{FIRST, target};
use crate::harness::{Answer, Carrier, HOST, Handset, Harness};
use crate::upgrade::{HANDSHAKE, SWITCH};
use crate::url_sessions::{Cookieless, begun, harness, token};
use crate::wire::{PlayedUpstream, Wire};

#[tokio::test]
async fn a_login_at_the_console_gives_a_browser_without_cookies_its_session() {
    let audience = "audience = \"https://console.internal\"\n";
    let harness = Harness::with(|c| c.replace(audience, &format!("{audience}may_bind = true\n"))).await;
    harness.upstream.answer(|request| {
        let mut answer = Response::new(Full::new(Bytes::from_static(b"<a href=\"/orders\">next</a>")));
        answer.headers_mut().insert("content-type", "text/html; charset=UTF-8".parse().unwrap());
        if let Some(account) = request.body.strip_prefix(b"account=") {
            answer.headers_mut().insert("sekisho-bind", http::HeaderValue::from_bytes(account).unwrap());
        }
        if request.target.ends_with("?moved") {
            *answer.status_mut() = StatusCode::SEE_OTHER;
            answer.headers_mut().insert("location", "/orders".parse().unwrap());
        }
        answer
    });
    // It answers with a page, then with a redirect: the links of either carry the new session.
    let mut handset = Cookieless::new(&harness, Carrier::Docomo, "a");
    let shown = handset.post("/signin?guid=ON", &[("account", "alice")]).await;
    assert_eq!((shown.status, shown.header("set-cookie")), (StatusCode::OK, None));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    let first = shown.link("/orders?");
    assert_eq!(handset.get(&first).await.status, StatusCode::OK);
    let moved = handset.post(&format!("/signin?guid=ON&_sk={}&moved", token(&first)), &[("account", "alice")]).await;
    let second = moved.header("location").unwrap().to_owned();
    assert!(second.starts_with("/orders?guid=ON&_sk=") && second != first, "{second}");
    assert_eq!(handset.get_json(&first).await.reason(), "session-expired", "the session before it ended");
    assert_eq!(handset.get(&second).await.status, StatusCode::OK);

    // A login that fails changes nothing: its page still carries the session that there is.
    let failed = handset.post(&second.replace("/orders", "/signin"), &[("password", "wrong")]).await;
    assert_eq!(token(&failed.link("/orders?")), token(&second));
    harness.finish_without(&[&token(&first), &token(&second)]).await;
}

/// The TLS side of a handset, as a proxy that ends TLS passes it on; nobody can write an identifier there.
fn over_tls(harness: &Harness, carrier: Carrier, tail: &str, user_agent: &str) -> Handset {
    let mut handset = harness.handset(carrier, tail);
    handset.extra = vec![
        ("X-Forwarded-For".to_owned(), handset.source.to_string()),
        ("X-Forwarded-Proto".to_owned(), "https".to_owned()),
    ];
    handset.source = "127.0.9.1".parse().unwrap();
    handset.identifier = None;
    user_agent.clone_into(&mut handset.user_agent);
    handset
}

/// From the sign-in page over TLS by code and ticket to the answer that lets in.
async fn by_ticket(harness: &Harness, tls: &mut Handset, clear: &mut Handset, account: &str, keeps: bool) -> Answer {
    let code = harness.code(account).await;
    let page = tls.get("/orders").await;
    if !keeps {
        tls.cookies.clear();
    }
    let page = clear.get(page.link("http://admin.example.jp/_sekisho/login?").split_once(HOST).unwrap().1).await;
    let action = page.attribute("action", "http://admin.example.jp/_sekisho/enrol");
    let (t, to) = (page.hidden("t"), page.hidden("to"));
    let fields = [("code", code.as_str()), ("t", &t), ("to", &to)];
    let answer = clear.post(action.split_once(HOST).unwrap().1, &fields).await;
    let ticket = answer.header("location").unwrap().strip_prefix("https://admin.example.jp").unwrap().to_owned();
    tls.get_json(&ticket).await
}

#[tokio::test]
async fn where_tls_hides_the_identifier_a_cookie_is_required() {
    const IMODE: &str = "DoCoMo/2.0 N2001(c10;TB;W24H12)";
    for (allow, user_agent, keeps, expected) in [
        (false, IMODE, false, "refused"),
        (false, IMODE, true, "cookie"),
        (false, Carrier::Docomo.user_agent(), false, "cookie"),
        (true, IMODE, false, "url"),
        (true, IMODE, true, "cookie"),
        (true, Carrier::Docomo.user_agent(), false, "both"),
    ] {
        let case = format!("{allow} {user_agent} {keeps}");
        let harness = Harness::with(|config| {
            let config = config.replace("http://admin", "https://admin");
            if allow { format!("{config}\n[session]\nurl_over_tls = \"allow\"\n") } else { config }
        })
        .await;
        let mut tls = over_tls(&harness, Carrier::Docomo, "a", user_agent);
        let mut clear = harness.handset(Carrier::Docomo, "a");
        user_agent.clone_into(&mut clear.user_agent);
        let entered = by_ticket(&harness, &mut tls, &mut clear, "alice", keeps).await;
        assert!(!clear.has_session(), "{case}");
        if expected == "refused" {
            assert_eq!((entered.status.as_u16(), entered.reason().as_str()), (403, "cookies-required"), "{case}");
            let list: serde_json::Value =
                harness.admin().call(Method::GET, "/v1/accounts/alice/sessions").await.unwrap();
            assert_eq!(list["sessions"].as_array().unwrap().len(), 0, "nothing was opened");
            harness.finish().await;
            continue;
        }
        let location = entered.header("location").unwrap().to_owned();
        assert_eq!(location.contains("_sk="), expected == "url" || expected == "both", "{case}: {location}");
        assert_eq!(entered.sets_session(), expected == "cookie" || expected == "both", "{case}");
        assert!(location.starts_with("https://admin.example.jp/orders") && !location.contains("guid"), "{case}");
        if expected == "url" {
            // Nobody can show an identifier here: that is what the operator allowed.
            tls.cookies.clear();
            let url = location.split_once(HOST).unwrap().1;
            assert_eq!(tls.get(url).await.status, StatusCode::OK);
            let mut elsewhere = over_tls(&harness, Carrier::Au, "z", Carrier::Au.user_agent());
            assert_eq!(elsewhere.get_json(url).await.reason(), "session-device-mismatch");
            assert_eq!(tls.get_json(url).await.reason(), "session-expired");
        } else {
            assert_eq!(tls.get("/orders").await.status, StatusCode::OK, "{case}");
        }
        harness.finish().await;
    }
}

#[tokio::test]
async fn a_socket_opens_by_a_url_and_closes_with_its_session() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "session", "")).await;
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let handset = handset.into_handset();
    let mut client = Wire::connect(handset.source, harness.address()).await;
    let identity = format!("{}: {}\r\n", handset.carrier.header(), handset.identifier.as_deref().unwrap());
    let sk = token(&url);
    client.get(&format!("/played/ws?_sk={sk}"), &format!("{HANDSHAKE}{identity}Origin: http://{HOST}\r\n")).await;
    let mut server = upstream.accept().await;
    let seen = server.head().await;
    assert!(seen.starts_with("GET /played/ws HTTP/1.1\r\n") && !seen.contains(&sk), "{seen}");
    server.send(SWITCH).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.send("one").await;
    assert_eq!(server.exactly(3).await, b"one");
    let ended: serde_json::Value = harness.admin().call(Method::DELETE, "/v1/accounts/alice/sessions").await.unwrap();
    assert_eq!(ended["revoked"], 1, "{ended}");
    assert!(client.rest().await.is_empty() && server.rest().await.is_empty());
    harness.finish_without(&[&sk]).await;
}

#[tokio::test]
async fn a_browser_that_neither_posts_nor_keeps_cookies_does_everything_by_links() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::Docomo, "a");
    handset.set_user_agent(FIRST);
    let code = harness.code("alice").await;
    let page = handset.get("/orders").await;
    let page = handset.get(&page.link("/_sekisho/login?")).await;
    let url = begun(&handset.get(&target(&page, "/_sekisho/enrol", &[("code", &code)])).await);
    let sk = token(&url);
    assert_eq!(handset.get(&url).await.status, StatusCode::OK);

    let me = handset.get(&format!("/_sekisho/me?guid=ON&_sk={sk}")).await;
    let notice = handset.get(&me.link("/_sekisho/notice?")).await;
    assert_eq!(token(&notice.link("/_sekisho/me?")), sk, "the notice keeps the session of who reads it");
    // The link of its contact leads off the site.
    assert!(notice.link("/_sekisho/leave?").contains("example.jp/contact"), "{}", notice.text());
    let form = handset.get(&me.link("/_sekisho/logout?")).await;
    let sign_out = target(&form, "/_sekisho/logout", &[]);
    let spoilt = sign_out.replace("&t=", "&t=x");
    let refused = handset.get(&spoilt).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    assert_eq!(token(&refused.link("/?")), sk, "a form that was not taken does not cost the session");
    let done = handset.get(&sign_out).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    assert!(!done.text().contains("_sk="), "{}", done.text());
    assert_eq!(handset.get_json(&url).await.reason(), "session-expired");
    harness.finish_without(&[&sk]).await;
}

#[tokio::test]
async fn a_failure_behind_the_gateway_does_not_cost_the_session() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    harness.upstream.answer(|_| panic!("the upstream breaks off"));
    let failed = handset.get(&url).await;
    assert_eq!(failed.status, StatusCode::BAD_GATEWAY, "{}", failed.text());
    assert_eq!(token(&failed.link("/?")), token(&url));
    harness.finish().await;
}

#[tokio::test]
async fn a_form_for_another_site_leads_to_the_leave_page_whatever_it_sends() {
    let harness = harness().await;
    harness.upstream.answer(|_| {
        let page = "<form method=\"post\" action=\"http://www.example.com/x\"><input name=\"u\"></form>\
                    <form action=\"http://www.example.com/x\"><input name=\"u\"></form>";
        let answer = Response::builder().header("content-type", "text/html; charset=Shift_JIS");
        answer.body(Full::new(Bytes::from(page))).unwrap()
    });
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let shown = handset.get(&url).await;
    assert!(!shown.text().contains("_sk"), "{}", shown.text());
    let there = "href=\"http://www.example.com/x\" rel=\"noreferrer\"";
    // By POST, small, large, and of no type that a form has.
    let posts_to = shown.attribute("action", "/_sekisho/leave?");
    for (kind, size) in
        [("application/x-www-form-urlencoded", 20), ("multipart/form-data; boundary=x", 900_000), ("x", 0)]
    {
        let body = Bytes::from("x".repeat(size));
        let page = handset.send(Method::POST, &posts_to, &[("Content-Type", kind)], body).await;
        assert!(page.status == StatusCode::OK && page.text().contains(there), "{kind}: {}", page.text());
    }
    let foreign = [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")];
    let page = handset.send(Method::POST, &posts_to, &foreign, Bytes::new()).await;
    assert!(page.status == StatusCode::OK && page.header("location").is_none());
    // By GET, the fields that stand for the target go first, whatever the person typed.
    let text = shown.text();
    let form = text.split("<form ").nth(2).unwrap();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for field in form.split("<input type=\"hidden\" name=\"").skip(1) {
        let (name, rest) = field.split_once("\" value=\"").unwrap();
        query.append_pair(name, rest.split('"').next().unwrap());
    }
    let query = query.append_pair("u", "http://evil.example/").append_pair("s", "x").finish();
    let page = handset.get(&format!("/_sekisho/leave?{query}")).await;
    assert!(page.status == StatusCode::OK && page.text().contains(there), "{}", page.text());
    assert!(!page.text().contains("evil.example"));
    assert_eq!(handset.get(&url).await.status, StatusCode::OK);
    harness.finish().await;
}

#[tokio::test]
async fn a_mistyped_address_does_not_cost_the_session() {
    let harness = Harness::with(|config| config.replace("path = \"/\"\n", "path = \"/orders\"\n")).await;
    let mut handset = Cookieless::new(&harness, Carrier::Docomo, "a");
    let url = handset.enrol(&harness, "/orders", "alice").await;
    let sk = token(&url);
    for (path, status) in [
        ("/nowhere", 404),
        ("/_sekisho/nowhere", 404),
        ("/orders/%2e%2e/public", 400),
        ("/_sekisho/me/remove", 405),
        ("/_sekisho/ticket", 403),
    ] {
        let method = if status == 405 { Method::PUT } else { Method::GET };
        let answer = handset.send(method, &format!("{path}?guid=ON&_sk={sk}"), &[], Bytes::new()).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        if status != 403 {
            assert_eq!(token(&answer.link("/?")), sk, "{path}: {}", answer.text());
            assert_eq!(token(&answer.link("/_sekisho/notice?")), sk, "{path}");
        }
        // Who cannot show the identifier is not told the token again, and who shows another one ends it below.
        let bare = handset.get(&format!("{path}?_sk={sk}")).await;
        assert!(!bare.text().contains(&sk), "{path}: {}", bare.text());
    }
    assert_eq!(handset.get(&url).await.status, StatusCode::OK);
    let mut thief = Cookieless::new(&harness, Carrier::Docomo, "z");
    assert_eq!(thief.get_json(&format!("/nowhere?guid=ON&_sk={sk}")).await.reason(), "session-device-mismatch");
    assert_eq!(handset.get_json(&url).await.reason(), "session-expired");
    harness.finish_without(&[&sk]).await;
}

#[tokio::test]
async fn a_leave_link_is_no_open_redirect() {
    let harness = harness().await;
    let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let out = handset.get(&url).await.link("/_sekisho/leave?");
    let forged = out.replace("www.example.com", "evil.example");
    let (seal, named) = out.split_once("&u=").unwrap();
    for target in [
        "/_sekisho/leave".to_owned(),
        "/_sekisho/leave?u=http://evil.example/".to_owned(),
        seal.to_owned(),
        forged,
        format!("{seal}&u=http://evil.example/&u={named}"),
        out.replace("/_sekisho/leave?", "/_sekisho/leave?u=http://evil.example/&"),
    ] {
        let answer = handset.get_json(&target).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "link-expired"), "{target}");
        assert!(answer.header("location").is_none());
    }
    // A token that somebody adds goes nowhere from here.
    let page = handset.get(&format!("{out}&_sk={}", token(&url))).await;
    assert!(page.status == StatusCode::OK && !page.text().contains("_sk="), "{}", page.text());
    assert!(page.text().contains("href=\"http://www.example.com/x\" rel=\"noreferrer\""), "{}", page.text());
    for method in [Method::PUT, Method::DELETE] {
        let answer = handset.send(method, &out, &[], Bytes::new()).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("GET, HEAD, POST")));
    }
    harness.clock.advance(std::time::Duration::from_hours(1));
    assert_eq!(handset.get_json(&out).await.reason(), "link-expired");
    harness.finish().await;
}
