//! A rotation on the real store, from its first step to the wiped key, and the receipt that is issued of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sekisho::binding::{AccountId, enrol_by_console, resolve};
use sekisho::carrier::RawIdentifier;
use sekisho::config::KeyPeriods;
use sekisho::entropy::SystemEntropy;
use sekisho::keys::Lifecycle;
use sekisho::receipt::{IssueError, Receipts, verify};
use sekisho::store::{
    ChangeOutcome, EmbeddedStore, Haste, KeyChange, KeyState, KeyStore as _, RotationRecord, RotationState,
    RotationStore as _, WrapBatch, WrapOutcome,
};
use serde_json::{Value, json};

use super::{Bench, at, kek, rotation};

/// A receipt with its addendum, as some version issued it.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/receipts/destroyed.json");

/// A gateway's parts, as far as a rotation needs them.
struct Rotated {
    #[expect(dead_code, reason = "it lives as long as the store in it")]
    folder: tempfile::TempDir,
    store: Arc<EmbeddedStore>,
    keys: Lifecycle,
    receipts: Receipts,
}

impl Rotated {
    async fn new() -> Self {
        let Bench { folder, store, keys } = Bench::new().await;
        let (store, keys) = (Arc::new(store), Arc::new(keys));
        let entropy = Arc::new(SystemEntropy::default());
        let receipts = Receipts {
            kept: Arc::clone(&store) as _,
            rotations: Arc::clone(&store) as _,
            key_records: Arc::clone(&store) as _,
            approvals: Arc::clone(&store) as _,
            audit: Arc::clone(&store) as _,
            keys: Arc::clone(&keys),
            entropy: Arc::clone(&entropy) as _,
            process_started_at: at(0),
            destroyed_before: BTreeSet::new(),
        };
        let day = Duration::from_hours(24);
        let periods = KeyPeriods {
            cooling: day,
            assertion_publish: day,
            assertion_rotate: day,
            session_rotate: day,
            audit_rotate: day,
        };
        let (records, rotations) = (Arc::clone(&store) as _, Arc::clone(&store) as _);
        let keys = Lifecycle::new(keys, records, rotations, kek(), entropy, periods);
        Self { folder, store, keys, receipts }
    }

    /// The keys of the store change, and the ring with them.
    async fn step(&self, changes: Vec<KeyChange>, record: &RotationRecord, count: bool) {
        let revision = self.store.keys().await.unwrap().revision;
        let count = count.then(|| record.id.clone());
        let outcome = self.store.change_with(revision, changes, vec![record.clone()], count).await.unwrap();
        assert!(matches!(outcome, ChangeOutcome::Changed(_)), "{outcome:?}");
        self.keys.refresh().await.ok().unwrap();
    }

    async fn enrol(&self, handset: u8) {
        let candidates = self.keys.set().binding.digest(RawIdentifier::canary(&[handset; 32])).await.ok().unwrap();
        let (account, entropy) = (AccountId::parse(&format!("a{handset}")).unwrap(), SystemEntropy::default());
        let ring = &self.keys.set().binding;
        assert!(enrol_by_console(&*self.store, ring, candidates, account, 3, &entropy, at(1)).await.is_ok());
    }

    async fn sign_in(&self, handset: u8) {
        let candidates = self.keys.set().binding.digest(RawIdentifier::canary(&[handset; 32])).await.ok().unwrap();
        let ring = &self.keys.set().binding;
        let (_, used) = resolve(&*self.store, ring, candidates, at(4)).await.unwrap();
        used.note(&*self.store, ring).await.unwrap();
    }

    async fn wrap_all(&self) -> WrapOutcome {
        let wrapping = self.keys.set().binding.wrapping().ok().unwrap();
        let records = self.store.wrappable(wrapping.active(), 0, 100).await.unwrap();
        let records = wrapping.wrap_all(&records);
        let (fence, generation) = (self.store.take_fence("r1").await.unwrap().unwrap(), wrapping.generation());
        let haste = Haste::Free;
        self.store
            .wrap(WrapBatch { rotation: "r1".into(), fence, generation, cursor: 1, records, haste })
            .await
            .unwrap()
    }

    async fn issued(&self, minutes: i64) -> Result<Value, IssueError> {
        self.receipts.issued("r1", at(minutes)).await.map(Value::Object)
    }
}

fn moves(from: KeyState, to: KeyState) -> KeyChange {
    KeyChange::Move { id: "k1".into(), from, to, at: at(2) }
}

#[tokio::test]
async fn a_rotation_is_told_from_its_first_step_to_the_wiped_key() {
    let rotated = Rotated::new().await;
    for handset in 1..=3 {
        rotated.enrol(handset).await;
    }
    assert!(matches!(rotated.issued(0).await, Err(IssueError::NotFound)));

    let mut record = RotationRecord {
        state: RotationState::Running,
        finished_at: None,
        total: 0,
        wrapped: 0,
        flattened: 0,
        cursor: 0,
        fence: 0,
        root_before: Vec::new(),
        root_after: Vec::new(),
        ..rotation()
    };
    rotated.receipts.plant(&record, at(1)).await.unwrap();
    record.root_before = rotated.receipts.root().await.unwrap().to_vec();
    let new = KeyChange::New(rotated.keys.fresh(2, KeyState::Active, at(1)).await.unwrap());
    rotated.step(vec![moves(KeyState::Active, KeyState::Retiring), new], &record, true).await;
    assert!(matches!(rotated.issued(2).await, Err(IssueError::NotDone(RotationState::Running))));
    assert_eq!(rotated.wrap_all().await, WrapOutcome::Wrapped(3));
    rotated.receipts.wrapped(&record, at(3)).await.unwrap();
    record.state = RotationState::Draining;
    rotated.step(vec![moves(KeyState::Retiring, KeyState::Inner)], &record, false).await;
    rotated.sign_in(1).await;
    rotated.sign_in(2).await;
    // The third one's person is gone.
    let gone = sekisho::store::BindingStore::bindings(&*rotated.store, None).await.unwrap()[2].id;
    sekisho::store::BindingStore::revoke(&*rotated.store, gone).await.unwrap();
    rotated.receipts.wrapped(&record, at(4)).await.unwrap();
    record.root_after = rotated.receipts.root().await.unwrap().to_vec();
    record = RotationRecord { state: RotationState::Done, finished_at: Some(at(5)), ..record };
    rotated.step(vec![moves(KeyState::Inner, KeyState::Drained)], &record, false).await;

    // Whoever asks first has it issued; everybody gets that one.
    let (first, second) = tokio::join!(rotated.issued(6), rotated.issued(7));
    let receipt = first.unwrap();
    assert_eq!(receipt, second.unwrap());
    let verdict = verify(receipt.to_string().as_bytes(), &[]);
    assert!(verdict.ok, "{verdict:?}");
    assert_eq!(receipt["scan"]["root"], receipt["roots"]["after"]);
    assert_ne!(receipt["roots"]["before"], receipt["roots"]["after"]);
    assert_eq!(receipt["scan"]["chains"], json!({"k2": 2}));
    let counts = json!({"total": 3, "wrapped": 3, "flattened": 2, "purged": 1, "remaining": 0});
    assert_eq!(receipt["counts"], counts);
    let phases: Vec<_> = receipt["canaries"]["observed"].as_array().unwrap().iter().map(|o| &o["phase"]).collect();
    assert_eq!(phases, ["planted", "activated", "wrapped", "flattened", "drained"]);
    assert_eq!(rotated.issued(60).await.unwrap(), receipt, "as issued");

    rotated.step(vec![moves(KeyState::Drained, KeyState::Destroyed)], &record, false).await;
    let whole = rotated.issued(90).await.unwrap();
    let verdict = verify(whole.to_string().as_bytes(), &[]);
    assert!(verdict.ok, "{verdict:?}");
    let addendum = &whole["addenda"][0];
    assert_eq!(addendum["from"]["state"], "destroyed");
    let last = &addendum["canaries"]["observed"][5];
    assert_eq!((&last["phase"], &last["found"]), (&json!("destroyed"), &json!({"used": 4, "dormant": 0})));
    assert_eq!(whole["counts"], counts);
    assert_eq!(whole["addenda"].as_array().unwrap().len(), 1, "the process that had it runs");

    // The next one, by a clock that went back, and then by a right one.
    let mut rotated = rotated;
    rotated.receipts.destroyed_before = BTreeSet::from(["k1".to_owned()]);
    rotated.receipts.process_started_at = at(1);
    assert_eq!(rotated.issued(91).await.unwrap(), whole, "it says nothing that looks wrong");
    rotated.receipts.process_started_at = at(100);
    let whole = rotated.issued(101).await.unwrap();
    let verdict = verify(whole.to_string().as_bytes(), &[]);
    assert!(verdict.ok, "{verdict:?}");
    assert_eq!(whole["addenda"][1]["process"]["started_at"], at(100).rfc3339());
    rotated.receipts.process_started_at = at(200);
    assert_eq!(rotated.issued(201).await.unwrap(), whole, "the first one after it");
    for (change, named) in [
        (json!([whole["addenda"][1], whole["addenda"][0]]), "addenda[0].part: "),
        (json!([whole["addenda"][1]]), "addenda[0].part: "),
        (json!([whole["addenda"][0], whole["addenda"][0]]), "addenda[1].part: "),
        (json!([whole["addenda"][0], whole["addenda"][1], whole["addenda"][1]]), "addenda[2]: "),
    ] {
        let mut changed = whole.clone();
        changed["addenda"] = change;
        let verdict = verify(changed.to_string().as_bytes(), &[]);
        assert!(!verdict.ok && verdict.problems.iter().any(|problem| problem.starts_with(named)), "{verdict:?}");
    }
    if std::env::var_os("SEKISHO_WRITE_EXPECTED").is_some() {
        std::fs::write(KEPT, format!("{whole}\n")).unwrap();
    }
}

#[test]
fn a_receipt_that_was_issued_once_verifies_for_ever() {
    let kept = std::fs::read(KEPT).unwrap();
    let verdict = verify(&kept, &[]);
    assert!(verdict.ok && verdict.rotation.as_deref() == Some("r1"), "{verdict:?}");
}
