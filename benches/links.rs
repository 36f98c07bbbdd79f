//! What a session in links costs a page that streams through, beside copying it: `cargo bench --bench links`. Prints
//! the ratio of the two for each page before the rest.
#![expect(clippy::cast_precision_loss, reason = "sizes of pages")]
#![expect(clippy::unwrap_used, reason = "a benchmark; what breaks may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use http::Response;
use http_body_util::BodyExt as _;
use sekisho::body::Body;
use sekisho::clock::Timestamp;
use sekisho::config::Origin;
use sekisho::edge::HostAllowList;
use sekisho::entropy::SeededEntropy;
use sekisho::links::{LeaveLinks, LinkPlan, OwnSites, carry};
use sekisho::session::SessionSecret;

/// A row of a console's list: a link in about 120 bytes, and one in about 30.
const TEXTUAL: &str = "<tr><td>0123</td><td>handset of the shop in front of the station, second floor</td>\
     <td><a href=\"/devices/0123?tab=1&amp;sort=name\">open</a></td></tr>\n";
const DENSE: &str = "<a href=\"/d/0123?t=1\">0123</a>\n";

fn page(row: &str, bytes: usize) -> Vec<u8> {
    format!("<html><body>{}</body></html>", row.repeat(bytes / row.len())).into_bytes()
}

/// Seconds that `run` takes, the shortest of many: others are on the machine too.
fn each<I, O>(prepare: impl Fn() -> I, run: impl Fn(I) -> O) -> f64 {
    let once = || {
        let input = prepare();
        let start = Instant::now();
        let output = black_box(run(black_box(input)));
        let time = start.elapsed();
        drop(output);
        time
    };
    (0..200).map(|_| once()).min().unwrap_or(Duration::MAX).as_secs_f64()
}

fn pages(criterion: &mut Criterion) {
    let origin = Origin { https: false, host: "admin.example.jp".to_owned(), port: None };
    let sites = Arc::new(OwnSites::new(&origin, &origin, &HostAllowList::new([origin.host.clone()])));
    let leave = Arc::new(LeaveLinks::new(&SeededEntropy::new(1)));
    let token = SessionSecret::generate(&SeededEntropy::new(1)).token();
    let now = Timestamp::from_unix_millis(0);
    let plan = || LinkPlan::new(&token, Some(("guid", "ON")), "/devices", Arc::clone(&sites), Arc::clone(&leave), now);
    for (name, row, bytes) in [
        ("a handset's page", TEXTUAL, 5 << 10),
        ("a list", TEXTUAL, 256 << 10),
        ("nothing but links", DENSE, 256 << 10),
    ] {
        let page = page(row, bytes);
        let answer = || {
            let body = Body::full(page.clone());
            (Response::builder().header("content-type", "text/html; charset=Shift_JIS").body(body).unwrap(), plan())
        };
        let read = |(answer, plan)| carry(answer, plan).into_body().collect().now_or_never().unwrap().unwrap();
        let (copied, rewritten) = (each(|| (), |()| page.clone()), each(answer, read));
        let rate = |time: f64| page.len() as f64 / time / f64::from(1 << 20);
        println!(
            "{name}: rewriting takes {:.0} times as long as copying ({:.0} MiB/s beside {:.0} MiB/s)",
            rewritten / copied,
            rate(rewritten),
            rate(copied)
        );
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(page.len() as u64));
        group.bench_function("copied", |b| b.iter(|| black_box(&page).clone()));
        group.bench_function("rewritten", |b| {
            b.iter_batched(answer, read, BatchSize::SmallInput);
        });
        group.finish();
    }
}

criterion_group!(benches, pages);
criterion_main!(benches);
