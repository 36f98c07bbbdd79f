use std::net::SocketAddr;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::config::{ListenerTls, ServerCertificate, Serves};
use crate::edge::{BoundListener, Inherited, ListenerHandle, Workers};
use crate::tls::ListenerTlsConfig;
use crate::tls::test_certificates::TestCa;

const WORKERS: usize = 3;

/// Running workers with one plain and one TLS listener.
struct Running {
    workers: Workers,
    /// All workers share it, so that a test can reach it.
    paths: Arc<Paths>,
    plain: SocketAddr,
    tls: SocketAddr,
    /// Of the plain listener, and of that with TLS.
    handles: [ListenerHandle; 2],
    ca: String,
    shutdown: CancellationToken,
    files: tempfile::TempDir,
}

fn start() -> Running {
    start_with(WORKERS, &limits())
}

fn start_with(workers: usize, limits: &LimitsConfig) -> Running {
    let now = SystemClock::default().now();
    let ca = TestCa::new(now);
    let files = tempfile::tempdir().unwrap();
    let tls = write_pair(files.path(), &ca);
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let shutdown = CancellationToken::new();
    let terms = |tls| Terms { limits: *limits, ..terms(Serves::Handset, tls) };
    let bind = |terms| BoundListener::bind(address, terms, &mut Inherited::default(), workers, &shutdown).unwrap();
    let plain = bind(terms(None));
    let secure = bind(terms(Some(Arc::new(ListenerTlsConfig::load(&tls, now).unwrap()))));
    let handles = [plain.handle().clone(), secure.handle().clone()];
    let (plain_address, tls_address) = (plain.address(), secure.address());
    let paths = Paths::new(0);
    let shared = Arc::clone(&paths);
    let workers = Workers::start(workers, vec![plain, secure], move |_, _| Arc::clone(&shared), &shutdown).unwrap();
    let (plain, tls) = (plain_address, tls_address);
    Running { workers, paths, plain, tls, handles, ca: ca.certificate, shutdown, files }
}

pub(super) fn write_pair(folder: &Path, ca: &TestCa) -> ListenerTls {
    let pair = ca.issue(&["admin.example.jp", "127.0.0.1"], SystemClock::default().now());
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&certificate, pair.certificate).unwrap();
    std::fs::write(&key, pair.key).unwrap();
    let first = ServerCertificate { certificate, key };
    ListenerTls { first, additional: vec![], client_ca: None, client_crl: None }
}

/// Of a client that trusts `ca` alone and offers `alpn`.
pub(super) fn client_config(ca: &str, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Given an address for a name it sends no SNI (RFC 6066 §3).
async fn tls_client(running: &Running, name: &str, alpn: &[&str]) -> TlsStream<TcpStream> {
    let config = client_config(&running.ca, alpn);
    let tcp = TcpStream::connect(running.tls).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), tcp).await.unwrap()
}

#[tokio::test]
async fn every_connection_is_answered_whoever_gets_it() {
    let running = start();
    for _ in 0..40 {
        let mut client = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
        assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 http");
    }
    running.shutdown.cancel();
    running.workers.drained(seconds(10)).await;
}

#[tokio::test]
async fn tls_clients_choose_their_version_and_need_no_server_name() {
    let running = start();
    for name in ["admin.example.jp", "127.0.0.1"] {
        let mut client = http2_client(tls_client(&running, name, &["h2", "http/1.1"]).await, 65_535).await;
        let response = client.send_request(get("https://admin.example.jp/")).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(text(response).await, "0 https");
        for alpn in [&["http/1.1"][..], &[]] {
            let mut client = http1_client(tls_client(&running, name, alpn).await).await;
            assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 https");
        }
    }
}

#[tokio::test]
async fn large_answers_pass_over_every_version() {
    let running = start();
    let mut plain = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
    assert_eq!(text(plain.send_request(get("/big")).await.unwrap()).await.len(), BIG);
    let mut http2 = http2_client(tls_client(&running, "admin.example.jp", &["h2"]).await, 65_535).await;
    let response = http2.send_request(get("https://admin.example.jp/big")).await.unwrap();
    assert_eq!(text(response).await.len(), BIG);
}

#[tokio::test]
async fn no_http2_without_tls() {
    let running = start();
    let mut stream = TcpStream::connect(running.plain).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed with or without words, never with HTTP/2 frames.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn silent_tls_clients_block_nobody() {
    let running = start();
    let mut silent = Vec::new();
    for _ in 0..2 * WORKERS {
        silent.push(TcpStream::connect(running.tls).await.unwrap());
    }
    let mut client = http1_client(tls_client(&running, "admin.example.jp", &[]).await).await;
    assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 https");
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_cut() {
    let mut limits = limits();
    limits.timeouts.handshake = Duration::from_millis(20);
    let running = start_with(1, &limits);
    let mut silent = TcpStream::connect(running.tls).await.unwrap();
    let cut = tokio::time::timeout(seconds(10), silent.read(&mut [0; 16])).await;
    assert_eq!(cut.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn draining_ends_what_is_under_way_and_accepts_nobody() {
    // One worker, so that the first refusal proves that it saw the shutdown.
    let running = start_with(1, &limits());
    let mut client = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
    let waiting = tokio::spawn(client.send_request(get("/wait")));
    running.paths.arrived.acquire().await.unwrap().forget();

    running.shutdown.cancel();
    // The accept loops end at once; a connection made in that very moment is reset.
    let refused = async {
        while let Ok(mut stream) = TcpStream::connect(running.plain).await {
            // Something is sent, so that a kernel that forgot the connection with its listener says so.
            let _ = stream.write_all(b"x").await;
            let _ = stream.read(&mut [0; 1]).await;
        }
    };
    tokio::time::timeout(seconds(10), refused).await.unwrap();
    assert!(!waiting.is_finished());
    let drained = tokio::spawn(running.workers.drained(seconds(60)));
    running.paths.go_on.add_permits(1);
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(response.headers().get(header::CONNECTION).unwrap(), "close");
    assert_eq!(text(response).await, "done");
    tokio::time::timeout(seconds(10), drained).await.unwrap().unwrap();
    BoundListener::probe(running.plain).unwrap();
}

#[tokio::test]
async fn the_deadline_cuts_what_does_not_end() {
    let running = start();
    let mut client = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
    let waiting = tokio::spawn(client.send_request(get("/wait")));
    running.paths.arrived.acquire().await.unwrap().forget();
    running.shutdown.cancel();
    running.workers.drained(Duration::from_millis(10)).await;
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn many_gateways_come_and_go_in_one_process() {
    for _ in 0..10 {
        let running = start();
        let mut client = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
        assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 http");
        running.shutdown.cancel();
        running.workers.drained(seconds(10)).await;
        for address in [running.plain, running.tls] {
            BoundListener::probe(address).unwrap();
        }
    }
}

#[tokio::test]
async fn a_panic_leaves_the_workers_alive() {
    let running = start();
    for _ in 0..2 * WORKERS {
        let mut client = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
        assert_eq!(client.send_request(get("/panic")).await.unwrap().status(), 500);
    }
    for _ in 0..2 * WORKERS {
        let mut client = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
        assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 http");
    }
}

#[tokio::test]
async fn new_connections_meet_new_terms_and_open_ones_go_on() {
    let mut running = start();
    let mut open = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
    let mut secure = http1_client(tls_client(&running, "admin.example.jp", &[]).await).await;
    assert_eq!(text(open.send_request(get("/")).await.unwrap()).await, "0 http");

    let now = SystemClock::default().now();
    let renewed = TestCa::new(now);
    let tls = ListenerTlsConfig::load(&write_pair(running.files.path(), &renewed), now).unwrap();
    running.handles[1].replace(terms(Serves::Handset, Some(Arc::new(tls))));
    running.handles[0].replace(terms(Serves::Ops, None));
    assert_eq!(text(open.send_request(get("/")).await.unwrap()).await, "0 http");
    assert_eq!(text(secure.send_request(get("/")).await.unwrap()).await, "0 https");
    // A client that trusts the new authority alone.
    running.ca = renewed.certificate;
    let mut new = http1_client(tls_client(&running, "admin.example.jp", &[]).await).await;
    assert_eq!(text(new.send_request(get("/")).await.unwrap()).await, "0 https");
}

#[tokio::test]
async fn a_listener_opens_and_closes_while_others_serve() {
    let running = start();
    let mut other = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
    let terms = terms(Serves::Handset, None);
    let (address, mut none) = ((own_address(), 0).into(), Inherited::default());
    let bound = BoundListener::bind(address, terms, &mut none, WORKERS, &running.shutdown).unwrap();
    let handle = bound.handle().clone();
    running.workers.entrance().open(bound);
    for _ in 0..2 * WORKERS {
        let mut client = http1_client(TcpStream::connect(handle.address()).await.unwrap()).await;
        assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "0 http");
    }
    let mut client = http1_client(TcpStream::connect(handle.address()).await.unwrap()).await;
    let waiting = tokio::spawn(client.send_request(get("/wait")));
    running.paths.arrived.acquire().await.unwrap().forget();
    assert!(handle.connections() >= 1);

    handle.close();
    let refused = async {
        while let Ok(mut stream) = TcpStream::connect(handle.address()).await {
            // Something is sent, so that a kernel that forgot the connection with its listener says so.
            let _ = stream.write_all(b"x").await;
            let _ = stream.read(&mut [0; 1]).await;
        }
    };
    tokio::time::timeout(seconds(10), refused).await.unwrap();
    running.paths.go_on.add_permits(1);
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(response.headers().get(header::CONNECTION).unwrap(), "close");
    assert_eq!(text(response).await, "done");
    BoundListener::probe(handle.address()).unwrap();
    assert_eq!(text(other.send_request(get("/")).await.unwrap()).await, "0 http");
}

#[tokio::test]
async fn a_worker_that_hangs_does_not_answer_and_the_others_do() {
    let running = start();
    assert_eq!(running.workers.silent(seconds(10)).await, Vec::<usize>::new());
    let mut client = http1_client(TcpStream::connect(running.plain).await.unwrap()).await;
    let hanging = tokio::spawn(client.send_request(get("/hang")));
    running.paths.arrived.acquire().await.unwrap().forget();
    for _ in 0..2 {
        assert_eq!(running.workers.silent(Duration::from_millis(50)).await.len(), 1);
    }
    running.paths.hangs.store(false, Relaxed);
    assert_eq!(text(hanging.await.unwrap().unwrap()).await, "done");
    assert_eq!(running.workers.silent(seconds(10)).await, Vec::<usize>::new());
}
