//! What happens to a store while keys are rotated: sign-ins, enrolments, revocations, and the rotation itself.

use std::rc::Rc;

use sekisho::binding::{BindingError, ByConsole, EnrolError, KeyId, enrol_by_console, resolve};
use sekisho::clock::Day;
use sekisho::store::{
    BindingStore as _, ChangeOutcome, Haste, KeyChange, KeyPurpose, KeyState, KeyStore as _, RotationRecord,
    RotationState, RotationStore as _, Scanned, StoreError, WrapBatch, WrapOutcome, Wrapped,
};

use crate::turns::{Actor, Turn};
use crate::world::{World, account, key, now};

/// Records of a batch: few, so that there are many steps to crash between.
const BATCH: u32 = 4;

/// How a handset is looked up. Again, as long as memory is behind the store: a step that is to come ends that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookUp {
    /// As the gateway does: all probes against one state of the store.
    Gateway,
    /// One probe after the other, each against the store as it is by then, as a backend without snapshots might.
    Probes { newest_first: bool, recheck: bool },
}

impl LookUp {
    /// The right order, with the generation read before and after.
    pub(crate) const ONE_BY_ONE: Self = Self::Probes { newest_first: false, recheck: true };
}

/// A sign-in of `handset`.
pub(crate) fn sign_in(world: &Rc<World>, handset: usize, look_up: LookUp) -> Actor {
    let world = Rc::clone(world);
    Actor::new(false, async move |turn| {
        let begun = world.begun(handset);
        let found = match look_up {
            LookUp::Gateway => by_the_gateway(&world, &turn, handset).await,
            LookUp::Probes { newest_first, recheck } => {
                probe_by_probe(&world, &turn, handset, newest_first, recheck).await
            }
        };
        world.judge(handset, &begun, found, &format!("{look_up:?}"));
    })
}

async fn by_the_gateway(world: &World, turn: &Turn, handset: usize) -> Option<sekisho::binding::BindingId> {
    loop {
        let candidates = world.digest(handset).await;
        turn.ends().await;
        match resolve(&world.store, &world.ring, candidates, now()).await {
            Ok((bound, used)) => {
                turn.ends().await;
                used.note(&world.store, &world.ring).await.unwrap();
                return Some(bound.binding());
            }
            Err(BindingError::NotBound) => return None,
            Err(BindingError::Unsettled) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn probe_by_probe(
    world: &World,
    turn: &Turn,
    handset: usize,
    newest_first: bool,
    recheck: bool,
) -> Option<sekisho::binding::BindingId> {
    loop {
        let mut candidates = world.digest(handset).await;
        turn.ends().await;
        let before = world.store.generation().await.unwrap();
        turn.ends().await;
        if newest_first {
            candidates.probes.reverse();
        }
        let mut hit = None;
        for probe in &candidates.probes {
            let found = world.store.resolve(&candidates.carrier, std::slice::from_ref(probe)).await.unwrap();
            hit = hit.or(found.hit);
            turn.ends().await;
        }
        if let Some(hit) = hit {
            let (chain, digest) = candidates.flat;
            let flat = sekisho::store::Probe { chain, digest };
            let generation = candidates.generation;
            world.store.used(hit.binding.id, now().day(), flat, generation).await.unwrap();
            return Some(hit.binding.id);
        }
        let after = world.store.generation().await.unwrap();
        if !recheck || (before == after && candidates.generation == after) {
            return None;
        }
        turn.ends().await;
    }
}

/// An enrolment of `handset` to its account.
pub(crate) fn enrol(world: &Rc<World>, handset: usize) -> Actor {
    let world = Rc::clone(world);
    Actor::new(false, async move |turn| {
        loop {
            let candidates = world.digest(handset).await;
            turn.ends().await;
            let (store, ring, entropy) = (&world.store, &world.ring, &world.entropy);
            match enrol_by_console(store, ring, candidates, account(handset), 1, entropy, now()).await {
                Ok(ByConsole::Bound(bound)) => {
                    assert_eq!(world.bound(handset), None, "handset {handset} was bound already");
                    return world.was_bound(handset, bound.binding());
                }
                Ok(ByConsole::AlreadyBound(bound)) => return world.was_bound(handset, bound.binding()),
                Err(EnrolError::Unsettled) => {}
                // Its account has it: it was looked up, and not found.
                Err(EnrolError::BindingLimit) if world.bound(handset).is_some() => {
                    return world.lost.borrow_mut().push(format!("enrolment of {handset}"));
                }
                Err(refused) => panic!("handset {handset}: {refused}"),
            }
        }
    })
}

/// The operator takes a handset away.
pub(crate) async fn revoke(world: &World, handset: usize) {
    let Some((_, binding)) = world.bound(handset) else { return };
    match world.store.revoke(binding).await {
        Ok(revoked) => {
            assert!(revoked.is_some());
            world.was_revoked(handset);
        }
        // What a worker wrote that must not be: nobody can sign in by it either.
        Err(StoreError::Corrupt(_)) => world.lost.borrow_mut().push(format!("revocation of {handset}")),
        Err(error) => panic!("{error}"),
    }
}

/// A rotation begins: the store first, then memory.
pub(crate) fn start(world: &Rc<World>) -> Actor {
    let world = Rc::clone(world);
    Actor::new(true, async move |turn| {
        let stored = world.store.keys().await.unwrap();
        let active = stored.keys.iter().find(|key| key.purpose == KeyPurpose::Binding && key.state == KeyState::Active);
        let from = active.unwrap().id.clone();
        let number: u32 = from[1..].parse().unwrap();
        let to = format!("k{}", number + 1);
        let new = key(KeyPurpose::Binding, number + 1, KeyState::Active);
        let retire = KeyChange::Move { id: from.clone(), from: KeyState::Active, to: KeyState::Retiring, at: now() };
        let rotation = rotation(number, from, to);
        let id = rotation.id.clone();
        turn.ends().await;
        let changes = vec![retire, KeyChange::New(new)];
        match world.store.change_with(stored.revision, changes, vec![rotation], Some(id)).await.unwrap() {
            ChangeOutcome::Changed(_) => {
                turn.ends().await;
                world.reload().await;
            }
            ChangeOutcome::Stale => {}
            ChangeOutcome::InUse(_) => panic!("nothing that begins is in use"),
        }
    })
}

fn rotation(number: u32, from: String, to: String) -> RotationRecord {
    RotationRecord {
        id: format!("r{number}"),
        purpose: KeyPurpose::Binding,
        from,
        to,
        state: RotationState::Running,
        reason: String::new(),
        started_at: now(),
        finished_at: None,
        drain_by: Day::from_unix_days(30_000),
        total: 0,
        wrapped: 0,
        flattened: 0,
        cursor: 0,
        fence: 0,
        root_before: Vec::new(),
        root_after: Vec::new(),
    }
}

/// Moves records and keys as far as they go, then ends. Knows nothing but what is in the store, so that it may crash
/// between any two steps, and another may run beside it.
pub(crate) fn drive(world: &Rc<World>) -> Actor {
    let world = Rc::clone(world);
    Actor::new(true, async move |turn| {
        let Some(newest) = world.store.rotations().await.unwrap().into_iter().next() else { return };
        let fence = world.store.take_fence(&newest.id).await.unwrap().unwrap();
        turn.ends().await;
        world.reload().await;
        turn.ends().await;
        let active = KeyId::parse(&newest.to).unwrap();
        let mut after = 0;
        loop {
            let records = world.store.wrappable(active, after, BATCH).await.unwrap();
            turn.ends().await;
            let Some(last) = records.last().map(|record| record.position) else {
                if after == 0 {
                    break;
                }
                after = 0;
                continue;
            };
            let wrapping = world.ring.wrapping().unwrap();
            if wrapping.active() != active {
                return; // another rotation began
            }
            let generation = wrapping.generation();
            let records = wrapping.wrap_all(&records);
            turn.ends().await;
            let batch = || WrapBatch {
                rotation: newest.id.clone(),
                fence,
                generation,
                cursor: last,
                haste: Haste::Urgent,
                records: records
                    .iter()
                    .map(|r| Wrapped {
                        before: r.before.clone(),
                        chain: r.chain.clone(),
                        digest: r.digest.clone(),
                        ..*r
                    })
                    .collect(),
            };
            if !matches!(world.store.wrap(batch()).await.unwrap(), WrapOutcome::Wrapped(_)) {
                return;
            }
            // Invariant 6: again changes nothing.
            assert_eq!(world.store.wrap(batch()).await.unwrap(), WrapOutcome::Wrapped(0));
            after = last;
            turn.ends().await;
        }
        for (from, to) in [(KeyState::Retiring, KeyState::Inner), (KeyState::Inner, KeyState::Drained)] {
            move_keys(&world, &turn, from, to).await;
        }
    })
}

/// Moves every key that is in one state to the next, where the store lets it; then memory follows.
async fn move_keys(world: &World, turn: &Turn, from: KeyState, to: KeyState) {
    let stored = world.store.keys().await.unwrap();
    let here = stored.keys.iter().filter(|key| key.purpose == KeyPurpose::Binding && key.state == from);
    let Some(id) = here.map(|key| key.id.clone()).next() else { return };
    turn.ends().await;
    let change = KeyChange::Move { id: id.clone(), from, to, at: now() };
    let outcome = world.store.change(stored.revision, vec![change]).await.unwrap();
    if let ChangeOutcome::Changed(_) = outcome {
        // Invariant 8: it left no record behind.
        let left = KeyId::parse(&id).unwrap();
        let needs = |record: &Scanned| {
            let keys = record.chain.keys();
            if to == KeyState::Inner { keys.last() == Some(&left) } else { keys.contains(&left) }
        };
        assert!(!world.records().await.iter().any(needs), "{id} left {from:?}");
        turn.ends().await;
        world.reload().await;
    }
}

/// Invariant 10: there is no way back, and none past what records need (8).
pub(crate) async fn try_what_must_not_be(world: &World, dice: usize) {
    let stored = world.store.keys().await.unwrap();
    let keys: Vec<_> = stored.keys.iter().filter(|key| key.purpose == KeyPurpose::Binding).collect();
    let key = keys[dice % keys.len()];
    let place = |state| KeyState::ALL.iter().position(|other| *other == state).unwrap();
    for to in KeyState::ALL.into_iter().filter(|to| place(*to) <= place(key.state)) {
        let back = KeyChange::Move { id: key.id.clone(), from: key.state, to, at: now() };
        assert!(world.store.change(stored.revision, vec![back]).await.is_err(), "{} back to {to:?}", key.id);
    }
    let number = KeyId::parse(&key.id).unwrap();
    let needed = world.records().await.iter().any(|record| record.chain.keys()[0] <= number);
    if needed && matches!(key.state, KeyState::Retiring | KeyState::Inner) {
        let out = KeyChange::Move { id: key.id.clone(), from: key.state, to: KeyState::Drained, at: now() };
        let outcome = world.store.change(stored.revision, vec![out]).await.unwrap();
        assert!(matches!(outcome, ChangeOutcome::InUse(_)), "{} was let go", key.id);
    }
    assert_eq!(world.store.keys().await.unwrap().revision, stored.revision, "nothing changed");
}
