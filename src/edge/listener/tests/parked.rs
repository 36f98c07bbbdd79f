//! Connections that wait: what each keeps meanwhile, and that nobody can tell by its answers.

use rustls::pki_types::ServerName;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::noted::{Noted, Reads};
use super::workers::{client_config, write_pair};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::edge::Scheme;
use crate::edge::listener::activity::Protocol;
use crate::edge::listener::connection::Server;
use crate::edge::listener::http1::FIRST;
use crate::tls::test_certificates::TestCa;

/// A connection over HTTP/1, byte by byte.
struct Served {
    client: DuplexStream,
    reads: Arc<Reads>,
    paths: Arc<Paths>,
    ended: JoinHandle<Instant>,
    shutdown: CancellationToken,
}

const CONNECTION: fn() -> Connection =
    || Connection { peer: ([127, 0, 0, 1], 1).into(), scheme: Scheme::Http, serves: Serves::Handset };

fn served() -> Served {
    let (client, stream) = tokio::io::duplex(64 * 1024);
    let (paths, shutdown) = (Paths::new(0), CancellationToken::new());
    let (stream, reads) = Noted::new(stream);
    let (server, closing) = (Server::new(Arc::clone(&paths), None), shutdown.clone());
    let ended = tokio::spawn(async move {
        server.serve(stream, Protocol::Http1, CONNECTION(), &limits(), &closing, None).await;
        Instant::now()
    });
    Served { client, reads, paths, ended, shutdown }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

impl Served {
    async fn send(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads `count` answers whose bodies are all `body`, and nothing else.
    async fn answers(&mut self, count: usize, body: &str) {
        let (mut read, end) = (String::new(), format!("\r\n\r\n{body}"));
        while read.matches(&end).count() < count {
            let mut bytes = [0; 4096];
            let length = timeout(seconds(5), self.client.read(&mut bytes)).await.expect("no answer").unwrap();
            assert_ne!(length, 0, "closed after {read}");
            read.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        assert!(read.ends_with(&end) && read.matches("HTTP/1.1 ").count() == count, "{read}");
    }

    async fn is_answered(&mut self) {
        self.send(GET).await;
        self.answers(1, "0 http").await;
    }

    async fn has_arrived(&self) {
        timeout(seconds(5), self.paths.arrived.acquire()).await.expect("nothing came").unwrap().forget();
    }

    /// Lets a second pass.
    async fn is_parked(&self) -> bool {
        sleep(seconds(1)).await;
        self.reads.room.load(Relaxed) == FIRST
    }

    async fn assert_ends(self, since: Instant, after: Duration) {
        let ended = timeout(seconds(1000), self.ended).await.expect("it never ends").unwrap() - since;
        assert!(ended >= after && ended < after + Duration::from_millis(100), "{ended:?}, not {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_keeps_its_stream_alone_and_a_busy_one_everything() {
    let mut it = served();
    assert!(!it.is_parked().await, "its first head is awaited, and for no longer than a head may take");
    for _ in 0..3 {
        it.is_answered().await;
        assert!(it.is_parked().await);
    }
    it.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!it.is_parked().await, "a request is under way");
    it.paths.go_on.add_permits(1);
    it.answers(1, "done").await;
    for _ in 0..100 {
        sleep(Duration::from_millis(20)).await;
        assert!(it.reads.room.load(Relaxed) >= 8 * 1024);
        it.is_answered().await;
    }
    assert!(it.is_parked().await);
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_keeps_lasts_as_long_as_one_request_follows_another() {
    let mut it = served();
    for _ in 0..2 {
        for count in ["1", "2", "3"] {
            it.send("GET /how-many HTTP/1.1\r\nHost: a\r\n\r\n").await;
            it.answers(1, count).await;
        }
        assert!(it.is_parked().await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_its_client_does_not_take_is_under_way() {
    let (mut client, stream) = tokio::io::duplex(64);
    let (stream, reads) = Noted::new(stream);
    let server = Server::new(Paths::new(0), None);
    tokio::spawn(async move {
        server.serve(stream, Protocol::Http1, CONNECTION(), &limits(), &CancellationToken::new(), None).await;
    });
    client.write_all(GET.as_bytes()).await.unwrap();
    sleep(seconds(1)).await;
    assert!(reads.asked.load(Relaxed) > 0);
    assert_ne!(reads.room.load(Relaxed), FIRST);
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n0 http") {
        client.read_buf(&mut answer).await.unwrap();
    }
    sleep(seconds(1)).await;
    assert_eq!(reads.room.load(Relaxed), FIRST);
}

#[tokio::test(start_paused = true)]
async fn requests_may_come_together_and_in_pieces() {
    let mut it = served();
    it.send(&GET.repeat(3)).await;
    it.answers(3, "0 http").await;
    assert!(it.is_parked().await);
    it.send(&GET.repeat(2)).await;
    it.answers(2, "0 http").await;
    let (first, last) = GET.split_at(17);
    // Half a head behind a whole one: it is in hyper's hands.
    it.send(&format!("{GET}{first}")).await;
    it.answers(1, "0 http").await;
    assert!(!it.is_parked().await);
    it.send(last).await;
    it.answers(1, "0 http").await;
    // A head in pieces, on a parked connection.
    assert!(it.is_parked().await);
    let (most, end) = GET.split_at(GET.len() - 1);
    for piece in most.split_inclusive([' ', ':', '\r']) {
        it.send(piece).await;
        assert!(!it.is_parked().await, "{piece:?}");
    }
    it.send(end).await;
    it.answers(1, "0 http").await;
    // And one larger than what is read at once.
    assert!(it.is_parked().await);
    it.send(&GET.replace("\r\n\r\n", &format!("\r\nx: {}\r\n\r\n", "y".repeat(9000)))).await;
    it.answers(1, "0 http").await;
    assert!(it.is_parked().await);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_still_on_its_way_is_no_request() {
    let mut it = served();
    // Its answer comes at once; its body is read by somebody else, as an upstream that answered early reads on.
    let body = GET.repeat(2);
    let head = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    it.send(&head).await;
    it.answers(1, "early").await;
    it.send(GET).await;
    assert!(!it.is_parked().await);
    it.send(GET).await;
    it.has_arrived().await;
    it.is_answered().await;
    assert!(it.is_parked().await);

    let chunked = "POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for end in ["0\r\n\r\n", "0\r\na: b\r\n\r\n"] {
        it.send(chunked).await;
        it.answers(1, "early").await;
        it.send(&format!("{:x}\r\n{GET}\r\n", GET.len())).await;
        assert!(!it.is_parked().await);
        it.send(end).await;
        // hyper tells of this end when it reads on.
        it.is_answered().await;
        it.has_arrived().await;
        assert!(it.is_parked().await);
    }
    // Nobody reads this one: hyper takes what is there, and the next request shows where it ended.
    it.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{GET}", GET.len())).await;
    it.answers(1, "0 http").await;
    it.is_answered().await;
    assert!(it.is_parked().await);
    it.send(&format!("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", 4)).await;
    let mut go_on = [0; 25];
    it.client.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(!it.is_parked().await);
    it.send("ping").await;
    it.answers(1, "ping").await;
    assert!(!it.is_parked().await, "nobody asks whether that was all of it");
    it.is_answered().await;
    assert!(it.is_parked().await);

    // It stands still behind its answer, and goes on.
    it.send(&head).await;
    it.answers(1, "early").await;
    sleep(seconds(5)).await;
    assert!(!it.is_parked().await);
    it.send(GET).await;
    it.send(GET).await;
    it.has_arrived().await;
    it.is_answered().await;
    assert!(it.is_parked().await);
}

/// Where the answer was the last one hyper is ready to end in the midst of a body.
#[tokio::test(start_paused = true)]
async fn a_body_behind_the_last_answer_is_no_request_either() {
    for (head, drains) in [
        ("POST /early HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", false),
        ("POST /early HTTP/1.0\r\nHost: a\r\n", false),
        ("POST /early HTTP/1.1\r\nHost: a\r\n", true),
    ] {
        let mut it = served();
        let body = GET.repeat(2);
        let (first, last) = head.split_at(9);
        it.send(first).await;
        sleep(seconds(1)).await;
        if drains {
            it.shutdown.cancel();
            sleep(seconds(1)).await;
        }
        it.send(&format!("{last}Content-Length: {}\r\n\r\n", body.len())).await;
        let mut answer = vec![0; 4096];
        let length = it.client.read(&mut answer).await.unwrap();
        assert!(answer[..length].ends_with(b"early"), "{head}");
        sleep(seconds(1)).await;
        it.send(&body).await;
        let mut rest = Vec::new();
        it.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "", "{head}: a body was read as requests");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_ends_its_connection() {
    let mut it = served();
    it.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{GET}", GET.len() * 2)).await;
    it.answers(1, "0 http").await;
    it.assert_ends(Instant::now(), Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn half_a_head_has_the_time_of_a_head() {
    let mut it = served();
    it.is_answered().await;
    assert!(it.is_parked().await);
    sleep(seconds(49)).await;
    it.send("GET / HTTP/1.1\r\n").await;
    let first_byte = Instant::now();
    sleep(seconds(10)).await;
    it.send("Host: a\r\n").await;
    it.assert_ends(first_byte, seconds(15)).await;
}

#[tokio::test(start_paused = true)]
async fn half_a_head_behind_a_request_has_the_time_of_a_head() {
    let mut it = served();
    it.send(&format!("{GET}GET / HTT")).await;
    it.answers(1, "0 http").await;
    it.assert_ends(Instant::now(), seconds(15)).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_behind_a_request_takes_nothing_from_the_quiet() {
    // As old browsers send it behind what they post.
    let mut it = served();
    it.send(&format!("{GET}\r\n\r\n")).await;
    it.answers(1, "0 http").await;
    assert!(it.is_parked().await);
    sleep(seconds(50)).await;
    it.send(&format!("{GET}\r")).await;
    it.answers(1, "0 http").await;
    assert!(it.is_parked().await);
    it.send("\n").await;
    assert!(it.is_parked().await);
    it.is_answered().await;
    let quiet = Instant::now();
    assert!(it.is_parked().await);
    sleep(seconds(50)).await;
    it.send("\r\n").await;
    it.assert_ends(quiet, seconds(75)).await;
}

#[tokio::test(start_paused = true)]
async fn its_end_is_as_of_any_connection() {
    let mut it = served();
    it.is_answered().await;
    let quiet = Instant::now();
    assert!(it.is_parked().await);
    it.assert_ends(quiet, seconds(75)).await;

    let mut it = served();
    it.is_answered().await;
    assert!(it.is_parked().await);
    it.shutdown.cancel();
    it.assert_ends(Instant::now(), Duration::ZERO).await;

    let mut it = served();
    it.is_answered().await;
    assert!(it.is_parked().await);
    it.client.shutdown().await.unwrap();
    it.assert_ends(Instant::now(), Duration::ZERO).await;

    // The last answer says so, whatever was before.
    let mut it = served();
    it.is_answered().await;
    assert!(it.is_parked().await);
    it.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    it.has_arrived().await;
    it.shutdown.cancel();
    it.paths.go_on.add_permits(1);
    let mut answer = String::new();
    it.client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with("\r\n\r\ndone"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_may_be_upgraded() {
    let mut it = served();
    it.is_answered().await;
    assert!(it.is_parked().await);
    it.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nping").await;
    let mut all = String::new();
    it.client.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 101 ") && all.ends_with("\r\n\r\nping"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_declined_leaves_a_connection() {
    let mut it = served();
    for _ in 0..2 {
        it.send(&GET.replace("\r\n\r\n", "\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")).await;
        it.answers(1, "0 http").await;
        sleep(seconds(20)).await;
        it.is_answered().await;
        sleep(seconds(20)).await;
    }
    assert!(!it.is_parked().await);
}

#[tokio::test(start_paused = true)]
async fn five_thousand_wait_and_all_ask_at_once() {
    let mut all: Vec<Served> = (0..5000).map(|_| served()).collect();
    for it in &mut all {
        it.is_answered().await;
    }
    for it in all.iter().step_by(500) {
        assert!(it.is_parked().await);
    }
    for it in &mut all {
        it.send(GET).await;
    }
    for it in &mut all {
        it.answers(1, "0 http").await;
    }
}

#[tokio::test(start_paused = true)]
async fn over_tls_it_is_parked_too_and_told_of_its_end() {
    let now = SystemClock::default().now();
    let (ca, files) = (TestCa::new(now), tempfile::tempdir().unwrap());
    let tls = ListenerTlsConfig::load(&write_pair(files.path(), &ca), now).unwrap();
    let (client, stream) = tokio::io::duplex(64 * 1024);
    let ended = tokio::spawn(async move {
        let stream = tls.accept(stream).await.unwrap();
        let server = Server::new(Paths::new(0), None);
        server.serve(stream, Protocol::Http1, CONNECTION(), &limits(), &CancellationToken::new(), None).await;
        Instant::now()
    });
    let connector = TlsConnector::from(Arc::new(client_config(&ca.certificate, &[])));
    let mut client = connector.connect(ServerName::try_from("admin.example.jp").unwrap(), client).await.unwrap();
    for _ in 0..3 {
        client.write_all(GET.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n0 http") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
        }
        sleep(seconds(60)).await;
    }
    // Without the alert this is an error.
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop(client);
    ended.await.unwrap();
}
