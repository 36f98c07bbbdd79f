//! A store from before a rotation, by the real binary: no handset is served before its records are under the key that took
//! the old one's place, whatever stands in the way meanwhile.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::backups::{enrolled, folder, restore, signs_in, taken};
use crate::process::{Folder, Serving, ended};
use crate::recorder::RecordingUpstream;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until handsets are served.
pub(crate) async fn serves(gateway: &Serving) {
    let ready = async { while gateway.ops("/readyz").await.status != StatusCode::OK {} };
    timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("it never serves: {}", gateway.stdout()));
}

/// Waits until the rotation is in that state.
async fn reaches(folder: &Folder, rotation: &str, state: &str) {
    let reached = async {
        loop {
            let shown = folder.document(&format!("rotation rescan {rotation}")).await;
            if shown["rotation"]["state"] == state {
                return;
            }
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{rotation} is never {state}"));
}

async fn put_back(folder: &Folder) {
    let restored = ended(restore(folder, "one.backup", " --replace")).await;
    assert_eq!(restored.code, 0, "{restored:?}");
}

async fn chains(folder: &Folder) -> Value {
    let listed = folder.document("bindings list").await;
    listed["bindings"].as_array().unwrap().iter().map(|binding| binding["chain"].clone()).collect()
}

/// Nobody is served, and whoever asks is told what for.
async fn waits(folder: &Folder, gateway: &Serving, what_for: &str) {
    let ready = gateway.ops("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.text());
    assert_eq!((&ready.json()["caught_up"], &ready.json()["ready"]), (&false.into(), &false.into()));
    let refused = gateway.handset(crate::harness::Carrier::Docomo, "a").get_json("/").await;
    assert_eq!((refused.status, refused.reason().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not-ready"));
    let status = folder.document("status").await;
    assert!(status["catching_up"].as_str().unwrap().contains(what_for), "{status}");
    assert!(gateway.ops("/metrics").await.text().contains("\nsekisho_store_behind 1\n"));
}

#[tokio::test]
async fn no_handset_is_served_before_every_record_is_wrapped_again() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    for (account, tail) in [("alice", "a"), ("bob", "b")] {
        enrolled(&folder, &gateway, account, tail).await;
    }
    folder.document("keys suspend k1").await;
    taken(&folder, "one.backup").await;
    folder.document("keys resume k1").await;
    folder.document("rotation start --purpose binding").await;
    reaches(&folder, "r1", "draining").await;
    gateway.stop().await;
    put_back(&folder).await;

    // Its key is suspended: a person has to say what becomes of it, and no start forgets that.
    let path = folder.path("notify");
    let notices = UnixDatagram::bind(&path).unwrap();
    notices.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let length = notices.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let serve = async || {
        let mut command = folder.command("serve");
        command.env("NOTIFY_SOCKET", &path);
        folder.serve_as(command).await
    };
    let gateway = serve().await;
    waits(&folder, &gateway, "sekisho keys resume k1").await;
    assert!(next().starts_with("EXTEND_TIMEOUT_USEC=30000000\nSTATUS=key k1 is suspended"));
    gateway.kill().await;
    let gateway = serve().await;
    waits(&folder, &gateway, "sekisho keys resume k1").await;

    // The records cannot be moved now: on a real disk because it is full.
    let store = rusqlite::Connection::open(folder.path("data/store.db")).unwrap();
    let held = "CREATE TRIGGER held BEFORE UPDATE OF chain ON bindings BEGIN SELECT RAISE(ABORT, 'held'); END";
    store.execute_batch(held).unwrap();
    folder.document("keys resume k1").await;
    gateway.logged("records are not moved to the new key at present").await;
    waits(&folder, &gateway, "rotation r1 moves the records to k2").await;
    assert_eq!(chains(&folder).await, json!([["k1"], ["k1"]]));
    store.execute_batch("DROP TRIGGER held").unwrap();
    serves(&gateway).await;
    // Told right after it is so.
    while !next().starts_with("READY=1") {}
    let ready = gateway.ops("/readyz").await;
    assert_eq!((ready.status, &ready.json()["caught_up"]), (StatusCode::OK, &true.into()), "{}", ready.text());
    assert_eq!(chains(&folder).await, json!([["k1", "k2"], ["k1", "k2"]]));
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND);
    let trail = folder.document("audit tail -n 100").await;
    let entries = trail["entries"].as_array().unwrap();
    let of = |action: &str| entries.iter().filter(|entry| entry["action"] == action).cloned().collect::<Vec<_>>();
    assert_eq!(of("store-caught-up").len(), 1, "{trail}");
    assert_eq!(of("store-caught-up")[0]["count"], 0, "{trail}");
    assert!(of("rotation-start").iter().all(|entry| entry["actor"] == "gateway"), "{trail}");
    assert_eq!(of("rotation-start").len(), 2, "begun and done: {trail}");
    gateway.stop().await;
    let gateway = folder.serve().await;
    assert!(!gateway.stdout().contains("older than the ledger"), "{}", gateway.stdout());
    gateway.stop().await;
}

/// Two rotations are as many as may be begun at once. Whoever waited for the first to be over would wait as long as unused
/// bindings are kept.
#[tokio::test]
async fn two_open_rotations_do_not_keep_a_third_from_replacing_the_key_again() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    enrolled(&folder, &gateway, "alice", "a").await;
    for rotation in ["r1", "r2"] {
        folder.document("rotation start --purpose binding").await;
        reaches(&folder, rotation, "draining").await;
    }
    taken(&folder, "one.backup").await;
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND);
    reaches(&folder, "r2", "done").await;
    folder.document("rotation start --purpose binding").await;
    reaches(&folder, "r3", "draining").await;
    gateway.stop().await;
    put_back(&folder).await;
    let gateway = folder.serve().await;
    serves(&gateway).await;
    assert_eq!(chains(&folder).await, json!([["k1", "k2", "k3", "k4"]]));
    let refused = folder.run("rotation start --purpose binding --json").await;
    assert_eq!(refused.json()["error"]["reason"], "rotation-limit", "an operator still waits: {refused:?}");
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND);
    assert_eq!(chains(&folder).await, json!([["k4"]]));
    gateway.stop().await;
}

/// The backup has the key that waited; the rotation that it waits for goes on, and no other is begun.
#[tokio::test]
async fn a_rotation_that_waited_then_and_began_since_begins_again() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    enrolled(&folder, &gateway, "alice", "a").await;
    folder.document("rotation start --purpose binding --paused").await;
    taken(&folder, "one.backup").await;
    folder.document("rotation resume r1").await;
    reaches(&folder, "r1", "draining").await;
    gateway.stop().await;
    put_back(&folder).await;
    let gateway = folder.serve().await;
    serves(&gateway).await;
    assert_eq!(chains(&folder).await, json!([["k1", "k2"]]));
    assert_eq!(folder.document("rotation list").await["rotations"].as_array().unwrap().len(), 1);
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND, "a key that did not leak locks nobody out");
    gateway.stop().await;
}
