//! Sockets that systemd opened: taken by address, shared by all cores, kept while the gateway restarts. And its watchdog.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::Signal;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{Carrier, HOST, Handset};
use crate::process::{Folder, ended, wrapped};
use crate::recorder::RecordingUpstream;
use crate::wire::{Wire, soon};

/// Sockets on their way to a process.
struct Passed {
    /// Above all numbers that a shell uses for itself, and inherited.
    descriptors: Vec<OwnedFd>,
    variables: String,
}

impl Passed {
    fn new<T: AsFd>(sockets: &[&T]) -> Self {
        let inherited = |socket: &&T| {
            let descriptor = fcntl_dupfd_cloexec(socket, 200).unwrap();
            fcntl_setfd(&descriptor, FdFlags::empty()).unwrap();
            descriptor
        };
        let descriptors: Vec<_> = sockets.iter().map(inherited).collect();
        let variables = format!("LISTEN_PID=$$ LISTEN_FDS={}", descriptors.len());
        Self { descriptors, variables }
    }

    /// Another environment than systemd's.
    fn told(mut self, variables: &str) -> Self {
        variables.clone_into(&mut self.variables);
        self
    }

    /// `command`, which gets them as descriptors from 3 on.
    fn to(&self, command: &Command) -> Command {
        let mut script = String::new();
        for (index, descriptor) in self.descriptors.iter().enumerate() {
            let (number, passed) = (index + 3, descriptor.as_raw_fd());
            write!(script, "exec {number}<&{passed} {passed}<&-; ").unwrap();
        }
        write!(script, "{} exec \"$0\" \"$@\"", self.variables).unwrap();
        wrapped(&["bash", "-c", &script], command)
    }
}

/// A gateway whose handset listener has this socket's address.
fn folder_for(upstream: SocketAddr, socket: &TcpListener) -> Folder {
    let folder = Folder::new(upstream);
    let address = socket.local_addr().unwrap();
    folder.edit(
        "serves = \"handset\"\naddress = \"127.0.0.1:0\"",
        &format!("serves = \"handset\"\naddress = \"{address}\""),
    );
    folder
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[tokio::test]
async fn a_socket_that_systemd_opened_is_served_by_all_cores_and_kept_while_the_gateway_restarts() {
    let upstream = RecordingUpstream::start().await;
    let socket = listener();
    let folder = folder_for(upstream.address, &socket);
    let passed = Passed::new(&[&socket]).told("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=sekisho.socket");
    let gateway = folder.serve_as(passed.to(&folder.command("serve"))).await;
    assert_eq!(gateway.address("handset"), socket.local_addr().unwrap());
    let mut alice = gateway.handset(Carrier::Au, "a");
    let code = folder.code("alice").await;
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    // As many at once as one worker would not see alone.
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut wire = Wire::connect(alice.source, alice.gateway).await;
        wire.get("/public/x", "").await;
        assert_eq!(wire.answer().await.status(), 200);
        held.push(wire);
    }
    drop(held);
    gateway.stop().await;

    // Nobody accepts, and nobody is refused: who connects now is served later.
    let mut early = Wire::connect(alice.source, alice.gateway).await;
    early.get("/public/x", "").await;
    let gateway = folder.serve_as(passed.to(&folder.command("serve"))).await;
    assert_eq!(early.answer().await.status(), 200);
    assert_eq!(alice.get("/").await.status, StatusCode::OK);

    // Killed under load: who comes meanwhile waits, who was cut off asks again, and whoever was in still is.
    let load = Load::of(&alice);
    load.goes_on(20).await;
    gateway.kill().await;
    let mut early = Wire::connect(alice.source, alice.gateway).await;
    early.get("/public/x", "").await;
    let gateway = folder.serve_as(passed.to(&folder.command("serve"))).await;
    assert_eq!(early.answer().await.status(), 200);
    load.goes_on(40).await;
    load.end().await;
    gateway.stop().await;
}

/// The same handset many times over, each asking again and again for what only the signed-in get.
struct Load {
    stop: CancellationToken,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<usize>,
}

impl Load {
    const CLIENTS: usize = 8;

    fn of(handset: &Handset) -> Self {
        let (stop, answered) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..Self::CLIENTS {
            let mut client = Handset::new(handset.gateway, handset.carrier, "a");
            client.cookies = handset.cookies.clone();
            let (stop, answered) = (stop.clone(), Arc::clone(&answered));
            clients.spawn(async move {
                let mut cut_off = 0;
                while !stop.is_cancelled() {
                    match soon(client.try_send(Method::GET, "/", &[], Bytes::new())).await {
                        Ok(answer) => {
                            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            let refused = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                            assert_ne!(refused, Some(ErrorKind::ConnectionRefused), "nobody listens");
                            cut_off += 1;
                        }
                    }
                }
                cut_off
            });
        }
        Self { stop, answered, clients }
    }

    /// Waits until so many more were answered.
    async fn goes_on(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        soon(async {
            while self.answered.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Nobody was refused or signed out, and each was cut off once at most, by the kill.
    async fn end(self) {
        self.stop.cancel();
        let cut_off = soon(self.clients.join_all()).await;
        assert!(cut_off.iter().all(|times| *times <= 1), "{cut_off:?}");
    }
}

#[tokio::test]
async fn sockets_for_another_process_are_not_taken() {
    let socket = listener();
    let folder = folder_for(([127, 0, 0, 1], 9).into(), &socket);
    // Meant for another process: it binds by itself, which fails as the address is taken.
    let passed = Passed::new(&[&socket]).told("LISTEN_PID=1 LISTEN_FDS=1");
    let refused = ended(passed.to(&folder.command("serve"))).await;
    assert_eq!((refused.code, refused.finding_keys()), (2, vec!["listener[0].address"]), "{refused:?}");
    assert!(refused.stderr.contains("in use"), "{refused:?}");
    // None at all is none.
    for variables in [
        "LISTEN_PID=$$ LISTEN_FDS=0",
        "LISTEN_PID=$$",
        "LISTEN_FDS=x",
        "LISTEN_FDS=1",
        "LISTEN_PID= LISTEN_FDS=1",
        "LISTEN_FDS=2147483647",
    ] {
        let refused = ended(Passed::new(&[&socket]).told(variables).to(&folder.command("serve"))).await;
        assert!(refused.stderr.contains("in use"), "{variables}: {refused:?}");
    }
    // Meant for this one, and no number of sockets: neither none nor some.
    for count in ["abc", "-1", "99999999999", "1048577", "''", "1x", "' 1'", "+1", "$'\\xff'"] {
        let passed = Passed::new(&[&socket]).told(&format!("LISTEN_PID=$$ LISTEN_FDS={count}"));
        let refused = ended(passed.to(&folder.command("serve"))).await;
        assert_eq!((refused.code, refused.finding_keys()), (2, vec!["listener"]), "{count}: {refused:?}");
        assert!(refused.stderr.contains("LISTEN_FDS is no number of descriptors"), "{count}: {refused:?}");
    }
}

#[tokio::test]
async fn sockets_that_fit_no_listener_are_said_before_anything_is_touched() {
    let (ours, other) = (listener(), listener());
    let folder = folder_for(([127, 0, 0, 1], 9).into(), &ours);
    let other_address = other.local_addr().unwrap();
    let connected = std::net::TcpStream::connect(ours.local_addr().unwrap()).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let twice: Vec<&TcpListener> = vec![&ours; std::thread::available_parallelism().unwrap().get() + 1];
    let before = folder.snapshot();
    for (passed, key, said) in [
        (
            Passed::new(&[&ours, &other]),
            "listener",
            format!("a socket at {other_address}, which no [[listener]] has as its address"),
        ),
        (Passed::new(&twice), "listener[0].address", format!("systemd passed {} sockets", twice.len())),
        (
            Passed::new(&[&ours]).told("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=admin"),
            "listener[0].address",
            "systemd calls the socket at this address \"admin\", but this listener serves \"handset\"".to_owned(),
        ),
        (Passed::new(&[&udp]), "listener", "descriptor 0 of LISTEN_FDS cannot be used".to_owned()),
        (Passed::new(&[&connected]), "listener", "does not listen; its unit needs Accept=no".to_owned()),
        (
            Passed::new(&[&ours]).told("LISTEN_PID=$$ LISTEN_FDS=2"),
            "listener",
            "descriptor 1 of LISTEN_FDS cannot be used".to_owned(),
        ),
    ] {
        let refused = ended(passed.to(&folder.command("serve"))).await;
        assert_eq!((refused.code, refused.finding_keys()), (2, vec![key]), "{refused:?}");
        assert!(refused.stderr.contains(&said), "{said}: {refused:?}");
        assert!(folder.snapshot() == before, "{said}");
    }
}

#[tokio::test]
async fn systemds_own_tool_starts_it_at_the_first_connection() {
    let upstream = RecordingUpstream::start().await;
    // Free now; systemd's tool binds it.
    let address = listener().local_addr().unwrap();
    let folder = Folder::new(upstream.address);
    folder.edit(
        "serves = \"handset\"\naddress = \"127.0.0.1:0\"",
        &format!("serves = \"handset\"\naddress = \"{address}\""),
    );
    let tool = ["systemd-socket-activate", "--listen", &address.to_string(), "--fdname", "handset"];
    let serving = folder.serve_as(wrapped(&tool, &folder.command("serve")));
    let asking = async {
        // It starts nothing until somebody connects.
        loop {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.2.7:0".parse().unwrap()).unwrap();
            if let Ok(stream) = socket.connect(address).await {
                let mut wire = Wire::new(stream);
                wire.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
                return wire.answer().await.status();
            }
        }
    };
    let (gateway, status) = tokio::join!(serving, soon(asking));
    assert_eq!(status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn systemds_watchdog_is_fed_while_the_gateway_answers() {
    let folder = Folder::alone();
    let path = folder.path("notify");
    let notices = UnixDatagram::bind(&path).unwrap();
    notices.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let length = notices.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap().trim().to_owned()
    };
    let mut command = folder.command("serve");
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let mut gateway = folder.serve_as(command).await;
    assert_eq!(next(), "READY=1");
    let began = std::time::Instant::now();
    for _ in 0..5 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    // The first comes at once, the others each half a period.
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    gateway.signal(Signal::TERM);
    while next() != "STOPPING=1" {}
    assert_eq!(gateway.end().await, Some(0));

    // It is for another process, or not asked for.
    for variable in [Some(("WATCHDOG_PID", "1")), None] {
        let mut command = folder.command("serve");
        command.env("NOTIFY_SOCKET", &path);
        if let Some((name, value)) = variable {
            command.env("WATCHDOG_USEC", "400000").env(name, value);
        }
        let mut gateway = folder.serve_as(command).await;
        assert_eq!(next(), "READY=1");
        gateway.signal(Signal::TERM);
        assert_eq!(next(), "STOPPING=1");
        assert_eq!(gateway.end().await, Some(0));
    }
}
