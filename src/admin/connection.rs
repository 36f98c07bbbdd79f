//! One connection of the admin API, whoever is at its other end.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// A whole request head must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time, of each listener; more wait, so that nobody can use up the gateway's descriptors.
pub(super) const CONNECTIONS: usize = 64;

/// Serves HTTP/1.1 until the caller ends it or, with the open request finished, `shutdown` fires.
pub(super) async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    shutdown: CancellationToken,
) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let finished = tokio::select! {
        finished = connection.as_mut() => finished,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = finished {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
