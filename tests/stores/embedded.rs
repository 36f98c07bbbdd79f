//! The embedded store: the contract, what it refuses to open, and what it survives.

use std::fs;
use std::future::poll_fn;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::task::Poll;

use rusqlite::Connection;
use sekisho::binding::{AccountId, BindingId};
use sekisho::carrier::CarrierName;
use sekisho::clock::Timestamp;
use sekisho::entropy::SystemEntropy;
use sekisho::session::{SessionId, TokenHash};
use sekisho::store::{
    ApprovalStore, AuditStore, BackupStore, BindingStore, Copied, EmbeddedStore, Inspection, KeyStore, NewsStore,
    NoticeStore, OpenError, Opened, PinStore, ProofStore, ReceiptStore, RotationStore, SessionRecord, SessionStore,
    ShadowStore, StatisticsStore, StoreError, SubjectStore, TokenTransport,
};
use tempfile::TempDir;

use crate::approvals::keeps_the_approval_contract;
use crate::backup_conformance::keeps_what_is_erased_erased;
use crate::conformance::{Backend, first_keys, keeps_the_contract, loaded, scheme};
use crate::log_key_conformance::keeps_log_keys_as_the_contract_says;
use crate::notice_conformance::keeps_notices_as_the_contract_says;
use crate::pin_conformance::keeps_pins_as_the_contract_says;
use crate::receipt_conformance::keeps_receipts_as_the_contract_says;
use crate::rotation_conformance::moves_records_as_the_contract_says;
use crate::shadow_conformance::lends_shadows_as_the_contract_says;
use crate::statistics_conformance::counts_as_the_contract_says;
use crate::subject_conformance::keeps_what_persons_may_ask_for;

struct Embedded {
    store: Arc<EmbeddedStore>,
    folder: TempDir,
}

impl Backend for Embedded {
    fn fresh() -> Self {
        let folder = TempDir::new().unwrap();
        Self { store: Arc::new(open(&folder.path().join("store")).unwrap().0), folder }
    }

    fn bindings(&self) -> Arc<dyn BindingStore> {
        Arc::clone(&self.store) as _
    }

    fn sessions(&self) -> Arc<dyn SessionStore> {
        Arc::clone(&self.store) as _
    }

    fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::clone(&self.store) as _
    }

    fn approvals(&self) -> Arc<dyn ApprovalStore> {
        Arc::clone(&self.store) as _
    }

    fn audit(&self) -> Arc<dyn AuditStore> {
        Arc::clone(&self.store) as _
    }

    fn receipts(&self) -> Arc<dyn ReceiptStore> {
        Arc::clone(&self.store) as _
    }

    fn subjects(&self) -> Arc<dyn SubjectStore> {
        Arc::clone(&self.store) as _
    }

    fn statistics(&self) -> Arc<dyn StatisticsStore> {
        Arc::clone(&self.store) as _
    }

    fn proofs(&self) -> Arc<dyn ProofStore> {
        Arc::clone(&self.store) as _
    }

    fn rotations(&self) -> Arc<dyn RotationStore> {
        Arc::clone(&self.store) as _
    }

    fn pins(&self) -> Arc<dyn PinStore> {
        Arc::clone(&self.store) as _
    }

    fn news(&self) -> Arc<dyn NewsStore> {
        Arc::clone(&self.store) as _
    }

    fn backups(&self) -> Arc<dyn BackupStore> {
        Arc::clone(&self.store) as _
    }

    fn opened(&self, mut copied: Copied) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("store");
        let bytes = std::io::copy(&mut copied.file, &mut fs::File::create(&path).unwrap()).unwrap();
        assert_eq!(bytes, copied.length);
        Self { store: Arc::new(open(&path).unwrap().0), folder }
    }

    fn notices(&self) -> Arc<dyn NoticeStore> {
        Arc::clone(&self.store) as _
    }

    fn medium(&self) -> Vec<u8> {
        ["store", "store-wal"].map(|name| fs::read(self.folder.path().join(name)).unwrap()).concat()
    }

    fn shadows(&self) -> Arc<dyn ShadowStore> {
        Arc::clone(&self.store) as _
    }

    fn has_shadow(&self) -> bool {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let known = ["store", "store-wal", "store-shm", "store.lock"];
        let others: Vec<_> = names.filter(|name| !known.contains(&name.to_str().unwrap())).collect();
        if others.is_empty() {
            return false;
        }
        assert_eq!(others, ["store.drill"]);
        let mode = |path: &str| fs::metadata(self.folder.path().join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("store.drill"), mode("store.drill/store")), (0o700, 0o600));
        true
    }

    /// Opens a copy of the files as they are at this instant, as a crash would leave them: the running store is not told.
    fn restart(self) -> Self {
        let folder = TempDir::new().unwrap();
        let shadow = self.folder.path().join("store.drill");
        if shadow.exists() {
            fs::create_dir(folder.path().join("store.drill")).unwrap();
            for file in fs::read_dir(shadow).unwrap().map(|entry| entry.unwrap()) {
                fs::copy(file.path(), folder.path().join("store.drill").join(file.file_name())).unwrap();
            }
        }
        for suffix in ["", "-wal"] {
            let name = format!("store{suffix}");
            fs::copy(self.folder.path().join(&name), folder.path().join(&name)).unwrap();
        }
        Self { store: Arc::new(open(&folder.path().join("store")).unwrap().0), folder }
    }
}

keeps_the_contract!(Embedded);
keeps_the_approval_contract!(Embedded);
moves_records_as_the_contract_says!(Embedded);
keeps_receipts_as_the_contract_says!(Embedded);
keeps_notices_as_the_contract_says!(Embedded);
keeps_pins_as_the_contract_says!(Embedded);
lends_shadows_as_the_contract_says!(Embedded);
keeps_what_persons_may_ask_for!(Embedded);
counts_as_the_contract_says!(Embedded);
keeps_what_is_erased_erased!(Embedded);
keeps_log_keys_as_the_contract_says!(Embedded);

pub(crate) fn open(path: &Path) -> Result<(EmbeddedStore, Opened), OpenError> {
    EmbeddedStore::open(path, Timestamp::from_unix_millis(1_795_530_000_000), &SystemEntropy::default())
}

/// What is refused, by opening and by looking alike.
fn refusal(path: &Path) -> OpenError {
    let before = snapshot(path);
    let opened = open(path).map(|_| ()).unwrap_err();
    let Err(inspected) = EmbeddedStore::inspect(path) else { panic!("only opening refuses: {opened}") };
    assert_eq!(opened.to_string(), inspected.to_string());
    assert_eq!(snapshot(path), before, "a refusal changes nothing");
    opened
}

/// Names and contents of all files beside the store but for the lock.
fn snapshot(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|f| f.is_file() && f.extension().is_none_or(|e| e != "lock")).collect();
    files.sort();
    files.into_iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect()
}

/// A closed store with keys, and what else `change` does to its file.
async fn closed_store(change: impl FnOnce(&Connection)) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    let (store, opened) = open(&path).unwrap();
    assert_eq!(opened, Opened::Created);
    store.initialise(first_keys(), scheme("v1")).await.unwrap();
    for n in 0..200 {
        SessionStore::open(&store, session(n), 5, None).await.unwrap();
    }
    store.close().await.unwrap();
    change(&Connection::open(&path).unwrap());
    (folder, path)
}

fn session(number: u32) -> SessionRecord {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    SessionRecord {
        token_hash: TokenHash::from_bytes(hash),
        id: SessionId::from_random(id),
        account: AccountId::parse(&format!("account-{number}")).unwrap(),
        binding: BindingId::from_random([1; 16]),
        carrier: CarrierName::parse("docomo").unwrap(),
        continuity: [3; 32],
        link: None,
        sid_seed: [4; 16],
        transport: TokenTransport::Cookie,
        by_code: false,
        pin_at: None,
        created_at: Timestamp::from_unix_millis(0),
        last_seen_at: Timestamp::from_unix_millis(0),
        expires_at: Timestamp::from_unix_millis(1),
    }
}

#[tokio::test]
async fn a_missing_store_is_made_for_its_user_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/store");
    assert!(matches!(EmbeddedStore::inspect(&path), Ok(Inspection::NotThere)));
    assert!(!folder.path().join("a").exists(), "looking makes nothing");
    let (store, opened) = open(&path).unwrap();
    assert_eq!(opened, Opened::Created);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    store.initialise(first_keys(), scheme("v1")).await.unwrap();
    for file in fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{}", file.path().display());
    }
    let id = store.store_id().await.unwrap();
    drop(store);
    let (store, opened) = open(&path).unwrap();
    assert_eq!((opened, store.store_id().await.unwrap()), (Opened::Existing, id));
}

#[tokio::test]
async fn a_draft_that_a_crash_left_is_no_store() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    fs::write(folder.path().join("store.new"), "half").unwrap();
    fs::write(folder.path().join("store.new-journal"), "half").unwrap();
    assert!(matches!(EmbeddedStore::inspect(&path), Ok(Inspection::NotThere)));
    assert_eq!(open(&path).unwrap().1, Opened::Created);
    assert!(!folder.path().join("store.new").exists());
}

#[tokio::test]
async fn one_gateway_a_store() {
    let (folder, path) = closed_store(|_| ()).await;
    let (store, _) = open(&path).unwrap();
    assert!(matches!(refusal(&path), OpenError::Locked(_)));
    let other_name = folder.path().join("link");
    symlink(&path, &other_name).unwrap();
    assert!(matches!(refusal(&other_name), OpenError::Locked(_)));
    store.close().await.unwrap();
    assert!(open(&path).is_ok(), "closing lets it go");
    drop(open(&other_name).unwrap());
    assert!(open(&path).is_ok(), "so does dropping");
}

#[tokio::test]
async fn what_is_closed_says_so() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(&folder.path().join("store")).unwrap();
    store.close().await.unwrap();
    assert_eq!(store.generation().await, Err(StoreError::Closed));
    assert_eq!(SessionStore::open(&store, session(1), 5, None).await, Err(StoreError::Closed));
    assert_eq!(store.close().await, Err(StoreError::Closed));
}

#[tokio::test]
async fn closing_finishes_what_was_asked_before() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    let store = Arc::new(open(&path).unwrap().0);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = Arc::clone(&store);
        calls.spawn(async move { SessionStore::open(&*store, session(n), 5, None).await });
    }
    tokio::task::yield_now().await;
    store.close().await.unwrap();
    let acknowledged = calls.join_all().await.into_iter().flatten().count();
    assert!(acknowledged > 0);
    assert!(fs::metadata(folder.path().join("store-wal")).map_or(0, |journal| journal.len()) == 0);
    drop(store);
    let (store, _) = open(&path).unwrap();
    assert_eq!(loaded(&store).await.len(), acknowledged);
}

#[tokio::test]
async fn other_files_are_left_alone() {
    let folder = TempDir::new().unwrap();
    for (name, content) in [("empty", "".as_bytes()), ("text", b"[gateway]\n"), ("head", b"SQLite format 3\0")] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        assert!(matches!(refusal(&path), OpenError::Foreign(_)), "{name}");
    }
    let path = folder.path().join("somebody.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    assert!(matches!(refusal(&path), OpenError::Foreign(_)));
    let path = folder.path().join("folder");
    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(&path), OpenError::Unusable { .. }));
}

#[tokio::test]
async fn a_folder_that_cannot_be_is_found_by_looking() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for path in [folder.path().join("file/store"), folder.path().join("file/folder/store")] {
        assert!(matches!(open(&path), Err(OpenError::Unusable { .. })));
        assert!(matches!(EmbeddedStore::inspect(&path), Err(OpenError::Unusable { .. })));
    }
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let (_folder, path) = closed_store(|file| file.pragma_update(None, "user_version", 99).unwrap()).await;
    assert!(matches!(refusal(&path), OpenError::Newer { found: 99, known: 1, .. }));
}

#[tokio::test]
async fn a_differing_build_of_the_same_format_is_found_out() {
    let change = "UPDATE migrations SET sha256 = x'00'";
    let (_folder, path) = closed_store(|file| file.execute_batch(change).unwrap()).await;
    assert!(matches!(refusal(&path), OpenError::Corrupt { what, .. } if what.contains("step 1")));
}

#[tokio::test]
async fn a_store_that_lost_its_keys_is_refused() {
    let (_folder, path) = closed_store(|file| file.execute_batch("DELETE FROM keys").unwrap()).await;
    assert!(matches!(refusal(&path), OpenError::KeysGone(_)));
}

#[tokio::test]
async fn a_journal_without_its_store_is_never_played_into_a_new_one() {
    let (_folder, path) = closed_store(|_| ()).await;
    fs::remove_file(&path).unwrap();
    fs::write(path.with_file_name("store-wal"), [1; 64]).unwrap();
    assert!(matches!(refusal(&path), OpenError::OrphanedJournal(_)));
}

#[tokio::test]
async fn damage_is_found_before_a_sign_in_meets_it() {
    let (_folder, path) = closed_store(|_| ()).await;
    let good = fs::read(&path).unwrap();
    let hash = &session(100).token_hash;
    let mut places = (0..good.len()).filter(|at| good[*at..].starts_with(hash.as_bytes()));
    let (in_table, in_index) = (places.next().unwrap(), places.next().unwrap());
    let refused_with = |name: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = good.clone();
        damage(&mut bad);
        fs::write(&path, bad).unwrap();
        assert!(matches!(refusal(&path), OpenError::Corrupt { .. }), "{name}");
    };
    refused_with("a zeroed page", &|file| file[8192..12_288].fill(0));
    refused_with("one bit of a token's hash", &|file| file[in_table] ^= 1);
    refused_with("one bit of it in the index", &|file| file[in_index] ^= 1);
    refused_with("a truncated file", &|file| file.truncate(file.len() / 2));
    refused_with("a scribbled schema", &|file| file[200..4096].fill(0xff));
    fs::write(&path, good).unwrap();
    assert!(open(&path).is_ok());
}

#[tokio::test]
async fn a_handset_that_is_bound_twice_or_that_nothing_finds_is_damage() {
    let two_carriers = "INSERT INTO accounts (account, state, created_at) VALUES ('a', 'active', 0); \
        INSERT INTO bindings (id, account, carrier, scheme, chain, digest, folded, bound_on, last_used_on) VALUES \
        ('1', 'a', 'docomo', 'v1', 'k1', zeroblob(32), 0, 0, 0), ('2', 'a', 'au', 'v1', 'k1', zeroblob(32), 0, 0, 0)";
    let (_folder, path) = closed_store(|file| file.execute_batch(two_carriers).unwrap()).await;
    assert!(open(&path).is_ok(), "of two carriers they are two");
    for (damage, expected) in [("carrier = 'docomo'", "bound twice"), ("folded = 1", "index leads to")] {
        Connection::open(&path).unwrap().execute_batch(&format!("UPDATE bindings SET {damage}")).unwrap();
        assert!(matches!(refusal(&path), OpenError::Corrupt { what, .. } if what.contains(expected)), "{expected}");
    }
}

#[tokio::test]
async fn looking_reads_the_keys_and_changes_nothing() {
    let (_folder, path) = closed_store(|_| ()).await;
    let before = snapshot(&path);
    let Inspection::Sound(store) = EmbeddedStore::inspect(&path).unwrap() else { panic!("it is there") };
    assert_eq!(store.keys().await.unwrap().keys.len(), first_keys().len());
    assert_eq!(store.initialise(vec![], scheme("v2")).await, Err(StoreError::Closed));
    assert!(matches!(open(&path), Err(OpenError::Locked(_))), "nobody changes it meanwhile");
    drop(store);
    assert_eq!(snapshot(&path), before);
    assert!(open(&path).is_ok());
}

#[tokio::test]
async fn looking_after_a_crash_sees_what_only_the_journal_has() {
    let crashed = Embedded::fresh();
    crashed.store.initialise(first_keys(), scheme("v1")).await.unwrap();
    let copy = TempDir::new().unwrap();
    for name in ["store", "store-wal"] {
        fs::copy(crashed.folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let path = copy.path().join("store");
    let journal = fs::read(copy.path().join("store-wal")).unwrap();
    assert!(!journal.is_empty());
    let Inspection::Sound(store) = EmbeddedStore::inspect(&path).unwrap() else { panic!("it is there") };
    assert_eq!(store.keys().await.unwrap().keys.len(), first_keys().len());
    drop(store);
    assert_eq!(fs::read(copy.path().join("store-wal")).unwrap(), journal, "the journal is not folded in");
}

#[tokio::test]
async fn many_at_once_share_a_commit() {
    let Embedded { store, folder } = Embedded::fresh();
    let before = commits(folder.path());
    // Another program holds the file, so that all calls wait when the writer gets it.
    let other = Connection::open(folder.path().join("store")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut calls: Vec<_> = (0..200).map(|n| SessionStore::open(&*store, session(n), 5, None)).collect();
    poll_fn(|context| {
        assert!(calls.iter_mut().all(|call| call.as_mut().poll(context).is_pending()));
        Poll::Ready(())
    })
    .await;
    other.execute_batch("COMMIT").unwrap();
    for call in calls {
        call.await.unwrap();
    }
    let commits = commits(folder.path()) - before;
    assert!((1..=2).contains(&commits), "one for the first call, one for those that came meanwhile: {commits}");
}

/// Commits in the journal: frames that tell the size of the file (sqlite.org/fileformat.html §4.1).
fn commits(folder: &Path) -> usize {
    let journal = fs::read(folder.join("store-wal")).unwrap_or_default();
    let frames = journal.get(32..).unwrap_or_default().chunks(24 + 4096);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

/// A file name that a URI would read otherwise.
#[tokio::test]
async fn any_path_will_do() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("50% ?of#関所&mode=memory");
    drop(open(&path).unwrap());
    assert!(matches!(EmbeddedStore::inspect(&path), Ok(Inspection::Sound(_))));
    assert!(path.is_file());
}

/// The files may grow no more: SQLite meets what a full disk gives it. Needs a process of its own, since the limit is the
/// process's, and a parent that has the signal ignored.
#[tokio::test]
async fn a_full_medium_fails_closed_and_recovers() {
    passes_in_a_limited_process("embedded::in_a_limited_process");
}

/// Whether the ignored test of this name passes in a process of its own.
fn passes_in_a_limited_process(test: &str) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_store_that_cannot_be_written_anew_keeps_no_copy_of_itself_in_its_journal() {
    passes_in_a_limited_process("embedded::in_a_limited_process_written_anew");
    // Somebody reads while it is tried: neither does each try leave one.
    let backend = Embedded::fresh();
    let (store, journal) = (&backend.store, backend.folder.path().join("store-wal"));
    let reader = Connection::open(backend.folder.path().join("store")).unwrap();
    SessionStore::open(&**store, session(0), 5, None).await.unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM sessions;").unwrap();
    SessionStore::open(&**store, session(1), 5, None).await.unwrap();
    let before = fs::metadata(&journal).unwrap().len();
    assert!(matches!(SubjectStore::scrub(&**store).await, Err(StoreError::Unavailable(_))));
    assert_eq!(fs::metadata(&journal).unwrap().len(), before);
    drop(reader);
    SubjectStore::scrub(&**store).await.unwrap();
    assert_eq!(fs::metadata(&journal).unwrap().len(), 0);
}

#[tokio::test]
#[ignore = "run by a_store_that_cannot_be_written_anew_keeps_no_copy_of_itself_in_its_journal"]
async fn in_a_limited_process_written_anew() {
    let backend = Embedded::fresh();
    let (store, file) = (&backend.store, |name: &str| fs::metadata(backend.folder.path().join(name)).unwrap().len());
    for n in 0..400 {
        SessionStore::open(&**store, session(n), 500, None).await.unwrap();
    }
    SubjectStore::scrub(&**store).await.unwrap();
    let whole = file("store");
    // Room for the copy, not for the journal, which takes more for each page.
    limit_files(Some(whole));
    for n in 0..3 {
        let before = file("store-wal");
        let refused = SubjectStore::scrub(&**store).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(file("store-wal") <= before, "{n}: {} and {before}, of {whole}", file("store-wal"));
        SessionStore::open(&**store, session(1000 + n), 500, None).await.unwrap();
    }
    limit_files(None);
    SubjectStore::scrub(&**store).await.unwrap();
    assert_eq!((file("store-wal"), loaded(&**store).await.len()), (0, 403));
}

#[tokio::test]
#[ignore = "run by a_full_medium_fails_closed_and_recovers"]
async fn in_a_limited_process() {
    let backend = Embedded::fresh();
    let store = &backend.store;
    SessionStore::open(&**store, session(0), 5, None).await.unwrap();
    let journal = fs::metadata(backend.folder.path().join("store-wal")).unwrap().len();
    let count = async || loaded(&**store).await.len();
    for round in 0..2 {
        let before = count().await;
        limit_files(Some(journal));
        for n in 1..4 {
            let refused = SessionStore::open(&**store, session(1000 * round + n), 5, None).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
        assert_eq!(count().await, before, "reads go on, and see nothing of what failed");
        limit_files(None);
        SessionStore::open(&**store, session(1000 * round + 10), 5, None).await.unwrap();
        assert_eq!(count().await, before + 1);
    }
    let restarted = backend.restart();
    assert_eq!(loaded(&*restarted.store).await.len(), 3);
}

/// No file of this process may grow beyond that.
fn limit_files(bytes: Option<u64>) {
    let maximum = rustix::process::getrlimit(rustix::process::Resource::Fsize).maximum;
    let limit = rustix::process::Rlimit { current: bytes, maximum };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
}

/// Root passes every permission, so this says nothing there.
#[tokio::test]
async fn a_store_that_cannot_be_written_is_found_by_looking() {
    let (_folder, path) = closed_store(|_| ()).await;
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write to everything");
        return;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(matches!(refusal(&path), OpenError::Unusable { .. }));
}
