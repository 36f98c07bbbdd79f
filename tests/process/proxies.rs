//! Real nginx and real Caddy, with the configurations of `deploy/forward-auth`, in front of the real binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use http::{Method, StatusCode};
use sekisho::assertion::AssertionVerifier;
use sekisho::clock::{Clock as _, SystemClock};
use tokio::process::{Child, Command};

use crate::harness::{CARRIERS, Carrier, HOST, Handset};
use crate::process::{Captured, Folder, KEK, Serving};
use crate::recorder::RecordingUpstream;

const GATEWAY: &str = include_str!("../../deploy/forward-auth/gateway.toml");
const NGINX: &str = include_str!("../../deploy/forward-auth/nginx.conf");
const CADDY: &str = include_str!("../../deploy/forward-auth/Caddyfile");
const STRIP_ALWAYS: &str = include_str!("../data/strip_always.txt");

/// A proxy, the gateway that it asks, and the console behind it.
struct Site {
    folder: Folder,
    gateway: Serving,
    console: RecordingUpstream,
    address: SocketAddr,
    proxy: Child,
    errors: Captured,
}

/// Whether there is such a proxy; that there is none is said past the harness's capture, and fails in CI.
pub(crate) fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(name).exists());
    if !found {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{name} is not installed");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("SKIP: no {name}\n").as_bytes());
    }
    found
}

/// Puts addresses of this test into a sample, each of which must stand in it.
#[track_caller]
pub(crate) fn with_addresses(sample: &str, addresses: &[(&str, String)]) -> String {
    addresses.iter().fold(sample.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the sample");
        text.replace(from, to)
    })
}

/// Below the ports that the system gives to connections, where one could take it before the proxy does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 9000).unwrap();
    let candidates = std::iter::repeat_with(|| 21_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 9000);
    let is_free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    candidates.take(9000).find(is_free).expect("a free port")
}

impl Site {
    /// `None` where the proxy is not installed.
    async fn behind(name: &str) -> Option<Self> {
        if !is_installed(name) {
            return None;
        }
        let console = RecordingUpstream::start().await;
        let folder = Folder::alone();
        folder.write_secret("kek", KEK);
        let any_port = || "127.0.0.1:0".to_owned();
        let carriers = GATEWAY.find("[carriers.").unwrap()..GATEWAY.find("[[upstream]]").unwrap();
        let config = with_addresses(
            GATEWAY,
            &[
                ("127.0.0.1:8081", any_port()),
                ("127.0.0.1:9100", any_port()),
                ("127.0.0.1:9090", any_port()),
                ("127.0.0.1:9000", console.address.to_string()),
                ("/run/sekisho/admin.sock", "admin.sock".to_owned()),
                ("/var/lib/sekisho/sekisho.store", "store.db".to_owned()),
                ("credential = \"kek\"", "file = \"kek\"".to_owned()),
                (&GATEWAY[carriers], format!("{CARRIERS}\n")),
            ],
        );
        folder.write("gateway.toml", &config);
        let gateway = folder.serve().await;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let asked = [
            ("127.0.0.1:8081", gateway.address("handset").to_string()),
            ("127.0.0.1:9100", gateway.address("forward-auth").to_string()),
            ("127.0.0.1:9000", console.address.to_string()),
        ];
        let root = folder.root().to_str().unwrap();
        let (mut command, started) = if name == "nginx" {
            let site = with_addresses(&with_addresses(NGINX, &asked), &[("listen 80", format!("listen {address}"))]);
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|of| format!("{of}_temp_path {root}/{of};"))
                .concat();
            let whole = format!(
                "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr notice; events {{}}\n\
                 http {{ access_log off; {temporary}\n{site} }}"
            );
            folder.write("nginx.conf", &whole);
            let mut command = Command::new("nginx");
            command.args(["-e", "stderr", "-c", &format!("{root}/nginx.conf")]);
            (command, "event method")
        } else {
            let site = format!("http://admin.example.jp:{}", address.port());
            let site = with_addresses(&with_addresses(CADDY, &asked), &[("http://admin.example.jp", site)]);
            folder.write("Caddyfile", &format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}"));
            let mut command = Command::new("caddy");
            command.args(["run", "--adapter", "caddyfile", "--config", &format!("{root}/Caddyfile")]);
            command.env("HOME", root);
            (command, "serving initial configuration")
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let path = std::env::var("PATH").unwrap_or_default();
        let mut proxy = command.env("PATH", format!("{path}:/usr/sbin")).spawn().unwrap();
        let errors = Captured::of(proxy.stderr.take().unwrap());
        errors.until(|text| text.contains(started)).await.unwrap_or_else(|_| panic!("{}", errors.text()));
        Some(Self { folder, gateway, console, address, proxy, errors })
    }

    fn handset(&self, tail: &str) -> Handset {
        // As typed, without the port of this test.
        Handset::new(self.address, Carrier::Au, tail)
    }

    async fn end(mut self) {
        self.proxy.kill().await.unwrap();
        let errors = self.errors.text();
        assert!(!errors.contains("[error]") && !errors.contains("\"level\":\"error\""), "{errors}");
        self.gateway.stop().await;
    }
}

async fn the_whole_way(name: &str) {
    let Some(site) = Site::behind(name).await else { return };
    let mut alice = site.handset("a");
    // The page comes through the proxy, for the path that was asked for.
    let page = alice.get("/orders?page=2").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{}", page.text());
    assert!(page.link("/_sekisho/login?").contains("orders"), "{}", page.text());
    let code = site.folder.code("alice").await;
    let entered = alice.enrol("/orders?page=2", &code).await;
    assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
    assert_eq!(site.console.received().len(), 0, "nothing has passed yet");

    let fields: Vec<(&str, &str)> = STRIP_ALWAYS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .filter(|(kind, _)| !matches!(*kind, "suffix" | "cookie" | "identifier"))
        .map(|(_, field)| (field, "leak"))
        .chain([
            ("Sekisho-Jwt-Assertion", "forged"),
            ("sekisho-jwt-assertion", "forged"),
            ("X-Forwarded-For", "1.2.3.4"),
        ])
        .chain([("X-Original-URI", "/orders"), ("X-Forwarded-Method", "GET")])
        .collect();
    alice.cookies.insert("theirs".into(), "kept".into());
    // Few at a time: the gateway bounds the fields of a head.
    for fields in fields.chunks(40) {
        let answer = alice.send(Method::POST, "/orders", fields, Bytes::from_static(b"a=b")).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "<html>console</html>"), "{fields:?}");
        let received = site.console.last();
        assert_eq!(
            (received.method, received.target.as_str(), &received.body[..]),
            (Method::POST, "/orders", &b"a=b"[..])
        );
        let jwks = alice.get("/_sekisho/jwks.json").await.text();
        let verifier = AssertionVerifier::new(&jwks, &format!("http://{HOST}"), "https://console.internal").unwrap();
        let assertions: Vec<_> = received.headers.get_all("sekisho-jwt-assertion").iter().collect();
        assert_eq!(assertions.len(), 1);
        verifier.verify(assertions[0].to_str().unwrap(), SystemClock::default().now()).unwrap();
        let head = format!("{:?}", received.headers);
        for forbidden in ["leak", "forged", "1.2.3.4", &alice.cookies["sekisho"], &*alice.identifier.clone().unwrap()] {
            assert!(!head.contains(forbidden), "{forbidden}: {head}");
        }
        assert!(head.contains("theirs=kept"), "{head}");
    }
    let before = site.console.received().len();
    // A page elsewhere gets no socket, with a key or without, and the page that says so asks no console either.
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let (upgrade, websocket) = (("Connection", "Upgrade"), ("Upgrade", "websocket"));
    for fields in [&[upgrade, websocket, key][..], &[upgrade, websocket], &[key]] {
        let foreign = [&[("Origin", "http://evil.example"), ("Accept", "application/json")], fields].concat();
        let answer = alice.send(Method::GET, "/ws", &foreign, Bytes::new()).await;
        assert_eq!((answer.status, answer.reason().as_str()), (StatusCode::FORBIDDEN, "foreign-origin"), "{fields:?}");
    }
    assert_eq!(site.console.received().len(), before);
    // Another handset with her cookie.
    let mut thief = site.handset("b");
    thief.cookies = alice.cookies.clone();
    assert!(matches!(thief.get("/orders").await.status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED));
    assert_eq!(alice.get("/orders").await.status, StatusCode::UNAUTHORIZED, "that ended the session");
    // Who was refused by the gateway was refused by the proxy, in whatever words the path came.
    for path in ["/", "/%2e%2e/", "/a%2fb", "/_sekisho/authorize", "/_sekisho/authorize/x"] {
        let answer = site.handset("c").get(path).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    assert_eq!(site.console.received().len(), before);
    site.end().await;
}

#[tokio::test]
async fn nginx_lets_through_who_may_pass_and_shows_the_others_the_page() {
    the_whole_way("nginx").await;
}

#[tokio::test]
async fn caddy_lets_through_who_may_pass_and_shows_the_others_the_page() {
    the_whole_way("caddy").await;
}
