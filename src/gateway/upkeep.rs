//! What a gateway does between requests: writes session uses, erases what is over, forgets what limits no longer need.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::store::{SessionScope, StoreError};

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until `shutdown` fires.
pub(super) async fn run(gateway: Arc<Gateway>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
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
        let now = self.clock.now();
        self.sweep();
        self.sessions.sweep(now, false).await?;
        let unused_since = now.day().minus_days(self.config.binding.retention_days);
        for erased in self.bindings.purge(now, unused_since).await? {
            self.sessions.end(SessionScope::Binding(erased)).await?;
        }
        self.metrics.live_sessions(self.sessions.len());
        Ok(())
    }
}
