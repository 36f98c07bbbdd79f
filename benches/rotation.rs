//! A rotation at scale: how fast records move, and what sign-ins notice of it.
//!
//! ```text
//! cargo bench --bench rotation                          # a million bindings; about three minutes
//! SEKISHO_BENCH_BINDINGS=100000 SEKISHO_BENCH_DIR=/data cargo bench --bench rotation
//! ```
//!
//! Without `--bench`, as `cargo test --benches` runs it, it goes through all steps with a handful of bindings. The folder
//! decides the figures: every commit reaches its disk. What sign-ins notice of a rotation is measured in turns: it is paused
//! for a while, then runs for a while, so that a disk that others make slow is as slow for both. Before that the store is
//! written anew, as a gateway does once a day.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark; what breaks may panic")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sekisho::audit::AuditTrail;
use sekisho::binding::{AccountId, BindingId, resolve};
use sekisho::carrier::RawIdentifier;
use sekisho::clock::{SystemClock, Timestamp};
use sekisho::config::{KeyPeriods, StretchSetting};
use sekisho::entropy::{SeededEntropy, SystemEntropy, random};
use sekisho::keys::{Kek, KeySet, Lifecycle};
use sekisho::receipt::{Receipts, survey};
use sekisho::rotation::{Rotations, Start};
use sekisho::session::{SessionId, SessionPolicy, SessionSecret, Sessions};
use sekisho::store::{
    BindingStore as _, EmbeddedStore, ImportOutcome, ImportedBinding, KeyStore as _, RotationState, RotationStore as _,
    SessionRecord, SessionStore as _, SubjectStore as _, TokenTransport,
};
use sekisho::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_hours(1);
/// Bindings of one call.
const BATCH: usize = 2000;
/// Sign-ins a second while others are measured.
const RATE: u32 = 100;
/// How often, and for how long, a rotation is paused and runs beside them.
const TURNS: usize = 6;
const TURN: Duration = Duration::from_secs(6);

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::var("SEKISHO_BENCH_BINDINGS").ok().map(|count| count.parse().unwrap());
    let count = asked.unwrap_or(if measured { 1_000_000 } else { 500 });
    let (turns, turn) = if measured { (TURNS, TURN) } else { (2, Duration::from_millis(300)) };
    let folder = match std::env::var_os("SEKISHO_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let bench = Arc::new(Bench::new(folder.unwrap()));
    println!("{count} bindings in {}", bench.folder.path().display());

    let (imported, cpu, rss) = measure(|| bench.import(count));
    report("imported", count, imported, cpu, rss, &bench);
    let (seen, cpu, rss) = measure(|| assert_eq!(bench.survey(), count));
    report("surveyed for a receipt", count, seen, cpu, rss, &bench);
    // A rotation surveys all records before it begins, for its receipt: that is no part of how fast they move.
    let (begun, _, _) = measure(|| bench.begin());
    println!("begun, with a survey of all: {begun:.2?}");
    let (moved, cpu, rss) = measure(|| bench.wait_until_wrapped());
    report("wrapped, nothing else going on", count, moved, cpu, rss, &bench);
    let only_wrap = std::env::var_os("SEKISHO_BENCH_ONLY_WRAP").is_some();
    if !only_wrap {
        bench.beside_sign_ins(count, turns, turn);
    }
    bench.shutdown.cancel();
}

/// A store with keys, and the engine that rotates them.
struct Bench {
    folder: tempfile::TempDir,
    store: Arc<EmbeddedStore>,
    keys: Arc<KeySet>,
    rotations: Arc<Rotations>,
    entropy: Arc<SystemEntropy>,
    shutdown: CancellationToken,
    /// So that other handsets sign in in each turn.
    next: AtomicUsize,
}

impl Bench {
    fn new(folder: tempfile::TempDir) -> Self {
        let entropy = Arc::new(SystemEntropy::default());
        let (store, _) = EmbeddedStore::open(&folder.path().join("store"), now(), &*entropy).ok().unwrap();
        let store = Arc::new(store);
        let kek = || Kek::parse(&Kek::generate_text(&SeededEntropy::new(1))).unwrap();
        let policy = SessionPolicy { idle: HOUR, absolute: 12 * HOUR, per_account: 3 };
        let (keys, sessions) = wait(async {
            let keys = KeySet::open(&*store, &kek(), StretchSetting::Off, &*entropy, now()).await.ok().unwrap();
            let sessions = Sessions::load(Arc::clone(&store) as _, policy, now()).await.unwrap();
            (Arc::new(keys), Arc::new(sessions))
        });
        let periods = KeyPeriods {
            cooling: HOUR,
            assertion_publish: HOUR,
            assertion_rotate: HOUR,
            session_rotate: HOUR,
            audit_rotate: HOUR,
        };
        let (records, rotations) = (Arc::clone(&store) as _, Arc::clone(&store) as _);
        let lifecycle =
            Lifecycle::new(Arc::clone(&keys), records, rotations, kek(), Arc::clone(&entropy) as _, periods);
        let receipts = Receipts {
            kept: Arc::clone(&store) as _,
            rotations: Arc::clone(&store) as _,
            key_records: Arc::clone(&store) as _,
            approvals: Arc::clone(&store) as _,
            audit: Arc::clone(&store) as _,
            keys: Arc::clone(&keys),
            entropy: Arc::clone(&entropy) as _,
            process_started_at: now(),
            destroyed_before: std::collections::BTreeSet::new(),
        };
        let audit = wait(async {
            let id = store.store_id().await.unwrap();
            let entropy = Arc::clone(&entropy) as _;
            AuditTrail::open(Arc::clone(&store) as _, id, keys.audit(), entropy, now()).await.unwrap()
        });
        let rotations = Arc::new(Rotations::new(
            Arc::new(lifecycle),
            Arc::new(receipts),
            Arc::new(audit),
            Arc::clone(&store) as _,
            Arc::clone(&store) as _,
            Arc::clone(&store) as _,
            sessions,
            Arc::new(Metrics::new()),
            Arc::new(SystemClock::default()),
            400,
        ));
        let shutdown = CancellationToken::new();
        let (runner, ends) = (Arc::clone(&rotations), shutdown.clone());
        thread::spawn(move || wait(runner.run(ends)));
        Self { folder, store, keys, rotations, entropy, shutdown, next: AtomicUsize::new(0) }
    }

    fn import(&self, count: usize) {
        wait(async {
            for first in (0..count).step_by(BATCH) {
                let mut bindings = Vec::with_capacity(BATCH);
                for number in first..(first + BATCH).min(count) {
                    let candidates = self.keys.binding.digest_in_bulk(handset(number)).await.ok().unwrap();
                    let (chain, digest) = candidates.flat.clone();
                    bindings.push(ImportedBinding {
                        account: AccountId::parse(&format!("a{number}")).unwrap(),
                        carrier: candidates.carrier.clone(),
                        digest,
                        chain,
                        generation: candidates.generation,
                        id: BindingId::from_random(random(&*self.entropy)),
                        probes: candidates.probes.clone(),
                    });
                }
                let outcomes = self.store.import(bindings, 3, now()).await.unwrap();
                assert!(outcomes.iter().all(|outcome| *outcome == ImportOutcome::Bound));
            }
        });
    }

    fn begin(&self) -> String {
        wait(self.rotations.start(Start::default(), now())).unwrap().record.id
    }

    /// Waits until every record is under the new key.
    fn wait_until_wrapped(&self) {
        wait(async {
            while self.store.rotations().await.unwrap().iter().any(|r| r.state == RotationState::Running) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    /// Signs handsets in while a rotation is paused and while it runs, in turns.
    fn beside_sign_ins(self: &Arc<Self>, count: usize, turns: usize, turn: Duration) {
        wait(self.store.scrub()).unwrap();
        let before = sign_ins(self, count, || thread::sleep(turn));
        println!("sign-ins before a rotation: {}", summary(&before));
        let id = self.begin();
        if wait(self.rotations.pause(&id, None, now())).is_err() {
            return println!("too few bindings: the rotation was over at once");
        }
        let (mut paused, mut running): (Vec<_>, Vec<_>) = Default::default();
        let (mut moved, mut spent) = (0, Duration::ZERO);
        for _ in 0..turns {
            paused.push(sign_ins(self, count, || thread::sleep(turn)));
            let (before, _) = self.wrapped(&id);
            wait(self.rotations.resume(&id, None, now())).unwrap();
            let began = Instant::now();
            running.push(sign_ins(self, count, || thread::sleep(turn)));
            // The last of them may have waited.
            spent += began.elapsed();
            let (after, runs) = self.wrapped(&id);
            moved += after - before;
            if !runs || wait(self.rotations.pause(&id, None, now())).is_err() {
                println!("it was over before the measurement was");
                break;
            }
        }
        println!("sign-ins while it is paused: {}; {}", summary(&paused.concat()), by_turns(&paused));
        println!("sign-ins while it runs: {}; {}", summary(&running.concat()), by_turns(&running));
        println!("wrapped beside them: {}", rate(moved, spent));
    }

    /// How many records it has moved, and whether it still runs.
    fn wrapped(&self, id: &str) -> (usize, bool) {
        let rotations = wait(self.store.rotations()).unwrap();
        let ours = rotations.iter().find(|rotation| rotation.id == id).unwrap();
        (usize::try_from(ours.wrapped).unwrap(), ours.state == RotationState::Running)
    }

    fn survey(&self) -> usize {
        usize::try_from(wait(survey(&*self.store)).unwrap().bindings()).unwrap()
    }

    /// One sign-in, from the identifier to a session that is durable.
    async fn sign_in(&self, number: usize) {
        self.rotations.sign_in_begins();
        let ring = &self.keys.binding;
        let candidates = ring.digest(handset(number)).await.ok().unwrap();
        let found = resolve(&*self.store, ring, candidates, now()).await;
        let (bound, used) = found.unwrap();
        let (account, binding, carrier) = bound.into_parts();
        let bytes: [u8; 16] = random(&*self.entropy);
        let record = SessionRecord {
            token_hash: SessionSecret::generate(&*self.entropy).token().hash(),
            id: SessionId::from_random(bytes),
            account,
            binding,
            carrier,
            continuity: [0; 32],
            link: None,
            sid_seed: bytes,
            transport: TokenTransport::Cookie,
            by_code: false,
            pin_at: None,
            created_at: now(),
            last_seen_at: now(),
            expires_at: now().plus(Duration::from_hours(12)),
        };
        let (noted, opened) = tokio::join!(used.note(&*self.store, ring), self.store.open(record, 3, None));
        noted.and(opened.map(drop)).unwrap();
        assert!(self.store.stands(binding).await.unwrap());
    }

    fn size(&self) -> u64 {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}

/// Signs handsets in, [`RATE`] a second, while `meanwhile` runs; how long they took.
fn sign_ins(bench: &Arc<Bench>, count: usize, meanwhile: impl FnOnce()) -> Vec<Duration> {
    let ends = Arc::new(AtomicBool::new(false));
    let (bench_of_thread, end) = (Arc::clone(bench), Arc::clone(&ends));
    let mut number = bench.next.fetch_add(1, Ordering::Relaxed);
    let signing_in = thread::spawn(move || {
        let mut took = Vec::new();
        let mut due = Instant::now();
        while took.is_empty() || !end.load(Ordering::Acquire) {
            // From when it was due: one that waits makes the next ones wait, and they are counted too.
            thread::sleep(due.saturating_duration_since(Instant::now()));
            wait(bench_of_thread.sign_in(number % count));
            took.push(due.elapsed());
            number += 7919;
            due += Duration::from_secs(1) / RATE;
        }
        took
    });
    meanwhile();
    ends.store(true, Ordering::Release);
    signing_in.join().unwrap()
}

fn summary(took: &[Duration]) -> String {
    let at = |percent| quantile(took, percent);
    format!("{} of them, median {:.2?}, p99 {:.2?}, worst {:.1?}", took.len(), at(50), at(99), at(100))
}

/// The p99 of each turn: what spoils one of them shows.
fn by_turns(turns: &[Vec<Duration>]) -> String {
    let each: Vec<_> = turns.iter().map(|took| format!("{:.1?}", quantile(took, 99))).collect();
    format!("p99 by turns {}", each.join(" "))
}

fn quantile(took: &[Duration], percent: usize) -> Duration {
    let mut took = took.to_vec();
    took.sort_unstable();
    *took.get((took.len() * percent / 100).min(took.len() - 1)).unwrap()
}

/// How long `work` took, the processor time of the process meanwhile, and the most memory it had, in KiB.
fn measure<T>(work: impl FnOnce() -> T) -> (Duration, Duration, u64) {
    // 5 begins the high-water mark anew (proc(5)); where that is refused the mark is of the whole run.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let (began, before) = (Instant::now(), cpu());
    work();
    (began.elapsed(), cpu().saturating_sub(before), high_water())
}

/// Processor time of this process.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: user and system time are fields 14 and 15, in hundredths (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(10 * fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
}

fn high_water() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn rate(count: usize, took: Duration) -> String {
    format!("{took:.2?}, {:.0} records/s", f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64())
}

fn report(what: &str, count: usize, took: Duration, cpu: Duration, rss: u64, bench: &Bench) {
    let (rss, size) = (rss / 1024, bench.size() >> 20);
    let each = cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap());
    println!(
        "{what}: {}, {each:.1} µs of CPU a record, {rss} MiB of memory at most, {size} MiB of store",
        rate(count, took)
    );
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// As good as that of any handset.
fn handset(number: usize) -> RawIdentifier {
    let mut octets = [0; 32];
    octets.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    RawIdentifier::canary(&octets)
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_117_042)
}
