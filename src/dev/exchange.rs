//! One request and its whole answer over a connection of its own, from a chosen source address.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpSocket;

/// Longest wait for a whole answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// Longest answer that is read, in bytes; pages for handsets stay far below it.
const MAX_ANSWER: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum ExchangeError {
    /// No connection, or none from that address.
    #[error("no connection to {to}: {source}")]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection broke before the answer's end")]
    Broken(#[from] hyper::Error),
    /// The answer cannot be taken.
    #[error("the answer is longer than {MAX_ANSWER} bytes, or broke off")]
    Body,
    /// Nothing came.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// Sends `request` from `from` to `to` and reads the answer to its end.
///
/// # Errors
/// [`ExchangeError`]; nothing is retried.
pub(super) async fn exchange(
    from: Ipv4Addr,
    to: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, ExchangeError> {
    tokio::time::timeout(PATIENCE, once(from, to, request)).await.unwrap_or(Err(ExchangeError::Silent))
}

async fn once(from: Ipv4Addr, to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, ExchangeError> {
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(to).await
    };
    let stream = connect.await.map_err(|source| ExchangeError::Connect { to, source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| ExchangeError::Body)?.to_bytes();
    driver.abort();
    Ok(Response::from_parts(parts, body))
}
