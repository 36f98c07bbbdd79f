//! Binding: a port is ours alone, and still every worker has a socket of its own on it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::inherited::Inherited;
use super::terms::{ListenerHandle, Terms};

/// Connections that may wait to be accepted, a socket; the system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A listener's address cannot be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody listens there already: another program, or another Sekisho.
    #[error("{address} is in use; end what listens there or choose another port")]
    InUse {
        /// The address as configured.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("{address}: {source}")]
    Io {
        /// The address as configured.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// One configured listener: an address that nobody else listened on, with one socket for each worker.
pub struct BoundListener {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) handle: ListenerHandle,
}

impl BoundListener {
    /// Listens on `address` with `workers` sockets, one at least, until it is closed or `shutdown` fires: with those of
    /// `inherited` at this address, or new ones.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        address: SocketAddr,
        terms: Terms,
        inherited: &mut Inherited,
        workers: usize,
        shutdown: &CancellationToken,
    ) -> Result<Self, BindError> {
        let failed = |error| BindError::from_io(address, error);
        let (sockets, address) = match inherited.take(address, workers) {
            Some(passed) => (passed.map_err(failed)?, address),
            None => listen(address, workers).map_err(failed)?,
        };
        Ok(Self { sockets, handle: ListenerHandle::new(address, terms, shutdown) })
    }

    /// Whether the address could be bound now, without keeping it and without accepting anybody.
    ///
    /// # Errors
    /// [`BindError`], as [`BoundListener::bind`] would give.
    pub fn probe(address: SocketAddr) -> Result<(), BindError> {
        exclusive(address).map(drop).map_err(|error| BindError::from_io(address, error))
    }

    /// For whoever changes its terms, or closes it.
    #[must_use]
    pub const fn handle(&self) -> &ListenerHandle {
        &self.handle
    }

    /// The first socket, for who accepts by itself.
    #[must_use]
    pub fn into_socket(self) -> Option<(TcpListener, ListenerHandle)> {
        Some((self.sockets.into_iter().next()?, self.handle))
    }

    /// Where it really listens (port 0 was resolved).
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.handle.address()
    }
}

impl BindError {
    fn from_io(address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse { Self::InUse { address } } else { Self::Io { address, source } }
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // On Linux this forgives connections in TIME_WAIT after a restart and never a socket that listens.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// `count` sockets that listen, and where: port 0 is resolved by the first, which the others follow.
///
/// `SO_REUSEPORT` alone would let a second Sekisho of the same user share the port unnoticed. So the first socket
/// binds and listens without it, which fails if anybody at all listens there; `listen` looks again, so of two that
/// start at the same moment at most one wins. Only then is the flag set, and the other sockets join the first.
fn listen(address: SocketAddr, count: usize) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    let first = exclusive(address)?;
    first.listen(BACKLOG)?;
    first.set_reuse_port(true)?;
    let first = TcpListener::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(shared(address)?);
    }
    Ok((sockets, address))
}

/// Bound, not yet listening.
fn exclusive(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::sync::Barrier;

    use super::*;
    use crate::config::Serves;
    use crate::edge::listener::tests::{own_address, terms};

    fn bind(address: impl Into<SocketAddr>) -> Result<BoundListener, BindError> {
        let terms = terms(Serves::Handset, None);
        BoundListener::bind(address.into(), terms, &mut Inherited::default(), 4, &CancellationToken::new())
    }

    fn in_use(result: &Result<impl Sized, BindError>) -> bool {
        matches!(result, Err(BindError::InUse { .. }))
    }

    #[test]
    fn every_worker_has_a_socket_on_the_one_resolved_port() {
        let bound = bind((own_address(), 0)).unwrap();
        assert_ne!(bound.address().port(), 0);
        assert_eq!(bound.sockets.len(), 4);
        assert!(bound.sockets.iter().all(|socket| socket.local_addr().unwrap() == bound.address()));
    }

    #[test]
    fn a_second_sekisho_on_the_port_is_refused() {
        let own = own_address();
        for first in [own, Ipv4Addr::UNSPECIFIED] {
            let bound = bind((first, 0)).unwrap();
            let port = bound.address().port();
            for second in [own, Ipv4Addr::UNSPECIFIED] {
                assert!(in_use(&bind((second, port))), "{first} then {second}");
                assert!(in_use(&BoundListener::probe((second, port).into())), "{first} then {second}");
            }
            assert!(in_use(&bind((Ipv6Addr::UNSPECIFIED, port))), "{first} then [::]");
        }
    }

    #[test]
    fn a_port_that_any_other_program_holds_is_refused() {
        let own = own_address();
        let plain = TcpListener::bind((own, 0)).unwrap();
        let sharing = shared((own, 0).into()).unwrap();
        for other in [plain, sharing] {
            let port = other.local_addr().unwrap().port();
            for ours in [own, Ipv4Addr::UNSPECIFIED] {
                assert!(in_use(&bind((ours, port))), "{ours}");
                assert!(in_use(&BoundListener::probe((ours, port).into())), "{ours}");
            }
        }
    }

    #[test]
    fn of_many_that_start_at_once_one_at_most_wins() {
        let own = own_address();
        for _ in 0..50 {
            let address = free_port(own);
            let barrier = Barrier::new(4);
            let start = || {
                barrier.wait();
                bind(address)
            };
            let results: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(results.iter().filter(|result| result.is_ok()).count() <= 1);
            assert!(results.into_iter().all(|result| result.is_ok() || in_use(&result)));
        }
    }

    #[test]
    fn the_port_is_free_again_at_once_even_after_connections() {
        let bound = bind((own_address(), 0)).unwrap();
        let address = bound.address();
        let client = TcpStream::connect(address).unwrap();
        // Dropping the listening sockets resets what was never accepted.
        drop(bound);
        drop(client);
        BoundListener::probe(address).unwrap();
        assert!(bind(address).is_ok());
    }

    #[test]
    fn probing_keeps_nothing() {
        let address = free_port(own_address());
        BoundListener::probe(address).unwrap();
        BoundListener::probe(address).unwrap();
        assert!(bind(address).is_ok());
    }

    #[test]
    fn other_refusals_name_the_address() {
        // TEST-NET-1 is no address of this machine (RFC 5737).
        let error = bind((Ipv4Addr::new(192, 0, 2, 1), 0)).err().unwrap();
        assert!(matches!(error, BindError::Io { .. }) && error.to_string().starts_with("192.0.2.1:0: "), "{error}");
    }

    fn free_port(own: Ipv4Addr) -> SocketAddr {
        exclusive((own, 0).into()).unwrap().local_addr().unwrap().as_socket().unwrap()
    }
}
