//! Sockets whose bytes a test writes and reads itself, TLS and HTTP/2 for handsets, and an upstream that is played.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::HOST as HOST_FIELD;
use http::{Request, Uri};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Answer, HOST, Handset};

/// What should happen at once fails its test after this, instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.expect("what should come did not come")
}

/// A connection from `source`.
pub(crate) async fn connect(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// One side of an HTTP/1.1 connection, byte by byte.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// An answer as it came.
pub(crate) struct RawAnswer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The lines after the last chunk.
    pub(crate) trailers: String,
}

impl std::fmt::Debug for RawAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.head, self.text())
    }
}

impl RawAnswer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{}", self.head))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reason of a JSON refusal.
    pub(crate) fn reason(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"]["reason"].as_str().unwrap_or_default().to_owned()
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn connect(source: IpAddr, to: SocketAddr) -> Self {
        Self::new(connect(source, to).await)
    }

    /// A connection of this handset, on which it asks for `target` in its session.
    pub(crate) async fn asked_by(handset: &Handset, target: &str) -> Self {
        let mut wire = Self::connect(handset.source, handset.gateway).await;
        wire.get(target, &format!("Cookie: sekisho={}\r\n", handset.cookies["sekisho"])).await;
        wire
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// As [`Wire::send`], to a peer that may have hung up already.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Ends the connection with a reset, whatever was sent on it.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// A GET of `target` with the fields in `fields`, each ending with CRLF.
    pub(crate) async fn get(&mut self, target: &str, fields: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await;
    }

    /// Up to and with the empty line.
    pub(crate) async fn head(&mut self) -> String {
        let head = self.until(b"\r\n\r\n").await;
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Exactly so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
        self.read.drain(..count).collect()
    }

    /// An answer whose request was no HEAD, whole.
    pub(crate) async fn answer(&mut self) -> RawAnswer {
        let head = self.head().await;
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
        let (mut body, mut trailers) = (Vec::new(), String::new());
        if lower.contains("transfer-encoding: chunked") {
            loop {
                let size = self.until(b"\r\n").await;
                let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
                if size == 0 {
                    break;
                }
                body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
            loop {
                let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
                if line == "\r\n" {
                    break;
                }
                trailers.push_str(&line);
            }
        } else if let Some(length) = length {
            body = self.exactly(length.trim().parse().unwrap()).await;
        }
        RawAnswer { head, body, trailers }
    }

    /// All bytes until the peer closes, in order or not.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.more().await, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    async fn more(&mut self) -> bool {
        matches!(soon(self.stream.read_buf(&mut self.read)).await, Ok(count) if count > 0)
    }
}

/// An upstream whose every byte the test plays.
pub(crate) struct PlayedUpstream {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

impl PlayedUpstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next connection that the gateway opens.
    pub(crate) async fn accept(&self) -> Wire {
        Wire::new(soon(self.listener.accept()).await.unwrap().0)
    }

    /// Added to a configuration: this upstream under the route `/played`.
    pub(crate) fn routed(&self, config: &str, access: &str, rest: &str) -> String {
        let address = self.address;
        format!(
            "{config}
[[upstream]]
name = \"played\"
servers = [\"http://{address}\"]
audience = \"https://played.internal\"
{rest}
[[route]]
path = \"/played\"
upstream = \"played\"
access = \"{access}\"
"
        )
    }
}

/// A certificate for [`HOST`] and clients that trust it.
pub(crate) struct TestTls {
    folder: TempDir,
    certificate: CertificateDer<'static>,
}

impl TestTls {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let folder = TempDir::new().unwrap();
        let key = made.signing_key.serialize_der();
        std::fs::write(folder.path().join("server.pem"), pem("CERTIFICATE", made.cert.der())).unwrap();
        let key_file = folder.path().join("server.key");
        std::fs::write(&key_file, pem("PRIVATE KEY", &key)).unwrap();
        std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Self { folder, certificate: made.cert.der().clone() }
    }

    /// Another certificate and key in the same files; who trusts the former does not trust this one.
    pub(crate) fn renewed(&self) -> NewCertificate {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        std::fs::write(self.folder.path().join("server.pem"), pem("CERTIFICATE", made.cert.der())).unwrap();
        self.write_key(&pem("PRIVATE KEY", &made.signing_key.serialize_der()));
        NewCertificate(made.cert.der().clone())
    }

    pub(crate) fn write_key(&self, text: &str) {
        std::fs::write(self.folder.path().join("server.key"), text).unwrap();
    }

    /// Whether the listener there shows the certificate that this one was made with.
    pub(crate) async fn connects(&self, source: IpAddr, to: SocketAddr) -> bool {
        NewCertificate(self.certificate.clone()).connects(source, to).await
    }

    /// Added to a configuration: a second listener for handsets, over TLS.
    pub(crate) fn listening(&self, config: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "{config}
[[listener]]
serves = \"handset\"
address = \"127.0.0.1:0\"
tls = {{ certificate = \"{folder}/server.pem\", key = \"{folder}/server.key\" }}
"
        )
    }

    /// A client of these versions that offers `protocols`.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Arc<rustls::ClientConfig> {
        trusting(self.certificate.clone(), versions, protocols)
    }

    /// A client of today that speaks HTTP/1.1.
    pub(crate) fn http1(&self) -> Arc<rustls::ClientConfig> {
        self.client(rustls::ALL_VERSIONS, &["http/1.1"])
    }

    /// A client of today that speaks HTTP/2.
    pub(crate) fn http2(&self) -> Arc<rustls::ClientConfig> {
        self.client(rustls::ALL_VERSIONS, &["h2"])
    }
}

/// A certificate that came later.
pub(crate) struct NewCertificate(CertificateDer<'static>);

impl NewCertificate {
    /// Whether the listener there shows it.
    pub(crate) async fn connects(&self, source: IpAddr, to: SocketAddr) -> bool {
        let client = trusting(self.0.clone(), rustls::ALL_VERSIONS, &["http/1.1"]);
        let (tcp, name) = (connect(source, to).await, ServerName::try_from(HOST).unwrap());
        soon(TlsConnector::from(client).connect(name, tcp)).await.is_ok()
    }
}

fn trusting(
    certificate: CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(client)
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(crate) async fn tls_connect(
    source: IpAddr,
    to: SocketAddr,
    client: &Arc<rustls::ClientConfig>,
) -> TlsStream<TcpStream> {
    let tcp = connect(source, to).await;
    let name = ServerName::try_from(HOST).unwrap();
    soon(TlsConnector::from(Arc::clone(client)).connect(name, tcp)).await.unwrap()
}

/// One request over TLS, in the protocol that both sides agree on.
pub(crate) async fn tls_exchange<B>(
    source: IpAddr,
    to: SocketAddr,
    client: &Arc<rustls::ClientConfig>,
    mut request: Request<B>,
) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = tls_connect(source, to, client).await;
    let answer = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let host = request.headers_mut().remove(HOST_FIELD).unwrap();
        *request.uri_mut() = format!("https://{}{}", host.to_str().unwrap(), request.uri()).parse::<Uri>().unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        soon(sender.send_request(request)).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        soon(sender.send_request(request)).await.unwrap()
    };
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}
