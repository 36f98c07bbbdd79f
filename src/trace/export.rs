//! Finished requests on their way to the collector: a bounded queue, and one thread with a runtime of its own.
//!
//! Own code around the field's message types, rather than the batch processor of `opentelemetry_sdk`: that one loses spans
//! without telling anybody but its log, reads the process's environment, and takes clock and randomness where it likes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, Refusal};
use super::destination::Destination;
use super::losses::Losses;
use super::recording::Finished;
use super::wire;
use crate::telemetry::Metrics;

/// Requests that may wait. A request is below a kilobyte, and twice that with the longest path.
const CAPACITY: usize = 8192;
/// Requests of one message: below a megabyte, where collectors take several.
const BATCH: usize = 512;
/// How long requests gather before they are sent together.
const GATHER: Duration = Duration::from_millis(200);
/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses before a message that was not taken is sent again. Then it is given up: what it holds gets old.
const AGAIN: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(8)];
/// How long the thread may take to count what it could not send.
const COUNTING: Duration = Duration::from_secs(1);
/// Why spans that came too late were not sent.
const OVER: &str = "its time was over: another one is in force, or the gateway stops";

/// Where requests wait, whatever configurations they began under. When it goes, its thread sends what waits, and ends.
pub(super) struct Queue {
    waiting: Sender<Waiting>,
    losses: Arc<Losses>,
    closing: CancellationToken,
    /// Fires when the thread has ended.
    ended: CancellationToken,
}

/// A request that was answered, and where its spans go.
struct Waiting {
    finished: Finished,
    to: Arc<Destination>,
}

/// The thread's side.
struct Exporter {
    collector: Collector,
    losses: Arc<Losses>,
    closing: CancellationToken,
}

impl Queue {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says when it gives no thread or no runtime.
    pub(super) fn start(metrics: Arc<Metrics>) -> io::Result<Self> {
        let (queue, exporter, receiver) = Self::new(metrics);
        let (has_ended, (told, begun)) = (queue.ended.clone().drop_guard(), std::sync::mpsc::sync_channel(1));
        // Not on a thread that serves: a message is encoded in one go. The runtime is made where it ends.
        std::thread::Builder::new().name("trace".to_owned()).spawn(move || {
            let _has_ended = has_ended;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (runtime, made) = runtime.map_or_else(|error| (None, Err(error)), |runtime| (Some(runtime), Ok(())));
            if told.send(made).is_ok()
                && let Some(runtime) = runtime
            {
                runtime.block_on(exporter.run(receiver));
                // A name that is still looked up is waited for by nobody.
                runtime.shutdown_background();
            }
        })?;
        begun.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(queue)
    }

    /// Its own side, and what the thread is to run.
    fn new(metrics: Arc<Metrics>) -> (Self, Exporter, Receiver<Waiting>) {
        let (waiting, receiver) = mpsc::channel(CAPACITY);
        let (losses, closing) = (Arc::new(Losses::new(metrics)), CancellationToken::new());
        let exporter =
            Exporter { collector: Collector::default(), losses: Arc::clone(&losses), closing: closing.clone() };
        (Self { waiting, losses, closing, ended: CancellationToken::new() }, exporter, receiver)
    }

    /// Hands a request over, or counts it as lost.
    pub(super) fn push(&self, finished: Finished, to: &Arc<Destination>) {
        let spans = finished.spans();
        match self.waiting.try_send(Waiting { finished, to: Arc::clone(to) }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.losses.queue_full(&to.url, spans),
            Err(TrySendError::Closed(_)) => {
                self.losses.not_taken(&to.url, spans, &OVER);
                // The thread that would tell it may have ended.
                self.losses.tell(true);
            }
        }
    }

    /// Takes nothing more, and waits until what waits was sent or its time is over: `patience`, of which each destination
    /// was told.
    pub(super) async fn close(&self, patience: Duration) {
        self.closing.cancel();
        if timeout(patience + COUNTING, self.ended.cancelled()).await.is_err() {
            tracing::warn!("the last spans were neither sent nor counted in time");
        }
    }
}

impl Exporter {
    async fn run(mut self, waiting: Receiver<Waiting>) {
        let losses = Arc::clone(&self.losses);
        tokio::select! {
            () = self.send_all(waiting) => {}
            () = losses.keep_telling() => {}
        }
        losses.tell(true);
    }

    async fn send_all(&mut self, mut waiting: Receiver<Waiting>) {
        let closing = self.closing.clone();
        let (mut batch, mut stopping) = (Vec::new(), false);
        loop {
            let next = tokio::select! {
                biased;
                () = closing.cancelled(), if !stopping => {
                    stopping = true;
                    waiting.close(); // what waits comes still, and then the end
                    continue;
                }
                next = waiting.recv() => next,
            };
            let Some(next) = next else { return };
            batch.push(next);
            tokio::select! {
                () = closing.cancelled() => {}
                () = sleep(GATHER) => {}
            }
            loop {
                while batch.len() < BATCH
                    && let Ok(next) = waiting.try_recv()
                {
                    batch.push(next);
                }
                let Some(to) = batch.first().map(|first| Arc::clone(&first.to)) else { break };
                // Around a reload two configurations' requests come mixed.
                let (same, others) = batch.into_iter().partition(|waiting| Arc::ptr_eq(&waiting.to, &to));
                self.deliver(&to, same).await;
                batch = others;
            }
        }
    }

    /// Sends one message, or counts what it would have held.
    async fn deliver(&mut self, to: &Arc<Destination>, batch: Vec<Waiting>) {
        let losses = Arc::clone(&self.losses);
        let spans: u64 = batch.iter().map(|waiting| waiting.finished.spans()).sum();
        if to.is_over() {
            losses.not_taken(&to.url, spans, &OVER);
            return;
        }
        let message = Bytes::from(wire::encode(&to.service, batch.iter().map(|waiting| &waiting.finished)));
        drop(batch);
        tokio::select! {
            biased;
            sent = self.send(to, message) => match sent {
                Ok(rejected) => {
                    let rejected = rejected.min(spans);
                    losses.sent(spans - rejected);
                    if rejected > 0 {
                        losses.not_taken(&to.url, rejected, &"it took a message, and refused spans of it");
                    }
                }
                Err(refusal) => losses.not_taken(&to.url, spans, &refusal),
            },
            () = to.over() => losses.not_taken(&to.url, spans, &OVER),
        }
    }

    /// Once, and again where it may be taken later, unless its time ends.
    async fn send(&mut self, to: &Arc<Destination>, message: Bytes) -> Result<u64, Refusal> {
        let mut pauses = AGAIN.into_iter();
        loop {
            let refusal = match self.collector.post(to, message.clone(), PATIENCE).await {
                Ok(rejected) => return Ok(rejected),
                Err(refusal) => refusal,
            };
            let pause = pauses.next().filter(|_| refusal.may_pass() && !to.is_ending());
            let Some(pause) = pause else { return Err(refusal) };
            self.losses.problem(&to.url, &refusal);
            tokio::select! {
                () = to.ending() => {}
                () = sleep(refusal.pause().unwrap_or(pause)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use http::{Method, Version};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;
    use crate::clock::Timestamp;
    use crate::config::{CollectorUrl, Origin, TraceConfig, TraceSampling};
    use crate::trace::recording::{Outcome, Recording, SpanContext};

    fn finished() -> Finished {
        let context = SpanContext { trace: [1; 16], span: [2; 8], parent: None, flags: 1 };
        let at = Timestamp::from_unix_millis(0);
        let recording = Recording::begin(context, at, &Method::GET, "/", "http", Version::HTTP_11);
        recording.finish(Outcome::Answered(200)).unwrap()
    }

    fn destination(at: SocketAddr) -> Arc<Destination> {
        let origin = Origin::parse(&format!("http://{at}")).unwrap();
        let config = TraceConfig {
            endpoint: CollectorUrl { origin, path: String::new() },
            ratio: 1.0,
            sampling: TraceSampling::Ratio,
            headers: Vec::new(),
            ca: None,
            service: "sekisho".to_owned(),
        };
        Arc::new(Destination::new(&config).unwrap_or_else(|error| panic!("{error}")))
    }

    fn count(metrics: &Metrics, outcome: &str) -> usize {
        let name = format!("sekisho_trace_spans_total{{outcome=\"{outcome}\"}} ");
        metrics.render().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }

    /// Keeps what is told of spans.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<(String, u64)>>>);

    impl<S: tracing::Subscriber> Layer<S> for Told {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            event.record(&mut self.clone());
        }
    }

    impl Visit for Told {
        fn record_u64(&mut self, field: &Field, value: u64) {
            self.0.lock().unwrap().push((field.name().to_owned(), value));
        }

        fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
    }

    #[test]
    fn a_collector_that_says_nothing_costs_spans_and_no_time() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (metrics, to) = (Arc::new(Metrics::new()), destination(silent.local_addr().unwrap()));
        let queue = Queue::start(Arc::clone(&metrics)).unwrap();
        for _ in 0..CAPACITY + BATCH + 3 {
            queue.push(finished(), &to);
        }
        assert!(count(&metrics, "queue-full") >= 3);
    }

    #[test]
    fn every_lost_span_is_counted_and_told_before_the_end() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (metrics, to, told) =
            (Arc::new(Metrics::new()), destination(silent.local_addr().unwrap()), Told::default());
        let (queue, exporter, receiver) = Queue::new(Arc::clone(&metrics));
        for _ in 0..CAPACITY + 3 {
            queue.push(finished(), &to);
        }
        to.end_within(Duration::from_millis(1));
        queue.closing.cancel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(told.clone()), || {
            runtime.block_on(exporter.run(receiver));
            queue.push(finished(), &to);
        });
        assert_eq!((count(&metrics, "queue-full"), count(&metrics, "not-taken")), (3, CAPACITY + 1));
        let told = told.0.lock().unwrap();
        let sum = |name: &str| told.iter().filter(|(of, _)| of == name).map(|(_, value)| value).sum::<u64>();
        assert_eq!((sum("queue_full"), sum("not_taken")), (3, CAPACITY as u64 + 1));
    }

    fn is_whole(message: &[u8]) -> bool {
        let Some(end) = message.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        message.len() == end + 4 + length.parse::<usize>().unwrap()
    }

    /// A collector that takes every message once it is `released`.
    async fn slow_collector(released: CancellationToken) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let released = released.clone();
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    while connection.read_buf(&mut read).await.is_ok_and(|more| more > 0) {
                        if is_whole(&read) {
                            read.clear();
                            released.cancelled().await;
                            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                        }
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_stop_waits_for_the_collectors_of_former_configurations_too() {
        let (released, metrics) = (CancellationToken::new(), Arc::new(Metrics::new()));
        let (former, newest) =
            (destination(slow_collector(released.clone()).await), destination(slow_collector(released.clone()).await));
        let queue = Queue::start(Arc::clone(&metrics)).unwrap();
        // They come mixed: a request ends under the configuration that it began under.
        for to in [&former, &newest, &former, &newest] {
            queue.push(finished(), to);
        }
        let patience = Duration::from_secs(30);
        former.end_within(patience);
        newest.end_within(patience);
        tokio::join!(queue.close(patience), async { released.cancel() });
        assert_eq!((count(&metrics, "sent"), count(&metrics, "not-taken")), (4, 0));
    }
}
