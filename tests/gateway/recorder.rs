//! An upstream that keeps what it received and answers as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What the upstream received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

type Answering = dyn Fn(&Received) -> Response<Full<Bytes>> + Send + Sync;

/// An upstream that keeps what it received and answers as it is told.
pub(crate) struct RecordingUpstream {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    answering: Arc<Mutex<Arc<Answering>>>,
}

impl RecordingUpstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let default: Arc<Answering> =
            Arc::new(|_| Response::new(Full::new(Bytes::from_static(b"<html>console</html>"))));
        let answering = Arc::new(Mutex::new(default));
        let (log, answers) = (Arc::clone(&received), Arc::clone(&answering));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await;
                        let trailers = body.as_ref().ok().and_then(|body| body.trailers().cloned());
                        let received = Received {
                            method: parts.method,
                            target: parts.uri.to_string(),
                            headers: parts.headers,
                            body: body.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
                            trailers: trailers.unwrap_or_default(),
                        };
                        log.lock().unwrap().push(received.clone());
                        let answering = Arc::clone(&answers.lock().unwrap());
                        Ok::<_, std::convert::Infallible>(answering(&received))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, received, answering }
    }

    /// Answers like this from now on.
    pub(crate) fn answer(&self, answering: impl Fn(&Received) -> Response<Full<Bytes>> + Send + Sync + 'static) {
        *self.answering.lock().unwrap() = Arc::new(answering);
    }

    /// Everything received so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The last thing received.
    pub(crate) fn last(&self) -> Received {
        self.received().last().expect("the upstream received nothing").clone()
    }
}
