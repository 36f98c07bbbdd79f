//! The admin API over the network: nobody is heard who shows no certificate of ours.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use http::{HeaderName, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Peer;
use super::connection::{CONNECTIONS, serve_connection};
use super::refused::Refused;
use crate::edge::{BoundListener, ListenerHandle, Terms};
use crate::tls::{NameError, ServerStream, client_name};

/// Handshakes at a time: strangers wait for strangers, and take nothing from who has shown a certificate.
const HANDSHAKES: usize = 128;
const BACK_OFF: Duration = Duration::from_millis(100);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A bound TLS listener of the admin API.
pub struct AdminListener {
    socket: std::net::TcpListener,
    handle: ListenerHandle,
}

/// What both connections and handshakes of a listener share.
struct Door {
    router: Router,
    connections: Semaphore,
}

impl AdminListener {
    /// Serves what `bound` was bound for, by the terms in force.
    #[must_use]
    pub fn new(bound: BoundListener) -> Option<Self> {
        let (socket, handle) = bound.into_socket()?;
        Some(Self { socket, handle })
    }

    /// Serves `router` until the listener closes, then lets open requests finish.
    ///
    /// # Errors
    /// The runtime cannot take the socket.
    pub async fn serve(self, router: Router) -> io::Result<()> {
        let listener = TcpListener::from_std(self.socket)?;
        let router = router.layer(middleware::from_fn(not_for_browsers));
        let closing = self.handle.closing();
        let door = Arc::new(Door { router, connections: Semaphore::new(CONNECTIONS) });
        let (tasks, handshakes) = (TaskTracker::new(), Arc::new(Semaphore::new(HANDSHAKES)));
        let accept = async || {
            let permit = Arc::clone(&handshakes).acquire_owned().await;
            (permit, listener.accept().await)
        };
        loop {
            let (permit, accepted) = tokio::select! {
                () = closing.cancelled() => break,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (door, terms, counted) = (Arc::clone(&door), self.handle.in_force(), self.handle.count());
                    // Fires too when certificates are judged otherwise: who was let in may not be any more.
                    let end = terms.ended().unwrap_or(closing).clone();
                    tasks.spawn(async move {
                        let greeted = tokio::select! {
                            () = end.cancelled() => None,
                            greeted = greet(stream, &terms.terms) => greeted,
                        };
                        drop(permit);
                        if let Some(stream) = greeted {
                            door.serve(stream, end).await;
                        }
                        drop(counted);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept; trying again");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// Nobody comes in without TLS.
async fn greet(tcp: TcpStream, terms: &Terms) -> Option<ServerStream> {
    let tls = terms.tls.as_ref()?;
    let _ = tcp.set_nodelay(true); // fails only where the peer is gone, which reading finds out
    match timeout(terms.limits.timeouts.handshake, tls.accept(tcp)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "an admin connection ended in its handshake");
            None
        }
        Err(_) => None,
    }
}

impl Door {
    async fn serve(&self, stream: ServerStream, end: CancellationToken) {
        let permit = tokio::select! {
            () = end.cancelled() => return,
            permit = self.connections.acquire() => permit,
        };
        let router = match client_name(&stream) {
            Ok(name) => self.router.clone().layer(Extension(Peer::Certificate(name))),
            Err(error) => nobody(error),
        };
        serve_connection(stream, router, end).await;
        drop(permit);
    }
}

/// What somebody hears whose certificate is in order and names nobody in particular.
fn nobody(error: NameError) -> Router {
    tracing::warn!(%error, "an admin connection was refused");
    Router::new().fallback(async move || Refused::CertificateName(error))
}

/// A browser shows its certificate for whatever page asks. The API is for programs: a request that a page of another
/// origin caused, or that may be one, is refused before it is judged.
async fn not_for_browsers(request: Request, next: Next) -> Response {
    let fields = request.headers();
    let foreign = |site: &http::HeaderValue| !matches!(site.as_bytes(), b"none" | b"same-origin");
    if fields.contains_key(header::ORIGIN) || fields.get_all(SEC_FETCH_SITE).iter().any(foreign) {
        return Refused::ForeignOrigin.into_response();
    }
    next.run(request).await
}
