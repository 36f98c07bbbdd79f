//! What a person may ask for, done: export and erasure. Holds, labels and the stop of an account are single calls of the
//! store, made by whoever offers them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::sync::Mutex;

use super::backoff::Backoff;
use super::export::{Facts, document};
use super::periods::Periods;
use super::tongue::Tongue;
use crate::assertion::AssertionCache;
use crate::audit::{Action, AuditTrail, Effect, Ends, Event, Outcome};
use crate::backup::{Backups, Entry};
use crate::binding::AccountId;
use crate::clock::{Clock, Timestamp};
use crate::config::InForce;
use crate::keys::KeySet;
use crate::receipt;
use crate::session::Sessions;
use crate::store::{
    ApprovalStore, ApprovedAction, EraseOutcome, ErasureRecord, SessionScope, Standing, StoreError, SubjectStore,
};
use crate::telemetry::Actor;

/// For how long an entry about an account that is gone may still come, from a request that was at work when it went.
const LATE_ENTRIES: Duration = Duration::from_mins(2);

/// What a certificate of erasure calls itself.
pub const CERTIFICATE: &str = "sekisho/erasure/v1";

/// What copies beside the store are, in a certificate.
const OLDER_STORE: &str = "the store as it was before an upgrade or a restore; remove it";
const PASSING_COPY: &str = "a copy that a drill works on; it goes when that is over";

/// Why a request was not carried out. Nothing was changed.
#[derive(Debug, Error)]
pub enum SubjectError {
    /// There is no such account; one that was erased leaves nothing that could tell.
    #[error("no account has that id; of one that was erased nothing is left that could tell")]
    NotThere,
    /// A hold stands, or was asked for.
    #[error("the account is under legal hold, or a hold was asked for and waits for people; it is released first")]
    Held,
    /// The store failed; what began is finished at the next try or start.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ends for SubjectError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NotThere | Self::Held => Outcome::Refused,
            Self::Store(_) => Outcome::Failed,
        }
    }
}

/// What was erased, and the sealed statement of that.
#[derive(Debug)]
pub struct Erased {
    /// Handsets.
    pub bindings: u64,
    /// Sessions that ended.
    pub sessions: u64,
    /// Enrolment codes.
    pub codes: u64,
    /// The certificate; `rotation verify`'s sibling `subject verify` judges it.
    pub certificate: Map<String, Value>,
}

/// Carries out what persons may ask for.
pub struct Subjects {
    /// Accounts as wholes.
    pub store: Arc<dyn SubjectStore>,
    approvals: Arc<dyn ApprovalStore>,
    sessions: Arc<Sessions<AssertionCache>>,
    audit: Arc<AuditTrail>,
    backups: Arc<Backups>,
    keys: Arc<KeySet>,
    clock: Arc<dyn Clock>,
    config: Arc<InForce>,
    /// Of erasures one is at work at a time.
    erasing: Mutex<()>,
    /// Whether something was erased that may still stand in a journal.
    unscrubbed: AtomicBool,
    /// When that is tried again which failed.
    scrub_again: std::sync::Mutex<Backoff>,
    /// When nothing was left that had been erased before.
    scrubbed_at: std::sync::Mutex<Option<Timestamp>>,
    /// Accounts that were erased within the last [`LATE_ENTRIES`], and when.
    lately: std::sync::Mutex<Vec<(AccountId, Timestamp)>>,
}

impl Subjects {
    /// On these ports and stages.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part of the gateway that an erasure reaches")]
    pub fn new(
        store: Arc<dyn SubjectStore>,
        approvals: Arc<dyn ApprovalStore>,
        sessions: Arc<Sessions<AssertionCache>>,
        audit: Arc<AuditTrail>,
        backups: Arc<Backups>,
        keys: Arc<KeySet>,
        clock: Arc<dyn Clock>,
        config: Arc<InForce>,
    ) -> Self {
        Self {
            store,
            approvals,
            sessions,
            audit,
            backups,
            keys,
            clock,
            config,
            erasing: Mutex::default(),
            // What a run before erased last may stand in the journal that it left.
            unscrubbed: AtomicBool::new(true),
            scrub_again: std::sync::Mutex::default(),
            scrubbed_at: std::sync::Mutex::default(),
            lately: std::sync::Mutex::default(),
        }
    }

    /// All that is kept of the account, with purpose and retention. That somebody asked stands in the audit trail.
    ///
    /// # Errors
    /// [`SubjectError::NotThere`], or the store's failure.
    pub async fn export(&self, account: &AccountId, tongue: Tongue, by: Actor) -> Result<Value, SubjectError> {
        let there = self.store.standing(account, self.clock.now()).await?;
        if there == Standing::NotThere {
            return Err(SubjectError::NotThere);
        }
        self.audit.note(Event::new(Action::SubjectExport, by).account(account), self.clock.now()).await?;
        let now = self.clock.now();
        let record = self.store.subject(account).await?.ok_or(SubjectError::NotThere)?;
        let about = |action| matches!(action, ApprovedAction::HoldSubject | ApprovedAction::ReleaseSubject);
        let mut approvals = self.approvals.approvals(now).await?;
        approvals.retain(|approval| about(approval.action) && approval.object == account.as_str());
        let config = self.config.config();
        let facts = Facts {
            record: &record,
            sessions: &self.sessions.list(Some(account), now),
            pseudonym: self.audit.pseudonym(account).await?.map(|pseudonym| pseudonym.to_string()),
            audit: &self.audit.about(account).await?,
            approvals: &approvals,
            periods: &Periods::of(&config),
            notice: &config.notice,
            now,
        };
        Ok(document(&facts, tongue))
    }

    /// Erases the account and all that is its own, at once. Done to its end, whatever becomes of whoever waits for it.
    ///
    /// Order: the account with its bindings, code and pairwise subjects in one step, so that no sign-in succeeds from there
    /// on; its sessions, and with them its open connections; the end in the audit trail; the key of its pseudonym; whose
    /// erasure it was; the ledger of backups; the journal. A crash in between is made good at the next start ([`Subjects::finish`]).
    ///
    /// # Errors
    /// [`SubjectError`].
    pub async fn erase(self: &Arc<Self>, account: &AccountId, by: Actor) -> Result<Erased, SubjectError> {
        let (this, account) = (Arc::clone(self), account.clone());
        let work = tokio::spawn(async move { this.erase_whole(account, by).await });
        work.await.unwrap_or(Err(SubjectError::Store(StoreError::Closed)))
    }

    async fn erase_whole(&self, account: AccountId, by: Actor) -> Result<Erased, SubjectError> {
        let _one_at_a_time = self.erasing.lock().await;
        // Before anything is written: what never was, or is erased already, must leave no pseudonym.
        if self.store.standing(&account, self.clock.now()).await? == Standing::NotThere {
            let unfinished = self.store.unfinished_erasures().await?;
            let begun = unfinished.into_iter().find(|erasure| erasure.account.as_ref() == Some(&account));
            let begun = begun.ok_or(SubjectError::NotThere)?;
            // An earlier call took the account and failed behind that.
            let sessions = self.sessions.end(SessionScope::Account(account.clone())).await? as u64;
            return self.finish_one(begun, account, sessions, None).await;
        }
        let there = self.store.subject(&account).await?;
        let created_at = there.map(|record| record.created_at);
        let deed = Event::new(Action::SubjectErase, by).account(&account);
        let work = async {
            let pseudonym = self.audit.pseudonym(&account).await?;
            let erasure = match self.store.erase(&account, pseudonym, self.clock.now()).await? {
                EraseOutcome::Erased(erasure) => erasure,
                EraseOutcome::Held => return Err(SubjectError::Held),
                EraseOutcome::NotThere => return Err(SubjectError::NotThere),
            };
            let sessions = self.sessions.end(SessionScope::Account(account.clone())).await? as u64;
            let effect = Effect::of(erasure.bindings);
            Ok(((erasure, sessions), effect))
        };
        let (erasure, sessions) = self.audit.act(deed, &*self.clock, work).await?;
        self.finish_one(erasure, account, sessions, created_at).await
    }

    async fn finish_one(
        &self,
        erasure: ErasureRecord,
        account: AccountId,
        sessions: u64,
        created_at: Option<Timestamp>,
    ) -> Result<Erased, SubjectError> {
        self.audit.forget(&account).await?;
        self.lately().push((account.clone(), self.clock.now()));
        self.store.finish_erasure(&erasure.id).await?;
        self.backups.bury_erased().await;
        let scrubbed = self.scrub().await;
        let backups = self.backups_with(created_at).await;
        let copies = self.store.copies().await?;
        let head = self.audit.head().await?.map(|tip| json!({ "seq": tip.seq, "hash": tip.hash.to_string() }));
        let certificate = json!({
            "format": CERTIFICATE,
            "id": erasure.id,
            "account": account.as_str(),
            "pseudonym": erasure.pseudonym,
            "erased_at": erasure.erased_at.rfc3339(),
            "controller": self.config.config().notice.controller,
            "erased": {
                "account": 1, "bindings": erasure.bindings, "sessions": sessions, "codes": erasure.codes,
                "subjects": erasure.subjects, "pseudonym_key": 1,
            },
            "scrubbed": scrubbed,
            "kept": [
                "audit entries, under a pseudonym that nobody can resolve any more",
                "that an account was erased, with day and counts, under that pseudonym",
                "lines of the security log, as long as whoever collects it keeps them",
            ],
            "copies": copies.iter().map(|(name, passing)| json!({
                "name": name, "until": null, "what": if *passing { PASSING_COPY } else { OLDER_STORE },
            })).collect::<Vec<_>>(),
            "backups": backups,
            "audit": head,
        });
        let members = certificate.as_object().cloned().unwrap_or_default();
        let certificate = receipt::sealed(members, &self.keys.audit()).map_err(|unsealed| {
            tracing::error!(%unsealed, "an account was erased, and no certificate of that was sealed");
            StoreError::Unavailable(unsealed.to_string())
        })?;
        Ok(Erased { bindings: erasure.bindings, sessions, codes: erasure.codes, certificate })
    }

    /// The backups that may hold what was erased of an account that came to exist at `created_at`: of all that still open,
    /// those that were not taken before it. Null where the ledger does not tell.
    async fn backups_with(&self, created_at: Option<Timestamp>) -> Value {
        let entries = match self.backups.list().await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "a certificate of erasure does not say which backups hold what was erased");
                return Value::Null;
            }
        };
        // A copy is made some time after its backup was asked for. Dates in RFC 3339 sort as texts.
        let first_day = created_at.map(|at| at.day().minus_days(1).to_string()).unwrap_or_default();
        let holds = |entry: &&Entry| entry.opens() && entry.taken_at >= first_day;
        let days = self.config.config().backup.retention_days;
        let shown = |entry: &Entry| {
            let until = days.and_then(|days| entry.until(days)).map(|day| day.to_string());
            json!({
                "id": entry.id, "taken_at": entry.taken_at, "until": until,
                "what": "an encrypted copy of the store; once it is destroyed nobody opens it, and a restore erases again first",
            })
        };
        entries.iter().filter(holds).map(shown).collect()
    }

    /// How many erasures were begun and are not finished.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unfinished(&self) -> Result<usize, StoreError> {
        Ok(self.store.unfinished_erasures().await?.len())
    }

    /// Finishes what a crash or a failing store left of erasures, empties journals that may still hold what was erased, and
    /// forgets pseudonyms of accounts that are not there. To be called at start, before anybody is served, and at upkeep.
    ///
    /// # Errors
    /// [`StoreError`]; to be called again.
    pub async fn finish(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.erasing.lock().await;
        for erasure in self.store.unfinished_erasures().await? {
            let Some(account) = &erasure.account else { continue };
            self.sessions.end(SessionScope::Account(account.clone())).await?;
            let event = Event::new(Action::SubjectErase, Actor::Gateway).object(&erasure.id);
            self.audit.note(event.effect(Effect::of(erasure.bindings)), self.clock.now()).await?;
            self.audit.forget(account).await?;
            self.store.finish_erasure(&erasure.id).await?;
            self.unscrubbed.store(true, Ordering::Release);
            tracing::warn!(erasure = erasure.id, "an erasure that was broken off is finished");
        }
        self.forget_late_entries().await?;
        // Each try copies the whole store while everybody who writes waits: where the disk is full, not every five seconds.
        if self.unscrubbed.load(Ordering::Acquire) && self.scrub_again().is_due(self.clock.monotonic()) {
            self.scrub().await;
        }
        Ok(())
    }

    /// A request that was at work while its account went may have left an entry, and with it a new pseudonym.
    async fn forget_late_entries(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let lately = self.lately().clone();
        for (account, _) in &lately {
            if self.store.standing(account, now).await? == Standing::NotThere && self.audit.forget(account).await? {
                self.note_erased();
            }
        }
        self.lately().retain(|(_, at)| now.since(*at) < LATE_ENTRIES && *at <= now);
        Ok(())
    }

    /// Nor while it holds this one.
    fn scrub_again(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.scrub_again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing panics while it holds the lock.
    fn lately(&self) -> std::sync::MutexGuard<'_, Vec<(AccountId, Timestamp)>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something was erased, so that the next [`Subjects::finish`] empties the journal.
    pub fn note_erased(&self) {
        self.unscrubbed.store(true, Ordering::Release);
    }

    /// Since when nothing is left in the store's files that had been erased before; `None` where that did not come to pass
    /// since the start.
    #[must_use]
    pub fn scrubbed_at(&self) -> Option<Timestamp> {
        *self.scrubbed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing of what was erased is left now. Where a long read or a full disk keeps it from that, upkeep tries again,
    /// ever later; that it failed is said once, and that it worked again.
    async fn scrub(&self) -> bool {
        // First the flag: what is erased meanwhile sets it again.
        self.unscrubbed.store(false, Ordering::Release);
        let now = self.clock.now();
        match self.store.scrub().await {
            Ok(()) => {
                *self.scrubbed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                if self.scrub_again().worked() {
                    tracing::info!("the store was written anew; nothing of what was erased is left in its files");
                }
                true
            }
            Err(error) => {
                self.unscrubbed.store(true, Ordering::Release);
                if self.scrub_again().failed(self.clock.monotonic()) {
                    tracing::warn!(
                        %error,
                        "the store was not written anew: what was erased may stand in its files until that works; it is tried again, \
                         within ten minutes each time"
                    );
                } else {
                    tracing::debug!(%error, "the store was not written anew");
                }
                false
            }
        }
    }
}
