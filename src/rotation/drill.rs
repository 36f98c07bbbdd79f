//! What would be if a binding key had leaked: the same steps by the same code, on a copy of the store that is erased again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::compromise::{CompromiseReport, CompromiseStep};
use super::engine::Rotations;
use super::error::RotationError;
use super::progress::{Census, key_id};
use crate::audit::{AuditTrail, Ends, Outcome};
use crate::clock::Clock;
use crate::config::{KeyPeriods, StretchSetting};
use crate::entropy::Entropy;
use crate::keys::{KeySet, KeysError, Lifecycle};
use crate::receipt::Receipts;
use crate::session::{SessionPolicy, Sessions};
use crate::store::{RotationState, ShadowError, ShadowPorts, ShadowStore, StoreError};
use crate::telemetry::Metrics;

/// How often it is looked how far the wrap is.
const LOOK: Duration = Duration::from_millis(200);
/// How long nothing may move before the drill is given up.
const STALLED: Duration = Duration::from_mins(1);

/// Rehearses a leak of a binding key.
pub struct Drill {
    /// What a real leak would be told to.
    live: Arc<Rotations>,
    shadows: Arc<dyn ShadowStore>,
    /// Source of the keys that are made for the copy.
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    turn: Arc<Mutex<()>>,
}

/// What the configuration in force says of what a drill builds.
#[derive(Clone, Copy, Debug)]
pub struct DrillTerms {
    /// How identifiers are stretched.
    pub stretch: StretchSetting,
    /// How long keys live.
    pub periods: KeyPeriods,
    /// How long sessions live.
    pub sessions: SessionPolicy,
    /// Days after which an unused binding is erased.
    pub retention_days: u32,
}

/// Where a drill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillStage {
    /// The store is being copied.
    Copying,
    /// The key is flagged and replaced in the copy, and sessions end there.
    Replacing,
    /// So many records of so many are moved.
    Wrapping {
        /// Moved.
        done: u64,
        /// In all.
        total: u64,
    },
    /// The copy is being erased.
    Erasing,
}

/// What a drill found. It changed nothing. Times are what passed on this machine.
#[derive(Debug)]
pub struct DrillReport {
    /// What would have been done.
    pub compromise: CompromiseReport,
    /// Bindings that are found by what the key alone made: whoever has the key and the store has their identifiers, as far
    /// as these can be guessed. None are once records are wrapped.
    pub alone: u64,
    /// The same in the copy, once its records were wrapped.
    pub alone_after: u64,
    /// Bytes of the copy.
    pub bytes: u64,
    /// To copy the store and open the copy. A real leak takes none of it.
    pub copied_in: Duration,
    /// From the word to a fresh key, the end of sessions and a report.
    pub replaced_in: Duration,
    /// To wrap all records, without what the drill rested for others.
    pub wrapped_in: Duration,
    /// What it rested for those who signed in meanwhile.
    pub rested: Duration,
}

/// Why a drill came to no end. Nothing is left of it.
#[derive(Debug, Error)]
pub enum DrillError {
    /// There is no copy to work on.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// A real leak would be answered so.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The copy's keys do not open.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The wrap stands still.
    #[error("no record of the copy was moved for a minute; the gateway's log says why")]
    Stalled,
    /// It was called off.
    #[error("the drill was called off")]
    CalledOff,
}

impl From<StoreError> for DrillError {
    fn from(error: StoreError) -> Self {
        Self::Rotation(error.into())
    }
}

impl Ends for DrillError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Shadow(ShadowError::Busy | ShadowError::NoSpace { .. }) => Outcome::Refused,
            Self::Rotation(error) => error.outcome(),
            Self::Shadow(ShadowError::Store(_)) | Self::Keys(_) | Self::Stalled | Self::CalledOff => Outcome::Failed,
        }
    }
}

impl Drill {
    /// Of what `live` rotates, on copies from `shadows`.
    #[must_use]
    pub fn new(
        live: Arc<Rotations>,
        shadows: Arc<dyn ShadowStore>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { live, shadows, entropy, clock, turn: Arc::default() }
    }

    /// The turn of one drill, to be held while it runs; `None` while another has it.
    #[must_use]
    pub fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    /// The key to drill for: `asked`, or the active one.
    ///
    /// # Errors
    /// [`RotationError`]: what a real leak would be answered.
    pub async fn key(&self, asked: Option<&str>) -> Result<String, RotationError> {
        let view = self.live.view().await?;
        let Some(asked) = asked else { return Ok(view.active()?.id.clone()) };
        view.key(asked).map(|key| key.id.clone()).ok_or(RotationError::NoSuchKey)
    }

    /// Does it, and erases the copy, however that ends; ends early once `stop` fires. `tell` hears how far it is.
    ///
    /// # Errors
    /// [`DrillError`].
    pub async fn run(
        &self,
        key: &str,
        reason: &str,
        terms: DrillTerms,
        stop: &CancellationToken,
        tell: &(dyn Fn(DrillStage) + Send + Sync),
    ) -> Result<DrillReport, DrillError> {
        tell(DrillStage::Copying);
        let before = self.clock.monotonic();
        let shadow = self.shadows.shadow(Arc::clone(&self.entropy), self.clock.now()).await?;
        let copied_in = self.clock.monotonic().saturating_sub(before);
        let drilled = self.on(shadow.ports(), (key, reason), terms, stop, tell).await;
        tell(DrillStage::Erasing);
        shadow.erase().await?;
        Ok(DrillReport { copied_in, ..drilled? })
    }

    async fn on(
        &self,
        ports: ShadowPorts,
        (key, reason): (&str, &str),
        terms: DrillTerms,
        stop: &CancellationToken,
        tell: &(dyn Fn(DrillStage) + Send + Sync),
    ) -> Result<DrillReport, DrillError> {
        let bytes = ports.bytes;
        let rotations = Arc::new(self.rotations(ports, terms).await?);
        if stop.is_cancelled() {
            return Err(DrillError::CalledOff);
        }
        tell(DrillStage::Replacing);
        let alone = alone(&rotations, key).await?;
        let before = self.clock.monotonic();
        let mut compromise = rotations.compromise(key, reason, None, &*self.clock).await?;
        let replaced = self.clock.monotonic();
        if let Some(progress) = &compromise.rotation {
            let over = CancellationToken::new();
            let runner = tokio::spawn(Arc::clone(&rotations).run(over.clone()));
            let wrapped = self.wrapped(&rotations, &progress.record.id, stop, tell).await;
            over.cancel();
            // What it was at is over before the copy is erased.
            let _ = runner.await;
            wrapped?;
            compromise.steps.push(CompromiseStep { what: "wrapped", at: self.clock.now() });
        }
        let rested = Duration::from_millis(rotations.rested.load(Ordering::Relaxed));
        let wrapped_in = self.clock.monotonic().saturating_sub(replaced).saturating_sub(rested);
        Ok(DrillReport {
            alone,
            alone_after: self::alone(&rotations, key).await?,
            compromise,
            bytes,
            copied_in: Duration::ZERO,
            replaced_in: replaced.saturating_sub(before),
            wrapped_in,
            rested,
        })
    }

    /// What the gateway is made of, over the copy: the keys open under the KEK in force, and those that are made now are in
    /// the copy alone.
    async fn rotations(&self, ports: ShadowPorts, terms: DrillTerms) -> Result<Rotations, DrillError> {
        let ShadowPorts { keys, rotations, bindings, sessions, receipts, approvals, audit, bytes: _ } = ports;
        let (now, kek) = (self.clock.now(), self.live.keys.kek());
        let set = Arc::new(KeySet::open(&*keys, &kek, terms.stretch, &*self.entropy, now).await?);
        let lifecycle = Lifecycle::new(
            Arc::clone(&set),
            Arc::clone(&keys),
            Arc::clone(&rotations),
            kek,
            Arc::clone(&self.entropy),
            terms.periods,
        );
        lifecycle.refresh().await?;
        let store_id = keys.store_id().await?;
        let trail = AuditTrail::open(Arc::clone(&audit), store_id, set.audit(), Arc::clone(&self.entropy), now).await?;
        let sessions = Sessions::load(sessions, terms.sessions, now).await?;
        let receipts = Receipts {
            kept: receipts,
            rotations: Arc::clone(&rotations),
            key_records: Arc::clone(&keys),
            approvals,
            audit,
            keys: set,
            entropy: Arc::clone(&self.entropy),
            process_started_at: now,
            destroyed_before: std::collections::BTreeSet::new(),
        };
        let rehearsal = Rotations::new(
            Arc::new(lifecycle),
            Arc::new(receipts),
            Arc::new(trail),
            keys,
            rotations,
            bindings,
            Arc::new(sessions),
            Arc::new(Metrics::new()),
            Arc::clone(&self.clock),
            terms.retention_days,
        );
        Ok(rehearsal.rehearsing(Arc::clone(&self.live)))
    }

    /// Waits until every record of the copy is moved.
    async fn wrapped(
        &self,
        rotations: &Rotations,
        id: &str,
        stop: &CancellationToken,
        tell: &(dyn Fn(DrillStage) + Send + Sync),
    ) -> Result<(), DrillError> {
        let (mut last, mut still) = (0, Duration::ZERO);
        loop {
            let records = rotations.records().await?;
            let record = records.iter().find(|record| record.id == id).ok_or(RotationError::NotFound)?;
            tell(DrillStage::Wrapping { done: record.wrapped, total: record.total });
            if record.state != RotationState::Running {
                return Ok(());
            }
            still = if record.wrapped == last { still + LOOK } else { Duration::ZERO };
            last = record.wrapped;
            if still > STALLED {
                return Err(DrillError::Stalled);
            }
            tokio::select! {
                () = stop.cancelled() => return Err(DrillError::CalledOff),
                () = sleep(LOOK) => {}
            }
        }
    }
}

/// How many records are found by what `key` alone made.
async fn alone(rotations: &Rotations, key: &str) -> Result<u64, DrillError> {
    Ok(Census::new(rotations.store.chains().await?).made_by(key_id(key)?))
}
