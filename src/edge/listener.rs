//! Placeholder signatures; replaced by the real file.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use super::Scheme;
use crate::body::Body;
use crate::config::{ClientTimeouts, LimitsConfig, ListenerConfig, Serves};

/// What a connection is before its first byte is read.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    /// `Https` if this very connection is TLS.
    pub scheme: Scheme,
    pub serves: Serves,
}
/// Answers requests; one instance a worker, so that what it holds is never shared between cores.
pub trait Handler: Send + Sync + 'static {
    fn handle(
        self: Arc<Self>,
        connection: Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use")]
    InUse { address: SocketAddr },
    #[error("{address}: {source}")]
    Io { address: SocketAddr, source: std::io::Error },
}
/// One configured listener: bound exclusively, then one SO_REUSEPORT socket a worker.
pub struct BoundListener {
    _p: (),
}
impl BoundListener {
    pub fn bind(
        _config: &ListenerConfig,
        _tls: Option<Arc<crate::tls::ListenerTlsConfig>>,
        _workers: usize,
    ) -> Result<Self, BindError> {
        todo!()
    }
    /// Where it really listens (port 0 was resolved).
    pub fn address(&self) -> SocketAddr {
        todo!()
    }
}
/// The running workers: one thread and current-thread runtime each.
pub struct Workers {
    _p: (),
}
impl Workers {
    /// Starts `workers` threads; each calls `make_handler` with its index inside its own runtime.
    pub fn start<H: Handler>(
        _listeners: Vec<BoundListener>,
        _workers: usize,
        _make_handler: impl Fn(usize) -> Arc<H> + Send + Sync + 'static,
        _limits: &LimitsConfig,
        _shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        todo!()
    }
    /// After `shutdown` fired: resolves when every connection ended, or when `deadline` has passed.
    pub async fn drained(self, _deadline: std::time::Duration) {
        todo!()
    }
}
fn _unused(_: ClientTimeouts) {}
