//! Drills of the real program: what they print, and that a process which dies amid one leaves nothing of it.

use std::path::Path;
use std::process::Stdio;

use http::StatusCode;
use serde_json::Value;

use crate::harness::{CANARY, Carrier, files};
use crate::process::{Folder, ended};
use crate::recorder::RecordingUpstream;

/// Kills that may come too late, because the drill was over.
const MOST_TRIES: u32 = 20;

fn contains(file: &Path, wanted: &[u8]) -> bool {
    std::fs::read(file).unwrap().windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn a_drill_prints_minutes_and_counts_and_a_kill_amid_one_leaves_nothing() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    let mut gateway = folder.serve().await;
    let code = folder.code("alice").await;
    let mut alice = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);

    let printed = folder.run("drill compromise").await;
    assert_eq!(printed.code, 0, "{printed:?}");
    for line in ["nothing was changed", "a leak would take", "need a new code          1", "sekisho keys destroy k1"] {
        assert!(printed.stdout.contains(line), "{line}: {}", printed.stdout);
    }
    let document = folder.document("drill compromise k1").await;
    assert_eq!(document["drill"]["report"]["bindings"], 1, "{document}");
    let unknown = ended(folder.command("drill compromise k7 --json")).await;
    assert_eq!((unknown.code, &unknown.json()["error"]["reason"]), (1, &"not-found".into()), "{unknown:?}");
    assert_eq!(alice.get("/").await.status, StatusCode::OK, "its session lives");
    assert!(
        !gateway.stdout().contains("rotation-draining"),
        "what the copy does is nobody's news: {}",
        gateway.stdout()
    );

    let copy = folder.path("data/store.db.drill");
    for tries in 1.. {
        let mut drill =
            folder.command("drill compromise --json").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !copy.exists() && drill.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        gateway.kill().await;
        let broken_off = drill.wait().await.unwrap().code() != Some(0);
        if broken_off && copy.exists() {
            break;
        }
        assert!(tries < MOST_TRIES, "each kill came too late");
        gateway = folder.serve().await;
    }
    let gateway = folder.serve().await;
    assert!(!copy.exists(), "the start erases what a drill left");
    let trail: Value = folder.document("audit tail -n 100").await;
    let drills: Vec<_> =
        trail["entries"].as_array().unwrap().iter().filter(|e| e["action"] == "compromise-drill").collect();
    assert_eq!(drills.last().unwrap()["outcome"], "begun", "that it has no end tells that it was broken off");
    alice.gateway = gateway.address("handset");
    assert_eq!(alice.get("/").await.status, StatusCode::OK);
    assert_eq!(folder.document("drill compromise").await["drill"]["alone"], 1, "another goes as ever");
    let keys = folder.document("keys list").await;
    let binding = keys["keys"].as_array().unwrap().iter().filter(|key| key["purpose"] == "binding").count();
    assert_eq!(binding, 1, "no key of a drill is here: {keys}");
    gateway.stop().await;
    assert_eq!(folder.run("check").await.code, 0);
    for file in files(folder.root()) {
        assert!(!contains(&file, CANARY.as_bytes()), "the identifier is in {}", file.display());
        assert!(!file.display().to_string().contains(".drill"), "{} is left", file.display());
    }
}
