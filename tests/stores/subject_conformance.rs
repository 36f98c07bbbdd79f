//! The clauses of what persons may ask for, one function each; listed by [`keeps_what_persons_may_ask_for!`].

use std::sync::Arc;

use sekisho::binding::{AccountState, KeyId, Label};
use sekisho::clock::Day;
use sekisho::store::{
    AnswerOutcome, ApprovalRecord, ApprovalState, ApprovalStore, ApprovedAction, DueBindings, EraseOutcome,
    HoldOutcome, HoldRecord, IssueOutcome, NewApproval, Standing, SubjectStore,
};
use tokio::task::JoinSet;

use crate::conformance::{Backend, account, at, bind, binding_id, bindings_of, code, enrolment, resolves};

/// One test a clause for the backend `$backend`.
macro_rules! keeps_what_persons_may_ask_for {
    ($backend:ty) => {
        keeps_what_persons_may_ask_for! { $backend:
            clause_70_whole
            clause_71_erased_at_once
            clause_71_an_erasure_and_an_enrolment_at_once
            clause_71_approvals_name_nobody
            clause_72_unfinished_until_said
            clause_73_held
            clause_73_a_hold_that_was_asked_for_holds
            clause_74_held_at_once
            clause_75_scrubbed
            labels_are_of_ones_own
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::subject_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_what_persons_may_ask_for;

fn hold(reason: &str) -> HoldRecord {
    HoldRecord { reason: reason.into(), placed_by: "uid:1".into(), placed_at: at(2) }
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

async fn ask(store: &dyn ApprovalStore, action: ApprovedAction, name: &str) -> String {
    let new = NewApproval {
        action,
        object: name.into(),
        reason: "court".into(),
        asked_by: "uid:1".into(),
        approver: Some("uid:1".into()),
        needs: 2,
        revision: 0,
        at: at(0),
        expires_at: at(60),
    };
    store.ask(new).await.unwrap().id
}

async fn agreed(store: &dyn ApprovalStore, action: ApprovedAction, name: &str) -> String {
    let id = ask(store, action, name).await;
    assert!(matches!(store.approve(&id, "uid:2".into(), at(1)).await.unwrap(), AnswerOutcome::Counted(_)));
    id
}

async fn approval(store: &dyn ApprovalStore, id: &str) -> ApprovalRecord {
    store.approvals(at(3)).await.unwrap().into_iter().find(|record| record.id == id).unwrap()
}

async fn erased(store: &Arc<dyn SubjectStore>, name: &str) -> sekisho::store::ErasureRecord {
    match store.erase(&account(name), None, at(3)).await.unwrap() {
        EraseOutcome::Erased(erasure) => erasure,
        refused @ (EraseOutcome::Held | EraseOutcome::NotThere) => panic!("{refused:?}"),
    }
}

pub(crate) async fn clause_70_whole(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.subjects());
    assert_eq!(store.subject(&account("alice")).await.unwrap(), None);
    for handset in [1, 2] {
        bind(&*bindings, handset, "alice").await;
    }
    bind(&*bindings, 3, "bob").await;
    assert_eq!(bindings.issue_code(code("alice", "7777", 7)).await.unwrap(), IssueOutcome::Issued);
    bindings.subject(&account("alice"), "console", "pairwise".into()).await.unwrap();
    bindings.set_account_state(&account("alice"), AccountState::Suspended).await.unwrap();
    assert!(store.set_label(&account("alice"), binding_id(2), Some(label("work"))).await.unwrap());
    store.hold(&account("alice"), hold("court"), None).await.unwrap();

    let record = store.subject(&account("alice")).await.unwrap().unwrap();
    let shown: Vec<_> = record.bindings.iter().map(|b| (b.binding.id, b.label.clone())).collect();
    assert_eq!(shown, [(binding_id(1), None), (binding_id(2), Some(label("work")))]);
    assert_eq!((record.state, record.hold), (AccountState::Suspended, Some(hold("court"))));
    assert_eq!(record.subjects, [("console".to_owned(), "pairwise".to_owned())]);
    assert_eq!(record.code.unwrap().wrong_tries, 0);
    let backend = backend.restart();
    assert_eq!(backend.subjects().subject(&account("alice")).await.unwrap().unwrap().bindings, record.bindings);
}

pub(crate) async fn clause_71_erased_at_once(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.subjects());
    for handset in [1, 2] {
        bind(&*bindings, handset, "alice").await;
    }
    let other = bind(&*bindings, 3, "bob").await;
    bindings.issue_code(code("alice", "7777", 7)).await.unwrap();
    bindings.subject(&account("alice"), "console", "pairwise".into()).await.unwrap();
    store.set_label(&account("alice"), binding_id(1), Some(label("work"))).await.unwrap();
    assert_eq!(store.standing(&account("alice"), at(2)).await.unwrap(), Standing::Free);
    let erasure = erased(&store, "alice").await;
    assert_eq!((erasure.bindings, erasure.codes, erasure.subjects), (2, 1, 1));
    assert_eq!(store.standing(&account("alice"), at(3)).await.unwrap(), Standing::NotThere);
    assert_eq!(bindings.account(&account("alice")).await.unwrap(), None);
    assert_eq!(resolves(&*bindings, 1).await, None);
    assert_eq!(resolves(&*bindings, 3).await, Some(other.id));
    assert!(store.labels(&account("alice")).await.unwrap().is_empty());
    assert_eq!(bindings.live_codes(at(1)).await.unwrap(), 0);
    assert_eq!(store.erase(&account("alice"), None, at(3)).await.unwrap(), EraseOutcome::NotThere);
    // A new account of that id begins anew.
    bind(&*bindings, 1, "alice").await;
    let fresh = bindings.subject(&account("alice"), "console", "another".into()).await.unwrap();
    assert_eq!(fresh.as_deref(), Some("another"));
}

pub(crate) async fn clause_71_an_erasure_and_an_enrolment_at_once(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.subjects());
    for round in 0..20_u8 {
        bind(&*bindings, 1, "alice").await;
        let selector = format!("9{round:03}");
        bindings.issue_code(code("alice", &selector, 9)).await.unwrap();
        let mut at_once = JoinSet::new();
        let (enrolling, erasing) = (Arc::clone(&bindings), Arc::clone(&store));
        at_once.spawn(async move {
            enrolling.enrol(enrolment(2, &selector, 9), at(1)).await.unwrap();
        });
        at_once.spawn(async move {
            erased(&erasing, "alice").await;
        });
        at_once.join_all().await;
        assert_eq!(bindings.account(&account("alice")).await.unwrap(), None, "round {round}");
        assert_eq!((resolves(&*bindings, 1).await, resolves(&*bindings, 2).await), (None, None), "round {round}");
    }
}

pub(crate) async fn clause_71_approvals_name_nobody(backend: impl Backend) {
    let (bindings, store, approvals) = (bindings_of(&backend).await, backend.subjects(), backend.approvals());
    bind(&*bindings, 1, "alice").await;
    let placed = agreed(&*approvals, ApprovedAction::HoldSubject, "alice").await;
    assert_eq!(store.hold(&account("alice"), hold("court"), Some(&placed)).await.unwrap(), HoldOutcome::Done);
    let released = agreed(&*approvals, ApprovedAction::ReleaseSubject, "alice").await;
    let outcome = store.release(&account("alice"), "uid:1".into(), Some(&released), at(2)).await.unwrap();
    assert_eq!(outcome, HoldOutcome::Done);
    let open = ask(&*approvals, ApprovedAction::ReleaseSubject, "alice").await;
    let key = ask(&*approvals, ApprovedAction::DestroyKey, "alice").await;
    erased(&store, "alice").await;
    for (id, state) in
        [(&placed, ApprovalState::Done), (&released, ApprovalState::Done), (&open, ApprovalState::Denied)]
    {
        let record = approval(&*approvals, id).await;
        assert_eq!((record.state, record.object.as_str()), (state, "erased"), "{id}");
    }
    assert_eq!(approval(&*approvals, &key).await.object, "alice", "that is a key's name");
}

pub(crate) async fn clause_72_unfinished_until_said(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.subjects());
    bind(&*bindings, 1, "alice").await;
    let erasure = erased(&store, "alice").await;
    let backend = backend.restart();
    let store = backend.subjects();
    let unfinished = store.unfinished_erasures().await.unwrap();
    assert_eq!(unfinished, std::slice::from_ref(&erasure));
    assert_eq!(unfinished[0].account, Some(account("alice")));
    assert!(store.finish_erasure(&erasure.id).await.unwrap());
    assert!(!store.finish_erasure(&erasure.id).await.unwrap(), "once");
    for unknown in ["e9", "e01", "e", "p1", "e-1", ""] {
        assert!(!store.finish_erasure(unknown).await.unwrap(), "{unknown}");
    }
    assert!(store.unfinished_erasures().await.unwrap().is_empty());
    let kept = store.erasures(10).await.unwrap();
    assert_eq!((kept.len(), kept[0].account.clone(), kept[0].bindings), (1, None, 1));
    assert!(store.erasures(0).await.unwrap().is_empty());
}

pub(crate) async fn clause_73_held(backend: impl Backend) {
    let (bindings, store, rotations) = (bindings_of(&backend).await, backend.subjects(), backend.rotations());
    let (held, free) = (bind(&*bindings, 1, "alice").await, bind(&*bindings, 2, "bob").await);
    assert_eq!(store.hold(&account("alice"), hold("court"), None).await.unwrap(), HoldOutcome::Done);
    assert_eq!(store.hold(&account("alice"), hold("again"), None).await.unwrap(), HoldOutcome::Unchanged);
    assert_eq!(store.hold(&account("nobody"), hold("x"), None).await.unwrap(), HoldOutcome::NotThere);
    assert_eq!(store.held(&account("alice")).await.unwrap(), Some(hold("court")));
    assert_eq!(store.standing(&account("alice"), at(2)).await.unwrap(), Standing::Held);
    assert_eq!(store.erase(&account("alice"), None, at(2)).await.unwrap(), EraseOutcome::Held);
    assert_eq!(bindings.revoke(held.id).await.unwrap(), None);
    let far = Day::from_unix_days(100_000);
    assert_eq!(store.due_bindings(far).await.unwrap(), DueBindings { free: 1, held: 1 });
    assert_eq!(store.due_bindings(Day::from_unix_days(0)).await.unwrap(), DueBindings { free: 0, held: 0 });
    assert_eq!(bindings.purge(at(2), far, 10).await.unwrap(), [free.id]);
    bind(&*bindings, 3, "bob").await;
    let key = KeyId::parse("k1").unwrap();
    assert_eq!(rotations.purgeable(key).await.unwrap(), 1);
    assert_eq!(rotations.purge_chain(key, 10).await.unwrap(), [binding_id(3)]);
    assert_eq!(rotations.purgeable(key).await.unwrap(), 0, "what is held is not tried again");
    assert_eq!(resolves(&*bindings, 1).await, Some(held.id));

    let backend = backend.restart();
    let (bindings, store) = (backend.bindings(), backend.subjects());
    assert_eq!(store.release(&account("nobody"), "uid:1".into(), None, at(3)).await.unwrap(), HoldOutcome::NotThere);
    assert_eq!(store.release(&account("alice"), "uid:1".into(), None, at(3)).await.unwrap(), HoldOutcome::Done);
    assert_eq!(store.release(&account("alice"), "uid:1".into(), None, at(3)).await.unwrap(), HoldOutcome::Unchanged);
    assert_eq!(bindings.revoke(held.id).await.unwrap().map(|binding| binding.id), Some(held.id));
}

pub(crate) async fn clause_73_a_hold_that_was_asked_for_holds(backend: impl Backend) {
    let (bindings, store, approvals) = (bindings_of(&backend).await, backend.subjects(), backend.approvals());
    bind(&*bindings, 1, "alice").await;
    let id = ask(&*approvals, ApprovedAction::HoldSubject, "alice").await;
    assert_eq!(store.erase(&account("alice"), None, at(2)).await.unwrap(), EraseOutcome::Held);
    assert_eq!(store.standing(&account("alice"), at(60)).await.unwrap(), Standing::Free, "nobody agreed in time");
    approvals.deny(&id, "uid:2".into(), at(2)).await.unwrap();
    erased(&store, "alice").await;
}

pub(crate) async fn clause_74_held_at_once(backend: impl Backend) {
    let (bindings, store, approvals) = (bindings_of(&backend).await, backend.subjects(), backend.approvals());
    bind(&*bindings, 1, "alice").await;
    bind(&*bindings, 2, "bob").await;
    let waits = ask(&*approvals, ApprovedAction::HoldSubject, "bob").await;
    let ready = agreed(&*approvals, ApprovedAction::HoldSubject, "alice").await;
    // Not agreed to, unknown, of another account, of the other action.
    for (name, id) in [("bob", waits.as_str()), ("alice", "p99"), ("alice", "x"), ("bob", ready.as_str())] {
        let outcome = store.hold(&account(name), hold("court"), Some(id)).await.unwrap();
        assert_eq!(outcome, HoldOutcome::NotApproved, "{name} {id}");
    }
    let mut at_once = JoinSet::new();
    for _ in 0..8 {
        let (store, ready) = (Arc::clone(&store), ready.clone());
        at_once.spawn(async move { store.hold(&account("alice"), hold("court"), Some(&ready)).await.unwrap() });
    }
    let outcomes = at_once.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == HoldOutcome::Done).count(), 1, "{outcomes:?}");
    assert_eq!(approval(&*approvals, &ready).await.state, ApprovalState::Done);
    let outcome = store.release(&account("alice"), "uid:1".into(), Some(&ready), at(2)).await.unwrap();
    assert_eq!(outcome, HoldOutcome::NotApproved, "it was for the hold, and is spent");
}

pub(crate) async fn labels_are_of_ones_own(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.subjects());
    bind(&*bindings, 1, "alice").await;
    bind(&*bindings, 2, "bob").await;
    assert!(!store.set_label(&account("bob"), binding_id(1), Some(label("mine"))).await.unwrap());
    assert!(!store.set_label(&account("alice"), binding_id(9), Some(label("gone"))).await.unwrap());
    for text in ["first", "二台目"] {
        assert!(store.set_label(&account("alice"), binding_id(1), Some(label(text))).await.unwrap());
        assert_eq!(store.labels(&account("alice")).await.unwrap(), [(binding_id(1), label(text))]);
    }
    assert!(store.set_label(&account("alice"), binding_id(1), None).await.unwrap());
    assert!(store.labels(&account("alice")).await.unwrap().is_empty());
    store.set_label(&account("alice"), binding_id(1), Some(label("first"))).await.unwrap();
    bindings.revoke(binding_id(1)).await.unwrap();
    assert!(store.labels(&account("alice")).await.unwrap().is_empty(), "it goes with its handset");
}

/// Trees that were split and merged over and over keep copies of what was moved: none of what was erased is among them.
pub(crate) async fn clause_75_scrubbed(backend: impl Backend) {
    let (bindings, store) = (bindings_of(&backend).await, backend.subjects());
    let name = |number: u32| format!("scrubbed-{:03}x", number * 79 % 60);
    for number in 0..60 {
        bindings.issue_code(code(&name(number), &format!("s{number:04}"), 1)).await.unwrap();
        if number % 3 == 2 {
            let erasure = erased(&store, &name(number - 1)).await;
            store.finish_erasure(&erasure.id).await.unwrap();
        }
    }
    store.scrub().await.unwrap();
    let there: Vec<String> =
        bindings.accounts().await.unwrap().iter().map(|account| account.account.to_string()).collect();
    assert!(there.len() > 20);
    let left = backend.medium();
    let stands = |name: &String| left.windows(name.len()).any(|window| window == name.as_bytes());
    let gone: Vec<_> =
        (0..60).map(|number| format!("scrubbed-{number:03}x")).filter(|name| !there.contains(name)).collect();
    assert!(gone.len() > 10 && there.iter().all(stands));
    assert_eq!(gone.iter().filter(|name| stands(name)).collect::<Vec<_>>(), Vec::<&String>::new());
}
