use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::harness::{BODY_LIMIT, Gateway, SHORT, Server, empty, fed, full, nobody, raw, read_head, timeouts};
use crate::config::UpstreamTimeouts;

/// An upstream that sends `answer` after the first head and then keeps the connection open, silent.
async fn silent(answer: &'static str) -> Server {
    raw(move |_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached() {
    let gateway = Gateway::new(&[nobody().await, nobody().await], timeouts()).await;
    assert_eq!(gateway.refusal(Request::get("/"), empty()).await, "upstream-unreachable");
    assert_eq!(gateway.refusal(Request::post("/"), full("order")).await, "upstream-unreachable");
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_or_breaks_off() {
    for answer in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "",
    ] {
        let server = raw(move |_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let gateway = Gateway::new(&[server.address], timeouts()).await;
        assert_eq!(gateway.refusal(Request::get("/"), empty()).await, "upstream-unreachable", "{answer:?}");
        assert_eq!(server.connections(), 1, "what was sent is not sent again");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer() {
    let server = silent("").await;
    let gateway = Gateway::new(&[server.address], UpstreamTimeouts { first_byte: SHORT, ..timeouts() }).await;
    assert_eq!(gateway.refusal(Request::get("/"), empty()).await, "upstream-timeout");
    assert_eq!(gateway.refusal(Request::post("/"), full("order")).await, "upstream-timeout");
    assert_eq!(server.connections(), 2, "a connection that owes an answer is not used again");
}

#[tokio::test]
async fn an_upstream_that_stops_within_its_body() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let server = silent(answer).await;
        let gateway = Gateway::new(&[server.address], UpstreamTimeouts { idle: SHORT, ..timeouts() }).await;
        let mut body = gateway.get("/").await.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        assert!(body.frame().await.unwrap().is_err(), "the client must see that the end is missing");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let server = silent("").await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    let large = Bytes::from(vec![b'x'; usize::try_from(BODY_LIMIT).unwrap() + 1]);
    assert_eq!(gateway.refusal(Request::post("/"), full(large.clone())).await, "body-too-large");
    assert_eq!(server.connections(), 0, "a length that is known is refused before anything is sent");

    let (feed, body) = fed();
    tokio::spawn(async move {
        let _ = feed.send(Frame::data(large)).await;
        feed.closed().await;
    });
    assert_eq!(gateway.refusal(Request::post("/"), body).await, "body-too-large");
}

#[tokio::test]
async fn a_client_that_stops_within_its_body() {
    let server = silent("").await;
    let gateway = Gateway::with(&[server.address], timeouts(), SHORT, None).await;
    let (feed, body) = fed();
    feed.send(Frame::data("half".into())).await.unwrap();
    assert_eq!(gateway.refusal(Request::post("/"), body).await, "request-timeout");
}

#[tokio::test]
async fn an_upstream_need_not_answer_before_the_client_has_sent_all() {
    let server = silent("").await;
    let timeouts = UpstreamTimeouts { first_byte: SHORT, ..timeouts() };
    let gateway = Gateway::with(&[server.address], timeouts, 4 * SHORT, None).await;
    let (feed, body) = fed();
    feed.send(Frame::data("half".into())).await.unwrap();
    assert_eq!(gateway.refusal(Request::post("/"), body).await, "request-timeout");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_exchange() {
    let (events, mut told) = mpsc::unbounded_channel();
    let server = raw(move |_, mut stream| {
        let events = events.clone();
        async move {
            events.send(read_head(&mut stream).await.is_empty()).unwrap();
            let left = stream.read(&mut [0; 1]).await;
            events.send(matches!(left, Ok(0) | Err(_))).unwrap();
        }
    })
    .await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    let mut client = gateway.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: admin.example.jp\r\n\r\n").await.unwrap();
    assert_eq!(told.recv().await, Some(false), "the request arrived");
    drop(client);
    assert_eq!(told.recv().await, Some(true), "and its connection is closed");
}
