//! A new connection to a server of an upstream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http_body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::held::Held;
use super::interim::{Heard, Hearing};
use super::link::Connection;
use super::standing::Slot;
use crate::config::UpstreamServer;
use crate::edge::{Outbox, Outgoing};
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

/// What a failure to connect says of the server, in the order of how much that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Of two addresses of a server of which neither was connected to: what says less of the server. It is to blame for what
    /// all of its addresses show, in whatever order they were tried: it may listen at one alone (`localhost`), and that may be
    /// the one that could not be tried for want of a file, or of a port.
    fn or(self, other: Self) -> Self {
        if self.blame() < other.blame() { self } else { other }
    }
}

/// A connection that was opened.
pub(super) struct Opened<B> {
    pub(super) sender: SendRequest<B>,
    pub(super) connection: Connection,
    /// What its server says before its answers.
    pub(super) heard: Arc<Heard>,
}

/// Connects within `deadline`, TLS handshake included. `upstream` is the index that `tls` knows it by. `slot` is held for
/// as long as the connection is open, and what is written leaves by the `outbox`.
pub(super) async fn connect<B>(
    tls: &UpstreamTls,
    upstream: usize,
    server: &UpstreamServer,
    deadline: Duration,
    (slot, outbox): (Option<Slot>, Option<&Arc<Outbox>>),
) -> Result<Opened<B>, ConnectError>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let end = Instant::now() + deadline;
    let connecting = async {
        match server {
            UpstreamServer::Unix(path) => speak(Outgoing::new(UnixStream::connect(path).await?, outbox), slot).await,
            UpstreamServer::Tcp { https, host, port } => {
                let tcp = to_any(addresses(host, *port, end).await?, end).await?;
                tcp.set_nodelay(true)?;
                let tcp = Outgoing::new(tcp, outbox);
                if *https { speak(tls.connect(upstream, host, tcp).await?, slot).await } else { speak(tcp, slot).await }
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

/// A connection to the first of these addresses that takes one, tried in order until `end`.
async fn to_any(addresses: Vec<SocketAddr>, end: Instant) -> Result<TcpStream, ConnectError> {
    let mut failed: Option<ConnectError> = None;
    for address in addresses {
        let error = match timeout_at(end, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => ConnectError::Io(error),
            Err(_) => ConnectError::Timeout,
        };
        let timed_out = matches!(error, ConnectError::Timeout);
        failed = Some(match failed {
            Some(former) => former.or(error),
            None => error,
        });
        if timed_out {
            break;
        }
    }
    Err(failed.unwrap_or_else(|| ConnectError::Resolver(io::ErrorKind::NotFound.into())))
}

async fn speak<T, B>(io: T, slot: Option<Slot>) -> Result<Opened<B>, ConnectError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let heard = Arc::default();
    let held = Held::new(io, Hearing::new(Arc::clone(&heard)), slot);
    let (sender, connection) = handshake(TokioIo::new(held)).await?;
    Ok(Opened { sender, connection: Box::pin(connection.with_upgrades().map(drop)), heard })
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

    #[test]
    fn a_server_is_to_blame_for_what_all_of_its_addresses_show() {
        let io = |errno: Errno| ConnectError::Io(errno.into());
        let refused = || io(Errno::CONNREFUSED);
        let (no_file, no_port) = (|| io(Errno::MFILE), || io(Errno::ADDRNOTAVAIL));
        for (errors, blame) in [
            (vec![refused(), io(Errno::NETUNREACH)], Blame::Outright),
            (vec![refused(), ConnectError::Timeout], Blame::Outright),
            (vec![no_file(), refused()], Blame::Ours),
            (vec![refused(), no_file()], Blame::Ours),
            (vec![no_port(), refused()], Blame::Perhaps),
            (vec![refused(), no_port(), refused()], Blame::Perhaps),
            (vec![no_file(), no_port(), ConnectError::Timeout], Blame::Ours),
            (vec![no_port(), no_file()], Blame::Ours),
        ] {
            let said = format!("{errors:?}");
            assert_eq!(errors.into_iter().reduce(ConnectError::or).unwrap().blame(), blame, "{said}");
        }
    }

    #[tokio::test]
    async fn addresses_are_tried_in_order() {
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = listening.local_addr().unwrap();
        // Bound, and nobody listens.
        let idle = TcpSocket::new_v4().unwrap();
        idle.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refusing = idle.local_addr().unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        let connected = to_any(vec![refusing, taken, refusing], end).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), taken);
        assert_eq!(to_any(vec![refusing, refusing], end).await.unwrap_err().blame(), Blame::Outright);
        assert_eq!(to_any(Vec::new(), end).await.unwrap_err().blame(), Blame::Perhaps);
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_no_fault_of_a_server() {
        // Longer than a label may be (RFC 1035 §2.3.4), so that no resolver is asked.
        let server = UpstreamServer::Tcp { https: false, host: "x".repeat(64), port: 9 };
        let tls = UpstreamTls::load(&[]).unwrap();
        let connecting =
            connect::<http_body_util::Empty<bytes::Bytes>>(&tls, 0, &server, Duration::from_secs(30), (None, None));
        let Err(error) = connecting.await else {
            panic!("it has an address");
        };
        assert_eq!(error.blame(), Blame::Perhaps, "{error}");
    }
}
