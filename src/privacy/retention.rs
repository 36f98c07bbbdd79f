//! Retention: what has reached its age is erased, by a round that upkeep runs every few seconds and an officer at will.
//!
//! A round is safe to be killed anywhere: each kind goes in one step of the store, and what a round before left is found by
//! the next. A clock that cannot be believed erases nothing ([`ClockWatch`]), whoever asks.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::clock_watch::ClockWatch;
use super::statistics::Statistics;
use super::subjects::Subjects;
use crate::assertion::AssertionCache;
use crate::audit::{Action, AuditTrail, Effect, Event, SealError};
use crate::backup::{BackupError, Backups, Entry};
use crate::binding::BindingId;
use crate::clock::{Clock, Day, Timestamp};
use crate::config::{AccessLog, Config, InForce, SecurityLog};
use crate::logs::{days_put_aside, erase_days};
use crate::rotation::Rotations;
use crate::session::Sessions;
use crate::store::{BindingStore, KeyStore, Proof, ProofStore, SessionScope, StoreError};
use crate::telemetry::{Actor, SecurityEvent, security};

/// The name of its proof.
pub const RETENTION_PROOF: &str = "retention";
const DAY: Duration = Duration::from_hours(24);
/// How often a round that erased nothing is noted: not each, because noting is a write.
const NOTED_EVERY: Duration = Duration::from_hours(1);

/// Bindings that are erased in one call, beside which sign-ins wait.
const AT_ONCE: u32 = 200;

/// What a round erased, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Handsets that were not used for `binding.retention`, and those that a rotation's deadline caught up with.
    pub bindings: u64,
    /// Handsets that are old enough and under legal hold; they stay.
    pub held: u64,
    /// Rows of the statistics.
    pub statistics: u64,
    /// Files of the log that hold one day each.
    pub log_files: u64,
    /// The same of the security log.
    pub security_log_files: u64,
    /// Keys of days of the sealed log.
    pub log_keys: u64,
    /// Whether files of the log could not be erased.
    pub files_stay: bool,
    /// Backups whose key was destroyed.
    pub backups: u64,
    /// Entries of the audit trail; at most [`AuditTrail::MOST_ERASED`] a round.
    pub audit: u64,
    /// Whether nothing that goes by age was erased, because the clock was set or is far from the store's last use.
    pub clock_doubted: bool,
}

/// What one round leaves to the next.
#[derive(Default)]
struct State {
    clock: ClockWatch,
    /// Bindings that were erased and whose sessions have not ended yet, because the store failed in between.
    erased: Vec<BindingId>,
    /// The day on which all audit entries that were old enough had been erased.
    trail_erased_on: Option<Day>,
    /// The day for which it was said that the store is to be rid of what ended.
    scrubbed_on: Option<Day>,
    noted: Option<Timestamp>,
    /// Whether what was noted last was as promised.
    noted_ok: bool,
    doubted: bool,
}

/// The first day of which the log's lines are still kept.
fn log_days_from(config: &Config, now: Timestamp) -> Day {
    now.day().minus_days(config.privacy.access_log_days)
}

/// The parts that retention works on.
pub struct RetentionParts {
    /// Accounts, codes and bindings.
    pub bindings: Arc<dyn BindingStore>,
    /// Rotations, whose deadlines erase.
    pub rotations: Arc<Rotations>,
    /// Live sessions.
    pub sessions: Arc<Sessions<AssertionCache>>,
    /// What was counted.
    pub statistics: Arc<Statistics>,
    /// Whose journal is emptied behind what was erased.
    pub subjects: Arc<Subjects>,
    /// The keys of log days.
    pub keys: Arc<dyn KeyStore>,
    /// Copies of the store.
    pub backups: Arc<Backups>,
    /// Where it is noted that a round ran.
    pub proofs: Arc<dyn ProofStore>,
    /// Who did what.
    pub audit: Arc<AuditTrail>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Periods: those that are in force when a round begins.
    pub config: Arc<InForce>,
}

/// Erases what is old enough.
pub struct Retention {
    parts: RetentionParts,
    /// Held for a whole round: rounds do not overlap, and requests never wait for it.
    state: Mutex<State>,
}

impl Retention {
    /// On these parts.
    #[must_use]
    pub fn new(parts: RetentionParts) -> Self {
        Self { parts, state: Mutex::default() }
    }

    /// Erases what is old enough now.
    ///
    /// # Errors
    /// [`StoreError`]; the next round does the rest.
    pub async fn round(&self) -> Result<Round, StoreError> {
        let RetentionParts { bindings, rotations, sessions, statistics, subjects, audit, clock, config, .. } =
            &self.parts;
        let mut state = self.state.lock().await;
        let config = config.config();
        let now = clock.now();
        let last_use = bindings.last_use().await?;
        if let Some(behind) = state.clock.set_back(now, clock.monotonic()) {
            let event = Event::new(Action::ClockSetBack, Actor::Gateway).effect(Effect::of(behind.as_secs()));
            audit.note(event, now).await?;
        }
        // Codes end by the clock in any case: too early costs a new code, too late would be a way in.
        let may_erase = state.clock.may_erase(now, clock.monotonic(), last_use);
        state.doubted = !may_erase;
        let mut round = Round { clock_doubted: !may_erase, ..Round::default() };
        let retention = if may_erase { config.binding.retention_days } else { u32::MAX };
        let (unused, erased) = self.erase_unused(now, now.day().minus_days(retention)).await;
        let mut noted = Ok(());
        if !unused.is_empty() {
            let event = Event::new(Action::BindingsErase, Actor::Retention).effect(Effect::of(unused.len() as u64));
            noted = audit.note(event, now).await.map(drop);
        }
        let before = state.erased.len();
        state.erased.extend(unused);
        let purged = if may_erase { rotations.purge_overdue(&mut state.erased, now).await } else { Ok(()) };
        let purged = erased.and(purged);
        let count = state.erased.len() - before;
        if count > 0 {
            subjects.note_erased();
            security(&SecurityEvent::BindingsErased { count }, None, config.privacy.client_address);
        }
        round.bindings = count as u64;
        if !state.erased.is_empty() {
            sessions.end(SessionScope::AnyOf(state.erased.clone())).await?;
            state.erased.clear();
        }
        noted.and(purged)?;
        if may_erase {
            round.statistics = statistics.erase(now.day().minus_days(config.privacy.statistics_days)).await?;
            round.held = subjects.store.due_bindings(now.day().minus_days(config.binding.retention_days)).await?.held;
        }
        if may_erase {
            // The keys first: what they sealed is past reading, wherever copies of it are.
            let destroyed = self.parts.keys.destroy_log_keys(log_days_from(&config, now)).await?;
            if let Some(error) = destroyed.unemptied {
                // The keys are gone; emptying the journal is tried again, and told, as behind all else that was erased.
                tracing::warn!(%error, "keys of log days are destroyed; what they were wrapped as may stay in the journal for some seconds");
                subjects.note_erased();
            }
            round.log_keys = destroyed.count;
            round.audit = self.erase_entries(&mut state, now).await?;
            match self.log_files(&config, now, erase_days).await {
                Ok(erased) => (round.log_files, round.security_log_files) = erased,
                // All else goes on; the proof and the log say so.
                Err(error) => {
                    tracing::error!(%error, "days of a log that are old enough were not erased");
                    round.files_stay = true;
                }
            }
            round.backups = self.destroy_backups(now).await?;
        }
        self.note(&mut state, round, now).await
    }

    /// Erases dead codes, and bindings last used before `before`, some at a time. What was erased, even where that failed.
    async fn erase_unused(&self, now: Timestamp, before: Day) -> (Vec<BindingId>, Result<(), StoreError>) {
        let mut unused = Vec::new();
        loop {
            match self.parts.bindings.purge(now, before, AT_ONCE).await {
                Ok(some) if some.is_empty() => return (unused, Ok(())),
                Ok(some) => unused.extend(some),
                Err(error) => return (unused, Err(error)),
            }
        }
    }

    /// Destroys the keys of backups that are old enough.
    async fn destroy_backups(&self, now: Timestamp) -> Result<u64, StoreError> {
        let RetentionParts { backups, audit, clock, .. } = &self.parts;
        let mut destroyed = 0;
        for entry in self.old_backups(now).await? {
            let deed = Event::new(Action::BackupDestroy, Actor::Retention).object(&entry.id);
            let by = Actor::Retention.to_string();
            let work = async {
                let gone = backups.destroy(&entry.id, &by, now).await.map_err(unusable)?;
                Ok::<_, StoreError>((u64::from(gone.is_some()), Effect::none()))
            };
            destroyed += audit.act(deed, &**clock, work).await?;
        }
        Ok(destroyed)
    }

    /// Backups that open and are past their last day.
    async fn old_backups(&self, now: Timestamp) -> Result<Vec<Entry>, StoreError> {
        let Some(days) = self.parts.config.config().backup.retention_days else { return Ok(Vec::new()) };
        let past = |entry: &Entry| entry.opens() && entry.until(days).is_some_and(|last| now.day() > last);
        Ok(self.parts.backups.list().await.map_err(unusable)?.into_iter().filter(past).collect())
    }

    /// Once a day, and again at once while there is more.
    async fn erase_entries(&self, state: &mut State, now: Timestamp) -> Result<u64, StoreError> {
        let Some(before) = self.entries_until(now) else { return Ok(0) };
        if state.trail_erased_on == Some(now.day()) {
            return Ok(0);
        }
        match self.parts.audit.erase_older(before, now).await {
            Err(SealError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "no entry of the audit trail is erased any more");
                Ok(0)
            }
            Ok(Some(erased)) => {
                if erased < AuditTrail::MOST_ERASED.into() {
                    state.trail_erased_on = Some(now.day());
                }
                Ok(erased)
            }
            Ok(None) => Ok(0),
        }
    }

    /// Has `work` look after the days of the logs' files that are old enough: what it says of the access log, and of the
    /// security log.
    async fn log_files(
        &self,
        config: &Config,
        now: Timestamp,
        work: impl Fn(&Path, Day) -> io::Result<u64> + Send + 'static,
    ) -> Result<(u64, u64), StoreError> {
        let access = if let AccessLog::File(path) = &config.log.access { Some(path.clone()) } else { None };
        let security = if let SecurityLog::File(path) = &config.log.security { Some(path.clone()) } else { None };
        let before = (log_days_from(config, now), now.day().minus_days(config.privacy.security_log_days));
        let both = move || -> io::Result<(u64, u64)> {
            let access = access.map_or(Ok(0), |path| work(&path, before.0))?;
            Ok((access, security.map_or(Ok(0), |path| work(&path, before.1))?))
        };
        match spawn_blocking(both).await {
            Ok(Ok(counts)) => Ok(counts),
            Ok(Err(error)) => Err(StoreError::Unavailable(format!("the files of a log: {error}"))),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Entries from before that are old enough; `None` where they are kept for ever.
    fn entries_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.parts.config.config().privacy.audit_retention_days.map(|days| now.minus(DAY.saturating_mul(days)))
    }

    /// What a round would erase now, as far as age alone decides; nothing is erased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(&self) -> Result<Round, StoreError> {
        let RetentionParts { statistics, subjects, audit, clock, config, .. } = &self.parts;
        let config = config.config();
        let now = clock.now();
        let today = now.day();
        let due = subjects.store.due_bindings(today.minus_days(config.binding.retention_days)).await?;
        let count = |path: &Path, before| Ok(days_put_aside(path, before)?.len() as u64);
        let (log_files, security_log_files) = self.log_files(&config, now, count).await?;
        Ok(Round {
            bindings: due.free,
            held: due.held,
            statistics: statistics.due(today.minus_days(config.privacy.statistics_days)).await?,
            log_keys: self.log_keys_due(log_days_from(&config, now)).await?,
            log_files,
            security_log_files,
            audit: match self.entries_until(now) {
                Some(before) => audit.older(before).await?,
                None => 0,
            },
            files_stay: false,
            backups: self.old_backups(now).await?.len() as u64,
            clock_doubted: self.state.lock().await.doubted,
        })
    }

    async fn log_keys_due(&self, before: Day) -> Result<u64, StoreError> {
        let stored = self.parts.keys.keys().await?;
        Ok(stored.log_keys.iter().filter(|key| key.day < before).count() as u64)
    }

    /// When a round was last noted, and what it erased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last(&self) -> Result<Option<Proof>, StoreError> {
        Ok(self.proofs().await?.into_iter().find(|proof| proof.name == RETENTION_PROOF))
    }

    /// All that was noted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn proofs(&self) -> Result<Vec<Proof>, StoreError> {
        self.parts.proofs.proofs().await
    }

    async fn note(&self, state: &mut State, round: Round, now: Timestamp) -> Result<Round, StoreError> {
        let RetentionParts { subjects, proofs, .. } = &self.parts;
        let logs = round.log_files + round.security_log_files + round.log_keys;
        let erased = round.bindings + round.statistics + round.audit + logs + round.backups > 0;
        // What sessions and codes that ended have left goes once a day, with all else that comes of age then; at start it went.
        if erased || state.scrubbed_on.replace(now.day()).is_some_and(|day| day != now.day()) {
            subjects.note_erased();
        }
        let ok = !round.clock_doubted && !round.files_stay;
        let due = state.noted.is_none_or(|at| now.since(at) >= NOTED_EVERY || at > now) || ok != state.noted_ok;
        if erased || due {
            let Round { bindings, held, statistics, log_files, security_log_files, log_keys, files_stay, .. } = round;
            let Round { backups, audit, clock_doubted, .. } = round;
            let why = match (clock_doubted, files_stay) {
                (true, _) => "the clock is doubted; ",
                (false, true) => "log files could not be erased; ",
                (false, false) => "",
            };
            let detail = format!(
                "{why}erased: bindings {bindings}, statistics {statistics}, audit entries {audit}, log files {log_files}, \
                 security log files {security_log_files}, log keys {log_keys}, backups {backups}; held: {held}"
            );
            let proof = Proof { name: RETENTION_PROOF.to_owned(), at: now, ok, detail };
            proofs.note_proof(proof).await?;
            (state.noted, state.noted_ok) = (Some(now), ok);
        }
        Ok(round)
    }
}

/// To a round the ledger is a part of the store: the next one tries again.
fn unusable(error: BackupError) -> StoreError {
    if let BackupError::Store(error) = error { error } else { StoreError::Unavailable(error.to_string()) }
}
