//! What an enrolment comes to, by code and by a console.

use std::sync::Arc;

use sekisho::binding::{AccountState, BindingDigest, Chain};
use sekisho::store::{BindingRecord, CodeIssuer, EnrolOutcome, Enrolment, EnrolmentAuthority, IssueOutcome, NewCode};

use crate::conformance::{
    Backend, account, at, bind, binding_id, bindings_of, code, enrolment, probe, resolves, together,
};

pub(crate) async fn enrolment_says_why_not(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    store.issue_code(code("alice", "2222", 2)).await.unwrap();
    let stale = Enrolment { generation: 1, ..enrolment(2, "2222", 2) };
    assert_eq!(store.enrol(stale, at(1)).await.unwrap(), EnrolOutcome::Stale);
    let full = Enrolment { per_account: 1, ..enrolment(2, "2222", 2) };
    assert_eq!(store.enrol(full, at(1)).await.unwrap(), EnrolOutcome::BindingLimit);
    store.set_account_state(&account("alice"), AccountState::Suspended).await.unwrap();
    assert_eq!(store.enrol(enrolment(2, "2222", 2), at(1)).await.unwrap(), EnrolOutcome::Suspended);
    // A wrong code says nothing of the account.
    assert_eq!(store.enrol(enrolment(2, "2222", 9), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    store.set_account_state(&account("alice"), AccountState::Active).await.unwrap();
    // None of the refusals spent the code.
    assert!(matches!(store.enrol(enrolment(2, "2222", 2), at(1)).await.unwrap(), EnrolOutcome::Bound(..)));
}

pub(crate) async fn enrolment_of_a_bound_handset_spends_the_code(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    let bound = bind(&*store, 1, "alice").await;
    let expires_at = at(3 * 24 * 60);
    store.issue_code(NewCode { expires_at, ..code("alice", "2222", 2) }).await.unwrap();
    let again = Enrolment { per_account: 1, id: binding_id(8), ..enrolment(1, "2222", 2) };
    let used = BindingRecord { last_used_on: at(2 * 24 * 60).day(), ..bound };
    assert_eq!(
        store.enrol(again, at(2 * 24 * 60)).await.unwrap(),
        EnrolOutcome::AlreadyBound(used.clone(), Some(CodeIssuer::Operator))
    );
    assert_eq!(store.bindings(None).await.unwrap(), [used]);

    // Found under an older chain, it is flattened as by a sign-in.
    store.issue_code(code("alice", "4444", 4)).await.unwrap();
    let flat = Enrolment {
        probes: vec![probe("k1", 1), probe("k2", 12)],
        digest: BindingDigest::from_bytes([12; 32]),
        chain: Chain::parse("k2").unwrap(),
        ..enrolment(1, "4444", 4)
    };
    let EnrolOutcome::AlreadyBound(binding, _) = store.enrol(flat, at(1)).await.unwrap() else { panic!("it is bound") };
    assert_eq!(store.bindings(None).await.unwrap(), std::slice::from_ref(&binding));
    assert_eq!((binding.chain.to_string(), resolves(&*store, 12).await), ("k2".to_owned(), Some(binding.id)));
    assert_eq!(store.enrol(enrolment(3, "2222", 2), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
}

/// Handset `handset` sent a request that the console says is `name`'s.
fn by_console(handset: u8, name: &str) -> Enrolment {
    Enrolment { authority: EnrolmentAuthority::Console { account: account(name) }, ..enrolment(handset, "", 0) }
}

pub(crate) async fn a_console_binds_without_a_code(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    store.issue_code(code("alice", "2222", 2)).await.unwrap();
    for (handset, name) in [(1, "alice"), (2, "new")] {
        let outcome = store.enrol(by_console(handset, name), at(1)).await.unwrap();
        let EnrolOutcome::Bound(binding, _) = outcome else { panic!("{outcome:?}") };
        assert_eq!((binding.account, resolves(&*store, handset).await), (account(name), Some(binding.id)));
    }
    let created = store.account(&account("new")).await.unwrap().unwrap();
    assert_eq!((created.state, created.created_at, created.bindings), (AccountState::Active, at(1), 1));
    let later = at(24 * 60);
    let again = Enrolment { per_account: 1, id: binding_id(9), ..by_console(2, "new") };
    let outcome = store.enrol(again, later).await.unwrap();
    let EnrolOutcome::AlreadyBound(binding, _) = outcome else { panic!("{outcome:?}") };
    assert_eq!((binding.id, binding.last_used_on), (binding_id(2), later.day()));
    // The account's own code is not spent by it.
    assert!(matches!(store.enrol(enrolment(3, "2222", 2), at(1)).await.unwrap(), EnrolOutcome::Bound(..)));

    drop(store);
    let backend = backend.restart();
    assert_eq!(backend.bindings().bindings(None).await.unwrap().len(), 3);
}

pub(crate) async fn a_console_rebinds_nobody(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    let bound = bind(&*store, 1, "alice").await;
    assert_eq!(store.enrol(by_console(1, "bob"), at(1)).await.unwrap(), EnrolOutcome::BindingLimit);
    assert_eq!(store.account(&account("bob")).await.unwrap(), None, "a refusal creates no account");
    let full = Enrolment { per_account: 1, ..by_console(2, "alice") };
    assert_eq!(store.enrol(full, at(1)).await.unwrap(), EnrolOutcome::BindingLimit);
    let stale = Enrolment { generation: 1, ..by_console(2, "alice") };
    assert_eq!(store.enrol(stale, at(1)).await.unwrap(), EnrolOutcome::Stale);
    store.set_account_state(&account("alice"), AccountState::Suspended).await.unwrap();
    for handset in [1, 2] {
        assert_eq!(store.enrol(by_console(handset, "alice"), at(1)).await.unwrap(), EnrolOutcome::Suspended);
    }
    assert_eq!(store.bindings(None).await.unwrap(), [bound]);

    // Of two consoles' words at once one binds.
    let outcomes = together([("carol", 5), ("dave", 6)].map(|(name, id)| {
        let (store, id) = (Arc::clone(&store), binding_id(id));
        async move { store.enrol(Enrolment { id, ..by_console(5, name) }, at(1)).await.unwrap() }
    }));
    let outcomes = outcomes.await;
    assert_eq!(outcomes.iter().filter(|o| matches!(o, EnrolOutcome::Bound(..))).count(), 1);
    assert_eq!(outcomes.iter().filter(|o| **o == EnrolOutcome::BindingLimit).count(), 1);
}

pub(crate) async fn the_right_code_under_a_former_key(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    store.issue_code(code("alice", "1111", 1)).await.unwrap();
    let typed = |macs| Enrolment {
        authority: EnrolmentAuthority::Code { selector: "1111".into(), macs, handset_tag: [1; 16] },
        ..enrolment(1, "1111", 1)
    };
    // The hash counts only under the key that made it.
    for macs in [vec![("s2".into(), [1; 32])], vec![("s1".into(), [2; 32]), ("s2".into(), [1; 32])], vec![]] {
        assert_eq!(store.enrol(typed(macs), at(1)).await.unwrap(), EnrolOutcome::CodeInvalid);
    }
    let macs = vec![("s1".into(), [1; 32]), ("s2".into(), [2; 32])];
    assert!(matches!(store.enrol(typed(macs), at(1)).await.unwrap(), EnrolOutcome::Bound(..)));
}

pub(crate) async fn a_persons_code_is_their_own_and_says_so(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    bind(&*store, 2, "bob").await;
    let asked = |name: &str, handset: u8| NewCode { asked_by: Some(binding_id(handset)), ..code(name, "5555", 5) };
    for (name, handset) in [("alice", 2), ("alice", 9), ("carol", 1)] {
        assert_eq!(
            store.issue_code(asked(name, handset)).await.unwrap(),
            IssueOutcome::NotEntitled,
            "{name} {handset}"
        );
    }
    assert!(store.account(&account("carol")).await.unwrap().is_none(), "nobody is made");
    store.set_account_state(&account("alice"), AccountState::Suspended).await.unwrap();
    assert_eq!(store.issue_code(asked("alice", 1)).await.unwrap(), IssueOutcome::NotEntitled);
    store.set_account_state(&account("alice"), AccountState::Active).await.unwrap();
    assert_eq!(store.issue_code(asked("alice", 1)).await.unwrap(), IssueOutcome::Issued);
    let EnrolOutcome::Bound(binding, issuer) = store.enrol(enrolment(3, "5555", 5), at(1)).await.unwrap() else {
        panic!("it is a code");
    };
    assert_eq!((binding.account, issuer), (account("alice"), Some(CodeIssuer::Person)));
    store.issue_code(code("alice", "6666", 6)).await.unwrap();
    let again = store.enrol(enrolment(3, "6666", 6), at(1)).await.unwrap();
    assert!(matches!(again, EnrolOutcome::AlreadyBound(_, Some(CodeIssuer::Operator))), "{again:?}");
}
