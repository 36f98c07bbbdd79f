//! The clauses of copies and of what they must not bring back, one function each; listed by
//! [`keeps_what_is_erased_erased!`].

use std::collections::BTreeSet;
use std::sync::Arc;

use sekisho::binding::KeyId;
use sekisho::clock::Day;
use sekisho::store::{BackupStore, CopyKind, EraseOutcome, ImportOutcome, IssueOutcome, Tombstone, TombstoneKind};

use crate::conformance::{
    Backend, account, at, bind, binding_id, bindings_of, code, imported, loaded, open_all, resolves, session, today,
    together,
};

/// One test a clause for the backend `$backend`.
macro_rules! keeps_what_is_erased_erased {
    ($backend:ty) => {
        keeps_what_is_erased_erased! { $backend:
            clause_80_told
            clause_80_told_after_a_crash_and_until_it_was_heard
            clause_81_again
            clause_81_an_account_made_anew_is_another
            clause_82_of_one_instant
            clause_82_a_backup_has_nothing_that_is_over
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::backup_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_what_is_erased_erased;

async fn told(store: &Arc<dyn BackupStore>) -> Vec<Tombstone> {
    store.tombstones(100).await.unwrap().0
}

fn of_binding(number: u8) -> Tombstone {
    Tombstone { kind: TombstoneKind::Binding, id: binding_id(number).to_string() }
}

/// Bindings that were told of, by their number; and how many accounts.
async fn erased(store: &Arc<dyn BackupStore>, numbers: &[u8]) -> (Vec<u8>, usize) {
    let told = told(store).await;
    let bindings = numbers.iter().copied().filter(|number| told.contains(&of_binding(*number))).collect();
    (bindings, told.iter().filter(|tombstone| tombstone.kind == TombstoneKind::Account).count())
}

pub(crate) async fn clause_80_told(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.backups());
    for (handset, name) in [(1, "alice"), (2, "alice"), (3, "bob"), (4, "carol"), (5, "carol"), (6, "dora")] {
        bind(&*bindings, handset, name).await;
    }
    let all = [1, 2, 3, 4, 5, 6];
    assert_eq!(told(&store).await, []);
    assert!(bindings.revoke(binding_id(1)).await.unwrap().is_some());
    assert_eq!(erased(&store, &all).await, (vec![1], 0), "revoked");
    let erasure = backend.subjects().erase(&account("carol"), None, at(3)).await.unwrap();
    assert!(matches!(erasure, EraseOutcome::Erased(_)));
    assert_eq!(erased(&store, &all).await, (vec![1, 4, 5], 1), "erased with their account");
    assert_eq!(backend.rotations().purge_chain(KeyId::new(1), 1).await.unwrap().len(), 1);
    assert_eq!(told(&store).await.len(), 5, "past the deadline of a rotation");
    let unused = bindings.purge(at(3), Day::from_unix_days(today().unix_days() + 1), 100).await.unwrap();
    assert_eq!(unused.len(), 2);
    assert_eq!(erased(&store, &all).await, (all.to_vec(), 1), "unused for too long");
    // What was not there is not told of.
    assert_eq!(bindings.revoke(binding_id(1)).await.unwrap(), None);
    assert_eq!(told(&store).await.len(), 7);
}

pub(crate) async fn clause_80_told_after_a_crash_and_until_it_was_heard(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.backups());
    for handset in 1..=3 {
        bind(&*bindings, handset, "alice").await;
    }
    for handset in [2, 1] {
        bindings.revoke(binding_id(handset)).await.unwrap();
    }
    drop((bindings, store));
    let backend = backend.restart();
    let store = backend.backups();
    assert_eq!(told(&store).await, [of_binding(2), of_binding(1)], "oldest first");
    let (first, until) = store.tombstones(1).await.unwrap();
    assert_eq!(first, [of_binding(2)]);
    backend.bindings().revoke(binding_id(3)).await.unwrap();
    store.tombstones_kept(until).await.unwrap();
    assert_eq!(told(&store).await, [of_binding(1), of_binding(3)]);
    let (_, until) = store.tombstones(100).await.unwrap();
    store.tombstones_kept(until).await.unwrap();
    drop(store);
    assert_eq!(told(&backend.restart().backups()).await, []);
}

pub(crate) async fn clause_81_again(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.backups());
    for (handset, name) in [(1, "alice"), (2, "alice"), (3, "bob"), (4, "carol")] {
        bind(&*bindings, handset, name).await;
    }
    // The ledger's: of a binding and an account that go later, and of one that this store never had.
    let copy = store.copy(CopyKind::Shadow).await.unwrap();
    bindings.revoke(binding_id(1)).await.unwrap();
    backend.subjects().erase(&account("bob"), None, at(3)).await.unwrap();
    let mut ledger = told(&store).await;
    ledger.push(of_binding(77));
    drop((bindings, store));

    let backend = backend.opened(copy);
    let (bindings, store) = (backend.bindings(), backend.backups());
    assert_eq!(bindings.issue_code(code("carol", "7777", 7)).await.unwrap(), IssueOutcome::Issued);
    open_all(&*backend.sessions(), &[session(2, "alice"), session(4, "carol")]).await;
    bindings.revoke(binding_id(4)).await.unwrap();
    assert_eq!(store.erase_again(ledger.clone()).await.unwrap(), 3, "two bindings and an account");
    assert_eq!((resolves(&*bindings, 1).await, resolves(&*bindings, 3).await), (None, None));
    assert_eq!(resolves(&*bindings, 2).await, Some(binding_id(2)));
    assert_eq!(bindings.account(&account("bob")).await.unwrap(), None);
    assert!(bindings.account(&account("carol")).await.unwrap().is_some());
    assert_eq!(loaded(&*backend.sessions()).await, []);
    assert_eq!(bindings.live_codes(at(1)).await.unwrap(), 0);
    assert_eq!(told(&store).await, [of_binding(4)], "only what the ledger has not heard of");
    assert_eq!(store.erase_again(ledger).await.unwrap(), 0, "once is enough");
    drop((bindings, store));
    let backend = backend.restart();
    assert_eq!(resolves(&*backend.bindings(), 1).await, None);

    // Without a tombstone, sessions and codes end all the same.
    backend.bindings().issue_code(code("carol", "8888", 8)).await.unwrap();
    open_all(&*backend.sessions(), &[session(2, "alice")]).await;
    assert_eq!(backend.backups().erase_again(Vec::new()).await.unwrap(), 0);
    assert_eq!(loaded(&*backend.sessions()).await, []);
    assert_eq!(backend.bindings().live_codes(at(1)).await.unwrap(), 0);
}

pub(crate) async fn clause_81_an_account_made_anew_is_another(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.backups());
    bind(&*bindings, 1, "alice").await;
    backend.subjects().erase(&account("alice"), None, at(3)).await.unwrap();
    let ledger = told(&store).await;
    assert_eq!(ledger.len(), 2);
    bind(&*bindings, 2, "alice").await;
    assert_eq!(store.erase_again(ledger).await.unwrap(), 0);
    assert_eq!(resolves(&*bindings, 2).await, Some(binding_id(2)));
}

/// Handsets are bound two by two and one after another while copies are made: each has all that was answered before it
/// was asked for, and of what came later no half and nothing without what came before.
pub(crate) async fn clause_82_of_one_instant(backend: impl Backend) {
    const PAIRS: u8 = 60;
    let (bindings, store) = (bindings_of(&backend).await, backend.backups());
    let bind_pair = async |pair: u8| {
        let pair = [2 * pair, 2 * pair + 1].map(|handset| imported(handset, &format!("account-{handset}")));
        let outcomes = bindings.import(pair.into(), 3, at(1)).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == ImportOutcome::Bound), "{outcomes:?}");
    };
    for pair in 0..4 {
        bind_pair(pair).await;
    }
    let copies = tokio::spawn({
        let store = Arc::clone(&store);
        let copy = move |store: Arc<dyn BackupStore>| async move { store.copy(CopyKind::Backup).await.unwrap() };
        // The second waits for the first.
        async move { together([copy(Arc::clone(&store)), copy(store)]).await }
    });
    for pair in 4..PAIRS {
        bind_pair(pair).await;
    }
    let all = bindings.bindings(None).await.unwrap();
    for copied in copies.await.unwrap() {
        let (counted, accounts) = (copied.bindings, copied.accounts);
        assert_eq!(copied.digests_under, ["k1"]);
        assert_eq!(
            BTreeSet::from_iter(&*copied.keys),
            BTreeSet::from_iter(&["k1", "a1", "s1", "u1"].map(str::to_owned))
        );
        assert_eq!(copied.key_revision, backend.keys().keys().await.unwrap().revision);
        let copy = backend.opened(copied);
        let there = copy.bindings().bindings(None).await.unwrap();
        assert_eq!((there.len() as u64, there.len() as u64), (counted, accounts));
        assert!(there.len() >= 8 && there.len().is_multiple_of(2), "{} of {}", there.len(), all.len());
        assert_eq!(there, all[..there.len()]);
        assert_eq!(copy.keys().store_id().await.unwrap(), backend.keys().store_id().await.unwrap());
    }
}

pub(crate) async fn clause_82_a_backup_has_nothing_that_is_over(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.backups());
    for handset in [1, 2] {
        bind(&*bindings, handset, "alice").await;
    }
    bindings.revoke(binding_id(2)).await.unwrap();
    bindings.issue_code(code("alice", "7777", 7)).await.unwrap();
    open_all(&*backend.sessions(), &[session(1, "alice")]).await;
    for (kind, over) in [(CopyKind::Backup, 0), (CopyKind::Shadow, 1)] {
        let copy = backend.opened(store.copy(kind).await.unwrap());
        assert_eq!(resolves(&*copy.bindings(), 1).await, Some(binding_id(1)), "{kind:?}");
        assert_eq!(loaded(&*copy.sessions()).await.len(), over, "{kind:?}");
        assert_eq!(copy.bindings().live_codes(at(1)).await.unwrap(), over as u64, "{kind:?}");
        assert_eq!(told(&copy.backups()).await, [], "{kind:?}: the ledger hears of it from the store that is copied");
    }
    assert_eq!(told(&store).await, [of_binding(2)], "and still does");
}
