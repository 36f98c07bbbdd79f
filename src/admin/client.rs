//! The command line's side of the admin API: one request a connection, over the UNIX socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::documents::{ImportEvent, ImportProgress, Imported, Refusal, RefusalDetail};

/// More than any answer to a person; a million bindings as JSON stay below it.
const MAX_ANSWER: usize = 1 << 30;

/// Longer than any verb takes, or is silent; what stands still for so long is broken.
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
    /// The gateway ended, or the input did, before the answer was whole.
    #[error("the gateway at {} broke off; what it acknowledged is kept, run the import again", path.display())]
    BrokenOff {
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
        let answer = timeout(PATIENCE, self.exchange(method, path_and_query)).await;
        answer.unwrap_or_else(|_| Err(self.silent()))
    }

    /// Sends `lines`, chunks of JSON lines of any size, to be imported, and reads how far it is while it goes on.
    /// Memory is bounded: chunks are taken as fast as the gateway reads them. An `Err` among them ends the import
    /// before the line it is in.
    ///
    /// # Errors
    /// [`ClientError`]; whatever `progress` counted is durable all the same.
    pub async fn import(
        &self,
        lines: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        mut progress: impl FnMut(ImportProgress),
    ) -> Result<Imported, ClientError> {
        let broken_off = || ClientError::BrokenOff { path: self.socket.clone() };
        // Nothing is sent before the gateway said yes, so its no is not lost in a connection that it closes.
        let (accepted, may_send) = oneshot::channel();
        let may_send = stream::once(may_send).filter_map(|_| std::future::ready(None));
        let body = BodyExt::boxed_unsync(StreamBody::new(may_send.chain(lines).map_ok(Frame::data)));
        let sent = timeout(PATIENCE, self.send(Method::POST, "/v1/bindings/import", body)).await;
        let (answer, _connection) = sent.unwrap_or_else(|_| Err(self.silent()))?;
        if answer.status() != StatusCode::OK {
            return self.document(answer).await;
        }
        let _ = accepted.send(()); // a connection that ended meanwhile says so below
        let mut events = answer.into_body();
        let mut text = Vec::new();
        loop {
            let frame = timeout(PATIENCE, events.frame()).await.map_err(|_| self.silent())?;
            let frame = frame.ok_or_else(broken_off)?.map_err(|_| broken_off())?;
            text.extend_from_slice(&frame.into_data().unwrap_or_default());
            if text.len() > MAX_ANSWER {
                return Err(self.protocol());
            }
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let event: Vec<u8> = text.drain(..=end).collect();
                match serde_json::from_slice(&event).map_err(|_| self.protocol())? {
                    ImportEvent::Progress { progress: counts } => progress(counts),
                    ImportEvent::Done(imported) => return Ok(imported),
                    ImportEvent::Refused(refusal) => return Err(ClientError::Refused(refusal.error)),
                }
            }
        }
    }

    async fn exchange<T: DeserializeOwned>(&self, method: Method, path_and_query: &str) -> Result<T, ClientError> {
        let (answer, _connection) = self.send(method, path_and_query, Empty::<Bytes>::new()).await?;
        self.document(answer).await
    }

    /// The head of the answer, and the connection, which ends when it is dropped.
    async fn send<B>(
        &self,
        method: Method,
        path_and_query: &str,
        body: B,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<hyper::Result<()>>), ClientError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.no_connection(source))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| self.protocol())?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .header(header::HOST, "sekisho")
            .body(body)
            .map_err(|_| self.protocol())?;
        let answer = sender.send_request(request).await.map_err(|_| self.protocol())?;
        Ok((answer, connection))
    }

    async fn document<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, ClientError> {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| self.protocol())?.to_bytes();
        if status == StatusCode::OK {
            serde_json::from_slice(&body).map_err(|_| self.protocol())
        } else {
            let refusal: Refusal = serde_json::from_slice(&body).map_err(|_| self.protocol())?;
            Err(ClientError::Refused(refusal.error))
        }
    }

    fn protocol(&self) -> ClientError {
        ClientError::Protocol { path: self.socket.clone() }
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { path: self.socket.clone() }
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
