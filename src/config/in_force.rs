//! The configuration that holds now, for whoever asks again each time.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::types::Config;

/// The configuration in force. A reload replaces it as a whole.
///
/// A request is not held to this but to the configuration that it began under.
pub struct InForce(ArcSwap<Config>);

impl InForce {
    /// In force from the start.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self(ArcSwap::new(config))
    }

    /// The one that holds now. Keep it for as long as one decision takes.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// From now on this one holds.
    pub fn replace(&self, with: Arc<Config>) {
        self.0.store(with);
    }
}
