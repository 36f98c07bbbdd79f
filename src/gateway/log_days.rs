//! The days of log files: keys made ahead of sealed ones, and what is over put aside.

use tokio::task::spawn_blocking;

use super::Gateway;
use crate::clock::Timestamp;
use crate::config::{Config, Finding};
use crate::keys::{KeysError, Lifecycle};
use crate::logs::days_ahead;
use crate::telemetry::{AccessLogger, security_day_over};

/// Makes the keys of today and the next days, where lines are sealed, and hands them to what seals.
///
/// # Errors
/// [`KeysError`]; lines of a day that has no key yet are lost.
pub(super) async fn keep_ahead(access: &AccessLogger, lifecycle: &Lifecycle, now: Timestamp) -> Result<(), KeysError> {
    if !access.days_without_key(now.day()).is_empty() {
        access.keep_keys(lifecycle.log_keys(&days_ahead(now.day())).await?);
    }
    Ok(())
}

/// Why lines cannot be sealed.
pub(super) fn finding(config: &Config, error: &KeysError) -> Finding {
    config.finding("log.access.sealed", format!("no key can be made that seals the lines: {error}"))
}

impl Gateway {
    /// To be done at each round of upkeep. What fails is told, and tried again at the next.
    pub(super) async fn look_after_log_days(&self, now: Timestamp) {
        if let Err(error) = keep_ahead(&self.access, &self.lifecycle, now).await {
            tracing::error!(%error, "keys that seal the access log could not be made; lines of a day without one are lost");
        }
        if let Some(day_over) = self.access.day_over(now.day()) {
            // It waits for a disk.
            let _ = spawn_blocking(day_over).await;
        }
        if let Some(day_over) = security_day_over(now.day()) {
            let _ = spawn_blocking(day_over).await;
        }
    }
}
