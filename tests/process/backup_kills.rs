//! SIGKILL amid a backup and amid a restore: no half file is taken for a whole one, and the store is the one from before or
//! the one from the backup.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use rustix::process::Signal;
use sekisho::admin::AdminClient;
use serde_json::json;
use tokio::process::Child;
use tokio::time::timeout;

use crate::backups::{enrolled, folder, restore, signs_in, taken};
use crate::harness::Carrier;
use crate::process::{Folder, ended, wrapped};
use crate::recorder::RecordingUpstream;

const PATIENCE: Duration = Duration::from_secs(30);
/// Handsets of a store that is larger than what sockets hold.
const HANDSETS: u32 = 4000;

async fn import(folder: &Folder) {
    let lines: String = (0..HANDSETS)
        .map(|n| {
            let identifier = Carrier::PrivateApn.identifier(&n.to_string());
            let line = json!({ "account": format!("account-{n}"), "carrier": "private-apn", "identifier": identifier });
            line.to_string() + "\n"
        })
        .collect();
    let admin = AdminClient::new(&folder.path("run/admin.sock"));
    assert_eq!(
        admin.import(stream::iter([Ok(Bytes::from(lines))]), |_| ()).await.unwrap().imported,
        u64::from(HANDSETS)
    );
}

/// Waits until something is so; `false` if `child` ended before.
async fn until(child: &mut Child, is_so: impl Fn() -> bool) -> bool {
    let seen = async {
        while !is_so() {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    };
    timeout(PATIENCE, seen).await.expect("it never comes")
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// What of a store tells one from another; it must be sound.
fn accounts(folder: &Folder) -> i64 {
    let store = rusqlite::Connection::open(folder.path("data/store.db")).unwrap();
    let sound: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    store.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).unwrap()
}

fn beside_the_store(folder: &Folder, part: &str) -> Vec<String> {
    let names = std::fs::read_dir(folder.path("data")).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.contains(part)).collect()
}

#[tokio::test]
async fn a_kill_amid_a_backup_leaves_no_half_file_and_a_store_that_goes_on() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    enrolled(&folder, &gateway, "alice", "a").await;
    import(&folder).await;
    let (file, partial) = (folder.path("one.backup"), folder.path("one.backup.partial"));
    let verb = format!("backup {} --json", file.display());

    // Whoever gets it dies, at a byte that it may not write.
    let mut getting =
        wrapped(&["sh", "-c", r#"ulimit -f 100; exec "$0" "$@""#], &folder.command(&verb)).spawn().unwrap();
    let status = timeout(PATIENCE, getting.wait()).await.unwrap().unwrap();
    assert_eq!(status.signal(), Some(Signal::XFSZ.as_raw()));
    assert!((1..length(&folder.path("data/store.db"))).contains(&length(&partial)) && !file.exists());
    // Its key is destroyed once the gateway has noticed, and the next one is not kept waiting for longer.
    let destroyed = async {
        loop {
            let listed = folder.document("backups list").await;
            if listed["backups"][0]["state"] == "destroyed" {
                return;
            }
        }
    };
    timeout(PATIENCE, destroyed).await.expect("the key of what nobody has stays");

    // The gateway dies while the file is written, and over its own copy of the store. What was faster is whole.
    let copy = folder.path("data/store.db.copy");
    let mut whole = 0;
    let mut gateway = gateway;
    for is_so in [&(|| length(&partial) > 0) as &dyn Fn() -> bool, &|| copy.exists()] {
        let mut getting = folder.command(&verb).spawn().unwrap();
        until(&mut getting, is_so).await;
        gateway.kill().await;
        let status = timeout(PATIENCE, getting.wait()).await.unwrap().unwrap();
        assert_eq!(status.success(), file.exists(), "{status}");
        assert!(!partial.exists());
        if file.exists() {
            whole += 1;
            std::fs::remove_file(&file).unwrap();
        }
        gateway = folder.serve().await;
    }
    eprintln!("{whole} of 2 backups were faster than the kill");
    assert_eq!(beside_the_store(&folder, ".copy"), Vec::<String>::new(), "it holds what the store holds");
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND);
    assert_eq!(taken(&folder, "one.backup").await["backup"]["state"], "whole");
    gateway.stop().await;
    assert_eq!(ended(restore(&folder, "one.backup", " --replace")).await.code, 0);
    assert_eq!(accounts(&folder), i64::from(HANDSETS) + 1);
}

#[tokio::test]
async fn a_kill_amid_a_restore_leaves_the_one_store_or_the_other() {
    let upstream = RecordingUpstream::start().await;
    let folder = folder(&upstream);
    let gateway = folder.serve().await;
    enrolled(&folder, &gateway, "alice", "a").await;
    import(&folder).await;
    taken(&folder, "one.backup").await;
    enrolled(&folder, &gateway, "bob", "b").await;
    gateway.stop().await;
    let (then, now) = (i64::from(HANDSETS) + 1, i64::from(HANDSETS) + 2);
    assert_eq!(accounts(&folder), now);
    let whole = length(&folder.path("one.backup"));

    let draft = folder.path("data/store.db.restoring");
    let mut put = 0;
    let moments: [(&str, &dyn Fn() -> bool); 4] = [
        ("nothing is written yet", &|| draft.exists()),
        ("half of it is written", &|| length(&draft) > whole / 2),
        ("the former store has its second name", &|| !beside_the_store(&folder, ".before-restore-").is_empty()),
        ("all is written", &|| length(&draft) + 4096 > whole),
    ];
    for (moment, is_so) in moments {
        let mut restoring = restore(&folder, "one.backup", " --replace").spawn().unwrap();
        let amid = until(&mut restoring, is_so).await;
        let _ = restoring.start_kill();
        restoring.wait().await.unwrap();
        let there = accounts(&folder);
        assert!(there == then || there == now, "{moment}: {there}");
        assert!(amid || there == then, "{moment}: it ended and did nothing");
        put += usize::from(there == then);
        assert_eq!(folder.run("check").await.code, 0, "{moment}");
    }
    eprintln!("{put} of {} kills came when the backup was in the place of the store", moments.len());
    let restored = ended(restore(&folder, "one.backup", " --replace")).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(accounts(&folder), then);
    let gateway = folder.serve().await;
    assert_eq!(beside_the_store(&folder, ".restoring"), Vec::<String>::new());
    assert_eq!(signs_in(&gateway, "a").await, StatusCode::FOUND);
    assert_eq!(signs_in(&gateway, "b").await, StatusCode::FORBIDDEN, "not bound then");
    gateway.stop().await;
}
