//! Whose traces are continued, and who decides what is recorded.

use http::StatusCode;

use crate::collector::Collector;
use crate::harness::{Carrier, Handset, Harness};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Asks for `path` in a trace of its own; gives back the flags and the state that the upstream was told.
async fn ask(harness: &Harness, by_proxy: bool, path: &str, flags: &str) -> (String, String) {
    let mut visitor = Handset::new(harness.address(), Carrier::PrivateApn, "a");
    visitor.extra = vec![
        ("traceparent".to_owned(), format!("00-{TRACE}-{PARENT}-{flags}")),
        ("tracestate".to_owned(), "vendor=STATESECRET".to_owned()),
    ];
    if by_proxy {
        visitor.source = [127, 0, 9, 1].into();
        visitor.extra.push(("X-Forwarded-For".to_owned(), "127.0.4.7".to_owned()));
    }
    assert_eq!(visitor.get(path).await.status, StatusCode::OK, "{path}");
    let sent = harness.upstream.last();
    let told = sent.headers["traceparent"].to_str().unwrap();
    let rest = told.strip_prefix(&format!("00-{TRACE}-")).unwrap_or_else(|| panic!("another trace: {told}"));
    let (step, flags) = rest.split_once('-').unwrap();
    assert_ne!(step, PARENT);
    (flags.to_owned(), sent.headers["tracestate"].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_trace_is_continued_and_a_stranger_decides_nothing() {
    let collector = Collector::start().await;
    let mut harness = Harness::with(|config| collector.configured(&config, "sampling = \"parent\"")).await;
    // All are recorded but what a proxy says is not.
    for (by_proxy, flags, path, told) in [
        (true, "01", "/public/proxy/yes", "01"),
        (true, "02", "/public/proxy/no", "02"),
        (false, "00", "/public/stranger/no", "01"),
        (false, "03", "/public/stranger/yes", "03"),
    ] {
        let (flags, state) = ask(&harness, by_proxy, path, flags).await;
        assert_eq!((flags.as_str(), state.as_str()), (told, "vendor=STATESECRET"), "{path}");
    }
    let last = collector.request("/public/stranger/yes").await;
    for path in ["/public/proxy/yes", "/public/stranger/no"] {
        let span = collector.request(path).await;
        assert_eq!((span.trace().as_str(), span.parent().as_str()), (TRACE, PARENT), "{path}");
        // Sampled, and a parent that is elsewhere.
        assert_eq!(span.span.flags & 0x301, 0x301, "{path}");
    }
    assert_eq!(last.span.flags & 0xff, 3, "the random flag of the caller's id is kept");

    // None but what a proxy says is; a stranger's flag is taken away before the upstream could believe it.
    harness.reload(|config| format!("{config}ratio = 0.0\n")).await.unwrap();
    for (by_proxy, flags, path, told) in [
        (false, "01", "/public/none/stranger", "00"),
        (true, "00", "/public/none/proxy", "00"),
        (true, "01", "/public/some/proxy", "01"),
    ] {
        assert_eq!(ask(&harness, by_proxy, path, flags).await.0, told, "{path}");
    }
    collector.request("/public/some/proxy").await;

    // By the ratio alone, a proxy decides nothing either.
    harness.reload(|config| config.replace("sampling = \"parent\"", "sampling = \"ratio\"")).await.unwrap();
    assert_eq!(ask(&harness, true, "/public/none/ratio", "01").await.0, "00");
    harness.finish().await;
    // Everything that was recorded was sent before the gateway ended.
    let paths: Vec<_> = collector.spans().iter().filter_map(|span| span.attributes.get("url.path").cloned()).collect();
    assert!(!paths.iter().any(|path| path.contains("/no") && !path.contains("stranger/no")), "{paths:?}");
    let received = collector.bytes();
    assert!(!crate::harness::contains(&received, b"STATESECRET"), "what strangers write stays out of spans");
}

#[tokio::test]
async fn a_part_of_all_requests_is_recorded() {
    let collector = Collector::start().await;
    let harness = Harness::with(|config| collector.configured(&config, "ratio = 0.25")).await;
    let mut visitor = harness.handset(Carrier::PrivateApn, "a");
    let mut sampled = 0;
    for _ in 0..200 {
        assert_eq!(visitor.get("/public/part").await.status, StatusCode::OK);
        let told = harness.upstream.last().headers["traceparent"].to_str().unwrap().to_owned();
        sampled += usize::from(told.ends_with("-01"));
    }
    harness.finish().await;
    let recorded = collector.spans().iter().filter(|span| span.is("url.path", "/public/part")).count();
    assert_eq!(recorded, sampled, "what the upstream is told is what is done");
    assert!((20..80).contains(&sampled), "{sampled} of 200 at a quarter: one run in a million is outside");
}
