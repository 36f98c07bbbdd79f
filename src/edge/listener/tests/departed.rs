//! Clients that leave, or send more, while they are being answered.

use std::io;

use futures_util::FutureExt;
use rustls::pki_types::ServerName;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::noted::{Noted, Reads};
use super::workers::{client_config, write_pair};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::edge::Scheme;
use crate::edge::listener::activity::{Activity, Protocol};
use crate::edge::listener::connection::Server;
use crate::edge::listener::watched::Watched;
use crate::tls::test_certificates::TestCa;

/// A served connection over HTTP/1.
struct Served<C> {
    client: C,
    paths: Arc<Paths>,
    ended: JoinHandle<()>,
}

async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(paths: Arc<Paths>, stream: T) {
    let connection = Connection { peer: ([127, 0, 0, 1], 1).into(), scheme: Scheme::Http, serves: Serves::Handset };
    let closing = CancellationToken::new();
    Server::new(paths, None).serve(stream, Protocol::Http1, connection, &limits(), &closing, None).await;
}

fn served(buffer: usize) -> Served<DuplexStream> {
    let ((client, stream), paths) = (tokio::io::duplex(buffer), Paths::new(0));
    let ended = tokio::spawn(serve(Arc::clone(&paths), stream));
    Served { client, paths, ended }
}

async fn served_over_tls() -> Served<TlsStream<DuplexStream>> {
    let now = SystemClock::default().now();
    let (ca, files) = (TestCa::new(now), tempfile::tempdir().unwrap());
    let tls = ListenerTlsConfig::load(&write_pair(files.path(), &ca), now).unwrap();
    let ((client, stream), paths) = (tokio::io::duplex(64 * 1024), Paths::new(0));
    let its_paths = Arc::clone(&paths);
    let ended = tokio::spawn(async move { serve(its_paths, tls.accept(stream).await.unwrap()).await });
    let connector = TlsConnector::from(Arc::new(client_config(&ca.certificate, &[])));
    let client = connector.connect(ServerName::try_from("admin.example.jp").unwrap(), client).await.unwrap();
    Served { client, paths, ended }
}

fn head(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn post(path: &str, body: &str) -> String {
    head("POST", path, &format!("Content-Length: {}\r\n", body.len())) + body
}

fn wait() -> String {
    head("GET", "/wait", "")
}

impl<C: AsyncRead + AsyncWrite + Unpin> Served<C> {
    async fn send(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
        self.client.flush().await.unwrap();
    }

    async fn asks_and_waits(&mut self, request: &str) {
        self.send(request).await;
        timeout(seconds(5), self.paths.arrived.acquire()).await.expect("nothing came").unwrap().forget();
    }

    /// Has all that can run done so, without time.
    async fn all_is_quiet(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    async fn goes_on_with(&mut self, bodies: &[&str]) {
        self.paths.go_on.add_permits(1);
        let mut read = Vec::new();
        for body in bodies {
            let end = format!("\r\n\r\n{body}");
            let answer = loop {
                if let Some(at) = String::from_utf8_lossy(&read).find(&end) {
                    break read.drain(..at + end.len()).collect::<Vec<u8>>();
                }
                let length = timeout(seconds(5), self.client.read_buf(&mut read)).await.expect("no answer").unwrap();
                assert_ne!(length, 0, "closed before {body}");
            };
            assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count(), 1, "{answer:?}");
        }
        assert!(read.is_empty(), "{read:?}");
    }
}

/// Its exchange is dropped when no time has passed.
async fn assert_ends_at_once(ended: JoinHandle<()>, why: &str) {
    let began = Instant::now();
    timeout(seconds(1000), ended).await.unwrap_or_else(|_| panic!("{why}: it goes on for ever")).unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "{why}: after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_waiting_ends_the_exchange_at_once() {
    for request in [wait(), post("/read-and-wait", "all of it"), post("/read-and-wait", &"x".repeat(100_000))] {
        let mut it = served(4096);
        it.asks_and_waits(&request).await;
        drop(it.client);
        assert_ends_at_once(it.ended, "closed").await;

        // Half a close is one, also behind a request that was answered.
        let mut it = served(4096);
        it.asks_and_waits(&wait()).await;
        it.goes_on_with(&["done"]).await;
        it.asks_and_waits(&request).await;
        it.all_is_quiet().await;
        it.client.shutdown().await.unwrap();
        assert_ends_at_once(it.ended, "half closed").await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_ends_the_exchange_at_once_whatever_was_sent_behind_its_request() {
    for behind in ["\r\n", &wait(), &wait().repeat(100)] {
        let mut it = served(64 * 1024);
        it.asks_and_waits(&(wait() + behind)).await;
        drop(it.client);
        assert_ends_at_once(it.ended, behind).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_over_tls_ends_the_exchange_at_once() {
    for request in [wait(), post("/read-and-wait", "all of it")] {
        let mut it = served_over_tls().await;
        it.asks_and_waits(&request).await;
        it.client.shutdown().await.unwrap();
        assert_ends_at_once(it.ended, "said good-bye").await;

        let mut it = served_over_tls().await;
        it.asks_and_waits(&request).await;
        drop(it.client.into_inner());
        assert_ends_at_once(it.ended, "broke off").await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_and_takes_no_answer_ends_the_exchange_at_once() {
    let mut it = served(4096);
    it.send(&head("GET", "/big", "")).await;
    it.all_is_quiet().await;
    it.client.shutdown().await.unwrap();
    assert_ends_at_once(it.ended, "half closed").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_during_an_answer_is_read_behind_it_and_whole() {
    let large: String = ('a'..='z').cycle().take(50_000).collect();
    let rest = post("/echo", "short") + &post("/echo", &large) + &head("GET", "/", "");
    // Also in two parts, of which the second comes when the first was read.
    for first in [0, 1, 2, 100, 255, 256, 257, 300, 8192, 20_000] {
        let mut it = served(256 * 1024);
        it.asks_and_waits(&wait()).await;
        it.send(&rest[..first]).await;
        it.all_is_quiet().await;
        it.send(&rest[first..]).await;
        it.all_is_quiet().await;
        it.goes_on_with(&["done", "short", &large, "0 http"]).await;
        it.asks_and_waits(&wait()).await;
        drop(it.client);
        assert_ends_at_once(it.ended, "closed").await;
    }
    // Over TLS a record may hold more than is read of it.
    let mut it = served_over_tls().await;
    it.asks_and_waits(&wait()).await;
    it.send(&rest[..10_000]).await;
    it.all_is_quiet().await;
    it.send(&rest[10_000..]).await;
    it.goes_on_with(&["done", "short", &large, "0 http"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_in_large_pieces() {
    const LENGTH: usize = 1_000_000;
    let chunked = format!("{LENGTH:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(LENGTH));
    for request in
        [post("/echo", &"x".repeat(LENGTH)), head("POST", "/echo", "Transfer-Encoding: chunked\r\n") + &chunked]
    {
        let ((client, stream), paths) = (tokio::io::duplex(64 * 1024), Paths::new(0));
        let (stream, reads) = Noted::new(stream);
        tokio::spawn(serve(paths, stream));
        let (mut read, mut write) = tokio::io::split(client);
        tokio::spawn(async move { write.write_all(request.as_bytes()).await });
        let mut answer = Vec::new();
        while !answer.ends_with(&[b'x'; 1000]) || answer.len() < LENGTH {
            assert_ne!(read.read_buf(&mut answer).await.unwrap(), 0);
        }
        let asked = reads.asked.load(Relaxed);
        assert!(asked < 400, "{asked} reads");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_late_is_whole() {
    let body: String = ('a'..='z').cycle().take(100_000).collect();
    let request = post("/late-echo", &body);
    for first in [request.len() - body.len(), 300, 1000, 20_000, request.len()] {
        let mut it = served(256 * 1024);
        it.asks_and_waits(&request[..first]).await;
        it.all_is_quiet().await;
        it.send(&request[first..]).await;
        it.all_is_quiet().await;
        it.goes_on_with(&[&body]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_an_upgrade_that_is_not_granted_yet_are_its_own() {
    let all: String = ('a'..='z').cycle().take(1000).collect();
    // Where little fits, its answer waits for its client, who has said its last.
    for (buffer, early) in
        [(4096, 0), (4096, 1), (4096, 256), (4096, 257), (4096, 999), (4096, 1000), (256, 0), (256, 256)]
    {
        let mut it = served(buffer);
        it.asks_and_waits(&head("GET", "/late-upgrade", "Connection: upgrade\r\nUpgrade: echo\r\n")).await;
        it.send(&all[..early]).await;
        it.all_is_quiet().await;
        it.paths.go_on.add_permits(1);
        it.send(&all[early..]).await;
        // Its client may have no more to say.
        it.client.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(seconds(5), it.client.read_to_string(&mut answer)).await.expect("bytes are missing").unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with(&format!("\r\n\r\n{all}")), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_an_upgrade_is_passed_on_as_it_is_whatever_was_asked() {
    // No line of HTTP, nor empty ones before it.
    let mut all = "\nls\r\r\n\r\n".repeat(200);
    all.truncate(1000);
    let upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n";
    for (length, body) in
        [("", ""), ("Content-Length: 2\r\n", "{}"), ("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")]
    {
        for early in [0, 1, 300] {
            let mut it = served(4096);
            it.asks_and_waits(&(head("POST", "/late-upgrade", &format!("{upgrade}{length}")) + body)).await;
            // What comes with the body cannot be told from a request behind it.
            let early = if body.is_empty() { early } else { 0 };
            it.send(&all[..early]).await;
            it.all_is_quiet().await;
            it.paths.go_on.add_permits(1);
            it.all_is_quiet().await;
            it.send(&all[early..]).await;
            it.client.shutdown().await.unwrap();
            let mut answer = String::new();
            timeout(seconds(5), it.client.read_to_string(&mut answer)).await.expect("bytes are missing").unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 101 ") && answer.ends_with(&format!("\r\n\r\n{all}")),
                "{length:?}: {answer:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_answered_whatever_pieces_it_comes_in() {
    let good = head("GET", "/", "X-A: 1\r\n");
    let twice = head("POST", "/", "Content-Length: 1\r\nContent-Length: 1\r\n");
    for (bad, in_pieces) in
        [(good.replacen("\r\nX", "\nX", 1), true), (good.replace("1\r\n", "1\n"), false), (twice, true)]
    {
        let cuts = if in_pieces { (1..bad.len()).collect() } else { vec![bad.find("\n\r").unwrap(), bad.len() - 3] };
        for cut in cuts {
            let mut it = served(4096);
            it.send(&bad[..cut]).await;
            it.all_is_quiet().await;
            // It may be over.
            let _ = it.client.write_all(&bad.as_bytes()[cut..]).await;
            let mut answer = String::new();
            timeout(seconds(5), it.client.read_to_string(&mut answer)).await.expect("no answer").unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?} cut at {cut}: {answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_head_is_read_into_the_same_buffer() {
    let ((client, stream), paths) = (tokio::io::duplex(4096), Paths::new(0));
    let (stream, reads) = Noted::new(stream);
    let ended = tokio::spawn(serve(Arc::clone(&paths), stream));
    let mut it = Served { client, paths, ended };
    for _ in 0..20 {
        it.asks_and_waits(&wait()).await;
        it.goes_on_with(&["done"]).await;
    }
    let places = reads.places.lock().unwrap();
    assert_eq!(places.len(), 20);
    assert!(places.iter().all(|place| *place == places[0]), "{places:x?}");
}

/// In one turn; whether the stream was asked to see whether its client is there.
async fn is_looked_for<T: AsyncRead + AsyncWrite + Unpin>(watched: &mut Watched<T>, reads: &Reads) -> bool {
    let before = reads.asked.load(Relaxed);
    watched.flush().await.unwrap();
    reads.asked.load(Relaxed) > before
}

#[tokio::test]
async fn a_client_is_looked_for_once_a_turn_while_it_is_answered_and_nobody_reads() {
    let (mut client, stream) = tokio::io::duplex(4096);
    let activity = Activity::new(Protocol::Http1);
    let (stream, reads) = Noted::new(stream);
    let mut watched = Watched::new(stream, Arc::clone(&activity), None);
    assert!(!is_looked_for(&mut watched, &reads).await, "nothing is asked for");
    activity.request_began();
    assert!(is_looked_for(&mut watched, &reads).await);
    assert!(watched.read_u8().now_or_never().is_none());
    assert!(!is_looked_for(&mut watched, &reads).await, "who reads finds out");
    client.write_all(b"ab").await.unwrap();
    assert_eq!(watched.read_u8().await.unwrap(), b'a');
    assert!(is_looked_for(&mut watched, &reads).await);
    assert!(!is_looked_for(&mut watched, &reads).await, "bytes wait to be read");
    assert_eq!(watched.read_u8().await.unwrap(), b'b');
    assert!(is_looked_for(&mut watched, &reads).await);
    drop(client);
    assert_eq!(watched.flush().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    activity.request_ended();
    assert!(!is_looked_for(&mut watched, &reads).await, "it was answered");
}

#[tokio::test(start_paused = true)]
async fn who_stops_within_a_body_and_listens_on_is_answered() {
    let mut served = served(64 * 1024);
    served.send(&head("POST", "/read-and-wait", "Content-Length: 100\r\n")).await;
    served.all_is_quiet().await;
    served.send("0123456789").await;
    served.all_is_quiet().await;
    served.client.shutdown().await.unwrap();
    timeout(seconds(5), served.paths.arrived.acquire()).await.expect("it does not end").unwrap().forget();
    served.all_is_quiet().await;
    served.goes_on_with(&["broken off"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_while_the_answer_before_was_blocked_is_answered() {
    let began = Instant::now();
    // The answer does not fit.
    let mut it = served(64);
    it.send(&(head("POST", "/early", "Content-Length: 10\r\n") + "12345")).await;
    it.all_is_quiet().await;
    it.asks_and_waits("67890").await;
    it.send(&head("GET", "/how-many", "")).await;
    it.all_is_quiet().await;
    it.goes_on_with(&["early", "2"]).await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}
