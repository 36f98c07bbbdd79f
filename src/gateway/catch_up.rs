//! What a store that was restored, or put back by hand, has still to become before a handset is served: keys that leaked or
//! were destroyed since let nobody in, binding keys that were replaced since are replaced again, and every record is under
//! the key that took their place.
//!
//! Each step is found out from the store and the ledger alone, so a process may die at any of them, and each that a person
//! has to take first (a suspended key) is waited for. The ledger is told last, when nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use crate::audit::{Action, AuditTrail, Effect, Ends, Event, Outcome};
use crate::backup::{Backups, Behind, KeyFact};
use crate::clock::Clock;
use crate::config::{ClientAddressDetail, Config, Finding};
use crate::keys::{Lifecycle, LifecycleError, Moment};
use crate::rotation::{RotationError, Rotations};
use crate::store::{KeyPurpose, KeyRecord, KeyState, RotationRecord, RotationState, StoreError};
use crate::telemetry::{self, Actor, KeyAction, RotationStep, SecurityEvent};

/// Why keys are replaced, in trail and journal.
const REASON: &str = "the store was restored from before this key was replaced, leaked or was destroyed";
/// How often it is looked again at what others do, such as resuming a key.
const LOOK: Duration = Duration::from_secs(1);
/// How long a step that failed is not tried again, at first and at most.
const FIRST_REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_mins(1);
/// More looks at the keys than their steps can ask for one after another.
const MOST_LOOKS: u32 = 16;

/// A store on its way to what it should be.
pub(super) struct CatchUp {
    behind: Behind,
    backups: Arc<Backups>,
    audit: Arc<AuditTrail>,
    rotations: Arc<Rotations>,
    lifecycle: Arc<Lifecycle>,
    clock: Arc<dyn Clock>,
    so_far: SoFar,
}

/// What this process has done of it.
#[derive(Default)]
struct SoFar {
    /// Keys that were flagged or replaced.
    keys: BTreeSet<String>,
    /// Rotations that went on again: who pauses one now decides when it does.
    resumed: BTreeSet<String>,
    failed: BTreeMap<Step, Failure>,
    /// Whether the audit trail says that it is over.
    noted: bool,
}

/// Why a step was not taken, and when it is tried again, by the monotonic clock.
struct Failure {
    problem: String,
    rest: Duration,
    until: Duration,
}

/// What is to be done next about a key or a rotation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The key leaked, or was destroyed: nothing that it made may count.
    LockOut { key: String, purpose: KeyPurpose },
    /// Another key took its place.
    Replace { key: String, purpose: KeyPurpose },
    /// The records were moved to the end once, and the rotation that does it is paused.
    Resume { rotation: String },
}

impl CatchUp {
    /// Of a store, if it is behind. Keys that leaked or were destroyed since let nobody in from here on.
    ///
    /// # Errors
    /// A finding: the store cannot be used. Where only no key could take the place of one, that is left to the rounds.
    pub(super) async fn begin(
        (behind, backups, audit): (Option<Behind>, &Arc<Backups>, &Arc<AuditTrail>),
        (rotations, lifecycle): (&Arc<Rotations>, &Arc<Lifecycle>),
        clock: &Arc<dyn Clock>,
        config: &Config,
    ) -> Result<Option<Self>, Finding> {
        let Some(behind) = behind else { return Ok(None) };
        let (backups, audit, clock) = (Arc::clone(backups), Arc::clone(audit), Arc::clone(clock));
        let (rotations, lifecycle, so_far) = (Arc::clone(rotations), Arc::clone(lifecycle), SoFar::default());
        let mut begun = Self { behind, backups, audit, rotations, lifecycle, clock, so_far };
        begun.lock_out(config).await?;
        Ok(Some(begun))
    }

    /// Does what can be done before anybody is served, and has the rest done in the background of `gateway`, which serves
    /// no handset until then.
    pub(super) async fn go_on(begun: Option<Self>, gateway: &Arc<Gateway>, background: &TaskTracker) {
        let Some(mut begun) = begun else { return };
        let waits_for = begun.round().await;
        let over = waits_for.is_none();
        gateway.set_catching_up(waits_for);
        if !over {
            background.spawn(begun.run(Arc::clone(gateway), gateway.shutdown.clone()));
        }
    }

    async fn lock_out(&mut self, config: &Config) -> Result<(), Finding> {
        let at_keys = |problem: String| config.finding("keys", problem);
        let steps = self.due().await.map_err(|error| at_keys(error.to_string()))?.0;
        for step in steps {
            let Step::LockOut { key, .. } = &step else { continue };
            let Err(problem) = self.take(&step).await else { continue };
            let stored = self.lifecycle.stored().await.map_err(|error| at_keys(error.to_string()))?;
            if !stored.keys.iter().any(|stored| stored.id == *key && stored.compromised) {
                return Err(at_keys(format!(
                    "key {key} must be replaced before the restored store can be used: {problem}"
                )));
            }
        }
        Ok(())
    }

    /// Does all that can be done now. `None` once nothing is left, and the ledger knows it; otherwise what is waited for.
    async fn round(&mut self) -> Option<String> {
        self.try_round().await.unwrap_or_else(|error| Some(error.to_string()))
    }

    /// Goes on until nothing is left, or `shutdown` fires.
    async fn run(mut self, gateway: Arc<Gateway>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.rotations.moved() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            let waits_for = self.round().await;
            let over = waits_for.is_none();
            gateway.set_catching_up(waits_for);
            if over {
                return;
            }
        }
    }

    async fn try_round(&mut self) -> Result<Option<String>, StoreError> {
        for _ in 0..MOST_LOOKS {
            let (steps, waits_for) = self.due().await?;
            let (mut taken, mut problems) = (false, Vec::new());
            for step in steps {
                match self.take(&step).await {
                    Ok(()) => taken = true,
                    Err(problem) => problems.push(problem),
                }
            }
            // What came into use by a step may have to be replaced itself.
            if taken {
                continue;
            }
            problems.extend(waits_for);
            if !problems.is_empty() {
                return Ok(Some(problems.join("; ")));
            }
            return self.tell().await.map(|()| None);
        }
        Ok(Some("the keys keep being changed".to_owned()))
    }

    /// What is to be done now, keys that leaked first; and what else is waited for.
    async fn due(&self) -> Result<(Vec<Step>, Option<String>), StoreError> {
        let keys = self.lifecycle.stored().await?.keys;
        let mut open = self.rotations.records().await?;
        open.retain(|record| record.state.is_open());
        Ok(due(&keys, &open, &self.behind.seen.keys, &self.so_far.resumed))
    }

    /// Takes a step, unless it failed a moment ago.
    async fn take(&mut self, step: &Step) -> Result<(), String> {
        let monotonic = self.clock.monotonic();
        if let Some(failure) = self.so_far.failed.get(step).filter(|failure| monotonic < failure.until) {
            return Err(failure.problem.clone());
        }
        match self.act(step).await {
            Ok(()) => {
                self.so_far.failed.remove(step);
                match step {
                    Step::LockOut { key, .. } | Step::Replace { key, .. } => self.so_far.keys.insert(key.clone()),
                    Step::Resume { rotation } => self.so_far.resumed.insert(rotation.clone()),
                };
                Ok(())
            }
            Err(problem) => {
                let rest = self.so_far.failed.get(step).map_or(FIRST_REST, |f| (f.rest * 2).min(LONGEST_REST));
                let failure = Failure { problem: problem.clone(), rest, until: self.clock.monotonic() + rest };
                self.so_far.failed.insert(step.clone(), failure);
                Err(problem)
            }
        }
    }

    /// Each step stands in the trail before it is taken.
    async fn act(&self, step: &Step) -> Result<(), String> {
        let (rotations, lifecycle, clock) = (&*self.rotations, &*self.lifecycle, &*self.clock);
        let at = Moment::of(clock);
        let event = |action, object: &str| Event::new(action, Actor::Gateway).object(object).reason(REASON);
        match step {
            Step::LockOut { key, purpose } => {
                let work = async {
                    if *purpose == KeyPurpose::Binding {
                        rotations.compromise(key, REASON, None, clock).await.map(drop)?;
                    } else {
                        lifecycle.compromise(key, REASON, None, at).await?;
                    }
                    Ok::<_, CatchUpError>(((), Effect::none()))
                };
                let done = self.audit.act(event(Action::KeyCompromise, key), clock, work).await;
                done.map_err(|error| format!("key {key} leaked or was destroyed: {error}"))?;
                tell_of_key(key);
            }
            Step::Replace { key, purpose } => {
                let work = async {
                    let rotation = if *purpose == KeyPurpose::Binding {
                        rotations.replace_again(key, REASON, at.now).await?
                    } else {
                        lifecycle.start_rotation(*purpose, REASON, None, at).await?.id
                    };
                    Ok::<_, CatchUpError>((rotation, Effect::none()))
                };
                let done = self.audit.act(event(Action::RotationStart, key), clock, work).await;
                let rotation = done.map_err(|error| format!("key {key} was replaced: {error}"))?;
                tell_of_rotation(&rotation, RotationStep::Started);
            }
            Step::Resume { rotation } => {
                let work = async {
                    rotations.resume(rotation, None, at.now).await?;
                    Ok::<_, CatchUpError>(((), Effect::none()))
                };
                let done = self.audit.act(event(Action::RotationResume, rotation), clock, work).await;
                done.map_err(|error| format!("rotation {rotation}: {error}"))?;
                tell_of_rotation(rotation, RotationStep::Resumed);
            }
        }
        Ok(())
    }

    /// Nothing is left to do.
    async fn tell(&mut self) -> Result<(), StoreError> {
        if !self.so_far.noted {
            let locked_out = self.locked_out().await?;
            let keys = self.so_far.keys.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            tracing::warn!(
                keys,
                locked_out,
                "the restored store has caught up; bindings that are locked out need a PIN or a new code"
            );
            let event = Event::new(Action::StoreCaughtUp, Actor::Gateway).object(keys).effect(Effect::of(locked_out));
            self.audit.note(event, self.clock.now()).await?;
            self.so_far.noted = true;
        }
        self.backups.caught_up(self.clock.now()).await
    }

    /// Records that sign nobody in, because a key of their chain leaked.
    async fn locked_out(&self) -> Result<u64, StoreError> {
        let keys = self.lifecycle.stored().await?.keys;
        let leaked = |id: &str| keys.iter().any(|key| key.compromised && key.id == id);
        let chains = self.rotations.chains().await.map_err(|error| {
            if let RotationError::Store(error) = error { error } else { StoreError::Unavailable(error.to_string()) }
        })?;
        let under = chains.iter().filter(|(chain, _)| chain.keys().iter().any(|key| leaked(&key.to_string())));
        Ok(under.map(|(_, records)| records).sum())
    }
}

/// What is to be done about these keys and open rotations by what the ledger has seen of them; and what else is waited for.
fn due(
    keys: &[KeyRecord],
    open: &[RotationRecord],
    seen: &[KeyFact],
    resumed: &BTreeSet<String>,
) -> (Vec<Step>, Option<String>) {
    let (mut leaked, mut others, mut moves, mut waits_for) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let of_binding = |record: &&RotationRecord| record.purpose == KeyPurpose::Binding;
    // Of those that have begun the latest moves the records, whosesoever they are.
    let latest = open.iter().filter(of_binding).find(|record| {
        let to = keys.iter().find(|key| key.id == record.to);
        to.is_none_or(|key| key.state != KeyState::Pending)
    });
    for (key, fact) in keys.iter().filter_map(|key| Some((key, seen.iter().find(|fact| fact.is_about(key))?))) {
        let (id, purpose) = (key.id.clone(), key.purpose);
        let binding = purpose == KeyPurpose::Binding;
        let gone = fact.compromised || (binding && fact.state() == Some(KeyState::Destroyed));
        match key.state {
            // Flagged alone before, because no key could take its place, it is in use all the same.
            KeyState::Active if gone => leaked.push(Step::LockOut { key: id, purpose }),
            // One that waits would come into use by itself, or by the verb that it waits for.
            KeyState::Pending | KeyState::Retiring | KeyState::Inner if gone && !key.compromised => {
                leaked.push(Step::LockOut { key: id, purpose });
            }
            KeyState::Active if binding && fact.is_past(key.state) => moves.push(Step::Replace { key: id, purpose }),
            // Begun already, it goes on by itself: nothing that is stored hangs on it.
            KeyState::Active if fact.is_past(key.state) && !open.iter().any(|record| record.from == id) => {
                others.push(Step::Replace { key: id, purpose });
            }
            KeyState::Retiring if binding && fact.is_past(key.state) => {
                match latest.filter(|record| record.state == RotationState::Paused).map(|record| record.id.clone()) {
                    Some(rotation) if resumed.contains(&rotation) => {
                        waits_for.push(format!("rotation {rotation} was paused; `sekisho rotation resume {rotation}`"));
                    }
                    Some(rotation) => moves.push(Step::Resume { rotation }),
                    None => {}
                }
            }
            KeyState::Pending
            | KeyState::Active
            | KeyState::Retiring
            | KeyState::Inner
            | KeyState::Drained
            | KeyState::Destroyed => {}
        }
    }
    let running = open.iter().filter(of_binding).find(|record| record.state == RotationState::Running);
    let live = |key: &&KeyRecord| matches!(key.state, KeyState::Active | KeyState::Retiring | KeyState::Inner);
    let suspended =
        keys.iter().filter(|key| key.purpose == KeyPurpose::Binding && key.suspended).find(live).map(|key| &key.id);
    match (suspended, running) {
        // Nothing is written then, and a person has to say what becomes of it.
        (Some(id), running) if running.is_some() || !moves.is_empty() => {
            moves.clear();
            waits_for.push(format!(
                "key {id} is suspended; `sekisho keys resume {id}`, or `sekisho keys compromise {id}` if it leaked"
            ));
        }
        (_, Some(RotationRecord { id, to, .. })) => waits_for.push(format!("rotation {id} moves the records to {to}")),
        (_, None) => {}
    }
    leaked.append(&mut others);
    leaked.append(&mut moves);
    leaked.dedup();
    waits_for.dedup();
    (leaked, (!waits_for.is_empty()).then(|| waits_for.join("; ")))
}

fn tell_of_key(id: &str) {
    let event = SecurityEvent::KeyChanged { id, change: KeyAction::Compromised, by: Actor::Gateway };
    telemetry::security(&event, None, ClientAddressDetail::None);
}

fn tell_of_rotation(id: &str, step: RotationStep) {
    telemetry::security(&SecurityEvent::Rotation { id, step, by: None }, None, ClientAddressDetail::None);
}

/// Why a step was not taken.
#[derive(Debug, Error)]
enum CatchUpError {
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    Key(#[from] LifecycleError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ends for CatchUpError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Rotation(error) => error.outcome(),
            Self::Key(error) => error.outcome(),
            Self::Store(error) => error.outcome(),
        }
    }
}

#[cfg(test)]
mod tests {
    use KeyState::{Active, Destroyed, Drained, Inner, Pending, Retiring};
    use RotationState::{Draining, Paused, Running};

    use super::*;
    use crate::backup::hex;
    use crate::clock::Timestamp;
    use crate::store::KeyDates;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_795_530_000_000);

    fn purpose(id: &str) -> KeyPurpose {
        KeyPurpose::ALL.into_iter().find(|purpose| id.starts_with(purpose.letter())).unwrap()
    }

    fn commitment(id: &str) -> [u8; 32] {
        std::array::from_fn(|at| id.as_bytes()[at % id.len()])
    }

    fn key(id: &str, state: KeyState) -> KeyRecord {
        KeyRecord {
            id: id.to_owned(),
            purpose: purpose(id),
            state,
            suspended: false,
            compromised: false,
            wrapped: Vec::new(),
            commitment: commitment(id),
            public: None,
            created_at: NOW,
            dates: KeyDates::default(),
        }
    }

    fn fact(id: &str, state: KeyState) -> KeyFact {
        let (id, commitment) = (id.to_owned(), hex(&commitment(id)));
        KeyFact { id, commitment, state: state.as_str().to_owned(), compromised: false }
    }

    fn rotation(id: &str, from: &str, to: &str, state: RotationState) -> RotationRecord {
        RotationRecord::new(id, purpose(from), from, to, state, NOW, NOW.day())
    }

    fn lock_out(key: &str) -> Step {
        Step::LockOut { key: key.to_owned(), purpose: purpose(key) }
    }

    fn replace(key: &str) -> Step {
        Step::Replace { key: key.to_owned(), purpose: purpose(key) }
    }

    fn resume(rotation: &str) -> Step {
        Step::Resume { rotation: rotation.to_owned() }
    }

    /// What is to be done, and whether something is waited for.
    fn asked(keys: &[KeyRecord], open: &[RotationRecord], seen: &[KeyFact]) -> (Vec<Step>, bool) {
        let (steps, waits_for) = due(keys, open, seen, &BTreeSet::new());
        (steps, waits_for.is_some())
    }

    #[test]
    fn a_key_goes_as_far_again_as_it_was_seen() {
        // A store that is what it should be, whatever its keys are.
        for state in KeyState::ALL {
            assert_eq!(asked(&[key("k1", state)], &[], &[fact("k1", state)]), (vec![], false), "{state:?}");
        }
        // Further than the ledger knows.
        assert_eq!(asked(&[key("k1", Active)], &[], &[fact("k1", Pending)]), (vec![], false));
        // Another key of that id.
        let other = KeyFact { commitment: hex(&[0; 32]), ..fact("k1", Destroyed) };
        assert_eq!(asked(&[key("k1", Active)], &[], &[other]), (vec![], false));
        for state in [Retiring, Inner, Drained] {
            assert_eq!(asked(&[key("k1", Active)], &[], &[fact("k1", state)]), (vec![replace("k1")], false));
            assert_eq!(asked(&[key("a1", Active)], &[], &[fact("a1", state)]), (vec![replace("a1")], false));
        }
        // Of assertion keys nothing that is stored hangs: begun is enough.
        let begun = rotation("r1", "a1", "a2", Running);
        assert_eq!(asked(&[key("a1", Active)], &[begun], &[fact("a1", Drained)]), (vec![], false));
    }

    #[test]
    fn what_leaked_or_was_destroyed_is_locked_out_first() {
        let leaked = |id, state| KeyFact { compromised: true, ..fact(id, state) };
        for state in [Pending, Active, Retiring, Inner] {
            let keys = [key("k1", state), key("a1", state)];
            let seen = [leaked("k1", state), leaked("a1", state)];
            assert_eq!(asked(&keys, &[], &seen).0, [lock_out("k1"), lock_out("a1")], "{state:?}");
            // A binding key that is gone made digests; an assertion key that is made none.
            assert_eq!(asked(&keys[..1], &[], &[fact("k1", Destroyed)]).0, [lock_out("k1")], "{state:?}");
        }
        let keys = [key("a1", Active), key("k1", Active)];
        let seen = [fact("a1", Retiring), leaked("k1", Retiring)];
        assert_eq!(asked(&keys, &[], &seen).0, [lock_out("k1"), replace("a1")]);
        // Flagged, it is out; unless none took its place, and it is still in use.
        let flagged = |state| KeyRecord { compromised: true, ..key("k1", state) };
        assert_eq!(asked(&[flagged(Retiring)], &[], &[leaked("k1", Retiring)]).0, []);
        assert_eq!(asked(&[flagged(Active)], &[], &[leaked("k1", Active)]).0, [lock_out("k1")]);
    }

    #[test]
    fn records_that_were_moved_once_are_moved_to_the_end() {
        let keys = [key("k1", Retiring), key("k2", Active)];
        let [running, paused, draining] = [Running, Paused, Draining].map(|state| rotation("r1", "k1", "k2", state));
        let open = |record: &RotationRecord| vec![record.clone()];
        for seen in [Retiring, Inner, Drained] {
            assert_eq!(asked(&keys, &open(&running), &[fact("k1", seen)]), (vec![], true), "{seen:?}");
            assert_eq!(asked(&keys, &open(&draining), &[fact("k1", seen)]), (vec![], false), "{seen:?}");
        }
        assert_eq!(asked(&keys, &open(&paused), &[fact("k1", Inner)]), (vec![resume("r1")], false));
        // It was paused then as well.
        assert_eq!(asked(&keys, &open(&paused), &[fact("k1", Retiring)]), (vec![], false));
        // Who pauses it now has a reason.
        let (steps, waits_for) = due(&keys, &open(&paused), &[fact("k1", Inner)], &BTreeSet::from(["r1".to_owned()]));
        assert_eq!(
            (steps, waits_for.unwrap().as_str()),
            (vec![], "rotation r1 was paused; `sekisho rotation resume r1`")
        );
        // One that has not begun moves nothing.
        let waiting = [rotation("r2", "k2", "k3", Paused), paused];
        let keys = [key("k1", Retiring), key("k2", Active), key("k3", Pending)];
        assert_eq!(asked(&keys, &waiting, &[fact("k1", Inner)]).0, [resume("r1")]);
    }

    #[test]
    fn nothing_is_moved_while_a_key_is_suspended_and_that_is_said() {
        let suspended = |id, state| KeyRecord { suspended: true, ..key(id, state) };
        let waits = |keys: &[KeyRecord], open: &[RotationRecord], seen: &[KeyFact]| {
            let (steps, waits_for) = due(keys, open, seen, &BTreeSet::new());
            assert_eq!(steps, [], "{keys:?}");
            waits_for.unwrap()
        };
        let told = "key k1 is suspended; `sekisho keys resume k1`, or `sekisho keys compromise k1` if it leaked";
        assert_eq!(waits(&[suspended("k1", Active)], &[], &[fact("k1", Inner)]), told);
        let keys = [suspended("k1", Retiring), key("k2", Active)];
        for state in [Running, Paused] {
            assert_eq!(waits(&keys, &[rotation("r1", "k1", "k2", state)], &[fact("k1", Inner)]), told);
        }
        // Nobody waits for it where nothing is to be moved, and it keeps nobody from locking out what leaked.
        assert_eq!(asked(&[suspended("k1", Active)], &[], &[fact("k1", Active)]), (vec![], false));
        let leaked = KeyFact { compromised: true, ..fact("k1", Active) };
        assert_eq!(asked(&[suspended("k1", Active)], &[], &[leaked]).0, [lock_out("k1")]);
    }
}
