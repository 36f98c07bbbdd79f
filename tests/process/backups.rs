//! Backups by the real binary: taken while handsets sign in, put back where no gateway runs, and what they cannot bring back.

use std::fs;
use std::path::Path;

use http::StatusCode;

use crate::harness::{CANARY, Carrier, Handset};
use crate::process::{Folder, Serving, ended};
use crate::recorder::RecordingUpstream;
use crate::restored::serves;

pub(crate) fn folder(upstream: &RecordingUpstream) -> Folder {
    let folder = Folder::new(upstream.address);
    folder.append("[limits]\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\ncode = \"1000/1h\"\n");
    folder.append("[backup]\nledger = \"ledger\"\n");
    folder
}

pub(crate) async fn enrolled(folder: &Folder, gateway: &Serving, account: &str, tail: &str) -> Handset {
    let code = folder.code(account).await;
    let mut handset = gateway.handset(Carrier::Docomo, tail);
    assert_eq!(handset.enrol("/", &code).await.status, StatusCode::FOUND);
    handset
}

pub(crate) async fn signs_in(gateway: &Serving, tail: &str) -> StatusCode {
    gateway.handset(Carrier::Docomo, tail).click_sign_in("/").await.status
}

pub(crate) async fn taken(folder: &Folder, name: &str) -> serde_json::Value {
    folder.document(&format!("backup {}", folder.path(name).display())).await
}

pub(crate) fn store_files(folder: &Folder) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = crate::harness::files(&folder.path("data"))
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

pub(crate) fn restore(folder: &Folder, name: &str, more: &str) -> tokio::process::Command {
    folder.command(&format!("restore {} --json{more}", folder.path(name).display()))
}

fn contains(file: &Path, wanted: &[u8]) -> bool {
    fs::read(file).unwrap().windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn a_backup_comes_back_without_what_was_erased_since_and_without_sessions() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    let mut alice = enrolled(&folder, &gateway, "alice", "a").await;
    enrolled(&folder, &gateway, "bob", "b").await;
    let written = taken(&folder, "one.backup").await;
    assert_eq!((&written["holds_kek"], &written["backup"]["state"]), (&false.into(), &"whole".into()), "{written}");
    assert_eq!(written["backup"]["digests_under"], serde_json::json!(["k1"]));
    let bytes = fs::metadata(folder.path("one.backup")).unwrap().len();
    assert_eq!(written["backup"]["bytes"], bytes);
    assert!(!folder.path("one.backup.partial").exists());
    for clear in [CANARY.as_bytes(), b"SQLite", b"alice"] {
        assert!(!contains(&folder.path("one.backup"), clear), "it is encrypted");
    }
    let again = folder.run(&format!("backup {}", folder.path("one.backup").display())).await;
    assert_eq!(again.code, 1, "a backup is never written over: {again:?}");

    // Bob's handset goes, and the gateway dies at once.
    let bindings = folder.document("bindings list --account bob").await;
    let binding = bindings["bindings"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(folder.document(&format!("bindings revoke {binding}")).await["revoked"], 1);
    gateway.kill().await;

    // A store that is there is not touched unless that is said.
    let before = store_files(&folder);
    let refused = ended(restore(&folder, "one.backup", "")).await;
    assert_eq!((refused.code, &refused.json()["error"]["reason"]), (1, &"store-exists".into()), "{refused:?}");
    assert!(store_files(&folder) == before, "the store changed");
    let restored = ended(restore(&folder, "one.backup", " --replace")).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert!(Path::new(restored.json()["former"].as_str().unwrap()).exists(), "the former store is kept");

    let gateway = folder.serve().await;
    gateway.logged("the store is older than the ledger has seen it").await;
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND);
    assert_eq!(signs_in(&gateway, "b").await, StatusCode::FORBIDDEN, "what was erased stays erased");
    alice.gateway = gateway.address("handset");
    assert_eq!(alice.get("/").await.status, StatusCode::UNAUTHORIZED, "no session comes back");
    let trail = folder.document("audit tail -n 100").await;
    let entries = trail["entries"].as_array().unwrap();
    let behind = entries.iter().find(|entry| entry["action"] == "store-behind").expect("it is in the trail");
    assert_eq!(behind["count"], 1, "{behind}");
    gateway.stop().await;
    // Once is enough.
    let gateway = folder.serve().await;
    assert!(!gateway.stdout().contains("older than the ledger"), "{}", gateway.stdout());
    gateway.stop().await;
}

#[tokio::test]
async fn accounts_that_were_erased_since_do_not_come_back_though_one_was_held_then() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    for (account, tail) in [("alice", "a"), ("carol", "c"), ("dora", "d")] {
        enrolled(&folder, &gateway, account, tail).await;
    }
    folder.document("subject hold dora --reason court").await;
    taken(&folder, "one.backup").await;
    folder.document("subject release dora").await;
    for account in ["carol", "dora"] {
        folder.document(&format!("subject erase {account}")).await;
    }
    gateway.kill().await;
    assert_eq!(ended(restore(&folder, "one.backup", " --replace")).await.code, 0);

    let gateway = folder.serve().await;
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND);
    for (account, tail) in [("carol", "c"), ("dora", "d")] {
        assert_eq!(signs_in(&gateway, tail).await, StatusCode::FORBIDDEN, "{account} stays erased");
        let gone = folder.run(&format!("accounts show {account} --json")).await;
        assert_eq!(gone.json()["error"]["reason"], "not-found", "{gone:?}");
    }
    gateway.stop().await;
    assert_eq!(folder.run("check").await.code, 0);
}

#[tokio::test]
async fn an_old_copy_of_the_file_is_found_out_and_a_key_that_leaked_since_lets_nobody_in() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    enrolled(&folder, &gateway, "alice", "a").await;
    gateway.stop().await;
    let store = folder.path("data/store.db");
    fs::copy(&store, folder.path("old")).unwrap();

    let gateway = folder.serve().await;
    // A leak does not wait for the ledger, which hears of it later.
    fs::rename(folder.path("ledger"), folder.path("elsewhere")).unwrap();
    folder.write("ledger", "in the way");
    let leaked = folder.document("keys compromise k1 --reason stolen").await;
    let (backups, next) = (&leaked["report"]["backups"], leaked["report"]["next"][0].as_str().unwrap());
    assert!(backups.is_null() && next.starts_with("restore no backup before the ledger"), "{leaked}");
    fs::remove_file(folder.path("ledger")).unwrap();
    fs::rename(folder.path("elsewhere"), folder.path("ledger")).unwrap();
    taken(&folder, "one.backup").await;
    assert_eq!(leaked["report"]["steps"].as_array().unwrap().last().unwrap()["step"], "wrapped", "{leaked}");
    // It is over when it says so, and everything else says the same.
    assert_eq!(leaked["state"], "inner", "{leaked}");
    assert_eq!(folder.document("rotation list").await["rotations"][0]["state"], "draining");
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FORBIDDEN);
    gateway.stop().await;
    fs::copy(folder.path("old"), &store).unwrap();

    let gateway = folder.serve().await;
    serves(&gateway).await;
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FORBIDDEN, "a key that leaked does not come back");
    let keys = folder.document("keys list").await;
    let k1 = keys["keys"].as_array().unwrap().iter().find(|key| key["id"] == "k1").unwrap().clone();
    assert_eq!(k1["compromised"], true, "{keys}");
    enrolled(&folder, &gateway, "alice", "a").await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing_and_says_why() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    enrolled(&folder, &gateway, "alice", "a").await;
    let id = taken(&folder, "one.backup").await["backup"]["id"].as_str().unwrap().to_owned();
    taken(&folder, "two.backup").await;
    let busy = ended(restore(&folder, "one.backup", " --replace")).await;
    assert_eq!(busy.json()["error"]["reason"], "store-in-the-way", "a gateway runs: {busy:?}");
    let destroyed = folder.document(&format!("backups destroy {id} --reason old")).await;
    assert_eq!(destroyed["state"], "destroyed");
    assert_eq!(folder.document("backups list").await["backups"].as_array().unwrap().len(), 2);
    gateway.stop().await;

    let whole = fs::read(folder.path("two.backup")).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(folder.path("changed"), changed).unwrap();
    fs::write(folder.path("cut"), &whole[..whole.len() - 70_000]).unwrap();
    fs::write(folder.path("other"), b"SQLite format 3\0").unwrap();
    let before = store_files(&folder);
    for (name, reason) in [
        ("one.backup", "backup-destroyed"),
        ("changed", "backup-damaged"),
        ("cut", "backup-damaged"),
        ("other", "not-a-backup"),
        ("missing", "backup-unreadable"),
    ] {
        let refused = ended(restore(&folder, name, " --replace")).await;
        assert_eq!((refused.code, &refused.json()["error"]["reason"]), (1, &reason.into()), "{name}: {refused:?}");
        assert!(store_files(&folder) == before, "{name}");
    }
    folder.write_secret("kek", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let refused = ended(restore(&folder, "two.backup", " --replace")).await;
    assert_eq!(refused.json()["error"]["reason"], "kek", "{refused:?}");
    folder.write_secret("kek", crate::process::KEK);
    fs::rename(folder.path("ledger"), folder.path("elsewhere")).unwrap();
    let refused = ended(restore(&folder, "two.backup", " --replace")).await;
    assert_eq!(refused.json()["error"]["reason"], "backup-unknown", "{refused:?}");
    assert!(store_files(&folder) == before, "the store changed");
}
