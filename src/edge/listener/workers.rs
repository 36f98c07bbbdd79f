//! Workers: a thread, a runtime and a socket of every listener each; started together, drained together.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::accept::Door;
use super::admission::Admission;
use super::bind::BoundListener;
use super::connection::{Handler, Server};
use super::pulse::Pulse;
use crate::config::{LimitsConfig, Serves};
use crate::edge::TrustedProxies;
use crate::tls::ListenerTlsConfig;

/// How long a worker's end waits for work that it gave to blocking threads.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// The running workers: one thread and current-thread runtime each. Dropped, they end at once.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    pulse: Pulse,
    /// Gives `None` when every worker has ended: each holds a sender and never sends.
    ended: mpsc::Receiver<()>,
    force: DropGuard,
}

impl Workers {
    /// Starts as many threads as the listeners were bound for; each calls `make_handler` with its index inside its own
    /// runtime and serves until `shutdown`.
    ///
    /// # Errors
    /// The system has no thread or descriptor left; nothing keeps running then.
    pub fn start<H: Handler>(
        listeners: Vec<BoundListener>,
        make_handler: impl Fn(usize) -> Arc<H> + Send + Sync + 'static,
        limits: &LimitsConfig,
        shutdown: &CancellationToken,
    ) -> io::Result<Self> {
        let force = CancellationToken::new();
        let (running, ended) = mpsc::channel(1);
        let mut workers = Self { threads: Vec::new(), pulse: Pulse::new(), ended, force: force.clone().drop_guard() };
        let make_handler = Arc::new(make_handler);
        for (index, parts) in by_worker(listeners).into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let doors = open(&runtime, parts)?;
            let (make_handler, limits) = (Arc::clone(&make_handler), *limits);
            let (shutdown, force, running) = (shutdown.child_token(), force.clone(), running.clone());
            let heart = workers.pulse.add();
            let body = move || {
                runtime.block_on(async {
                    let server = Arc::new(Server::new(make_handler(index), &limits, shutdown));
                    tokio::select! {
                        () = serve(doors, server) => {}
                        () = heart.beat() => {}
                        () = force.cancelled() => {}
                    }
                });
                runtime.shutdown_timeout(BLOCKING_GRACE);
                drop(running);
            };
            workers.threads.push(thread::Builder::new().name(format!("sekisho-{index}")).spawn(body)?);
        }
        Ok(workers)
    }

    /// The workers whose loops do not answer within `patience`, by their index: each should at once, whatever it serves.
    pub async fn silent(&self, patience: Duration) -> Vec<usize> {
        self.pulse.silent(patience).await
    }

    /// After `shutdown` fired: resolves when every connection has ended, or, cutting the rest, when `deadline` has
    /// passed. Upgraded streams are not waited for. The threads are gone afterwards.
    pub async fn drained(self, deadline: Duration) {
        let Self { threads, mut ended, force, .. } = self;
        if tokio::time::timeout(deadline, ended.recv()).await.is_err() {
            drop(force);
            ended.recv().await;
        }
        for thread in threads {
            // It has nothing left to do but return. That it panicked was logged by the panic itself.
            let _ = thread.join();
        }
    }
}

/// A door before its worker's runtime has its socket.
struct Part {
    socket: std::net::TcpListener,
    serves: Serves,
    tls: Option<Arc<ListenerTlsConfig>>,
    proxies: Option<Arc<TrustedProxies>>,
    admission: Arc<Admission>,
}

/// The n-th socket of every listener goes to the n-th worker, so that none is left without one who accepts.
fn by_worker(listeners: Vec<BoundListener>) -> Vec<Vec<Part>> {
    let count = listeners.iter().map(|listener| listener.sockets.len()).max().unwrap_or(0);
    let mut workers: Vec<Vec<Part>> = (0..count).map(|_| Vec::new()).collect();
    for listener in listeners {
        let BoundListener { sockets, serves, tls, proxies, admission, .. } = listener;
        for (worker, socket) in workers.iter_mut().zip(sockets) {
            let (tls, proxies, admission) = (tls.clone(), proxies.clone(), Arc::clone(&admission));
            worker.push(Part { socket, serves, tls, proxies, admission });
        }
    }
    workers
}

fn open(runtime: &Runtime, parts: Vec<Part>) -> io::Result<Vec<Door>> {
    let _entered = runtime.enter();
    let door = |part| {
        let Part { socket, serves, tls, proxies, admission } = part;
        Ok(Door { socket: TcpListener::from_std(socket)?, serves, tls, proxies, admission })
    };
    parts.into_iter().map(door).collect()
}

/// Until the accept loops and all connections have ended.
async fn serve<H: Handler>(doors: Vec<Door>, server: Arc<Server<H>>) {
    let tasks = TaskTracker::new();
    for door in doors {
        tasks.spawn(door.accept(Arc::clone(&server), tasks.clone()));
    }
    tasks.close();
    tasks.wait().await;
}
