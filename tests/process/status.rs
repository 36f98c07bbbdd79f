//! How the gateway does, asked of the real program, and shown on a real terminal.

use std::process::Stdio;

use http::StatusCode;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::harness::Carrier;
use crate::process::{Captured, Folder, ended, sekisho};
use crate::recorder::RecordingUpstream;
use crate::wire::{TestTls, Wire, soon};

#[tokio::test]
async fn a_status_is_of_this_gateway_and_of_nobody() {
    let upstream = RecordingUpstream::start().await;
    let (folder, tls) = (Folder::new(upstream.address), TestTls::new());
    folder.append(&tls.listening(""));
    let gateway = folder.serve().await;
    let mut alice = gateway.handset(Carrier::Au, "a");
    assert_eq!(alice.enrol("/", &folder.code("alice").await).await.status, StatusCode::FOUND);
    for _ in 0..5 {
        assert_eq!(alice.get("/").await.status, StatusCode::OK);
    }
    let _open = Wire::connect([127, 0, 2, 7].into(), gateway.address("handset")).await;
    folder.document("reload").await;
    let status = folder.document("status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["ready"] == true && status["readiness"]["store"] == true, "{status}");
    assert_eq!(status["configuration"]["reloads_done"], 1);
    assert!(status["configuration"]["in_force_since"].as_str() > status["started_at"].as_str());
    assert_eq!(status["sessions"], 1);
    assert!(status["requests"].as_u64() >= Some(8), "{status}");
    let lately = &status["last_minute"];
    assert!(
        lately["requests"].as_u64() >= Some(8) && lately["p99_ms"].as_f64() >= lately["p50_ms"].as_f64(),
        "{status}"
    );
    assert!(status["store"]["p99_ms"].as_f64() > Some(0.0), "{status}");
    let listeners = status["listeners"].as_array().unwrap();
    let serves: Vec<_> = listeners.iter().map(|listener| listener["serves"].as_str().unwrap()).collect();
    assert_eq!(serves, ["handset", "ops", "handset"]);
    assert_eq!(listeners[0]["address"], gateway.address("handset").to_string());
    assert!(listeners[0]["connections"].as_u64() >= Some(1), "{status}");
    assert!(listeners[0]["certificate_expires_at"].is_null() && listeners[2]["certificate_expires_at"].is_string());
    let active = status["keys"].as_array().unwrap().iter().filter(|key| key["state"] == "active");
    assert_eq!(active.count(), 4);
    let behind = &status["upstreams"][0]["servers"][0];
    assert_eq!(behind["address"], format!("http://{}", upstream.address));
    assert!(behind["probed"] == false && behind["up"] == true);
    assert!(!status.to_string().contains("alice"));
    let metrics = gateway.ops("/metrics").await.text();
    let expiry = format!(
        "sekisho_certificate_expiry_timestamp_seconds{{serves=\"handset\",address=\"{}\"}} ",
        gateway.tls_address()
    );
    assert!(metrics.contains(&expiry), "{metrics}");

    let table = folder.run("status").await;
    assert!(
        table.code == 0 && table.stdout.contains("ready") && table.stdout.contains("certificate until"),
        "{table:?}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_status_comes_also_where_the_store_does_not_answer() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    // What is moved away is refused until it is back.
    std::fs::rename(folder.path("data/store.db"), folder.path("data/away.db")).unwrap();
    let status = folder.document("status").await;
    assert!(status["ready"] == false && status["readiness"]["store"] == false, "{status}");
    assert!(status["version"].is_string() && status["listeners"].as_array().unwrap().len() == 2);
    std::fs::rename(folder.path("data/away.db"), folder.path("data/store.db")).unwrap();
    gateway.stop().await;
}

/// `sekisho top` on a terminal of its own, which `script` (util-linux) makes and copies to its stdout.
struct OnTerminal {
    child: tokio::process::Child,
    screen: Captured,
}

/// What a terminal is told to show another page, and to show the first again.
const TAKEN: &str = "\u{1b}[?1049h";
const GIVEN_BACK: &str = "\u{1b}[?1049l";

impl OnTerminal {
    fn start(folder: &Folder) -> Self {
        let top = format!(
            "stty rows 24 cols 100; echo $$ > {0}; exec {1} top --every 1 --socket {2}",
            folder.path("top.pid").display(),
            env!("CARGO_BIN_EXE_sekisho"),
            folder.path("run/admin.sock").display()
        );
        let mut command = Command::new("script");
        command.args(["-qefc", &format!("sh -c '{top}'"), "/dev/null"]).env("TERM", "xterm").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("script (bsdutils) is there");
        let screen = Captured::of(child.stdout.take().unwrap());
        Self { child, screen }
    }

    async fn shows(&self, text: &str) {
        let seen = self.screen.until(|all| all.contains(text)).await;
        assert!(seen.is_ok(), "it ended without {text}: {}", self.screen.text());
    }

    async fn end(mut self) -> (Option<i32>, String) {
        let status = soon(self.child.wait()).await.unwrap();
        let _ = self.screen.until(|_| false).await;
        (status.code(), self.screen.text())
    }
}

#[tokio::test]
async fn top_draws_and_gives_the_terminal_back_on_every_way_out() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    for key in ["q", "\u{3}", "\u{1b}", "signal"] {
        let mut top = OnTerminal::start(&folder);
        top.shows("q quits").await;
        // Another look has been taken.
        top.shows("/s now").await;
        if key == "signal" {
            let id = std::fs::read_to_string(folder.path("top.pid")).unwrap();
            rustix::process::kill_process(Pid::from_raw(id.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
        } else {
            top.child.stdin.as_mut().unwrap().write_all(key.as_bytes()).await.unwrap();
        }
        let (code, screen) = top.end().await;
        assert_eq!(code, Some(0), "{key:?}: {screen}");
        let (taken, back) = (screen.find(TAKEN).unwrap(), screen.rfind(GIVEN_BACK).unwrap());
        assert!(taken < back && screen[back..].len() < 64, "{key:?}: nothing is drawn behind: {screen:?}");
        assert!(screen.contains("\u{1b}[?25h"), "the cursor is there again: {screen:?}");
    }
    // The gateway goes, and is there again: that is shown, and asked again.
    let mut top = OnTerminal::start(&folder);
    top.shows("ready").await;
    gateway.stop().await;
    top.shows("no gateway answers").await;
    let gateway = folder.serve().await;
    let before = top.screen.text().len();
    top.screen.until(|all| all[before.min(all.len())..].contains("handset http, ")).await.unwrap();
    top.child.stdin.as_mut().unwrap().write_all(b"q").await.unwrap();
    assert_eq!(top.end().await.0, Some(0));
    gateway.stop().await;
}

#[tokio::test]
async fn top_needs_a_terminal_and_a_gateway() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    let refused = folder.run("top").await;
    assert!(refused.code == 2 && refused.stderr.contains("terminal") && refused.stdout.is_empty(), "{refused:?}");
    assert!(folder.document("top").await["ready"] == true, "for programs it is one document");
    gateway.stop().await;
    let top = OnTerminal::start(&folder);
    let (code, screen) = top.end().await;
    assert!(code == Some(3) && screen.contains("no gateway answers") && !screen.contains(TAKEN), "{screen}");
    let socket = folder.path("run/admin.sock");
    let nobody = ended(sekisho(["status", "--socket", socket.to_str().unwrap()])).await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
}
