//! Placeholder signatures; replaced by the real file. The only file that names rustls.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use crate::config::{ListenerTls, UpstreamConfig};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {problem}")]
    File { path: String, problem: String },
}
/// Server side: certificate and key loaded and proved to fit together; ALPN h2, http/1.1; TLS 1.2 and 1.3; ring.
pub struct ListenerTlsConfig {
    _p: (),
}
impl ListenerTlsConfig {
    pub fn load(_tls: &ListenerTls) -> Result<Self, TlsError> {
        todo!()
    }
}
/// Client side: one verified configuration an upstream (own CA, or the system's roots).
pub struct UpstreamTls {
    _p: (),
}
impl UpstreamTls {
    pub fn load(_upstreams: &[UpstreamConfig]) -> Result<Self, TlsError> {
        Ok(Self { _p: () })
    }
    /// The handshake over a connected socket, the certificate verified for `host`; `upstream` is the index it was loaded by.
    pub async fn connect(
        &self,
        _upstream: usize,
        _host: &str,
        _tcp: tokio::net::TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>, TlsError> {
        todo!()
    }
}
