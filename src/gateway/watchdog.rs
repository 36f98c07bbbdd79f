//! Tells systemd that the gateway lives (`WatchdogSec=`, `sd_watchdog_enabled(3)`): only while every worker's loop turns
//! and the store's writer answers. Otherwise nothing is said, and systemd starts the gateway anew.

use std::time::Duration;

/// Asks `silent` what does not answer, and calls `alive` if there is nothing: twice in each `period`, so that one question
/// that comes late ends nothing. Until it is dropped.
pub(super) async fn watch(period: Duration, silent: impl AsyncFn(Duration) -> Vec<String>, alive: impl Fn()) {
    let mut rounds = tokio::time::interval(period / 2);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        // In time for the answer to be passed on within the period.
        let silent = silent(period / 4).await;
        if silent.is_empty() {
            alive();
        } else {
            tracing::error!(
                silent = silent.join(", "),
                "parts of the gateway do not answer; systemd is not told that it lives"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    use tokio::time::{Instant, timeout};

    use super::*;

    const PERIOD: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn it_is_told_twice_a_period_and_only_while_all_answer() {
        let (hung, told) = (AtomicBool::new(false), AtomicU32::new(0));
        let silent = async |patience: Duration| {
            if hung.load(Relaxed) {
                tokio::time::sleep(patience).await;
                vec!["worker 1".to_owned()]
            } else {
                vec![]
            }
        };
        let mut watching = std::pin::pin!(watch(PERIOD, silent, || {
            told.fetch_add(1, Relaxed);
        }));
        let began = Instant::now();
        let mut for_periods = async |count: u32| {
            let _ = timeout(PERIOD * count, watching.as_mut()).await;
            told.swap(0, Relaxed)
        };
        assert!((20..=21).contains(&for_periods(10).await));
        hung.store(true, Relaxed);
        // The last was told at the very end of the time before.
        assert!(for_periods(10).await <= 1);
        hung.store(false, Relaxed);
        assert!((19..=21).contains(&for_periods(10).await));
        assert_eq!(began.elapsed(), PERIOD * 30);
    }
}
