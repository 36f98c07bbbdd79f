//! A key that had been replaced once, in a store that was restored from before that.

use super::engine::{Plan, Rotations, step};
use super::error::RotationError;
use crate::clock::Timestamp;
use crate::store::{KeyState, RotationState};

impl Rotations {
    /// Has another key take the place of the active key `id`: by the rotation that waits to do so, or by a new one, however
    /// many are open. As with a key that leaked nobody waits for the first of them to be over, which may take as long as
    /// unused bindings are kept. Returns the id of the rotation.
    ///
    /// # Errors
    /// [`RotationError`]; nothing was changed.
    pub async fn replace_again(&self, id: &str, reason: &str, now: Timestamp) -> Result<String, RotationError> {
        let mut changing = self.changing.lock().await;
        self.change(&mut changing, None, now, |view| {
            let active = view.active()?;
            if active.id != id {
                return Err(RotationError::State(format!("key {id} is not active any more; {} is", active.id)));
            }
            view.none_suspended()?;
            if let Some(waiting) = view.open().find(|record| !view.begun(record)) {
                return Ok((view.going_on(waiting, now), waiting.id.clone()));
            }
            let (record, number) =
                view.rotation_from(active, RotationState::Running, reason, (now, self.retention_days()));
            let id = record.id.clone();
            let plan = Plan {
                make: Some((number, KeyState::Active)),
                keys: vec![step(&active.id, KeyState::Active, KeyState::Retiring, now)],
                begins: Some(id.clone()),
                rotations: vec![record],
            };
            Ok((plan, id))
        })
        .await
    }

    /// Resolves once a rotation reached its next state by itself since this was last awaited. For one that waits.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }
}
