//! A binding key that has leaked: a new one at once, and nobody comes in by what the old one made.

use std::fmt::Display;
use std::sync::atomic::Ordering;

use super::engine::{Plan, Rotations, View, step};
use super::error::RotationError;
use super::progress::{Progress, key_id};
use crate::clock::{Clock, Timestamp};
use crate::keys::{KekError, KeysError, LifecycleError, Moment};
use crate::store::{KeyChange, KeyRecord, KeyState, Reach, RotationRecord, RotationState};

/// What was done when a key was said to have leaked.
#[derive(Debug)]
pub struct CompromiseReport {
    /// The key.
    pub key: String,
    /// Why, in the words of whoever said so.
    pub reason: String,
    /// Records whose chain contains it. They sign nobody in until the PIN or a new code took them off it. `None` where the
    /// store did not tell.
    pub reach: Option<Reach>,
    /// Sessions that were opened by those, and ended.
    pub sessions_ended: usize,
    /// The rotation that moves the records, if any has to and the store told how far it is.
    pub rotation: Option<Progress>,
    /// What was done and when, in order.
    pub steps: Vec<CompromiseStep>,
}

/// A step, and when it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompromiseStep {
    /// `flagged`, `replaced`, `sessions-ended`, `wrapping`; of a drill `wrapped`, too.
    pub what: &'static str,
    /// When.
    pub at: Timestamp,
}

impl Rotations {
    /// Says that binding key `id` has leaked. Acts at once: in one step it is flagged, no longer suspended, and a fresh key
    /// takes its place if it was active; however many rotations are open. Then the sessions of its bindings end. Its
    /// records are wrapped at top speed meanwhile; [`Rotations::status`] tells how far that is.
    ///
    /// A flagged key signs nobody in: a person types the account's PIN or, where there is none, a new enrolment code, which
    /// takes the binding off it.
    ///
    /// # Errors
    /// [`RotationError`]; with [`RotationError::FlaggedAlone`] no key took its place, all else is done. Where the
    /// store failed after the key was flagged, the next round of upkeep ends the sessions.
    pub async fn compromise(
        &self,
        id: &str,
        reason: &str,
        revision: Option<u64>,
        clock: &dyn Clock,
    ) -> Result<CompromiseReport, RotationError> {
        let now = clock.now();
        let mut changing = self.changing.lock().await;
        let begun = self
            .change(&mut changing, revision, now, |view| {
                let key = view.key(id).ok_or(RotationError::NoSuchKey)?;
                refuse_done(key)?;
                let mut plan = Plan { keys: vec![KeyChange::Compromise { id: id.to_owned() }], ..Plan::default() };
                if key.suspended {
                    plan.keys.push(KeyChange::Suspend { id: id.to_owned(), suspended: false });
                }
                self.move_off(view, key, reason, now, &mut plan);
                let replaced = plan.begins.is_some();
                let running = plan.rotations.iter().rev().find(|record| record.state == RotationState::Running);
                let running = running.or_else(|| view.open().find(|record| view.begun(record)));
                let rotation = running.map(|record| record.id.clone());
                Ok((plan, (replaced, rotation)))
            })
            .await;
        // What failed may have come to pass all the same. Upkeep looks again, whatever becomes of this call.
        self.fallen.store(true, Ordering::Release);
        drop(changing);
        let (replaced, rotation) = match begun {
            Err(RotationError::Keys(KeysError::Kek(fault))) => {
                return Err(self.flag(id, revision, clock, fault).await?);
            }
            begun => begun?,
        };
        let mut steps = vec![CompromiseStep { what: "flagged", at: now }];
        if replaced {
            steps.push(CompromiseStep { what: "replaced", at: now });
        }
        let sessions_ended = self.end_fallen().await?;
        steps.push(CompromiseStep { what: "sessions-ended", at: clock.now() });
        // What was done stands, and is not to be taken for undone.
        let untold = |error: &dyn Display| tracing::error!(%error, "the report on a leaked key is not whole");
        let reach = self.store.reach(key_id(id)?).await.inspect_err(|error| untold(error)).ok();
        let rotation = match rotation {
            Some(rotation) => {
                steps.push(CompromiseStep { what: "wrapping", at: clock.now() });
                self.status(&rotation).await.inspect_err(|error| untold(error)).ok()
            }
            None => None,
        };
        Ok(CompromiseReport { key: id.to_owned(), reason: reason.to_owned(), reach, sessions_ended, rotation, steps })
    }

    /// Without a key to take its place: nobody comes in by the one that leaked, and who did is out.
    async fn flag(
        &self,
        id: &str,
        revision: Option<u64>,
        clock: &dyn Clock,
        fault: KekError,
    ) -> Result<RotationError, RotationError> {
        match self.keys.flag(id, revision, Moment::of(clock)).await {
            Ok(()) => {}
            Err(LifecycleError::Keys(error)) => return Err(error.into()),
            Err(LifecycleError::Store(error)) => return Err(error.into()),
            Err(LifecycleError::RevisionStale(revision)) => return Err(RotationError::Stale(revision)),
            Err(error) => return Err(RotationError::State(error.to_string())),
        }
        self.end_fallen().await?;
        Ok(RotationError::FlaggedAlone(fault))
    }

    /// What takes the records off `key`, by its state.
    fn move_off(&self, view: &View, key: &KeyRecord, reason: &str, now: Timestamp, plan: &mut Plan) {
        // A key that waits is older than the one that comes now: it can never be active.
        let waiting = view.open().find(|record| !view.begun(record));
        let waits_for_it = waiting.is_some_and(|record| record.to == key.id);
        if let Some(record) = waiting.filter(|_| waits_for_it || key.state == KeyState::Active) {
            let given_up = View::giving_up(record, now);
            plan.keys.extend(given_up.keys);
            plan.rotations.extend(given_up.rotations);
        } else if key.state == KeyState::Pending {
            plan.keys.push(step(&key.id, KeyState::Pending, KeyState::Destroyed, now));
        }
        match key.state {
            KeyState::Active => {
                let (record, number) =
                    view.rotation_from(key, RotationState::Running, reason, (now, self.retention_days()));
                plan.begins = Some(record.id.clone());
                plan.make = Some((number, KeyState::Active));
                plan.keys.push(step(&key.id, KeyState::Active, KeyState::Retiring, now));
                plan.rotations.push(record);
            }
            // On its way out already; what was paused waits no longer.
            KeyState::Retiring | KeyState::Inner => {
                let latest = view.open().find(|record| view.begun(record));
                if let Some(paused) = latest.filter(|record| record.state == RotationState::Paused) {
                    plan.rotations.push(RotationRecord { state: RotationState::Running, ..paused.clone() });
                }
            }
            KeyState::Pending | KeyState::Drained | KeyState::Destroyed => {}
        }
    }
}

fn refuse_done(key: &KeyRecord) -> Result<(), RotationError> {
    let id = &key.id;
    if key.state == KeyState::Destroyed {
        return Err(RotationError::State(format!("key {id} is destroyed; there is nothing left to move off it")));
    }
    // Flagged alone, while the KEK was away, it is still in use.
    if key.compromised && key.state != KeyState::Active {
        return Err(RotationError::State(format!("key {id} is known to be compromised; `sekisho rotation list`")));
    }
    Ok(())
}
