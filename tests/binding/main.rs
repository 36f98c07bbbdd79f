//! Keys, enrolment and look-up against the embedded store.

#![expect(clippy::unwrap_used, reason = "a set-up that fails should fail its test")]

use std::time::Duration;

use sekisho::binding::{
    AccountId, AccountState, BindingError, BindingKey, BoundAccount, Candidates, CodeAttempt, EnrolError,
    EnrolmentCode, KeyId, KeyRing, LiveKeys, Stretcher, enrol_by_code, issue_code, resolve,
};
use sekisho::carrier::RawIdentifier;
use sekisho::clock::Timestamp;
use sekisho::config::StretchSetting;
use sekisho::entropy::{SeededEntropy, SystemEntropy};
use sekisho::keys::{Kek, KeySet, KeysError};
use sekisho::secret::SecretBytes;
use sekisho::store::{BindingStore, CodeLimits, KeyState, KeyStore, SchemeRecord, StretchParameters};

use harness::{TestStore, handset};

mod work;

/// Cheap, so that the tests spend their time on what they test.
const CHEAP: StretchParameters = StretchParameters { memory_kib: 64, passes: 1 };
const PER_ACCOUNT: u32 = 3;

fn start() -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_117_042)
}

fn later(by: Duration) -> Timestamp {
    start().plus(by)
}

fn account(text: &str) -> AccountId {
    AccountId::parse(text).unwrap()
}

fn kek(seed: u64) -> Kek {
    Kek::parse(&Kek::generate_text(&SeededEntropy::new(seed))).unwrap()
}

async fn open(store: &dyn KeyStore, kek: &Kek, stretch: StretchSetting) -> Result<KeySet, KeysError> {
    KeySet::open(store, kek, stretch, &SystemEntropy::default(), start()).await
}

/// A store with keys, and the verbs of a sign-in on it.
struct Bench {
    store: TestStore,
    keys: KeySet,
    entropy: SystemEntropy,
}

impl Bench {
    async fn new() -> Self {
        let store = TestStore::new();
        let keys = open(store.keys(), &kek(1), StretchSetting::Custom(CHEAP)).await.ok().unwrap();
        Self { store, keys, entropy: SystemEntropy::default() }
    }

    fn bindings(&self) -> &dyn BindingStore {
        self.store.bindings()
    }

    async fn digest(&self, identifier: RawIdentifier) -> Candidates {
        self.keys.binding.digest(identifier).await.ok().unwrap()
    }

    async fn code_for(&self, name: &str) -> EnrolmentCode {
        let issued =
            issue_code(self.bindings(), &self.keys.session().unwrap(), account(name), None, &self.entropy, start())
                .await;
        let (code, expires_at) = issued.unwrap().unwrap();
        assert_eq!(expires_at, later(EnrolmentCode::LIFETIME));
        code
    }

    async fn enrol_at(
        &self,
        identifier: RawIdentifier,
        code: &EnrolmentCode,
        per_account: u32,
        now: Timestamp,
    ) -> Result<BoundAccount, EnrolError> {
        let attempt = CodeAttempt::new(&self.keys.session().unwrap(), code, &identifier);
        let candidates = self.digest(identifier).await;
        enrol_by_code(self.bindings(), &self.keys.binding, candidates, attempt, per_account, &self.entropy, now).await
    }

    async fn enrol(&self, identifier: RawIdentifier, code: &EnrolmentCode) -> Result<BoundAccount, EnrolError> {
        self.enrol_at(identifier, code, PER_ACCOUNT, start()).await
    }

    async fn bind(&self, identifier: RawIdentifier, name: &str) -> BoundAccount {
        let code = self.code_for(name).await;
        self.enrol(identifier, &code).await.unwrap()
    }

    async fn sign_in(&self, identifier: RawIdentifier, now: Timestamp) -> Result<BoundAccount, BindingError> {
        come_in(self.bindings(), &self.keys.binding, self.digest(identifier).await, now).await
    }
}

/// A look-up, and what is written of the sign-in.
async fn come_in(
    store: &dyn BindingStore,
    ring: &KeyRing,
    candidates: Candidates,
    now: Timestamp,
) -> Result<BoundAccount, BindingError> {
    let (bound, used) = resolve(store, ring, candidates, now).await?;
    used.note(store, ring).await?;
    Ok(bound)
}

fn key(number: u8, state: KeyState) -> BindingKey {
    let material = SecretBytes::new(vec![number; 32]);
    BindingKey { id: KeyId::new(number.into()), state, suspended: false, material }
}

fn ring_of(keys: Vec<BindingKey>, generation: u64) -> KeyRing {
    let scheme = SchemeRecord { id: "v1".into(), stretch: Some(CHEAP), salt: [3; 16], pin_secret: vec![4; 60] };
    KeyRing::new(LiveKeys::new(keys, generation).unwrap(), Stretcher::new(&scheme).unwrap())
}

/// Another code than `code`, with the same selector.
fn kid(keys: &KeySet) -> Option<String> {
    keys.signer().kid().map(str::to_owned)
}

fn wrong(code: &EnrolmentCode) -> EnrolmentCode {
    let last = if code.expose().ends_with('0') { '1' } else { '0' };
    EnrolmentCode::parse(&format!("{}{last}", &code.expose()[..11])).unwrap()
}

fn invalid(outcome: &Result<BoundAccount, EnrolError>) -> bool {
    matches!(outcome, Err(EnrolError::CodeInvalid))
}

fn not_bound(outcome: &Result<BoundAccount, BindingError>) -> bool {
    matches!(outcome, Err(BindingError::NotBound))
}

#[tokio::test]
async fn a_bound_handset_is_found_and_a_stranger_is_not() {
    let bench = Bench::new().await;
    let bound = bench.bind(handset("alpha", "0123abc"), "alice").await;
    let found = bench.sign_in(handset("alpha", "0123abc"), start()).await.unwrap();
    assert_eq!((found.account(), found.binding()), (&account("alice"), bound.binding()));
    assert_eq!(found.carrier().as_str(), "alpha");
    for (carrier, identifier) in [("alpha", "0123abd"), ("alpha", "0123aBc"), ("beta", "0123abc")] {
        let outcome = bench.sign_in(handset(carrier, identifier), start()).await;
        assert!(not_bound(&outcome), "{carrier} {identifier}");
    }
}

#[tokio::test]
async fn suspended_and_revoked_answer_as_unknown() {
    let bench = Bench::new().await;
    let bound = bench.bind(handset("alpha", "0123abc"), "alice").await;
    bench.bindings().set_account_state(&account("alice"), AccountState::Suspended).await.unwrap();
    assert!(not_bound(&bench.sign_in(handset("alpha", "0123abc"), start()).await));
    bench.bindings().set_account_state(&account("alice"), AccountState::Active).await.unwrap();
    assert!(bench.sign_in(handset("alpha", "0123abc"), start()).await.is_ok());
    bench.bindings().revoke(bound.binding()).await.unwrap();
    assert!(not_bound(&bench.sign_in(handset("alpha", "0123abc"), start()).await));
}

#[tokio::test]
async fn a_code_binds_once_until_it_ends() {
    let bench = Bench::new().await;
    let code = bench.code_for("alice").await;
    let over = later(EnrolmentCode::LIFETIME + Duration::from_millis(1));
    assert!(invalid(&bench.enrol_at(handset("alpha", "0000001"), &code, PER_ACCOUNT, over).await));
    let last = later(EnrolmentCode::LIFETIME);
    assert!(bench.enrol_at(handset("alpha", "0000001"), &code, PER_ACCOUNT, last).await.is_ok());
    assert!(invalid(&bench.enrol(handset("alpha", "0000002"), &code).await), "spent");
}

#[tokio::test]
async fn wrong_tries_are_counted_against_the_handset_that_made_them() {
    let bench = Bench::new().await;
    let code = bench.code_for("alice").await;
    for _ in 0..CodeLimits::PER_HANDSET {
        assert!(invalid(&bench.enrol(handset("alpha", "0000001"), &wrong(&code)).await));
    }
    assert!(invalid(&bench.enrol(handset("alpha", "0000001"), &code).await), "its tries are used up");
    assert!(bench.enrol(handset("alpha", "0000002"), &code).await.is_ok(), "another handset's are not");
}

#[tokio::test]
async fn a_suspended_account_answers_as_a_wrong_code() {
    let bench = Bench::new().await;
    let code = bench.code_for("alice").await;
    bench.bindings().set_account_state(&account("alice"), AccountState::Suspended).await.unwrap();
    assert!(invalid(&bench.enrol(handset("alpha", "0000001"), &code).await));
    bench.bindings().set_account_state(&account("alice"), AccountState::Active).await.unwrap();
    assert!(bench.enrol(handset("alpha", "0000001"), &code).await.is_ok(), "the code stayed");
}

#[tokio::test]
async fn an_account_has_its_fill_and_a_handset_one_account() {
    let bench = Bench::new().await;
    let bound = bench.bind(handset("alpha", "0000001"), "alice").await;
    let again = bench.bind(handset("alpha", "0000001"), "alice").await;
    assert_eq!(bound.binding(), again.binding(), "bound before, to that very account");
    let code = bench.code_for("alice").await;
    let outcome = bench.enrol_at(handset("alpha", "0000002"), &code, 1, start()).await;
    assert!(matches!(outcome, Err(EnrolError::BindingLimit)), "full");
    assert!(bench.enrol_at(handset("alpha", "0000002"), &code, 2, start()).await.is_ok(), "the code stayed");
    let code = bench.code_for("bob").await;
    let outcome = bench.enrol(handset("alpha", "0000001"), &code).await;
    assert!(matches!(outcome, Err(EnrolError::BindingLimit)), "somebody else's handset");
    assert_eq!(bench.sign_in(handset("alpha", "0000001"), start()).await.unwrap().account(), &account("alice"));
}

#[tokio::test]
async fn the_day_of_use_follows_the_sign_in() {
    let bench = Bench::new().await;
    bench.bind(handset("alpha", "0000001"), "alice").await;
    let last_used = async || bench.bindings().bindings(None).await.unwrap()[0].last_used_on;
    assert_eq!(last_used().await, start().day());
    let tomorrow = later(Duration::from_hours(24));
    bench.sign_in(handset("alpha", "0000001"), tomorrow).await.unwrap();
    assert_eq!(last_used().await, tomorrow.day());
    bench.sign_in(handset("alpha", "0000001"), start()).await.unwrap();
    assert_eq!(last_used().await, tomorrow.day(), "never back");
}

#[tokio::test]
async fn digests_of_another_key_ring_are_made_again() {
    let bench = Bench::new().await;
    bench.bind(handset("alpha", "0000001"), "alice").await;
    let other = |mut candidates: Candidates| {
        candidates.generation += 1;
        candidates
    };
    let known = other(bench.digest(handset("alpha", "0000001")).await);
    assert!(come_in(bench.bindings(), &bench.keys.binding, known, start()).await.is_ok());
    let unknown = async || other(bench.digest(handset("alpha", "0000002")).await);
    let outcome = come_in(bench.bindings(), &bench.keys.binding, unknown().await, start()).await;
    assert!(not_bound(&outcome), "a proof, once the digests are those of the ring in force");

    // A ring that stays behind its store refuses, and the code stays.
    let behind = ring_of(vec![key(1, KeyState::Active)], 9);
    let stale = async || behind.digest(handset("alpha", "0000002")).await.ok().unwrap();
    let outcome = come_in(bench.bindings(), &behind, stale().await, start()).await;
    assert!(matches!(outcome, Err(BindingError::Unsettled)));
    let code = bench.code_for("alice").await;
    let attempt = || CodeAttempt::new(&bench.keys.session().unwrap(), &code, &handset("alpha", "0000002"));
    let (store, ring, entropy) = (bench.bindings(), &bench.keys.binding, &bench.entropy);
    let outcome = enrol_by_code(store, &behind, stale().await, attempt(), PER_ACCOUNT, entropy, start()).await;
    assert!(matches!(outcome, Err(EnrolError::Unsettled)));
    let outcome = enrol_by_code(store, ring, unknown().await, attempt(), PER_ACCOUNT, entropy, start()).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn a_sign_in_under_a_newer_key_flattens_the_record() {
    let bench = Bench::new().await;
    let digest = async |ring: &KeyRing| ring.digest(handset("alpha", "0000001")).await.ok().unwrap();
    let chain = async || bench.bindings().bindings(None).await.unwrap()[0].chain.to_string();

    let first = ring_of(vec![key(1, KeyState::Active)], 0);
    let both = ring_of(vec![key(1, KeyState::Retiring), key(2, KeyState::Active)], 0);
    let second = ring_of(vec![key(1, KeyState::Drained), key(2, KeyState::Active)], 0);
    let code = bench.code_for("alice").await;
    let attempt = CodeAttempt::new(&bench.keys.session().unwrap(), &code, &handset("alpha", "0000001"));
    let candidates = digest(&first).await;
    enrol_by_code(bench.bindings(), &first, candidates, attempt, PER_ACCOUNT, &bench.entropy, start()).await.unwrap();
    assert_eq!(chain().await, "k1");
    assert!(
        not_bound(&come_in(bench.bindings(), &second, digest(&second).await, start()).await),
        "not under k2 alone yet"
    );
    assert!(come_in(bench.bindings(), &both, digest(&both).await, start()).await.is_ok());
    assert_eq!(chain().await, "k2");
    assert!(come_in(bench.bindings(), &second, digest(&second).await, start()).await.is_ok());
    assert!(
        not_bound(&come_in(bench.bindings(), &first, digest(&first).await, start()).await),
        "k1 finds nothing any more"
    );
}

#[tokio::test]
async fn the_keys_of_a_store_stay_the_same() {
    let store = TestStore::new();
    assert!(KeySet::inspect(store.keys(), &kek(1), StretchSetting::Off).await.ok().unwrap().is_none());
    assert!(store.keys().keys().await.unwrap().keys.is_empty(), "looking makes no keys");
    let first = open(store.keys(), &kek(1), StretchSetting::Off).await.ok().unwrap();
    let again = open(store.keys(), &kek(1), StretchSetting::Off).await.ok().unwrap();
    let inspected = KeySet::inspect(store.keys(), &kek(1), StretchSetting::Off).await.ok().unwrap().unwrap();
    for other in [&again, &inspected] {
        assert_eq!(first.signer().kid(), other.signer().kid());
        let code = EnrolmentCode::parse("012345678901").unwrap();
        assert_eq!(first.session().unwrap().code_mac(&code), other.session().unwrap().code_mac(&code));
        let flat = async |keys: &KeySet| keys.binding.digest(handset("alpha", "0000001")).await.ok().unwrap().flat;
        assert!(flat(&first).await == flat(other).await);
    }
}

#[tokio::test]
async fn of_two_first_openings_one_makes_the_keys() {
    let store = TestStore::new();
    let kek = kek(1);
    let (a, b) =
        tokio::join!(open(store.keys(), &kek, StretchSetting::Off), open(store.keys(), &kek, StretchSetting::Off));
    assert_eq!(kid(&a.ok().unwrap()), kid(&b.ok().unwrap()));
}

#[tokio::test]
async fn a_wrong_kek_changes_nothing() {
    let bench = Bench::new().await;
    let before = kid(&bench.keys);
    let stretch = StretchSetting::Custom(CHEAP);
    assert!(matches!(open(bench.store.keys(), &kek(2), stretch).await, Err(KeysError::WrongKek)));
    assert_eq!(kid(&open(bench.store.keys(), &kek(1), stretch).await.ok().unwrap()), before);
}

#[tokio::test]
async fn a_changed_stretch_is_refused_with_the_number_it_would_orphan() {
    let bench = Bench::new().await;
    for expected in [0, 1] {
        let refused = open(bench.store.keys(), &kek(1), StretchSetting::Auto).await.err().unwrap();
        let KeysError::StretchChanged { orphaned, .. } = &refused else { panic!("{refused}") };
        assert_eq!(*orphaned, expected);
        assert!(refused.to_string().contains(r#"{ memory = "64KiB", passes = 1 }"#), "{refused}");
        bench.bind(handset("alpha", "0000001"), "alice").await;
    }
    assert!(open(bench.store.keys(), &kek(1), StretchSetting::Custom(CHEAP)).await.is_ok());
}

#[tokio::test]
async fn no_file_of_the_store_holds_an_identifier_or_a_code() {
    let bench = Bench::new().await;
    let code = bench.code_for("alice").await;
    let secret = code.expose().to_owned();
    bench.enrol(handset("alpha", "CANARY7"), &wrong(&code)).await.unwrap_err();
    bench.enrol(handset("alpha", "CANARY7"), &code).await.unwrap();
    bench.sign_in(handset("alpha", "CANARY7"), later(Duration::from_hours(24))).await.unwrap();
    for (name, bytes) in bench.store.files() {
        for (what, needle) in [("identifier", b"CANARY7".as_slice()), ("code", secret.as_bytes())] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{name} holds the {what}");
        }
    }
}

mod harness {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use sekisho::carrier::{Carriers, Networks, ProfileSpec, RawIdentifier};
    use sekisho::clock::Timestamp;
    use sekisho::edge::{HeadLimits, RawHead, Scheme, TrustedProxies};
    use sekisho::entropy::SystemEntropy;
    use sekisho::store::{BindingStore, EmbeddedStore, KeyStore};

    /// An embedded store in a directory of its own.
    pub(crate) struct TestStore {
        directory: tempfile::TempDir,
        store: EmbeddedStore,
    }

    impl TestStore {
        pub(crate) fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("test.store");
            let now = Timestamp::from_unix_millis(1_795_530_117_042);
            let (store, _) = EmbeddedStore::open(&path, now, &SystemEntropy::default()).ok().unwrap();
            Self { directory, store }
        }

        pub(crate) fn bindings(&self) -> &dyn BindingStore {
            &self.store
        }

        pub(crate) fn keys(&self) -> &dyn KeyStore {
            &self.store
        }

        /// Every file of the store, its log included, by name.
        pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
            let files = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
            files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
        }
    }

    /// What the gateway of `carrier` (`alpha` or `beta`) says of a handset, read by the real carrier stage.
    pub(crate) fn handset(carrier: &str, identifier: &str) -> RawIdentifier {
        let (network, address) =
            if carrier == "alpha" { ("127.0.1.0/24", [127, 0, 1, 9]) } else { ("127.0.2.0/24", [127, 0, 2, 9]) };
        let specs = BTreeMap::from([(
            carrier.to_owned(),
            ProfileSpec {
                header: Some("X-Device-Ref".into()),
                grammar: Some("^[A-Za-z0-9]{7}$".into()),
                user_agent: Some("any".into()),
                over_tls: Some("accept".into()),
                networks: Some(Networks::List(vec![network.into()])),
                ..ProfileSpec::default()
            },
        )]);
        let (carriers, _) = Carriers::build(&specs).ok().unwrap();
        let request = http::Request::get("/_sekisho/login").header("Host", "x").header("X-Device-Ref", identifier);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let limits = HeadLimits { head_bytes: 4096, headers: 10, url_bytes: 1024 };
        let head = RawHead::read(parts, &limits).unwrap();
        let client = TrustedProxies::new(Vec::new()).resolve(IpAddr::from(address), Scheme::Http, &head).unwrap();
        let found = carriers.identify(&head, &client).unwrap();
        assert!(found.small_space(), "7 characters are under 2^80");
        found
    }
}
