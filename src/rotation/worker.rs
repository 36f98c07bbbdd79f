//! The runner that wraps records: reads a batch, computes it, has the store compare and set it, while the next is read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::engine::{Rotations, View};
use super::error::RotationError;
use crate::binding::Wrapping;
use crate::store::{Haste, KeyState, RotationRecord, RotationState, StoreError, WrapBatch, WrapOutcome, Wrapped};

/// How often the runner looks for work that nobody told it of.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long it waits after a store that failed, at first and at most.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long it waits for a key ring that is being replaced.
const NEXT_RING: Duration = Duration::from_millis(10);

/// Records of a batch of a drill: a sign-in that comes meanwhile is not seen before its end.
const MOST_OF_A_DRILL: u32 = 4096;

/// Over how long the speed is told.
const WINDOW: Duration = Duration::from_secs(5);

/// Why a pass over the records ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// There is nothing to move now.
    Idle,
    /// The key ring moved on: begin again with the one that comes.
    Again,
}

/// Records a second, rests and what they waited for included.
struct Speed {
    since: Duration,
    moved: u64,
    /// That of the window before, once there was one.
    last: Option<u64>,
}

impl Speed {
    const fn new(now: Duration) -> Self {
        Self { since: now, moved: 0, last: None }
    }

    /// Notes `moved` records, and tells how many go in a second: on average over some seconds, since batches and rests are
    /// of any length.
    fn after(&mut self, moved: u64, now: Duration) -> u64 {
        self.moved += moved;
        let millis = u64::try_from(now.saturating_sub(self.since).as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = self.moved.saturating_mul(1000) / millis;
        if now.saturating_sub(self.since) >= WINDOW {
            *self = Self { since: now, moved: 0, last: Some(rate) };
        }
        self.last.unwrap_or(rate)
    }
}

impl Rotations {
    /// Moves records whenever a rotation runs, until `shutdown` fires.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut retry = FIRST_RETRY;
        while !shutdown.is_cancelled() {
            let wait = match self.pass(&shutdown, &mut retry).await {
                Ok(Pass::Again) => {
                    sleep(NEXT_RING).await;
                    continue;
                }
                Ok(Pass::Idle) => {
                    retry = FIRST_RETRY;
                    INTERVAL
                }
                Err(error) => {
                    // A full disk, for instance: what was written stands, and it goes on when the store does.
                    tracing::warn!(%error, "records are not moved to the new key at present; it is tried again");
                    let wait = retry;
                    retry = (retry * 2).min(LAST_RETRY);
                    wait
                }
            };
            // Nothing moves meanwhile: it is done, paused, or has to wait.
            self.rate.store(0, Ordering::Relaxed);
            self.metrics.rotation_rate(0);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Moves all records that the running rotation has still to move. Once some moved, `retry` is as at first.
    async fn pass(&self, shutdown: &CancellationToken, retry: &mut Duration) -> Result<Pass, RotationError> {
        let view = self.view().await?;
        let Some(record) = runs(&view) else { return Ok(Pass::Idle) };
        // Suspended: nothing is written.
        let Ok(ring) = self.keys.set().binding.wrapping() else { return Ok(Pass::Idle) };
        let ring = Arc::new(ring);
        if ring.active().to_string() != record.to {
            self.keys.refresh().await?;
            return Ok(Pass::Idle);
        }
        let Some(fence) = self.store.take_fence(&record.id).await? else { return Ok(Pass::Idle) };
        // As last written down; it is counted again at its end.
        self.metrics.rotation_unwrapped(record.total.saturating_sub(record.wrapped));
        let leaked = view.keys().any(|key| key.compromised && key.state != KeyState::Destroyed);
        let urgent = leaked && self.rehearses.is_none();
        // The records are the truth: what the cursor has passed is looked at once more.
        let mut from_start = record.cursor == 0;
        let mut after = record.cursor;
        self.pace.begins(self.store.strain());
        let mut speed = Speed::new(self.clock.monotonic());
        let mut records = self.prepare(&ring, after, self.manner(urgent).1).await?;
        while !shutdown.is_cancelled() {
            let (haste, size) = self.manner(urgent);
            if records.len() > usize::try_from(size).unwrap_or(usize::MAX) {
                // Made when nobody signed in, and too many now.
                records = self.prepare(&ring, after, size).await?;
            }
            let Some(cursor) = records.iter().map(|record| record.position).max() else {
                if from_start {
                    self.advance(self.clock.now(), true).await?;
                    return Ok(Pass::Idle);
                }
                from_start = true;
                after = 0;
                records = self.prepare(&ring, after, size).await?;
                continue;
            };
            let (rotation, generation) = (record.id.clone(), ring.generation());
            let count = records.len() as u64;
            let batch = WrapBatch { rotation, fence, generation, cursor, records, haste };
            let before = self.clock.monotonic();
            let written = async {
                let outcome = self.store.wrap(batch).await;
                (outcome, self.clock.monotonic().saturating_sub(before))
            };
            let ((outcome, took), next) = tokio::join!(written, self.prepare(&ring, cursor, size));
            let outcome = outcome?;
            if let WrapOutcome::Wrapped(1..) | WrapOutcome::BrokenOff(1..) = outcome {
                *retry = FIRST_RETRY;
            }
            let count = match outcome {
                WrapOutcome::Wrapped(moved) => {
                    self.metrics.rotation_wrapped(moved);
                    (after, records) = (cursor, next?);
                    count
                }
                // What is left of it is read again: it may be less that is made next.
                WrapOutcome::BrokenOff(moved) => {
                    self.metrics.rotation_wrapped(moved);
                    records = self.prepare(&ring, after, self.manner(urgent).1).await?;
                    moved
                }
                // Paused, or another runner's by now.
                WrapOutcome::Fenced => return Ok(Pass::Idle),
                WrapOutcome::Stale => return Ok(Pass::Again),
            };
            if let Some(live) = &self.rehearses
                && live.pace.beside_sign_ins(live.clock.monotonic())
            {
                self.pace.sign_in(self.clock.monotonic());
            }
            let rest = self.pace.rest_after(count, took, self.store.strain(), haste == Haste::Gentle);
            // Behind the last there is nothing to make way with.
            if !rest.is_zero() && !records.is_empty() {
                self.rested.fetch_add(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = sleep(rest) => {}
                }
            }
            let rate = speed.after(count, self.clock.monotonic());
            self.rate.store(rate, Ordering::Relaxed);
            self.metrics.rotation_rate(rate);
        }
        Ok(Pass::Idle)
    }

    /// What the next batch does about others, and how many records it has.
    fn manner(&self, urgent: bool) -> (Haste, u32) {
        let beside = !urgent && self.pace.beside_sign_ins(self.clock.monotonic());
        let haste = match (urgent, beside) {
            (true, _) => Haste::Urgent,
            (false, true) => Haste::Gentle,
            (false, false) => Haste::Free,
        };
        let size = self.pace.size(beside);
        (haste, if self.rehearses.is_some() { size.min(MOST_OF_A_DRILL) } else { size })
    }

    /// The next records as they are to be; computed where it holds nobody up.
    async fn prepare(&self, ring: &Arc<Wrapping>, after: u64, limit: u32) -> Result<Vec<Wrapped>, StoreError> {
        let read = self.store.wrappable(ring.active(), after, limit).await?;
        let ring = Arc::clone(ring);
        let computed = tokio::task::spawn_blocking(move || {
            let mut records = ring.wrap_all(&read);
            // As the store's index has them, which then writes neighbours one after the other.
            records.sort_unstable_by_key(|record| record.digest.fold());
            records
        });
        // Only the end of the runtime, or a defect, ends it early.
        computed.await.map_err(|_| StoreError::Closed)
    }
}

/// The rotation to whose new key records move: of those that have begun the latest, if it is not paused.
fn runs(view: &View) -> Option<&RotationRecord> {
    view.open().find(|record| view.begun(record)).filter(|record| record.state == RotationState::Running)
}
