//! How many connections, requests and bytes one client may have: who asks for more is turned away, and nobody else is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use sekisho::config::Serves;

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Handset, Harness, exchange};
use crate::upgrade::{HANDSHAKE, SWITCH};
use crate::wire::{PlayedUpstream, TestTls, Wire, soon, tls_connect};

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 9, 1));

/// Nobody's network.
fn stranger(last: u8) -> IpAddr {
    [127, 0, 8, last].into()
}

async fn limited(limits: &str) -> Harness {
    Harness::with(|config| format!("{config}\n[limits]\n{limits}\n")).await
}

/// A connection that is served, and stays.
async fn served(source: IpAddr, to: SocketAddr) -> Wire {
    let mut wire = Wire::connect(source, to).await;
    let forwarded = if source == PROXY { "X-Forwarded-For: 127.0.4.7\r\n" } else { "" };
    wire.get("/public/x", forwarded).await;
    assert_eq!(wire.answer().await.status(), 200, "{source}");
    wire
}

/// A connection that is closed before anything is said on it.
async fn turned_away(source: IpAddr, to: SocketAddr) {
    let mut wire = Wire::connect(source, to).await;
    assert!(wire.rest().await.is_empty(), "{source}");
}

/// Waits until a connection from there is served again.
async fn served_again(source: IpAddr, to: SocketAddr) -> Wire {
    soon(async {
        loop {
            let mut wire = Wire::connect(source, to).await;
            wire.try_send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
            let mut first = [0; 1];
            if matches!(tokio::io::AsyncReadExt::read(&mut wire.stream, &mut first).await, Ok(1)) {
                return wire;
            }
        }
    })
    .await
}

/// The value of a metric's line.
async fn metric(harness: &Harness, line: &str) -> u64 {
    let text = harness.metrics().await;
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
}

/// Waits until so many connections are open: those of a moment ago end when the gateway sees it.
async fn has_open(harness: &Harness, count: u64) {
    soon(async { while metric(harness, "sekisho_connections_open").await != count {} }).await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_a_carriers_gateway_more() {
    let calm = Bystander::new().await;
    let limits = "[limits]\nconnections = 100\nconnections_per_address = 2";
    let harness = Harness::with(|config| calm.beside(&format!("{config}\n{limits}\n"))).await;
    let watch = calm.watch(&harness).await;
    let to = harness.address();
    let (first, second) = (served(stranger(1), to).await, served(stranger(1), to).await);
    turned_away(stranger(1), to).await;
    turned_away(stranger(1), to).await;
    let cause = "sekisho_connections_turned_away_total{cause=\"connections-per-address\"}";
    assert_eq!(metric(&harness, cause).await, 2);
    let _others = served(stranger(2), to).await;
    // Thousands of handsets stand behind a carrier's gateway, and anybody behind a proxy of ours.
    let mut many = Vec::new();
    for source in [[127, 0, 4, 7].into(), PROXY] {
        for _ in 0..20 {
            many.push(served(source, to).await);
        }
    }
    has_open(&harness, 43 + 2).await;
    drop(first);
    let _again = served_again(stranger(1), to).await;
    drop(second);
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn all_together_have_so_many_connections_and_monitoring_sees_it() {
    let tls = TestTls::new();
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| {
        let config = calm.beside(&tls.listening(&config));
        format!("{config}\n[limits]\nconnections = 9\nconnections_per_address = 6\n")
    })
    .await;
    let watch = calm.watch(&harness).await;
    has_open(&harness, 2).await;
    let to = harness.address();
    let mut held = Vec::new();
    // Half of all is the most that one address of a carrier's gets.
    for _ in 0..4 {
        held.push(served([127, 0, 4, 7].into(), to).await);
    }
    turned_away([127, 0, 4, 7].into(), to).await;
    held.extend([served(stranger(1), to).await, served(PROXY, to).await]);
    let over_tls = tls_connect(stranger(2), harness.tls_address(), &tls.http1()).await;
    for source in [stranger(3), PROXY, [127, 0, 3, 7].into()] {
        turned_away(source, to).await;
        // No handshake either: not a byte comes back.
        turned_away(source, harness.tls_address()).await;
    }
    let cause = |cause: &str| format!("sekisho_connections_turned_away_total{{cause=\"{cause}\"}}");
    assert_eq!(metric(&harness, &cause("connections")).await, 6);
    assert_eq!(metric(&harness, &cause("connections-per-address")).await, 1);
    assert_eq!(metric(&harness, &cause("tls-handshake")).await, 0);
    drop(over_tls);
    held.push(served_again(stranger(3), to).await);
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn other_limits_come_with_a_reload_and_turn_nobody_out() {
    let mut harness = limited("connections = 4\nconnections_per_address = 2").await;
    let to = harness.address();
    let mut held = vec![served(stranger(1), to).await, served(stranger(1), to).await];
    turned_away(stranger(1), to).await;
    let goes_on = async |held: &mut Vec<Wire>| {
        for wire in held {
            wire.get("/public/y", "").await;
            assert_eq!(wire.answer().await.status(), 200);
        }
    };
    let limit = |all: u32, each: u32| {
        move |config: String| {
            let (before, _) = config.split_once("connections = ").unwrap();
            format!("{before}connections = {all}\nconnections_per_address = {each}\n")
        }
    };

    // Fewer than one address has open already.
    harness.reload(limit(3, 1)).await.unwrap();
    goes_on(&mut held).await;
    turned_away(stranger(1), to).await;
    held.push(served(stranger(2), to).await);
    turned_away(stranger(2), to).await;
    turned_away(stranger(3), to).await;
    let cause = |cause: &str| format!("sekisho_connections_turned_away_total{{cause=\"{cause}\"}}");
    assert_eq!(metric(&harness, &cause("connections")).await, 2, "three are open, whosever they are");
    assert_eq!(metric(&harness, &cause("connections-per-address")).await, 2);

    // Fewer than are open in all.
    harness.reload(limit(1, 1)).await.unwrap();
    goes_on(&mut held).await;
    drop(held.pop());
    soon(async { while metric(&harness, "sekisho_connections_open").await > 2 {} }).await;
    turned_away(stranger(3), to).await;

    // More, for one address and for all: at once, and what was open before counts.
    harness.reload(limit(8, 3)).await.unwrap();
    held.push(served(stranger(1), to).await);
    turned_away(stranger(1), to).await;
    held.push(served(stranger(3), to).await);
    goes_on(&mut held).await;
    assert_eq!(metric(&harness, "sekisho_connections_open").await, 4);
    harness.finish().await;
}

#[tokio::test]
async fn behind_a_proxy_header_the_address_counts_that_it_tells() {
    let harness = Harness::with(|config| {
        let config = config.replacen("serves = \"handset\"\n", "serves = \"handset\"\nproxy_protocol = true\n", 1);
        format!("{config}\n[limits]\nconnections_per_address = 2\n")
    })
    .await;
    let open = async |source: &str| {
        let mut wire = Wire::connect(PROXY, harness.address()).await;
        wire.try_send(format!(
            "PROXY TCP4 {source} 127.0.0.1 5555 80\r\nGET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        ))
        .await;
        wire
    };
    let mut held = Vec::new();
    for source in ["203.0.113.1", "203.0.113.1", "203.0.113.2", "127.0.4.7", "127.0.4.7", "127.0.4.7"] {
        let mut wire = open(source).await;
        assert_eq!(wire.answer().await.status(), 200, "{source}");
        held.push(wire);
    }
    let mut third = open("203.0.113.1").await;
    assert!(third.rest().await.is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn an_upgraded_connection_counts_until_it_ends() {
    let upstream = PlayedUpstream::start().await;
    let harness = Harness::with(|config| {
        format!("{}\n[limits]\nconnections_per_address = 1\n", upstream.routed(&config, "public", ""))
    })
    .await;
    let to = harness.address();
    let mut client = Wire::connect(stranger(1), to).await;
    client.get("/played/ws", &format!("{HANDSHAKE}Origin: http://{HOST}\r\n")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(SWITCH).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    server.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    turned_away(stranger(1), to).await;
    assert_eq!(metric(&harness, "sekisho_connections_open").await, 1);
    drop((client, server));
    served_again(stranger(1), to).await;
    harness.finish().await;
}

#[tokio::test]
async fn one_address_sends_so_many_requests_and_a_carriers_gateway_any() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| {
        let listener = "[[listener]]\nserves = \"forward-auth\"\naddress = \"127.0.0.1:0\"\n\n[admin]";
        calm.beside(&format!("{}\n[limits]\nrequests = \"3/1m\"\n", config.replace("[admin]", listener)))
    })
    .await;
    let watch = calm.watch(&harness).await;
    let from = |source: IpAddr| {
        let mut handset = Handset::new(harness.address(), Carrier::PrivateApn, "a");
        handset.source = source;
        handset
    };
    let mut pushy = from(stranger(1));
    for _ in 0..3 {
        assert_eq!(pushy.get("/public").await.status, StatusCode::OK);
    }
    let before = harness.upstream.received().len();
    for (method, target) in
        [(Method::GET, "/public"), (Method::POST, "/public"), (Method::GET, "/"), (Method::GET, "/_sekisho/notice")]
    {
        let refused = pushy.send(method, target, &[("Accept", "application/json")], Bytes::from_static(b"a=b")).await;
        assert_eq!((refused.status, refused.reason().as_str()), (StatusCode::TOO_MANY_REQUESTS, "rate-limited"));
        assert_eq!(refused.header("retry-after"), Some("20"));
    }
    assert_eq!(harness.upstream.received().len(), before);
    // What it says of itself does not help; who comes by a proxy of ours is judged by the address that the proxy tells.
    pushy.extra = vec![("X-Forwarded-For".to_owned(), "198.51.100.1".to_owned())];
    assert_eq!(pushy.get("/public").await.status, StatusCode::TOO_MANY_REQUESTS);
    let mut by_proxy = from(PROXY);
    by_proxy.extra = vec![("X-Forwarded-For".to_owned(), "127.0.8.1".to_owned())];
    assert_eq!(by_proxy.get("/public").await.status, StatusCode::TOO_MANY_REQUESTS);
    by_proxy.extra = vec![("X-Forwarded-For".to_owned(), "198.51.100.1".to_owned())];
    assert_eq!(by_proxy.get("/public").await.status, StatusCode::OK);
    assert_eq!(from(stranger(2)).get("/public").await.status, StatusCode::OK);
    let mut carrier = from([127, 0, 4, 7].into());
    for _ in 0..20 {
        assert_eq!(carrier.get("/public").await.status, StatusCode::OK);
    }
    // A proxy that asks hears it in one of the statuses that it knows.
    let question = Request::get("/_sekisho/authorize")
        .header("Host", "sekisho.internal")
        .header("X-Forwarded-For", "127.0.8.1")
        .header("X-Forwarded-Host", HOST)
        .header("X-Forwarded-Uri", "/public")
        .body(Full::default())
        .unwrap();
    let told = exchange(PROXY, harness.listener(Serves::ForwardAuth), question).await;
    assert_eq!((told.status, told.header("sekisho-reason")), (StatusCode::FORBIDDEN, Some("rate-limited")));
    harness.clock.advance(Duration::from_secs(20));
    pushy.extra.clear();
    assert_eq!(pushy.get("/public").await.status, StatusCode::OK, "after the time it was told");
    assert_eq!(pushy.get("/public").await.status, StatusCode::TOO_MANY_REQUESTS);
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_route_takes_bodies_of_its_own_size() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| {
        let route = |path: &str, body: &str| {
            format!("[[route]]\npath = \"{path}\"\nupstream = \"console\"\naccess = \"public\"\nbody = \"{body}\"\n")
        };
        let (small, large) = (route("/small", "1KiB"), route("/large", "8KiB"));
        calm.beside(&format!("{config}\n{small}{large}[limits]\nbody = \"4KiB\"\n"))
    })
    .await;
    let watch = calm.watch(&harness).await;
    let source = [127, 0, 4, 7].into();
    for (target, most) in [("/small/x", 1024), ("/public/x", 4096), ("/large/x", 8192)] {
        for (length, status) in [(most, 200), (most + 1, 413)] {
            let body = "x".repeat(length);
            let mut wire = Wire::connect(source, harness.address()).await;
            wire.send(format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n{body}"))
                .await;
            assert_eq!(wire.answer().await.status(), status, "{target} {length}");
            let mut wire = Wire::connect(source, harness.address()).await;
            let head = format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
            wire.send(format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n")).await;
            assert_eq!(wire.answer().await.status(), status, "{target} {length} in chunks");
        }
    }
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_listener_for_both_families_sees_ipv4_as_ipv4() {
    let harness = Harness::with(|config| {
        let config = config.replacen("address = \"127.0.0.1:0\"", "address = \"[::]:0\"", 1);
        format!("{config}\n[limits]\nconnections_per_address = 1\n")
    })
    .await;
    let to = SocketAddr::from(([127, 0, 0, 1], harness.address().port()));
    // The networks of the configuration are IPv4: signing in needs the peer to be in one.
    let mut alice = Handset::new(to, Carrier::Docomo, "a");
    let code = harness.code("alice").await;
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    assert_eq!(alice.get("/?guid=ON").await.status, StatusCode::OK);
    assert_eq!(harness.upstream.last().headers["x-forwarded-for"], "127.0.1.7");
    // So do limits and trusted proxies.
    let _held = served(stranger(1), to).await;
    turned_away(stranger(1), to).await;
    let _by_proxy = [served(PROXY, to).await, served(PROXY, to).await];
    harness.finish().await;
}
