//! The clauses of an import.

use sekisho::binding::{AccountState, BindingDigest, Chain};
use sekisho::store::{BindingRecord, ImportOutcome, ImportedBinding, StoreError};

use crate::conformance::{Backend, account, at, bind, binding_id, bindings_of, carrier, imported, probe, resolves};

pub(crate) async fn clause_17_imports_are_judged_one_after_another(backend: impl Backend) {
    use ImportOutcome::{AlreadyBound, BindingLimit, Bound, BoundElsewhere, Stale, Suspended};
    let store = bindings_of(&backend).await;
    let enrolled = bind(&*store, 1, "alice").await;
    for (handset, name) in [(2, "suspended"), (3, "idle")] {
        bind(&*store, handset, name).await;
        store.set_account_state(&account(name), AccountState::Suspended).await.unwrap();
    }
    // After a rotation: the record of handset 1 is under k1 still, the new one would be under k2.
    let rotated = |name: &str| ImportedBinding {
        probes: vec![probe("k1", 1), probe("k1,k2", 11), probe("k2", 12)],
        digest: BindingDigest::from_bytes([12; 32]),
        chain: Chain::parse("k2").unwrap(),
        id: binding_id(112),
        ..imported(1, name)
    };
    let bindings = vec![
        imported(4, "alice"),
        imported(4, "bob"),
        imported(4, "alice"),
        imported(1, "alice"),
        rotated("alice"),
        rotated("bob"),
        imported(2, "suspended"),
        imported(5, "suspended"),
        imported(6, "alice"),
        ImportedBinding { generation: 1, ..imported(7, "carol") },
        ImportedBinding { carrier: carrier("au"), id: binding_id(99), ..imported(1, "dave") },
    ];
    let outcomes = store.import(bindings, 2, at(24 * 60)).await.unwrap();
    assert_eq!(
        outcomes,
        [
            Bound,
            BoundElsewhere,
            AlreadyBound,
            AlreadyBound,
            AlreadyBound,
            BoundElsewhere,
            AlreadyBound,
            Suspended,
            BindingLimit,
            Stale,
            Bound
        ]
    );
    let day = at(24 * 60).day();
    let new = BindingRecord { id: binding_id(104), bound_on: day, last_used_on: day, ..enrolled.clone() };
    assert_eq!(store.bindings(Some(&account("alice"))).await.unwrap(), [enrolled, new]);
    assert_eq!(resolves(&*store, 4).await, Some(binding_id(104)));
    let accounts: Vec<_> = store.accounts().await.unwrap().into_iter().map(|a| (a.account, a.bindings)).collect();
    let expected =
        [("alice", 2), ("dave", 1), ("idle", 1), ("suspended", 1)].map(|(name, count)| (account(name), count));
    assert_eq!(accounts, expected, "no account for a line that was refused");
    assert_eq!(store.account(&account("dave")).await.unwrap().unwrap().state, AccountState::Active);
    assert_eq!(store.account(&account("suspended")).await.unwrap().unwrap().state, AccountState::Suspended);
    assert_eq!(store.import(vec![], 1, at(0)).await.unwrap(), []);
}

pub(crate) async fn clause_17_an_import_is_whole(backend: impl Backend) {
    assert!(backend.bindings().import(vec![imported(1, "alice")], 3, at(0)).await.is_err(), "there are no keys yet");
    let store = bindings_of(&backend).await;
    let taken = bind(&*store, 1, "alice").await.id;
    let collision = ImportedBinding { id: taken, ..imported(3, "carol") };
    let failed = store.import(vec![imported(2, "bob"), collision], 3, at(0)).await;
    assert!(matches!(failed, Err(StoreError::Corrupt(_))), "{failed:?}");
    assert_eq!((resolves(&*store, 2).await, store.accounts().await.unwrap().len()), (None, 1));

    let many = || (2..=100).map(|handset| imported(handset, &format!("account-{handset}"))).collect::<Vec<_>>();
    assert_eq!(store.import(many(), 1, at(0)).await.unwrap(), vec![ImportOutcome::Bound; 99]);
    drop(store);
    let backend = backend.restart();
    let store = backend.bindings();
    assert_eq!(store.bindings(None).await.unwrap().len(), 100);
    assert_eq!(store.import(many(), 1, at(0)).await.unwrap(), vec![ImportOutcome::AlreadyBound; 99]);
}
