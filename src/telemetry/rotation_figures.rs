//! How far the records are that a rotation moves.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::{Metrics, register};

/// Of the latest open rotation of the binding keys.
pub(super) struct RotationFigures {
    remaining: Gauge,
    unwrapped: Gauge,
    wrapped: Counter,
    rate: Gauge,
    eta_seconds: Gauge,
}

impl RotationFigures {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let help = "Bindings whose chain still needs the key that the latest open rotation replaces";
        let remaining = register(registry, "rotation_remaining", help);
        let unwrapped = register(registry, "rotation_unwrapped", "Bindings that are still to be moved under a new key");
        let wrapped = register(registry, "rotation_wrapped", "Bindings that were moved under a new key");
        let rate = register(registry, "rotation_rate", "Bindings moved under a new key in a second, lately");
        let help = "Seconds until all bindings are moved, at the present rate; 0 while none are";
        let eta_seconds = register(registry, "rotation_eta_seconds", help);
        Self { remaining, unwrapped, wrapped, rate, eta_seconds }
    }
}

impl Metrics {
    /// So many bindings still need the key that is being replaced.
    pub fn rotation_remaining(&self, count: u64) {
        self.rotation.remaining.set(clamped(count));
    }

    /// So many bindings are still to be moved, as counted.
    pub fn rotation_unwrapped(&self, count: u64) {
        self.rotation.unwrapped.set(clamped(count));
    }

    /// So many more bindings were moved under a new key.
    pub fn rotation_wrapped(&self, count: u64) {
        let figures = &self.rotation;
        figures.wrapped.inc_by(count);
        figures.unwrapped.set(figures.unwrapped.get().saturating_sub(clamped(count)).max(0));
    }

    /// So many bindings are moved in a second.
    pub fn rotation_rate(&self, per_second: u64) {
        let figures = &self.rotation;
        figures.rate.set(clamped(per_second));
        figures.eta_seconds.set(figures.unwrapped.get().checked_div(clamped(per_second)).unwrap_or(0));
    }
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_and_for_how_long_follows_from_what_is_moved() {
        let metrics = Metrics::new();
        let shows = |expected: [u64; 3]| {
            let text = metrics.render();
            for (name, value) in ["unwrapped", "rate", "eta_seconds"].into_iter().zip(expected) {
                assert!(text.contains(&format!("\nsekisho_rotation_{name} {value}\n")), "{name} {value}: {text}");
            }
        };
        shows([0, 0, 0]);
        metrics.rotation_unwrapped(1000);
        metrics.rotation_wrapped(400);
        metrics.rotation_rate(100);
        shows([600, 100, 6]);
        metrics.rotation_rate(0);
        shows([600, 0, 0]);
        metrics.rotation_wrapped(601);
        shows([0, 0, 0]);
    }
}
