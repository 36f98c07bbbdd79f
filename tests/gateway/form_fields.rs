//! Browsers that drop the query of a form's URL (J-PHONE P types): their session comes as the form's first field.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::harness::{Answer, Carrier, HOST, Harness};
use crate::url_sessions::{Cookieless, token};
use crate::wire::Wire;

const P_TYPE: &str = "J-PHONE/4.0/J-K51 KW/1.00";
const MULTIPART: &str = "multipart/form-data; boundary=x";
const FORM: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];

async fn harness() -> Harness {
    let harness = Harness::start().await;
    harness.upstream.answer(|_| {
        let page = "<form method=\"post\" action=\"/find?x=1\"><input name=\"q\"></form>\
                    <form method=\"post\" action=\"http://www.example.com/x\"><input name=\"q\"></form>\
                    <form method=\"post\" enctype=\"multipart/form-data\" action=\"/up\"></form><a href=\"/orders\">";
        let answer = Response::builder().header("content-type", "text/html; charset=Shift_JIS");
        answer.body(Full::new(Bytes::from(page))).unwrap()
    });
    harness
}

async fn signed_in(harness: &Harness, tail: &str, account: &str) -> (Cookieless, String) {
    let mut handset = Cookieless::new(harness, Carrier::SoftBank, tail);
    handset.set_user_agent(P_TYPE);
    let url = handset.enrol(harness, "/orders", account).await;
    (handset, url)
}

/// Sends the form with this action as such a browser does: without a query, its hidden fields first.
async fn send(handset: &mut Cookieless, page: &Answer, action: &str, typed: &[(&str, &str)]) -> Answer {
    let text = page.text();
    let form = text.split("<form ").find(|form| form.contains(&format!("action=\"{action}"))).unwrap();
    let mut body = form_urlencoded::Serializer::new(String::new());
    for field in form.split("</form>").next().unwrap().split("<input type=\"hidden\" name=\"").skip(1) {
        let (name, rest) = field.split_once("\" value=\"").unwrap();
        body.append_pair(name, rest.split('"').next().unwrap());
    }
    let body = body.extend_pairs(typed).finish();
    let path = action.split('?').next().unwrap();
    handset.send(Method::POST, path, &FORM, Bytes::from(body)).await
}

#[tokio::test]
async fn a_browser_that_drops_the_query_of_a_forms_url_goes_the_whole_way() {
    let harness = harness().await;
    let (mut handset, url) = signed_in(&harness, "a", "alice").await;
    let sk = token(&url);
    let page = handset.get(&url).await;
    assert!(page.text().contains("action=\"/find?x=1\""), "{}", page.text());
    // A form of another type has it where that browser would not lose it if it could send one.
    assert!(page.text().contains(&format!("action=\"/up?_sk={sk}\"")), "{}", page.text());

    let found = send(&mut handset, &page, "/find", &[("q", "1"), ("_sk", "x")]).await;
    assert_eq!(found.status, StatusCode::OK, "{}", found.text());
    assert_eq!(token(&found.link("/orders?")), sk);
    let received = harness.upstream.last();
    // Another field of that name is overwritten, whatever it holds.
    assert_eq!((received.target.as_str(), &*received.body), ("/find", &b"q=1&_sk=&"[..]));
    assert_eq!(received.headers["content-length"], "9");
    assert!(received.headers.contains_key("sekisho-jwt-assertion"));
    send(&mut handset, &page, "/find", &[]).await;
    assert_eq!(
        (harness.upstream.last().body.len(), &harness.upstream.last().headers["content-length"]),
        (0, &"0".parse().unwrap())
    );

    let leave = send(&mut handset, &page, "/_sekisho/leave", &[("q", "1"), ("u", "http://evil.example/")]).await;
    assert!(leave.text().contains("href=\"http://www.example.com/x\""), "{}", leave.text());
    assert!(!leave.text().contains(&sk) && !leave.text().contains("evil.example"));

    // Our own forms are no others.
    let me = handset.get(&format!("/_sekisho/me?_sk={sk}")).await;
    let out = me.link("/_sekisho/logout?");
    let form = handset.get(&out).await;
    let done = send(&mut handset, &form, "/_sekisho/logout", &[]).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    assert_eq!(handset.get_json(&url).await.reason(), "session-expired");
    harness.finish_without(&[&sk]).await;
}

#[tokio::test]
async fn a_token_in_a_form_is_worth_what_it_is_in_a_url() {
    let harness = harness().await;
    let (mut handset, url) = signed_in(&harness, "a", "alice").await;
    let sk = token(&url);
    let seen = harness.upstream.received().len();
    let body = |text: &str| Bytes::from(text.replace("SK", &sk));
    let json = [FORM[0], ("Accept", "application/json")];

    // With another in the URL there are two; made up, or without the identifier, it opens nothing.
    let other = format!("/find?_sk={}", "A".repeat(32));
    let twice = handset.send(Method::POST, &other, &json, body("_sk=SK&q=1")).await;
    assert_eq!((twice.status.as_u16(), twice.reason().as_str()), (400, "malformed-request"));
    let made_up = format!("_sk={}&q=1", "A".repeat(32));
    assert_eq!(handset.send(Method::POST, "/find", &json, made_up.into()).await.reason(), "session-expired");
    // What is not the first field of a form opens nothing, and reaches no console.
    let part = "--x\r\nContent-Disposition: form-data; name=";
    for (kind, text) in [
        ("application/x-www-form-urlencoded", "q=1&_sk=SK".to_owned()),
        ("application/x-www-form-urlencoded", "_sk=SKx&q=1".to_owned()),
        ("application/x-www-form-urlencoded", "q=1&%5F%73K=SK".to_owned()),
        ("text/plain", "q=1\r\n_sk=SK\r\n".to_owned()),
        (MULTIPART, format!("{part}\"q\"\r\n\r\n1\r\n{part}_sk\r\nContent-Type: text/plain\r\n\r\nSK\r\n--x--\r\n")),
        (MULTIPART, format!("{part}\"q\"\r\n\r\n1\r\n{part}\"_sk\"\r\n\r\nSK\r\n--x--\r\n")),
    ] {
        let kind = [("Content-Type", kind), ("Accept", "application/json")];
        let refused = handset.send(Method::POST, "/find", &kind, body(&text)).await;
        assert_eq!(refused.reason(), "sign-in-required", "{text}");
        let answer = handset.send(Method::POST, "/public", &kind, body(&text)).await;
        assert_eq!(answer.status, StatusCode::OK);
        let received = harness.upstream.last();
        assert_eq!(received.body.len(), body(&text).len(), "its length stays");
        let received = String::from_utf8(received.body.to_vec()).unwrap();
        assert!(received.contains('q') && !received.contains(&sk), "{received}");
    }
    assert_eq!(handset.send(Method::PUT, "/find", &json, body("_sk=SK&q=1")).await.reason(), "sign-in-required");
    assert_eq!(harness.upstream.received().len(), seen + 6, "nothing else went through");
    // Beside a cookie it is worth nothing, and goes no further either.
    let cookie = format!("sekisho={}", "A".repeat(32));
    let fields = [json[0], json[1], ("Cookie", cookie.as_str())];
    assert_eq!(handset.send(Method::POST, "/find", &fields, body("_sk=SK")).await.reason(), "session-expired");

    let mut keeps = harness.signed_in(Carrier::Au, "b", "bob").await;
    keeps.send(Method::POST, "/find", &FORM, body("_sk=SK&q=1")).await;
    let received = harness.upstream.last();
    assert!(received.headers.contains_key("sekisho-jwt-assertion") && received.body.ends_with(b"&q=1"));
    assert!(!String::from_utf8(received.body.to_vec()).unwrap().contains(&sk));

    // Found by another handset it ends.
    let mut thief = Cookieless::new(&harness, Carrier::SoftBank, "z");
    assert_eq!(thief.send(Method::POST, "/find", &json, body("_sk=SK")).await.reason(), "session-device-mismatch");
    assert_eq!(handset.get_json(&url).await.reason(), "session-expired");
    harness.finish().await;
}

#[tokio::test]
async fn a_buttons_own_method_or_encoding_neither_loses_a_session_nor_shows_its_token() {
    let harness = harness().await;
    let (mut handset, url) = signed_in(&harness, "a", "alice").await;
    let sk = token(&url);
    let body = |text: &str| Bytes::from(text.replace("SK", &sk));
    let part = "--x\r\nContent-Disposition: form-data; name=";
    // A form that gets, posted by a button: the token is its first field, in any encoding.
    for (kind, sent, received) in [
        (FORM[0].1, "_sk=SK&guid=ON&q=1", "guid=ON&q=1".to_owned()),
        (FORM[0].1, "%5fsk=SK&q=1", "q=1".to_owned()),
        (
            MULTIPART,
            &format!("{part}_sk\r\nContent-Type: text/plain\r\n\r\nSK\r\n{part}\"q\"\r\n\r\n1\r\n--x--\r\n"),
            format!("{part}\"q\"\r\n\r\n1\r\n--x--\r\n"),
        ),
        ("text/plain", "_sk=SK\r\nq=1\r\n", "q=1\r\n".to_owned()),
        (
            MULTIPART,
            &format!("{part}\"_sk\"\r\n\r\nSK\r\n{part}\"q\"\r\n\r\n1\r\n--x--\r\n"),
            format!("{part}\"q\"\r\n\r\n1\r\n--x--\r\n"),
        ),
    ] {
        let found = handset.send(Method::POST, "/find", &[("Content-Type", kind)], body(sent)).await;
        assert_eq!((found.status, token(&found.link("/orders?"))), (StatusCode::OK, sk.clone()), "{sent}");
        let last = harness.upstream.last();
        assert_eq!(last.body, received, "{sent}");
        assert_eq!(last.headers["content-length"], received.len().to_string().as_str());
    }
    // A form that posts with a field for a button that gets: the token stands in its URL as well.
    for sent in ["q=1&_sk=SK&r=2", "_sk=SK&q=1&r=2"] {
        let found = handset.send(Method::POST, &format!("/find?_sk={sk}"), &FORM, body(sent)).await;
        assert_eq!(found.status, StatusCode::OK, "{sent}");
        let last = harness.upstream.last();
        let fields: Vec<_> = form_urlencoded::parse(&last.body).filter(|(name, _)| name != "_sk").collect();
        assert_eq!(fields, [("q".into(), "1".into()), ("r".into(), "2".into())]);
    }
    harness.finish_without(&[&sk]).await;
}

#[tokio::test]
async fn a_form_that_comes_in_pieces_passes_whole_and_one_that_breaks_off_not_at_all() {
    let limits = "[limits]\ntimeouts = { body_idle = \"300ms\" }\n[[upstream]]";
    let harness = Harness::with(|config| config.replacen("[[upstream]]", limits, 1)).await;
    let (handset, url) = signed_in(&harness, "a", "alice").await;
    let handset = handset.into_handset();
    let sk = token(&url);
    let head = |framing: &str| {
        format!(
            "POST /find HTTP/1.1\r\nHost: {HOST}\r\n{}: {}\r\nContent-Type: {}\r\n{framing}\r\n\r\n",
            handset.carrier.header(),
            handset.identifier.as_deref().unwrap(),
            FORM[0].1
        )
    };
    let mut client = Wire::connect(handset.source, harness.address()).await;
    client.send(head("Transfer-Encoding: chunked")).await;
    for byte in format!("_sk={sk}&q={}", "x".repeat(100)).bytes() {
        client.send([b"1\r\n", &[byte][..], b"\r\n"].concat()).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(harness.upstream.last().body, format!("q={}", "x".repeat(100)));

    let seen = harness.upstream.received().len();
    for (framing, sent) in [("Transfer-Encoding: chunked", "3\r\n_sk\r\n"), ("Content-Length: 100", "_sk=")] {
        let mut client = Wire::connect(handset.source, harness.address()).await;
        client.send(head(framing) + sent).await;
        assert_eq!(client.answer().await.status(), 408, "{framing}");
    }
    let mut client = Wire::connect(handset.source, harness.address()).await;
    client.send(head("Transfer-Encoding: chunked") + "3\r\n_sk\r\nzz\r\n").await;
    assert_eq!(client.answer().await.status(), 400);
    assert_eq!(harness.upstream.received().len(), seen);
    harness.finish_without(&[&sk]).await;
}
