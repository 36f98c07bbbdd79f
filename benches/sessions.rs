//! A million live sessions: how long a start takes that finds them in the store, and what each costs in memory.
//!
//! ```text
//! cargo bench --bench sessions                          # a million; about three minutes, most of them to open them
//! SEKISHO_BENCH_SESSIONS=100000 SEKISHO_BENCH_DIR=/data cargo bench --bench sessions
//! ```
//!
//! Without `--bench`, as `cargo test --benches` runs it, it goes through all steps with a handful. The start is measured in
//! a process of its own, and memory as what that has beyond one that finds an empty store.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark; what breaks may panic")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sekisho::assertion::AssertionCache;
use sekisho::binding::{AccountId, BindingId};
use sekisho::carrier::CarrierName;
use sekisho::clock::Timestamp;
use sekisho::entropy::{SystemEntropy, random};
use sekisho::session::{SessionId, SessionPolicy, SessionSecret, Sessions};
use sekisho::store::{EmbeddedStore, SessionRecord, SessionStore as _, TokenTransport};

const HOUR: Duration = Duration::from_hours(1);
/// Says to a process of this program that it is to start on the store whose path it holds.
const START: &str = "SEKISHO_BENCH_START";
/// Sessions opened at once.
const AT_ONCE: usize = 256;
/// Sessions of an account, as many as it has by default.
const PER_ACCOUNT: u32 = 5;

fn main() {
    if let Some(store) = env::var_os(START) {
        return start(Path::new(&store));
    }
    let asked = env::var("SEKISHO_BENCH_SESSIONS").ok().map(|count| count.parse().unwrap());
    let count = asked.unwrap_or(if env::args().any(|argument| argument == "--bench") { 1_000_000 } else { 500 });
    let folder = match env::var_os("SEKISHO_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.unwrap();
    let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
    open(&empty, 0);
    let began = Instant::now();
    open(&full, count);
    println!("{count} sessions opened in {:.1?}; {} MiB of store", began.elapsed(), size(&full) >> 20);

    let (_, without) = started(&empty);
    for _ in 0..3 {
        let (took, with) = started(&full);
        let each = with.saturating_sub(without) * 1024 / count.max(1) as u64;
        println!(
            "started in {took:.2?}; {each} bytes of memory a session ({with} KiB, {without} KiB without sessions)"
        );
    }
}

/// Makes a store with `count` sessions in it.
fn open(path: &Path, count: usize) {
    let entropy = SystemEntropy::default();
    let (store, _) = EmbeddedStore::open(path, now(), &entropy).ok().unwrap();
    wait(async {
        for first in (0..count).step_by(AT_ONCE) {
            let opening = (first..(first + AT_ONCE).min(count)).map(|number| {
                let record = session(number, &entropy);
                store.open(record, PER_ACCOUNT, None)
            });
            join_all(opening).await.into_iter().for_each(|opened| assert!(opened.unwrap().is_empty()));
        }
        store.close().await.unwrap();
    });
}

fn session(number: usize, entropy: &SystemEntropy) -> SessionRecord {
    SessionRecord {
        token_hash: SessionSecret::generate(entropy).token().hash(),
        id: SessionId::from_random(random(entropy)),
        account: AccountId::parse(&format!("emp-{:08}", number / PER_ACCOUNT as usize)).unwrap(),
        binding: BindingId::from_random(random(entropy)),
        carrier: CarrierName::parse("docomo").unwrap(),
        continuity: random(entropy),
        link: None,
        sid_seed: random(entropy),
        transport: TokenTransport::Url,
        by_code: false,
        pin_at: None,
        created_at: now(),
        last_seen_at: now(),
        expires_at: now().plus(12 * HOUR),
    }
}

/// Starts a process on the store: how long that took, and the memory it has then, in KiB.
fn started(store: &Path) -> (Duration, u64) {
    let output = Command::new(env::current_exe().unwrap()).env(START, store).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap());
    (Duration::from_micros(numbers.next().unwrap()), numbers.next().unwrap())
}

/// As a gateway does it: the store is opened and found sound, its sessions are read.
fn start(path: &Path) {
    let began = Instant::now();
    let (store, _) = EmbeddedStore::open(path, now(), &SystemEntropy::default()).ok().unwrap();
    let opened = began.elapsed();
    let policy = SessionPolicy { idle: HOUR, absolute: 12 * HOUR, per_account: PER_ACCOUNT };
    let sessions: Sessions<AssertionCache> = wait(Sessions::load(Arc::new(store), policy, now())).unwrap();
    println!("{} {}", began.elapsed().as_micros(), resident());
    eprintln!("open {opened:?}");
    drop(sessions);
}

/// Memory of this process, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_117_042)
}
