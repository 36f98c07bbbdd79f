//! Serves a router on a loopback listener until told to stop.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A whole request head must arrive within this time; also how long a connection waits for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);

/// Answers requests on `listener` until `shutdown` fires; open connections end with it.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
                let shutdown = shutdown.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        finished = connection => {
                            if let Err(error) = finished {
                                tracing::debug!(%error, "a connection ended early");
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
