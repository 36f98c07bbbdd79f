//! Requests whose end is in dispute: refused, or written anew so that nobody behind us can see another end.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Harness};
use crate::wire::{TestTls, Wire, connect, soon, tls_connect};

/// Smuggled, it would come from nobody and reach what only the signed-in reach, or show up at the upstream.
const SECOND: &str = "GET /public/second HTTP/1.1\r\nHost: admin.example.jp\r\nConnection: close\r\n\r\n";

/// What follows the first two lines of a POST, and what the upstream may see of it: its body, and
/// whether what follows is a request of its own. `None`: refused with 400.
fn framings() -> Vec<(String, Option<(&'static str, bool)>)> {
    let mut rows: Vec<(String, Option<(&'static str, bool)>)> = Vec::new();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let hello = "5\r\nhello\r\n0\r\n\r\n";
    // A length is said once; that chunks outrank it (RFC 9112 §6.3), or that two are the same, not everybody knows.
    rows.push((format!("Content-Length: 4\r\n{chunked}\r\n{hello}"), None));
    rows.push((format!("{chunked}Content-Length: 4\r\n\r\n{hello}"), None));
    rows.push((format!("Content-Length: 100\r\n{chunked}\r\n0\r\n\r\n"), None));
    rows.push((format!("content-LENGTH:5\r\nX: a\r\ntransfer-ENCODING:chunked\r\n\r\n{hello}"), None));
    rows.push(("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello".into(), None));
    // Lines end by CR and LF, those of trailers too.
    rows.push(("X: a\nContent-Length: 5\r\n\r\nhello".into(), None));
    rows.push(("Content-Length: 5\n\r\nhello".into(), None));
    rows.push(("Content-Length: 5\r\n\nhello".into(), None));
    rows.push((format!("{chunked}\r\n5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n"), None));
    rows.push((format!("{chunked}\r\n5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n"), None));
    rows.push((format!("{chunked}\r\n5\r\nhello\r\n0\r\n\n"), None));
    // Sound in their chunks and lengths, and refused all the same: then nothing behind them is believed either.
    rows.push(("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(), None));
    rows.push(("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n".into(), None));
    rows.push((format!("{chunked}Connection: Transfer-Encoding\r\n\r\n{hello}"), None));
    rows.push(("Content-Length: 5\r\nConnection: Content-Length\r\n\r\nhello".into(), None));
    // An empty line before a request is none of it (RFC 9112 §2.2); half of one is an error.
    rows.push(("Content-Length: 5\r\n\r\nhello\r\n\r\n".into(), Some(("hello", true))));
    rows.push((format!("{chunked}\r\n{hello}\r\n"), Some(("hello", true))));
    rows.push((format!("{chunked}\r\n{hello}\n"), Some(("hello", false))));
    rows.push(("Content-Length: 5\r\n\r\nhello\r".into(), Some(("hello", false))));
    rows.push(("Content-Length: 5\r\n\r\nhello\n".into(), Some(("hello", false))));
    rows.push((format!("transfer-encoding:\tCHUNKED \r\n\r\n{hello}"), Some(("hello", true))));
    rows.push((format!("{chunked}\r\n5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"), Some(("hello", true))));
    rows.push((format!("{chunked}\r\n005\r\nhello\r\n000\r\n\r\n"), Some(("hello", true))));
    rows.push(("\r\n".into(), Some(("", true))));
    rows.push(("Content-Length: 0\r\n\r\n".into(), Some(("", true))));
    rows.push((format!("Connection: close\r\nContent-Length: {}\r\n\r\n", SECOND.len()), Some((SECOND, false))));
    for refused in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Content-Length : 5",
        "Content-Length\t: 5",
        " Content-Length: 5",
        "X: a\r\n Content-Length: 5",
        "X: a\r\n\tTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
        "X: a\rb",
        "X: a\0b",
        "X\0: a",
        ": a",
        "X",
        "X y: a",
        "X\u{e9}: a",
    ] {
        rows.push((format!("{refused}\r\n\r\nhello"), None));
    }
    for chunks in [
        "5x\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "\r\nhello\r\n",
        "5\r\nhello!\r\n",
    ] {
        rows.push((format!("{chunked}\r\n{chunks}0\r\n\r\n"), None));
    }
    for chunks in
        ["10000000000000005\r\nhello\r\n", "5\r\nhello0\r\n", "5\nhello\r\n", "5\rhello\r\n", "5 5\r\nhello\r\n"]
    {
        rows.push((format!("{chunked}\r\n{chunks}0\r\n\r\n"), None));
    }
    rows
}

#[tokio::test]
async fn a_body_has_one_end() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&config)).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut problems = Vec::new();
    for (i, (framing, expected)) in framings().into_iter().enumerate() {
        let before = harness.upstream.received().len();
        // A name of its own: what breaks off is recorded late.
        let first = format!("/public/{i}");
        let mut wire = Wire::connect(source, harness.address()).await;
        let head = format!("POST {first} HTTP/1.1\r\nHost: {HOST}\r\n");
        wire.send(format!("{head}{framing}{SECOND}")).await;
        let answers = String::from_utf8_lossy(&wire.rest().await).into_owned();
        let received = harness.upstream.received();
        // What broke off on the way is recorded without its body.
        let seen: Vec<_> = received[before..]
            .iter()
            .filter(|r| r.target == first || r.target == "/public/second")
            .map(|r| (r.target.as_str(), String::from_utf8_lossy(&r.body).into_owned()))
            .collect();
        let holds = match expected {
            // One refusal, and nothing after it is believed. Only where its head was sound the upstream may know of it.
            None => {
                let refused = answers.starts_with("HTTP/1.1 400 ") && answers.matches("HTTP/1.1 ").count() == 1;
                let begun = framing.starts_with("Transfer-Encoding: chunked\r\n\r\n");
                refused && seen.iter().all(|(target, body)| begun && *target == first && body.is_empty())
            }
            Some((body, another)) => {
                let mut requests = vec![(first.as_str(), body.to_owned())];
                if another {
                    requests.push(("/public/second", String::new()));
                }
                let headers = received.iter().find(|r| r.target == first).map(|r| &r.headers);
                let said = |name: &str| headers.is_some_and(|headers| headers.contains_key(name));
                seen == requests && said("content-length") != said("transfer-encoding")
            }
        };
        if !holds {
            let status = answers.lines().next().unwrap_or_default().to_owned();
            problems.push((framing, status, format!("{seen:?}")));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    // Who watches the gateway sees that somebody tries.
    let unreadable = "sekisho_connections_turned_away_total{cause=\"unreadable\"} ";
    let metrics = harness.metrics().await;
    let count = metrics.lines().find_map(|line| line.strip_prefix(unreadable)).unwrap_or_else(|| panic!("{metrics}"));
    assert!(count.parse::<u32>().unwrap() >= 30, "{count}");
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn lines_that_are_read_leniently_are_written_strictly() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&config)).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut wire = Wire::connect(source, harness.address()).await;
    let lenient = format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX-A:  1 \r\nX-B:2\r\nConnection: close\r\n\r\n");
    wire.send(format!("\r\n{lenient}")).await;
    assert!(wire.rest().await.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let received = harness.upstream.last();
    assert_eq!((received.target.as_str(), &received.headers["x-a"]), ("/public/x", &"1".parse().unwrap()));
    assert_eq!(received.headers["x-b"], "2");
    for (at, _) in lenient.match_indices("\r\n") {
        let mut wire = Wire::connect(source, harness.address()).await;
        wire.send(format!("{}{}", &lenient[..at], &lenient[at + 1..])).await;
        assert!(wire.rest().await.starts_with(b"HTTP/1.1 400 "), "LF alone at {at}");
    }
    for line in [
        "GET /public",
        "GET /public HTTP/1.1 x",
        "GET  /public HTTP/1.1",
        "GET /public HTTP/2.0",
        "GET /public HTTP/1.10",
        "G@T /public HTTP/1.1",
        "GET /pub\tlic HTTP/1.1",
        "GET /pub\0lic HTTP/1.1",
        "\u{16}\u{3}\u{1}",
        "PRI * HTTP/2.0",
    ] {
        let mut wire = Wire::connect(source, harness.address()).await;
        wire.send(format!("{line}\r\nHost: {HOST}\r\n\r\n")).await;
        assert!(wire.rest().await.starts_with(b"HTTP/1.1 4"), "{line:?}");
    }
    assert_eq!(harness.upstream.received().len(), 1);
    watch.noticed_nothing().await;
    harness.finish().await;
}

/// HTTP/1.0 has no chunks; its requests are answered, and its connections end.
#[tokio::test]
async fn old_http_is_served_and_never_chunked() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&config)).await;
    let watch = calm.watch(&harness).await;
    let source = harness.handset(Carrier::Au, "a").source;
    let mut wire = Wire::connect(source, harness.address()).await;
    wire.send(format!("GET /public HTTP/1.0\r\nHost: {HOST}\r\n\r\n{SECOND}")).await;
    let answers = String::from_utf8(wire.rest().await).unwrap();
    assert!(answers.contains(" 200 OK\r\n") && answers.ends_with("console</html>"), "{answers}");
    assert_eq!(harness.upstream.received().len(), 1, "the connection ended");
    let mut wire = Wire::connect(source, harness.address()).await;
    wire.send(format!("POST /public HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")).await;
    assert!(String::from_utf8(wire.rest().await).unwrap().contains(" 400 "));
    assert_eq!(harness.upstream.received().len(), 1);
    watch.noticed_nothing().await;
    harness.finish().await;
}

/// HEADERS of a stream 1 that ends there, each field a literal that is not indexed (RFC 7541 §6.2.2), or DATA after.
fn http2_request(fields: &[(&[u8], &[u8])], data: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text);
        }
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        out.extend_from_slice(&length[1..]);
        out.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        out.extend_from_slice(payload);
    };
    frame(4, 0, 0, &[]);
    // END_HEADERS, and END_STREAM where nothing follows.
    frame(1, if data.is_empty() { 5 } else { 4 }, 1, &block);
    if !data.is_empty() {
        frame(0, 1, 1, data);
    }
    out
}

/// The kind of the frame that answers stream 1, or ends all: `HEADERS` (1), `RST_STREAM` (3) or `GOAWAY` (7).
async fn http2_verdict<S: AsyncReadExt + Unpin>(stream: &mut S) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        if soon(stream.read_exact(&mut head)).await.is_err() {
            return (7, Vec::new());
        }
        let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
        soon(stream.read_exact(&mut payload)).await.unwrap();
        if matches!(head[3], 1 | 3 | 7) {
            return (head[3], payload);
        }
    }
}

#[tokio::test]
async fn http_2_cannot_say_what_http_1_would_misread() {
    let tls = TestTls::new();
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&tls.listening(&config))).await;
    let watch = calm.watch(&harness).await;
    let base: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/public/first"), (b":authority", HOST.as_bytes())];
    let malformed: &[(&[u8], &[u8])] = &[
        (b"connection", b"close"),
        (b"connection", b"sekisho-jwt-assertion"),
        (b"transfer-encoding", b"chunked"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"close"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"content-length", b"5"),
        (b"content-length", b"x"),
        (b"X-Upper", b"a"),
        (b"x-a", b"b\r\nsekisho-jwt-assertion: f0rged"),
        (b"x-a", b"b\nc"),
        (b"x-a", b"b\0c"),
        (b"x-a\r\nx-b", b"c"),
        (b"x a", b"b"),
        (b"", b"b"),
        (b":path", b"/console"),
        (b":status", b"200"),
        (b":unknown", b"1"),
    ];
    for field in malformed {
        let stream = &mut tls_connect([127, 0, 4, 7].into(), harness.tls_address(), &tls.http2()).await;
        let fields: Vec<_> = base.iter().chain([field]).copied().collect();
        stream.write_all(&http2_request(&fields, b"")).await.unwrap();
        let (kind, _) = http2_verdict(stream).await;
        let text = String::from_utf8_lossy(field.0);
        assert_ne!(kind, 1, "answered instead of reset: {text}");
        assert!(harness.upstream.received().is_empty(), "{text}");
    }

    // The same request without any of them is served; with a body longer than it said it is not.
    for (extra, data, served) in [
        (None, &b""[..], true),
        (Some((&b"content-length"[..], &b"5"[..])), b"hello", true),
        (Some((b"te", b"trailers")), b"hello", true),
        (Some((b"content-length", b"4")), b"hello", false),
    ] {
        let before = harness.upstream.received().len();
        let stream = &mut tls_connect([127, 0, 4, 7].into(), harness.tls_address(), &tls.http2()).await;
        let fields: Vec<_> = base.into_iter().chain(extra).collect();
        stream.write_all(&http2_request(&fields, data)).await.unwrap();
        let (kind, _) = http2_verdict(stream).await;
        if served {
            assert_eq!(kind, 1);
            assert_eq!(harness.upstream.received()[before..].iter().map(|r| &r.body[..]).collect::<Vec<_>>(), [data]);
        } else {
            assert!(harness.upstream.received()[before..].iter().all(|r| r.body.is_empty()));
        }
    }
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn http_2_is_held_to_the_same_hosts_methods_and_paths() {
    let tls = TestTls::new();
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&tls.listening(&config))).await;
    let watch = calm.watch(&harness).await;
    let source = [127, 0, 4, 7].into();
    let mut handset = harness.handset(Carrier::PrivateApn, "a");
    (handset.gateway, handset.source, handset.identifier) = (harness.tls_address(), source, None);
    handset.tls = Some(tls.http2());
    for (method, target, status) in [
        (Method::GET, "/public", 200),
        (Method::TRACE, "/public", 405),
        (Method::GET, "/public/../x", 400),
        (Method::GET, "/public%2f", 400),
        (Method::GET, "/x", 401),
        (Method::GET, "/_sekisho/x", 404),
    ] {
        assert_eq!(handset.send(method, target, &[], bytes::Bytes::new()).await.status, status, "{target}");
    }
    "evil.example".clone_into(&mut handset.host);
    assert_eq!(handset.get("/public").await.status, 421);
    HOST.clone_into(&mut handset.host);
    // A Host beside the authority must say the same (RFC 9113 §8.3.1).
    let mut stream = tls_connect(source, harness.tls_address(), &tls.http2()).await;
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/public"),
        (b":authority", HOST.as_bytes()),
        (b"host", b"evil.example"),
    ];
    stream.write_all(&http2_request(&fields, b"")).await.unwrap();
    assert_eq!(http2_verdict(&mut stream).await.0, 1);
    assert_eq!(harness.upstream.received().len(), 1);
    drop(stream);

    // Over plain HTTP the preface is a request that nobody knows, not a way into HTTP/2.
    let mut plain = connect(source, harness.address()).await;
    plain.write_all(&http2_request(&fields, b"")).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(plain.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    watch.noticed_nothing().await;
    harness.finish().await;
}
