//! The clauses about keys that change and records that move, one function each; listed by
//! [`moves_records_as_the_contract_says!`].

use std::collections::BTreeSet;
use std::sync::Arc;

use sekisho::binding::{BindingDigest, Chain, KeyId};
use sekisho::store::{
    ChangeOutcome, EnrolOutcome, Enrolment, Haste, KeyChange, KeyPurpose, KeyRecord, KeyState, Over, PinRecord, Reach,
    RotationRecord, RotationState, StoreError, WrapBatch, WrapOutcome, Wrappable, Wrapped,
};

use crate::conformance::{
    Backend, account, at, bind, binding_id, bindings_of, carrier, code, enrolment, first_keys, probe, resolves, today,
};

/// One test a clause for the backend `$backend`.
macro_rules! moves_records_as_the_contract_says {
    ($backend:ty) => {
        moves_records_as_the_contract_says! { $backend:
            clause_01_a_batch_that_was_answered_is_durable
            clause_19_forwards
            clause_20_proven_unused
            clause_20_no_key_is_drained_past_which_a_wrap_may_still_lead
            clause_21_exactly_one_is_active
            clause_22_a_batch_that_runs_twice_moves_nothing_twice
            clause_22_a_place_given_to_another_record_is_left_alone
            clause_23_fenced
            clause_23_a_stale_key_ring_writes_nothing
            clause_24_one_step
            clause_25_counted
            clause_25_counts_of_overlapping_rotations
            clause_26_a_hit_under_a_compromised_key_says_so
            changes_are_all_or_none
            rotations_come_back_as_they_were_put
            records_are_visited_scanned_and_purged
            whom_a_key_concerns_is_counted
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::rotation_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use moves_records_as_the_contract_says;

const K1: KeyId = KeyId::new(1);
const K2: KeyId = KeyId::new(2);
const K3: KeyId = KeyId::new(3);

fn new_key(id: &str, state: KeyState) -> KeyChange {
    KeyChange::New(KeyRecord { id: id.to_owned(), state, ..first_keys()[0].clone() })
}

fn step(id: &str, from: KeyState, to: KeyState) -> KeyChange {
    KeyChange::Move { id: id.to_owned(), from, to, at: at(5) }
}

fn rotation(id: &str, from: &str, to: &str) -> RotationRecord {
    RotationRecord {
        id: id.to_owned(),
        purpose: KeyPurpose::Binding,
        from: from.to_owned(),
        to: to.to_owned(),
        state: RotationState::Running,
        reason: "yearly".to_owned(),
        started_at: at(3),
        finished_at: None,
        drain_by: today(),
        total: 0,
        wrapped: 0,
        flattened: 0,
        cursor: 0,
        fence: 0,
        root_before: vec![],
        root_after: vec![],
    }
}

async fn revision(backend: &impl Backend) -> u64 {
    backend.keys().keys().await.unwrap().revision
}

async fn generation(backend: &impl Backend) -> u64 {
    backend.bindings().generation().await.unwrap()
}

async fn change(backend: &impl Backend, changes: Vec<KeyChange>) -> Result<ChangeOutcome, StoreError> {
    backend.keys().change(revision(backend).await, changes).await
}

async fn state_of(backend: &impl Backend, id: &str) -> KeyState {
    backend.keys().keys().await.unwrap().keys.iter().find(|key| key.id == id).unwrap().state
}

/// Rotation `id` begins: `to` is active.
async fn begin(backend: &impl Backend, id: &str, from: &str, to: &str) {
    let keys = vec![new_key(to, KeyState::Active), step(from, KeyState::Active, KeyState::Retiring)];
    let revision = revision(backend).await;
    let record = rotation(id, from, to);
    let outcome = backend.rotations().change_with(revision, keys, vec![record], Some(id.into())).await.unwrap();
    assert_eq!(outcome, ChangeOutcome::Changed(revision + 1));
}

async fn rotation_of(backend: &impl Backend, id: &str) -> RotationRecord {
    backend.rotations().rotations().await.unwrap().into_iter().find(|rotation| rotation.id == id).unwrap()
}

/// The record as a wrap leads it to `chain`; its digest becomes `digest`.
fn moved(record: &Wrappable, chain: &str, digest: u8) -> Wrapped {
    let (chain, digest) = (Chain::parse(chain).unwrap(), BindingDigest::from_bytes([digest; 32]));
    Wrapped { position: record.position, rev: record.rev, before: record.chain.clone(), chain, digest }
}

async fn batch(backend: &impl Backend, rotation: &str, fence: u64, records: Vec<Wrapped>) -> WrapBatch {
    let cursor = records.last().map_or(0, |record| record.position);
    let generation = generation(backend).await;
    WrapBatch { rotation: rotation.into(), fence, generation, cursor, records, haste: Haste::Gentle }
}

async fn all_wrappable(backend: &impl Backend, active: KeyId) -> Vec<Wrappable> {
    backend.rotations().wrappable(active, 0, 100).await.unwrap()
}

async fn chains(backend: &impl Backend) -> Vec<(String, u64)> {
    backend.rotations().chains().await.unwrap().into_iter().map(|(chain, count)| (chain.to_string(), count)).collect()
}

fn counts(rotation: &RotationRecord) -> (u64, u64, u64) {
    (rotation.total, rotation.wrapped, rotation.flattened)
}

pub(crate) async fn clause_19_forwards(backend: impl Backend) {
    bindings_of(&backend).await;
    let changes = vec![new_key("k2", KeyState::Pending)];
    assert_eq!(change(&backend, changes).await, Ok(ChangeOutcome::Changed(1)));
    let (pending, active, destroyed) = (KeyState::Pending, KeyState::Active, KeyState::Destroyed);
    for (id, from, to) in
        [("k1", active, pending), ("k1", active, active), ("k2", active, destroyed), ("k9", pending, active)]
    {
        assert!(matches!(change(&backend, vec![step(id, from, to)]).await, Err(StoreError::Corrupt(_))), "{id}");
    }
    let flags = [
        KeyChange::Compromise { id: "k1".into() },
        KeyChange::Suspend { id: "k1".into(), suspended: true },
        KeyChange::Suspend { id: "k1".into(), suspended: false },
    ];
    for flag in flags {
        change(&backend, vec![flag]).await.unwrap();
    }
    assert!(matches!(change(&backend, vec![step("k2", pending, destroyed)]).await, Ok(ChangeOutcome::Changed(_))));
    for back in [step("k2", destroyed, pending), step("k2", destroyed, active)] {
        assert!(change(&backend, vec![back]).await.is_err());
    }
    assert!(change(&backend, vec![KeyChange::Rewrap { id: "k2".into(), wrapped: vec![1] }]).await.is_err());
    let backend = backend.restart();
    let keys = backend.keys().keys().await.unwrap().keys;
    let key = |id: &str| keys.iter().find(|key| key.id == id).unwrap();
    assert!(key("k1").compromised && !key("k1").suspended);
    assert!(key("k2").wrapped.is_empty(), "no material");
    assert_eq!((key("k2").state, key("k2").dates.destroyed_at), (destroyed, Some(at(5))));
    assert_eq!(key("k2").commitment, first_keys()[0].commitment, "its record stays");
}

pub(crate) async fn clause_20_proven_unused(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    let (first, second) = (bind(&*store, 1, "alice").await.id, bind(&*store, 2, "bob").await.id);
    begin(&backend, "r1", "k1", "k2").await;
    let (retiring, inner, drained) = (KeyState::Retiring, KeyState::Inner, KeyState::Drained);
    for to in [inner, drained, KeyState::Destroyed] {
        assert_eq!(change(&backend, vec![step("k1", retiring, to)]).await, Ok(ChangeOutcome::InUse(2)), "{to:?}");
    }
    let fence = backend.rotations().take_fence("r1").await.unwrap().unwrap();
    let wrapped = all_wrappable(&backend, K2).await.iter().zip(11..).map(|(r, d)| moved(r, "k1,k2", d)).collect();
    backend.rotations().wrap(batch(&backend, "r1", fence, wrapped).await).await.unwrap();
    // Wrapped, they still need it below.
    assert_eq!(change(&backend, vec![step("k1", retiring, drained)]).await, Ok(ChangeOutcome::InUse(2)));
    assert_eq!(state_of(&backend, "k1").await, retiring);
    assert!(matches!(change(&backend, vec![step("k1", retiring, inner)]).await, Ok(ChangeOutcome::Changed(_))));
    let under = generation(&backend).await;
    store.used(first, today(), probe("k2", 21), under).await.unwrap();
    assert_eq!(change(&backend, vec![step("k1", inner, drained)]).await, Ok(ChangeOutcome::InUse(1)));
    store.used(second, today(), probe("k2", 22), under).await.unwrap();
    assert!(matches!(change(&backend, vec![step("k1", inner, drained)]).await, Ok(ChangeOutcome::Changed(_))));
    assert_eq!(generation(&backend).await, under + 1, "every step moves the generation");
}

pub(crate) async fn clause_20_no_key_is_drained_past_which_a_wrap_may_still_lead(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    begin(&backend, "r1", "k1", "k2").await;
    begin(&backend, "r2", "k2", "k3").await;
    // No chain contains k2, but the record under k1 will have it once it is wrapped.
    let refused = change(&backend, vec![step("k2", KeyState::Retiring, KeyState::Drained)]).await;
    assert_eq!(refused, Ok(ChangeOutcome::InUse(1)));
    let inner = change(&backend, vec![step("k2", KeyState::Retiring, KeyState::Inner)]).await;
    assert!(matches!(inner, Ok(ChangeOutcome::Changed(_))), "it is nobody's outermost");
}

pub(crate) async fn clause_21_exactly_one_is_active(backend: impl Backend) {
    bindings_of(&backend).await;
    let retire = step("k1", KeyState::Active, KeyState::Retiring);
    for changes in [vec![retire.clone()], vec![new_key("k2", KeyState::Active)]] {
        assert!(change(&backend, changes).await.is_err());
        assert_eq!((state_of(&backend, "k1").await, revision(&backend).await), (KeyState::Active, 0));
    }
    // In either order: the step as a whole counts.
    let both = vec![new_key("k2", KeyState::Active), retire];
    assert_eq!(change(&backend, both).await, Ok(ChangeOutcome::Changed(1)));
    let keys = backend.keys().keys().await.unwrap().keys;
    for purpose in KeyPurpose::ALL {
        let active = keys.iter().filter(|key| key.purpose == purpose && key.state == KeyState::Active);
        assert_eq!(active.count(), 1, "{purpose:?}");
    }
}

pub(crate) async fn clause_01_a_batch_that_was_answered_is_durable(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for (handset, name) in [(1, "alice"), (2, "bob"), (3, "carol")] {
        bind(&*store, handset, name).await;
    }
    begin(&backend, "r1", "k1", "k2").await;
    let fence = backend.rotations().take_fence("r1").await.unwrap().unwrap();
    let mut read = all_wrappable(&backend, K2).await;
    let last = read.pop().unwrap();
    let records = read.iter().zip(11..).map(|(record, digest)| moved(record, "k1,k2", digest)).collect::<Vec<_>>();
    let batch = batch(&backend, "r1", fence, records).await;
    let cursor = batch.cursor;
    assert_eq!(backend.rotations().wrap(batch).await, Ok(WrapOutcome::Wrapped(2)));
    drop(store);
    let backend = backend.restart();
    assert_eq!(chains(&backend).await, [("k1".to_owned(), 1), ("k1,k2".to_owned(), 2)]);
    let store = backend.bindings();
    assert_eq!((resolves(&*store, 11).await, resolves(&*store, 12).await), (Some(binding_id(1)), Some(binding_id(2))));
    assert_eq!((resolves(&*store, 1).await, resolves(&*store, 3).await), (None, Some(binding_id(3))));
    let rotation = rotation_of(&backend, "r1").await;
    assert_eq!((counts(&rotation), rotation.cursor), ((3, 2, 0), cursor), "records and journal in one step");
    assert_eq!(all_wrappable(&backend, K2).await.iter().map(|left| left.position).collect::<Vec<_>>(), [last.position]);
}

pub(crate) async fn clause_22_a_batch_that_runs_twice_moves_nothing_twice(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for (handset, name) in [(1, "alice"), (2, "bob"), (3, "carol")] {
        bind(&*store, handset, name).await;
    }
    begin(&backend, "r1", "k1", "k2").await;
    let rotations = backend.rotations();
    let fence = rotations.take_fence("r1").await.unwrap().unwrap();
    let read = all_wrappable(&backend, K2).await;
    assert_eq!(read.len(), 3);
    let records = || read.iter().zip(11..).map(|(record, digest)| moved(record, "k1,k2", digest)).collect::<Vec<_>>();
    // Since it was read, one record was flattened and another erased.
    store.used(binding_id(2), today(), probe("k2", 22), generation(&backend).await).await.unwrap();
    store.revoke(binding_id(3)).await.unwrap();
    let outcome = rotations.wrap(batch(&backend, "r1", fence, records()).await).await;
    assert_eq!(outcome, Ok(WrapOutcome::Wrapped(1)));
    let outcome = rotations.wrap(batch(&backend, "r1", fence, records()).await).await;
    assert_eq!(outcome, Ok(WrapOutcome::Wrapped(0)));
    assert_eq!(chains(&backend).await, [("k1,k2".to_owned(), 1), ("k2".to_owned(), 1)]);
    assert_eq!(counts(&rotation_of(&backend, "r1").await), (3, 1, 1));
    assert_eq!(resolves(&*store, 11).await, Some(binding_id(1)));
    assert_eq!(resolves(&*store, 22).await, Some(binding_id(2)));
    assert!(all_wrappable(&backend, K2).await.is_empty());
}

pub(crate) async fn clause_22_a_place_given_to_another_record_is_left_alone(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    begin(&backend, "r1", "k1", "k2").await;
    let fence = backend.rotations().take_fence("r1").await.unwrap().unwrap();
    let read = all_wrappable(&backend, K2).await;
    store.revoke(binding_id(1)).await.unwrap();
    store.issue_code(code("bob", "2222", 2)).await.unwrap();
    let new = Enrolment {
        probes: vec![probe("k2", 52)],
        digest: BindingDigest::from_bytes([52; 32]),
        chain: Chain::parse("k2").unwrap(),
        generation: generation(&backend).await,
        ..enrolment(2, "2222", 2)
    };
    assert!(matches!(store.enrol(new, at(1)).await.unwrap(), EnrolOutcome::Bound(..)));
    let records = vec![moved(&read[0], "k1,k2", 11)];
    let outcome = backend.rotations().wrap(batch(&backend, "r1", fence, records).await).await;
    assert_eq!(outcome, Ok(WrapOutcome::Wrapped(0)));
    assert_eq!((resolves(&*store, 11).await, resolves(&*store, 52).await), (None, Some(binding_id(2))));
}

pub(crate) async fn clause_23_fenced(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    begin(&backend, "r1", "k1", "k2").await;
    let rotations = backend.rotations();
    assert_eq!(rotations.take_fence("r9").await, Ok(None));
    let former = rotations.take_fence("r1").await.unwrap().unwrap();
    let latest = rotations.take_fence("r1").await.unwrap().unwrap();
    assert!(former < latest);
    let records = || async { vec![moved(&all_wrappable(&backend, K2).await[0], "k1,k2", 11)] };
    let fenced = Ok(WrapOutcome::Fenced);
    for (id, fence) in [("r1", former), ("r1", 0), ("r9", latest)] {
        let batch = batch(&backend, id, fence, records().await).await;
        assert_eq!(rotations.wrap(batch).await, fenced, "{id} {fence}");
    }
    for state in [RotationState::Paused, RotationState::Draining] {
        let record = RotationRecord { state, ..rotation("r1", "k1", "k2") };
        rotations.change_with(revision(&backend).await, vec![], vec![record], None).await.unwrap();
        assert_eq!(rotations.wrap(batch(&backend, "r1", latest, records().await).await).await, fenced, "{state:?}");
    }
    let untouched = rotation_of(&backend, "r1").await;
    assert_eq!((counts(&untouched), untouched.cursor), ((1, 0, 0), 0));
    let running = rotation("r1", "k1", "k2");
    rotations.change_with(revision(&backend).await, vec![], vec![running], None).await.unwrap();
    let outcome = rotations.wrap(batch(&backend, "r1", latest, records().await).await).await;
    assert_eq!(outcome, Ok(WrapOutcome::Wrapped(1)));
}

pub(crate) async fn clause_23_a_stale_key_ring_writes_nothing(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    begin(&backend, "r1", "k1", "k2").await;
    let fence = backend.rotations().take_fence("r1").await.unwrap().unwrap();
    let read = all_wrappable(&backend, K2).await;
    let stale = batch(&backend, "r1", fence, vec![moved(&read[0], "k1,k2", 11)]).await;
    begin(&backend, "r2", "k2", "k3").await;
    assert_eq!(backend.rotations().wrap(stale).await, Ok(WrapOutcome::Stale));
    assert_eq!(resolves(&*store, 1).await, Some(binding_id(1)));
    assert_eq!(rotation_of(&backend, "r1").await.wrapped, 0);
}

pub(crate) async fn clause_24_one_step(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for handset in 1..=3 {
        bind(&*store, handset, &format!("account-{handset}")).await;
    }
    begin(&backend, "r1", "k1", "k2").await;
    let fence = backend.rotations().take_fence("r1").await.unwrap().unwrap();
    let read = backend.rotations().wrappable(K2, 0, 2).await.unwrap();
    let records = read.iter().zip(11..).map(|(record, digest)| moved(record, "k1,k2", digest)).collect();
    let first = batch(&backend, "r1", fence, records).await;
    let cursor = first.cursor;
    assert_eq!(backend.rotations().wrap(first).await, Ok(WrapOutcome::Wrapped(2)));

    // A digest that is another record's undoes the batch as a whole.
    let left = backend.rotations().wrappable(K2, cursor, 9).await.unwrap();
    let clash = batch(&backend, "r1", fence, vec![moved(&left[0], "k1,k2", 12)]).await;
    assert!(matches!(backend.rotations().wrap(clash).await, Err(StoreError::Corrupt(_))));
    drop(store);
    let backend = backend.restart();
    let journal = rotation_of(&backend, "r1").await;
    assert_eq!((counts(&journal), journal.cursor, journal.fence), ((3, 2, 0), cursor, fence));
    assert_eq!(chains(&backend).await, [("k1".to_owned(), 1), ("k1,k2".to_owned(), 2)]);
    let left: Vec<u64> = all_wrappable(&backend, K2).await.iter().map(|record| record.position).collect();
    let behind: Vec<u64> =
        backend.rotations().wrappable(K2, cursor, 9).await.unwrap().iter().map(|record| record.position).collect();
    assert_eq!((left.len(), &left), (1, &behind), "the cursor stands before what is left");
}

pub(crate) async fn clause_25_counted(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for handset in 1..=4 {
        bind(&*store, handset, &format!("account-{handset}")).await;
    }
    begin(&backend, "r1", "k1", "k2").await;
    let under = generation(&backend).await;
    store.used(binding_id(1), today(), probe("k2", 21), under).await.unwrap();
    // Not again, not for a record that is gone, not under a key ring that is not in force.
    store.used(binding_id(1), today(), probe("k2", 21), under).await.unwrap();
    store.used(binding_id(9), today(), probe("k2", 29), under).await.unwrap();
    store.used(binding_id(2), today(), probe("k2", 22), under - 1).await.unwrap();
    // An enrolment of a handset that is bound flattens it too; a new one is no move.
    for (handset, name, found_as) in [(3, "account-3", 3), (7, "new", 77)] {
        let selector = format!("7{handset:03}");
        store.issue_code(code(name, &selector, handset)).await.unwrap();
        let again = Enrolment {
            probes: vec![probe("k1", found_as), probe("k2", 20 + handset)],
            digest: BindingDigest::from_bytes([20 + handset; 32]),
            chain: Chain::parse("k2").unwrap(),
            generation: under,
            id: binding_id(50 + handset),
            ..enrolment(handset, &selector, handset)
        };
        store.enrol(again, at(1)).await.unwrap();
    }
    drop(store);
    let backend = backend.restart();
    assert_eq!(counts(&rotation_of(&backend, "r1").await), (4, 0, 2));
    assert_eq!(chains(&backend).await, [("k1".to_owned(), 2), ("k2".to_owned(), 3)]);
}

pub(crate) async fn clause_25_counts_of_overlapping_rotations(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for handset in 1..=3 {
        bind(&*store, handset, &format!("account-{handset}")).await;
    }
    begin(&backend, "r1", "k1", "k2").await;
    let fence = backend.rotations().take_fence("r1").await.unwrap().unwrap();
    let read = all_wrappable(&backend, K2).await;
    let first = batch(&backend, "r1", fence, vec![moved(&read[0], "k1,k2", 11)]).await;
    backend.rotations().wrap(first).await.unwrap();
    store.used(binding_id(2), today(), probe("k2", 22), generation(&backend).await).await.unwrap();
    begin(&backend, "r2", "k2", "k3").await;
    assert_eq!(rotation_of(&backend, "r2").await.total, 3);

    // All three kinds go to k3; the third is wrapped by k2 and k3 in one step, which counts for both.
    let fence = backend.rotations().take_fence("r2").await.unwrap().unwrap();
    let read = all_wrappable(&backend, K3).await;
    let chains_to = ["k1,k2,k3", "k2,k3", "k1,k2,k3"];
    let records = read.iter().zip(chains_to).zip(31..).map(|((record, chain), digest)| moved(record, chain, digest));
    let second = batch(&backend, "r2", fence, records.collect()).await;
    assert_eq!(backend.rotations().wrap(second).await, Ok(WrapOutcome::Wrapped(3)));
    let both = |r1: RotationRecord, r2: RotationRecord| (counts(&r1), counts(&r2));
    let now = both(rotation_of(&backend, "r1").await, rotation_of(&backend, "r2").await);
    assert_eq!(now, ((3, 2, 1), (3, 3, 0)));

    // A sign-in takes a record off both, or off the later one alone.
    let under = generation(&backend).await;
    store.used(binding_id(1), today(), probe("k3", 41), under).await.unwrap();
    store.used(binding_id(2), today(), probe("k3", 42), under).await.unwrap();
    let now = both(rotation_of(&backend, "r1").await, rotation_of(&backend, "r2").await);
    assert_eq!(now, ((3, 2, 2), (3, 3, 2)));
}

pub(crate) async fn clause_26_a_hit_under_a_compromised_key_says_so(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for handset in 1..=3 {
        bind(&*store, handset, &format!("account-{handset}")).await;
    }
    begin(&backend, "r1", "k1", "k2").await;
    let fence = backend.rotations().take_fence("r1").await.unwrap().unwrap();
    let read = all_wrappable(&backend, K2).await;
    let wrapped = batch(&backend, "r1", fence, vec![moved(&read[1], "k1,k2", 12)]).await;
    backend.rotations().wrap(wrapped).await.unwrap();
    store.used(binding_id(3), today(), probe("k2", 23), generation(&backend).await).await.unwrap();
    let judged = async || {
        let mut judged = Vec::new();
        for (handset, chain, digest) in [(1, "k1", 1), (2, "k1,k2", 12), (3, "k2", 23)] {
            let hit = store.resolve(&carrier("docomo"), &[probe(chain, digest)]).await.unwrap().hit.unwrap();
            judged.push((hit.compromised, store.stands(binding_id(handset)).await.unwrap()));
        }
        judged
    };
    assert_eq!(judged().await, [(false, true); 3]);
    change(&backend, vec![KeyChange::Compromise { id: "k1".into() }]).await.unwrap();
    assert_eq!(judged().await, [(true, false), (true, false), (false, true)]);
    let fallen = store.fallen((1..=3).map(binding_id).collect()).await.unwrap();
    assert_eq!(fallen.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([binding_id(1), binding_id(2)]));
}

pub(crate) async fn changes_are_all_or_none(backend: impl Backend) {
    bindings_of(&backend).await;
    let rotations = backend.rotations();
    let keys = || vec![new_key("k2", KeyState::Active), step("k1", KeyState::Active, KeyState::Retiring)];
    let stale = rotations.change_with(7, keys(), vec![rotation("r1", "k1", "k2")], None).await;
    assert_eq!(stale, Ok(ChangeOutcome::Stale));
    let broken = vec![new_key("k2", KeyState::Active)];
    assert!(rotations.change_with(0, broken, vec![rotation("r1", "k1", "k2")], None).await.is_err());
    assert!(rotations.change_with(0, keys(), vec![rotation("r1", "k1", "k9")], None).await.is_err(), "no such key");
    assert!(rotations.rotations().await.unwrap().is_empty());
    assert_eq!((state_of(&backend, "k1").await, revision(&backend).await), (KeyState::Active, 0));
    assert_eq!(generation(&backend).await, 0);

    // Of two that know the same revision one changes.
    let both = [("k2", "r1"), ("k3", "r2")].map(|(to, id)| {
        let rotations = Arc::clone(&rotations);
        let keys = vec![new_key(to, KeyState::Active), step("k1", KeyState::Active, KeyState::Retiring)];
        let record = rotation(id, "k1", to);
        tokio::spawn(async move { rotations.change_with(0, keys, vec![record], None).await.unwrap() })
    });
    let [first, second] = both;
    let mut outcomes = [first.await.unwrap(), second.await.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome == ChangeOutcome::Stale);
    assert_eq!(outcomes, [ChangeOutcome::Changed(1), ChangeOutcome::Stale]);
    assert_eq!(rotations.rotations().await.unwrap().len(), 1);
    assert_eq!(generation(&backend).await, 1);
}

pub(crate) async fn rotations_come_back_as_they_were_put(backend: impl Backend) {
    bindings_of(&backend).await;
    change(&backend, vec![new_key("k2", KeyState::Pending)]).await.unwrap();
    let rotations = backend.rotations();
    let mut put = Vec::new();
    for (number, state) in (1..).zip(RotationState::ALL) {
        let id = format!("r{}", number * 4);
        let finished_at = (!state.is_open()).then(|| at(9));
        let root = vec![u8::try_from(number).unwrap(); 32];
        put.push(RotationRecord {
            state,
            finished_at,
            total: number,
            wrapped: number + 1,
            flattened: number + 2,
            cursor: number + 3,
            fence: number + 4,
            root_before: root.clone(),
            root_after: root,
            ..rotation(&id, "k1", "k2")
        });
    }
    put.reverse();
    rotations.change_with(1, vec![], put.clone(), None).await.unwrap();
    assert_eq!(rotations.rotations().await.unwrap(), put);

    // What counts moves only with the records.
    let last = put[0].clone();
    let changed = RotationRecord {
        state: RotationState::Done,
        reason: "other".into(),
        finished_at: Some(at(20)),
        drain_by: at(90 * 24 * 60).day(),
        root_after: vec![9; 32],
        ..last.clone()
    };
    let forged = RotationRecord { total: 0, wrapped: 0, flattened: 0, cursor: 0, fence: 0, ..changed.clone() };
    rotations.change_with(2, vec![], vec![forged], None).await.unwrap();
    drop(rotations);
    let backend = backend.restart();
    assert_eq!(backend.rotations().rotations().await.unwrap()[0], changed);
}

pub(crate) async fn whom_a_key_concerns_is_counted(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for (handset, name) in [(1, "alice"), (2, "alice"), (3, "bob"), (4, "carol"), (5, "dora")] {
        bind(&*store, handset, name).await;
    }
    for (name, handset) in [("alice", 1), ("carol", 4)] {
        let pin = PinRecord { salt: [1; 16], mac: [1; 32], set_at: at(3) };
        assert!(backend.pins().set_pin(&account(name), pin, Over::Nothing, binding_id(handset)).await.unwrap());
    }
    begin(&backend, "r1", "k1", "k2").await;
    // One handset is past the old key, and another is found by both.
    store.used(binding_id(4), today(), probe("k2", 44), generation(&backend).await).await.unwrap();
    let rotations = backend.rotations();
    let fence = rotations.take_fence("r1").await.unwrap().unwrap();
    let first = moved(&rotations.wrappable(K2, 0, 1).await.unwrap()[0], "k1,k2", 99);
    let wrapped = rotations.wrap(batch(&backend, "r1", fence, vec![first]).await).await.unwrap();
    assert_eq!(wrapped, WrapOutcome::Wrapped(1));
    for (key, reach) in [
        (K1, Reach { bindings: 4, with_pin: 2, accounts: 3 }),
        (K2, Reach { bindings: 2, with_pin: 2, accounts: 2 }),
        (K3, Reach::default()),
        (KeyId::new(11), Reach::default()),
    ] {
        assert_eq!(rotations.reach(key).await.unwrap(), reach, "{key}");
    }
}

pub(crate) async fn records_are_visited_scanned_and_purged(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    for handset in 1..=4 {
        bind(&*store, handset, &format!("account-{handset}")).await;
    }
    begin(&backend, "r1", "k1", "k2").await;
    store.used(binding_id(2), today(), probe("k2", 22), generation(&backend).await).await.unwrap();
    let rotations = backend.rotations();
    let places = |records: Vec<Wrappable>| records.iter().map(|record| record.position).collect::<Vec<_>>();
    let all = places(all_wrappable(&backend, K2).await);
    assert!(all.len() == 3 && all.is_sorted());
    assert_eq!(places(rotations.wrappable(K2, 0, 2).await.unwrap()), all[..2]);
    assert_eq!(places(rotations.wrappable(K2, all[1], 9).await.unwrap()), all[2..]);
    assert_eq!(rotations.wrappable(K2, 0, 1).await.unwrap()[0].digest, probe("k1", 1).digest);

    assert_eq!(chains(&backend).await, [("k1".to_owned(), 3), ("k2".to_owned(), 1)]);

    let mut purged = rotations.purge_chain(K1, 2).await.unwrap();
    assert_eq!(purged.len(), 2);
    purged.extend(rotations.purge_chain(K1, 2).await.unwrap());
    purged.sort();
    let mut expected = [1, 3, 4].map(binding_id);
    expected.sort();
    assert_eq!(purged, expected);
    assert_eq!(chains(&backend).await, [("k2".to_owned(), 1)]);
    assert!(store.resolve(&carrier("docomo"), &[probe("k1", 1)]).await.unwrap().hit.is_none());
    assert!(rotations.purge_chain(K1, 9).await.unwrap().is_empty());
}
