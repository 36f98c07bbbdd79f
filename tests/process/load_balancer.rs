//! Real `HAProxy`, with the configuration of `deploy/behind-load-balancer`, in front of the real binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use http::StatusCode;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{CARRIERS, Carrier, Handset};
use crate::process::{Captured, Folder, KEK, Serving};
use crate::proxies::{free_port, is_installed, with_addresses};
use crate::recorder::RecordingUpstream;
use crate::wire::{TestTls, Wire};

const GATEWAY: &str = include_str!("../../deploy/behind-load-balancer/gateway.toml");
const HAPROXY: &str = include_str!("../../deploy/behind-load-balancer/haproxy.cfg");

/// The sample of the gateway, with addresses of this test and TLS of `tls`.
fn sample(tls: &TestTls, console: SocketAddr) -> String {
    let any_port = || "127.0.0.1:0".to_owned();
    let carriers = GATEWAY.find("[carriers.").unwrap()..GATEWAY.find("[[upstream]]").unwrap();
    let listening = tls.listening("");
    let files = listening.lines().find(|line| line.starts_with("tls = ")).unwrap();
    let addresses = [
        ("10.0.0.11:8443", any_port()),
        ("10.0.0.11:8080", any_port()),
        ("10.0.0.11:9090", any_port()),
        ("10.0.0.10/32", "127.0.0.1/32".to_owned()),
        ("tls = { certificate = \"/etc/sekisho/tls.pem\", key = \"/etc/sekisho/tls.key\" }", files.to_owned()),
        ("127.0.0.1:9000", console.to_string()),
        ("/run/sekisho/admin.sock", "admin.sock".to_owned()),
        ("/var/lib/sekisho/sekisho.store", "store.db".to_owned()),
        ("/etc/sekisho/kek", "kek".to_owned()),
        (&GATEWAY[carriers], format!("{CARRIERS}\n")),
    ];
    with_addresses(GATEWAY, &addresses)
}

/// `HAProxy` in front of `gateway`, which listens for TLS at the first address and in the clear at the second.
fn haproxy(folder: &Folder, gateway: &Serving) -> (Child, Captured, [SocketAddr; 2]) {
    let fronts = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    let checked = format!("check port {}", gateway.address("ops").port());
    let addresses = [
        ("bind 0.0.0.0:443", format!("bind {}", fronts[0])),
        ("bind 0.0.0.0:80\n", format!("bind {}\n", fronts[1])),
        ("10.0.0.11:8443", gateway.tls_address().to_string()),
        ("10.0.0.11:8080", gateway.address("handset").to_string()),
        ("check port 9090", checked),
    ];
    // Its state is read off the log.
    let log = "global\n    log stdout format raw local0\n\ndefaults\n    log global";
    folder.write("haproxy.cfg", &with_addresses(&with_addresses(HAPROXY, &addresses), &[("defaults", log.to_owned())]));
    let mut command = Command::new("haproxy");
    let path = std::env::var("PATH").unwrap_or_default();
    command.arg("-f").arg(folder.path("haproxy.cfg")).env("PATH", format!("{path}:/usr/sbin"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut proxy = command.spawn().unwrap();
    let said = Captured::of(proxy.stdout.take().unwrap());
    (proxy, said, fronts)
}

#[tokio::test]
async fn haproxy_passes_connections_on_and_their_addresses_count() {
    if !is_installed("haproxy") {
        return;
    }
    let (console, tls) = (RecordingUpstream::start().await, TestTls::new());
    let folder = Folder::alone();
    folder.write_secret("kek", KEK);
    folder.write("gateway.toml", &sample(&tls, console.address));
    let gateway = folder.serve().await;
    let (mut proxy, said, [secure, plain]) = haproxy(&folder, &gateway);
    // A front that does not listen yet refuses.
    let listening = async { while tokio::net::TcpStream::connect(plain).await.is_err() {} };
    timeout(Duration::from_secs(30), listening).await.expect("HAProxy listens");

    let mut alice = Handset::new(secure, Carrier::PrivateApn, "a");
    alice.host = "admin.example.jp".to_owned();
    alice.tls = Some(tls.http2());
    let code = folder.code("alice").await;
    let entered = alice.enrol("/orders", &code).await;
    assert_eq!(entered.status, StatusCode::FOUND, "her network is the one in the PROXY header: {}", entered.text());
    assert_eq!(alice.get("/orders").await.status, StatusCode::OK);
    let mut stranger = Handset::new(secure, Carrier::PrivateApn, "a");
    (stranger.host, stranger.tls, stranger.source) =
        ("admin.example.jp".to_owned(), Some(tls.http1()), [127, 0, 77, 7].into());
    assert_eq!(stranger.click_sign_in("/orders").await.status, StatusCode::FORBIDDEN, "not from her network");
    let mut old = Handset::new(plain, Carrier::Docomo, "b");
    old.host = "admin.example.jp".to_owned();
    assert!(matches!(old.get("/").await.status, StatusCode::UNAUTHORIZED | StatusCode::FOUND));

    // Who comes past the load balancer is not heard.
    let mut past = Wire::connect([127, 0, 4, 7].into(), gateway.address("handset")).await;
    past.try_send("GET / HTTP/1.1\r\nHost: admin.example.jp\r\n\r\n").await;
    assert_eq!(past.rest().await, b"");

    // A gateway that stops is taken out, by its own word.
    gateway.stop().await;
    let down = said.until(|text| text.contains("Server gateway_tls/gateway is DOWN")).await;
    assert!(down.is_ok(), "{}", said.text());
    proxy.kill().await.unwrap();
}
