//! What clients meet: one connection under tokio's paused clock, and whole workers over real sockets.

mod connections;
mod departed;
mod framed;
mod interim;
mod noted;
mod parked;
mod workers;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Collected, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::{Admission, Answers, Connection, ConnectionLimits, Handler, Terms};
use crate::body::Body;
use crate::config::{ClientTimeouts, LimitsConfig, Rate, Serves};
use crate::edge::TrustedProxies;
use crate::tls::ListenerTlsConfig;

/// A loopback address of one test's own: ports that it frees are not taken by its neighbours.
pub(super) fn own_address() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    Ipv4Addr::new(127, 0, 77, LAST.fetch_add(1, Relaxed) + 1)
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Lets everybody in.
fn unlimited() -> Arc<Admission> {
    let proxies = TrustedProxies::new(vec![]);
    let (all, per_address) = (usize::MAX, usize::MAX);
    Admission::new(ConnectionLimits { all, per_address, proxies, is_shared: Box::new(|_| false) })
}

/// Of a listener that lets everybody in.
pub(super) fn terms(serves: Serves, tls: Option<Arc<ListenerTlsConfig>>) -> Terms {
    Terms { serves, tls, proxies: None, admission: unlimited(), limits: limits() }
}

/// The defaults of the contract.
pub(super) fn limits() -> LimitsConfig {
    let rate = Rate { count: 10, period: seconds(60) };
    LimitsConfig {
        sign_in: rate,
        code: rate,
        pin: rate,
        network: rate,
        head_bytes: 32 * 1024,
        headers: 100,
        body_bytes: 16 * 1024 * 1024,
        url_bytes: 8 * 1024,
        connections: None,
        connections_per_address: 256,
        requests: None,
        timeouts: ClientTimeouts {
            handshake: seconds(10),
            head: seconds(15),
            body_idle: seconds(30),
            write_idle: seconds(30),
            keep_alive: seconds(75),
        },
    }
}

/// A handler whose paths do what their names say.
struct Paths {
    worker: usize,
    /// A permit comes whenever a request that waits for something has arrived.
    arrived: Semaphore,
    /// `/wait` and what is late go on with a permit of this.
    go_on: Semaphore,
    /// Until this is false, `/hang` holds its worker up.
    hangs: AtomicBool,
}

impl Paths {
    fn new(worker: usize) -> Arc<Self> {
        Arc::new(Self { worker, arrived: Semaphore::new(0), go_on: Semaphore::new(0), hangs: AtomicBool::new(true) })
    }

    async fn is_let_go_on(&self) {
        self.arrived.add_permits(1);
        self.go_on.acquire().await.unwrap().forget();
    }
}

/// Sends back the first `count` bytes, and ends.
fn upgraded(request: Request<Incoming>, count: usize) -> Response<Body> {
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    let response = Response::builder().status(101).header(header::CONNECTION, "upgrade");
    response.header(header::UPGRADE, "echo").body(Body::empty()).unwrap()
}

const BIG: usize = 4 * 1024 * 1024;

impl Handler for Paths {
    /// How many requests came.
    type Kept = Cell<u32>;

    fn handle(
        self: &Arc<Self>,
        connection: Connection,
        came: &Cell<u32>,
        request: Request<Incoming>,
    ) -> impl Answers + Send + use<> {
        came.set(came.get() + 1);
        Arc::clone(self).answer(connection, came.get(), request)
    }
}

impl Paths {
    async fn answer(self: Arc<Self>, connection: Connection, came: u32, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/panic" => panic!("a handler may panic"),
            "/hang" => {
                self.arrived.add_permits(1);
                // The thread, not the task.
                while self.hangs.load(Relaxed) {
                    std::thread::yield_now();
                }
                Response::new(Body::full("done"))
            }
            "/big" => Response::new(Body::full(vec![b'x'; BIG])),
            "/long" => {
                tokio::time::sleep(seconds(1000)).await;
                Response::new(Body::full("at last"))
            }
            "/wait" => {
                self.is_let_go_on().await;
                Response::new(Body::full("done"))
            }
            "/early" => {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    // As whoever sends it on: where its length was told nothing is waited for behind it.
                    while !body.is_end_stream() && body.frame().await.transpose().unwrap().is_some() {}
                    self.arrived.add_permits(1);
                });
                Response::new(Body::full("early"))
            }
            "/echo" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(Body::full(body))
            }
            "/late-echo" => {
                self.is_let_go_on().await;
                Response::new(Body::full(request.into_body().collect().await.unwrap().to_bytes()))
            }
            "/read-and-wait" => {
                let body = request.into_body().collect().await;
                self.is_let_go_on().await;
                Response::new(Body::full(body.map_or(Bytes::from_static(b"broken off"), Collected::to_bytes)))
            }
            "/late-upgrade" => {
                self.is_let_go_on().await;
                upgraded(request, 1000)
            }
            "/upgrade" => upgraded(request, 4),
            "/how-many" => Response::new(Body::full(came.to_string())),
            _ => Response::new(Body::full(format!("{} {}", self.worker, connection.scheme.as_str()))),
        }
    }
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).header(header::HOST, "admin.example.jp").body(Empty::new()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn http1_client<T>(stream: T) -> http1::SendRequest<Empty<Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A client that lets every stream, and the connection, send `window` bytes ahead.
async fn http2_client<T>(stream: T, window: u32) -> http2::SendRequest<Empty<Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window).initial_connection_window_size(1024 * 1024);
    let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}
