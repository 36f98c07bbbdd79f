//! The command line's side of the admin API: one request over the UNIX socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use super::documents::{Refusal, RefusalDetail};

/// More than any answer to a person; a million bindings as JSON stay below it.
const MAX_ANSWER: usize = 1 << 30;

/// Longer than any verb takes; what stands still for so long is broken.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why a verb did not do its work.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error(
        "no gateway answers at {}: {source}; start it, or name its socket with --socket, --config or SEKISHO_SOCKET",
        path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let this user open it.
    #[error("this user may not open {}; it is for root, the gateway's user and the socket's group", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The gateway accepted the request and said nothing.
    #[error("the gateway at {} does not answer; whether it did the work is unknown", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// What answers does not speak the admin API.
    #[error("the answer from {} is not the admin API's", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
    },
    /// The gateway refused.
    #[error("{}", .0.message)]
    Refused(RefusalDetail),
}

/// Talks to a running gateway.
pub struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    /// A client of the gateway whose admin socket is `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends one request without a body and reads the document of the answer.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is retried.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path_and_query: &str) -> Result<T, ClientError> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(method, path_and_query)).await;
        answer.unwrap_or_else(|_| Err(ClientError::Silent { path: self.socket.clone() }))
    }

    async fn exchange<T: DeserializeOwned>(&self, method: Method, path_and_query: &str) -> Result<T, ClientError> {
        let path = || self.socket.clone();
        let protocol = || ClientError::Protocol { path: path() };
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.no_connection(source))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| protocol())?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .header(header::HOST, "sekisho")
            .body(Empty::<Bytes>::new())
            .map_err(|_| protocol())?;
        let answer = sender.send_request(request).await.map_err(|_| protocol())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|_| protocol())?.to_bytes();
        driver.abort();
        if status == StatusCode::OK {
            serde_json::from_slice(&body).map_err(|_| protocol())
        } else {
            let refusal: Refusal = serde_json::from_slice(&body).map_err(|_| protocol())?;
            Err(ClientError::Refused(refusal.error))
        }
    }

    fn no_connection(&self, source: io::Error) -> ClientError {
        let path = self.socket.clone();
        if source.kind() == io::ErrorKind::PermissionDenied {
            ClientError::Forbidden { path }
        } else {
            ClientError::Unreachable { path, source }
        }
    }
}
