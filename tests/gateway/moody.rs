//! A server of an upstream that answers, holds what it is asked, or fails, as it is told; and counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::harness::Harness;
use crate::wire::soon;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    /// Answers once it was released.
    Holds,
    /// Closes the connection without an answer.
    HangsUp,
    /// Answers what is no HTTP.
    Babbles,
    /// Never answers.
    Sulks,
    /// Answers 503, to probes too.
    Complains,
}

pub(crate) struct MoodyServer {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    mood: Mutex<Mood>,
    released: Semaphore,
    asked: AtomicUsize,
    connections: AtomicUsize,
    in_progress: AtomicUsize,
    most_in_progress: AtomicUsize,
}

impl MoodyServer {
    pub(crate) async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let zero = || AtomicUsize::new(0);
        let seen = Arc::new(Seen {
            mood: Mutex::new(mood),
            released: Semaphore::new(0),
            asked: zero(),
            connections: zero(),
            in_progress: zero(),
            most_in_progress: zero(),
        });
        let counts = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let counts = Arc::clone(&counts);
                tokio::spawn(async move { counts.serve(stream).await });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.seen.mood.lock().unwrap() = mood;
    }

    /// Has it answer so many requests that it holds, or will.
    pub(crate) fn release(&self, count: usize) {
        self.seen.released.add_permits(count);
    }

    /// Requests so far, probes apart.
    pub(crate) fn asked(&self) -> usize {
        self.seen.asked.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Requests that it had at one time.
    pub(crate) fn most_in_progress(&self) -> usize {
        self.seen.most_in_progress.load(Ordering::SeqCst)
    }

    /// Waits until it has so many requests at once.
    pub(crate) async fn has(&self, count: usize) {
        soon(async {
            while self.seen.in_progress.load(Ordering::SeqCst) != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

impl Seen {
    async fn serve(&self, mut stream: TcpStream) {
        while let Some(head) = read_head(&mut stream).await {
            let mood = *self.mood.lock().unwrap();
            if head.starts_with("GET /healthz ") {
                let status = if matches!(mood, Mood::Complains) { "503 Ill" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                continue;
            }
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.in_progress.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_in_progress.fetch_max(now, Ordering::SeqCst);
            let answer = self.answer(mood, &mut stream).await;
            // Before the answer leaves: it brings the next request.
            self.in_progress.fetch_sub(1, Ordering::SeqCst);
            let Some(answer) = answer else { return };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, mood: Mood, stream: &mut TcpStream) -> Option<&'static str> {
        const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        match mood {
            Mood::Answers => Some(WELL),
            Mood::Holds => tokio::select! {
                released = self.released.acquire() => {
                    released.unwrap().forget();
                    Some(WELL)
                }
                _ = stream.read_u8() => None,
            },
            Mood::HangsUp => None,
            Mood::Babbles => Some("220 mail.example.jp ESMTP\r\n\r\n"),
            Mood::Sulks => {
                let _ = stream.read_u8().await;
                None
            }
            Mood::Complains => Some("HTTP/1.1 503 Ill\r\ncontent-length: 3\r\n\r\nill"),
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Added to a configuration: an upstream `name` of these servers, under the public route `/name`.
pub(crate) fn routed(config: &str, name: &str, servers: &[SocketAddr], rest: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|address| format!("\"http://{address}\"")).collect();
    let servers = servers.join(", ");
    format!(
        "{config}
[[upstream]]
name = \"{name}\"
servers = [{servers}]
audience = \"https://{name}.internal\"
{rest}
[[route]]
path = \"/{name}\"
upstream = \"{name}\"
access = \"public\"
"
    )
}

/// Waits until a figure of the metrics is so. `of`: its name and labels.
pub(crate) async fn figure(harness: &Harness, of: &str, value: u64) {
    let line = format!("{of} {value}");
    soon(async { while !harness.metrics().await.lines().any(|there| there == line) {} }).await;
}

/// The name of a figure about a server of an upstream.
pub(crate) fn of_server(name: &str, upstream: &str, server: SocketAddr) -> String {
    format!("sekisho_upstream_{name}{{upstream=\"{upstream}\",server=\"http://{server}\"}}")
}

/// The name of a figure about an upstream.
pub(crate) fn of_upstream(name: &str, upstream: &str) -> String {
    format!("sekisho_upstream_{name}{{upstream=\"{upstream}\"}}")
}
