//! A new connection to a server of an upstream.

use std::time::Duration;

use http_body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::held::Held;
use super::standing::Slot;
use crate::config::UpstreamServer;
use crate::edge::Coalescing;
use crate::tls::{TlsError, UpstreamTls};

/// Why there is no connection; for the log alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("not connected within timeout.connect")]
    Timeout,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// Whether it is this machine that has no file, port or memory left: then nothing is known of the server.
    pub(super) fn is_ours(&self) -> bool {
        use rustix::io::Errno;
        let Self::Io(error) = self else { return false };
        let ours = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
        error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
    }
}

/// Connects within `deadline`, TLS handshake included. `upstream` is the index that `tls` knows it by. `slot` is held for
/// as long as the connection is open, which a task of its own drives.
pub(super) async fn connect<B>(
    tls: &UpstreamTls,
    upstream: usize,
    server: &UpstreamServer,
    deadline: Duration,
    slot: Option<Slot>,
) -> Result<(SendRequest<B>, AbortHandle), ConnectError>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let connecting = async {
        match server {
            UpstreamServer::Unix(path) => drive(UnixStream::connect(path).await?, slot).await,
            UpstreamServer::Tcp { https, host, port } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                tcp.set_nodelay(true)?;
                if *https { drive(tls.connect(upstream, host, tcp).await?, slot).await } else { drive(tcp, slot).await }
            }
        }
    };
    timeout(deadline, connecting).await.map_err(|_| ConnectError::Timeout)?
}

async fn drive<T, B>(io: T, slot: Option<Slot>) -> Result<(SendRequest<B>, AbortHandle), ConnectError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(Held::new(Coalescing(io), slot))).await?;
    // What ends the connection is told to the exchange that it ends; between two exchanges nobody needs to know.
    let driver = tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok((sender, driver.abort_handle()))
}
