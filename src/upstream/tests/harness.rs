use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::StandIn;
use crate::body::Body;
use crate::config::{
    ClientTimeouts, LimitsConfig, Rate, SubjectKind, UpstreamConfig, UpstreamQueue, UpstreamServer, UpstreamTimeouts,
};
use crate::edge::{HeadLimits, Outbox, RawHead, Scheme, TrustedProxies};
use crate::session::SessionEnd;
use crate::tls::UpstreamTls;
use crate::trace::{RequestId, UpstreamCall};
use crate::upstream::{Ends, Forwarded, Health, LimitedBody, StrippedHead, Upstreams};

/// Long enough never to fire in a test that passes.
const LONG: Duration = Duration::from_mins(1);
/// The time-out under test.
pub(super) const SHORT: Duration = Duration::from_millis(50);
pub(super) const BODY_LIMIT: u64 = 100_000;

pub(super) type AnyBody = BoxBody<Bytes, hyper::Error>;

pub(super) fn empty() -> AnyBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed()
}

pub(super) fn full(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body of unknown length that is fed frame by frame.
pub(super) fn fed() -> (mpsc::Sender<Frame<Bytes>>, AnyBody) {
    let (feed, mut frames) = mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx).map(|frame| frame.map(Ok)));
    (feed, BodyExt::boxed(StreamBody::new(frames)))
}

pub(super) fn timeouts() -> UpstreamTimeouts {
    UpstreamTimeouts { connect: LONG, first_byte: LONG, idle: LONG }
}

/// The stage under test, behind an HTTP/1 server. A refusal shows as status 500 and a field `refusal`.
pub(super) struct Gateway {
    address: SocketAddr,
    pub(super) end: Arc<SessionEnd>,
}

impl Gateway {
    pub(super) async fn new(servers: &[SocketAddr], timeout: UpstreamTimeouts) -> Self {
        Self::with(servers, timeout, LONG, None).await
    }

    /// `stale`: told to close its connections just before a request that has a field `x-stale` is sent.
    pub(super) async fn with(
        servers: &[SocketAddr],
        timeout: UpstreamTimeouts,
        body_idle: Duration,
        stale: Option<Stale>,
    ) -> Self {
        let server = |address: &SocketAddr| UpstreamServer::Tcp {
            https: false,
            host: address.ip().to_string(),
            port: address.port(),
        };
        let config = UpstreamConfig {
            name: "console".to_owned(),
            servers: servers.iter().map(server).collect(),
            audience: "https://console.internal".to_owned(),
            may_bind: false,
            subject: SubjectKind::Pairwise,
            ca: None,
            client_certificate: None,
            connections: 100,
            queue: UpstreamQueue { length: 100, time: LONG },
            health: None,
            timeout,
        };
        let rate = Rate { count: 1, period: LONG };
        let limits = LimitsConfig {
            sign_in: rate,
            code: rate,
            pin: rate,
            network: rate,
            head_bytes: 65_536,
            headers: 100,
            body_bytes: BODY_LIMIT,
            url_bytes: 8192,
            connections: None,
            connections_per_address: 1,
            requests: None,
            timeouts: ClientTimeouts { handshake: LONG, head: LONG, body_idle, write_idle: LONG, keep_alive: LONG },
        };
        let tls = Arc::new(UpstreamTls::load(&[]).unwrap());
        let upstreams = Arc::new(Upstreams::new(
            std::slice::from_ref(&config),
            &tls,
            &Health::new(std::slice::from_ref(&config), None, 1),
            &limits,
            None,
            Some(&Outbox::start()),
        ));
        let end = Arc::new(SessionEnd::default());
        let stale = Arc::new(Mutex::new(stale));
        let of_all = Arc::clone(&end);
        let address = serve_with(move |request: Request<Incoming>| {
            let (upstreams, end, stale) = (Arc::clone(&upstreams), Arc::clone(&of_all), Arc::clone(&stale));
            async move { pass(&upstreams, request, &end, &stale).await }
        })
        .await
        .address;
        Self { address, end }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(super) async fn ask(&self, request: http::request::Builder, body: AnyBody) -> Response<Incoming> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        let request = request.header("host", "admin.example.jp").body(body).unwrap();
        sender.send_request(request).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Response<Incoming> {
        self.ask(Request::get(path), empty()).await
    }

    pub(super) async fn refusal(&self, request: http::request::Builder, body: AnyBody) -> String {
        let response = self.ask(request, body).await;
        response.headers().get("refusal").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    }
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

async fn pass(
    upstreams: &Upstreams,
    mut request: Request<Incoming>,
    end: &Arc<SessionEnd>,
    stale: &Mutex<Option<Stale>>,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key("x-stale") {
        stale.lock().unwrap().as_ref().unwrap().close_idle();
        // Before it goes on here the runtime looks at its sockets. So the connection, which is handed the request first,
        // learns of its end before it could write.
        tokio::task::yield_now().await;
    }
    let limits = HeadLimits { head_bytes: 65_536, headers: 100, url_bytes: 8192 };
    let head = RawHead::read(parts, &limits).unwrap();
    let client = TrustedProxies::new(vec![]).resolve("192.0.2.7".parse().unwrap(), Scheme::Http, &head).unwrap();
    let request_id = RequestId::parse("0199aa00112233448899aabbccddeeff").unwrap();
    let call = UpstreamCall::default();
    let forwarded = Forwarded { client: &client, request_id: &request_id, call: &call };
    let request = StrippedHead::strip(head, &StandIn).unwrap().add(None, &forwarded);
    match upstreams
        .send(
            0,
            request,
            LimitedBody { body: body.into(), most_bytes: BODY_LIMIT },
            Some(upgrade),
            Ends { session: Some(end), shutdown: &CancellationToken::new() },
        )
        .await
    {
        Ok(answered) => answered.response,
        Err(error) => Response::builder().status(500).header("refusal", error.to_string()).body(Body::empty()).unwrap(),
    }
}

/// An upstream on port 0 that counts its connections.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An HTTP/1 server.
pub(super) async fn serve<F, R>(respond: F) -> Server
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<AnyBody>> + Send + 'static,
{
    serve_with(respond).await
}

async fn serve_with<F, R, B>(respond: F) -> Server
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    raw(move |_, stream| {
        let respond = respond.clone();
        async move {
            let service = service_fn(move |request| {
                let response = respond(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
        }
    })
    .await
}

/// A server that hands each connection, with its number, to `script`.
pub(super) async fn raw<F, R>(script: F) -> Server
where
    F: Fn(usize, TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(counter.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    Server { address, connections }
}

/// Reads up to the end of a head; empty where the connection was closed.
pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A port where nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A server on a thread of its own, so that it closes a connection while the runtime under test stands still.
/// Each connection answers requests without a body with their number on that connection until it is told to close.
pub(super) struct Stale {
    close: blocking::Sender<()>,
    closed: blocking::Receiver<()>,
}

impl Stale {
    pub(super) fn start() -> (SocketAddr, Self) {
        use std::io::{BufRead, BufReader, Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (close, closing) = blocking::channel();
        let (done, closed) = blocking::channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut reader = BufReader::new(stream);
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                        break;
                    }
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() + 3).into_bytes();
                answer.extend_from_slice(b"ok:");
                answer.extend_from_slice(&body);
                reader.get_mut().write_all(&answer).unwrap();
                if closing.recv().is_err() {
                    return;
                }
                drop(reader);
                done.send(()).unwrap();
            }
        });
        (address, Self { close, closed })
    }

    fn close_idle(&self) {
        self.close.send(()).unwrap();
        self.closed.recv().unwrap();
    }
}
