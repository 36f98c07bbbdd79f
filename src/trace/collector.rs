//! The collector: one connection of HTTP/1.1 that is kept, one POST after the other (OTLP/HTTP, binary protobuf).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::destination::Destination;
use super::wire;

/// What is added to the endpoint (OTLP/HTTP request, "Request paths").
const TRACES: &str = "/v1/traces";
/// Bytes of an answer that are read.
const MOST_ANSWER: usize = 64 << 10;
/// The longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A connection to where the last message went.
#[derive(Default)]
pub(super) struct Collector {
    /// If it still stands.
    kept: Option<(Arc<Destination>, SendRequest<Full<Bytes>>)>,
}

/// Why a message was not taken.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("cannot connect: {0}")]
    Unreachable(std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    #[error("answered {status}")]
    Status {
        status: StatusCode,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    #[error("no answer in time")]
    Silent,
}

impl Refusal {
    /// Whether the same message may be taken later (OTLP/HTTP response, "Retryable Response Codes").
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Silent => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }

    /// How long the collector asks to be left alone.
    pub(super) const fn pause(&self) -> Option<Duration> {
        match self {
            Self::Status { after, .. } => *after,
            Self::Unreachable(_) | Self::Broken(_) | Self::Silent => None,
        }
    }
}

impl Collector {
    /// Sends one message. Gives back how many of its spans were refused though the message was taken.
    ///
    /// # Errors
    /// [`Refusal`]; whether a message whose answer did not come was taken is unknown.
    pub(super) async fn post(
        &mut self,
        to: &Arc<Destination>,
        message: Bytes,
        patience: Duration,
    ) -> Result<u64, Refusal> {
        // Taken out: what is broken off leaves a connection behind that nobody may use again.
        let kept = self.kept.take().and_then(|(of, sender)| Arc::ptr_eq(&of, to).then_some(sender));
        match tokio::time::timeout(patience, self.post_on(kept, to, message)).await {
            Ok(answered) => answered,
            Err(_) => Err(Refusal::Silent),
        }
    }

    async fn post_on(
        &mut self,
        kept: Option<SendRequest<Full<Bytes>>>,
        to: &Arc<Destination>,
        message: Bytes,
    ) -> Result<u64, Refusal> {
        let mut unsent = request(to, message);
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(unsent).await {
                Ok(response) => return self.answered(to, sender, response).await,
                Err(mut error) => match error.take_message() {
                    // It had been closed meanwhile, and nothing was sent.
                    Some(request) => unsent = request,
                    None => return Err(Refusal::Broken(error.into_error())),
                },
            }
        }
        let mut sender = connect(to).await?;
        let response = sender.send_request(unsent).await.map_err(Refusal::Broken)?;
        self.answered(to, sender, response).await
    }

    async fn answered(
        &mut self,
        to: &Arc<Destination>,
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
    ) -> Result<u64, Refusal> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MOST_ANSWER).collect().await;
        if body.is_ok() {
            self.kept = Some((Arc::clone(to), sender));
        }
        if head.status.is_success() {
            return Ok(body.map_or(0, |body| wire::rejected(&body.to_bytes())));
        }
        let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        Err(Refusal::Status { status: head.status, after })
    }
}

fn request(to: &Destination, message: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("{}{TRACES}", to.url.path).parse().unwrap_or_default();
    *request.headers_mut() = to.fields.clone();
    request
}

async fn connect(to: &Destination) -> Result<SendRequest<Full<Bytes>>, Refusal> {
    let host = to.url.origin.bare_host();
    let tcp = TcpStream::connect((host, to.url.origin.effective_port())).await.map_err(Refusal::Unreachable)?;
    match &to.tls {
        Some(tls) => drive(tls.connect(host, tcp).await.map_err(Refusal::Unreachable)?).await,
        None => drive(tcp).await,
    }
}

async fn drive<T>(io: T) -> Result<SendRequest<Full<Bytes>>, Refusal>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(Refusal::Broken)?;
    // What ends the connection is told to the message that it ends.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}
