//! What a gateway does between requests: writes session uses, erases what is over, forgets what limits no longer need,
//! replaces keys that are due.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::reload::Live;
use crate::audit::{Action, Effect, Ends, Event, Outcome, SealError};
use crate::keys::{Due, LifecycleError, Moment};
use crate::rotation::RotationError;
use crate::store::{KeyState, StoreError};
use crate::telemetry::{self, Actor, KeyAction, SecurityEvent};

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(5);
/// More steps than time alone can bring to the keys at once.
const MOST_DUE: u32 = 16;

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
        live.look_after_listeners();
        if let Err(error) = gateway.upkeep().await {
            // Tried again at the next tick; nothing was acknowledged.
            tracing::warn!(%error, "upkeep could not be done");
        }
        if let Err(error) = gateway.search_for_canary().await {
            tracing::warn!(%error, "what the search for a canary found could not be noted");
        }
        if let Err(error) = live.posture_now().await {
            tracing::warn!(%error, "how the promises stand could not be looked at");
        }
    }
}

impl Gateway {
    /// One round; also called by tests, after they moved the clock.
    ///
    /// # Errors
    /// [`StoreError`] if the store refused; the next round does the rest.
    pub async fn upkeep(&self) -> Result<(), StoreError> {
        let _turn = self.upkeep.lock().await;
        let now = self.clock.now();
        self.sweep();
        self.sessions.sweep(now, false).await?;
        self.metrics.live_sessions(self.sessions.len());
        self.metrics.live_codes(self.bindings.live_codes(now).await?);
        self.look_after_log_days(now).await;
        self.promises.retention.round().await?;
        self.promises.statistics.flush().await?;
        match self.rotations.advance(now, false).await {
            Err(RotationError::Store(error)) => return Err(error),
            Err(error) => tracing::error!(%error, "the keys of a rotation could not be moved on"),
            Ok(()) => {}
        }
        // What the old key alone made, and what a key was wrapped as, goes from the file as what was erased does.
        if self.rotations.has_left_traces() {
            self.promises.subjects.note_erased();
        }
        self.promises.subjects.finish().await?;
        self.key_upkeep().await?;
        self.backups.bury().await?;
        self.backups.witness(now).await?;
        match self.audit.seal(now).await {
            Err(SealError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "the audit trail is not sealed any more");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
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
