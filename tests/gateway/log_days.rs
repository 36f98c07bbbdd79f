//! The access log by day, in clear and sealed: written, read, past reading.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use sekisho::admin::{LogEvent, LogFinding, LogsRead};
use serde_json::{Value, json};

use crate::harness::{CANARY, Carrier, Harness, START, contains};
use crate::wire::soon;

const DAY: Duration = Duration::from_hours(24);

fn sealed(config: &str, retention: &str) -> String {
    let config = config.replace("file = \"access.log\"", "file = \"access.log\", sealed = true");
    format!("{config}[privacy]\naccess_log_retention = \"{retention}\"\n")
}

fn log(harness: &Harness, name: &str) -> PathBuf {
    harness.folder.path().join(name)
}

/// What the gateway makes of a sealed log.
async fn read(harness: &Harness, days: &str, file: &[u8]) -> (String, Vec<LogFinding>, LogsRead) {
    let chunks: Vec<_> = file.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let (mut text, mut findings) = (String::new(), Vec::new());
    let take = |event| {
        match event {
            LogEvent::Lines { lines } => text.push_str(&lines),
            LogEvent::Finding { finding } => findings.push(finding),
            LogEvent::Done(_) | LogEvent::Refused(_) => {}
        }
        true
    };
    let done = harness.admin().read_logs(days, stream::iter(chunks), take).await.unwrap();
    (text, findings, done)
}

fn found(findings: &[LogFinding]) -> Vec<(u64, &str)> {
    findings.iter().map(|finding| (finding.line, finding.found.as_str())).collect()
}

/// Waits until the file is longer than that, and returns it.
async fn grown(file: &Path, than: usize) -> Vec<u8> {
    let longer = async {
        loop {
            let bytes = std::fs::read(file).unwrap_or_default();
            if bytes.len() > than && bytes.ends_with(b"\n") {
                return bytes;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(longer).await
}

async fn visit(harness: &Harness, path: &str) {
    assert_eq!(harness.handset(Carrier::Au, "a").get(path).await.status, StatusCode::OK);
}

async fn run(harness: &Harness, dry_run: bool) -> Value {
    let asked = json!({ "dry_run": dry_run });
    harness.admin().call_with(Method::POST, "/v1/retention/run", Some(&asked)).await.unwrap()
}

async fn standing(harness: &Harness) -> String {
    let posture: Value = harness.admin().call(Method::GET, "/v1/posture").await.unwrap();
    let promises = posture["promises"].as_array().unwrap();
    promises.iter().find(|promise| promise["name"] == "access-log").unwrap()["standing"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_sealed_day_is_past_reading_after_the_retention_in_every_copy() {
    let harness = Harness::with(|config| sealed(&config, "2d")).await;
    visit(&harness, "/public/day-one").await;
    let file = log(&harness, "access.log");
    let copy = grown(&file, 0).await;
    for clear in ["day-one", "GET", "/public", "2026-11-24T"] {
        assert!(!contains(&copy, clear.as_bytes()), "{clear} stands in the sealed log");
    }
    let (text, findings, done) = read(&harness, "", &copy).await;
    assert!(text.contains("\"path\":\"/public/day-one\"") && text.ends_with('\n'), "{text}");
    assert_eq!((found(&findings), done.read, done.damaged), (vec![(2, "open")], 1, 0), "it is being written");
    let (text, _, done) = read(&harness, "from=2026-11-25&to=2026-11-26", &copy).await;
    assert_eq!((text.as_str(), done), ("", LogsRead::default()), "another day");

    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    visit(&harness, "/public/day-two").await;
    let handset = harness.signed_in(Carrier::Docomo, "a", "alice").await;
    grown(&file, 0).await;
    let aside = std::fs::read(log(&harness, "access.log.2026-11-24")).unwrap();
    let (text, findings, _) = read(&harness, "", &aside).await;
    assert!(text.contains("day-one") && !text.contains("day-two") && findings.is_empty(), "{findings:?}");
    let days: [i32; 2] = [0, 1].map(|more| 20_781 + more);
    assert!(days.iter().all(|day| key_days(&harness).contains(day)));

    // The first day is kept for two days more.
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    assert!(read(&harness, "", &copy).await.0.contains("day-one"));
    let (text, findings, _) = read(&harness, "", &std::fs::read(log(&harness, "access.log.2026-11-25")).unwrap()).await;
    assert!(text.contains("/_sekisho/enrol") && findings.is_empty(), "{text}");
    let session = handset.cookies.iter().find(|(name, _)| name.ends_with("sekisho")).unwrap().1;
    assert!(!text.contains(session) && !text.contains(CANARY), "a secret is in the log");
    drop(handset);
    harness.clock.advance(DAY);
    let due = run(&harness, true).await;
    assert_eq!((&due["erased"]["log_keys"], &due["erased"]["log_files"]), (&1.into(), &1.into()), "{due}");
    harness.running.upkeep().await.unwrap();
    assert!(!log(&harness, "access.log.2026-11-24").exists() && log(&harness, "access.log.2026-11-25").exists());
    for bytes in [&copy, &aside] {
        let (text, findings, done) = read(&harness, "", bytes).await;
        assert_eq!((text.as_str(), found(&findings)), ("", vec![(1, "destroyed")]));
        assert_eq!((findings[0].day.as_deref(), done.days_without_key), (Some("2026-11-24"), 1));
    }
    let trail: Value = harness.admin().call(Method::GET, "/v1/audit?after=0&limit=1000").await.unwrap();
    let entries = trail["entries"].as_array().unwrap();
    let reads = entries.iter().filter(|entry| entry["action"] == "log-read");
    let reads: Vec<_> = reads.map(|entry| entry["object"].as_str().unwrap()).collect();
    // One each time that lines were opened.
    assert_eq!(reads, ["2026-11-24", "2026-11-24", "2026-11-24", "2026-11-25"]);
    assert_eq!(standing(&harness).await, "kept");

    // A clock that goes back does not bring the day back: its lines are lost rather than sealed under a new key.
    harness.clock.set(START);
    harness.running.upkeep().await.unwrap();
    visit(&harness, "/public/set-back").await;
    let lost =
        async { while !harness.metrics().await.contains("sekisho_log_lines_lost_total{stream=\"access\"} 1") {} };
    soon(lost).await;
    assert!(!key_days(&harness).contains(&20_781));
    assert_eq!(standing(&harness).await, "broken");
    harness.finish().await;
}

#[tokio::test]
async fn a_round_goes_on_where_the_journal_is_not_emptied_behind_the_keys_of_days() {
    let harness = Harness::with(|config| sealed(&config, "2d")).await;
    visit(&harness, "/public/day-one").await;
    grown(&log(&harness, "access.log"), 0).await;
    for _ in 0..2 {
        harness.clock.advance(DAY);
        harness.running.upkeep().await.unwrap();
    }
    // Somebody reads the file meanwhile.
    let reader = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let wrapped = reader.query_row("SELECT wrapped FROM log_keys WHERE day = 20781", [], |row| row.get(0));
    let wrapped: Vec<u8> = wrapped.unwrap();
    let holds = || {
        let files = ["store.db", "store.db-wal"].map(|name| std::fs::read(harness.folder.path().join(name)).unwrap());
        files.iter().any(|file| contains(file, &wrapped))
    };
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    assert!(!log(&harness, "access.log.2026-11-24").exists(), "what follows is done");
    let report: Value = harness.admin().call(Method::GET, "/v1/retention").await.unwrap();
    let detail = report["last_run"]["detail"].as_str().unwrap();
    assert!(detail.contains("log files 1, security log files 0, log keys 1"), "{detail}");
    assert!(holds());
    drop(reader);
    harness.clock.advance(Duration::from_mins(10));
    harness.running.upkeep().await.unwrap();
    assert!(!holds(), "the journal is emptied in time");
    harness.finish().await;
}

/// The days that the store has a key for.
fn key_days(harness: &Harness) -> Vec<i32> {
    let store = rusqlite::Connection::open(harness.folder.path().join("store.db")).unwrap();
    let mut select = store.prepare("SELECT day FROM log_keys ORDER BY day").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn what_was_done_to_a_sealed_log_is_named_and_a_kill_is_told_apart() {
    let harness = Harness::with(|config| sealed(&config, "90d")).await;
    let file = log(&harness, "access.log");
    let mut length = 0;
    for number in 1..=3 {
        visit(&harness, &format!("/public/{number}")).await;
        length = grown(&file, length).await.len();
    }
    // As a run that is killed leaves it: the record that ends the segment is not there, of another a part is.
    let harness = harness
        .restart_after(async |_| {
            let written = std::fs::read(&file).unwrap();
            let last = written[..written.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
            std::fs::write(&file, &written[..last + 70]).unwrap();
        })
        .await;
    visit(&harness, "/public/4").await;
    let written = grown(&file, length + 100).await;
    let (text, findings, done) = read(&harness, "", &written).await;
    assert_eq!((found(&findings), done.damaged), (vec![(5, "torn"), (7, "open")], 0));
    assert!((1..=4).all(|number| text.contains(&format!("/public/{number}\""))), "{text}");

    let lines: Vec<&[u8]> = written.split_inclusive(|byte| *byte == b'\n').collect();
    let mut changed = lines.clone();
    let mut other = lines[2].to_vec();
    let at = other.len() - 9;
    other[at] = if other[at] == b'A' { b'B' } else { b'A' };
    changed[2] = &other;
    let (text, findings, done) = read(&harness, "", &changed.concat()).await;
    assert_eq!((found(&findings)[0], done.damaged), ((3, "changed"), 1));
    assert!(!text.contains("/public/2\"") && text.contains("/public/3\""), "the others are read: {text}");
    let removed = [&lines[..1], &lines[2..]].concat().concat();
    assert_eq!(found(&read(&harness, "", &removed).await.1)[0], (2, "missing"));
    let doubled = [&lines[..2], &lines[1..]].concat().concat();
    let (text, findings, _) = read(&harness, "", &doubled).await;
    assert_eq!((found(&findings)[0], text.matches("/public/1\"").count()), ((3, "repeated"), 1));
    let nonsense = read(&harness, "", b"{\"path\":\"/public/forged\"}\n").await;
    assert_eq!((nonsense.0.as_str(), found(&nonsense.1)), ("", vec![(1, "changed")]));
    harness.finish().await;
}

#[tokio::test]
async fn sealing_begins_and_ends_with_a_reload_and_mixes_nothing() {
    let mut harness = Harness::start().await;
    let (file, aside) = (log(&harness, "access.log"), log(&harness, "access.log.2026-11-24"));
    visit(&harness, "/public/clear").await;
    grown(&file, 0).await;
    harness.reload(|config| sealed(&config, "90d")).await.unwrap();
    visit(&harness, "/public/sealed").await;
    let clear = grown(&aside, 0).await;
    assert!(contains(&clear, b"/public/clear") && !contains(&clear, b"/public/sealed"));
    let sealed = grown(&file, 0).await;
    assert!(!contains(&sealed, b"/public"));
    assert!(read(&harness, "", &sealed).await.0.contains("/public/sealed\""));
    let to_stdout = |config: String| config.replace("file = \"access.log\"", "to = \"stdout\"");
    let refused = harness.reload(to_stdout).await.unwrap_err();
    assert!(refused.iter().any(|finding| finding.contains("log.access.sealed: needs a file")), "{refused:?}");
    harness.finish().await;
}

#[tokio::test]
async fn days_of_a_log_in_clear_are_put_aside_and_erased() {
    let harness = Harness::with(|config| format!("{config}[privacy]\naccess_log_retention = \"1d\"\n")).await;
    visit(&harness, "/public/day-one").await;
    grown(&log(&harness, "access.log"), 0).await;
    harness.clock.advance(DAY);
    harness.running.upkeep().await.unwrap();
    let aside = log(&harness, "access.log.2026-11-24");
    assert!(contains(&std::fs::read(&aside).unwrap(), b"/public/day-one"));
    assert_eq!(std::fs::read(log(&harness, "access.log")).unwrap(), b"");
    let harness = harness.restart().await;
    harness.clock.advance(DAY);
    run(&harness, false).await;
    assert!(!aside.exists());
    let report: Value = harness.admin().call(Method::GET, "/v1/retention").await.unwrap();
    let kinds = report["kinds"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["kind"] == "access-log").unwrap();
    assert_eq!((&kind["retention"], &kind["due"]), (&"a day, then the day's file is erased".into(), &0.into()));
    harness.finish().await;
}
