//! The clauses of `sekisho::store`, one function each. A backend runs them all with [`keeps_the_contract!`].

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::thread;

use sekisho::binding::{AccountId, AccountState, BindingDigest, BindingId, Chain};
use sekisho::carrier::CarrierName;
use sekisho::clock::{Day, Timestamp};
use sekisho::session::{SessionId, TokenHash};
use sekisho::store::{
    ApprovalStore, AuditStore, BindingRecord, BindingStore, CodeLimits, EnrolOutcome, Enrolment, EnrolmentAuthority,
    ImportedBinding, IssueOutcome, KeyDates, KeyPurpose, KeyRecord, KeyState, KeyStore, NewCode, NewsStore, PinStore,
    Probe, ProofStore, ReceiptStore, RotationStore, SchemeRecord, SessionRecord, SessionStore, StatisticsStore,
    StoreError, StoredKeys, StretchParameters, SubjectStore, TokenTransport,
};
use tokio::task::JoinSet;

pub(crate) use crate::audit_conformance::*;
pub(crate) use crate::enrolment_conformance::*;
pub(crate) use crate::import_conformance::*;
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
    fn subjects(&self) -> Arc<dyn SubjectStore>;
    fn statistics(&self) -> Arc<dyn StatisticsStore>;
    fn proofs(&self) -> Arc<dyn ProofStore>;
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
    let EnrolOutcome::Bound(binding) = outcome else { panic!("{outcome:?}") };
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
    let hit = store.resolve(&carrier("docomo"), &[probe("k1", handset)]).await.unwrap();
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
    assert!(matches!(store.enrol(enrolment(7, "7777", 7), at(1)).await.unwrap(), EnrolOutcome::Bound(_)));
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
        assert!(matches!(outcome, EnrolOutcome::Bound(_)), "{outcome:?}");
    }

    // A session that cannot be opened ends none.
    let sessions = backend.sessions();
    open_all(&*sessions, &[session(1, "alice"), session(2, "alice")]).await;
    let twin = SessionRecord { token_hash: hash(9), ..session(2, "alice") };
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

pub(crate) async fn clause_05_one_account_per_handset(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for n in 10..20_u8 {
        store.issue_code(code(&format!("account-{n}"), &format!("{n:04}"), n)).await.unwrap();
    }
    let outcomes = together((10..20_u8).map(|n| {
        let store = Arc::clone(&store);
        let same_handset = Enrolment { id: binding_id(n), ..enrolment(1, &format!("{n:04}"), n) };
        async move { store.enrol(same_handset, at(1)).await.unwrap() }
    }));
    let outcomes = outcomes.await;
    assert_eq!(outcomes.iter().filter(|o| matches!(o, EnrolOutcome::Bound(_))).count(), 1);
    assert_eq!(outcomes.iter().filter(|o| **o == EnrolOutcome::BindingLimit).count(), 9);
    assert_eq!(store.bindings(None).await.unwrap().len(), 1);

    // The same digest from another carrier is another handset.
    store.issue_code(code("other", "5555", 5)).await.unwrap();
    let other = Enrolment { carrier: carrier("au"), id: binding_id(99), ..enrolment(1, "5555", 5) };
    assert!(matches!(store.enrol(other, at(1)).await.unwrap(), EnrolOutcome::Bound(_)));
}

pub(crate) async fn clause_05_a_handset_bound_under_an_older_chain_is_found(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    store.issue_code(code("bob", "2222", 2)).await.unwrap();
    // After a rotation: the record is under k1 still, the new one would be under k2.
    let rotated = Enrolment {
        probes: vec![probe("k1", 1), probe("k1,k2", 11), probe("k2", 12)],
        digest: BindingDigest::from_bytes([12; 32]),
        chain: Chain::parse("k2").unwrap(),
        id: binding_id(2),
        ..enrolment(1, "2222", 2)
    };
    assert_eq!(store.enrol(rotated, at(1)).await.unwrap(), EnrolOutcome::BindingLimit);
    assert_eq!(store.bindings(None).await.unwrap().len(), 1);
}

pub(crate) async fn clause_06_single_use(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    store.issue_code(code("alice", "1234", 1)).await.unwrap();
    let outcomes = together((1..=20).map(|handset| {
        let store = Arc::clone(&store);
        async move { store.enrol(enrolment(handset, "1234", 1), at(1)).await.unwrap() }
    }));
    let bound = outcomes.await.into_iter().filter(|o| matches!(o, EnrolOutcome::Bound(_))).count();
    assert_eq!((bound, store.bindings(None).await.unwrap().len()), (1, 1));
    assert_eq!(store.enrol(enrolment(21, "1234", 1), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
}

pub(crate) async fn clause_07_counted_per_handset(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    store.issue_code(code("alice", "1234", 1)).await.unwrap();
    for _ in 0..CodeLimits::PER_HANDSET {
        assert_eq!(store.enrol(enrolment(1, "1234", 9), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    }
    for _ in 1..CodeLimits::PER_HANDSET {
        assert_eq!(store.enrol(enrolment(2, "1234", 9), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    }
    drop(store);
    let backend = backend.restart();
    let store = backend.bindings();
    assert_eq!(store.enrol(enrolment(1, "1234", 1), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    // However often it goes on, that handset is out, and the code still serves another.
    for _ in 0..CodeLimits::IN_ALL {
        assert_eq!(store.enrol(enrolment(1, "1234", 9), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    }
    assert!(matches!(store.enrol(enrolment(2, "1234", 1), at(1)).await.unwrap(), EnrolOutcome::Bound(_)));

    // A new code begins at nought, also with the same selector.
    store.issue_code(code("alice", "1234", 1)).await.unwrap();
    assert!(matches!(store.enrol(enrolment(1, "1234", 1), at(1)).await.unwrap(), EnrolOutcome::Bound(_)));
}

pub(crate) async fn clause_07_counted_in_all(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    store.issue_code(code("alice", "1234", 1)).await.unwrap();
    let wrong = |handset: u32| enrolment(u8::try_from(handset).unwrap(), "1234", 9);
    for handset in 1..CodeLimits::IN_ALL {
        assert_eq!(store.enrol(wrong(handset), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    }
    // Tries at other codes do not count against this one.
    assert_eq!(store.enrol(enrolment(99, "4321", 9), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    assert_eq!(store.enrol(wrong(CodeLimits::IN_ALL), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    assert_eq!(store.enrol(enrolment(100, "1234", 1), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    // A dead code frees its selector.
    assert_eq!(store.issue_code(code("bob", "1234", 2)).await.unwrap(), IssueOutcome::Issued);
}

pub(crate) async fn clause_08_resolve_takes_the_first_probe_that_hits(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    bind(&*store, 2, "bob").await;
    let docomo = carrier("docomo");
    for (digests, expected) in
        [(vec![9, 2, 1], Some("bob")), (vec![1, 2], Some("alice")), (vec![8, 9], None), (vec![], None)]
    {
        let probes: Vec<Probe> = digests.iter().map(|d| probe("k1", *d)).collect();
        let hit = store.resolve(&docomo, &probes).await.unwrap();
        assert_eq!(hit.map(|h| h.binding.account), expected.map(account), "{digests:?}");
    }
    assert_eq!(store.resolve(&carrier("au"), &[probe("k1", 1)]).await.unwrap(), None);
    assert_eq!(store.generation().await.unwrap(), 0);
}

pub(crate) async fn clause_10_used_moves_forward_only(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    let id = bind(&*store, 1, "alice").await.id;
    let other = bind(&*store, 2, "alice").await.id;
    let tomorrow = at(24 * 60).day();
    let record = |store: Arc<dyn BindingStore>| async move { store.bindings(None).await.unwrap().remove(0) };

    assert_eq!(store.used(id, tomorrow, probe("k1", 1), 0).await, Ok(true));
    assert_eq!(record(Arc::clone(&store)).await.last_used_on, tomorrow);
    store.used(id, today(), probe("k2", 12), 0).await.unwrap();
    let flat = record(Arc::clone(&store)).await;
    assert_eq!((flat.last_used_on, flat.chain.to_string(), flat.bound_on), (tomorrow, "k2".to_owned(), today()));
    assert_eq!(resolves(&*store, 1).await, None, "the former digest is gone");
    assert_eq!(resolves(&*store, 12).await, Some(id));

    // A sign-in that was overtaken by the rotation does not move the record back.
    store.used(id, tomorrow, probe("k1", 1), 0).await.unwrap();
    assert_eq!(resolves(&*store, 12).await, Some(id));
    // The digest of another record is never taken; the day still counts.
    store.used(other, tomorrow, probe("k2", 12), 0).await.unwrap();
    assert_eq!(resolves(&*store, 2).await, Some(other));
    assert!(store.bindings(None).await.unwrap().iter().all(|b| b.last_used_on == tomorrow));

    // Digests of a key ring that is not in force any more move nothing.
    assert_eq!(store.used(other, tomorrow, probe("k2", 22), 1).await, Ok(false));
    assert_eq!(resolves(&*store, 2).await, Some(other));

    store.revoke(id).await.unwrap();
    store.used(id, tomorrow, probe("k3", 13), 0).await.unwrap();
    assert_eq!(resolves(&*store, 13).await, None);
}

pub(crate) async fn clause_11_codes_replace_refuse_and_die(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    store.issue_code(code("alice", "1111", 1)).await.unwrap();
    assert_eq!(store.issue_code(code("bob", "1111", 2)).await.unwrap(), IssueOutcome::SelectorTaken);
    // A new code of the same account ends the older one, also under the same selector.
    assert_eq!(store.issue_code(code("alice", "1111", 3)).await.unwrap(), IssueOutcome::Issued);
    assert_eq!(store.issue_code(code("alice", "2222", 4)).await.unwrap(), IssueOutcome::Issued);
    for (selector, mac) in [("1111", 1), ("1111", 3)] {
        assert_eq!(store.enrol(enrolment(1, selector, mac), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    }
    // Good in its last instant, dead after it.
    let after = Timestamp::from_unix_millis(at(10).unix_millis() + 1);
    assert_eq!((store.live_codes(at(10)).await, store.live_codes(after).await), (Ok(1), Ok(0)));
    assert_eq!(store.enrol(enrolment(1, "2222", 4), after).await.unwrap(), EnrolOutcome::CodeInvalid);
    let reissued = NewCode { issued_at: at(10), expires_at: at(20), ..code("bob", "2222", 5) };
    assert_eq!(store.issue_code(reissued).await.unwrap(), IssueOutcome::SelectorTaken);
    assert!(matches!(store.enrol(enrolment(1, "2222", 4), at(10)).await.unwrap(), EnrolOutcome::Bound(_)));
    store.issue_code(code("alice", "3333", 6)).await.unwrap();
    let reissued = NewCode { issued_at: after, expires_at: at(20), ..code("bob", "3333", 5) };
    assert_eq!(store.issue_code(reissued).await.unwrap(), IssueOutcome::Issued);
}

pub(crate) async fn clause_12_one_subject(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    assert_eq!(store.subject(&account("alice"), "console", "fresh".into()).await.unwrap(), None);
    store.issue_code(code("alice", "1111", 1)).await.unwrap();
    let subjects = together((0..20).map(|n| {
        let store = Arc::clone(&store);
        async move { store.subject(&account("alice"), "console", format!("fresh-{n}")).await.unwrap().unwrap() }
    }));
    let subjects = subjects.await;
    assert!(subjects.iter().all(|s| s == &subjects[0] && s.starts_with("fresh-")), "{subjects:?}");
    assert_eq!(store.subject(&account("alice"), "audit", "other".into()).await.unwrap().unwrap(), "other");
    let stored = store.account(&account("alice")).await.unwrap().unwrap().subjects;
    assert_eq!(stored, [("audit".into(), "other".into()), ("console".into(), subjects[0].clone())]);
}

pub(crate) async fn accounts_are_listed_and_suspended(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    let id = bind(&*store, 1, "bob").await.id;
    bind(&*store, 2, "bob").await;
    store.issue_code(code("alice", "3333", 3)).await.unwrap();
    store.subject(&account("bob"), "console", "sub-b".into()).await.unwrap();
    let listed: Vec<_> =
        store.accounts().await.unwrap().into_iter().map(|a| (a.account, a.bindings, a.subjects.len())).collect();
    assert_eq!(listed, [(account("alice"), 0, 0), (account("bob"), 2, 1)]);

    assert!(store.stands(id).await.unwrap());
    assert!(store.set_account_state(&account("bob"), AccountState::Suspended).await.unwrap());
    assert!(!store.set_account_state(&account("nobody"), AccountState::Suspended).await.unwrap());
    assert!(!store.stands(id).await.unwrap());
    bind(&*store, 4, "carol").await;
    // One of a suspended account, one that stands, one that never was.
    let fallen = store.fallen(vec![binding_id(77), binding_id(4), id]).await.unwrap();
    assert_eq!(fallen.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([id, binding_id(77)]));
    assert_eq!(store.account(&account("bob")).await.unwrap().unwrap().state, AccountState::Suspended);
    assert_eq!(store.account(&account("nobody")).await.unwrap(), None);
    let hit = store.resolve(&carrier("docomo"), &[probe("k1", 1)]).await.unwrap().unwrap();
    assert_eq!(hit.account_state, AccountState::Suspended);
}

pub(crate) async fn bindings_are_listed_and_revoked(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    let first = bind(&*store, 2, "alice").await;
    let second = bind(&*store, 1, "bob").await;
    let third = bind(&*store, 3, "alice").await;
    assert_eq!(store.bindings(None).await.unwrap(), [first.clone(), second, third.clone()]);
    assert_eq!(store.bindings(Some(&account("alice"))).await.unwrap(), [first.clone(), third]);
    assert_eq!(store.bindings(Some(&account("nobody"))).await.unwrap(), []);
    assert_eq!(backend.keys().bound_under("v1").await.unwrap(), 3);
    assert_eq!(backend.keys().bound_under("v2").await.unwrap(), 0);

    assert_eq!(store.binding(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.revoke(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.revoke(first.id).await.unwrap(), None);
    assert_eq!(store.binding(first.id).await.unwrap(), None);
    assert_eq!(resolves(&*store, 2).await, None);
    // The handset may be bound again, to anybody.
    assert_eq!(bind(&*store, 2, "carol").await.account, account("carol"));
}

pub(crate) async fn bindings_and_codes_are_purged(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    assert_eq!(store.last_use().await.unwrap(), None);
    let old = bind(&*store, 1, "alice").await.id;
    let used = bind(&*store, 2, "alice").await.id;
    let tomorrow = at(24 * 60).day();
    assert_eq!(store.last_use().await.unwrap(), Some(today()));
    store.used(used, tomorrow, probe("k1", 2), 0).await.unwrap();
    assert_eq!(store.last_use().await.unwrap(), Some(tomorrow));
    store.issue_code(code("alice", "3333", 3)).await.unwrap();
    assert_eq!(store.purge(at(10), today(), 9).await.unwrap(), []);
    assert_eq!(store.purge(at(10), tomorrow, 0).await.unwrap(), []);
    assert_eq!(store.purge(at(10), tomorrow, 9).await.unwrap(), [old]);
    // The code was in its last instant.
    assert!(matches!(store.enrol(enrolment(3, "3333", 3), at(10)).await.unwrap(), EnrolOutcome::Bound(_)));
    store.issue_code(code("alice", "4444", 4)).await.unwrap();
    store.purge(at(11), today(), 9).await.unwrap();
    assert_eq!(store.enrol(enrolment(4, "4444", 4), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
}

pub(crate) async fn clause_16_first_writer_wins(backend: impl Backend) {
    let keys = backend.keys();
    let StoredKeys { keys: there, scheme: none, .. } = keys.keys().await.unwrap();
    assert!(there.is_empty() && none.is_none());
    let both = together((1..=2).map(|n| {
        let keys = Arc::clone(&keys);
        async move { keys.initialise(first_keys(), scheme(&format!("v{n}"))).await }
    }));
    both.await.into_iter().for_each(Result::unwrap);
    let StoredKeys { keys: stored, scheme: first, .. } = keys.keys().await.unwrap();
    assert_eq!(stored.len(), KeyPurpose::ALL.len());
    keys.initialise(vec![], scheme("v9")).await.unwrap();
    assert_eq!(keys.keys().await.unwrap().scheme, first);
}

pub(crate) async fn keys_come_back_as_they_were_put(backend: impl Backend) {
    let keys = backend.keys();
    let mut put = first_keys();
    for (number, state) in (2_u8..).zip(KeyState::ALL).filter(|(_, state)| *state != KeyState::Active) {
        let id = format!("k{}", number * 3);
        let flags = (number % 2 == 0, number % 3 == 0);
        put.push(KeyRecord {
            id,
            state,
            suspended: flags.0,
            compromised: flags.1,
            wrapped: vec![number; 60],
            ..put[0].clone()
        });
    }
    let plain = SchemeRecord { stretch: None, ..scheme("v1") };
    keys.initialise(put.clone(), plain.clone()).await.unwrap();
    let StoredKeys { keys: stored, scheme, .. } = keys.keys().await.unwrap();
    assert_eq!(scheme, Some(plain));
    let order: Vec<&str> = stored.iter().map(|k| k.id.as_str()).collect();
    assert_eq!(order, ["a1", "u1", "k1", "k6", "k12", "k15", "k18", "k21", "s1"]);
    for key in put {
        let back = stored.iter().find(|k| k.id == key.id).unwrap();
        assert_eq!(format!("{back:?}"), format!("{key:?}"));
    }
}
