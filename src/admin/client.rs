//! The command line's side of the admin API: one request a connection, over the UNIX socket or TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::documents::{ImportEvent, ImportProgress, Imported, Refusal, RefusalDetail};
use super::drills::{DrillEvent, DrillProgress, ShownDrill};
use super::logs::{LogEvent, LogsRead};
use crate::config::Origin;
use crate::tls::VerifyingClient;

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";

/// More than any answer to a person; a million bindings as JSON stay below it.
const MAX_ANSWER: usize = 1 << 30;

/// Longer than any verb takes, or is silent; what stands still for so long is broken.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where a gateway's admin API is.
#[derive(Clone, Debug)]
pub enum Place {
    /// Its UNIX socket.
    Socket(PathBuf),
    /// Its admin listener.
    Url(AdminUrl),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// `https://HOST` or `https://HOST:PORT`, and nothing behind it but a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl(Origin);

impl AdminUrl {
    /// Reads the text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let origin = Origin::parse(text.strip_suffix('/').unwrap_or(text)).map_err(|error| error.to_string())?;
        if origin.https { Ok(Self(origin)) } else { Err("must begin with https://".to_owned()) }
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a verb did not do its work.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error(
        "no gateway answers at {place}: {source}; start it, or name its socket with --socket, --config or SEKISHO_SOCKET, \
         or its admin listener with --admin-url"
    )]
    Unreachable {
        /// Where.
        place: Place,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let this user open the socket.
    #[error("this user may not open {place}; it is for root, the gateway's user and the socket's group")]
    Forbidden {
        /// Where.
        place: Place,
    },
    /// What answers is not whom `--ca` vouches for, or does not take the certificate that was shown.
    #[error(
        "no TLS with {place}: {source}; is it the gateway that --ca vouches for, and --cert issued by its client_ca, in \
         force and not revoked?"
    )]
    Tls {
        /// Where.
        place: Place,
        /// What the TLS library said.
        source: io::Error,
    },
    /// The gateway accepted the request and said nothing.
    #[error("the gateway at {place} does not answer; whether it did the work is unknown")]
    Silent {
        /// Where.
        place: Place,
    },
    /// The gateway ended, or the input did, before the answer was whole.
    #[error("the gateway at {place} broke off; what it acknowledged is kept, run the command again")]
    BrokenOff {
        /// Where.
        place: Place,
    },
    /// The gateway ended, or its store failed, before the answer was whole.
    #[error("the gateway at {place} broke off; what came is not the whole, ask again")]
    CutOff {
        /// Where.
        place: Place,
    },
    /// What answers does not speak the admin API.
    #[error("the answer from {place} is not the admin API's")]
    Protocol {
        /// Where.
        place: Place,
    },
    /// The gateway refused.
    #[error("{}", .0.message)]
    Refused(RefusalDetail),
}

/// Talks to a running gateway.
pub struct AdminClient {
    way: Way,
}

enum Way {
    Socket(PathBuf),
    Tls(AdminUrl, VerifyingClient),
}

impl AdminClient {
    /// A client of the gateway whose admin socket is `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { way: Way::Socket(socket.to_owned()) }
    }

    /// A client of the gateway whose admin listener is at `url`.
    #[must_use]
    pub const fn over_tls(url: AdminUrl, client: VerifyingClient) -> Self {
        Self { way: Way::Tls(url, client) }
    }

    /// Sends one request without a body and reads the document of the answer.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is retried.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path_and_query: &str) -> Result<T, ClientError> {
        self.call_with(method, path_and_query, None).await
    }

    /// As [`AdminClient::call`], with a document.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is retried.
    pub async fn call_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path_and_query: &str,
        document: Option<&serde_json::Value>,
    ) -> Result<T, ClientError> {
        let body = document.map(|document| Bytes::from(document.to_string()));
        let exchange = async {
            let (answer, _connection) =
                self.send(method, path_and_query, JSON, Full::new(body.unwrap_or_default())).await?;
            self.document(answer).await
        };
        let answer = timeout(PATIENCE, exchange).await;
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
        let judge = |event| match event {
            ImportEvent::Progress { progress: counts } => {
                progress(counts);
                Ok(None)
            }
            ImportEvent::Done(imported) => Ok(Some(imported)),
            ImportEvent::Refused(refusal) => Err(ClientError::Refused(refusal.error)),
        };
        self.exchange("/v1/bindings/import", JSON_LINES, lines, judge).await
    }

    /// Sends a sealed log, chunks of any size, and hands on what comes of it as it comes, for as long as `take` says that it
    /// wants more. `days` is the query that names them, empty for all.
    ///
    /// # Errors
    /// [`ClientError`]; what `take` got is then not the whole.
    pub async fn read_logs(
        &self,
        days: &str,
        file: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        mut take: impl FnMut(LogEvent) -> bool,
    ) -> Result<LogsRead, ClientError> {
        let judge = |event| match event {
            LogEvent::Done(read) => Ok(Some(read)),
            LogEvent::Refused(refusal) => Err(ClientError::Refused(refusal.error)),
            LogEvent::Lines { .. } | LogEvent::Finding { .. } => Ok((!take(event)).then(LogsRead::default)),
        };
        let query = if days.is_empty() { String::new() } else { format!("?{days}") };
        self.exchange(&format!("/v1/logs/read{query}"), "text/plain", file, judge).await
    }

    /// Sends lines and reads the answer's, JSON objects that `judge` looks at until it has what was asked for.
    async fn exchange<E: DeserializeOwned, T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        kind: &'static str,
        lines: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        judge: impl FnMut(E) -> Result<Option<T>, ClientError>,
    ) -> Result<T, ClientError> {
        // Nothing is sent before the gateway said yes, so its no is not lost in a connection that it closes.
        let (accepted, may_send) = oneshot::channel();
        let may_send = stream::once(may_send).filter_map(|_| std::future::ready(None));
        let body = BodyExt::boxed_unsync(StreamBody::new(may_send.chain(lines).map_ok(Frame::data)));
        let sent = timeout(PATIENCE, self.send(Method::POST, path_and_query, kind, body)).await;
        let (answer, _connection) = sent.unwrap_or_else(|_| Err(self.silent()))?;
        if answer.status() != StatusCode::OK {
            return self.document(answer).await;
        }
        let _ = accepted.send(()); // a connection that ended meanwhile says so below
        self.events(answer, judge).await
    }

    /// Has a leak of `key`, or of the active binding key, rehearsed, and reads how far that is while it goes on.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is left of the drill.
    pub async fn drill(
        &self,
        key: Option<&str>,
        mut progress: impl FnMut(DrillProgress),
    ) -> Result<ShownDrill, ClientError> {
        let body = serde_json::json!({ "key": key }).to_string();
        let sent = self.send(Method::POST, "/v1/drills/compromise", JSON, Full::new(Bytes::from(body)));
        let (answer, _connection) = timeout(PATIENCE, sent).await.unwrap_or_else(|_| Err(self.silent()))?;
        if answer.status() != StatusCode::OK {
            return self.document(answer).await;
        }
        let judge = |event| match event {
            DrillEvent::Progress { progress: stage } => {
                progress(stage);
                Ok(None)
            }
            DrillEvent::Done(drilled) => Ok(Some(*drilled)),
            DrillEvent::Refused(refusal) => Err(ClientError::Refused(refusal.error)),
        };
        self.events(answer, judge).await
    }

    /// Reads an answer's lines, JSON objects that `judge` looks at until it has what was asked for.
    async fn events<E: DeserializeOwned, T>(
        &self,
        answer: Response<Incoming>,
        mut judge: impl FnMut(E) -> Result<Option<T>, ClientError>,
    ) -> Result<T, ClientError> {
        let broken_off = || ClientError::BrokenOff { place: self.place() };
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
                if let Some(end) = judge(serde_json::from_slice(&event).map_err(|_| self.protocol())?)? {
                    return Ok(end);
                }
            }
        }
    }

    /// Reads an answer of any length, and hands it on as it comes, for as long as `take` says that it wants more.
    ///
    /// # Errors
    /// [`ClientError`]; what `take` got is then not the whole.
    pub async fn stream(&self, path_and_query: &str, take: impl FnMut(&[u8]) -> bool) -> Result<(), ClientError> {
        self.receive(Method::GET, path_and_query, take).await
    }

    /// As [`AdminClient::stream`], of a call that does something first.
    ///
    /// # Errors
    /// [`ClientError`]; what `take` got is then not the whole.
    pub async fn receive(
        &self,
        method: Method,
        path_and_query: &str,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        let sent = timeout(PATIENCE, self.send(method, path_and_query, JSON, Full::default())).await;
        let (answer, _connection) = sent.unwrap_or_else(|_| Err(self.silent()))?;
        if answer.status() != StatusCode::OK {
            // A refusal is a document of its own.
            return self.document::<serde::de::IgnoredAny>(answer).await.map(drop);
        }
        let mut body = answer.into_body();
        loop {
            let Some(frame) = timeout(PATIENCE, body.frame()).await.map_err(|_| self.silent())? else { return Ok(()) };
            let frame = frame.map_err(|_| ClientError::CutOff { place: self.place() })?;
            if !take(&frame.into_data().unwrap_or_default()) {
                return Ok(());
            }
        }
    }

    /// The head of the answer, and the connection, which ends when it is dropped.
    async fn send<B>(
        &self,
        method: Method,
        path_and_query: &str,
        kind: &'static str,
        body: B,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<hyper::Result<()>>), ClientError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        match &self.way {
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|source| self.no_connection(source))?;
                self.send_over(stream, "sekisho", method, path_and_query, kind, body).await
            }
            Way::Tls(AdminUrl(origin), client) => {
                let tcp = TcpStream::connect((origin.bare_host(), origin.effective_port()));
                let tcp = tcp.await.map_err(|source| self.no_connection(source))?;
                let stream = client.connect(&origin.host, tcp).await;
                let stream = stream.map_err(|source| ClientError::Tls { place: self.place(), source })?;
                let host = origin.port.map_or_else(|| origin.host.clone(), |port| format!("{}:{port}", origin.host));
                self.send_over(stream, &host, method, path_and_query, kind, body).await
            }
        }
    }

    async fn send_over<B>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
        method: Method,
        path_and_query: &str,
        kind: &'static str,
        body: B,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<hyper::Result<()>>), ClientError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| self.protocol())?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, kind)
            .body(body)
            .map_err(|_| self.protocol())?;
        let answer = sender.send_request(request).await.map_err(|error| self.no_answer(&error))?;
        Ok((answer, connection))
    }

    async fn document<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, ClientError> {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| self.protocol())?.to_bytes();
        if status.is_success() {
            serde_json::from_slice(&body).map_err(|_| self.protocol())
        } else {
            let refusal: Refusal = serde_json::from_slice(&body).map_err(|_| self.protocol())?;
            Err(ClientError::Refused(refusal.error))
        }
    }

    fn place(&self) -> Place {
        match &self.way {
            Way::Socket(path) => Place::Socket(path.clone()),
            Way::Tls(url, _) => Place::Url(url.clone()),
        }
    }

    fn protocol(&self) -> ClientError {
        ClientError::Protocol { place: self.place() }
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { place: self.place() }
    }

    fn no_connection(&self, source: io::Error) -> ClientError {
        let place = self.place();
        if source.kind() == io::ErrorKind::PermissionDenied {
            ClientError::Forbidden { place }
        } else {
            ClientError::Unreachable { place, source }
        }
    }

    /// With TLS 1.3 a server that does not accept a certificate says so in place of an answer.
    fn no_answer(&self, error: &hyper::Error) -> ClientError {
        let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        match (&self.way, source) {
            (Way::Tls(..), Some(source)) if source.kind() == io::ErrorKind::InvalidData => {
                let source = io::Error::new(source.kind(), source.to_string());
                ClientError::Tls { place: self.place(), source }
            }
            _ => self.protocol(),
        }
    }
}
