//! The clauses of the port of bindings, but for enrolment and import.

use std::collections::BTreeSet;
use std::sync::Arc;

use sekisho::binding::{AccountState, BindingDigest, Chain};
use sekisho::clock::Timestamp;
use sekisho::store::{BindingStore, CodeLimits, EnrolOutcome, Enrolment, IssueOutcome, LookUp, NewCode, Probe};

use crate::conformance::{
    Backend, account, at, bind, binding_id, bindings_of, carrier, code, enrolment, probe, resolves, today, together,
};

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
    assert_eq!(outcomes.iter().filter(|o| matches!(o, EnrolOutcome::Bound(..))).count(), 1);
    assert_eq!(outcomes.iter().filter(|o| **o == EnrolOutcome::BindingLimit).count(), 9);
    assert_eq!(store.bindings(None).await.unwrap().len(), 1);

    // The same digest from another carrier is another handset.
    store.issue_code(code("other", "5555", 5)).await.unwrap();
    let other = Enrolment { carrier: carrier("au"), id: binding_id(99), ..enrolment(1, "5555", 5) };
    assert!(matches!(store.enrol(other, at(1)).await.unwrap(), EnrolOutcome::Bound(..)));
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
    let bound = outcomes.await.into_iter().filter(|o| matches!(o, EnrolOutcome::Bound(..))).count();
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
    assert!(matches!(store.enrol(enrolment(2, "1234", 1), at(1)).await.unwrap(), EnrolOutcome::Bound(..)));

    // A new code begins at nought, also with the same selector.
    store.issue_code(code("alice", "1234", 1)).await.unwrap();
    assert!(matches!(store.enrol(enrolment(1, "1234", 1), at(1)).await.unwrap(), EnrolOutcome::Bound(..)));
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
        let hit = store.resolve(&docomo, &probes).await.unwrap().hit;
        assert_eq!(hit.map(|h| h.binding.account), expected.map(account), "{digests:?}");
    }
    assert_eq!(store.resolve(&carrier("au"), &[probe("k1", 1)]).await.unwrap(), LookUp { hit: None, generation: 0 });
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
    assert!(matches!(store.enrol(enrolment(1, "2222", 4), at(10)).await.unwrap(), EnrolOutcome::Bound(..)));
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
    let hit = store.resolve(&carrier("docomo"), &[probe("k1", 1)]).await.unwrap().hit.unwrap();
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
    assert!(matches!(store.enrol(enrolment(3, "3333", 3), at(10)).await.unwrap(), EnrolOutcome::Bound(..)));
    store.issue_code(code("alice", "4444", 4)).await.unwrap();
    store.purge(at(11), today(), 9).await.unwrap();
    assert_eq!(store.enrol(enrolment(4, "4444", 4), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
}
