//! Another configuration for the real program: by signal and by command, under load, while it stops, as systemd is told.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST};
use crate::process::{Folder, Serving};
use crate::recorder::RecordingUpstream;
use crate::wire::{TestTls, Wire, soon, tls_connect};

/// Clients that ask all the time, on connections that stay and on new ones, and count what is not answered as it should be.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// `/public` is answered 200 all the time, whatever else a reload changes.
    fn on(gateway: &Serving) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let address = gateway.address("handset");
        let client = |kept: bool| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                let source = [127, 0, 2, 7].into();
                let mut wire = Wire::connect(source, address).await;
                while !stop.load(Ordering::Relaxed) {
                    if !kept {
                        wire = Wire::connect(source, address).await;
                    }
                    wire.get("/public/load", "").await;
                    let answer = wire.answer().await;
                    assert_eq!((answer.status(), answer.text().as_str()), (200, "<html>console</html>"));
                    assert!(!answer.head.to_lowercase().contains("connection: close"), "{}", answer.head);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients = [true, true, true, true, false, false].map(client).into();
        Self { stop, asked, clients }
    }

    /// Waits until so many more were answered.
    async fn goes_on(&self, more: usize) {
        let wanted = self.asked.load(Ordering::Relaxed) + more;
        soon(async {
            while self.asked.load(Ordering::Relaxed) < wanted && !self.clients.iter().any(JoinHandle::is_finished) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// No request was lost.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            soon(client).await.unwrap();
        }
        assert!(self.asked.load(Ordering::Relaxed) > 0);
    }
}

#[tokio::test]
async fn nobody_notices_reloads_under_load() {
    let upstream = RecordingUpstream::start().await;
    let (folder, tls, calm) = (Folder::new(upstream.address), TestTls::new(), Bystander::new().await);
    folder.append(&calm.beside(&tls.listening("")));
    let gateway = folder.serve().await;
    let watch = calm.watch_at(gateway.places(), async |account| folder.code(account).await).await;
    let mut alice = gateway.handset(Carrier::Au, "a");
    assert_eq!(alice.enrol("/", &folder.code("alice").await).await.status, StatusCode::FOUND);
    let load = Load::on(&gateway);
    load.goes_on(20).await;

    let (source, address) = ([127, 0, 4, 7].into(), gateway.tls_address());
    let mut open = tls_connect(source, address, &tls.http1()).await;
    let renewed = tls.renewed();
    folder.edit("Example KK", "Another KK");
    folder.append("\n[[route]]\npath = \"/open\"\nupstream = \"console\"\naccess = \"public\"\n");
    gateway.signal(Signal::HUP);
    gateway.logged("another configuration is in force").await;
    assert!(renewed.connects(source, address).await && !tls.connects(source, address).await);
    let mut stranger = gateway.handset(Carrier::Docomo, "b");
    assert_eq!(stranger.get("/open").await.status, StatusCode::OK);
    open.write_all(format!("GET /public HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "an open connection goes on: {answer}");

    for n in 0..20 {
        folder.edit(
            &format!("audience = \"https://console.internal{}\"", "x".repeat(n)),
            &format!("audience = \"https://console.internal{}\"", "x".repeat(n + 1)),
        );
        folder.document("reload").await;
        load.goes_on(5).await;
    }
    // What is not sound is refused under load as well.
    tls.write_key("not a key");
    gateway.signal(Signal::HUP);
    gateway.logged("the configuration in the file was refused").await;
    assert!(renewed.connects(source, address).await);
    load.goes_on(20).await;
    load.end().await;
    watch.noticed_nothing().await;
    assert_eq!(alice.get("/").await.status, StatusCode::OK, "her session is still there");
    gateway.stop().await;
}

#[tokio::test]
async fn the_command_tells_what_is_wrong_and_how_it_ended() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    let done = folder.document("reload").await;
    assert_eq!(done["file"].as_str().unwrap(), folder.path("gateway.toml").to_str().unwrap());
    assert!(done["sha256"].as_str().unwrap().len() == 64 && done["reloaded_at"].is_string());
    let socket = folder.path("run/admin.sock");
    let reload = |more: &'static [&'static str]| {
        let arguments = ["reload", "--socket", socket.to_str().unwrap()].into_iter().chain(more.iter().copied());
        crate::process::ended(crate::process::sekisho(arguments))
    };
    let sound = std::fs::read_to_string(folder.path("gateway.toml")).unwrap();
    folder.edit("path = \"data/store.db\"", "path = \"other.db\"");
    folder.edit("access = \"session\"", "access = \"sesion\"");
    let ended = reload(&[]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
    assert!(ended.stderr.contains("route[0].access: "), "{}", ended.stderr);
    folder.edit("access = \"sesion\"", "access = \"session\"");
    let ended = reload(&["--json"]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    let error = &ended.json()["error"];
    assert_eq!(error["reason"], "configuration-refused");
    let findings: Vec<&str> = error["findings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let restart = findings.iter().find(|finding| finding.contains(": store.path: needs a restart"));
    assert!(restart.is_some_and(|finding| finding.contains("gateway.toml:")), "{findings:?}");

    std::fs::remove_file(folder.path("gateway.toml")).unwrap();
    let ended = reload(&[]).await;
    assert!(ended.code == 2 && ended.stderr.contains("(file): cannot be read"), "{ended:?}");
    folder.write("gateway.toml", &sound);
    assert_eq!(reload(&[]).await.code, 0);
    assert_eq!(gateway.ops("/readyz").await.status, StatusCode::OK);
    gateway.stop().await;
    assert_eq!(reload(&[]).await.code, 3);
}

#[tokio::test]
async fn systemd_hears_when_a_reload_begins_and_ends() {
    let folder = Folder::alone();
    let path = folder.path("notify");
    let notices = UnixDatagram::bind(&path).unwrap();
    notices.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let length = notices.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = folder.command("serve");
    command.env("NOTIFY_SOCKET", &path);
    let mut gateway = folder.serve_as(command).await;
    assert_eq!(next().trim(), "READY=1");
    for sound in [true, false] {
        if !sound {
            folder.edit("Example KK", "");
        }
        gateway.signal(Signal::HUP);
        let begins = next();
        let (reloading, since) = begins.trim().split_once('\n').unwrap();
        let since: u64 = since.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(reloading == "RELOADING=1" && since > 0, "{begins}");
        assert_eq!(next().trim(), "READY=1", "the gateway serves, by the configuration from before if need be");
    }
    gateway.signal(Signal::TERM);
    assert_eq!(next().trim(), "STOPPING=1");
    assert_eq!(gateway.end().await, Some(0));
}

#[tokio::test]
async fn whoever_stops_reloads_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (release, released) = oneshot::channel::<()>();
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        released.await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlate\n").await.unwrap();
    });
    let folder = Folder::new(address);
    let mut gateway = folder.serve().await;
    let mut client = Wire::connect([127, 0, 2, 7].into(), gateway.address("handset")).await;
    client.get("/public/slow", "").await;
    // An operator's connection from before; the socket accepts no other once the gateway stops.
    let mut admin = tokio::net::UnixStream::connect(folder.path("run/admin.sock")).await.unwrap();
    let request = "POST /v1/reload HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\n\r\n";
    admin.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"warnings\":") {
        assert!(soon(admin.read_buf(&mut answer)).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));

    gateway.signal(Signal::TERM);
    gateway.logged(r#""message":"draining""#).await;
    folder.edit("Example KK", "Another KK");
    gateway.signal(Signal::HUP);
    let _ = admin.write_all(request.as_bytes()).await;
    let mut after = Vec::new();
    let _ = soon(admin.read_to_end(&mut after)).await;
    assert!(!String::from_utf8_lossy(&after).contains("HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&after));
    release.send(()).unwrap();
    assert_eq!(client.answer().await.text(), "late\n");
    upstream.await.unwrap();
    assert_eq!(gateway.end().await, Some(0), "{}", gateway.stdout());
    assert_eq!(gateway.stdout().matches("another configuration is in force").count(), 1);
}

#[tokio::test]
async fn signals_and_commands_at_once_are_all_heard() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    let gateway = folder.serve().await;
    let load = Load::on(&gateway);
    load.goes_on(5).await;
    for _ in 0..20 {
        gateway.signal(Signal::HUP);
    }
    futures_util::future::join_all((0..20).map(|_| folder.document("reload"))).await;
    load.goes_on(20).await;
    load.end().await;
    assert_eq!(gateway.ops("/readyz").await.status, StatusCode::OK);
    gateway.stop().await;
}
