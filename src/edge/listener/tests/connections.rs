use http::StatusCode;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Serves;
use crate::edge::Scheme;
use crate::edge::listener::activity::Protocol;
use crate::edge::listener::connection::Server;

/// A served connection: the client's end, and when the server let go of its own.
struct Served {
    client: DuplexStream,
    ended: JoinHandle<Instant>,
    shutdown: CancellationToken,
    began: Instant,
}

fn served(protocol: Protocol, buffer: usize) -> Served {
    let (client, stream) = tokio::io::duplex(buffer);
    let shutdown = CancellationToken::new();
    let (server, closing) = (Server::new(Paths::new(0), None), shutdown.clone());
    let connection = Connection { peer: ([127, 0, 0, 1], 1).into(), scheme: Scheme::Http, serves: Serves::Handset };
    let began = Instant::now();
    let ended = tokio::spawn(async move {
        server.serve(stream, protocol, connection, &limits(), &closing, None).await;
        Instant::now()
    });
    Served { client, ended, shutdown, began }
}

/// That the connection ends `after` a moment, to the timer's precision.
async fn assert_ends(ended: JoinHandle<Instant>, since: Instant, after: Duration) {
    let ended = timeout(seconds(10_000), ended).await.expect("the connection never ends").unwrap();
    let took = ended - since;
    assert!(took >= after && took < after + Duration::from_millis(100), "{took:?} instead of {after:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection_until_it_is_idle() {
    let Served { client, ended, .. } = served(Protocol::Http1, 4096);
    let mut client = http1_client(client).await;
    for _ in 0..3 {
        client.ready().await.unwrap();
        assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 http");
        sleep(seconds(60)).await;
    }
    let last = Instant::now() - seconds(60);
    assert_ends(ended, last, seconds(75)).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_cut() {
    let Served { client, ended, began, .. } = served(Protocol::Http1, 4096);
    let (_kept, mut write) = tokio::io::split(client);
    tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nHost: admin.example.jp\r\n" {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(seconds(1)).await;
        }
    });
    assert_ends(ended, began, seconds(15)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_cut() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let Served { client, ended, began, .. } = served(protocol, 4096);
        assert_ends(ended, began, seconds(15)).await;
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_head_is_timed_from_its_first_byte() {
    let Served { mut client, ended, .. } = served(Protocol::Http1, 4096);
    let head = b"GET / HTTP/1.1\r\nHost: admin.example.jp\r\n";
    client.write_all(head).await.unwrap();
    client.write_all(b"\r\n").await.unwrap();
    let mut answer = [0; 4096];
    assert_ne!(client.read(&mut answer).await.unwrap(), 0);
    sleep(seconds(50)).await;
    let first_byte = Instant::now();
    client.write_all(head).await.unwrap();
    assert_ends(ended, first_byte, seconds(15)).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_waited_for() {
    let Served { client, .. } = served(Protocol::Http1, 4096);
    let mut client = http1_client(client).await;
    assert_eq!(text(client.send_request(get("/long")).await.unwrap()).await, "at last");

    let Served { client, .. } = served(Protocol::Http2, 4096);
    let mut client = http2_client(client, 65_535).await;
    assert_eq!(text(client.send_request(get("http://admin.example.jp/long")).await.unwrap()).await, "at last");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    let Served { mut client, ended, began, .. } = served(Protocol::Http1, 4096);
    client.write_all(b"GET /big HTTP/1.1\r\nHost: admin.example.jp\r\n\r\n").await.unwrap();
    assert_ends(ended, began, seconds(30)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_everything_and_keeps_its_connection() {
    let Served { mut client, .. } = served(Protocol::Http1, 256 * 1024);
    client.write_all(b"GET /big HTTP/1.1\r\nHost: admin.example.jp\r\n\r\n").await.unwrap();
    let mut piece = vec![0; 256 * 1024];
    let mut total = 0;
    // The head makes it more than the body alone.
    while total <= BIG {
        sleep(seconds(20)).await;
        match client.read(&mut piece).await.unwrap() {
            0 => panic!("ended after {total} bytes"),
            n => total += n,
        }
    }
    client.write_all(b"GET / HTTP/1.1\r\nHost: admin.example.jp\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("\r\n\r\n0 http"), "{}", rest.len());
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_does_not_read_is_cut() {
    let Served { client, ended, began, .. } = served(Protocol::Http2, 1024 * 1024);
    let mut client = http2_client(client, 65_535).await;
    // Its body is never read, so the stream's window stays shut while the connection's own frames flow.
    let unread = client.send_request(get("http://admin.example.jp/big")).await.unwrap();
    assert_ends(ended, began, seconds(30)).await;
    drop(unread);
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_reads_four_kilobytes_a_second_gets_everything() {
    let Served { client, .. } = served(Protocol::Http2, 1024 * 1024);
    let mut client = http2_client(client, 65_535).await;
    let mut body = client.send_request(get("http://admin.example.jp/big")).await.unwrap().into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let bytes = frame.unwrap().into_data().unwrap().len();
        total += bytes;
        sleep(Duration::from_millis(bytes as u64 / 4)).await;
    }
    assert_eq!(total, BIG);
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_ends_politely() {
    let Served { client, ended, began, .. } = served(Protocol::Http2, 4096);
    let mut client = http2_client(client, 65_535).await;
    let response = client.send_request(get("http://admin.example.jp/")).await.unwrap();
    assert_eq!(text(response).await, "0 http");
    assert_ends(ended, began, seconds(75)).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_answered_and_the_connection_lives() {
    let Served { client, .. } = served(Protocol::Http1, 4096);
    let mut client = http1_client(client).await;
    let response = client.send_request(get("/panic")).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response).await, "");
    client.ready().await.unwrap();
    assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 http");
}

#[tokio::test(start_paused = true)]
async fn too_large_a_head_is_refused() {
    for (name, count, value) in [("x-large", 1, 40_000), ("x-many", 101, 1)] {
        let Served { client, .. } = served(Protocol::Http1, 64 * 1024);
        let mut client = http1_client(client).await;
        let mut request = get("/");
        for _ in 0..count {
            request.headers_mut().append(name, "v".repeat(value).parse().unwrap());
        }
        let status = client.send_request(request).await.unwrap().status();
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_stream_is_the_handlers() {
    let Served { mut client, ended, .. } = served(Protocol::Http1, 4096);
    client
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .await
        .unwrap();
    ended.await.unwrap();
    client.write_all(b"ping").await.unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 101 ") && all.ends_with(b"\r\n\r\nping"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_idle_connections_at_once() {
    let Served { client, ended, shutdown, began } = served(Protocol::Http1, 4096);
    shutdown.cancel();
    assert_ends(ended, began, Duration::ZERO).await;
    drop(client);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let Served { client, ended, shutdown, began } = served(protocol, 4096);
        match protocol {
            Protocol::Http1 => {
                let mut client = http1_client(client).await;
                text(client.send_request(get("/")).await.unwrap()).await;
                shutdown.cancel();
            }
            Protocol::Http2 => {
                let mut client = http2_client(client, 65_535).await;
                text(client.send_request(get("http://admin.example.jp/")).await.unwrap()).await;
                shutdown.cancel();
            }
        }
        assert_ends(ended, began, Duration::ZERO).await;
    }
}
