//! The end of a key, by the real process: of what it was no file has a byte, no core dump could, and the receipt names the
//! process that had it; and a kill at any moment leaves it whole or gone.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sekisho::entropy::{SystemEntropy, random};
use sekisho::store::{EmbeddedStore, Inspection, KeyStore as _};
use serde_json::Value;
use tokio::time::timeout;

use crate::harness::{Carrier, contains, files};
use crate::process::{Ended, Folder, KEK, Serving, ended, sekisho, wrapped};
use crate::recorder::RecordingUpstream;

/// A key as it is at rest, and what is in it.
struct Material {
    wrapped: Vec<u8>,
    clear: Vec<u8>,
}

impl Material {
    /// Of the store in `folder`, which a gateway may have: a copy of its files is looked at.
    async fn of(folder: &Folder, id: &str, purpose: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for file in files(&folder.path("data")) {
            std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        let Inspection::Sound(store) = EmbeddedStore::inspect(&copy.path().join("store.db")).unwrap() else {
            panic!("there is a store")
        };
        let key = store.keys().await.unwrap().keys.into_iter().find(|key| key.id == id).unwrap();
        let mut place = Vec::new();
        let store_id = store.store_id().await.unwrap();
        for part in [b"sekisho/wrapped-key/v1", &store_id[..], purpose.as_bytes(), id.as_bytes()] {
            place.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
            place.extend_from_slice(part);
        }
        let (nonce, sealed) = key.wrapped.split_first_chunk().unwrap();
        let mut clear = sealed.to_vec();
        let kek = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &STANDARD.decode(KEK).unwrap()).unwrap());
        let opened = kek.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place), &mut clear).unwrap();
        Self { clear: opened.to_vec(), wrapped: key.wrapped }
    }

    /// Whether a file below `folder` has a part of it.
    fn is_in(&self, folder: &Path) -> Option<String> {
        let parts: Vec<&[u8]> = self.wrapped.chunks_exact(12).chain(self.clear.chunks_exact(12)).collect();
        files(folder).into_iter().find_map(|file| {
            let content = match std::fs::read(&file) {
                // A draft has got its name since.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
                content => content.unwrap(),
            };
            parts.iter().any(|part| contains(&content, part)).then(|| file.display().to_string())
        })
    }
}

/// `verb`, again until the gateway does it.
async fn at_last(folder: &Folder, verb: &str) -> Ended {
    let tried = async {
        loop {
            let ended = folder.run(&format!("{verb} --json")).await;
            if ended.code == 0 {
                return ended;
            }
            assert!(ended.stderr.contains("cools off") || ended.stderr.contains("drained"), "{ended:?}");
        }
    };
    timeout(Duration::from_mins(1), tried).await.expect("it is done at last")
}

#[tokio::test]
async fn of_a_destroyed_key_no_file_has_a_byte_and_the_receipt_names_the_restart() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    folder.edit("kek = { file = \"kek\" }", "kek = { file = \"kek\" }\ncooling = \"1s\"");
    let gateway = folder.serve().await;
    let code = folder.code("alice").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").enrol("/", &code).await.status, StatusCode::FOUND);
    let key = Material::of(&folder, "k1", "binding").await;
    assert!(key.is_in(folder.root()).is_some(), "it is at rest");
    folder.document("rotation start --purpose binding").await;
    let moved = async { while folder.document("rotation status r1").await["rotation"]["state"] != "draining" {} };
    timeout(Duration::from_mins(1), moved).await.unwrap();
    assert_eq!(gateway.handset(Carrier::Docomo, "a").click_sign_in("/").await.status, StatusCode::FOUND);
    assert_eq!(folder.document("rotation rescan r1").await["rotation"]["state"], "done");
    let gone = at_last(&folder, "keys destroy k1").await.json();
    assert_eq!(gone["state"], "destroyed");
    assert_eq!(key.is_in(folder.root()), None, "while the gateway runs");
    let receipt = folder.document("rotation receipt r1").await;
    assert_eq!(receipt["addenda"].as_array().unwrap().len(), 1);
    gateway.kill().await;
    assert_eq!(key.is_in(folder.root()), None, "after a kill");

    let gateway = folder.serve().await;
    let receipt = folder.document("rotation receipt r1").await;
    assert_eq!(receipt["addenda"][1]["part"], "restarted", "{receipt}");
    folder.write("r1.json", &receipt.to_string());
    let verdict = ended(sekisho(["rotation", "verify", folder.path("r1.json").to_str().unwrap(), "--json"])).await;
    assert_eq!((verdict.code, &verdict.json()["ok"]), (0, &true.into()), "{verdict:?}");
    assert_eq!(key.is_in(folder.root()), None);
    gateway.stop().await;
    assert_eq!(key.is_in(folder.root()), None, "after a stop");
}

#[tokio::test]
async fn a_kill_amid_a_destruction_leaves_the_key_whole_or_gone() {
    let rounds: u64 = std::env::var("SEKISHO_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let folder = Folder::alone();
    let mut gateway = folder.serve().await;
    let (mut gone, mut whole) = (0, 0);
    for round in 0..rounds {
        let made = folder.document("keys generate --purpose session").await;
        let id = made["id"].as_str().unwrap();
        let key = Material::of(&folder, id, "session").await;
        let destroy = tokio::spawn(ended(folder.command(&format!("keys destroy {id}"))));
        let moment = u64::from(u16::from_be_bytes(random(&SystemEntropy::default()))) * (round + 1) / rounds;
        let moment = Duration::from_micros(moment);
        assert!(timeout(moment, gateway.end()).await.is_err(), "it ended by itself: {}", gateway.stdout());
        gateway.kill().await;
        let acknowledged = destroy.await.unwrap().code == 0;
        gateway = folder.serve().await;
        let state = folder.document(&format!("keys show {id}")).await["state"].clone();
        if state == "destroyed" {
            gone += 1;
        } else {
            whole += 1;
            assert!(state == "pending" && !acknowledged, "round {round}: {state} {acknowledged}");
            folder.document(&format!("keys destroy {id}")).await;
        }
        assert_eq!(key.is_in(folder.root()), None, "round {round}, {state} at the start");
    }
    eprintln!("{gone} were gone, {whole} were whole");
    assert_eq!(folder.document("audit verify").await["ok"], true);
    gateway.stop().await;
    assert_eq!(folder.run("check").await.code, 0);
}

/// The program as somebody without rights, in a folder that is theirs.
fn as_nobody(folder: &Folder, verb: &str) -> tokio::process::Command {
    let theirs = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    theirs(folder.root());
    for file in files(folder.root()) {
        theirs(&file);
    }
    let id = format!("{NOBODY}");
    wrapped(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"], &folder.command(verb))
}

const NOBODY: u32 = 65_534;

#[tokio::test]
async fn no_core_is_dumped() {
    let folder = Folder::alone();
    let root = rustix::process::geteuid().is_root();
    let command = if root { as_nobody(&folder, "serve") } else { folder.command("serve") };
    let gateway = folder.serve_as(command).await;
    let process = format!("/proc/{}", gateway.id().as_raw_nonzero());
    let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // A process that may be dumped, or traced by its own user, owns its files there (proc(5)).
    let (ours, theirs) = (std::fs::metadata("/proc/self/environ").unwrap().uid(), format!("{process}/environ"));
    assert_eq!(std::fs::metadata(theirs).unwrap().uid(), 0, "{ours}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_second_gateway_on_the_same_store_is_refused() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    let before = gateway.ops("/readyz").await.status;
    folder.edit("run/admin.sock", "run/second.sock");
    for verb in ["serve", "check"] {
        let refused = folder.run(verb).await;
        assert_eq!((refused.code, refused.finding_keys()), (2, vec!["store.path"]), "{verb}: {refused:?}");
    }
    folder.edit("run/second.sock", "run/admin.sock");
    assert_eq!((before, gateway.ops("/readyz").await.status), (StatusCode::OK, StatusCode::OK));
    folder.code("alice").await;
    gateway.stop().await;
}

/// Two people on this machine, as root can be anybody.
struct Council {
    folder: Folder,
}

const ALICE: u32 = 61_001;
const BOB: u32 = 61_002;

impl Council {
    /// `None` where this is not root: nobody else can be played.
    async fn new() -> Option<(Self, Serving)> {
        use std::io::Write as _;
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(std::io::stderr(), "SKIP: only root can be two people");
            return None;
        }
        let folder = Folder::alone();
        folder.edit(
            "socket = \"run/admin.sock\"",
            &format!(
                "socket = \"run/admin.sock\"\napprovals = 2\n[admin.roles]\nsecurity = [\"uid:{ALICE}\", \"uid:{BOB}\"]"
            ),
        );
        let gateway = folder.serve().await;
        let council = Self { folder };
        council.open_door();
        Some((council, gateway))
    }

    /// The socket is the gateway's user's and group's; here they have no common group.
    fn open_door(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        for (name, mode) in [("", 0o711), ("run", 0o711), ("run/admin.sock", 0o666)] {
            std::fs::set_permissions(self.folder.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn command(&self, who: u32, verb: &str) -> tokio::process::Command {
        let socket = self.folder.path("run/admin.sock");
        let command = sekisho(verb.split(' ').chain(["--json", "--socket", socket.to_str().unwrap()]));
        let id = who.to_string();
        wrapped(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"], &command)
    }

    async fn says(&self, who: u32, verb: &str) -> Value {
        let ended = ended(self.command(who, verb)).await;
        assert_eq!(ended.code, 0, "{verb}: {ended:?}");
        ended.json()
    }
}

#[tokio::test]
async fn a_kill_between_the_last_yes_and_the_act_leaves_it_to_be_carried_out_once() {
    let rounds: u64 = std::env::var("SEKISHO_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let Some((council, mut gateway)) = Council::new().await else { return };
    let mut between = 0;
    for round in 0..rounds {
        let id = council.says(ALICE, "keys generate --purpose session").await["id"].as_str().unwrap().to_owned();
        let asked = council.says(ALICE, &format!("keys destroy {id}")).await;
        assert_eq!(asked["approval"]["given"], serde_json::json!([format!("uid:{ALICE}")]));
        let approval = asked["approval"]["id"].as_str().unwrap().to_owned();
        let last = tokio::spawn(ended(council.command(BOB, &format!("approvals approve {approval}"))));
        let moment = u64::from(u16::from_be_bytes(random(&SystemEntropy::default()))) * (round + 1) / rounds;
        let moment = Duration::from_micros(moment);
        assert!(timeout(moment, gateway.end()).await.is_err(), "it ended by itself: {}", gateway.stdout());
        gateway.kill().await;
        let acknowledged = last.await.unwrap().code == 0;
        gateway = council.folder.serve().await;
        council.open_door();
        let listed = council.says(ALICE, "approvals list").await;
        let approvals = listed["approvals"].as_array().unwrap();
        let now = approvals.iter().find(|found| found["id"] == approval.as_str()).unwrap();
        let state = council.says(ALICE, &format!("keys show {id}")).await["state"].clone();
        let given = now["given"].as_array().unwrap().len();
        match (now["state"].as_str().unwrap(), state.as_str().unwrap()) {
            ("done", "destroyed") => assert_eq!(given, 2),
            ("open", "pending") => {
                assert!(!acknowledged, "round {round}: what was acknowledged was done");
                between += usize::from(given == 2);
                // Whoever's voice was the last may say it again; it is one person's all the same.
                council.says(BOB, &format!("approvals approve {approval}")).await;
            }
            other => panic!("round {round}: {other:?}"),
        }
        assert_eq!(council.says(ALICE, &format!("keys show {id}")).await["state"], "destroyed", "round {round}");
        let again = ended(council.command(BOB, &format!("approvals approve {approval}"))).await;
        assert!(again.code == 1 && again.stdout.contains("approval-ended"), "round {round}: {again:?}");
    }
    eprintln!("{between} kills came between the last yes and the act");
    gateway.stop().await;
}
