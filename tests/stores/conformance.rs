//! The clauses of `sekisho::store`, one function each: here those of every port, in files of their own those of one. A
//! backend runs them all with [`keeps_the_contract!`].

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::thread;

use sekisho::binding::{AccountId, BindingDigest, BindingId, Chain};
use sekisho::carrier::CarrierName;
use sekisho::clock::{Day, Timestamp};
use sekisho::session::{SessionId, TokenHash};
use sekisho::store::{
    ApprovalStore, AuditStore, BackupStore, BindingRecord, BindingStore, Copied, EnrolOutcome, Enrolment,
    EnrolmentAuthority, ImportedBinding, IssueOutcome, KeyDates, KeyPurpose, KeyRecord, KeyState, KeyStore, NewCode,
    NewsStore, NoticeStore, PinStore, Probe, ProofStore, ReceiptStore, RotationStore, SchemeRecord, SessionRecord,
    SessionStore, ShadowStore, StatisticsStore, StoreError, StretchParameters, SubjectStore, TokenTransport,
};
use tokio::task::JoinSet;

pub(crate) use crate::audit_conformance::*;
pub(crate) use crate::binding_conformance::*;
pub(crate) use crate::enrolment_conformance::*;
pub(crate) use crate::import_conformance::*;
pub(crate) use crate::key_conformance::*;
pub(crate) use crate::session_conformance::*;

/// A store of its own for one test.
pub(crate) trait Backend: Sized {
    fn fresh() -> Self;
    fn bindings(&self) -> Arc<dyn BindingStore>;
    fn sessions(&self) -> Arc<dyn SessionStore>;
    fn keys(&self) -> Arc<dyn KeyStore>;
    fn approvals(&self) -> Arc<dyn ApprovalStore>;
    fn audit(&self) -> Arc<dyn AuditStore>;
    fn rotations(&self) -> Arc<dyn RotationStore>;
    fn receipts(&self) -> Arc<dyn ReceiptStore>;
    fn pins(&self) -> Arc<dyn PinStore>;
    fn news(&self) -> Arc<dyn NewsStore>;
    fn notices(&self) -> Arc<dyn NoticeStore>;
    fn subjects(&self) -> Arc<dyn SubjectStore>;
    fn statistics(&self) -> Arc<dyn StatisticsStore>;
    fn proofs(&self) -> Arc<dyn ProofStore>;
    fn backups(&self) -> Arc<dyn BackupStore>;
    /// The store that a copy of this one is.
    fn opened(&self, copied: Copied) -> Self;
    fn shadows(&self) -> Arc<dyn ShadowStore>;
    /// Whether anything of a shadow is anywhere.
    fn has_shadow(&self) -> bool;
    /// All that it keeps, as an attacker with the medium reads it.
    fn medium(&self) -> Vec<u8>;
    /// The same data after a crash: whatever was not durable is gone.
    fn restart(self) -> Self;
}

/// One test a clause for the backend `$backend`.
macro_rules! keeps_the_contract {
    ($backend:ty) => {
        keeps_the_contract! { $backend:
            clause_01_durable
            clause_02_atomic
            clause_03_read_your_write
            clause_04_linear
            clause_05_one_account_per_handset
            clause_05_a_handset_bound_under_an_older_chain_is_found
            clause_06_single_use
            clause_07_counted_per_handset
            clause_07_counted_in_all
            clause_08_resolve_takes_the_first_probe_that_hits
            clause_10_used_moves_forward_only
            clause_11_codes_replace_refuse_and_die
            clause_12_one_subject
            clause_13_bounded
            clause_14_gone
            clause_15_touch_moves_forward_only
            clause_16_first_writer_wins
            clause_17_imports_are_judged_one_after_another
            clause_17_an_import_is_whole
            clause_18_a_cookie_never_becomes_a_url
            clause_26_chained
            clause_27_append_only
            clause_28_remembered
            clause_29_one_pseudonym
            clause_30_a_checkpoint_fits
            clause_46_from_the_beginning_alone
            enrolment_says_why_not
            enrolment_of_a_bound_handset_spends_the_code
            a_console_binds_without_a_code
            a_console_rebinds_nobody
            the_right_code_under_a_former_key
            a_persons_code_is_their_own_and_says_so
            accounts_are_listed_and_suspended
            bindings_are_listed_and_revoked
            bindings_and_codes_are_purged
            sessions_load_and_are_erased
            keys_come_back_as_they_were_put
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_the_contract;

const MINUTE: i64 = 60_000;

pub(crate) fn at(minutes: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_000_000 + minutes * MINUTE)
}

pub(crate) fn today() -> Day {
    at(0).day()
}

pub(crate) fn account(name: &str) -> AccountId {
    AccountId::parse(name).unwrap()
}

pub(crate) fn carrier(name: &str) -> CarrierName {
    CarrierName::parse(name).unwrap()
}

pub(crate) fn probe(chain: &str, digest: u8) -> Probe {
    Probe { chain: Chain::parse(chain).unwrap(), digest: BindingDigest::from_bytes([digest; 32]) }
}

pub(crate) fn binding_id(number: u8) -> BindingId {
    BindingId::from_random([number; 16])
}

pub(crate) fn first_keys() -> Vec<KeyRecord> {
    KeyPurpose::ALL
        .map(|purpose| (format!("{}1", purpose.letter()), purpose))
        .map(|(id, purpose)| KeyRecord {
            id,
            purpose,
            state: KeyState::Active,
            suspended: false,
            compromised: false,
            wrapped: vec![7; 60],
            commitment: [8; 32],
            public: matches!(purpose, KeyPurpose::Assertion | KeyPurpose::Audit).then(|| vec![4; 65]),
            created_at: at(0),
            dates: KeyDates { activated_at: Some(at(0)), ..KeyDates::default() },
        })
        .into()
}

pub(crate) fn scheme(id: &str) -> SchemeRecord {
    let stretch = Some(StretchParameters { memory_kib: 19_456, passes: 2 });
    SchemeRecord { id: id.into(), stretch, salt: [9; 16], pin_secret: vec![6; 60] }
}

/// The bindings of a store that has its keys.
pub(crate) async fn bindings_of(backend: &impl Backend) -> Arc<dyn BindingStore> {
    backend.keys().initialise(first_keys(), scheme("v1")).await.unwrap();
    backend.bindings()
}

pub(crate) fn code(name: &str, selector: &str, mac: u8) -> NewCode {
    NewCode {
        account: account(name),
        selector: selector.into(),
        mac: [mac; 32],
        key: "s1".into(),
        expires_at: at(10),
        issued_at: at(0),
        asked_by: None,
    }
}

/// Handset `handset` types the code that has `selector` and hashes to `mac`.
pub(crate) fn enrolment(handset: u8, selector: &str, mac: u8) -> Enrolment {
    Enrolment {
        authority: EnrolmentAuthority::Code {
            selector: selector.into(),
            macs: vec![("s1".into(), [mac; 32])],
            handset_tag: [handset; 16],
        },
        carrier: carrier("docomo"),
        probes: vec![probe("k1", handset)],
        digest: BindingDigest::from_bytes([handset; 32]),
        chain: Chain::parse("k1").unwrap(),
        generation: 0,
        id: binding_id(handset),
        per_account: 3,
    }
}

/// Binds `handset` to `name` with a code of its own.
pub(crate) async fn bind(store: &dyn BindingStore, handset: u8, name: &str) -> BindingRecord {
    let selector = format!("{handset:04}");
    assert_eq!(store.issue_code(code(name, &selector, handset)).await.unwrap(), IssueOutcome::Issued);
    let outcome = store.enrol(enrolment(handset, &selector, handset), at(1)).await.unwrap();
    let EnrolOutcome::Bound(binding, _) = outcome else { panic!("{outcome:?}") };
    binding
}

pub(crate) fn imported(handset: u8, name: &str) -> ImportedBinding {
    ImportedBinding {
        account: account(name),
        carrier: carrier("docomo"),
        probes: vec![probe("k1", handset)],
        digest: BindingDigest::from_bytes([handset; 32]),
        chain: Chain::parse("k1").unwrap(),
        generation: 0,
        id: binding_id(100 + handset),
    }
}

pub(crate) async fn resolves(store: &dyn BindingStore, handset: u8) -> Option<BindingId> {
    let hit = store.resolve(&carrier("docomo"), &[probe("k1", handset)]).await.unwrap().hit;
    hit.map(|hit| hit.binding.id)
}

pub(crate) fn session(number: u8, name: &str) -> SessionRecord {
    SessionRecord {
        token_hash: TokenHash::from_bytes([number; 32]),
        id: SessionId::from_random([number; 16]),
        account: account(name),
        binding: binding_id(number),
        carrier: carrier("au"),
        continuity: [number; 32],
        link: None,
        sid_seed: [number; 16],
        transport: TokenTransport::Url,
        by_code: false,
        pin_at: None,
        created_at: at(0),
        last_seen_at: at(0),
        expires_at: at(720),
    }
}

/// All sessions that the store has.
pub(crate) async fn loaded(store: &dyn SessionStore) -> Vec<SessionRecord> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = Arc::clone(&seen);
    store.load(Box::new(move |session| seeing.lock().unwrap().push(session))).await.unwrap();
    std::mem::take(&mut *seen.lock().unwrap())
}

pub(crate) fn hash(number: u8) -> TokenHash {
    TokenHash::from_bytes([number; 32])
}

/// Opens each in order, with room for all.
pub(crate) async fn open_all(store: &dyn SessionStore, sessions: &[SessionRecord]) {
    for session in sessions {
        assert_eq!(store.open(session.clone(), 100, None).await.unwrap(), []);
    }
}

/// Runs all at once and returns what they returned.
pub(crate) async fn together<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    calls.into_iter().collect::<JoinSet<_>>().join_all().await
}

pub(crate) async fn clause_01_durable(backend: impl Backend) {
    let bound = bind(&*bindings_of(&backend).await, 1, "alice").await;
    backend.bindings().issue_code(code("bob", "7777", 7)).await.unwrap();
    backend.bindings().subject(&account("alice"), "console", "sub-a".into()).await.unwrap();
    open_all(&*backend.sessions(), &[session(5, "alice")]).await;
    let id = backend.keys().store_id().await.unwrap();

    let backend = backend.restart();
    let store = backend.bindings();
    assert_eq!(store.bindings(None).await.unwrap(), [bound]);
    assert_eq!(resolves(&*store, 1).await, Some(binding_id(1)));
    assert!(matches!(store.enrol(enrolment(7, "7777", 7), at(1)).await.unwrap(), EnrolOutcome::Bound(..)));
    let subjects = store.account(&account("alice")).await.unwrap().unwrap().subjects;
    assert_eq!(subjects, [("console".to_owned(), "sub-a".to_owned())]);
    assert_eq!(loaded(&*backend.sessions()).await, [session(5, "alice")]);
    assert_eq!(backend.keys().store_id().await.unwrap(), id);
    assert_eq!(backend.keys().keys().await.unwrap().keys.len(), KeyPurpose::ALL.len());
}

pub(crate) async fn clause_02_atomic(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    let bound = bind(&*store, 1, "alice").await;

    // The handset's random id collides: the store fails, and the code is not spent.
    store.issue_code(code("bob", "2222", 2)).await.unwrap();
    let collision = Enrolment { id: bound.id, ..enrolment(2, "2222", 2) };
    assert!(matches!(store.enrol(collision, at(1)).await, Err(StoreError::Corrupt(_))));
    assert_eq!(resolves(&*store, 2).await, None);

    // The refusal of a taken selector makes no account and leaves the account's own code alone.
    store.issue_code(code("carol", "3333", 3)).await.unwrap();
    assert_eq!(store.issue_code(code("carol", "2222", 9)).await.unwrap(), IssueOutcome::SelectorTaken);
    assert_eq!(store.issue_code(code("dave", "2222", 9)).await.unwrap(), IssueOutcome::SelectorTaken);
    assert_eq!(store.account(&account("dave")).await.unwrap(), None);
    for handset in [2, 3] {
        let selector = format!("{handset}").repeat(4);
        let outcome = store.enrol(enrolment(handset, &selector, handset), at(1)).await.unwrap();
        assert!(matches!(outcome, EnrolOutcome::Bound(..)), "{outcome:?}");
    }

    // A session that cannot be opened ends none.
    let sessions = backend.sessions();
    open_all(&*sessions, &[session(1, "alice"), session(2, "alice")]).await;
    let twin = SessionRecord { id: session(9, "alice").id, ..session(2, "alice") };
    assert!(sessions.open(twin, 1, Some(hash(1))).await.is_err());
    assert_eq!(loaded(&*sessions).await, [session(1, "alice"), session(2, "alice")]);
}

pub(crate) async fn clause_03_read_your_write(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for handset in 1..=20 {
        bind(&*store, handset, &format!("account-{handset}")).await;
        let elsewhere = Arc::clone(&store);
        // Another thread with another runtime, as the other cores have.
        let found = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(resolves(&*elsewhere, handset))
        });
        assert_eq!(found.join().unwrap(), Some(binding_id(handset)));
        store.revoke(binding_id(handset)).await.unwrap();
        assert!(!store.stands(binding_id(handset)).await.unwrap());
    }
}

pub(crate) async fn clause_04_linear(backend: impl Backend) {
    let sessions = backend.sessions();
    let opened = together((1..=200).map(|n| {
        let sessions = Arc::clone(&sessions);
        async move { sessions.open(session(n, &format!("account-{n}")), 5, None).await }
    }));
    assert!(opened.await.into_iter().all(|ended| ended.unwrap().is_empty()));
    assert_eq!(loaded(&*sessions).await.len(), 200);

    // Every session that opened either stands or was reported as ended, by exactly one call.
    let opened = together((201..=250).map(|n| {
        let sessions = Arc::clone(&sessions);
        async move { sessions.open(session(n, "crowd"), 5, None).await.unwrap() }
    }));
    let ended: Vec<TokenHash> = opened.await.concat();
    let mut left = loaded(&*sessions).await;
    left.retain(|s| s.account == account("crowd"));
    assert_eq!((ended.len(), left.len()), (45, 5));
    assert!(left.iter().all(|s| !ended.contains(&s.token_hash)));
}
