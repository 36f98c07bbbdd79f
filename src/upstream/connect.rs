//! A new connection to a server of an upstream.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::held::Held;
use super::standing::Slot;
use crate::config::UpstreamServer;
use crate::edge::Coalescing;
use crate::tls::{TlsError, UpstreamTls};

/// Who waits for two things at one moment sees the first.
const MOMENT: Duration = Duration::from_millis(1);

/// Why there is no connection; for the log alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("not connected within timeout.connect")]
    Timeout,
    #[error("its name cannot be resolved: {0}")]
    Resolver(io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// What a failure to connect says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nothing: it is this machine that has no file or memory left.
    Ours,
    /// Not much: a resolver that is away, a queue that is full for a moment, no port of ours (or no such address, by the same
    /// word of the kernel).
    Perhaps,
    /// It takes no connections.
    Outright,
}

impl ConnectError {
    pub(super) fn blame(&self) -> Blame {
        use rustix::io::Errno;
        let (Self::Io(error) | Self::Resolver(error)) = self else { return Blame::Outright };
        let is_one_of = |errors: &[Errno]| {
            error.raw_os_error().is_some_and(|code| errors.iter().any(|errno| errno.raw_os_error() == code))
        };
        if is_one_of(&[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]) {
            Blame::Ours
        } else if matches!(self, Self::Resolver(_)) || is_one_of(&[Errno::AGAIN, Errno::ADDRNOTAVAIL]) {
            // EAGAIN: the backlog of a UNIX socket is full (unix(7)).
            Blame::Perhaps
        } else {
            Blame::Outright
        }
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
    let end = Instant::now() + deadline;
    let connecting = async {
        match server {
            UpstreamServer::Unix(path) => drive(UnixStream::connect(path).await?, slot).await,
            UpstreamServer::Tcp { https, host, port } => {
                let tcp = TcpStream::connect(&*addresses(host, *port, end).await?).await?;
                tcp.set_nodelay(true)?;
                if *https { drive(tls.connect(upstream, host, tcp).await?, slot).await } else { drive(tcp, slot).await }
            }
        }
    };
    // Behind the resolver's own, which says more.
    timeout_at(end + MOMENT, connecting).await.map_err(|_| ConnectError::Timeout)?
}

async fn addresses(host: &str, port: u16, end: Instant) -> Result<Vec<SocketAddr>, ConnectError> {
    match timeout_at(end, lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        // Without a file for its question the resolver says that there is no such name.
        Ok(Err(error)) => Err(match TcpSocket::new_v4() {
            Err(none_left) => ConnectError::Io(none_left),
            Ok(_) => ConnectError::Resolver(error),
        }),
        Err(_) => Err(ConnectError::Resolver(io::ErrorKind::TimedOut.into())),
    }
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

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_failure_says_of_the_server_what_it_shows() {
        let io = |errno: Errno| ConnectError::Io(errno.into());
        for (error, blame) in [
            (io(Errno::MFILE), Blame::Ours),
            (io(Errno::ADDRNOTAVAIL), Blame::Perhaps),
            (ConnectError::Resolver(Errno::MFILE.into()), Blame::Ours),
            (ConnectError::Resolver(io::Error::other("no such name")), Blame::Perhaps),
            (io(Errno::AGAIN), Blame::Perhaps),
            (io(Errno::CONNREFUSED), Blame::Outright),
            (io(Errno::NOENT), Blame::Outright),
            (ConnectError::Timeout, Blame::Outright),
        ] {
            assert_eq!(error.blame(), blame, "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_no_fault_of_a_server() {
        // Longer than a label may be (RFC 1035 §2.3.4), so that no resolver is asked.
        let server = UpstreamServer::Tcp { https: false, host: "x".repeat(64), port: 9 };
        let tls = UpstreamTls::load(&[]).unwrap();
        let connecting =
            connect::<http_body_util::Empty<bytes::Bytes>>(&tls, 0, &server, Duration::from_secs(30), None);
        let Err(error) = connecting.await else {
            panic!("it has an address");
        };
        assert_eq!(error.blame(), Blame::Perhaps, "{error}");
    }
}
