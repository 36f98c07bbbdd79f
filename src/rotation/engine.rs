//! The verbs: begin, pause, resume, give up, look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard, Notify};

use super::error::RotationError;
use super::pace::Pace;
use super::progress::{Census, Progress, key_id};
use crate::assertion::AssertionCache;
use crate::audit::AuditTrail;
use crate::binding::{Chain, KeyId};
use crate::clock::{Clock, Day, Timestamp};
use crate::keys::Lifecycle;
use crate::receipt::{CanaryError, Receipts};
use crate::session::Sessions;
use crate::store::{
    BindingStore, ChangeOutcome, KeyChange, KeyPurpose, KeyRecord, KeyState, KeyStore, RotationRecord, RotationState,
    RotationStore, StoreError, StoredKeys,
};
use crate::telemetry::Metrics;

/// Rotations of binding keys that may be open at once: with three live keys a look-up has six probes.
pub const MOST_OPEN: usize = 2;
/// How often a step is worked out anew because somebody else changed the keys in between.
const ATTEMPTS: u32 = 8;

/// Rotates the binding keys of a running gateway.
///
/// Changes wait for each other; sign-ins wait for none.
pub struct Rotations {
    pub(super) keys: Arc<Lifecycle>,
    pub(super) receipts: Arc<Receipts>,
    pub(super) audit: Arc<AuditTrail>,
    pub(super) key_store: Arc<dyn KeyStore>,
    pub(super) store: Arc<dyn RotationStore>,
    pub(super) bindings: Arc<dyn BindingStore>,
    pub(super) sessions: Arc<Sessions<AssertionCache>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    /// Days after which an unused binding is erased: the longest that an old key is needed.
    retention_days: AtomicU32,
    pub(super) pace: Pace,
    /// Records a second, lately.
    pub(super) rate: AtomicU64,
    /// Told when there may be something to move.
    pub(super) wake: Notify,
    /// Told when a rotation reached its next state by itself.
    pub(super) moved: Notify,
    /// Whether the last record was wrapped, or a key destroyed whose material the journal may have, since somebody asked.
    pub(super) traces: AtomicBool,
    /// Whether sessions of a key that leaked may still have to end.
    pub(super) fallen: AtomicBool,
    /// Milliseconds that the runner has rested.
    pub(super) rested: AtomicU64,
    /// Whose copy this is, if it is one: then nobody is told, and those are made way for who sign in there.
    pub(super) rehearses: Option<Arc<Self>>,
    /// Held for a whole change; what the last census saw.
    pub(super) changing: Mutex<super::steps::Counted>,
}

/// What a rotation is begun with.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Why, in the words of whoever asks.
    pub reason: String,
    /// Only makes the new key: nothing changes until the rotation is resumed.
    pub paused: bool,
    /// Days until records that still need the old key are erased; the retention of bindings if unsaid.
    pub drain_within: Option<u32>,
    /// How many bindings that is accepted to cost.
    pub expected_loss: Option<u64>,
    /// The revision of the keys that the caller decided on.
    pub revision: Option<u64>,
}

/// What a step is decided on.
pub(super) struct View {
    pub(super) stored: StoredKeys,
    pub(super) rotations: Vec<RotationRecord>,
}

/// What is to change.
#[derive(Default)]
pub(super) struct Plan {
    /// A key that is to be made: its number, and where it begins.
    pub(super) make: Option<(u32, KeyState)>,
    pub(super) keys: Vec<KeyChange>,
    pub(super) rotations: Vec<RotationRecord>,
    /// The rotation whose new key becomes active in this step.
    pub(super) begins: Option<String>,
}

impl Rotations {
    /// Of the keys and records in the stores.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part of the gateway that a rotation moves or asks")]
    pub fn new(
        keys: Arc<Lifecycle>,
        receipts: Arc<Receipts>,
        audit: Arc<AuditTrail>,
        key_store: Arc<dyn KeyStore>,
        store: Arc<dyn RotationStore>,
        bindings: Arc<dyn BindingStore>,
        sessions: Arc<Sessions<AssertionCache>>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        retention_days: u32,
    ) -> Self {
        Self {
            keys,
            receipts,
            audit,
            key_store,
            store,
            bindings,
            sessions,
            metrics,
            clock,
            retention_days: AtomicU32::new(retention_days),
            pace: Pace::new(),
            rate: AtomicU64::new(0),
            wake: Notify::new(),
            moved: Notify::new(),
            traces: AtomicBool::new(false),
            fallen: AtomicBool::new(false),
            rested: AtomicU64::new(0),
            rehearses: None,
            changing: Mutex::default(),
        }
    }

    /// Has it work on a copy of what `live` rotates.
    #[must_use]
    pub(super) fn rehearsing(self, live: Arc<Self>) -> Self {
        Self { rehearses: Some(live), pace: Pace::of_a_rehearsal(), ..self }
    }

    /// Bindings that are unused are kept for so many days from now on.
    pub fn set_retention(&self, days: u32) {
        self.retention_days.store(days, Ordering::Relaxed);
    }

    /// Whether a rotation came to the end of its wrap since this was last asked, or a key to its own whose material the
    /// journal may have. No record has what the old key alone made any more; the medium may, where records were.
    pub fn has_left_traces(&self) -> bool {
        self.traces.swap(false, Ordering::Relaxed)
    }

    pub(super) fn retention_days(&self) -> u32 {
        self.retention_days.load(Ordering::Relaxed)
    }

    /// Somebody signs in or enrols now: records move more gently for a while.
    pub fn sign_in_begins(&self) {
        self.pace.sign_in(self.clock.monotonic());
    }

    /// Begins to replace the active binding key.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn start(&self, start: Start, now: Timestamp) -> Result<Progress, RotationError> {
        let mut changing = self.changing.lock().await;
        let drain_days = self.drain_days(&start, now).await?;
        let id = self
            .change(&mut changing, start.revision, now, |view| {
                let active = view.active()?;
                view.may_start(now)?;
                let to_state = if start.paused { KeyState::Pending } else { KeyState::Active };
                let state = if start.paused { RotationState::Paused } else { RotationState::Running };
                let (record, number) = view.rotation_from(active, state, &start.reason, (now, drain_days));
                let mut plan = Plan { make: Some((number, to_state)), ..Plan::default() };
                if !start.paused {
                    plan.keys.push(step(&active.id, KeyState::Active, KeyState::Retiring, now));
                    plan.begins = Some(record.id.clone());
                }
                let id = record.id.clone();
                plan.rotations.push(record);
                Ok((plan, id))
            })
            .await?;
        drop(changing);
        self.status(&id).await
    }

    /// Nothing moves until [`Rotations::resume`].
    ///
    /// # Errors
    /// [`RotationError::State`] unless it runs.
    pub async fn pause(&self, id: &str, revision: Option<u64>, now: Timestamp) -> Result<Progress, RotationError> {
        let mut changing = self.changing.lock().await;
        self.change(&mut changing, revision, now, |view| {
            let record = view.rotation(id)?;
            let paused = RotationRecord { state: RotationState::Paused, ..record.clone() };
            match record.state {
                RotationState::Running => Ok((Plan { rotations: vec![paused], ..Plan::default() }, ())),
                state @ (RotationState::Paused
                | RotationState::Draining
                | RotationState::Done
                | RotationState::Aborted) => Err(not(state, "only a running one is paused")),
            }
        })
        .await?;
        drop(changing);
        self.status(id).await
    }

    /// Goes on; one that was started paused begins.
    ///
    /// # Errors
    /// [`RotationError::State`] unless it is paused.
    pub async fn resume(&self, id: &str, revision: Option<u64>, now: Timestamp) -> Result<Progress, RotationError> {
        let mut changing = self.changing.lock().await;
        self.change(&mut changing, revision, now, |view| {
            let record = view.rotation(id)?;
            if record.state != RotationState::Paused {
                return Err(not(record.state, "only a paused one is resumed"));
            }
            if !view.begun(record) {
                view.none_suspended()?;
            }
            Ok((view.going_on(record, now), ()))
        })
        .await?;
        drop(changing);
        self.status(id).await
    }

    /// Gives up a rotation that never began; the key that was made for it is wiped.
    ///
    /// # Errors
    /// [`RotationError::State`] once the new key was active: records only go forwards.
    pub async fn abort(&self, id: &str, revision: Option<u64>, now: Timestamp) -> Result<Progress, RotationError> {
        let mut changing = self.changing.lock().await;
        self.change(&mut changing, revision, now, |view| {
            let record = view.rotation(id)?;
            match record.state {
                RotationState::Paused if !view.begun(record) => Ok((View::giving_up(record, now), ())),
                RotationState::Running | RotationState::Paused => Err(RotationError::State(format!(
                    "the new key is in use, and records only go forwards; `sekisho rotation {}`",
                    if record.state == RotationState::Paused { "resume goes on" } else { "pause stops it" }
                ))),
                state @ (RotationState::Draining | RotationState::Done | RotationState::Aborted) => {
                    Err(not(state, "only one that never began is given up"))
                }
            }
        })
        .await?;
        drop(changing);
        self.status(id).await
    }

    /// Counts again, and takes the steps that are due.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn rescan(&self, id: &str, now: Timestamp) -> Result<Progress, RotationError> {
        let known = self.store.rotations().await?.iter().any(|rotation| rotation.id == id);
        if !known {
            return Err(RotationError::NotFound);
        }
        self.advance(now, true).await?;
        self.wake.notify_one();
        self.status(id).await
    }

    /// One rotation.
    ///
    /// # Errors
    /// [`RotationError::NotFound`] if there is none of that id.
    pub async fn status(&self, id: &str) -> Result<Progress, RotationError> {
        self.progress(|record| record.id == id).await?.pop().ok_or(RotationError::NotFound)
    }

    /// All rotations, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self) -> Result<Vec<Progress>, RotationError> {
        self.progress(|_| true).await
    }

    /// What is stored of all rotations, without counting anything.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn records(&self) -> Result<Vec<RotationRecord>, StoreError> {
        self.store.rotations().await
    }

    /// How many records each chain has, of chains that any has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chains(&self) -> Result<Vec<(Chain, u64)>, RotationError> {
        Ok(self.store.chains().await?)
    }

    async fn progress(&self, which: impl Fn(&RotationRecord) -> bool) -> Result<Vec<Progress>, RotationError> {
        let view = self.view().await?;
        let wanted: Vec<_> = view.rotations.iter().filter(|record| which(record)).cloned().collect();
        // Reads every record, so only where something is still to be counted.
        let counts = wanted.iter().any(|record| record.purpose == KeyPurpose::Binding && record.state.is_open());
        let census = Census::new(if counts { self.store.chains().await? } else { Vec::new() });
        let now = self.clock.now();
        let rate = self.rate.load(Ordering::Relaxed);
        let of = |record: RotationRecord| {
            let begun = view.begun(&record);
            let binding = record.purpose == KeyPurpose::Binding;
            let next_on = if binding { view.next_on(now) } else { self.next_of(record.purpose, &view, now) };
            census.progress(record, begun, rate, (next_on, view.stored.revision))
        };
        Ok(wanted.into_iter().map(of).collect::<Result<_, StoreError>>()?)
    }

    /// The first day on which another key of a purpose that no record needs may be replaced: once the last one is in use.
    fn next_of(&self, purpose: KeyPurpose, view: &View, now: Timestamp) -> Day {
        let waiting =
            view.rotations.iter().find(|record| record.purpose == purpose && record.state == RotationState::Running);
        let key = waiting.and_then(|record| view.stored.keys.iter().find(|key| key.id == record.to));
        key.and_then(|key| self.keys.signs_from(key)).map_or(now.day(), |from| from.day().max(now.day()))
    }

    /// Days until the deadline. One that is likely to cost bindings needs the caller's word for how many.
    async fn drain_days(&self, start: &Start, now: Timestamp) -> Result<u32, RotationError> {
        let retention_days = self.retention_days();
        let Some(days) = start.drain_within else { return Ok(retention_days) };
        if days == 0 || days >= retention_days {
            return Err(RotationError::DrainWithin(retention_days));
        }
        let bindings = self.store.unused_since(now.day().minus_days(days)).await?;
        if start.expected_loss.unwrap_or(0) != bindings {
            return Err(RotationError::WouldLose { bindings, days });
        }
        Ok(days)
    }

    pub(super) async fn view(&self) -> Result<View, StoreError> {
        Ok(View { stored: self.key_store.keys().await?, rotations: self.store.rotations().await? })
    }

    /// Works out what to do, does it in the store, then in memory; again where somebody else changed the keys in between.
    /// Sign-ins that meet the moment between the two are refused by the store and try again with the new ring.
    pub(super) async fn change<T>(
        &self,
        _changing: &mut MutexGuard<'_, super::steps::Counted>,
        revision: Option<u64>,
        now: Timestamp,
        decide: impl Fn(&View) -> Result<(Plan, T), RotationError> + Send,
    ) -> Result<T, RotationError> {
        for _ in 0..ATTEMPTS {
            let view = self.view().await?;
            let present = view.stored.revision;
            if revision.is_some_and(|revision| revision != present) {
                return Err(RotationError::Stale(present));
            }
            let (Plan { make, mut keys, mut rotations, begins }, told) = decide(&view)?;
            if let Some(record) = rotations.iter_mut().find(|record| begins.as_ref() == Some(&record.id)) {
                self.before_it_begins(record, &keys, now).await?;
            }
            if let Some((number, state)) = make {
                keys.push(KeyChange::New(self.keys.fresh(number, state, now).await?));
            }
            let rings = !keys.is_empty();
            match self.change_with(present, keys, rotations, begins).await? {
                ChangeOutcome::Changed(_) => {
                    if rings {
                        self.keys.refresh().await?;
                    }
                    self.wake.notify_one();
                    return Ok(told);
                }
                ChangeOutcome::Stale => {}
                ChangeOutcome::InUse(records) => return Err(RotationError::InUse(records)),
            }
        }
        Err(StoreError::Unavailable("the keys keep being changed by others; try again".into()).into())
    }

    /// Has the store make the changes. What is done stands, also where the journal was not emptied behind it: upkeep does that.
    pub(super) async fn change_with(
        &self,
        revision: u64,
        keys: Vec<KeyChange>,
        rotations: Vec<RotationRecord>,
        count_total: Option<String>,
    ) -> Result<ChangeOutcome, StoreError> {
        match self.store.change_with(revision, keys, rotations, count_total).await {
            Err(error @ StoreError::Unemptied(_)) => {
                self.traces.store(true, Ordering::Relaxed);
                tracing::warn!(%error, "a key is destroyed; what it was wrapped as may stay in the journal for some seconds");
                Ok(ChangeOutcome::Changed(revision + 1))
            }
            answered => answered,
        }
    }

    /// Plants canaries, and keeps what all bindings look like. A key that leaked does not wait for the latter, which reads
    /// every record.
    async fn before_it_begins(
        &self,
        record: &mut RotationRecord,
        changes: &[KeyChange],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if let Err(error) = self.receipts.plant(record, now).await {
            match error {
                CanaryError::Store(error) => return Err(error),
                // The key was suspended before it was said to have leaked.
                CanaryError::Digest(error) => tracing::warn!(%error, "the rotation goes without canaries"),
            }
        }
        if !changes.iter().any(|change| matches!(change, KeyChange::Compromise { .. })) {
            record.root_before = self.receipts.root().await?.to_vec();
        }
        Ok(())
    }

    /// Ends the sessions of bindings that do not stand any more. Returns how many.
    pub(super) async fn end_fallen(&self) -> Result<usize, StoreError> {
        self.sessions.end_fallen(&*self.bindings).await
    }
}

impl View {
    /// Binding keys, oldest first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &KeyRecord> {
        self.stored.keys.iter().filter(|key| key.purpose == KeyPurpose::Binding)
    }

    pub(super) fn key(&self, id: &str) -> Option<&KeyRecord> {
        self.keys().find(|key| key.id == id)
    }

    pub(super) fn active(&self) -> Result<&KeyRecord, StoreError> {
        let active = self.keys().find(|key| key.state == KeyState::Active);
        active.ok_or_else(|| StoreError::Corrupt("no binding key is active".into()))
    }

    /// Rotations of binding keys that are not over, the latest first.
    pub(super) fn open(&self) -> impl Iterator<Item = &RotationRecord> {
        self.rotations.iter().filter(|record| record.purpose == KeyPurpose::Binding && record.state.is_open())
    }

    /// Whether the new key is, or was, active.
    pub(super) fn begun(&self, record: &RotationRecord) -> bool {
        self.key(&record.to).is_none_or(|key| key.state != KeyState::Pending)
    }

    fn rotation(&self, id: &str) -> Result<&RotationRecord, RotationError> {
        let found = self.rotations.iter().find(|record| record.id == id && record.purpose == KeyPurpose::Binding);
        found.ok_or(RotationError::NotFound)
    }

    pub(super) fn none_suspended(&self) -> Result<(), RotationError> {
        let live = |key: &&KeyRecord| matches!(key.state, KeyState::Active | KeyState::Retiring | KeyState::Inner);
        match self.keys().filter(live).find(|key| key.suspended) {
            Some(KeyRecord { id, .. }) => Err(RotationError::State(format!(
                "key {id} is suspended, and nothing is written then; `sekisho keys resume {id}`, or `compromise` if it leaked"
            ))),
            None => Ok(()),
        }
    }

    fn may_start(&self, now: Timestamp) -> Result<(), RotationError> {
        self.none_suspended()?;
        if let Some(waiting) = self.open().find(|record| !self.begun(record)) {
            let id = &waiting.id;
            return Err(RotationError::State(format!(
                "rotation {id} has not begun yet; `sekisho rotation resume {id}` or `abort {id}` comes first"
            )));
        }
        if self.open().count() >= MOST_OPEN {
            return Err(RotationError::Limit { next_on: self.next_on(now).to_string() });
        }
        Ok(())
    }

    /// A rotation that has another key take the place of `from`, and the number of that key. What was not used for so many
    /// days after it began needs the old key no longer.
    pub(super) fn rotation_from(
        &self,
        from: &KeyRecord,
        state: RotationState,
        reason: &str,
        (now, drain_days): (Timestamp, u32),
    ) -> (RotationRecord, u32) {
        let number = self.next_key();
        let (id, to) = (self.next_rotation(), KeyId::new(number).to_string());
        let drain_by = days_after(now.day(), drain_days);
        let record = RotationRecord {
            reason: reason.to_owned(),
            ..RotationRecord::new(&id, KeyPurpose::Binding, &from.id, &to, state, now, drain_by)
        };
        (record, number)
    }

    /// What has a paused rotation go on, and begin if it never did.
    pub(super) fn going_on(&self, record: &RotationRecord, now: Timestamp) -> Plan {
        let mut running = RotationRecord { state: RotationState::Running, ..record.clone() };
        let mut plan = Plan::default();
        if !self.begun(record) {
            plan.keys.push(step(&record.from, KeyState::Active, KeyState::Retiring, now));
            plan.keys.push(step(&record.to, KeyState::Pending, KeyState::Active, now));
            plan.begins = Some(record.id.clone());
            // The deadline counts from here: nobody could leave the old key before.
            let days = record.drain_by.unix_days().saturating_sub(record.started_at.day().unix_days());
            running.drain_by = days_after(now.day(), u32::try_from(days).unwrap_or(0));
        }
        plan.rotations.push(running);
        plan
    }

    /// What ends a rotation that never began.
    pub(super) fn giving_up(record: &RotationRecord, now: Timestamp) -> Plan {
        let aborted = RotationRecord { state: RotationState::Aborted, finished_at: Some(now), ..record.clone() };
        let keys = vec![step(&record.to, KeyState::Pending, KeyState::Destroyed, now)];
        Plan { keys, rotations: vec![aborted], ..Plan::default() }
    }

    /// The number of a key that never was.
    pub(super) fn next_key(&self) -> u32 {
        self.keys().filter_map(|key| key_id(&key.id).ok()).map(KeyId::number).max().unwrap_or(0) + 1
    }

    pub(super) fn next_rotation(&self) -> String {
        let number = |record: &RotationRecord| record.id.strip_prefix('r').and_then(|n| n.parse::<u64>().ok());
        format!("r{}", self.rotations.iter().filter_map(number).max().unwrap_or(0) + 1)
    }

    /// The first day on which another rotation may begin, if none is over before its deadline.
    pub(super) fn next_on(&self, now: Timestamp) -> Day {
        let mut last_days: Vec<Day> = self.open().map(|record| record.drain_by).collect();
        last_days.sort_unstable();
        let over = last_days.len().checked_sub(MOST_OPEN).and_then(|behind| last_days.get(behind));
        over.map_or(now.day(), |last| days_after(*last, 1))
    }
}

/// A key that goes to its next state.
pub(super) fn step(id: &str, from: KeyState, to: KeyState, at: Timestamp) -> KeyChange {
    KeyChange::Move { id: id.to_owned(), from, to, at }
}

pub(super) fn days_after(day: Day, days: u32) -> Day {
    Day::from_unix_days(day.unix_days().saturating_add_unsigned(days))
}

fn not(state: RotationState, rule: &str) -> RotationError {
    RotationError::State(format!("the rotation is {}; {rule}", state.as_str()))
}
