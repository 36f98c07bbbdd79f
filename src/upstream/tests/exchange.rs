use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use super::harness::{Gateway, Server, Stale, empty, fed, full, nobody, raw, read_head, serve, text, timeouts};

/// An upstream that answers with the head it saw, one field a line.
async fn mirror() -> Server {
    serve(|request: Request<Incoming>| async move {
        let mut seen = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
        for (name, value) in request.headers() {
            writeln!(seen, "{name}: {}", value.to_str().unwrap()).unwrap();
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        seen.push_str(std::str::from_utf8(&body).unwrap());
        Response::new(full(seen))
    })
    .await
}

/// An upstream that sends these bytes on each connection after one head, then closes.
async fn canned(answer: &'static str) -> Server {
    raw(move |_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn an_upstream_sees_what_the_gateway_says() {
    let server = mirror().await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    let request = Request::get("/a%2Fb?x=1&_sk=t")
        .header("x-forwarded-for", "10.0.0.1")
        .header("cookie", "a=1; sekisho=t")
        .header("connection", "keep-alive");
    let seen = text(gateway.ask(request, empty()).await).await;
    let mut lines: Vec<_> = seen.lines().collect();
    lines.sort_unstable();
    let expected = [
        "GET /a%2Fb?x=1 HTTP/1.1",
        "cookie: a=1",
        "host: admin.example.jp",
        "traceparent: 00-0199aa00112233448899aabbccddeeff-8899aabbccddeeff-00",
        "x-forwarded-for: 192.0.2.7",
        "x-forwarded-host: admin.example.jp",
        "x-forwarded-proto: http",
        "x-request-id: 0199aa00112233448899aabbccddeeff",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn bodies_are_framed_for_the_upstream() {
    let server = mirror().await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    for (method, body, framing) in [
        (Method::GET, None, ""),
        (Method::POST, None, "content-length: 0"),
        (Method::PUT, Some(full("known")), "content-length: 5"),
        (Method::GET, Some(full("known")), "content-length: 5"),
    ] {
        let seen = text(gateway.ask(Request::builder().method(&method), body.unwrap_or_else(empty)).await).await;
        assert_eq!(seen.contains("content-length"), !framing.is_empty(), "{seen}");
        assert!(seen.contains(framing) && !seen.contains("transfer-encoding"), "{seen}");
    }
    for method in [Method::POST, Method::GET] {
        let (feed, body) = fed();
        feed.send(Frame::data("streamed".into())).await.unwrap();
        drop(feed);
        let request = Request::builder().method(method).header("transfer-encoding", "chunked");
        let seen = text(gateway.ask(request, body).await).await;
        assert!(seen.contains("transfer-encoding: chunked") && seen.ends_with("streamed"), "{seen}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let server = serve(|request: Request<Incoming>| async move { Response::new(request.into_body().boxed()) }).await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    let (feed, body) = fed();
    feed.send(Frame::data("first".into())).await.unwrap();
    let mut echoed = gateway.ask(Request::post("/"), body).await.into_body();
    assert_eq!(echoed.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    feed.send(Frame::data("last".into())).await.unwrap();
    assert_eq!(echoed.frame().await.unwrap().unwrap().into_data().unwrap(), "last");
    drop(feed);
    assert!(echoed.frame().await.is_none());
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = serve(|request: Request<Incoming>| async move {
        let response = Response::builder();
        match request.uri().path() {
            "/none" => response.status(204).body(empty()),
            "/same" => response.status(304).header("content-length", "9").body(empty()),
            "/large" => response.body(full(vec![b'x'; 1 << 20])),
            "/chunked" => {
                let (feed, body) = fed();
                tokio::spawn(async move { feed.send(Frame::data("chunk".into())).await });
                response.body(body)
            }
            _ => response.body(full("body")),
        }
        .unwrap()
    })
    .await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    for (method, path, status, length) in [
        (Method::GET, "/", 200, 4),
        (Method::HEAD, "/", 200, 0),
        (Method::GET, "/none", 204, 0),
        (Method::GET, "/same", 304, 0),
        (Method::GET, "/large", 200, 1 << 20),
        (Method::GET, "/chunked", 200, 5),
        (Method::GET, "/", 200, 4),
    ] {
        let response = gateway.ask(Request::builder().method(&method).uri(path), empty()).await;
        assert_eq!(response.status(), status, "{method} {path}");
        if method == Method::HEAD {
            assert_eq!(response.headers()["content-length"], "4");
        }
        assert_eq!(text(response).await.len(), length, "{method} {path}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_upstream_says_only_what_is_its_own() {
    let answer = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
        Set-Cookie: a=1\r\nSet-Cookie: SEKISHO =t; Path=/\r\nSekisho-Bind: account\r\nSekisho_Bind: account\r\n\
        Alt-Svc: h3=\":443\"\r\nTrailer: X-Sum, Sekisho-Bind\r\nTransfer-Encoding: chunked\r\n\r\n\
        4\r\nbody\r\n0\r\nX-Sum: 9\r\nSekisho-Bind: account\r\n\r\n";
    let gateway = Gateway::new(&[canned(answer).await.address], timeouts()).await;
    let response = gateway.ask(Request::get("/").header("te", "trailers"), empty()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut fields = response.headers().clone();
    for added_by_the_codec in ["date", "transfer-encoding"] {
        fields.remove(added_by_the_codec);
    }
    let expected: HeaderMap = [("set-cookie", "a=1"), ("trailer", "X-Sum, Sekisho-Bind")]
        .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
        .into_iter()
        .collect();
    assert_eq!(fields, expected);
    let collected = response.into_body().collect().await.unwrap();
    let expected: HeaderMap = [("x-sum".parse().unwrap(), HeaderValue::from_static("9"))].into_iter().collect();
    assert_eq!(collected.trailers(), Some(&expected));
    assert_eq!(collected.to_bytes(), "body");
}

#[tokio::test]
async fn announced_trailers_of_a_request_pass_but_reserved_ones() {
    let (seen, mut trailers) = mpsc::unbounded_channel();
    let server = serve(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            seen.send(request.into_body().collect().await.unwrap().trailers().cloned()).unwrap();
            Response::new(empty())
        }
    })
    .await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    let sent =
        ["x-sum", "x-subscriber", "sekisho-jwt-assertion"].map(|n| (n.parse().unwrap(), HeaderValue::from_static("1")));
    let sent: HeaderMap = sent.into_iter().collect();
    let (feed, body) = fed();
    tokio::spawn(async move {
        let _ = feed.send(Frame::data("body".into())).await;
        let _ = feed.send(Frame::trailers(sent)).await;
    });
    let request = Request::post("/").header("trailer", "x-sum, x-subscriber, sekisho-jwt-assertion");
    gateway.ask(request, body).await;
    let expected: HeaderMap = [("x-sum".parse().unwrap(), HeaderValue::from_static("1"))].into_iter().collect();
    assert_eq!(trailers.recv().await.unwrap(), Some(expected));
}

#[tokio::test]
async fn a_connection_that_went_stale_costs_no_request() {
    for (request, body, expected) in
        [(Request::get("/"), empty(), "ok:"), (Request::post("/"), full("order"), "ok:order")]
    {
        let (address, stale) = Stale::start();
        let gateway = Gateway::with(&[address], timeouts(), timeouts().idle, Some(stale)).await;
        assert_eq!(text(gateway.get("/").await).await, "ok:");
        assert_eq!(text(gateway.ask(request.header("x-stale", "1"), body).await).await, expected);
    }
}

#[tokio::test]
async fn an_upstream_is_not_asked_for_a_session_that_has_ended() {
    for is_idle in [false, true] {
        let (asked, mut asking) = mpsc::unbounded_channel();
        let server = serve(move |_| {
            asked.send(()).unwrap();
            async { Response::new(full("seen")) }
        });
        let gateway = Gateway::new(&[server.await.address], timeouts()).await;
        if is_idle {
            assert_eq!(text(gateway.get("/").await).await, "seen");
            asking.recv().await.unwrap();
        }
        gateway.end.come();
        assert_eq!(gateway.refusal(Request::get("/"), empty()).await, "session-expired");
        assert!(asking.try_recv().is_err(), "over a connection that is {}", if is_idle { "idle" } else { "new" });
    }
}

#[tokio::test]
async fn an_answer_that_comes_behind_the_end_of_its_session_is_not_told() {
    for status in [StatusCode::OK, StatusCode::FOUND, StatusCode::NO_CONTENT] {
        let (held, mut holding) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        let server = serve(move |_| {
            let held = held.clone();
            async move {
                let (release, released) = oneshot::channel();
                held.send(release).unwrap();
                released.await.unwrap();
                Response::builder().status(status).header("set-cookie", "a=1").body(empty()).unwrap()
            }
        });
        let gateway = Gateway::new(&[server.await.address], timeouts()).await;
        let (refusal, ()) = tokio::join!(gateway.refusal(Request::get("/"), empty()), async {
            let release = holding.recv().await.unwrap();
            gateway.end.come();
            release.send(()).unwrap();
        });
        assert_eq!(refusal, "session-expired", "{status}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_passed_over() {
    let server = mirror().await;
    let gateway = Gateway::new(&[nobody().await, server.address], timeouts()).await;
    for _ in 0..6 {
        assert_eq!(gateway.ask(Request::post("/"), full("order")).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_server_with_fewer_requests_is_asked() {
    let (held, mut holding) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
    let busy = move |name: &'static str| {
        let held = held.clone();
        serve(move |request: Request<Incoming>| {
            let held = held.clone();
            async move {
                if request.uri().path() == "/hold" {
                    let (release, released) = oneshot::channel();
                    held.send(release).unwrap();
                    let _ = released.await;
                }
                Response::new(full(name))
            }
        })
    };
    let (one, two) = (busy("one").await, busy("two").await);
    let gateway = Gateway::new(&[one.address, two.address], timeouts()).await;
    let (slow, others) = tokio::join!(async { text(gateway.get("/hold").await).await }, async {
        let release = holding.recv().await.unwrap();
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(text(gateway.get("/").await).await);
        }
        release.send(()).unwrap();
        others
    });
    assert!(others.iter().all(|name| *name != slow), "{slow} was busy: {others:?}");
}
