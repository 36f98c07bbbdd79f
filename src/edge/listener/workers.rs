//! Workers: a thread, a runtime and a socket of every listener each; started together, drained together.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::accept::Door;
use super::bind::BoundListener;
use super::connection::{Handler, Server};
use super::outbox::Outbox;
use super::pulse::Pulse;
use super::terms::ListenerHandle;

/// How long a worker's end waits for work that it gave to blocking threads.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// The running workers: one thread and current-thread runtime each. Dropped, they end at once.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    pulse: Pulse,
    entrance: Entrance,
    /// Gives `None` when every worker has ended: each holds a sender and never sends.
    ended: mpsc::Receiver<()>,
    force: DropGuard,
}

/// The way in for listeners, before and while the workers run.
#[derive(Clone)]
pub struct Entrance {
    /// One for each worker.
    workers: Vec<mpsc::UnboundedSender<Opening>>,
}

/// A listener's socket for one worker.
struct Opening {
    socket: std::net::TcpListener,
    listener: ListenerHandle,
}

impl Entrance {
    /// The n-th socket goes to the n-th worker, so that none is left without one who accepts. A listener is bound with
    /// as many sockets as there are workers.
    pub fn open(&self, listener: BoundListener) {
        let BoundListener { sockets, handle } = listener;
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker that has ended takes nobody: the gateway stops.
            let _ = worker.send(Opening { socket, listener: handle.clone() });
        }
    }
}

impl Workers {
    /// Starts `count` threads that serve `listeners`; each calls `make_handler` with its index and its outbox inside its own runtime and
    /// serves until `shutdown`.
    ///
    /// # Errors
    /// The system has no thread or descriptor left; nothing keeps running then.
    pub fn start<H: Handler>(
        count: usize,
        listeners: Vec<BoundListener>,
        make_handler: impl Fn(usize, &Arc<Outbox>) -> Arc<H> + Send + Sync + 'static,
        shutdown: &CancellationToken,
    ) -> io::Result<Self> {
        let force = CancellationToken::new();
        let (running, ended) = mpsc::channel(1);
        let entrance = Entrance { workers: Vec::new() };
        let (pulse, force_on_drop) = (Pulse::new(), force.clone().drop_guard());
        let mut workers = Self { threads: Vec::new(), pulse, entrance, ended, force: force_on_drop };
        let make_handler = Arc::new(make_handler);
        for index in 0..count {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let (way_in, openings) = mpsc::unbounded_channel();
            let make_handler = Arc::clone(&make_handler);
            let (shutdown, force, running) = (shutdown.child_token(), force.clone(), running.clone());
            let heart = workers.pulse.add();
            let body = move || {
                runtime.block_on(async {
                    let outbox = Outbox::start();
                    let server = Arc::new(Server::new(make_handler(index, &outbox), Some(outbox)));
                    tokio::select! {
                        () = serve(openings, server, shutdown) => {}
                        () = heart.beat() => {}
                        () = force.cancelled() => {}
                    }
                });
                runtime.shutdown_timeout(BLOCKING_GRACE);
                drop(running);
            };
            workers.threads.push(thread::Builder::new().name(format!("sekisho-{index}")).spawn(body)?);
            workers.entrance.workers.push(way_in);
        }
        for listener in listeners {
            workers.entrance.open(listener);
        }
        Ok(workers)
    }

    /// The workers whose loops do not answer within `patience`, by their index: each should at once, whatever it serves.
    pub async fn silent(&self, patience: Duration) -> Vec<usize> {
        self.pulse.silent(patience).await
    }

    /// The way in for more listeners.
    #[must_use]
    pub const fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// After `shutdown` fired: resolves when every connection has ended, or, cutting the rest, when `deadline` has
    /// passed. Upgraded streams are not waited for. The threads are gone afterwards.
    pub async fn drained(self, deadline: Duration) {
        let Self { threads, entrance: _, mut ended, force, .. } = self;
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

/// Until the accept loops and all connections have ended.
async fn serve<H: Handler>(
    mut openings: mpsc::UnboundedReceiver<Opening>,
    server: Arc<Server<H>>,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    loop {
        let Opening { socket, listener } = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(opening) = openings.recv() => opening,
        };
        let closing = listener.closing().child_token();
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                tasks.spawn(Door { socket, listener, closing }.accept(Arc::clone(&server), tasks.clone()));
            }
            // The others accept what comes to this address.
            Err(error) => tracing::error!(%error, address = %listener.address(), "a worker cannot take a socket"),
        }
    }
    tasks.close();
    tasks.wait().await;
}
