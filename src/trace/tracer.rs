//! Which requests are sampled, under one configuration.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use thiserror::Error;

use super::context::{Incoming, SAMPLED};
use super::recording::{Outcome, Recording, SpanContext};
use super::request::RequestTrace;
use super::request_id::RequestId;
use crate::clock::Clock;
use crate::config::{SecretError, TraceConfig, TraceSampling};
use crate::entropy::{Entropy, random};
use crate::telemetry::Metrics;
use crate::tls::TlsError;

#[cfg(feature = "otel")]
use super::destination::Destination;
#[cfg(feature = "otel")]
use super::export::Queue;
#[cfg(not(feature = "otel"))]
use super::unbuilt::{Destination, Queue};

/// Why spans cannot be sent.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The program was built without the feature.
    #[error("needs a build with the feature: `cargo build --release --features otel`; or take [trace] out")]
    NotBuilt,
    /// The value of a header that the collector wants.
    #[error("{1}")]
    Secret(String, SecretError),
    /// It is there and is no value of this header.
    #[error("holds what no header field may hold: it must be one line of visible ASCII")]
    NoFieldValue(String),
    /// Nobody vouches for the collector.
    #[error(transparent)]
    Tls(TlsError),
    /// No thread.
    #[error("the thread that sends spans cannot be started: {0}")]
    Thread(std::io::Error),
}

impl TraceError {
    /// The key at fault.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::NotBuilt | Self::Thread(_) => "trace".to_owned(),
            Self::Secret(name, _) | Self::NoFieldValue(name) => TraceConfig::header_key(name),
            Self::Tls(_) => "trace.ca".to_owned(),
        }
    }
}

/// Samples requests, and has their spans sent.
#[derive(Clone, Default)]
pub struct Tracer {
    active: Option<Arc<Active>>,
    /// Of this tracer and of those before it: one thread, however often the configuration changes.
    queue: Option<Arc<Queue>>,
}

struct Active {
    sampling: TraceSampling,
    /// Of 2^64 requests so many are sampled; `None`: all.
    of_all: Option<u64>,
    /// What nobody outside can reckon the choice from.
    salt: u64,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    queue: Arc<Queue>,
    to: Arc<Destination>,
}

/// A request as it is asked, for its sampling.
pub struct Asked<'a> {
    /// The gateway's name for it: 32 hexadecimal digits.
    pub request_id: &'a RequestId,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whether a trusted proxy sent it.
    pub by_proxy: bool,
}

/// A request that is recorded, and where it goes when it was answered.
pub(super) struct Traced {
    pub(super) recording: Recording,
    tracer: Arc<Active>,
}

impl Tracer {
    /// Samples nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { active: None, queue: None }
    }

    /// The tracer of another configuration, beside this one: where spans go the same way as before, what waits for this one
    /// is not parted with. Reads what the collector wants to be shown, and starts the thread that sends if there is none.
    ///
    /// # Errors
    /// [`TraceError`]; nothing was started.
    pub fn next(
        &self,
        config: Option<&TraceConfig>,
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Self, TraceError> {
        let Some(config) = config else { return Ok(Self { active: None, queue: self.queue.clone() }) };
        #[cfg(not(feature = "otel"))]
        {
            let _ = (config, metrics, clock, entropy, Self::of_ratio(config.ratio));
            Err(TraceError::NotBuilt)
        }
        #[cfg(feature = "otel")]
        {
            let (found, former) = (Destination::new(config)?, self.active.as_deref());
            let to = match former {
                Some(former) if former.to.is_same(&found) => Arc::clone(&former.to),
                Some(_) | None => Arc::new(found),
            };
            let queue = match &self.queue {
                Some(queue) => Arc::clone(queue),
                None => Arc::new(Queue::start(Arc::clone(metrics)).map_err(TraceError::Thread)?),
            };
            let active = Active {
                sampling: config.sampling,
                of_all: Self::of_ratio(config.ratio),
                salt: former.map_or_else(|| u64::from_be_bytes(random(&**entropy)), |former| former.salt),
                clock: Arc::clone(clock),
                entropy: Arc::clone(entropy),
                queue: Arc::clone(&queue),
                to,
            };
            Ok(Self { active: Some(Arc::new(active)), queue: Some(queue) })
        }
    }

    /// `next` took its place: what goes another way than that has so long to get there.
    pub fn give_way(&self, next: &Self, patience: Duration) {
        if let Some(former) = &self.active
            && !next.active.as_ref().is_some_and(|next| Arc::ptr_eq(&next.to, &former.to))
        {
            former.to.end_within(patience);
        }
    }

    /// Finds what [`Tracer::next`] would say, and starts nothing.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn inspect(config: Option<&TraceConfig>) -> Result<(), TraceError> {
        let Some(config) = config else { return Ok(()) };
        #[cfg(not(feature = "otel"))]
        {
            let _ = config;
            Err(TraceError::NotBuilt)
        }
        #[cfg(feature = "otel")]
        Destination::new(config).map(drop)
    }

    /// Decides whether a request is recorded, and begins with it.
    ///
    /// A caller's own decision counts only where the configuration says so, and only if a trusted proxy told it: any client
    /// can write a `traceparent`. The trace itself is continued whoever began it.
    #[must_use]
    pub fn begin<'a, B>(&self, request: &Request<B>, asked: impl FnOnce() -> Asked<'a>) -> RequestTrace {
        let Some(active) = &self.active else { return RequestTrace::default() };
        active.begin(request, &asked())
    }

    /// Has what waits sent, for this tracer and for those before it, for at most `patience`; what comes later is dropped,
    /// and counted.
    pub async fn close(&self, patience: Duration) {
        self.give_way(&Self::off(), patience);
        if let Some(queue) = &self.queue {
            queue.close(patience).await;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the ratio is from 0 to 1, and a part in 2^52 more or less is no matter"
    )]
    fn of_ratio(ratio: f64) -> Option<u64> {
        (ratio < 1.0).then_some((ratio * u64::MAX as f64) as u64)
    }
}

impl Active {
    fn begin<B>(self: &Arc<Self>, request: &Request<B>, asked: &Asked<'_>) -> RequestTrace {
        let own = asked.request_id.as_str();
        let listens = asked.by_proxy && self.sampling == TraceSampling::Parent;
        if !listens && !self.draws(own) {
            return RequestTrace::not_sampled();
        }
        let incoming = Incoming::of(request.headers());
        let sampled = match &incoming {
            Some(incoming) if listens => incoming.flags & SAMPLED != 0,
            None if listens => self.draws(own),
            Some(_) | None => true,
        };
        if !sampled {
            return RequestTrace::not_sampled();
        }
        let trace = incoming.map_or(own, |incoming| incoming.trace);
        let parent = incoming.and_then(|incoming| id(incoming.parent));
        let step = own.get(16..).unwrap_or_default();
        let (Some(trace), Some(span)) = (id(trace), id(step)) else { return RequestTrace::not_sampled() };
        let flags = incoming.map_or(0, |incoming| incoming.flags) | SAMPLED;
        let context = SpanContext { trace, span, parent, flags };
        let (method, path) = (request.method(), request.uri().path());
        let recording = Recording::begin(context, self.clock.now(), method, path, asked.scheme, request.version());
        RequestTrace::recorded(Traced { recording, tracer: Arc::clone(self) })
    }

    /// Whether it is this request's turn. Names of requests count up, so they are mixed with what nobody knows.
    fn draws(&self, request_id: &str) -> bool {
        let Some(of_all) = self.of_all else { return true };
        let mut mixed = self.salt;
        for eight in request_id.as_bytes().chunks_exact(8) {
            let eight: [u8; 8] = eight.try_into().unwrap_or_default();
            mixed = mix(mixed ^ u64::from_be_bytes(eight));
        }
        mixed < of_all
    }
}

impl Traced {
    /// An id for a span of this request's.
    pub(super) fn fresh_span(&self) -> [u8; 8] {
        loop {
            let id = random(&*self.tracer.entropy);
            // Zero is no id (W3C Trace Context §3.2.2.4).
            if id != [0; 8] {
                return id;
            }
        }
    }

    pub(super) fn finish(&self, outcome: Outcome) {
        if let Some(finished) = self.recording.finish(outcome) {
            self.tracer.queue.push(finished, &self.tracer.to);
        }
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): every bit of what goes in changes every bit of what comes out.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `2 * N` hexadecimal digits as bytes.
fn id<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut id = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read() {
        assert_eq!(id::<4>("00ff10a9"), Some([0, 255, 16, 169]));
        assert_eq!((id::<4>("00ff10a"), id::<4>("00ff10aé")), (None, None));
    }

    #[test]
    fn a_ratio_is_a_part_of_all() {
        assert_eq!(Tracer::of_ratio(1.0), None);
        assert_eq!(Tracer::of_ratio(0.0), Some(0));
        let quarter = Tracer::of_ratio(0.25).unwrap();
        // Names that count up are spread evenly.
        let drawn = (0..10_000_u64).filter(|n| mix(mix(7) ^ n) < quarter).count();
        assert!((2300..2700).contains(&drawn), "{drawn}");
    }

    #[cfg(feature = "otel")]
    #[test]
    fn another_configuration_takes_over_what_stays_the_same() {
        use crate::config::{CollectorUrl, Origin, SecretSource};

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "one").unwrap();
        let mut config = TraceConfig {
            endpoint: CollectorUrl { origin: Origin::parse("http://127.0.0.1:1").unwrap(), path: String::new() },
            ratio: 1.0,
            sampling: TraceSampling::Ratio,
            headers: vec![("X-Token".to_owned(), SecretSource::File(file.clone()))],
            ca: None,
            service: "sekisho".to_owned(),
        };
        let (metrics, clock) =
            (Arc::new(Metrics::new()), Arc::new(crate::clock::SystemClock::default()) as Arc<dyn Clock>);
        let entropy = Arc::new(crate::entropy::SeededEntropy::new(1)) as Arc<dyn Entropy>;
        let next = |former: &Tracer, config: Option<&TraceConfig>| {
            let next = former.next(config, &metrics, &clock, &entropy).unwrap_or_else(|error| panic!("{error}"));
            former.give_way(&next, Duration::from_secs(3));
            next
        };
        let same_queue =
            |one: &Tracer, two: &Tracer| Arc::ptr_eq(one.queue.as_ref().unwrap(), two.queue.as_ref().unwrap());
        let to = |tracer: &Tracer| Arc::clone(&tracer.active.as_ref().unwrap().to);
        let first = next(&Tracer::off(), Some(&config));
        config.ratio = 0.5;
        let second = next(&first, Some(&config));
        assert!(same_queue(&first, &second) && Arc::ptr_eq(&to(&first), &to(&second)) && !to(&first).is_ending());
        // The same file, and another secret in it.
        std::fs::write(&file, "two").unwrap();
        let third = next(&second, Some(&config));
        assert!(same_queue(&second, &third) && to(&second).is_ending() && !to(&third).is_ending());
        assert_eq!(to(&third).fields["x-token"], "two");
        let off = next(&third, None);
        assert!(off.active.is_none() && to(&third).is_ending());
        // One thread, however often that happens.
        assert!(same_queue(&first, &next(&off, Some(&config))));

        // What no collector could read as it is meant is refused, by the key as it is written.
        for bad in [&b"a\tb"[..], b"caf\xc3\xa9", b"a\nb", b"a\x7f"] {
            std::fs::write(&file, bad).unwrap();
            let error = Tracer::inspect(Some(&config)).err().map(|error| (error.key(), error.to_string()));
            let (key, problem) = error.unwrap();
            assert!(key == "trace.headers.X-Token" && problem.contains("visible ASCII"), "{key}: {problem}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            Tracer::inspect(Some(&config)).err().map(|error| error.key()).as_deref(),
            Some("trace.headers.X-Token")
        );
    }
}
