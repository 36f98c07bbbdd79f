//! What comes by itself: the states that follow from the records, and the deadline.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::{Plan, Rotations, View, step};
use super::error::RotationError;
use super::progress::{Census, key_id};
use crate::audit::{Action, Effect, Event};
use crate::binding::BindingId;
use crate::clock::Timestamp;
use crate::config::ClientAddressDetail;
use crate::receipt::CanaryError;
use crate::store::{ChangeOutcome, KeyState, RotationRecord, RotationState, StoreError};
use crate::telemetry::{Actor, RotationStep, SecurityEvent, security};

/// How long a rotation of which nothing is known to have changed is not counted again: what is watched does not tell of a
/// revoked binding.
const RECOUNT: Duration = Duration::from_mins(1);

/// Records that are erased in one call, beside which sign-ins wait.
const AT_ONCE: u32 = 200;

/// What was known when records were last counted, and when that was.
#[derive(Default)]
pub(super) struct Counted {
    last: Option<Seen>,
    at: Duration,
}

/// What moves with keys and records: the revision, and how many were wrapped and flattened.
type Seen = (u64, u64, u64);

impl Rotations {
    /// Takes the steps that are due: reads back keys that others changed, ends the sessions of a key that leaked where the
    /// one who said so did not come to it, lets go of keys that no record needs. Counts the records where something may have
    /// changed, or where `recount` says so.
    ///
    /// # Errors
    /// [`RotationError`]; the next call does the rest.
    pub async fn advance(&self, now: Timestamp, recount: bool) -> Result<(), RotationError> {
        let mut changing = self.changing.lock().await;
        let view = self.view().await?;
        if view.stored.generation != self.keys.set().binding.generation() {
            // A key may have been flagged by a call that got no further.
            self.fallen.store(true, Ordering::Release);
            self.keys.refresh().await?;
            self.wake.notify_one();
        }
        if self.fallen.swap(false, Ordering::AcqRel)
            && let Err(error) = self.end_fallen().await
        {
            self.fallen.store(true, Ordering::Release);
            return Err(error.into());
        }
        let begun: Vec<String> =
            view.open().filter(|record| view.begun(record)).map(|record| record.id.clone()).collect();
        let sum = |of: fn(&RotationRecord) -> u64| view.open().map(of).sum();
        let seen: Seen = (view.stored.revision, sum(|record| record.wrapped), sum(|record| record.flattened));
        let monotonic = self.clock.monotonic();
        let unchanged = changing.last == Some(seen) && monotonic.saturating_sub(changing.at) < RECOUNT;
        if begun.is_empty() || (unchanged && !recount) {
            return Ok(());
        }
        let census = Census::new(self.store.chains().await?);
        let (mut latest, mut unwrapped) = (0, 0);
        // The oldest first: a key is past only when those before it are.
        for id in begun.iter().rev() {
            let view = self.view().await?;
            let Some(record) = view.open().find(|record| record.id == *id) else { continue };
            let from = key_id(&record.from)?;
            (latest, unwrapped) = (census.not_past(from), census.unwrapped_by_younger_than(from));
            let Some((plan, reached)) = due(&view, record, &census, now)? else { continue };
            let Plan { keys, mut rotations, .. } = plan;
            // While the old key is still in the ring.
            match self.receipts.wrapped(record, now).await {
                Ok(()) => {}
                Err(CanaryError::Store(error)) => return Err(error.into()),
                // Suspended: canaries are looked up, and the old key is let go, once it is resumed.
                Err(CanaryError::Digest(_)) => continue,
            }
            for done in rotations.iter_mut().filter(|record| record.state == RotationState::Done) {
                done.root_after = self.receipts.root().await?.to_vec();
            }
            let revision = view.stored.revision;
            let work = async {
                match self.change_with(revision, keys, rotations, None).await? {
                    ChangeOutcome::Changed(_) => self.keys.refresh().await?,
                    ChangeOutcome::Stale => return Err(RotationError::Stale(revision)),
                    ChangeOutcome::InUse(records) => return Err(RotationError::InUse(records)),
                }
                Ok(((), Effect::records(record.total, latest)))
            };
            match self.audit.act(deed(record, latest), &*self.clock, work).await {
                Ok(()) => self.moved.notify_one(),
                // A record or a key moved since it was counted; the next round counts again.
                Err(RotationError::Stale(_) | RotationError::InUse(_)) => continue,
                Err(error) => return Err(error),
            }
            if reached == Some(RotationStep::Done)
                && let Err(error) = self.receipts.issued(id, now).await
            {
                tracing::warn!(%error, "the receipt was not issued; it is when somebody asks for it");
            }
            if reached.is_some() {
                self.traces.store(true, Ordering::Relaxed);
            }
            if let Some(reached) = reached.filter(|_| self.rehearses.is_none()) {
                let event = SecurityEvent::Rotation { id, step: reached, by: None };
                security(&event, None, ClientAddressDetail::None);
            }
        }
        self.metrics.rotation_remaining(latest);
        self.metrics.rotation_unwrapped(unwrapped);
        *changing = Counted { last: Some(seen), at: monotonic };
        Ok(())
    }

    /// Erases records that still need the old key on the day after its deadline. `erased` takes the bindings, whose
    /// sessions are to end.
    ///
    /// # Errors
    /// [`StoreError`]; `erased` has those that were erased all the same.
    pub async fn purge_overdue(&self, erased: &mut Vec<BindingId>, now: Timestamp) -> Result<(), StoreError> {
        let view = self.view().await?;
        for record in view.open().filter(|record| view.begun(record) && now.day() > record.drain_by) {
            let from = key_id(&record.from)?;
            let before = Census::new(self.store.chains().await?).not_past(from);
            // What a legal hold keeps is left as it is, and not tried at every round.
            if before == 0 || self.store.purgeable(from).await? == 0 {
                continue;
            }
            let why = format!("not moved off {} by its deadline, {}", record.from, record.drain_by);
            let deed = Event::new(Action::RotationPurge, Actor::Gateway).object(&record.id).reason(&why);
            let work = async {
                let mut after = before;
                loop {
                    let gone = self.store.purge_chain(from, AT_ONCE).await?;
                    if gone.is_empty() {
                        return Ok::<_, StoreError>(((), Effect::records(before, after)));
                    }
                    after = after.saturating_sub(gone.len() as u64);
                    erased.extend(gone);
                }
            };
            self.audit.act(deed, &*self.clock, work).await?;
            // What was counted just before, by a round that began the day before, is not so any more.
            self.changing.lock().await.last = None;
        }
        Ok(())
    }
}

/// What the trail says of the step that is due while `remaining` records need the old key.
fn deed(record: &RotationRecord, remaining: u64) -> Event {
    let RotationRecord { from, to, .. } = record;
    let (action, why) = if remaining == 0 {
        (Action::RotationFinish, format!("no record needs {from}; it is drained"))
    } else {
        (Action::RotationDrain, format!("every record is under {to}; {from} is inner"))
    };
    Event::new(action, Actor::Gateway).object(&record.id).reason(&why)
}

/// What the records allow: the old key one step further, and the rotation with it; the second is what to say of that.
fn due(
    view: &View,
    record: &RotationRecord,
    census: &Census,
    now: Timestamp,
) -> Result<Option<(Plan, Option<RotationStep>)>, StoreError> {
    let Some(key) = view.key(&record.from) else { return Ok(None) };
    let from = key_id(&record.from)?;
    let mut plan = Plan::default();
    if census.not_past(from) == 0 {
        if matches!(key.state, KeyState::Retiring | KeyState::Inner) {
            plan.keys.push(step(&key.id, key.state, KeyState::Drained, now));
        }
        plan.rotations.push(RotationRecord { state: RotationState::Done, finished_at: Some(now), ..record.clone() });
        return Ok(Some((plan, Some(RotationStep::Done))));
    }
    if census.unwrapped_by_younger_than(from) > 0 {
        return Ok(None);
    }
    if key.state == KeyState::Retiring {
        plan.keys.push(step(&key.id, KeyState::Retiring, KeyState::Inner, now));
    }
    let drains = record.state == RotationState::Running;
    if drains {
        plan.rotations.push(RotationRecord { state: RotationState::Draining, ..record.clone() });
    }
    let changes = !plan.keys.is_empty() || drains;
    Ok(changes.then_some((plan, drains.then_some(RotationStep::Draining))))
}
