//! Listeners that connections reach through a proxy, which says in a PROXY header whose they are.

use std::net::{IpAddr, SocketAddr};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::bystander::Bystander;
use crate::harness::{HOST, Harness};
use crate::wire::{TestTls, Wire, connect, soon};

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 9, 1));
const DOCOMO: &str = "PROXY TCP4 127.0.1.7 127.0.0.1 5555 80\r\n";

async fn harness() -> Harness {
    with(|config| config).await
}

async fn with(edit: impl FnOnce(String) -> String) -> Harness {
    Harness::with(|config| {
        edit(config.replacen("serves = \"handset\"\n", "serves = \"handset\"\nproxy_protocol = true\n", 1))
    })
    .await
}

/// Whom the upstream was told of, for a request behind `header` and with these fields.
async fn told(harness: &Harness, header: &[u8], fields: &str) -> String {
    let mut wire = Wire::connect(PROXY, harness.address()).await;
    wire.send(header).await;
    wire.get("/public/x", fields).await;
    assert_eq!(wire.answer().await.status(), 200);
    harness.upstream.last().headers["x-forwarded-for"].to_str().unwrap().to_owned()
}

/// Nothing is answered: the connection ends.
async fn closed(source: IpAddr, to: SocketAddr, bytes: &[u8]) {
    let mut wire = Wire::connect(source, to).await;
    // It may be closed while we still write.
    wire.try_send(bytes).await;
    let _ = wire.stream.shutdown().await;
    let answered = soon(wire.rest()).await;
    assert!(answered.is_empty(), "{}", String::from_utf8_lossy(&answered));
}

fn v2(command: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, 0x11], &length, rest].concat()
}

#[tokio::test]
async fn the_proxy_says_whose_connection_it_is() {
    let harness = harness().await;
    assert_eq!(told(&harness, DOCOMO.as_bytes(), "").await, "127.0.1.7");
    let addresses = [127, 0, 2, 7, 127, 0, 0, 1, 0x15, 0xb3, 0, 80];
    assert_eq!(told(&harness, &v2(0x21, &addresses), "").await, "127.0.2.7");
    assert_eq!(told(&harness, b"PROXY TCP6 ::ffff:127.0.3.7 ::1 5555 80\r\n", "").await, "127.0.3.7");
    // Its client is believed nothing.
    assert_eq!(told(&harness, DOCOMO.as_bytes(), "X-Forwarded-For: 127.0.2.7\r\n").await, "127.0.1.7");
    // Another proxy of ours behind it is.
    let through = b"PROXY TCP4 127.0.9.2 127.0.0.1 5555 80\r\n";
    assert_eq!(told(&harness, through, "X-Forwarded-For: 127.0.2.7\r\n").await, "127.0.2.7");
    // A proxy that connects for itself is judged as without the header.
    let mut wire = Wire::connect(PROXY, harness.address()).await;
    wire.send(v2(0x20, &[])).await;
    wire.get("/public/x", "Accept: application/json\r\n").await;
    assert_eq!(wire.answer().await.reason(), "unknown-source-address");
    harness.finish().await;
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let harness = harness().await;
    let mut wire = Wire::connect(PROXY, harness.address()).await;
    for byte in DOCOMO.as_bytes() {
        wire.send([*byte]).await;
        wire.stream.flush().await.unwrap();
    }
    wire.get("/public/x", "").await;
    assert_eq!(wire.answer().await.status(), 200);
    assert_eq!(harness.upstream.last().headers["x-forwarded-for"], "127.0.1.7");
    harness.finish().await;
}

#[tokio::test]
async fn who_is_no_proxy_of_ours_is_not_heard() {
    let calm = Bystander::new().await;
    let harness = with(|config| calm.beside(&config)).await;
    let watch = calm.watch_over_tls(&harness).await;
    let request = format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let introduced = format!("{DOCOMO}{request}");
    for source in [[127, 0, 1, 7], [127, 0, 0, 1]] {
        closed(source.into(), harness.address(), introduced.as_bytes()).await;
        closed(source.into(), harness.address(), request.as_bytes()).await;
    }
    for bytes in [
        request.as_bytes(),
        format!("PROXY TCP4 127.0.1.7\r\n{request}").as_bytes(),
        format!("PROXY {}\r\n{request}", "x".repeat(200)).as_bytes(),
        &v2(0x21, &[0; 5000]),
        b"PROXY TCP4 127.0.1.7 127.0.0.1 5555 80",
        b"",
    ] {
        closed(PROXY, harness.address(), bytes).await;
    }
    assert!(harness.upstream.received().is_empty());
    watch.noticed_nothing().await;
    let metrics = harness.metrics().await;
    for counted in [r#"{cause="untrusted-proxy"} 4"#, r#"{cause="proxy-header"} 6"#, r#"{cause="tls-handshake"} 0"#] {
        assert!(metrics.contains(&format!("sekisho_connections_turned_away_total{counted}")), "{metrics}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn a_header_that_never_ends_is_cut() {
    let calm = Bystander::new().await;
    let limits = "[limits]\ntimeouts = { handshake = \"1s\" }";
    let harness = with(|config| calm.beside(&format!("{config}\n{limits}\n"))).await;
    let watch = calm.watch_over_tls(&harness).await;
    let mut wire = Wire::connect(PROXY, harness.address()).await;
    wire.send("PROXY TCP4 ").await;
    assert!(soon(wire.rest()).await.is_empty());
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn tls_follows_the_header() {
    let tls = TestTls::new();
    let harness = Harness::with(|config| {
        tls.listening(&config).replace("serves = \"handset\"\n", "serves = \"handset\"\nproxy_protocol = true\n")
    })
    .await;
    let mut tcp = connect(PROXY, harness.tls_address()).await;
    tcp.write_all(DOCOMO.as_bytes()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls.http1());
    let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let stream = soon(connector.connect(name, tcp)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::GET)
        .uri("/public/x")
        .header("Host", HOST)
        .body(Full::<bytes::Bytes>::default());
    let answer = soon(sender.send_request(request.unwrap())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();
    let received = harness.upstream.last();
    assert_eq!(received.headers["x-forwarded-for"], "127.0.1.7");
    assert_eq!(received.headers["x-forwarded-proto"], "https");
    harness.finish().await;
}
