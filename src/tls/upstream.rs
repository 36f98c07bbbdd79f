//! The client side: https upstreams are verified, always.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::material::{Gathering, Material};
use super::{ALPN_H1, TlsError, VERSIONS, pem, provider};
use crate::config::{ClientCertificate, UpstreamConfig, UpstreamServer};

/// A connection to an upstream after its handshake.
pub type ClientStream<T = TcpStream> = tokio_rustls::client::TlsStream<T>;

/// Trust material of one upstream that cannot be used.
#[derive(Debug, Error)]
#[error("upstream {upstream:?}: {error}")]
pub struct UpstreamTlsError {
    /// The upstream's name.
    pub upstream: String,
    /// What is wrong.
    #[source]
    pub error: TlsError,
}

/// One verifying configuration for each upstream that has an https server.
///
/// An upstream with a `ca` of its own trusts that and nothing else; another trusts the system's roots. HTTP/1.1 only.
pub struct UpstreamTls {
    /// By the upstream's index.
    clients: Vec<Option<Client>>,
}

/// Whom to believe and what to show.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) config: Arc<ClientConfig>,
    pub(super) material: Material,
}

impl UpstreamTls {
    /// Reads the trust material of every https upstream; the system's roots only if one needs them.
    ///
    /// # Errors
    /// All problems, each with its upstream's name.
    pub fn load(upstreams: &[UpstreamConfig]) -> Result<Self, Vec<UpstreamTlsError>> {
        let mut problems = Vec::new();
        let mut system = None;
        let mut clients = Vec::with_capacity(upstreams.len());
        for upstream in upstreams {
            if !upstream.servers.iter().any(UpstreamServer::is_https) {
                clients.push(None);
                continue;
            }
            let shown = upstream.client_certificate.as_ref();
            let client = match (&upstream.ca, shown) {
                (Some(ca), shown) => roots_of(ca).and_then(|roots| client(roots, shown)),
                (None, Some(shown)) => system_roots().and_then(|roots| client(roots, Some(shown))),
                (None, None) => match &system {
                    Some(shared) => Ok(Client::clone(shared)),
                    None => {
                        system_roots().and_then(|roots| client(roots, None)).inspect(|made| system = Some(made.clone()))
                    }
                },
            };
            match client {
                Ok(client) => clients.push(Some(client)),
                Err(error) => problems.push(UpstreamTlsError { upstream: upstream.name.clone(), error }),
            }
        }
        if problems.is_empty() { Ok(Self { clients }) } else { Err(problems) }
    }

    /// Shakes hands with a server of the upstream with this index and verifies that it is `host`, a DNS name or an
    /// address (IPv6 with or without brackets). The caller sets the deadline.
    ///
    /// # Errors
    /// The server's certificate does not verify, it speaks no TLS that we do, or the connection broke.
    pub async fn connect<T>(&self, upstream: usize, host: &str, tcp: T) -> io::Result<ClientStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let client = self.clients.get(upstream).and_then(Option::as_ref).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "this upstream was configured without an https server")
        })?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "neither a DNS name nor an address"))?;
        TlsConnector::from(Arc::clone(&client.config)).connect(name, tcp).await
    }

    /// What the upstream with this index believes and shows; `None` where it has no https server.
    #[must_use]
    pub fn material(&self, upstream: usize) -> Option<Material> {
        self.clients.get(upstream)?.as_ref().map(|client| client.material)
    }
}

/// `shown`: the certificate for servers that ask who we are.
pub(super) fn client(roots: RootCertStore, shown: Option<&ClientCertificate>) -> Result<Client, TlsError> {
    let mut gathering = Gathering::new();
    gathering.authorities(&roots);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots);
    let mut client = match shown {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate, key }) => {
            let chain = pem::certificates(certificate)?;
            gathering.parts(b"shown", chain.iter().map(AsRef::as_ref));
            // The library proves that they fit together.
            builder.with_client_auth_cert(chain, pem::private_key(key)?).map_err(|problem| {
                if matches!(problem, rustls::Error::InconsistentKeys(_)) {
                    TlsError::KeyMismatch { key: key.clone(), certificate: certificate.clone() }
                } else {
                    TlsError::BadKey { path: key.clone() }
                }
            })?
        }
    };
    client.alpn_protocols = vec![ALPN_H1.to_vec()];
    Ok(Client { config: Arc::new(client), material: gathering.material() })
}

/// Every certificate of the operator's own file must be usable: one that is silently dropped is a riddle later.
pub(super) fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path)? {
        roots.add(certificate).map_err(|problem| TlsError::BadCertificate { path: path.into(), problem })?;
    }
    Ok(roots)
}

/// The system's roots; a few odd ones among many are normal and skipped.
pub(super) fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::PathBuf;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::{Clock, SystemClock, Timestamp};
    use crate::config::{ListenerTls, ServerCertificate, SubjectKind, UpstreamQueue, UpstreamServer, UpstreamTimeouts};
    use crate::tls::ListenerTlsConfig;
    use crate::tls::test_certificates::{TestCa, days};

    fn upstream(name: &str, https: bool, ca: Option<PathBuf>) -> UpstreamConfig {
        let second = Duration::from_secs(1);
        UpstreamConfig {
            name: name.to_owned(),
            servers: vec![UpstreamServer::Tcp { https, host: "console.internal".to_owned(), port: 443 }],
            audience: "https://console.internal".to_owned(),
            may_bind: false,
            subject: SubjectKind::Pairwise,
            ca,
            client_certificate: None,
            connections: 1,
            queue: UpstreamQueue { length: 1, time: second },
            health: None,
            timeout: UpstreamTimeouts { connect: second, first_byte: second, idle: second },
        }
    }

    /// Whether a client that trusts `ca` accepts, for `host`, a server whose certificate `issuer` made at `made`.
    async fn connects(ca: &TestCa, issuer: &TestCa, made: Timestamp, host: &str) -> bool {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(files.path().join(name), text).unwrap();
            files.path().join(name)
        };
        let pair = issuer.issue(&["console.internal", "127.0.0.1", "::1"], made);
        let first = ServerCertificate {
            certificate: write("server.pem", &pair.certificate),
            key: write("server.key", &pair.key),
        };
        let tls = ListenerTls { first, additional: vec![], client_ca: None, client_crl: None };
        let server = ListenerTlsConfig::load(&tls, made).unwrap();
        let upstreams = [upstream("plain", false, None), upstream("c", true, Some(write("ca.pem", &ca.certificate)))];
        let client = UpstreamTls::load(&upstreams).unwrap();

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (connected, _) = tokio::join!(client.connect(1, host, tcp), server.accept(accepted));
        connected.is_ok()
    }

    /// Whether a server that asks clients for a certificate of `issuer` is spoken to by an upstream that shows `shown`.
    async fn is_let_in(issuer: &TestCa, shown: Option<&TestCa>) -> bool {
        let now = SystemClock::default().now();
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(files.path().join(name), text).unwrap();
            files.path().join(name)
        };
        let pair = issuer.issue(&["console.internal"], now);
        let roots = roots_of(&write("ca.pem", &issuer.certificate)).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                pem::certificates(&write("server.pem", &pair.certificate)).unwrap(),
                pem::private_key(&write("server.key", &pair.key)).unwrap(),
            )
            .unwrap();
        let shown = shown.map(|ca| {
            let pair = ca.issue(&["gateway"], now);
            let (certificate, key) = (write("client.pem", &pair.certificate), write("client.key", &pair.key));
            ClientCertificate { certificate, key }
        });
        let upstream =
            UpstreamConfig { client_certificate: shown, ..upstream("c", true, Some(files.path().join("ca.pem"))) };
        let client = UpstreamTls::load(&[upstream]).unwrap();

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let (_connected, accepted) =
            tokio::join!(client.connect(0, "console.internal", tcp), acceptor.accept(accepted));
        accepted.is_ok()
    }

    #[tokio::test]
    async fn a_server_that_asks_who_we_are_is_shown_the_certificate() {
        let now = SystemClock::default().now();
        let (ours, other) = (TestCa::new(now), TestCa::new(now));
        assert!(is_let_in(&ours, Some(&ours)).await);
        assert!(!is_let_in(&ours, Some(&other)).await);
        assert!(!is_let_in(&ours, None).await);
    }

    #[test]
    fn a_certificate_that_cannot_be_shown_is_told() {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(files.path().join(name), text).unwrap();
            files.path().join(name)
        };
        let ca = TestCa::new(days(20_000));
        let (one, another) = (ca.issue(&["a"], days(20_000)), ca.issue(&["b"], days(20_000)));
        let problem = |certificate: &str, key: &str| {
            let shown = ClientCertificate { certificate: write("c.pem", certificate), key: write("c.key", key) };
            let ca = Some(write("ca.pem", &ca.certificate));
            let upstream = UpstreamConfig { client_certificate: Some(shown), ..upstream("c", true, ca) };
            UpstreamTls::load(&[upstream]).err().map(|mut problems| problems.remove(0).error)
        };
        assert!(problem(&one.certificate, &one.key).is_none());
        assert!(matches!(problem(&one.certificate, &another.key), Some(TlsError::KeyMismatch { .. })));
        assert!(matches!(problem(&one.certificate, ""), Some(TlsError::NoKey { .. })));
        assert!(matches!(problem("", &one.key), Some(TlsError::NoCertificate { .. })));
    }

    #[tokio::test]
    async fn only_the_right_server_is_spoken_to() {
        let now = SystemClock::default().now();
        let (ours, other) = (TestCa::new(now), TestCa::new(now));
        let long_ago = now.minus(Duration::from_hours(366 * 24));
        for host in ["console.internal", "127.0.0.1", "::1", "[::1]"] {
            assert!(connects(&ours, &ours, now, host).await, "{host}");
        }
        for host in ["other.internal", "127.0.0.2", "no name at all", ""] {
            assert!(!connects(&ours, &ours, now, host).await, "{host}");
        }
        assert!(!connects(&ours, &other, now, "console.internal").await);
        assert!(!connects(&ours, &ours, long_ago, "console.internal").await);
    }

    #[test]
    fn all_problems_are_told_with_their_upstreams() {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(files.path().join(name), text).unwrap();
            Some(files.path().join(name))
        };
        let upstreams = [
            upstream("good", true, write("ca.pem", &TestCa::new(days(20_000)).certificate)),
            upstream("empty", true, write("empty.pem", "")),
            upstream("absent", true, Some(files.path().join("absent.pem"))),
            upstream("plain", false, Some(files.path().join("absent.pem"))),
        ];
        let problems = UpstreamTls::load(&upstreams).err().unwrap();
        let named: Vec<_> = problems.iter().map(|problem| problem.upstream.as_str()).collect();
        assert_eq!(named, ["empty", "absent"]);
        assert!(matches!(problems[0].error, TlsError::NoCertificate { .. }));
        assert!(matches!(problems[1].error, TlsError::Unreadable { .. }));
    }

    #[tokio::test]
    async fn a_plain_upstream_is_never_spoken_to_in_tls() {
        let tls = UpstreamTls::load(&[upstream("plain", false, None)]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        for unknown in [0, 1] {
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let refused = tls.connect(unknown, "127.0.0.1", tcp).await.err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
