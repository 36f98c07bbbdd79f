//! The clauses of approvals, on every backend.

use std::sync::Arc;

use sekisho::clock::Timestamp;
use sekisho::store::{
    AnswerOutcome, ApprovalRecord, ApprovalState, ApprovalStore, ApprovedAction, ApprovedOutcome, ChangeOutcome,
    KeyChange, KeyState, NewApproval, StoreError,
};
use tokio::task::JoinSet;

use crate::conformance::{Backend, first_keys, scheme};

/// One test a clause for the backend `$backend`.
macro_rules! keeps_the_approval_contract {
    ($backend:ty) => {
        keeps_the_approval_contract! { $backend:
            clause_31_one_person_one_voice
            clause_32_carried_out_once
            clause_32_only_what_was_agreed_to_about_these_keys
            clause_33_ended_stays_ended
            clause_34_asked_once
            approvals_are_durable_and_listed
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::approvals::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_the_approval_contract;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_530_000_000 + minutes * 60_000)
}

fn new(object: &str, approver: Option<&str>) -> NewApproval {
    NewApproval {
        action: ApprovedAction::DestroyKey,
        object: object.into(),
        reason: "drained".into(),
        asked_by: "uid:1001".into(),
        approver: approver.map(str::to_owned),
        needs: 2,
        revision: 0,
        at: at(0),
        expires_at: at(60),
    }
}

fn voices(record: &ApprovalRecord) -> Vec<&str> {
    record.given.iter().map(|given| given.by.as_str()).collect()
}

async fn yes(store: &dyn ApprovalStore, id: &str, by: &str, minutes: i64) -> AnswerOutcome {
    store.approve(id, by.into(), at(minutes)).await.unwrap()
}

async fn state(store: &dyn ApprovalStore, minutes: i64) -> ApprovalState {
    store.approvals(at(minutes)).await.unwrap()[0].state
}

/// A backend with keys, of which `k1` can change.
async fn with_keys<B: Backend>(backend: B) -> B {
    backend.keys().initialise(first_keys(), scheme("v1")).await.unwrap();
    backend
}

/// Replaces the active audit key: a change that any purpose allows.
fn changes() -> Vec<KeyChange> {
    let mut next = first_keys().pop().unwrap();
    next.id = "u2".into();
    let (id, from, to) = ("u1".into(), KeyState::Active, KeyState::Retiring);
    vec![KeyChange::New(next), KeyChange::Move { id, from, to, at: at(1) }]
}

async fn carry_out(store: &dyn ApprovalStore, id: &str, minutes: i64) -> ApprovedOutcome {
    store.change_approved(id, changes(), "uid:1002".into(), at(minutes)).await.unwrap()
}

pub(crate) async fn clause_31_one_person_one_voice(backend: impl Backend) {
    let store = backend.approvals();
    let asked = store.ask(new("k1", Some("alice"))).await.unwrap();
    assert_eq!((voices(&asked), asked.state), (vec!["alice"], ApprovalState::Open));
    assert!(matches!(yes(&*store, "p1", "alice", 1).await, AnswerOutcome::Twice(same) if same == asked));
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { yes(&*store, "p1", if n % 2 == 0 { "bob" } else { "carol" }, 2).await });
    }
    let counted = tasks.join_all().await.into_iter().filter(|o| matches!(o, AnswerOutcome::Counted(_))).count();
    assert_eq!(counted, 2);
    let record = store.approvals(at(3)).await.unwrap().remove(0);
    assert_eq!(record.given.len(), 3, "{:?}", voices(&record));
}

pub(crate) async fn clause_32_carried_out_once(backend: impl Backend) {
    let backend = with_keys(backend).await;
    let store = backend.approvals();
    store.ask(new("k1", Some("alice"))).await.unwrap();
    assert_eq!(carry_out(&*store, "p1", 1).await, ApprovedOutcome::NotApproved);
    yes(&*store, "p1", "bob", 1).await;
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { carry_out(&*store, "p1", 2).await });
    }
    let mut outcomes = tasks.join_all().await;
    outcomes.retain(|outcome| *outcome != ApprovedOutcome::NotApproved);
    assert_eq!(outcomes, [ApprovedOutcome::Changed(1)]);
    let backend = backend.restart();
    assert_eq!(backend.keys().keys().await.unwrap().revision, 1);
    let record = backend.approvals().approvals(at(3)).await.unwrap().remove(0);
    assert_eq!((record.state, record.ended_by.as_deref()), (ApprovalState::Done, Some("uid:1002")));
    assert_eq!(carry_out(&*backend.approvals(), "p1", 3).await, ApprovedOutcome::NotApproved);
}

pub(crate) async fn clause_32_only_what_was_agreed_to_about_these_keys(backend: impl Backend) {
    let backend = with_keys(backend).await;
    let store = backend.approvals();
    for approver in ["alice", "bob"] {
        store.ask(new("k1", Some("alice"))).await.unwrap();
        yes(&*store, "p1", approver, 1).await;
    }
    // What breaks the keys' own clauses changes nothing, and the approval stays.
    let backwards = KeyChange::Move { id: "u1".into(), from: KeyState::Active, to: KeyState::Pending, at: at(1) };
    let broken = store.change_approved("p1", vec![backwards], "bob".into(), at(1)).await;
    assert!(matches!(broken, Err(StoreError::Corrupt(_))), "{broken:?}");
    assert_eq!(state(&*store, 1).await, ApprovalState::Open);
    // Somebody suspends another key meanwhile.
    let other = KeyChange::Suspend { id: "s1".into(), suspended: true };
    assert_eq!(backend.keys().change(0, vec![other]).await.unwrap(), ChangeOutcome::Changed(1));
    assert_eq!(carry_out(&*store, "p1", 2).await, ApprovedOutcome::Stale);
    assert_eq!(backend.keys().keys().await.unwrap().revision, 1);
    assert_eq!(state(&*store, 2).await, ApprovalState::Expired);
    assert_eq!(carry_out(&*store, "p1", 2).await, ApprovedOutcome::NotApproved);
    for nothing in ["p2", "p0", "p", "", "1", "p01", "p-1", "p+1", "p 1", "p99999999999999999999"] {
        assert_eq!(carry_out(&*store, nothing, 2).await, ApprovedOutcome::NotApproved, "{nothing}");
    }
}

pub(crate) async fn clause_33_ended_stays_ended(backend: impl Backend) {
    let backend = with_keys(backend).await;
    let store = backend.approvals();
    store.ask(new("k1", Some("alice"))).await.unwrap();
    let no = store.deny("p1", "bob".into(), at(1)).await.unwrap();
    let AnswerOutcome::Counted(denied) = no else { panic!("{no:?}") };
    assert_eq!(
        (denied.state, denied.ended_by.as_deref(), denied.ended_at),
        (ApprovalState::Denied, Some("bob"), Some(at(1)))
    );
    assert_eq!(yes(&*store, "p1", "carol", 1).await, AnswerOutcome::Ended(denied.clone()));
    assert_eq!(store.deny("p1", "carol".into(), at(1)).await.unwrap(), AnswerOutcome::Ended(denied));

    store.ask(new("k2", Some("alice"))).await.unwrap();
    assert!(matches!(yes(&*store, "p2", "bob", 59).await, AnswerOutcome::Counted(_)));
    assert_eq!(state(&*store, 60).await, ApprovalState::Expired);
    assert_eq!(state(&*store, 59).await, ApprovalState::Open, "looking ends nothing");
    assert_eq!(carry_out(&*store, "p2", 60).await, ApprovedOutcome::NotApproved);
    // The clock is set back.
    assert_eq!(state(&*store, 1).await, ApprovalState::Expired);
    assert!(matches!(yes(&*store, "p2", "carol", 1).await, AnswerOutcome::Ended(_)));
    assert_eq!(carry_out(&*store, "p2", 1).await, ApprovedOutcome::NotApproved);
    for nothing in ["p3", "p02", "k1", ""] {
        assert_eq!(yes(&*store, nothing, "bob", 1).await, AnswerOutcome::NotThere, "{nothing}");
        assert_eq!(store.deny(nothing, "bob".into(), at(1)).await.unwrap(), AnswerOutcome::NotThere, "{nothing}");
    }
}

pub(crate) async fn clause_34_asked_once(backend: impl Backend) {
    let store = backend.approvals();
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.ask(NewApproval { reason: n.to_string(), ..new("k1", None) }).await.unwrap() });
    }
    let asked = tasks.join_all().await;
    assert!(asked.iter().all(|record| *record == asked[0]), "{asked:?}");
    assert_eq!(store.ask(new("k1", Some("alice"))).await.unwrap(), asked[0], "asking again is no voice");
    assert_eq!(store.ask(new("k2", None)).await.unwrap().id, "p2");
    // Other keys than those that it was asked about.
    assert_eq!(store.ask(NewApproval { revision: 1, ..new("k1", None) }).await.unwrap().id, "p3");
    // And one that nobody answered in time.
    let late = NewApproval { revision: 1, at: at(60), expires_at: at(120), ..new("k1", None) };
    assert_eq!(store.ask(late).await.unwrap().id, "p4");
    let states: Vec<_> = store.approvals(at(60)).await.unwrap().into_iter().map(|record| record.state).collect();
    assert_eq!(states, [ApprovalState::Open, ApprovalState::Expired, ApprovalState::Expired, ApprovalState::Expired]);
}

pub(crate) async fn approvals_are_durable_and_listed(backend: impl Backend) {
    let store = backend.approvals();
    assert_eq!(store.approvals(at(0)).await.unwrap(), []);
    store.ask(new("k1", Some("alice"))).await.unwrap();
    store.ask(new("k2", None)).await.unwrap();
    yes(&*store, "p1", "bob", 3).await;
    let before = store.approvals(at(3)).await.unwrap();
    let listed: Vec<_> = before.iter().map(|record| (record.id.as_str(), voices(record))).collect();
    assert_eq!(listed, [("p2", vec![]), ("p1", vec!["alice", "bob"])]);
    assert_eq!((before[1].given[1].at, before[1].asked_by.as_str(), before[1].needs), (at(3), "uid:1001", 2));
    assert_eq!(backend.restart().approvals().approvals(at(3)).await.unwrap(), before);
}
