//! How the promises stand now: gathers what `crate::privacy::posture` judges, for whoever asks and for the metric.

use super::notice;
use super::reload::Live;
use crate::privacy::{Evidence, Promise, posture};
use crate::store::StoreError;
use crate::telemetry::security_log_trouble;

impl Live {
    /// Each promise, under the configuration in force; the metric tells the same from now on.
    ///
    /// # Errors
    /// [`StoreError`]: what cannot be looked at is not said to be kept.
    pub(super) async fn posture_now(&self) -> Result<Vec<Promise>, StoreError> {
        let gateway = self.gateway.load_full();
        let promises = &gateway.promises;
        let doubt = notice::doubt(&gateway.config, &gateway.told, &*gateway.notices).await?;
        let evidence = Evidence {
            now: gateway.clock.now(),
            started_at: self.started_at,
            unforgeable: gateway.is_unforgeable(),
            keys: &gateway.key_store.keys().await?.keys,
            rotations: &gateway.rotations.records().await?,
            proofs: &promises.retention.proofs().await?,
            scrubbed_at: promises.subjects.scrubbed_at(),
            access_log: gateway.access.trouble(gateway.clock.now().day()),
            security_log: security_log_trouble(),
            unfinished: promises.subjects.unfinished().await?,
            notice_doubt: doubt.as_ref().map(|doubt| doubt.problem.as_str()),
        };
        let stand = posture(&gateway.config, &evidence);
        for promise in &stand {
            gateway.metrics.promise(promise.name, !promise.standing.is_bad());
        }
        Ok(stand)
    }
}
