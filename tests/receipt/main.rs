//! Receipts against the embedded store: what is sealed, what verifies, and that a changed byte is named.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

use std::sync::LazyLock;

use sekisho::binding::{AccountId, BindingKey, KeyId, KeyRing, LiveKeys, Stretcher, enrol_by_console};
use sekisho::carrier::RawIdentifier;
use sekisho::clock::{Day, Timestamp};
use sekisho::config::StretchSetting;
use sekisho::entropy::{SeededEntropy, SystemEntropy};
use sekisho::keys::{Kek, KeySet};
use sekisho::receipt::{
    Approval, CanaryReport, Circumstances, Facts, KnownKey, Origin, Verdict, addendum, observe, receipt, survey,
    verify, verify_against,
};
use sekisho::secret::SecretBytes;
use sekisho::store::{
    Canaries, CanaryPhase, EmbeddedStore, KeyDates, KeyPurpose, KeyRecord, KeyState, ReceiptStore, RotationRecord,
    RotationState, SchemeRecord,
};
use serde_json::{Value, json};

mod changes;
mod issued;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_117_042 + minutes * 60_000)
}

/// A store with keys, and what a rotation from k1 to k2 left.
struct Bench {
    folder: tempfile::TempDir,
    store: EmbeddedStore,
    keys: KeySet,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let entropy = SystemEntropy::default();
        let (store, _) = EmbeddedStore::open(&folder.path().join("test.store"), at(0), &entropy).ok().unwrap();
        let keys = KeySet::open(&store, &kek(), StretchSetting::Off, &entropy, at(0)).await.ok().unwrap();
        Self { folder, store, keys }
    }

    /// The canaries of a rotation that went as it should.
    async fn canaries(&self) -> Canaries {
        let entropy = SystemEntropy::default();
        let look = async |states: &[KeyState], phase| {
            observe(&self.store, &ring(states), ("r1", KeyId::new(1)), phase, &entropy, at(1)).await.unwrap();
        };
        let (old, both, new) = (
            &[KeyState::Active][..],
            &[KeyState::Retiring, KeyState::Active][..],
            &[KeyState::Drained, KeyState::Active],
        );
        look(old, CanaryPhase::Planted).await;
        for phase in [CanaryPhase::Activated, CanaryPhase::Wrapped, CanaryPhase::Flattened] {
            look(both, phase).await;
        }
        look(new, CanaryPhase::Drained).await;
        self.store.canaries("r1").await.unwrap()
    }

    async fn receipt(&self) -> String {
        let canaries = CanaryReport::of(&self.canaries().await);
        let survey = survey(&self.store).await.unwrap();
        let (rotation, from, to) = (rotation(), key("k1", KeyState::Drained), key("k2", KeyState::Active));
        receipt(&facts(&rotation, &from, &to), &survey, &canaries, &self.keys.audit()).unwrap()
    }

    /// A handset under the store's own k1.
    async fn bind(&self) {
        let candidates = self.keys.binding.digest(RawIdentifier::canary(&[5; 32])).await.ok().unwrap();
        let (account, entropy) = (AccountId::parse("alice").unwrap(), SystemEntropy::default());
        let bound = enrol_by_console(&self.store, &self.keys.binding, candidates, account, 3, &entropy, at(0)).await;
        assert!(bound.is_ok());
    }

    fn known(&self) -> [KnownKey; 1] {
        [KnownKey::parse(&self.keys.audit().public().text()).unwrap()]
    }
}

fn kek() -> Kek {
    Kek::parse(&Kek::generate_text(&SeededEntropy::new(1))).unwrap()
}

fn ring(states: &[KeyState]) -> KeyRing {
    let keys = (1..).zip(states).map(|(number, state)| BindingKey {
        id: KeyId::new(number),
        state: *state,
        suspended: false,
        material: SecretBytes::new(vec![u8::try_from(number).unwrap(); 32]),
    });
    let scheme = SchemeRecord { id: "v1".into(), stretch: None, salt: [3; 16], pin_secret: vec![4; 60] };
    KeyRing::new(LiveKeys::new(keys.collect(), 0).unwrap(), Stretcher::new(&scheme).unwrap())
}

fn rotation() -> RotationRecord {
    RotationRecord {
        id: "r1".into(),
        purpose: KeyPurpose::Binding,
        from: "k1".into(),
        to: "k2".into(),
        state: RotationState::Done,
        reason: "yearly, \"as agreed\"\n".into(),
        started_at: at(0),
        finished_at: Some(at(3)),
        drain_by: Day::from_unix_days(21_000),
        total: 30,
        wrapped: 20,
        flattened: 27,
        cursor: 30,
        fence: 2,
        root_before: vec![1; 32],
        root_after: vec![2; 32],
    }
}

fn key(id: &str, state: KeyState) -> KeyRecord {
    KeyRecord {
        id: id.into(),
        purpose: KeyPurpose::Binding,
        state,
        suspended: false,
        compromised: false,
        wrapped: vec![9; 60],
        commitment: [7; 32],
        public: None,
        created_at: at(-10),
        dates: KeyDates { activated_at: Some(at(-9)), ..KeyDates::default() },
    }
}

fn facts<'a>(rotation: &'a RotationRecord, from: &'a KeyRecord, to: &'a KeyRecord) -> Facts<'a> {
    static CIRCUMSTANCES: LazyLock<Circumstances> = LazyLock::new(|| {
        let agreed = Approval { by: "cert:alice".into(), verb: "keys destroy".into(), at: at(2).rfc3339() };
        Circumstances { approvals: vec![agreed], audit_head: Some((7, "00ff".into())) }
    });
    Facts { rotation, from, to, circumstances: &CIRCUMSTANCES, process_started_at: at(-60), now: at(4) }
}

fn names(verdict: &Verdict, member: &str) -> bool {
    !verdict.ok && verdict.problems.iter().any(|problem| problem.starts_with(member))
}

#[tokio::test]
async fn a_receipt_verifies_offline_and_says_whose_seal_it_is() {
    let bench = Bench::new().await;
    let receipt = bench.receipt().await;
    let unknown = verify(receipt.as_bytes(), &[]);
    assert!(unknown.ok, "{unknown:?}");
    assert_eq!((unknown.origin, unknown.rotation.as_deref()), (Origin::Unproven, Some("r1")));
    let fingerprint = KnownKey::parse(&unknown.fingerprint.unwrap()).unwrap();
    for known in [&bench.known(), &[fingerprint]] {
        let verdict = verify(format!("{receipt}\n").as_bytes(), known);
        assert!(verdict.ok && verdict.origin == Origin::Known, "{verdict:?}");
    }
    let other = Bench::new().await;
    assert!(names(&verify(receipt.as_bytes(), &other.known()), "seal.key: "));
    let both = [other.known(), bench.known()].concat();
    assert!(verify(receipt.as_bytes(), &both).ok);
    // Another program may write the same document with white space, and in another order.
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&receipt).unwrap()).unwrap();
    assert!(verify(pretty.as_bytes(), &bench.known()).ok);
}

#[tokio::test]
async fn a_receipt_holds_what_an_auditor_needs_and_nothing_else() {
    let bench = Bench::new().await;
    let receipt = bench.receipt().await;
    let document: Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!(document["counts"], json!({"total": 30, "wrapped": 20, "flattened": 27, "purged": 3, "remaining": 0}));
    assert_eq!(document["from"]["commitment"], "07".repeat(32));
    assert_eq!(document["roots"], json!({"before": "01".repeat(32), "after": "02".repeat(32)}));
    assert_eq!(document["canaries"]["planted"], json!({"used": 4, "dormant": 4}));
    assert_eq!(document["software"]["version"], env!("CARGO_PKG_VERSION"));
    // Neither the wrapped key, nor an identifier or digest of a canary.
    let canaries = bench.store.canaries("r1").await.unwrap().records;
    let secrets =
        canaries.iter().flat_map(|canary| [canary.octets, *canary.digest.as_bytes()]).map(|bytes| hex(&bytes));
    for secret in secrets.chain([hex(&[9; 60])]) {
        assert!(!receipt.contains(&secret));
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[tokio::test]
async fn canaries_are_found_in_each_phase_and_dormant_ones_until_the_key_is_gone() {
    let bench = Bench::new().await;
    let Canaries { records, observed } = bench.canaries().await;
    let seen: Vec<_> = observed.iter().map(|o| (o.phase.as_str(), o.used, o.dormant, o.without_old_key)).collect();
    let expected = [
        ("planted", 4, 4, 0),
        ("activated", 4, 4, 0),
        ("wrapped", 4, 4, 0),
        ("flattened", 4, 4, 0),
        ("drained", 4, 0, 0),
    ];
    assert_eq!(seen, expected);
    let chains: Vec<_> = records.iter().map(|record| (record.dormant, record.chain.to_string())).collect();
    assert!(chains.iter().all(|(dormant, chain)| chain == if *dormant { "k1,k2" } else { "k2" }), "{chains:?}");
    // Without the old key the used ones would not have been found before they signed in either.
    let entropy = SystemEntropy::default();
    let phase = CanaryPhase::Planted;
    observe(&bench.store, &ring(&[KeyState::Active]), ("r2", KeyId::new(1)), phase, &entropy, at(1)).await.unwrap();
    let (gone, phase) = (ring(&[KeyState::Drained, KeyState::Active]), CanaryPhase::Drained);
    observe(&bench.store, &gone, ("r2", KeyId::new(1)), phase, &entropy, at(1)).await.unwrap();
    let lost = bench.store.canaries("r2").await.unwrap().observed[1];
    assert_eq!((lost.used, lost.dormant), (0, 0), "a wrong order of steps shows");
    let nothing = CanaryReport::of(&bench.store.canaries("r2").await.unwrap());
    let survey = survey(&bench.store).await.unwrap();
    let (from, to) = (key("k1", KeyState::Drained), key("k2", KeyState::Active));
    let told = receipt(&facts(&rotation(), &from, &to), &survey, &nothing, &bench.keys.audit()).unwrap();
    assert!(names(&verify(told.as_bytes(), &[]), "canaries.observed: in phase drained"));
}

#[tokio::test]
async fn a_later_rotation_takes_the_canaries_of_an_open_one_along() {
    use KeyState::{Active, Drained, Inner, Retiring};
    let bench = Bench::new().await;
    let entropy = SystemEntropy::default();
    let look = async |states: &[KeyState], phase| {
        observe(&bench.store, &ring(states), ("r1", KeyId::new(1)), phase, &entropy, at(1)).await.unwrap();
    };
    look(&[Active], CanaryPhase::Planted).await;
    look(&[Retiring, Active], CanaryPhase::Wrapped).await;
    look(&[Inner, Retiring, Active], CanaryPhase::Flattened).await;
    look(&[Drained, Inner, Active], CanaryPhase::Drained).await;
    let observed = bench.store.canaries("r1").await.unwrap().observed;
    let seen: Vec<_> = observed.iter().map(|o| (o.used, o.dormant, o.without_old_key)).collect();
    assert_eq!(seen, [(4, 4, 0), (4, 4, 0), (4, 4, 0), (4, 0, 0)]);
}

#[tokio::test]
async fn an_addendum_belongs_to_its_receipt_and_has_a_seal_of_its_own() {
    let bench = Bench::new().await;
    let receipt = bench.receipt().await;
    let entropy = SystemEntropy::default();
    let gone = ring(&[KeyState::Destroyed, KeyState::Active]);
    observe(&bench.store, &gone, ("r1", KeyId::new(1)), CanaryPhase::Destroyed, &entropy, at(9)).await.unwrap();
    let canaries = CanaryReport::of(&bench.store.canaries("r1").await.unwrap());
    let (rotation, from, to) = (rotation(), key("k1", KeyState::Destroyed), key("k2", KeyState::Active));
    let later = addendum(&facts(&rotation, &from, &to), &receipt, &canaries, &bench.keys.audit()).unwrap();
    let with = |change: fn(&mut Value)| {
        let mut document: Value = serde_json::from_str(&receipt).unwrap();
        document["addenda"] = json!([serde_json::from_str::<Value>(&later).unwrap()]);
        change(&mut document);
        verify(document.to_string().as_bytes(), &bench.known())
    };
    let verdict = with(|_| ());
    assert!(verdict.ok, "{verdict:?}");
    assert!(names(&with(|d| d["addenda"][0]["from"]["destroyed_at"] = json!("x")), "addenda[0].from.destroyed_at"));
    assert!(names(&with(|d| d["addenda"][0]["seal"]["signature"] = json!("00")), "addenda[0].seal.signature"));
    assert!(names(&with(|d| d["addenda"][0]["addenda"] = json!([])), "addenda[0].addenda"));
    assert!(names(&with(|d| d["addenda"][0] = json!(1)), "addenda[0]: "));
    assert!(names(&with(|d| d["counts"]["wrapped"] = json!(1)), "counts.wrapped"));
    // Of another receipt.
    let mut other: Value = serde_json::from_str(&bench.receipt().await).unwrap();
    other["addenda"] = json!([serde_json::from_str::<Value>(&later).unwrap()]);
    assert!(names(&verify(other.to_string().as_bytes(), &[]), "addenda[0].receipt.sha256"));
}

#[tokio::test]
async fn what_a_working_gateway_would_not_seal_is_told_though_the_seal_fits() {
    let bench = Bench::new().await;
    let canaries = CanaryReport::of(&bench.canaries().await);
    let survey = survey(&bench.store).await.unwrap();
    let judged = |change: fn(&mut RotationRecord, &mut KeyRecord)| {
        let (mut rotation, mut from, to) = (rotation(), key("k1", KeyState::Drained), key("k2", KeyState::Active));
        change(&mut rotation, &mut from);
        let told = receipt(&facts(&rotation, &from, &to), &survey, &canaries, &bench.keys.audit()).unwrap();
        verify(told.as_bytes(), &bench.known())
    };
    assert!(judged(|_, _| ()).ok);
    assert!(names(&judged(|rotation, _| rotation.state = RotationState::Draining), "rotation.state"));
    assert!(names(&judged(|_, from| from.state = KeyState::Inner), "from.state"));
    assert!(names(&judged(|rotation, _| rotation.flattened = 31), "counts.total"));
    let none = CanaryReport::default();
    let (rotation, from, to) = (rotation(), key("k1", KeyState::Drained), key("k2", KeyState::Active));
    let told = receipt(&facts(&rotation, &from, &to), &survey, &none, &bench.keys.audit()).unwrap();
    assert!(names(&verify(told.as_bytes(), &[]), "canaries.planted"));
}

#[tokio::test]
async fn a_look_at_a_store_shows_what_still_has_the_old_key() {
    let bench = Bench::new().await;
    let receipt = bench.receipt().await;
    let empty = survey(&bench.store).await.unwrap();
    assert!(verify_against(receipt.as_bytes(), &[], &empty).ok);
    bench.bind().await;
    let left = survey(&bench.store).await.unwrap();
    assert_eq!((left.bindings(), left.not_past(KeyId::new(1))), (1, 1));
    assert_ne!(left.root(), empty.root());
    assert!(names(&verify_against(receipt.as_bytes(), &[], &left), "counts.remaining: 1 bindings"));
}
