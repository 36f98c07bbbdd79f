//! From readiness to the last answer: systemd's notices, signals, draining.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use http::StatusCode;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::harness::Carrier;
use crate::process::Folder;

/// An upstream that takes one request and answers when it is released.
struct SlowUpstream {
    address: SocketAddr,
    asked: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl SlowUpstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asking, asked) = oneshot::channel();
        let (release, released) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            asking.send(()).unwrap();
            released.await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlate\n").await.unwrap();
        });
        Self { address, asked, release }
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_while_new_connections_are_refused() {
    for signal in [Signal::TERM, Signal::INT] {
        let SlowUpstream { address, asked, release } = SlowUpstream::start().await;
        let folder = Folder::new(address);
        // An address of its own: nobody else may listen there once the gateway does not.
        folder.edit("127.0.0.1:0", "127.0.77.1:0");
        let mut gateway = folder.serve().await;
        let mut handset = gateway.handset(Carrier::Au, "a");
        let slow = tokio::spawn(async move { handset.get("/public/slow").await });
        asked.await.unwrap();

        gateway.signal(signal);
        gateway.logged(r#""message":"draining""#).await;
        let closing = async { while TcpStream::connect(gateway.address("handset")).await.is_ok() {} };
        timeout(Duration::from_secs(20), closing).await.expect("new connections are still accepted");
        assert!(!slow.is_finished());

        release.send(()).unwrap();
        let answer = slow.await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "late\n"));
        assert_eq!(gateway.end().await, Some(0), "{}", gateway.stdout());
        assert!(gateway.log().iter().any(|line| line["path"] == "/public/slow" && line["status"] == 200));
        assert!(!folder.path("run/admin.sock").exists(), "the socket is left behind");
        let journal = std::fs::metadata(folder.path("data/store.db-wal"));
        assert_eq!(journal.map_or(0, |journal| journal.len()), 0, "the journal is not folded in");
    }
}

#[tokio::test]
async fn systemd_is_told_of_readiness_and_of_the_end() {
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
    // Ready means ready.
    assert_eq!(gateway.ops("/readyz").await.status, StatusCode::OK);
    gateway.signal(Signal::TERM);
    assert_eq!(next().trim(), "STOPPING=1");
    assert_eq!(gateway.end().await, Some(0));

    // Whoever cannot start is never ready.
    folder.write_secret("kek", "wrong");
    let mut command = folder.command("serve");
    command.env("NOTIFY_SOCKET", &path);
    assert_eq!(crate::process::ended(command).await.code, 2);
    notices.set_nonblocking(true).unwrap();
    assert!(notices.recv(&mut [0; 512]).is_err());
}

#[tokio::test]
async fn it_serves_on_when_nobody_reads_its_log() {
    let folder = Folder::alone();
    let path = folder.path("notify");
    let notices = UnixDatagram::bind(&path).unwrap();
    notices.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = folder.command("serve");
    command.env("NOTIFY_SOCKET", &path).stdout(writer);
    let mut child = command.spawn().unwrap();
    notices.recv(&mut [0; 512]).unwrap();
    folder.code("alice").await;
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    let status = timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_missing_store_is_made_and_said_and_a_second_start_finds_it() {
    let folder = Folder::alone();
    let first = folder.serve().await.stop().await;
    assert!(first.stdout().contains("a new store was created"), "{}", first.stdout());
    // Its id and its keys; the audit trail has more of each start.
    let made = || {
        let store = rusqlite::Connection::open(folder.path("data/store.db")).unwrap();
        let mut all = store.prepare("SELECT store_id FROM meta UNION ALL SELECT wrapped FROM keys").unwrap();
        all.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap().collect::<Result<Vec<_>, _>>().unwrap()
    };
    let first_made = made();
    assert_eq!(first_made.len(), 5);
    let second = folder.serve().await.stop().await;
    assert!(!second.stdout().contains("a new store was created"), "{}", second.stdout());
    assert_eq!(made(), first_made);
}
