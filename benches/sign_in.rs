//! Sign-ins on the real store, each durable before it is answered: how many a second and core, and how long they take.
//!
//! ```text
//! cargo bench --bench sign_in
//! SEKISHO_BENCH_DIR=/data SEKISHO_BENCH_SIGN_INS=100000 SEKISHO_BENCH_AT_ONCE=48,56 cargo bench --bench sign_in
//! ```
//!
//! Without `--bench`, as `cargo test --benches` runs it, it goes through all steps with a handful. A sign-in is what the
//! gateway does for it behind HTTP: digests of the identifier, look-up, day of use, session, and the last look at the
//! binding; without the stretch. The folder decides the latency: every commit reaches its disk.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark; what breaks may panic")]

use std::env;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sekisho::binding::{AccountId, BindingId, resolve};
use sekisho::carrier::RawIdentifier;
use sekisho::clock::Timestamp;
use sekisho::config::StretchSetting;
use sekisho::entropy::{SeededEntropy, SystemEntropy, random};
use sekisho::keys::{Kek, KeySet};
use sekisho::session::{Opening, SessionPolicy, SessionSecret, Sessions};
use sekisho::store::{BindingStore as _, EmbeddedStore, ImportOutcome, ImportedBinding, TokenTransport};

const HOUR: Duration = Duration::from_hours(1);
/// Bindings there are.
const BINDINGS: usize = 20_000;
/// Bindings of one call.
const BATCH: usize = 2000;
/// Numbers of handsets that sign in at once.
const AT_ONCE: [usize; 4] = [1, 16, 48, 128];

fn main() {
    let measured = env::args().any(|argument| argument == "--bench");
    let asked = env::var("SEKISHO_BENCH_SIGN_INS").ok().map(|count| count.parse().unwrap());
    let count: usize = asked.unwrap_or(if measured { 50_000 } else { 200 });
    let numbers = env::var("SEKISHO_BENCH_AT_ONCE").ok();
    let numbers = numbers.map(|list| list.split(',').map(|number| number.parse().unwrap()).collect());
    let bench = Arc::new(Bench::new(if measured { BINDINGS } else { 200 }));
    for at_once in numbers.unwrap_or(AT_ONCE.to_vec()) {
        let count = if at_once == 1 { count / 20 } else { count };
        let (began, cpu) = (Instant::now(), cpu());
        let took = bench.sign_in(count, at_once);
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_since(cpu));
        let of = |seconds: f64| f64::from(u32::try_from(took.len()).unwrap()) / seconds.max(1e-3);
        let at = |percent: usize| took.get((took.len() * percent / 100).min(took.len() - 1)).unwrap();
        println!(
            "{at_once} at once: {:.0} a second, {:.0} a second of CPU; median {:.1?}, p99 {:.1?}, worst {:.1?}",
            of(seconds),
            of(cpu.as_secs_f64()),
            at(50),
            at(99),
            at(100),
        );
    }
}

struct Bench {
    store: Arc<EmbeddedStore>,
    keys: KeySet,
    sessions: Sessions<()>,
    entropy: SystemEntropy,
    bindings: usize,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(bindings: usize) -> Self {
        let folder = match env::var_os("SEKISHO_BENCH_DIR") {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let folder = folder.unwrap();
        let entropy = SystemEntropy::default();
        let (store, _) = EmbeddedStore::open(&folder.path().join("store"), yesterday(), &entropy).ok().unwrap();
        let store = Arc::new(store);
        let kek = Kek::parse(&Kek::generate_text(&SeededEntropy::new(1))).unwrap();
        let policy = SessionPolicy { idle: HOUR, absolute: 12 * HOUR, per_account: 5 };
        let (keys, sessions) = wait(async {
            let keys = KeySet::open(&*store, &kek, StretchSetting::Off, &entropy, now()).await.ok().unwrap();
            (keys, Sessions::load(Arc::clone(&store) as _, policy, now()).await.unwrap())
        });
        let bench = Self { store, keys, sessions, entropy, bindings, _folder: folder };
        bench.import();
        bench
    }

    fn import(&self) {
        wait(async {
            for first in (0..self.bindings).step_by(BATCH) {
                let mut bindings = Vec::with_capacity(BATCH);
                for number in first..(first + BATCH).min(self.bindings) {
                    let candidates = self.keys.binding.digest_in_bulk(handset(number)).await.ok().unwrap();
                    let (chain, digest) = candidates.flat.clone();
                    bindings.push(ImportedBinding {
                        account: AccountId::parse(&format!("a{number}")).unwrap(),
                        carrier: candidates.carrier.clone(),
                        digest,
                        chain,
                        generation: candidates.generation,
                        id: BindingId::from_random(random(&self.entropy)),
                        probes: candidates.probes.clone(),
                    });
                }
                let outcomes = self.store.import(bindings, 5, yesterday()).await.unwrap();
                assert!(outcomes.iter().all(|outcome| *outcome == ImportOutcome::Bound));
            }
        });
    }

    /// Signs in `count` times, `at_once` at a time, on one thread as a core of the gateway has; how long each took.
    fn sign_in(self: &Arc<Self>, count: usize, at_once: usize) -> Vec<Duration> {
        let bench = Arc::clone(self);
        let signing_in = thread::spawn(move || {
            let handset = |first: usize| {
                let bench = &bench;
                async move {
                    let mut took = Vec::new();
                    for number in (first..count).step_by(at_once) {
                        let began = Instant::now();
                        // A stride without a common divisor: everybody in turn, neighbours far apart.
                        bench.once(number * 7919 % bench.bindings).await;
                        took.push(began.elapsed());
                    }
                    took
                }
            };
            wait(join_all((0..at_once).map(handset))).concat()
        });
        let mut took = signing_in.join().unwrap();
        took.sort_unstable();
        took
    }

    async fn once(&self, number: usize) {
        let identifier = handset(number);
        let secret = SessionSecret::generate(&self.entropy);
        let continuity = Opening::continuity_of(&secret, &identifier);
        let candidates = self.keys.binding.digest(identifier).await.ok().unwrap();
        let found = resolve(&*self.store, &self.keys.binding, candidates, now()).await;
        let (bound, used) = found.unwrap();
        let (account, binding, carrier) = bound.into_parts();
        let opening = Opening { account, binding, carrier, secret, continuity, by_code: false, pin_at: None };
        let (noted, opened) = tokio::join!(
            used.note(&*self.store, &self.keys.binding),
            self.sessions.open(opening, TokenTransport::Cookie, None, &self.entropy, now())
        );
        noted.and(opened.map(drop)).unwrap();
        assert!(self.store.stands(binding).await.unwrap());
    }
}

/// Processor time of this process.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: user and system time are fields 14 and 15, in hundredths (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(10 * fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
}

fn cpu_since(before: Duration) -> Duration {
    cpu().saturating_sub(before)
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn handset(number: usize) -> RawIdentifier {
    let mut octets = [0; 32];
    octets.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    RawIdentifier::canary(&octets)
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_117_042)
}

/// So that a first sign-in of today is a use that is new.
fn yesterday() -> Timestamp {
    now().minus(24 * HOUR)
}
