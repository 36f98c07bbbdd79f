//! A client that verifies whom it talks to: the command line's, with a certificate of its own, and that of spans.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::TlsError;
use super::material::Material;
use super::upstream::{ClientStream, client, roots_of, system_roots};
use crate::config::ClientCertificate;

/// A client that verifies whom it talks to, with a certificate of its own where one was given. HTTP/1.1 only.
pub struct VerifyingClient {
    config: Arc<ClientConfig>,
    material: Material,
}

impl VerifyingClient {
    /// Reads what is shown, if anything, and whom to trust: the authorities in `ca` (PEM) and nobody else, or the system's.
    ///
    /// # Errors
    /// [`TlsError`], which names the file at fault.
    pub fn load(shown: Option<&ClientCertificate>, ca: Option<&Path>) -> Result<Self, TlsError> {
        let roots = ca.map_or_else(system_roots, roots_of)?;
        let client = client(roots, shown)?;
        Ok(Self { config: client.config, material: client.material })
    }

    /// What it believes and shows.
    #[must_use]
    pub const fn material(&self) -> Material {
        self.material
    }

    /// Shakes hands with `host`, a DNS name or an address (IPv6 with or without brackets), and verifies that it is
    /// that. The caller sets the deadline.
    ///
    /// # Errors
    /// The server's certificate does not verify, it speaks no TLS that we do, or the connection broke. With TLS 1.3 a
    /// server that does not accept the client's certificate says so only when something is read.
    pub async fn connect(&self, host: &str, tcp: TcpStream) -> io::Result<ClientStream> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "neither a DNS name nor an address"))?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await
    }
}
