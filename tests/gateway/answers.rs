//! What of an upstream's answer reaches the client, and what bodies look like on either side.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Harness};
use crate::wire::{PlayedUpstream, TestTls, Wire, soon, tls_connect};

#[tokio::test]
async fn an_upstream_speaks_for_itself_only() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let session = alice.cookies.clone();
    harness.upstream.answer(|received| {
        let echo = received.headers.get("sekisho-jwt-assertion").cloned();
        let mut answer = Response::builder()
            .status(207)
            .header("Set-Cookie", "first=1; Path=/; HttpOnly")
            .header("Set-Cookie", "sekisho=stolen; Path=/")
            .header("Set-Cookie", "__Host-sekisho=stolen; Secure; Path=/")
            .header("Set-Cookie", " SEKISHO = stolen")
            .header("Set-Cookie", "=sekisho=stolen")
            .header("Set-Cookie", "sekisho=; Max-Age=0")
            .header("Set-Cookie", "last=\"2 3\"; Domain=example.jp")
            .header("Sekisho-Bind", "mallory")
            .header("sekisho_bind", "mallory")
            .header("Sekisho-Reason", "made-up")
            .header("Connection", "X-Hop")
            .header("X-Hop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("Upgrade", "h2c")
            .header("Alt-Svc", "h3=\":443\"")
            .header("Strict-Transport-Security", "max-age=63072000")
            .header("Server", "console/1.0")
            .header("Cache-Control", "private, max-age=5")
            .header("Content-Security-Policy", "default-src 'self'")
            .header("X-Custom", "a")
            .header("X-Custom", "b")
            .header("Location", "/next?x=1")
            .header("Content-Type", "text/html; charset=Shift_JIS");
        if let Some(echo) = echo {
            answer = answer.header("Sekisho-Jwt-Assertion", echo);
        }
        answer.body(Full::new(Bytes::from_static(b"<p>\x82\xa0</p>"))).unwrap()
    });
    for target in ["/console", "/public", "/signin"] {
        let answer = alice.get(target).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (207, &b"<p>\x82\xa0</p>"[..]), "{target}");
        let all = |name: &str| answer.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("set-cookie"), ["first=1; Path=/; HttpOnly", "last=\"2 3\"; Domain=example.jp"], "{target}");
        assert_eq!(all("x-custom"), ["a", "b"]);
        for (name, value) in [
            ("server", "console/1.0"),
            ("cache-control", "private, max-age=5"),
            ("content-security-policy", "default-src 'self'"),
            ("location", "/next?x=1"),
            ("content-type", "text/html; charset=Shift_JIS"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{target}");
        }
        for name in ["x-hop", "keep-alive", "proxy-authenticate", "upgrade", "alt-svc", "strict-transport-security"] {
            assert_eq!(answer.header(name), None, "{target} {name}");
        }
        assert!(answer.headers.keys().all(|name| !name.as_str().contains("sekisho")), "{:?}", answer.headers);
        assert_eq!(alice.cookies["sekisho"], session["sekisho"], "{target}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_page_made_for_somebody_is_kept_in_no_cache_unless_its_upstream_says_how() {
    let harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::SoftBank, "a", "alice").await;
    let mut stranger = harness.handset(Carrier::SoftBank, "b");
    for (kind, said, expected) in [
        ("text/html", None, Some("no-store")),
        ("Application/XHTML+xml; charset=Shift_JIS", None, Some("no-store")),
        ("text/html", Some(("cache-control", "public, max-age=5")), Some("public, max-age=5")),
        ("text/html", Some(("expires", "Thu, 01 Jan 2032 00:00:00 GMT")), None),
        ("image/gif", None, None),
    ] {
        harness.upstream.answer(move |_| {
            let answer = Response::builder().header("Content-Type", kind);
            let answer = said.into_iter().fold(answer, |answer, (name, value)| answer.header(name, value));
            answer.body(Full::new(Bytes::from_static(b"x"))).unwrap()
        });
        for target in ["/console", "/public"] {
            assert_eq!(alice.get(target).await.header("cache-control"), expected, "{target} {kind} {said:?}");
        }
        let theirs = said.filter(|(name, _)| *name == "cache-control").map(|(_, value)| value);
        assert_eq!(stranger.get("/public").await.header("cache-control"), theirs, "{kind} {said:?}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn statuses_without_a_body_and_head_keep_their_shape() {
    let harness = Harness::start().await;
    let mut stranger = harness.handset(Carrier::Au, "a");
    for status in [200, 201, 204, 301, 304, 404, 418, 500, 503] {
        harness.upstream.answer(move |_| {
            Response::builder().status(status).header("ETag", "\"e\"").body(Full::new(Bytes::new())).unwrap()
        });
        let answer = stranger.get("/public").await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (status, Some("\"e\"")));
    }
    harness.upstream.answer(|_| Response::new(Full::new(Bytes::from_static(b"console"))));
    let head = stranger.send(Method::HEAD, "/public", &[], Bytes::new()).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (StatusCode::OK, Some("7"), 0));
    assert_eq!(harness.upstream.last().method, Method::HEAD);
    harness.finish().await;
}

#[tokio::test]
async fn an_upstreams_trailers_pass_filtered() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "public", "")).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    client.get("/played", "TE: trailers\r\n").await;
    let mut server = upstream.accept().await;
    assert!(server.head().await.contains("te: trailers\r\n"));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
    let trailer = "Trailer: X-Sum, Sekisho-Bind, Set-Cookie\r\n\r\n5\r\nhello\r\n0\r\n";
    server.send(format!("{head}{trailer}X-Sum: 7\r\nSekisho-Bind: mallory\r\nSet-Cookie: sekisho=x\r\n\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.trailers.to_ascii_lowercase(), "x-sum: 7\r\n");
    drop(server);
    harness.finish().await;
}

/// HTTP/1.1 announces trailers in the head, which is gone by then; HTTP/2 takes them unannounced (RFC 9110 §6.6.2).
#[tokio::test]
async fn trailers_that_nobody_announced_pass_over_http_2_alone() {
    let (upstream, tls) = (PlayedUpstream::start().await, TestTls::new());
    let harness = Harness::with(|config| tls.listening(&upstream.routed(&config, "public", ""))).await;
    let source = harness.handset(Carrier::PrivateApn, "a").source;
    let said = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
                X-Late: 7\r\nSekisho-Bind: mallory\r\nSet-Cookie: sekisho=x\r\n\r\n";
    let mut client = Wire::connect(source, harness.address()).await;
    client.get("/played", "TE: trailers\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(said).await;
    let answer = client.answer().await;
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("hello", ""));
    drop(server);

    let stream = tls_connect(source, harness.tls_address(), &tls.http2()).await;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("https://{HOST}/played")).header("TE", "trailers");
    let asked = tokio::spawn(sender.send_request(request.body(Full::<Bytes>::default()).unwrap()));
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(said).await;
    let whole = soon(asked).await.unwrap().unwrap().into_body().collect().await.unwrap();
    let expected: HeaderMap = [("x-late".parse().unwrap(), HeaderValue::from_static("7"))].into_iter().collect();
    assert_eq!(whole.trailers(), Some(&expected));
    assert_eq!(whole.to_bytes(), "hello");
    harness.finish().await;
}

#[tokio::test]
async fn interim_answers_do_not_confuse_and_an_unasked_switch_is_none() {
    let upstream = PlayedUpstream::start().await;
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&upstream.routed(&config, "public", ""))).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    client.get("/played", "").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 103 Early Hints\r\nSet-Cookie: sekisho=x\r\n\r\n").await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.head().await, "HTTP/1.1 103 Early Hints\r\n\r\n");
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{answer:?}");

    client.get("/played", "Accept: application/json\r\n").await;
    server.head().await;
    server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-unreachable"));
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn connections_are_used_again_on_both_sides_and_requests_may_be_pipelined() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| upstream.routed(&config, "public", "")).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut client = Wire::connect(source, harness.address()).await;
    client.get("/played/0", "").await;
    let mut server = upstream.accept().await;
    for i in 0..3 {
        if i > 0 {
            client.get(&format!("/played/{i}"), "").await;
        }
        assert!(server.head().await.starts_with(&format!("GET /played/{i} HTTP/1.1\r\n")));
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{i}")).await;
        assert_eq!(client.answer().await.text(), i.to_string());
    }

    // All written before the first is answered; answered in order, over the same connection.
    let post = format!("POST /played/b HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    client.send(format!("{}{post}{}{}", get("/played/a"), get("/_sekisho/nothing"), get("/played/c"))).await;
    assert!(server.head().await.starts_with("GET /played/a "));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await;
    assert!(server.head().await.starts_with("POST /played/b "));
    assert_eq!(server.exactly(4).await, b"body");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb").await;
    assert_eq!((client.answer().await.text().as_str(), client.answer().await.text().as_str()), ("a", "b"));
    assert_eq!(client.answer().await.status(), 404);
    assert!(server.head().await.starts_with("GET /played/c "));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nc").await;
    assert_eq!(client.answer().await.text(), "c");

    // One that comes while the first is answered.
    client.get("/played/first", "").await;
    assert!(server.head().await.starts_with("GET /played/first "));
    client.send(format!("{}{post}", get("/played/second"))).await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.exactly(1).await, b"1");
    server.send("!").await;
    assert_eq!(client.exactly(1).await, b"!");
    assert!(server.head().await.starts_with("GET /played/second "));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2").await;
    assert_eq!(client.answer().await.text(), "2");
    assert!(server.head().await.starts_with("POST /played/b "));
    assert_eq!(server.exactly(4).await, b"body");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3").await;
    assert_eq!(client.answer().await.text(), "3");

    // A server that closes between two requests is no failure of the next.
    drop(server);
    client.get("/played/d", "").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nd").await;
    assert_eq!(client.answer().await.text(), "d");
    drop(server);
    harness.finish().await;
}
