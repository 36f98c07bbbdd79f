//! `bindings import`: from a file of another system to handsets that sign in, over real sockets and by the real program.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use sekisho::admin::{ClientError, ImportProgress, Imported};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{AU_CANARY, CANARY, Carrier, Harness, contains};

/// Bindings in one transaction of an import.
const BATCH: usize = 500;

pub(crate) fn line(account: &str, carrier: Carrier, identifier: &str) -> String {
    let carrier = match carrier {
        Carrier::Docomo => "docomo",
        Carrier::Au => "au",
        Carrier::SoftBank => "softbank",
        Carrier::PrivateApn => "private-apn",
    };
    json!({ "account": account, "carrier": carrier, "identifier": identifier }).to_string() + "\n"
}

/// The lines of so many handsets that need no stretch, each of an account of its own.
pub(crate) fn many(count: usize) -> String {
    let one = |n: usize| line(&format!("account-{n}"), Carrier::PrivateApn, &identifier(n));
    (0..count).map(one).collect()
}

fn identifier(n: usize) -> String {
    Carrier::PrivateApn.identifier(&n.to_string())
}

pub(crate) fn chunks(text: String) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    // A size that cuts lines anywhere.
    let text = Bytes::from(text);
    let cuts: Vec<_> = (0..text.len()).step_by(7919).map(|at| text.slice(at..text.len().min(at + 7919))).collect();
    stream::iter(cuts.into_iter().map(Ok))
}

pub(crate) async fn import(harness: &Harness, lines: String) -> Imported {
    harness.admin().import(chunks(lines), |_| ()).await.unwrap()
}

fn refused(imported: &Imported) -> Vec<(u64, &str)> {
    imported.refused.iter().map(|refused| (refused.line, refused.reason.as_str())).collect()
}

async fn next(progress: &mut mpsc::UnboundedReceiver<ImportProgress>) -> ImportProgress {
    let next = tokio::time::timeout(Duration::from_secs(30), progress.recv()).await;
    next.expect("the gateway tells how far it is").unwrap()
}

async fn bound(harness: &Harness) -> usize {
    let listed: Value = harness.admin().call(Method::GET, "/v1/bindings").await.unwrap();
    listed["bindings"].as_array().unwrap().len()
}

/// `sekisho …` with `input` on stdin.
fn sekisho(arguments: &[&str], input: &str) -> Output {
    let mut child = program(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The program may end before it read everything.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output().unwrap()
    })
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    command.args(arguments).env_remove("SEKISHO_SOCKET").stdout(Stdio::piped());
    command
}

async fn run(arguments: &[&str], input: String) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let work = move || sekisho(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &input);
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn says_nothing(output: &Output) {
    for said in [&output.stdout, &output.stderr] {
        for canary in [CANARY, AU_CANARY] {
            assert!(!contains(said, canary.as_bytes()), "{}", String::from_utf8_lossy(said));
        }
    }
}

#[tokio::test]
async fn imported_handsets_sign_in_without_a_code() {
    let harness = Harness::start().await;
    let lines: String =
        (0..).zip(Carrier::ALL).map(|(n, c)| line(&format!("acc-{n}"), c, &c.identifier("7"))).collect();
    let imported = import(&harness, lines.clone()).await;
    assert_eq!((imported.imported, imported.unchanged, imported.refused_in_all()), (4, 0, 0));
    for carrier in Carrier::ALL {
        let mut handset = harness.handset(carrier, "7");
        assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND, "{carrier:?}");
        assert_eq!(handset.get("/").await.status, StatusCode::OK);
    }
    let mut stranger = harness.handset(Carrier::Docomo, "8");
    assert_eq!(stranger.click_sign_in("/").await.status, StatusCode::FORBIDDEN);

    let harness = harness.restart().await;
    let again = import(&harness, lines).await;
    assert_eq!((again.imported, again.unchanged, again.refused_in_all()), (0, 4, 0));
    assert_eq!(bound(&harness).await, 4);
    let metrics = harness_metrics(&harness).await;
    assert!(metrics.lines().any(|line| line == "sekisho_bindings_imported_total 0"), "{metrics}");
    harness.finish().await;
}

async fn harness_metrics(harness: &Harness) -> String {
    let request = http::Request::get("/metrics").header("Host", "ops").body(http_body_util::Full::default()).unwrap();
    crate::harness::exchange([127, 0, 0, 1].into(), harness.ops(), request).await.text()
}

#[tokio::test]
async fn each_bad_line_is_named_by_number_and_reason_and_the_others_are_taken() {
    let harness = Harness::with(|config| config.replace("[binding]", "[binding]\nper_account = 2")).await;
    harness.code("asleep").await;
    let _: Value = harness.admin().call(Method::POST, "/v1/accounts/asleep/suspend").await.unwrap();
    let docomo = |account: &str, tail: &str| line(account, Carrier::Docomo, &Carrier::Docomo.identifier(tail));
    let long = format!("{{\"account\":\"{}", "x".repeat(1 << 20));
    let lines = [
        docomo("alice", "a"),
        "\n".to_owned(),
        format!("alice,docomo,{CANARY}b\n"),
        docomo("090-1234-5678", "c"),
        docomo("alice", "d").replace("docomo", "vodafone"),
        docomo("alice", "toolong"),
        format!("{long}{CANARY}\n"),
        line("alice", Carrier::PrivateApn, &format!("{CANARY} {AU_CANARY}-0000000")),
        docomo("bob", "a"),
        docomo("asleep", "e"),
        docomo("alice", "f"),
        docomo("alice", "g"),
        docomo("alice", "f"),
        docomo("carol", "h").trim_end().to_owned(),
    ]
    .concat();
    let expected = [
        (3, "malformed-line"),
        (4, "account-invalid"),
        (5, "carrier-unknown"),
        (6, "malformed-identifier"),
        (7, "line-too-long"),
        (8, "malformed-identifier"),
        (9, "bound-elsewhere"),
        (10, "account-suspended"),
        (12, "binding-limit"),
    ];
    let first = import(&harness, lines.clone()).await;
    assert_eq!((first.imported, first.unchanged, refused(&first)), (3, 1, expected.to_vec()));

    let socket = harness.folder.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    let output = run(&["bindings", "import", "--json", "--socket", socket], lines.clone()).await;
    assert_eq!(output.status.code(), Some(1));
    says_nothing(&output);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "sekisho: 9 lines were refused; the others are imported\n", "a bar goes to a terminal only");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let listed: Vec<Value> = expected.map(|(line, reason)| json!({ "line": line, "reason": reason })).into();
    assert_eq!(document, json!({ "imported": 0, "unchanged": 4, "refused": listed, "refused_beyond": 0 }));

    let output = run(&["bindings", "import", "--socket", socket], lines).await;
    assert_eq!(output.status.code(), Some(1));
    says_nothing(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("imported   0\nunchanged  4\nrefused    9\nline 3     malformed-line\n"), "{text}");
    harness.finish().await;
}

#[tokio::test]
async fn the_first_batch_is_durable_before_the_last_line_was_sent() {
    let harness = Harness::start().await;
    let (send, mut lines) = mpsc::channel::<io::Result<Bytes>>(1);
    let (heard, mut progress) = mpsc::unbounded_channel::<ImportProgress>();
    let admin = harness.admin();
    let lines = stream::poll_fn(move |context| lines.poll_recv(context));
    let running = tokio::spawn(async move { admin.import(lines, |p| heard.send(p).unwrap_or_default()).await });
    let text = many(BATCH + 2);
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    send.send(Ok(text[..last].to_owned().into())).await.unwrap();
    while next(&mut progress).await.imported < BATCH as u64 {}
    assert!(bound(&harness).await >= BATCH);
    // A batch that does not fill is written too.
    while next(&mut progress).await.imported <= BATCH as u64 {}
    assert_eq!(bound(&harness).await, BATCH + 1);
    send.send(Ok(text[last..].to_owned().into())).await.unwrap();
    drop(send);
    assert_eq!(running.await.unwrap().unwrap().imported, BATCH as u64 + 2);
    harness.finish().await;
}

#[tokio::test]
async fn what_a_caller_who_hangs_up_had_acknowledged_stays_and_half_a_line_is_not_taken() {
    let harness = Harness::start().await;
    let whole = many(BATCH + 1);
    // The last line breaks off.
    let half = whole[..whole.trim_end().len() - 5].to_owned();
    let broken: Vec<io::Result<Bytes>> = vec![Ok(half.into()), Err(io::ErrorKind::BrokenPipe.into())];
    let counted = Arc::new(Mutex::new(ImportProgress::default()));
    let progress = Arc::clone(&counted);
    let ended = harness.admin().import(stream::iter(broken), move |p| *progress.lock().unwrap() = p).await;
    assert!(matches!(ended, Err(ClientError::BrokenOff { .. })), "{ended:?}");
    let acknowledged = counted.lock().unwrap().imported;
    let there = bound(&harness).await;
    assert!(there <= BATCH && there as u64 >= acknowledged, "{there} are there, {acknowledged} acknowledged");
    let again = import(&harness, whole).await;
    assert_eq!((again.imported + again.unchanged, again.refused_in_all()), (BATCH as u64 + 1, 0));
    assert_eq!(bound(&harness).await, BATCH + 1);
    harness.finish().await;
}

#[tokio::test]
async fn refused_lines_beyond_those_listed_are_counted() {
    let harness = Harness::start().await;
    let imported = import(&harness, "x\n".repeat(10_007) + &many(1)).await;
    assert_eq!((imported.imported, imported.refused.len(), imported.refused_beyond), (1, 10_000, 7));
    assert!(imported.refused.iter().zip(1..).all(|(refused, line)| refused.line == line));
    harness.finish().await;
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_and_keeps_what_it_took() {
    let harness = Harness::start().await;
    let (send, mut lines) = mpsc::channel::<io::Result<Bytes>>(1);
    let (heard, mut progress) = mpsc::unbounded_channel::<ImportProgress>();
    let admin = harness.admin();
    let lines = stream::poll_fn(move |context| lines.poll_recv(context));
    let running = tokio::spawn(async move { admin.import(lines, |p| heard.send(p).unwrap_or_default()).await });
    send.send(Ok(many(BATCH).into())).await.unwrap();
    while next(&mut progress).await.imported < BATCH as u64 {}
    let harness = harness.restart().await;
    let ended = running.await.unwrap();
    assert!(matches!(&ended, Err(ClientError::Refused(why)) if why.reason == "gateway-stopping"), "{ended:?}");
    assert_eq!(bound(&harness).await, BATCH);
    harness.finish().await;
}

#[tokio::test]
async fn the_program_imports_a_long_file() {
    const LINES: usize = 20_000;
    let harness = Harness::start().await;
    let socket = harness.folder.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    for expected in [(LINES, 0), (0, LINES)] {
        let output = run(&["bindings", "import", "--json", "--socket", socket], many(LINES)).await;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        says_nothing(&output);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (imported, unchanged) = expected;
        let expected = json!({ "imported": imported, "unchanged": unchanged, "refused": [], "refused_beyond": 0 });
        assert_eq!(document, expected);
    }
    assert_eq!(bound(&harness).await, LINES);
    harness.finish().await;
}

#[tokio::test]
async fn a_killed_gateway_loses_nothing_that_it_acknowledged() {
    const LINES: usize = 5_000;
    let harness = Harness::start().await;
    let (folder, running) = (harness.folder, harness.running);
    running.stop(Duration::from_secs(5)).await;
    let config = folder.path().join("gateway.toml");
    let socket = folder.path().join("admin.sock");
    let (gateway, _) = serve(&config);
    let (send, mut lines) = mpsc::channel::<io::Result<Bytes>>(1);
    let lines = stream::poll_fn(move |context| lines.poll_recv(context));
    let (heard, mut progress) = mpsc::unbounded_channel::<ImportProgress>();
    let admin = sekisho::admin::AdminClient::new(&socket);
    let running = tokio::spawn(async move { admin.import(lines, |p| heard.send(p).unwrap_or_default()).await });
    send.send(Ok(many(LINES).into())).await.unwrap();
    let mut acknowledged = 0;
    while acknowledged < 2 * BATCH as u64 {
        acknowledged = next(&mut progress).await.imported;
    }
    drop(gateway);
    let ended = running.await.unwrap();
    assert!(matches!(ended, Err(ClientError::BrokenOff { .. })), "{ended:?}");
    while let Some(more) = progress.recv().await {
        acknowledged = more.imported;
    }

    let (gateway, log) = serve(&config);
    let output = run(&["bindings", "import", "--json", "--socket", socket.to_str().unwrap()], many(LINES)).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let document: BTreeMap<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    let (imported, unchanged) = (document["imported"].as_u64().unwrap(), document["unchanged"].as_u64().unwrap());
    assert_eq!(imported + unchanged, LINES as u64);
    assert!(unchanged >= acknowledged, "{unchanged} were there, {acknowledged} acknowledged");
    let mut said = log.iter().inspect(|line| assert!(!line.contains(CANARY), "{line}"));
    let event = said.find(|line| line.contains("bindings-imported")).unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&event["stream"], event["count"].as_u64()), (&json!("security"), Some(imported)));
    assert_eq!((event["unchanged"].as_u64(), event["refused"].as_u64()), (Some(unchanged), Some(0)));
    assert!(event["by"].as_str().unwrap().starts_with("uid:"));
    drop(gateway);

    let output = run(&["bindings", "import", "--json", "--socket", socket.to_str().unwrap()], many(1)).await;
    assert_eq!(output.status.code(), Some(3), "nobody is there");
}

/// The real program, once it listens, and what it logs from then on.
fn serve(config: &Path) -> (Killed, std::sync::mpsc::Receiver<String>) {
    let mut child = program(&["serve", "--config", config.to_str().unwrap()]).spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("\"listening\"")), "it ended");
    let (heard, lines) = std::sync::mpsc::channel();
    // Read on even if nobody listens: a full pipe would stop it.
    std::thread::spawn(move || log.for_each(|line| heard.send(line).unwrap_or_default()));
    (Killed(child), lines)
}

/// Ends with `kill -9`, also where a test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
