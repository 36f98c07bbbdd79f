//! Finished requests on their way to the collector: a bounded queue, and one thread with a runtime of its own.
//!
//! Own code around the field's message types, rather than the batch processor of `opentelemetry_sdk`: that one loses spans
//! without telling anybody but its log, reads the process's environment, and takes clock and randomness where it likes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, Refusal};
use super::recording::Finished;
use super::wire;
use crate::telemetry::{Metrics, SpanOutcome};

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
/// How often it is told that messages are not taken.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Where requests wait. When it goes, its thread sends what waits, and ends.
pub(super) struct Queue {
    waiting: Sender<Finished>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    /// Fires when the thread has ended.
    ended: CancellationToken,
}

/// The thread's side.
struct Exporter {
    collector: Collector,
    service: String,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    said: Option<Instant>,
}

impl Queue {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says when it gives no thread or no runtime.
    pub(super) fn start(collector: Collector, service: &str, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (waiting, receiver) = mpsc::channel(CAPACITY);
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let exporter = Exporter {
            collector,
            service: service.to_owned(),
            metrics: Arc::clone(&metrics),
            closing: closing.clone(),
            said: None,
        };
        let (has_ended, (told, begun)) = (ended.clone().drop_guard(), std::sync::mpsc::sync_channel(1));
        // Not on a thread that serves: a message is encoded in one go. The runtime is made where it ends.
        std::thread::Builder::new().name("trace".to_owned()).spawn(move || {
            let _has_ended = has_ended;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (runtime, made) = runtime.map_or_else(|error| (None, Err(error)), |runtime| (Some(runtime), Ok(())));
            if told.send(made).is_ok()
                && let Some(runtime) = runtime
            {
                runtime.block_on(exporter.run(receiver));
            }
        })?;
        begun.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { waiting, metrics, closing, ended })
    }

    /// Hands a request over, or counts it as lost.
    pub(super) fn push(&self, finished: Finished) {
        let spans = finished.spans();
        if self.waiting.try_send(finished).is_err() {
            self.metrics.spans(SpanOutcome::QueueFull, spans);
        }
    }

    /// Has what waits sent, for at most `patience`.
    pub(super) async fn close(&self, patience: Duration) {
        self.closing.cancel();
        if timeout(patience, self.ended.cancelled()).await.is_err() {
            tracing::warn!("the last spans were not sent: the collector is slow or away");
        }
    }
}

impl Exporter {
    async fn run(mut self, mut waiting: Receiver<Finished>) {
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
                if batch.is_empty() {
                    break;
                }
                self.deliver(&batch).await;
                batch.clear();
            }
        }
    }

    /// Sends one message, and again where it may be taken later; while the gateway stops, once.
    async fn deliver(&mut self, batch: &[Finished]) {
        let spans: u64 = batch.iter().map(Finished::spans).sum();
        let message = Bytes::from(wire::encode(&self.service, batch));
        let mut pauses = AGAIN.into_iter();
        loop {
            let refusal = match self.collector.post(message.clone(), PATIENCE).await {
                Ok(rejected) => {
                    let rejected = rejected.min(spans);
                    self.metrics.spans(SpanOutcome::Sent, spans - rejected);
                    self.metrics.spans(SpanOutcome::NotTaken, rejected);
                    return;
                }
                Err(refusal) => refusal,
            };
            self.say(&refusal);
            let pause = pauses.next().filter(|_| refusal.may_pass() && !self.closing.is_cancelled());
            let Some(pause) = pause else {
                self.metrics.spans(SpanOutcome::NotTaken, spans);
                return;
            };
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = sleep(refusal.pause().unwrap_or(pause)) => {}
            }
        }
    }

    fn say(&mut self, refusal: &Refusal) {
        if self.said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.said = Some(Instant::now());
            let collector = self.collector.url();
            tracing::warn!(%collector, problem = %refusal, "the collector does not take spans; requests are served all the same");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

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

    #[test]
    fn a_collector_that_says_nothing_costs_spans_and_no_time() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
        let config = TraceConfig {
            endpoint: CollectorUrl { origin, path: String::new() },
            ratio: 1.0,
            sampling: TraceSampling::Ratio,
            headers: Vec::new(),
            ca: None,
            service: "sekisho".to_owned(),
        };
        let metrics = Arc::new(Metrics::new());
        let collector = Collector::new(&config).unwrap_or_else(|error| panic!("{error}"));
        let queue = Queue::start(collector, "sekisho", Arc::clone(&metrics)).unwrap();
        let most = CAPACITY + BATCH;
        for _ in 0..most + 3 {
            queue.push(finished());
        }
        let lost = metrics.render().lines().find_map(|line| {
            line.strip_prefix("sekisho_trace_spans_total{outcome=\"queue-full\"} ")?.parse::<usize>().ok()
        });
        assert!(lost.unwrap() >= 3, "{lost:?}");
    }
}
