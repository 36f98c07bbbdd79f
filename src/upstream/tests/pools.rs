//! Servers without sockets, for what is decided before there is one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderValue, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{SubjectKind, UpstreamConfig, UpstreamQueue, UpstreamServer, UpstreamTimeouts};
use crate::upstream::Health;
use crate::upstream::connect::Opened;
use crate::upstream::flow::RequestBody;
use crate::upstream::held::Held;
use crate::upstream::interim::Hearing;
use crate::upstream::line::Full;
use crate::upstream::link::{Connection, Link};
use crate::upstream::pool::{Lease, Place, Server};
use crate::upstream::servers::{NoPlace, Servers};

/// For how long idle connections are kept.
pub(in crate::upstream) const KEEP: Duration = Duration::from_secs(10);
/// For how long requests wait in line.
pub(in crate::upstream) const PATIENCE: Duration = Duration::from_secs(5);

/// An upstream with a server at each of the ports.
pub(in crate::upstream) fn config(ports: std::ops::Range<u16>) -> UpstreamConfig {
    let server = |port| UpstreamServer::Tcp { https: false, host: "127.0.0.1".to_owned(), port };
    UpstreamConfig {
        name: "console".to_owned(),
        servers: ports.map(server).collect(),
        may_bind: false,
        audience: "https://console.internal".to_owned(),
        subject: SubjectKind::Pairwise,
        ca: None,
        client_certificate: None,
        connections: 1000,
        queue: UpstreamQueue { length: 3, time: PATIENCE },
        health: None,
        timeout: UpstreamTimeouts { connect: KEEP, first_byte: KEEP, idle: KEEP },
    }
}

/// The servers of `config` as each of so many workers sees them.
pub(in crate::upstream) fn workers<const N: usize>(config: &UpstreamConfig) -> [Arc<Servers>; N] {
    let health = Health::new(std::slice::from_ref(config), None, 1);
    std::array::from_fn(|_| Arc::new(Servers::new(config, health.of(0), None)))
}

/// At which of the ports.
pub(in crate::upstream) fn port(server: &Server) -> u16 {
    let UpstreamServer::Tcp { port, .. } = server.address else { panic!("no port") };
    port
}

/// A connection in use, and the server's end of it.
pub(in crate::upstream) type Used = (Lease, DuplexStream);

/// A new connection to wherever the next request goes; `None` where it may not be opened.
pub(in crate::upstream) async fn open(servers: &Arc<Servers>) -> Option<Used> {
    match servers.place(Instant::now()) {
        Ok(place) => Some(opened(place).await),
        Err(NoPlace::Full | NoPlace::NoneHealthy) => None,
    }
}

/// Opens a connection that may be opened.
pub(in crate::upstream) async fn opened(place: Place) -> Used {
    let Place::Vacant(vacancy) = place else { panic!("a connection is idle") };
    let (ours, other_end) = duplex(64);
    let heard = Arc::default();
    let io = TokioIo::new(Held::new(ours, Hearing::new(Arc::clone(&heard)), Some(vacancy.slot)));
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection: Connection = Box::pin(connection.map(drop));
    let mut link = Box::new(Link::new(Opened { sender, connection, heard }));
    assert!(link.is_open() && link.is_ready());
    (Lease { link, outstanding: vacancy.outstanding }, other_end)
}

/// Sends a request that is larger than the server's end takes; nobody reads there.
pub(in crate::upstream) async fn stuck(lease: &mut Lease) -> JoinHandle<()> {
    let mut request = Request::new(RequestBody::none());
    request.headers_mut().insert("x-large", HeaderValue::try_from("x".repeat(1000)).unwrap());
    let asking = lease.link.sender.try_send_request(request);
    let asking = tokio::spawn(async move {
        let _ = asking.await;
    });
    assert!(lease.link.is_open() && !lease.link.is_ready());
    settle().await;
    asking
}

/// Has the other tasks do what they can.
pub(in crate::upstream) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// An upstream with one server, of so many connections and so long a line.
pub(in crate::upstream) fn small(connections: usize, length: usize) -> UpstreamConfig {
    let mut config = config(0..1);
    (config.connections, config.queue.length) = (connections, length);
    config
}

/// The answer is there: the connection is free.
pub(in crate::upstream) fn ends((lease, other_end): Used) -> DuplexStream {
    lease.give_back();
    other_end
}

/// What a request that waited got, which it has by now.
pub(in crate::upstream) async fn granted(waiting: JoinHandle<Result<Place, Full>>) -> Place {
    settle().await;
    assert!(waiting.is_finished(), "it waits still");
    waiting.await.unwrap().expect("a place")
}
