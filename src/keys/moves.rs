//! What a key does next: pure steps from what is stored, the periods in force and the present moment.
//!
//! Covers assertion, session and audit keys whole. Of binding keys, whose records move, only what concerns the key alone:
//! suspending, resuming, destroying; the rest is the rotation's.

use std::time::Duration;

use thiserror::Error;

use super::keyset::NewKey;
use crate::assertion::JWKS_MAX_AGE;
use crate::binding::EnrolmentCode;
use crate::clock::Timestamp;
use crate::config::KeyPeriods;
use crate::store::{KeyChange, KeyPurpose, KeyRecord, KeyState, RotationRecord, RotationState};

/// The least time an assertion key is published before it signs: whoever keeps the JWKS as long as it may has it then.
pub(super) const PUBLISHED_AT_LEAST: Duration = JWKS_MAX_AGE.saturating_add(Duration::from_mins(1));
/// How long a former assertion key stays published: the life of an assertion, a verifier's leeway and what a cache may
/// keep are a small part of it.
const ASSERTION_KEPT: Duration = Duration::from_hours(24);
/// How long a former session key is kept: the life of the codes that were made under it, and some.
const SESSION_KEPT: Duration = EnrolmentCode::LIFETIME.saturating_mul(6);
/// How long a binding key should be used: the originator usage period of SP 800-57 part 1 §5.3.6 for a symmetric
/// authentication key.
const BINDING_USED: Duration = Duration::from_hours(24 * 730);
/// A gateway that was off for a day or two catches up by itself.
const GRACE: Duration = Duration::from_hours(48);
const SCHEDULE_STALLED: &str = "the schedule replaces it while a gateway runs, unless one of its kind is suspended";
/// What the schedule says of itself.
const SCHEDULE: &str = "schedule";

/// Why a key does not do what was asked. Names ids, states and times, which are no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyRefusal {
    /// There is no such key.
    #[error("no key has that id; `sekisho keys list` shows them")]
    NotThere,
    /// Its state, or another key's, forbids it.
    #[error("{id} is {state}: {advice}")]
    State {
        /// Which key.
        id: String,
        /// The word of its state.
        state: &'static str,
        /// What forbids it, and what to do.
        advice: String,
    },
    /// A rotation of these keys has not come far enough for the next.
    #[error("rotation {0} has not made its key active yet; wait for it, or abort it")]
    RotationLimit(String),
    /// The rotation of binding keys does this, because records move with them.
    #[error(
        "binding keys are made and made active by `sekisho rotation start --purpose binding`, records move with them"
    )]
    BindingKey,
}

/// What is stored, and when it is looked at.
pub(super) struct View<'v> {
    pub(super) keys: &'v [KeyRecord],
    pub(super) rotations: &'v [RotationRecord],
    pub(super) periods: &'v KeyPeriods,
    pub(super) now: Timestamp,
    /// For how long this process has published the pending assertion key, whatever was done to the clock meanwhile.
    pub(super) shown_for: Duration,
}

/// What is to change, in one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) make: Option<NewKey>,
    pub(super) changes: Vec<KeyChange>,
    pub(super) rotations: Vec<RotationRecord>,
}

impl Plan {
    pub(super) const fn is_empty(&self) -> bool {
        self.make.is_none() && self.changes.is_empty() && self.rotations.is_empty()
    }
}

impl View<'_> {
    /// Makes a key that waits to be made active.
    pub(super) fn generate(&self, purpose: KeyPurpose) -> Result<Plan, KeyRefusal> {
        if purpose == KeyPurpose::Binding {
            return Err(KeyRefusal::BindingKey);
        }
        if let Some(pending) = self.pending(purpose) {
            return Err(wrong(pending, "make it active or destroy it before the next is made"));
        }
        Ok(Plan { make: Some(self.new_key(purpose, KeyState::Pending)), ..Plan::default() })
    }

    /// Makes a pending key the one in use; the former one retires.
    pub(super) fn activate(&self, id: &str) -> Result<Plan, KeyRefusal> {
        let key = self.key(id)?;
        if key.purpose == KeyPurpose::Binding {
            return Err(KeyRefusal::BindingKey);
        }
        if key.state != KeyState::Pending {
            return Err(wrong(key, "only a pending key can be made active, and no key becomes active twice"));
        }
        if key.purpose == KeyPurpose::Assertion && !self.is_known(key, PUBLISHED_AT_LEAST) {
            let shown = self.now.since(key.created_at).min(self.shown_for);
            let at = self.now.plus(PUBLISHED_AT_LEAST.saturating_sub(shown)).rfc3339();
            let advice =
                format!("upstreams may not know it before {at}; if the active one leaked, `keys compromise` it");
            return Err(wrong(key, &advice));
        }
        let running = self.running(key.purpose).filter(|rotation| rotation.to == id).cloned();
        self.hand_over(key.purpose, id, running, "")
    }

    /// Stops everything that needs the key.
    pub(super) fn suspend(&self, id: &str) -> Result<Plan, KeyRefusal> {
        let key = self.key(id)?;
        match key.state {
            _ if key.purpose == KeyPurpose::Audit => {
                Err(wrong(key, "an audit key is not suspended, or nothing could be recorded; rotate or compromise it"))
            }
            KeyState::Active | KeyState::Retiring | KeyState::Inner => Ok(suspended(key, true)),
            KeyState::Pending => Err(wrong(key, "it is not in use; destroy it if it is not wanted")),
            KeyState::Drained | KeyState::Destroyed => Err(wrong(key, "it is not in use any more")),
        }
    }

    /// Lets what needs the key go on.
    pub(super) fn resume(&self, id: &str) -> Result<Plan, KeyRefusal> {
        let key = self.key(id)?;
        if key.state == KeyState::Active && key.compromised {
            return Err(wrong(key, "it leaked, and no key has taken its place yet; `keys compromise` it again"));
        }
        Ok(suspended(key, false))
    }

    /// The key has leaked, and none can take its place now. Without an audit key nothing could be recorded.
    pub(super) fn flag(&self, id: &str) -> Result<Plan, KeyRefusal> {
        let key = self.key(id)?;
        let mut plan = if key.purpose == KeyPurpose::Audit { Plan::default() } else { suspended(key, true) };
        if !key.compromised {
            plan.changes.push(KeyChange::Compromise { id: id.to_owned() });
        }
        Ok(plan)
    }

    /// The key has leaked: nothing it made from now on counts. Where it is in use, a fresh one takes its place in the
    /// same step; one that was waiting to may have leaked with it, and goes too.
    pub(super) fn compromise(&self, id: &str, reason: &str) -> Result<Plan, KeyRefusal> {
        let key = self.key(id)?;
        let live = matches!(key.state, KeyState::Active | KeyState::Retiring | KeyState::Inner);
        if key.purpose == KeyPurpose::Binding && live {
            return Err(KeyRefusal::BindingKey);
        }
        let mut plan = Plan::default();
        if !key.compromised {
            plan.changes.push(KeyChange::Compromise { id: id.to_owned() });
        }
        match (key.state, key.purpose) {
            (KeyState::Active, purpose) => {
                let successor = self.new_key(purpose, KeyState::Active);
                let to = successor.id();
                plan.make = Some(successor);
                if let Some(pending) = self.pending(purpose) {
                    plan.changes.push(self.moved(pending, KeyState::Drained));
                }
                if key.suspended {
                    plan.changes.push(KeyChange::Suspend { id: id.to_owned(), suspended: false });
                }
                // Nothing that it made is believed any more. An assertion key is called retiring so long as verifiers may
                // not have noticed, which is also how long nobody may keep the JWKS.
                let retired = if purpose == KeyPurpose::Assertion { KeyState::Retiring } else { KeyState::Drained };
                plan.changes.push(self.moved(key, retired));
                plan.rotations.extend(self.running(purpose).map(|running| self.ended(running, RotationState::Aborted)));
                plan.rotations.push(self.rotation(purpose, id, &to, after(retired), reason));
            }
            (KeyState::Pending, purpose) => {
                plan.changes.push(self.moved(key, KeyState::Drained));
                let waited_for = self.running(purpose).filter(|rotation| rotation.to == id);
                plan.rotations.extend(waited_for.map(|running| self.ended(running, RotationState::Aborted)));
            }
            // Codes that were made under it are not believed any more.
            (KeyState::Retiring, KeyPurpose::Session) => {
                plan.changes.push(self.moved(key, KeyState::Drained));
                plan.rotations.extend(self.drained_by(id));
            }
            (KeyState::Retiring | KeyState::Inner | KeyState::Drained | KeyState::Destroyed, _) => {}
        }
        Ok(plan)
    }

    /// Wipes a key that nothing needs; its record stays.
    pub(super) fn destroy(&self, id: &str) -> Result<Plan, KeyRefusal> {
        let key = self.key(id)?;
        match key.state {
            KeyState::Drained => {
                let cooled = self.cooled_at(key);
                if self.now < cooled {
                    return Err(wrong(key, &format!("it cools off until {} (keys.cooling)", cooled.rfc3339())));
                }
            }
            KeyState::Pending => {
                let waits = |rotation: &&RotationRecord| rotation.state.is_open() && rotation.to == id;
                if let Some(open) = self.rotations.iter().find(waits) {
                    return Err(wrong(key, &format!("rotation {} waits for it; abort that first", open.id)));
                }
            }
            KeyState::Destroyed => return Err(wrong(key, "nothing is left of it")),
            KeyState::Active => return Err(wrong(key, "it is in use; rotate first, and wait until it is drained")),
            KeyState::Retiring | KeyState::Inner => {
                return Err(wrong(key, "it is still needed; wait until it is drained"));
            }
        }
        Ok(Plan { changes: vec![self.moved(key, KeyState::Destroyed)], ..Plan::default() })
    }

    /// When a drained key may be destroyed.
    pub(super) fn cooled_at(&self, key: &KeyRecord) -> Timestamp {
        key.dates.drained_at.unwrap_or(self.now).plus(self.periods.cooling)
    }

    /// Begins to replace the active key.
    pub(super) fn start(&self, purpose: KeyPurpose, reason: &str) -> Result<Plan, KeyRefusal> {
        if purpose == KeyPurpose::Binding {
            return Err(KeyRefusal::BindingKey);
        }
        if let Some(running) = self.running(purpose) {
            return Err(KeyRefusal::RotationLimit(running.id.clone()));
        }
        let from = self.active(purpose)?.id.clone();
        let pending = self.pending(purpose);
        match (purpose, pending) {
            // Published first.
            (KeyPurpose::Assertion, pending) => {
                let make = pending.is_none().then(|| self.new_key(purpose, KeyState::Pending));
                let to = pending.map_or_else(|| self.new_key(purpose, KeyState::Pending).id(), |key| key.id.clone());
                let rotation = self.rotation(purpose, &from, &to, RotationState::Running, reason);
                Ok(Plan { make, rotations: vec![rotation], ..Plan::default() })
            }
            (_, Some(pending)) => self.hand_over(purpose, &pending.id, None, reason),
            (_, None) => {
                let successor = self.new_key(purpose, KeyState::Active);
                let mut plan = self.hand_over(purpose, &successor.id(), None, reason)?;
                plan.make = Some(successor);
                Ok(plan)
            }
        }
    }

    /// Gives up a rotation whose key is not active yet. That key was published, so it is not used again.
    pub(super) fn abort(&self, rotation: &RotationRecord) -> Result<Plan, KeyRefusal> {
        let key = self.key(&rotation.to)?;
        if rotation.state != RotationState::Running || key.state != KeyState::Pending {
            return Err(wrong(key, "a rotation whose key is active goes on to its end"));
        }
        Ok(Plan {
            changes: vec![self.moved(key, KeyState::Drained)],
            rotations: vec![self.ended(rotation, RotationState::Aborted)],
            ..Plan::default()
        })
    }

    /// The next step that time alone brings, if one is due. Nothing is due for keys of which one is suspended: a person
    /// decides then.
    pub(super) fn due(&self) -> Plan {
        let purposes = [KeyPurpose::Assertion, KeyPurpose::Session, KeyPurpose::Audit];
        let step = purposes.into_iter().find_map(|purpose| self.due_for(purpose).filter(|plan| !plan.is_empty()));
        step.unwrap_or_default()
    }

    fn due_for(&self, purpose: KeyPurpose) -> Option<Plan> {
        let in_use = |key: &KeyRecord| matches!(key.state, KeyState::Active | KeyState::Retiring);
        if self.of(purpose).any(|key| key.suspended && in_use(key)) {
            return None;
        }
        if let Some(key) = self.of(purpose).find(|key| key.state == KeyState::Retiring && self.is_past(key)) {
            let changes = vec![self.moved(key, KeyState::Drained)];
            return Some(Plan {
                changes,
                rotations: self.drained_by(&key.id).into_iter().collect(),
                ..Plan::default()
            });
        }
        if let Some(running) = self.running(purpose) {
            let published = self.periods.assertion_publish.max(PUBLISHED_AT_LEAST);
            let key = self.key(&running.to).ok()?;
            return if self.is_known(key, published) {
                self.hand_over(purpose, &key.id, Some(running.clone()), "").ok()
            } else {
                None
            };
        }
        let active = self.active(purpose).ok()?;
        let since = active.dates.activated_at.unwrap_or(active.created_at);
        let (period, ahead) = match purpose {
            KeyPurpose::Binding => return None,
            KeyPurpose::Assertion => (self.periods.assertion_rotate, self.periods.assertion_publish),
            KeyPurpose::Session => (self.periods.session_rotate, Duration::ZERO),
            KeyPurpose::Audit => (self.periods.audit_rotate, Duration::ZERO),
        };
        if self.now.since(since) >= period.saturating_sub(ahead) { self.start(purpose, SCHEDULE).ok() } else { None }
    }

    /// Whether verifiers have had the pending key for so long, by the clock and by time that passed.
    fn is_known(&self, key: &KeyRecord, published: Duration) -> bool {
        self.now.since(key.created_at) >= published && self.shown_for >= PUBLISHED_AT_LEAST
    }

    /// Whether nothing is left that a retired key made.
    fn is_past(&self, key: &KeyRecord) -> bool {
        let kept = if key.purpose == KeyPurpose::Session { SESSION_KEPT } else { ASSERTION_KEPT };
        key.dates.retired_at.is_some_and(|retired| self.now.since(retired) >= kept)
    }

    /// `to` becomes active, the former one retires, and the rotation, a new one where none ran, goes on.
    fn hand_over(
        &self,
        purpose: KeyPurpose,
        to: &str,
        running: Option<RotationRecord>,
        reason: &str,
    ) -> Result<Plan, KeyRefusal> {
        let from = self.active(purpose)?;
        // What a suspended key made is not believed, so nothing is left to wait for.
        let retired = if from.suspended { KeyState::Drained } else { retired(purpose) };
        let mut changes = vec![self.moved(from, retired)];
        changes.extend(self.key(to).ok().map(|pending| self.moved(pending, KeyState::Active)));
        let state = after(retired);
        let rotation = match running {
            Some(running) if state.is_open() => RotationRecord { state, ..running },
            Some(running) => self.ended(&running, state),
            None => self.rotation(purpose, &from.id, to, state, reason),
        };
        Ok(Plan { make: None, changes, rotations: vec![rotation] })
    }

    /// The rotation that ends because `from` is drained.
    fn drained_by(&self, from: &str) -> Option<RotationRecord> {
        let draining = |r: &&RotationRecord| r.state == RotationState::Draining && r.from == from;
        self.rotations.iter().find(draining).map(|rotation| self.ended(rotation, RotationState::Done))
    }

    fn ended(&self, rotation: &RotationRecord, state: RotationState) -> RotationRecord {
        RotationRecord { state, finished_at: Some(self.now), ..rotation.clone() }
    }

    fn rotation(
        &self,
        purpose: KeyPurpose,
        from: &str,
        to: &str,
        state: RotationState,
        reason: &str,
    ) -> RotationRecord {
        let kept = if purpose == KeyPurpose::Session { SESSION_KEPT } else { ASSERTION_KEPT };
        let ahead = if state == RotationState::Running { self.periods.assertion_publish } else { Duration::ZERO };
        let id = format!("r{}", next(self.rotations.iter().map(|rotation| rotation.id.as_str())));
        let drain_by = self.now.plus(ahead).plus(kept).day();
        RotationRecord {
            reason: reason.to_owned(),
            finished_at: (!state.is_open()).then_some(self.now),
            ..RotationRecord::new(&id, purpose, from, to, state, self.now, drain_by)
        }
    }

    fn moved(&self, key: &KeyRecord, to: KeyState) -> KeyChange {
        KeyChange::Move { id: key.id.clone(), from: key.state, to, at: self.now }
    }

    fn new_key(&self, purpose: KeyPurpose, state: KeyState) -> NewKey {
        NewKey { purpose, number: next(self.of(purpose).map(|key| key.id.as_str())), state }
    }

    fn running(&self, purpose: KeyPurpose) -> Option<&RotationRecord> {
        let runs = |r: &&RotationRecord| r.purpose == purpose && matches!(r.state, RotationState::Running);
        self.rotations.iter().find(runs)
    }

    fn of(&self, purpose: KeyPurpose) -> impl Iterator<Item = &KeyRecord> {
        self.keys.iter().filter(move |key| key.purpose == purpose)
    }

    fn pending(&self, purpose: KeyPurpose) -> Option<&KeyRecord> {
        self.of(purpose).find(|key| key.state == KeyState::Pending)
    }

    fn active(&self, purpose: KeyPurpose) -> Result<&KeyRecord, KeyRefusal> {
        self.of(purpose).find(|key| key.state == KeyState::Active).ok_or(KeyRefusal::NotThere)
    }

    pub(super) fn key(&self, id: &str) -> Result<&KeyRecord, KeyRefusal> {
        self.keys.iter().find(|key| key.id == id).ok_or(KeyRefusal::NotThere)
    }
}

fn suspended(key: &KeyRecord, suspended: bool) -> Plan {
    let changes = (key.suspended != suspended).then(|| KeyChange::Suspend { id: key.id.clone(), suspended });
    Plan { changes: changes.into_iter().collect(), ..Plan::default() }
}

/// Where a key goes that is no longer the active one. What an audit key sealed is verified by its public half alone.
const fn retired(purpose: KeyPurpose) -> KeyState {
    match purpose {
        KeyPurpose::Binding | KeyPurpose::Assertion | KeyPurpose::Session => KeyState::Retiring,
        KeyPurpose::Audit => KeyState::Drained,
    }
}

/// The state of a rotation once its old key is in this one.
const fn after(from: KeyState) -> RotationState {
    match from {
        KeyState::Drained | KeyState::Destroyed => RotationState::Done,
        KeyState::Pending | KeyState::Active | KeyState::Retiring | KeyState::Inner => RotationState::Draining,
    }
}

/// What `check` says of an active key that is older than the schedule lets one become, or than a binding key should.
#[must_use]
pub fn overdue(key: &KeyRecord, periods: &KeyPeriods, now: Timestamp) -> Option<String> {
    let (most, what) = match key.purpose {
        KeyPurpose::Binding => {
            (BINDING_USED, "`sekisho rotation start --purpose binding` replaces it, and no handset notices")
        }
        KeyPurpose::Assertion => (periods.assertion_rotate, SCHEDULE_STALLED),
        KeyPurpose::Session => (periods.session_rotate, SCHEDULE_STALLED),
        KeyPurpose::Audit => (periods.audit_rotate, SCHEDULE_STALLED),
    };
    let age = now.since(key.dates.activated_at.unwrap_or(key.created_at));
    let id = &key.id;
    let old = key.state == KeyState::Active && age > most.saturating_add(GRACE);
    old.then(|| format!("key {id} has been in use for {} days; {what}", age.as_secs() / 86_400))
}

/// The number after the largest of ids that are a letter and a number.
fn next<'a>(ids: impl Iterator<Item = &'a str>) -> u32 {
    let numbers = ids.filter_map(|id| id.get(1..)?.parse::<u32>().ok());
    numbers.max().unwrap_or(0).saturating_add(1)
}

fn wrong(key: &KeyRecord, advice: &str) -> KeyRefusal {
    KeyRefusal::State { id: key.id.clone(), state: key.state.as_str(), advice: advice.to_owned() }
}

#[cfg(test)]
mod tests;
