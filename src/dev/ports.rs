//! Which ports are used: the well-known ones, or free ones where these are taken.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Binds `wanted` on 127.0.0.1, or any free port if somebody else has it.
///
/// # Errors
/// The system's, if not even a free port can be had.
pub(super) fn bind(wanted: u16) -> io::Result<TcpListener> {
    let on = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    on(wanted).or_else(|_| on(0))
}

/// The addresses of the gateway's listeners, as they stand in its configuration.
///
/// It binds them itself, so a port could be lost between this look and its start; start-up then says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct GatewayPorts {
    /// Plain HTTP for handsets.
    pub(super) plain: SocketAddr,
    /// HTTPS for handsets.
    pub(super) tls: SocketAddr,
    /// Health and metrics.
    pub(super) ops: SocketAddr,
}

impl GatewayPorts {
    /// 8080, 8443 and 9090 where they are free.
    ///
    /// # Errors
    /// As [`bind`].
    pub(super) fn choose() -> io::Result<Self> {
        // All three are held until all are chosen, so that no two are the same.
        let (plain, tls, ops) = (bind(8080)?, bind(8443)?, bind(9090)?);
        Ok(Self { plain: plain.local_addr()?, tls: tls.local_addr()?, ops: ops.local_addr()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one() {
        let taken = bind(0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = bind(port).unwrap().local_addr().unwrap();
        assert!(other.ip().is_loopback());
        assert_ne!(other.port(), port);
    }
}
