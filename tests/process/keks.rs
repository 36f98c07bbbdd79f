//! Another KEK: the operator's way of `docs/keys.md`, and a kill at any moment of it.

use std::time::Duration;

use http::StatusCode;
use rusqlite::Connection;
use sekisho::entropy::{SystemEntropy, random};
use tokio::time::timeout;

use crate::harness::Carrier;
use crate::process::{Folder, KEK, ended};
use crate::recorder::RecordingUpstream;

const NEXT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn folder(upstream: &RecordingUpstream) -> Folder {
    let folder = Folder::new(upstream.address);
    folder.append("[limits]\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\n");
    folder
}

/// Names the next KEK beside the present one.
fn name_next(folder: &Folder) {
    folder.write_secret("kek.next", NEXT);
    folder.edit("kek = { file = \"kek\" }", "kek = { file = \"kek\" }\nkek_next = { file = \"kek.next\" }");
}

#[tokio::test]
async fn the_way_to_another_kek_locks_nobody_out() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    folder.append("[log]\naccess = { file = \"access.log\", sealed = true }\n");
    let gateway = folder.serve().await;
    let code = folder.code("alice").await;
    let mut alice = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(alice.enrol("/before-the-rewrap", &code).await.status, StatusCode::FOUND);
    assert!(folder.run("keys rewrap").await.stderr.contains("names no keys.kek_next"));

    // Nothing is restarted: the configuration is read again. The file of the present KEK may be lost by then.
    name_next(&folder);
    std::fs::remove_file(folder.path("kek")).unwrap();
    folder.write_secret("kek.next", "not a kek");
    let unusable = folder.run("keys rewrap").await;
    assert_eq!(unusable.code, 1);
    assert!(unusable.stderr.contains("keys.kek_next cannot be used") && !unusable.stderr.contains("not a kek"));
    folder.write_secret("kek.next", KEK);
    assert!(folder.run("keys rewrap").await.stderr.contains("wrapped under keys.kek_next already"), "the same KEK");
    folder.write_secret("kek.next", NEXT);
    let code = folder.code("bob").await;
    assert_eq!(folder.document("keys rewrap").await["rewrapped"], 4);
    let mut bob = gateway.handset(Carrier::Au, "b");
    assert_eq!(bob.enrol("/", &code).await.status, StatusCode::FOUND, "the ring is known at once");
    assert_eq!(folder.run("keys rewrap").await.code, 1, "done already");

    // The running gateway goes on, and wraps what it makes under the new one.
    assert_eq!(alice.get("/").await.status, StatusCode::OK);
    folder.document("keys generate --purpose session").await;
    gateway.stop().await;
    folder.write_secret("kek", KEK);
    let check = folder.run("check").await;
    assert_eq!(check.code, 0);
    assert!(check.stderr.contains("keys.kek_next: warning: the store's keys are wrapped under keys.kek_next"));
    let gateway = folder.serve().await;
    gateway.logged("wrapped under keys.kek_next").await;
    let mut again = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(again.click_sign_in("/").await.status, StatusCode::FOUND, "bound as before");
    gateway.stop().await;

    folder.edit("\nkek_next = { file = \"kek.next\" }", "");
    let locked = folder.run("check").await;
    assert_eq!((locked.code, locked.finding_keys()), (2, vec!["keys.kek"]), "the old one alone opens nothing");
    folder.edit("kek = { file = \"kek\" }", "kek = { file = \"kek.next\" }");
    let sound = folder.run("check").await;
    assert_eq!((sound.code, sound.finding_keys()), (0, vec![]));
    let gateway = folder.serve().await;
    let mut again = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(again.click_sign_in("/").await.status, StatusCode::FOUND, "bound as before");
    // The keys of log days went the same way.
    let read = folder.run("logs read").await;
    assert_eq!(read.code, 0, "{}", read.stderr);
    assert!(read.stdout.contains("\"path\":\"/before-the-rewrap\""), "{}", read.stdout);

    // And back, while somebody reads the file: done is done, and what is left of it goes with the next upkeep.
    folder.edit("kek = { file = \"kek.next\" }", "kek = { file = \"kek.next\" }\nkek_next = { file = \"kek\" }");
    let reader = Connection::open(folder.path("data/store.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM keys;").unwrap();
    assert_eq!(folder.document("keys rewrap").await["rewrapped"], 5);
    gateway.logged("what they were wrapped as may stay in the journal").await;
    drop(reader);
    assert_eq!(again.get("/").await.status, StatusCode::OK);
    gateway.stop().await;
}

#[tokio::test]
async fn a_kill_at_any_moment_of_a_rewrap_leaves_all_keys_under_one_kek() {
    let rounds: u64 = std::env::var("SEKISHO_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    name_next(&folder);
    let gateway = folder.serve().await;
    let code = folder.code("alice").await;
    let mut alice = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    gateway.kill().await;
    let (mut now, mut next) = (KEK, NEXT);
    for round in 0..rounds {
        folder.write_secret("kek", now);
        folder.write_secret("kek.next", next);
        let mut gateway = folder.serve().await;
        let rewrap = tokio::spawn(ended(folder.command("keys rewrap")));
        // The first are as early as can be; a whole command takes some tens of milliseconds.
        let moment =
            Duration::from_micros(u64::from(u16::from_be_bytes(random(&SystemEntropy::default()))) * round / 4);
        assert!(timeout(moment, gateway.end()).await.is_err(), "it ended by itself: {}", gateway.stdout());
        gateway.kill().await;
        let acknowledged = rewrap.await.unwrap().code == 0;

        let under = async |kek| {
            folder.write_secret("kek", kek);
            folder.write_secret("kek.next", kek);
            folder.run("check").await.code == 0
        };
        let (old, new) = (under(now).await, under(next).await);
        assert!(old != new, "round {round}: exactly one KEK opens the store: {old} {new}");
        assert!(new || !acknowledged, "round {round}: what was acknowledged was done");
        folder.write_secret("kek", now);
        folder.write_secret("kek.next", next);
        let gateway = folder.serve().await;
        let mut again = gateway.handset(Carrier::Docomo, "a");
        assert_eq!(again.click_sign_in("/").await.status, StatusCode::FOUND, "round {round}: bound as before");
        gateway.kill().await;
        if new {
            (now, next) = (next, now);
        }
    }
}
