//! The life of the keys while the gateway runs: asks the store to change them, and replaces what is in memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;

use super::kek::{Kek, KekError};
use super::keyset::{KeySet, KeysError, NewKey, Parts, fresh_key};
use super::log_keys::{self, DayKey, LogDay};
use super::moves::{KeyRefusal, PUBLISHED_AT_LEAST, Plan, View};
use super::opened::OpenedKeys;
use super::rewrap::Rewrapped;
use crate::clock::{Clock, Day, Timestamp};
use crate::config::KeyPeriods;
use crate::entropy::Entropy;
use crate::store::{
    ChangeOutcome, KeyChange, KeyPurpose, KeyRecord, KeyState, KeyStore, RotationRecord, RotationState, RotationStore,
    StoreError, StoredKeys,
};

/// How often a step is worked out anew because somebody else changed the keys in between.
const ATTEMPTS: u32 = 8;

/// Changes the keys of a running gateway: the store first, by compare-and-set on the revision, then the [`KeySet`].
///
/// Every request meets either the keys from before or those from after a change. Changes wait for each other; requests
/// wait for none. Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct Lifecycle {
    set: Arc<KeySet>,
    keys: Arc<dyn KeyStore>,
    rotations: Arc<dyn RotationStore>,
    kek: ArcSwap<Kek>,
    entropy: Arc<dyn Entropy>,
    periods: ArcSwap<KeyPeriods>,
    /// Held for a whole change.
    held: tokio::sync::Mutex<Held>,
    shown: Mutex<Option<Shown>>,
}

/// What a change needs of the keys beside the set.
#[derive(Default)]
struct Held {
    /// The revision that the set was read at.
    revision: u64,
    opened: OpenedKeys,
}

/// Since when this process has published a pending assertion key.
struct Shown {
    id: String,
    since: Duration,
}

/// The present, by the clock and by time that passed.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What the clock says.
    pub now: Timestamp,
    /// Time since an arbitrary moment of this process ([`Clock::monotonic`]).
    pub monotonic: Duration,
}

impl Moment {
    /// The present of `clock`.
    #[must_use]
    pub fn of(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), monotonic: clock.monotonic() }
    }
}

/// Every key is wrapped under another KEK.
pub struct Rewrap {
    /// How many.
    pub keys: usize,
    /// Why the store's journal may still have what they were wrapped as before, if it may: it is to be scrubbed.
    pub left: Option<StoreError>,
}

/// Why the keys are as they were.
#[derive(Debug, Error)]
pub enum LifecycleError {
    /// The keys' states forbid it.
    #[error(transparent)]
    Refused(#[from] KeyRefusal),
    /// The caller decided on another revision of the keys than this, the present one.
    #[error("the keys were changed since; they are at revision {0}")]
    RevisionStale(u64),
    /// Records still need the key.
    #[error("{0} records still need this key")]
    InUse(u64),
    /// No key could be made in the place of the one that leaked. That one is flagged, and suspended unless it seals.
    #[error("no key could take its place, so whatever needs it is refused; say it again once the KEK is back: {0}")]
    FlaggedAlone(KekError),
    /// The KEK that was named opens the keys already.
    #[error("the keys are wrapped under that KEK already")]
    SameKek,
    /// The keys were changed in the store and could not be read back; the next round of upkeep tries again.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A step that time alone brings, and the revision of the keys that it is about.
pub struct Due {
    plan: Plan,
    revision: u64,
}

impl Due {
    /// Each key of the step, and what becomes of it.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, String)> {
        let made = self.plan.make.map(|new| (new.id(), format!("made, {}", new.state.as_str())));
        let moved = self.plan.changes.iter().filter_map(|change| match change {
            KeyChange::Move { id, from, to, .. } => Some((id.clone(), format!("{} to {}", from.as_str(), to.as_str()))),
            KeyChange::New(_)
            | KeyChange::Suspend { .. }
            | KeyChange::Compromise { .. }
            | KeyChange::Rewrap { .. }
            | KeyChange::RewrapPinSecret { .. }
            | KeyChange::RewrapLogKeys(_) => None,
        });
        made.into_iter().chain(moved).collect()
    }

    /// The rotation that it is a step of, and the state that this comes to.
    #[must_use]
    pub fn rotation(&self) -> Option<(&str, RotationState)> {
        self.plan.rotations.first().map(|rotation| (rotation.id.as_str(), rotation.state))
    }
}

impl Lifecycle {
    /// Of the keys in `set`, which were opened with `kek`.
    #[must_use]
    pub fn new(
        set: Arc<KeySet>,
        keys: Arc<dyn KeyStore>,
        rotations: Arc<dyn RotationStore>,
        kek: impl Into<Arc<Kek>>,
        entropy: Arc<dyn Entropy>,
        periods: KeyPeriods,
    ) -> Self {
        let (kek, periods) = (ArcSwap::new(kek.into()), ArcSwap::from_pointee(periods));
        let (held, shown) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { set, keys, rotations, kek, entropy, periods, held, shown }
    }

    /// The set that is kept.
    #[must_use]
    pub const fn set(&self) -> &Arc<KeySet> {
        &self.set
    }

    /// Keys live so long from now on.
    pub fn set_periods(&self, periods: KeyPeriods) {
        self.periods.store(Arc::new(periods));
    }

    /// The KEK under which the keys are wrapped now.
    pub(crate) fn kek(&self) -> Arc<Kek> {
        self.kek.load_full()
    }

    /// What the store holds of keys: their records and revision.
    ///
    /// # Errors
    /// [`StoreError`] if the store failed.
    pub async fn stored(&self) -> Result<StoredKeys, StoreError> {
        self.keys.keys().await
    }

    /// When a drained key may be destroyed; `None` for others.
    #[must_use]
    pub fn destroyable_at(&self, key: &KeyRecord) -> Option<Timestamp> {
        let drained = key.dates.drained_at.filter(|_| key.state == KeyState::Drained)?;
        Some(drained.plus(self.periods.load().cooling))
    }

    /// When a pending assertion key has been published for as long as is configured; `None` for others.
    #[must_use]
    pub fn signs_from(&self, key: &KeyRecord) -> Option<Timestamp> {
        let waits = key.purpose == KeyPurpose::Assertion && key.state == KeyState::Pending;
        let published = self.periods.load().assertion_publish.max(PUBLISHED_AT_LEAST);
        waits.then(|| key.created_at.plus(published))
    }

    /// Makes a key that waits to be made active; one that signs assertions is published at once. Returns its id.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed.
    pub async fn generate(
        &self,
        purpose: KeyPurpose,
        expected: Option<u64>,
        at: Moment,
    ) -> Result<String, LifecycleError> {
        let plan = self.change(expected, at, |view| view.generate(purpose)).await?;
        Ok(plan.make.map(NewKey::id).unwrap_or_default())
    }

    /// Makes a pending key the one in use.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed.
    pub async fn activate(&self, id: &str, expected: Option<u64>, at: Moment) -> Result<(), LifecycleError> {
        self.change(expected, at, |view| view.activate(id)).await.map(drop)
    }

    /// Refuses whatever needs the key, until it is resumed or another one is active.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed.
    pub async fn suspend(&self, id: &str, expected: Option<u64>, at: Moment) -> Result<(), LifecycleError> {
        self.change(expected, at, |view| view.suspend(id)).await.map(drop)
    }

    /// Ends that.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed.
    pub async fn resume(&self, id: &str, expected: Option<u64>, at: Moment) -> Result<(), LifecycleError> {
        self.change(expected, at, |view| view.resume(id)).await.map(drop)
    }

    /// The key has leaked: in one step a fresh one takes its place where it was in use, and what it made counts no more.
    /// A binding key in use is the rotation's, which moves records.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed, but for [`LifecycleError::FlaggedAlone`].
    pub async fn compromise(
        &self,
        id: &str,
        reason: &str,
        expected: Option<u64>,
        at: Moment,
    ) -> Result<(), LifecycleError> {
        match self.change(expected, at, |view| view.compromise(id, reason)).await {
            Err(LifecycleError::Keys(KeysError::Kek(fault))) => {
                self.flag(id, expected, at).await?;
                Err(LifecycleError::FlaggedAlone(fault))
            }
            other => other.map(drop),
        }
    }

    /// What can be done about a key that has leaked where no key can take its place, because the KEK is away: it is known
    /// to have leaked from now on, and whatever needs it is refused. To be said again once the KEK is back.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed.
    pub async fn flag(&self, id: &str, expected: Option<u64>, at: Moment) -> Result<(), LifecycleError> {
        self.change(expected, at, |view| view.flag(id)).await.map(drop)
    }

    /// What wipes a key that nothing needs, its record stays, and the revision that this is good for: made by whoever knows
    /// that enough people agreed, and then [`Lifecycle::refresh`]ed.
    ///
    /// # Errors
    /// [`LifecycleError`], which says what forbids it.
    pub async fn destruction(
        &self,
        id: &str,
        expected: Option<u64>,
        at: Moment,
    ) -> Result<(u64, Vec<KeyChange>), LifecycleError> {
        let (plan, revision) = self.plan(expected, at, |view| view.destroy(id)).await?;
        Ok((revision, plan.changes))
    }

    /// Begins to replace the active key of a purpose other than binding. Returns the record of the rotation.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed.
    pub async fn start_rotation(
        &self,
        purpose: KeyPurpose,
        reason: &str,
        expected: Option<u64>,
        at: Moment,
    ) -> Result<RotationRecord, LifecycleError> {
        let plan = self.change(expected, at, |view| view.start(purpose, reason)).await?;
        plan.rotations.into_iter().next().ok_or(LifecycleError::Refused(KeyRefusal::NotThere))
    }

    /// Gives up a rotation, of a purpose other than binding, whose key is not active yet.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed.
    pub async fn abort_rotation(&self, id: &str, expected: Option<u64>, at: Moment) -> Result<(), LifecycleError> {
        let abort = |view: &View<'_>| {
            let rotation = view.rotations.iter().find(|rotation| rotation.id == id);
            view.abort(rotation.filter(|r| r.purpose != KeyPurpose::Binding).ok_or(KeyRefusal::NotThere)?)
        };
        self.change(expected, at, abort).await.map(drop)
    }

    /// Wraps every key under `new`, in one step, and keeps to that from then on.
    ///
    /// # Errors
    /// [`LifecycleError`]; the keys are under the KEK that they were under.
    pub async fn rewrap(&self, new: Kek, expected: Option<u64>) -> Result<Rewrap, LifecycleError> {
        let mut held = self.held.lock().await;
        let store_id = self.keys.store_id().await?;
        for _ in 0..ATTEMPTS {
            let stored = self.keys.keys().await?;
            matches(expected, stored.revision)?;
            if Parts::open(&store_id, &new, stored.clone()).await.is_ok() {
                self.kek.store(Arc::new(new));
                return Err(LifecycleError::SameKek);
            }
            let count = stored.keys.iter().filter(|key| key.state != KeyState::Destroyed).count();
            let revision = stored.revision;
            let Rewrapped { changes, opened } =
                Rewrapped::under(&new, &self.kek.load_full(), &store_id, stored, &*self.entropy).await?;
            match self.keys.change(revision, changes).await {
                // The keys are those that they were, and need no KEK to be known: the token may be gone by now.
                Ok(ChangeOutcome::Changed(_)) => {
                    self.rewrapped(&mut held, new, opened).await;
                    return Ok(Rewrap { keys: count, left: None });
                }
                Ok(ChangeOutcome::Stale) => {}
                Ok(ChangeOutcome::InUse(records)) => return Err(LifecycleError::InUse(records)),
                Err(error) => {
                    // It may have come to pass all the same: all of it, then, and only the journal was not emptied.
                    if opened.knows(&self.keys.keys().await?.keys) {
                        self.rewrapped(&mut held, new, opened).await;
                        return Ok(Rewrap { keys: count, left: Some(error) });
                    }
                    return Err(error.into());
                }
            }
        }
        Err(busy())
    }

    /// The next step that time alone brings, if one is due: takes over what is published, lets go of what is past, begins
    /// what is due.
    ///
    /// # Errors
    /// [`LifecycleError`].
    pub async fn due(&self, at: Moment) -> Result<Option<Due>, LifecycleError> {
        let (plan, revision) = self.plan(None, at, |view| Ok(view.due())).await?;
        Ok((!plan.is_empty()).then_some(Due { plan, revision }))
    }

    /// Takes a step that was due.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing was changed. [`LifecycleError::RevisionStale`]: ask again what is due.
    pub async fn take(&self, due: Due, at: Moment) -> Result<(), LifecycleError> {
        let Due { plan, revision } = due;
        self.change(Some(revision), at, |_| Ok(plan.clone())).await.map(drop)
    }

    /// Reads back what others changed.
    ///
    /// # Errors
    /// [`LifecycleError`]; the next call does it.
    pub async fn follow(&self) -> Result<(), LifecycleError> {
        let mut held = self.held.lock().await;
        if self.keys.keys().await?.revision != held.revision {
            self.reload(&mut held).await?;
        }
        Ok(())
    }

    /// The keys of the days of `ahead` for the sealed access log, in clear; made where there are none. A day whose time is
    /// over has none.
    ///
    /// # Errors
    /// [`KeysError`]; keys that were made before it failed stay.
    pub async fn log_keys(&self, ahead: &[Day]) -> Result<Vec<DayKey>, KeysError> {
        let _no_rewrap_meanwhile = self.held.lock().await;
        let mut keys = Vec::new();
        for day in ahead {
            keys.extend(log_keys::made(&*self.keys, &self.kek.load_full(), &*self.entropy, *day).await?);
        }
        Ok(keys)
    }

    /// The key of a log day that has one, and what became of it otherwise.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn log_key(&self, day: Day) -> Result<LogDay, KeysError> {
        log_keys::opened(&*self.keys, &self.kek.load_full(), day).await
    }

    /// A binding key that was never there, `k` and `number`, pending or active, wrapped under the KEK in force: for the
    /// rotation, which puts it into the store together with what it changes there.
    ///
    /// # Errors
    /// [`KeysError`] if the store does not tell its id, or the token that holds the KEK fails.
    pub async fn fresh(&self, number: u32, state: KeyState, now: Timestamp) -> Result<KeyRecord, KeysError> {
        let new = NewKey { purpose: KeyPurpose::Binding, number, state };
        self.make(&mut *self.held.lock().await, new, now).await
    }

    /// Reads the keys back into memory, after somebody else changed them in the store.
    ///
    /// # Errors
    /// [`KeysError`]; what is in memory is as it was.
    pub async fn refresh(&self) -> Result<(), KeysError> {
        self.reload(&mut *self.held.lock().await).await
    }

    /// Keeps to `kek`, under which the store has the keys now. The ring of before would be refused from here on.
    async fn rewrapped(&self, held: &mut Held, kek: Kek, opened: OpenedKeys) {
        self.kek.store(Arc::new(kek));
        held.opened = opened;
        if let Err(error) = self.reload(held).await {
            tracing::error!(%error, "the keys are wrapped anew, and could not be read back; it is tried again");
        }
    }

    async fn make(&self, held: &mut Held, new: NewKey, now: Timestamp) -> Result<KeyRecord, KeysError> {
        let (store_id, kek) = (self.keys.store_id().await?, self.kek.load_full());
        let fresh = fresh_key(&store_id, &kek, new, &*self.entropy, now).await?;
        held.opened.admit(&store_id, &kek, &fresh).await?;
        Ok(fresh)
    }

    /// Works out what to do, does it, and again where somebody else changed the keys in between.
    async fn change(
        &self,
        expected: Option<u64>,
        at: Moment,
        decide: impl Fn(&View<'_>) -> Result<Plan, KeyRefusal>,
    ) -> Result<Plan, LifecycleError> {
        let mut held = self.held.lock().await;
        for _ in 0..ATTEMPTS {
            let (plan, revision) = self.plan(expected, at, &decide).await?;
            if plan.is_empty() {
                return Ok(plan);
            }
            // What the store has and memory cannot get would be in force at the next start alone: what cannot be opened
            // is met before anything is changed.
            let (store_id, kek) = (self.keys.store_id().await?, self.kek.load_full());
            Parts::reopen(&mut held.opened, &store_id, &kek, self.keys.keys().await?).await?;
            let mut changes = plan.changes.clone();
            if let Some(new) = plan.make {
                changes.push(KeyChange::New(self.make(&mut held, new, at.now).await?));
            }
            match self.rotations.change_with(revision, changes, plan.rotations.clone(), None).await? {
                ChangeOutcome::Changed(_) => {
                    self.reload(&mut held).await?;
                    // An assertion key that was just made is published from here on.
                    self.shown_for(&self.keys.keys().await?.keys, at.monotonic);
                    return Ok(plan);
                }
                ChangeOutcome::Stale => {}
                ChangeOutcome::InUse(records) => return Err(LifecycleError::InUse(records)),
            }
        }
        Err(busy())
    }

    /// What is to change, and the revision that it is good for.
    async fn plan(
        &self,
        expected: Option<u64>,
        at: Moment,
        decide: impl Fn(&View<'_>) -> Result<Plan, KeyRefusal>,
    ) -> Result<(Plan, u64), LifecycleError> {
        let stored = self.keys.keys().await?;
        matches(expected, stored.revision)?;
        let rotations = self.rotations.rotations().await?;
        let (keys, periods) = (&stored.keys, self.periods.load());
        let shown_for = self.shown_for(keys, at.monotonic);
        let plan = decide(&View { keys, rotations: &rotations, periods: &periods, now: at.now, shown_for })?;
        Ok((plan, stored.revision))
    }

    /// For how long this process has published the pending assertion key.
    fn shown_for(&self, keys: &[KeyRecord], monotonic: Duration) -> Duration {
        let pending = |key: &&KeyRecord| key.purpose == KeyPurpose::Assertion && key.state == KeyState::Pending;
        let pending = keys.iter().find(pending);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = pending else {
            *shown = None;
            return Duration::ZERO;
        };
        let since = match &*shown {
            Some(shown) if shown.id == key.id => shown.since,
            _ => shown.insert(Shown { id: key.id.clone(), since: monotonic }).since,
        };
        monotonic.saturating_sub(since)
    }

    async fn reload(&self, held: &mut Held) -> Result<(), KeysError> {
        let stored = self.keys.keys().await?;
        let now_at = stored.revision;
        let (store_id, kek) = (self.keys.store_id().await?, self.kek.load_full());
        self.set.replace(Parts::reopen(&mut held.opened, &store_id, &kek, stored).await?);
        held.revision = now_at;
        Ok(())
    }
}

fn matches(expected: Option<u64>, revision: u64) -> Result<(), LifecycleError> {
    match expected {
        Some(expected) if expected != revision => Err(LifecycleError::RevisionStale(revision)),
        _ => Ok(()),
    }
}

fn busy() -> LifecycleError {
    StoreError::Unavailable("the keys keep being changed by others; try again".into()).into()
}
