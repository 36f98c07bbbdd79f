//! A collector that keeps every message it gets, as bytes and as spans.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::wire::soon;

/// One message.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) resource: BTreeMap<String, String>,
}

/// A span with its attributes as text, and what it is called by.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) span: Span,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn is(&self, key: &str, value: &str) -> bool {
        self.attributes.get(key).is_some_and(|found| found == value)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

/// What is answered: a status, and how many spans are refused though the message is taken.
pub(crate) type Answering = (StatusCode, i64);

pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    messages: Mutex<Vec<Message>>,
    spans: Mutex<Vec<Seen>>,
    connections: Mutex<u32>,
    answers: Mutex<Vec<Answering>>,
    came: Notify,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::serving(None).await
    }

    pub(crate) async fn serving(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, kept) = (listener.local_addr().unwrap(), Arc::<Kept>::default());
        let keeper = Arc::clone(&kept);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                *keeper.connections.lock().unwrap() += 1;
                let (kept, tls) = (Arc::clone(&keeper), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(tcp, kept).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(stream, kept).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, kept }
    }

    /// A configuration that sends there.
    pub(crate) fn configured(&self, config: &str, more: &str) -> String {
        format!("{config}\n[trace]\nendpoint = \"http://{}\"\n{more}\n", self.address)
    }

    /// Answers the next messages like this, the last first, and those after them with 200.
    pub(crate) fn answer(&self, answers: &[Answering]) {
        *self.kept.answers.lock().unwrap() = answers.to_vec();
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.kept.messages.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> u32 {
        *self.kept.connections.lock().unwrap()
    }

    /// Everything that was received, as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in self.messages() {
            bytes.extend_from_slice(format!("{} {:?}\n", message.target, message.headers).as_bytes());
            bytes.extend_from_slice(&message.body);
        }
        bytes
    }

    pub(crate) fn spans(&self) -> Vec<Seen> {
        self.kept.spans.lock().unwrap().clone()
    }

    /// Waits for the first span of which this is true.
    pub(crate) async fn span(&self, is_it: impl Fn(&Seen) -> bool) -> Seen {
        soon(async {
            loop {
                let came = self.kept.came.notified();
                if let Some(found) = self.spans().into_iter().find(|span| is_it(span)) {
                    return found;
                }
                came.await;
            }
        })
        .await
    }

    /// The request's own span for this path, the last one.
    pub(crate) async fn request(&self, path: &str) -> Seen {
        self.span(|span| span.is("url.path", path)).await
    }

    /// The spans right below this one, by name.
    pub(crate) fn children(&self, of: &Seen) -> HashMap<String, Seen> {
        let below = self.spans().into_iter().filter(|span| span.parent() == of.id() && span.trace() == of.trace());
        below.map(|span| (span.span.name.clone(), span)).collect()
    }
}

async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: T, kept: Arc<Kept>) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let kept = Arc::clone(&kept);
        async move { Ok::<_, Infallible>(take(request, &kept).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn take(request: Request<Incoming>, kept: &Kept) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let message = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let (status, rejected) = kept.answers.lock().unwrap().pop().unwrap_or((StatusCode::OK, 0));
    let mut resource = BTreeMap::new();
    for spans in message.resource_spans {
        resource.extend(texts(&spans.resource.unwrap().attributes));
        if status == StatusCode::OK {
            let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let seen = spans.map(|span| Seen { attributes: texts(&span.attributes), span });
            kept.spans.lock().unwrap().extend(seen);
        }
    }
    let message = Message { target: head.uri.to_string(), headers: head.headers, body, resource };
    kept.messages.lock().unwrap().push(message);
    kept.came.notify_waiters();
    // `partial_success` with `rejected_spans` (opentelemetry-proto, trace_service.proto).
    let answer = if rejected > 0 { vec![0x0a, 2, 0x08, u8::try_from(rejected).unwrap()] } else { Vec::new() };
    Response::builder().status(status).body(Full::new(Bytes::from(answer))).unwrap()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(&attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
