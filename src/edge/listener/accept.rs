//! The accept loop: it waits for connections and for nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::activity::Protocol;
use super::admission::Full;
use super::connection::{Connection, Handler, Server};
use super::outbox::Outgoing;
use super::proxy_header::{self, ProxyHeaderError};
use super::terms::{ListenerHandle, Place, TermsInForce};
use super::turned_away::TurnedAway;
use crate::config::LimitsConfig;
use crate::edge::{Scheme, TrustedProxies};
use crate::tls::{ListenerTlsConfig, agreed_on_h2};

/// How long to leave the system alone when it has no descriptor or memory for a connection.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How often to say so.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// One worker's socket of a listener.
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) listener: ListenerHandle,
    /// Fires when the listener closes. The worker's own: checked at each step of a connection, so it must not be contended.
    pub(super) closing: CancellationToken,
}

/// A connection that was accepted, and what it came under.
struct Accepted {
    connection: Connection,
    terms: Arc<TermsInForce>,
    closing: CancellationToken,
    place: Place,
}

impl Door {
    /// Accepts until the listener closes; every connection is a task of its own in `tasks`.
    pub(super) async fn accept<H: Handler>(self, server: Arc<Server<H>>, tasks: TaskTracker) {
        let mut said: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.closing.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => match self.accepted(peer) {
                    Ok(accepted) => drop(tasks.spawn(greet(tcp, accepted, Arc::clone(&server)))),
                    // Closed by being dropped; not even a task is spent on it.
                    Err(full) => server.turn_away(full.into(), &full),
                },
                // The client changed its mind before it was its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        said = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept connections; trying on (is LimitNOFILE too low?)");
                    }
                    tokio::select! {
                        () = self.closing.cancelled() => return,
                        () = sleep(BACK_OFF) => {}
                    }
                }
            }
        }
    }

    fn accepted(&self, peer: SocketAddr) -> Result<Accepted, Full> {
        let terms = self.listener.in_force();
        let place = self.listener.place(&terms, peer.ip())?;
        let connection = Connection { peer, scheme: terms.terms.scheme(), serves: terms.terms.serves };
        let closing = terms.ended().unwrap_or(&self.closing).clone();
        Ok(Accepted { connection, terms, closing, place })
    }
}

async fn greet<H: Handler>(mut tcp: TcpStream, mut accepted: Accepted, server: Arc<Server<H>>) {
    // Fails only where the peer is gone already, which reading finds out.
    let _ = tcp.set_nodelay(true);
    let handshake = accepted.terms.terms.limits.timeouts.handshake;
    if let Some(proxies) = &accepted.terms.terms.proxies {
        let introduced = tokio::select! {
            () = accepted.closing.cancelled() => return,
            introduced = timeout(handshake, introduce(&mut tcp, &mut accepted.connection, proxies)) => introduced,
        };
        match introduced {
            Ok(Ok(())) => {}
            Ok(Err(error @ ProxyHeaderError::Untrusted)) => {
                return server.turn_away(TurnedAway::UntrustedProxy, &error);
            }
            Ok(Err(error)) => return server.turn_away(TurnedAway::ProxyHeader, &error),
            Err(late) => return server.turn_away(TurnedAway::ProxyHeader, &late),
        }
        if let Err(full) = accepted.place.is_for(accepted.connection.peer.ip()) {
            return server.turn_away(full.into(), &full);
        }
    }
    let Accepted { connection, terms, closing, place } = accepted;
    let limits = terms.terms.limits;
    let tcp = Outgoing::new(tcp, server.outbox.as_ref());
    let Some(tls) = &terms.terms.tls else {
        // HTTP/2 without TLS is not offered, so carriers' gateways meet HTTP/1 alone.
        return server.serve(tcp, Protocol::Http1, connection, &limits, &closing, Some(place)).await;
    };
    // Boxed, so that a connection in the clear does not keep the room that TLS needs.
    Box::pin(shake_hands(tcp, connection, place, tls, (&limits, &closing), server)).await;
}

async fn shake_hands<H: Handler>(
    tcp: Outgoing<TcpStream>,
    connection: Connection,
    place: Place,
    tls: &ListenerTlsConfig,
    (limits, closing): (&LimitsConfig, &CancellationToken),
    server: Arc<Server<H>>,
) {
    let shaken = tokio::select! {
        () = closing.cancelled() => return,
        shaken = timeout(limits.timeouts.handshake, tls.accept(tcp)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let protocol = if agreed_on_h2(&stream) { Protocol::Http2 } else { Protocol::Http1 };
            server.serve(stream, protocol, connection, limits, closing, Some(place)).await;
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
