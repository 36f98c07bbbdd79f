//! The client side: https upstreams are verified, always.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ALPN_H1, TlsError, VERSIONS, pem, provider};
use crate::config::UpstreamConfig;

/// A connection to an upstream after its handshake.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

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
    clients: Vec<Option<Arc<ClientConfig>>>,
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
            if !upstream.servers.iter().any(|server| server.https) {
                clients.push(None);
                continue;
            }
            let client = match &upstream.ca {
                Some(ca) => roots_of(ca).and_then(client),
                None => match &system {
                    Some(shared) => Ok(Arc::clone(shared)),
                    None => system_roots().and_then(client).inspect(|made| system = Some(Arc::clone(made))),
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
    pub async fn connect(&self, upstream: usize, host: &str, tcp: TcpStream) -> io::Result<ClientStream> {
        let client = self.clients.get(upstream).and_then(Option::as_ref).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "this upstream was configured without an https server")
        })?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "neither a DNS name nor an address"))?;
        TlsConnector::from(Arc::clone(client)).connect(name, tcp).await
    }
}

fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN_H1.to_vec()];
    Ok(Arc::new(client))
}

/// Every certificate of the operator's own file must be usable: one that is silently dropped is a riddle later.
fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path)? {
        roots.add(certificate).map_err(|problem| TlsError::BadCertificate { path: path.into(), problem })?;
    }
    Ok(roots)
}

/// The system's roots; a few odd ones among many are normal and skipped.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}
