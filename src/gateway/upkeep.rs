//! What a gateway does between requests: writes session uses, erases what is over, forgets what limits no longer need,
//! replaces keys that are due.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::clock_watch::ClockWatch;
use super::reload::Live;
use crate::audit::{Action, AuditTrail, Effect, Ends, Event, Outcome, SealError};
use crate::binding::BindingId;
use crate::clock::{Day, Timestamp};
use crate::keys::{Due, LifecycleError, Moment};
use crate::rotation::RotationError;
use crate::store::{KeyState, SessionScope, StoreError};
use crate::telemetry::{self, Actor, KeyAction, SecurityEvent};

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_hours(24);
/// More steps than time alone can bring to the keys at once.
const MOST_DUE: u32 = 16;

/// What one round leaves to the next.
#[derive(Default)]
pub(super) struct Upkeep {
    clock: ClockWatch,
    /// The day on which all audit entries that were old enough had been erased.
    trail_erased_on: Option<Day>,
    /// Bindings that were erased and whose sessions have not ended yet, because the store failed in between.
    erased: Vec<BindingId>,
}

/// Runs until `shutdown` fires, each round by the configuration that is in force when it begins.
pub(super) async fn run(live: Arc<Live>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        let gateway = live.gateway.load_full();
        // It may have failed for want of a port or a descriptor.
        if !gateway.is_unforgeable() {
            gateway.self_test().await;
        }
        live.look_at_revocation_lists();
        if let Err(error) = gateway.upkeep().await {
            // Tried again at the next tick; nothing was acknowledged.
            tracing::warn!(%error, "upkeep could not be done");
        }
    }
}

impl Gateway {
    /// One round; also called by tests, after they moved the clock.
    ///
    /// # Errors
    /// [`StoreError`] if the store refused; the next round does the rest.
    pub async fn upkeep(&self) -> Result<(), StoreError> {
        let mut upkeep = self.upkeep.lock().await;
        let now = self.clock.now();
        self.sweep();
        self.sessions.sweep(now, false).await?;
        self.metrics.live_sessions(self.sessions.len());
        self.metrics.live_codes(self.bindings.live_codes(now).await?);
        let last_use = self.bindings.last_use().await?;
        if let Some(behind) = upkeep.clock.set_back(now, self.clock.monotonic()) {
            let event = Event::new(Action::ClockSetBack, Actor::Gateway).effect(Effect::of(behind.as_secs()));
            self.audit.note(event, now).await?;
        }
        // Codes end by the clock in any case: too early costs a new code, too late would be a way in.
        let may_erase = upkeep.clock.may_erase(now, self.clock.monotonic(), last_use);
        let retention = if may_erase { self.config.binding.retention_days } else { u32::MAX };
        let unused = self.bindings.purge(now, now.day().minus_days(retention)).await?;
        let mut noted = Ok(());
        if !unused.is_empty() {
            let event = Event::new(Action::BindingsErase, Actor::Retention).effect(Effect::of(unused.len() as u64));
            noted = self.audit.note(event, now).await.map(drop);
        }
        let before = upkeep.erased.len();
        upkeep.erased.extend(unused);
        let purged = if may_erase { self.rotations.purge_overdue(&mut upkeep.erased, now).await } else { Ok(()) };
        let count = upkeep.erased.len() - before;
        if count > 0 {
            let event = SecurityEvent::BindingsErased { count };
            telemetry::security(&event, None, self.config.privacy.client_address);
        }
        while let Some(binding) = upkeep.erased.last() {
            self.sessions.end(SessionScope::Binding(*binding)).await?;
            upkeep.erased.pop();
        }
        noted.and(purged)?;
        match self.rotations.advance(now, false).await {
            Err(RotationError::Store(error)) => return Err(error),
            Err(error) => tracing::error!(%error, "the keys of a rotation could not be moved on"),
            Ok(()) => {}
        }
        self.key_upkeep().await?;
        match self.audit.seal(now).await {
            Err(SealError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "the audit trail is not sealed any more");
                Ok(())
            }
            Ok(()) if may_erase => self.erase_old_entries(&mut upkeep, now).await,
            Ok(()) => Ok(()),
        }
    }

    /// Once a day, and again at once while there is more.
    async fn erase_old_entries(&self, upkeep: &mut Upkeep, now: Timestamp) -> Result<(), StoreError> {
        let Some(days) = self.config.privacy.audit_retention_days else { return Ok(()) };
        if upkeep.trail_erased_on == Some(now.day()) {
            return Ok(());
        }
        match self.audit.erase_older(now.minus(DAY.saturating_mul(days)), now).await {
            Err(SealError::Store(error)) => return Err(error),
            Err(error) => tracing::error!(%error, "no entry of the audit trail is erased any more"),
            Ok(Some(erased)) if erased < AuditTrail::MOST_ERASED.into() => upkeep.trail_erased_on = Some(now.day()),
            Ok(_) => {}
        }
        Ok(())
    }

    /// What time alone brings to the keys.
    async fn key_upkeep(&self) -> Result<(), StoreError> {
        match self.take_due_steps().await {
            Ok(()) => {}
            Err(LifecycleError::Store(error)) => return Err(error),
            // Tried again at the next round; what is in memory stays in use.
            Err(error) => tracing::error!(%error, "the keys could not be looked after"),
        }
        let now = self.clock.now();
        match self.audit.replace_key(self.keys.audit(), now).await {
            Err(SealError::Store(error)) => return Err(error),
            Err(error) => tracing::error!(%error, "the audit trail is sealed by its former key"),
            // The first entry under the new key lets that seal, and so vouch for, all that is before.
            Ok(true) => {
                let id = self.keys.audit().id().to_owned();
                self.audit.note(Event::new(Action::KeySetOpen, Actor::Schedule).object(id), now).await?;
            }
            Ok(false) => {}
        }
        for key in self.lifecycle.stored().await?.keys.iter().filter(|key| key.state == KeyState::Active) {
            self.metrics.key_age(key.purpose, now.since(key.dates.activated_at.unwrap_or(key.created_at)));
        }
        Ok(())
    }

    /// Each step stands in the trail before it is taken.
    async fn take_due_steps(&self) -> Result<(), LifecycleError> {
        for _ in 0..MOST_DUE {
            let at = Moment::of(&*self.clock);
            let Some(due) = self.lifecycle.due(at).await? else { break };
            let (keys, deed) = (due.keys(), deed(&due));
            let work = async { self.lifecycle.take(due, at).await.map(|()| ((), Effect::none())) };
            match self.audit.act(deed, &*self.clock, work).await {
                Ok(()) => {}
                // Somebody else changed the keys in between.
                Err(LifecycleError::RevisionStale(_)) => continue,
                Err(error) => return Err(error),
            }
            for (id, _) in &keys {
                let event = SecurityEvent::KeyChanged { id, change: KeyAction::Scheduled, by: Actor::Schedule };
                telemetry::security(&event, None, self.config.privacy.client_address);
            }
        }
        self.lifecycle.follow().await
    }
}

/// What the trail says of a step: which keys, what becomes of them, and of which rotation that is.
fn deed(due: &Due) -> Event {
    let keys = due.keys();
    let ids: Vec<_> = keys.iter().map(|(id, _)| id.as_str()).collect();
    let steps: Vec<_> = keys.iter().map(|(id, step)| format!("{id} {step}")).collect();
    let mut why = steps.join(", ");
    if let Some((id, state)) = due.rotation() {
        why = format!("rotation {id} {}: {why}", state.as_str());
    }
    Event::new(Action::KeySchedule, Actor::Schedule).object(ids.join(" ")).reason(&why)
}

impl Ends for LifecycleError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) | Self::RevisionStale(_) | Self::InUse(_) | Self::SameKek => Outcome::Refused,
            Self::Keys(_) | Self::Store(_) | Self::FlaggedAlone(_) => Outcome::Failed,
        }
    }
}
