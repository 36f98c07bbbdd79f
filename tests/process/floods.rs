//! What a client may do to HTTP/2 and to patience, on the real binary: memory stays bounded, and a normal client beside it
//! does not notice.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::bystander::{Bystander, Watch};
use crate::harness::HOST;
use crate::process::{Folder, Serving};
use crate::recorder::RecordingUpstream;
use crate::wire::{Wire, tls_connect};

/// How much a flood may cost, in KiB: a connection's windows and buffers, and what an allocator keeps.
const MOST_MEMORY: u64 = 32 * 1024;
/// How long a flood goes on that is not cut off, and how much it sends at most, in bytes.
const LASTS: Duration = Duration::from_millis(1500);
const MOST_SENT: usize = 64 * 1024 * 1024;
/// How often the memory is looked at.
const LOOKS: Duration = Duration::from_millis(5);

/// A body that is too large for any buffer.
const LARGE: usize = 1024 * 1024;

/// A gateway with a TLS listener and a console with small and large answers.
struct Town {
    gateway: Serving,
    upstream: RecordingUpstream,
    calm: Bystander,
    watch: Watch,
    _folder: Folder,
}

impl Town {
    async fn new(limits: &str) -> Self {
        let upstream = RecordingUpstream::start().await;
        let large = Bytes::from(vec![b'x'; LARGE]);
        upstream.answer(move |request| {
            let body = if request.target.contains("large") { large.clone() } else { Bytes::from_static(b"console") };
            Response::new(Full::new(body))
        });
        let (folder, calm) = (Folder::new(upstream.address), Bystander::new().await);
        folder.append(&calm.beside(""));
        folder.append(limits);
        let gateway = folder.serve().await;
        let watch = calm.watch_at(gateway.places(), async |account| folder.code(account).await).await;
        Self { gateway, upstream, calm, watch, _folder: folder }
    }

    /// Past the preface and the settings, over TLS.
    async fn http2(&self, settings: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = tls_connect([127, 0, 4, 7].into(), self.gateway.tls_address(), &self.calm.tls.http2()).await;
        stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, settings)[..]].concat()).await.unwrap();
        stream
    }

    /// Plays `flood`, and watches the memory meanwhile. Normal clients go on.
    async fn beside<T>(&self, name: &str, flood: impl Future<Output = T>) -> T {
        let before = self.gateway.resident();
        let most = Cell::new(before);
        let looks_on = async {
            let mut looks = tokio::time::interval(LOOKS);
            loop {
                looks.tick().await;
                most.set(most.get().max(self.gateway.resident()));
            }
        };
        let ended = tokio::select! {
            ended = flood => ended,
            () = looks_on => unreachable!(),
        };
        assert!(most.get() < before + MOST_MEMORY, "{name}: {before} KiB before, up to {} KiB", most.get());
        self.watch.goes_on(name).await;
        ended
    }

    async fn end(self) {
        self.watch.noticed_nothing().await;
        self.gateway.stop().await;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    out.extend_from_slice(payload);
    out
}

/// A literal field that is not indexed (RFC 7541 §6.2.2), or is from now on (§6.2.1).
fn field(indexed: bool, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![if indexed { 0x40 } else { 0 }];
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            out.push(u8::try_from(length).unwrap());
        } else {
            out.push(127);
            length -= 127;
            while length >= 128 {
                out.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            out.push(u8::try_from(length).unwrap());
        }
        out.extend_from_slice(text);
    }
    out
}

/// The field block of a GET.
fn get(path: &str) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", path.as_bytes()), (b":authority", HOST.as_bytes())];
    fields.iter().flat_map(|(name, value)| field(false, name, value)).collect()
}

/// Sends what `next` makes until the gateway ends it, or for as long as a flood lasts. What comes back is read, or not.
/// Whether the gateway ended it.
async fn is_cut_off(stream: TlsStream<TcpStream>, reads: bool, mut next: impl FnMut(u32) -> Vec<u8>) -> bool {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let read = async {
        let mut buffer = vec![0; 1 << 16];
        if !reads {
            std::future::pending::<()>().await;
        }
        while let Ok(1..) = reading.read(&mut buffer).await {}
    };
    let write = async {
        let (begun, mut sent) = (Instant::now(), 0);
        for round in 0.. {
            let bytes = next(round);
            match timeout(LASTS, writing.write_all(&bytes)).await {
                Ok(Ok(())) => sent += bytes.len(),
                Ok(Err(_)) => return true,
                // It takes no more.
                Err(_) => return false,
            }
            if sent >= MOST_SENT || begun.elapsed() > LASTS {
                break;
            }
        }
        false
    };
    tokio::select! {
        () = read => true,
        cut = write => cut,
    }
}

#[tokio::test]
async fn floods_of_frames_cost_nobody_else_anything() {
    let town = Town::new("").await;
    // So that the first flood does not pay for what every process needs once.
    let warm = town.http2(&[]).await;
    town.beside("nothing", is_cut_off(warm, true, |_| frame(6, 0, 0, &[0; 8]))).await;

    // Streams that are reset as soon as they begin (CVE-2023-44487).
    let seen = town.upstream.received().len();
    let reset = |round: u32| -> Vec<u8> {
        let streams = (0..100).map(|n| 1 + 2 * (100 * round + n));
        let pair = |id| [frame(1, 5, id, &get("/public/reset")), frame(3, 0, id, &[0, 0, 0, 8])].concat();
        streams.flat_map(pair).collect()
    };
    let cut = is_cut_off(town.http2(&[]).await, true, reset);
    assert!(town.beside("rapid reset", cut).await);

    let asked = town.upstream.received()[seen..].iter().filter(|r| r.target == "/public/reset").count();
    assert!(asked < 1000, "{asked} requests reached the console");

    // Fields without end, in frames full of them and in empty ones (CVE-2024-27316 and its kin).
    let fields: Vec<u8> = (0..15).flat_map(|_| field(false, b"x-a", &[b'a'; 1000])).collect();
    for (name, more) in [("CONTINUATION", fields.as_slice()), ("empty CONTINUATION", b"")] {
        let next = |round: u32| match round {
            0 => frame(1, 1, 1, &get("/public")),
            _ => frame(9, 0, 1, more).repeat(16),
        };
        let cut = is_cut_off(town.http2(&[]).await, true, next);
        assert!(town.beside(name, cut).await, "{name}");
    }

    // What has to be answered, from who reads no answer; what means nothing.
    for (name, reads, sent) in [
        ("SETTINGS", false, frame(4, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("SETTINGS, read", true, frame(4, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("PING", false, frame(6, 0, 0, &[7; 8])),
        ("PING, read", true, frame(6, 0, 0, &[7; 8])),
        ("PRIORITY", true, frame(2, 0, 1, &[0, 0, 0, 3, 9])),
        ("WINDOW_UPDATE", true, frame(8, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", true, frame(200, 0, 0, &[0; 16])),
    ] {
        let many = sent.repeat(1000);
        town.beside(name, is_cut_off(town.http2(&[]).await, reads, |_| many.clone())).await;
    }

    // A field of the table named so often that a list of gigabytes is meant (CVE-2016-6581): 16 KiB mean 64 MiB.
    let bomb = |round: u32| {
        let large = field(true, b"x-bomb", &[b'b'; 4000]);
        let block = [get("/public/bomb"), large, vec![0xBE; 12_000]].concat();
        frame(1, 5, 1 + 2 * round, &block)
    };
    let seen = town.upstream.received().len();
    town.beside("HPACK bomb", is_cut_off(town.http2(&[]).await, true, bomb)).await;
    assert!(town.upstream.received()[seen..].iter().all(|r| r.target != "/public/bomb"), "one was passed on");

    // Bodies in frames of nothing.
    let empty = |round: u32| match round {
        0 => frame(1, 4, 1, &[get("/public"), field(false, b"x-a", b"b")].concat()),
        _ => frame(0, 0, 1, b"").repeat(1000),
    };
    town.beside("empty DATA", is_cut_off(town.http2(&[]).await, true, empty)).await;
    town.end().await;
}

#[tokio::test]
async fn clients_that_take_nothing_are_cut_and_hold_little() {
    let town = Town::new(
        "[limits]\ntimeouts = { handshake = \"1s\", head = \"1s\", body_idle = \"1s\", write_idle = \"1s\" }\n",
    )
    .await;
    let clear = town.gateway.address("handset");
    // All the streams there may be ask for what does not fit, and no window opens for it.
    let stalled = async {
        let mut crowd = Vec::new();
        for _ in 0..4 {
            let mut stream = town.http2(&[0, 4, 0, 0, 0, 0]).await;
            for n in 0..100 {
                stream.write_all(&frame(1, 5, 1 + 2 * n, &get("/public/large"))).await.unwrap();
            }
            crowd.push(stream);
        }
        for mut stream in crowd {
            let mut rest = Vec::new();
            let ended = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "a client that takes nothing is kept");
        }
    };
    town.beside("zero windows", stalled).await;
    // The same over HTTP/1.1, a head that does not end, a body that does not come.
    let slow = async {
        let crowd = async |begin: String| {
            let mut crowd = Vec::new();
            for _ in 0..20 {
                let mut client = Wire::connect([127, 0, 4, 9].into(), clear).await;
                client.send(&begin).await;
                crowd.push(client);
            }
            crowd
        };
        let head = format!("GET /public HTTP/1.1\r\nHost: {HOST}\r\nX-A: ");
        let takers = crowd(format!("GET /public/large HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(20)).await;
        let body = crowd(format!("POST /public HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\n")).await;
        let ended = async |crowd: Vec<Wire>| {
            for mut client in crowd {
                client.rest().await;
            }
        };
        ended(body).await;
        // Two heads that are waited for, one after the other, are longer than who takes nothing is waited for.
        ended(crowd(head.clone()).await).await;
        ended(crowd(head).await).await;
        for mut client in takers {
            assert!(client.rest().await.len() < 20 * LARGE, "a client that takes nothing is kept");
        }
    };
    town.beside("slow clients", slow).await;
    // No handshake, the beginning of one, and no TLS at all.
    let hands = async {
        let mut crowd = Vec::new();
        for said in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1], b"GET / HTTP/1.1\r\n\r\n"] {
            for _ in 0..20 {
                let mut client = Wire::connect([127, 0, 4, 9].into(), town.gateway.tls_address()).await;
                client.send(said).await;
                crowd.push(client);
            }
        }
        for mut client in crowd {
            assert!(!client.rest().await.starts_with(b"HTTP"), "answered in the clear");
        }
    };
    town.beside("handshakes", hands).await;
    town.end().await;
}
