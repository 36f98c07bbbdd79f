//! The accept loop: it waits for connections and for nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::activity::Protocol;
use super::admission::{Admission, Seat};
use super::connection::{Connection, Handler, Server};
use super::proxy_header::{self, ProxyHeaderError};
use super::turned_away::TurnedAway;
use crate::config::Serves;
use crate::edge::{Scheme, TrustedProxies};
use crate::tls::{ListenerTlsConfig, agreed_on_h2};

/// How long to leave the system alone when it has no descriptor or memory for a connection.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How often to say so.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// One worker's socket of a listener.
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) serves: Serves,
    pub(super) tls: Option<Arc<ListenerTlsConfig>>,
    /// Whose PROXY header is believed, where connections begin with one.
    pub(super) proxies: Option<Arc<TrustedProxies>>,
    pub(super) admission: Arc<Admission>,
}

impl Door {
    /// Accepts until the gateway ends; every connection is a task of its own in `tasks`.
    pub(super) async fn accept<H: Handler>(self, server: Arc<Server<H>>, tasks: TaskTracker) {
        let scheme = if self.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let mut said: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = server.shutdown.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    let seat = match self.admission.enter(peer.ip()) {
                        Ok(seat) => seat,
                        // Closed by being dropped; not even a task is spent on it.
                        Err(full) => {
                            server.turn_away(full.into(), &full);
                            continue;
                        }
                    };
                    let connection = Connection { peer, scheme, serves: self.serves };
                    let (tls, proxies) = (self.tls.clone(), self.proxies.clone());
                    tasks.spawn(greet(tcp, connection, seat, tls, proxies, Arc::clone(&server)));
                }
                // The client changed its mind before it was its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        said = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept connections; trying on (is LimitNOFILE too low?)");
                    }
                    tokio::select! {
                        () = server.shutdown.cancelled() => return,
                        () = sleep(BACK_OFF) => {}
                    }
                }
            }
        }
    }
}

async fn greet<H: Handler>(
    mut tcp: TcpStream,
    mut connection: Connection,
    mut seat: Seat,
    tls: Option<Arc<ListenerTlsConfig>>,
    proxies: Option<Arc<TrustedProxies>>,
    server: Arc<Server<H>>,
) {
    // Fails only where the peer is gone already, which reading finds out.
    let _ = tcp.set_nodelay(true);
    if let Some(proxies) = proxies {
        let introduced = tokio::select! {
            () = server.shutdown.cancelled() => return,
            introduced = timeout(server.handshake_timeout(), introduce(&mut tcp, &mut connection, &proxies)) => introduced,
        };
        match introduced {
            Ok(Ok(())) => {}
            Ok(Err(error @ ProxyHeaderError::Untrusted)) => {
                return server.turn_away(TurnedAway::UntrustedProxy, &error);
            }
            Ok(Err(error)) => return server.turn_away(TurnedAway::ProxyHeader, &error),
            Err(late) => return server.turn_away(TurnedAway::ProxyHeader, &late),
        }
        if let Err(full) = seat.is_for(connection.peer.ip()) {
            return server.turn_away(full.into(), &full);
        }
    }
    let Some(tls) = tls else {
        // HTTP/2 without TLS is not offered, so carriers' gateways meet HTTP/1 alone.
        return server.serve(tcp, Protocol::Http1, connection, Some(seat)).await;
    };
    // Boxed, so that a connection in the clear does not keep the room that TLS needs.
    Box::pin(shake_hands(tcp, connection, seat, tls, server)).await;
}

async fn shake_hands<H: Handler>(
    tcp: TcpStream,
    connection: Connection,
    seat: Seat,
    tls: Arc<ListenerTlsConfig>,
    server: Arc<Server<H>>,
) {
    let shaken = tokio::select! {
        () = server.shutdown.cancelled() => return,
        shaken = timeout(server.handshake_timeout(), tls.accept(tcp)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let protocol = if agreed_on_h2(&stream) { Protocol::Http2 } else { Protocol::Http1 };
            server.serve(stream, protocol, connection, Some(seat)).await;
        }
        Ok(Err(error)) => server.turn_away(TurnedAway::TlsHandshake, &error),
        Err(late) => server.turn_away(TurnedAway::TlsHandshake, &late),
    }
}

/// Lets a trusted proxy say whose connection this is; from then on that one is the peer.
async fn introduce(
    tcp: &mut TcpStream,
    connection: &mut Connection,
    proxies: &TrustedProxies,
) -> Result<(), ProxyHeaderError> {
    if !proxies.trusts(connection.peer.ip()) {
        // Not read: who may not say it has nothing to say.
        return Err(ProxyHeaderError::Untrusted);
    }
    let told = proxy_header::read(tcp).await?;
    if let Some(source) = told.source {
        connection.peer = source;
    }
    if told.over_tls {
        connection.scheme = Scheme::Https;
    }
    Ok(())
}
