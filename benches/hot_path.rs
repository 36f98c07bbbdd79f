//! What each proxied request pays for itself, stage by stage, without sockets: `cargo bench`.
//!
//! The figure to compare gateways by is that of `benches/compare`; these say where in the path it comes from.
#![expect(clippy::unwrap_used, reason = "a benchmark; what breaks may panic")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::Request;
use http::request::Parts;
use sekisho::carrier::{Carriers, Networks, ProfileSpec};
use sekisho::config::{Access, Assurance, RouteConfig};
use sekisho::edge::{Client, HeadLimits, HostAllowList, RawHead, Scheme, TrustedProxies};
use sekisho::session::{CookiePresence, LastCookie, SessionCookie};
use sekisho::trace::{RequestId, UpstreamCall};
use sekisho::upstream::{Forwarded, Routes, StrippedHead};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 32 * 1024, headers: 100, url_bytes: 8 * 1024 };
const PATH: &str = "/console/devices/42/edit";

/// What a docomo handset with a session sends.
fn parts() -> Parts {
    let request = Request::get(format!("{PATH}?guid=ON&page=2"))
        .header("Host", "admin.example.jp")
        .header("User-Agent", "DoCoMo/2.0 SH902i(c100;TB;W24H12;ser000000000000000;icc00000000000000000000)")
        .header("Accept", "text/html, image/gif")
        .header("Referer", "http://admin.example.jp/console/devices?guid=ON")
        .header("Cookie", "theme=dark; sekisho=abcdefghijklmnopqrstuvwxyz012345; console=1")
        .header("X-DCMGUID", "0000000");
    request.body(()).unwrap().into_parts().0
}

fn head() -> RawHead {
    RawHead::read(parts(), &LIMITS).unwrap()
}

fn client(head: &RawHead) -> Client {
    TrustedProxies::new(Vec::new()).resolve("127.0.1.7".parse().unwrap(), Scheme::Http, head).unwrap()
}

fn carriers() -> Carriers {
    let networks = Some(Networks::List(vec!["127.0.1.0/24".to_owned()]));
    let specs = BTreeMap::from([("docomo".to_owned(), ProfileSpec { networks, ..ProfileSpec::default() })]);
    Carriers::build(&specs).map_err(|problems| format!("{problems:?}")).unwrap().0
}

fn stages(criterion: &mut Criterion) {
    let hosts = HostAllowList::new(["admin.example.jp".to_owned()]);
    criterion.bench_function("read the head, check its host", |b| {
        let read = |parts| {
            let head = RawHead::read(parts, &LIMITS).unwrap();
            hosts.check(&head).unwrap();
            head
        };
        b.iter_batched(parts, read, BatchSize::SmallInput);
    });

    let route = |path: &str| RouteConfig {
        path: path.to_owned(),
        upstream: 0,
        access: Access::Session,
        assurance: Assurance::Device,
        body_bytes: 1024,
    };
    let routes = Routes::new(["/", "/console", "/static", "/api"].map(route).into());
    criterion.bench_function("find the route", |b| b.iter(|| routes.find(black_box(PATH)).is_ok()));

    let signed_in = head();
    let find = |last: &LastCookie| match SessionCookie::of(Scheme::Http).find(black_box(&signed_in), last) {
        CookiePresence::Token(token) => token.hash(),
        CookiePresence::Absent | CookiePresence::Unusable => unreachable!("the head has a token"),
    };
    criterion.bench_function("find the session cookie, hash its token", |b| b.iter(|| find(&LastCookie::default())));
    let last = LastCookie::default();
    criterion.bench_function("find the session cookie of the request before", |b| b.iter(|| find(&last)));

    let carriers = carriers();
    let client = client(&signed_in);
    let profile = carriers.match_source(&client).unwrap().name().clone();
    criterion.bench_function("match the network, read the identifier presented", |b| {
        b.iter(|| {
            carriers.match_source(black_box(&client)).is_some() && carriers.presented(&signed_in, &profile).is_ok()
        });
    });

    criterion.bench_function("strip the head, add what the gateway says", |b| {
        let request_id = RequestId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let call = UpstreamCall::default();
        let forwarded = Forwarded { client: &client, request_id: &request_id, call: &call };
        let strip = |head| StrippedHead::of(head, carriers.reserved()).unwrap().with(None, &forwarded);
        b.iter_batched(head, strip, BatchSize::SmallInput);
    });
}

criterion_group!(benches, stages);
criterion_main!(benches);
