//! The trail of a running gateway: what is written into it, and when it is sealed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;

use super::entry::{Checkpoint, Entry, EntryHash, Pseudonym, Tip, store_name};
use super::event::{Action, Effect, Event, Outcome};
use super::export::Export;
use super::verify::{Bad, Expected, Verdict, Verifier};
use crate::binding::AccountId;
use crate::clock::{Clock, Timestamp};
use crate::entropy::{Entropy, random};
use crate::keys::AuditKey;
use crate::secret::SecretBytes;
use crate::store::{AuditStore, NewAuditEntry, SealingKey, StoreError, StoredAuditEntry, StoredCheckpoint};

/// Who acts when nobody does, and who erases what is old enough.
const GATEWAY: &str = "gateway";
const RETENTION: &str = "retention";
/// By how much a clock may be behind the last entry before that is told: what NTP corrects is less.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// Why the end of the trail was not sealed. What is in it stays as it is, and unverifiable.
#[derive(Debug, Error)]
pub enum SealError {
    /// What was written is not what the store holds.
    #[error("the audit trail was changed at entry {}: {}; `sekisho audit verify` judges all of it", .0.seq, .0.problem)]
    Changed(Bad),
    /// The operating system gives no randomness, without which there is no signature.
    #[error("the audit key could not sign")]
    NoSignature,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How an action that gave an error ended.
pub trait Ends {
    /// [`Outcome::Refused`] if nothing was changed for a good reason, [`Outcome::Failed`] otherwise.
    fn outcome(&self) -> Outcome;
}

impl Ends for StoreError {
    fn outcome(&self) -> Outcome {
        Outcome::Failed
    }
}

/// An action that stands in the trail as begun.
#[must_use = "its end belongs into the trail too"]
pub struct Begun {
    seq: u64,
    event: Event,
}

/// The audit trail of one store.
pub struct AuditTrail {
    store: Arc<dyn AuditStore>,
    store_id: [u8; 16],
    key: ArcSwap<AuditKey>,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
    /// Held while all of it is judged: nothing is erased meanwhile.
    whole: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy)]
struct State {
    /// The last entry that this process wrote, or found sound: it must still be there.
    known: Tip,
    /// What is behind it was not sealed.
    sealed: Tip,
}

impl AuditTrail {
    /// Entries that [`AuditTrail::erase_older`] erases at a time: a step that others wait for.
    pub const MOST_ERASED: u32 = 1000;

    /// The trail in `store`, sealed by `key` from now on. Judges what is behind the last checkpoint; a trail that was
    /// changed there is told in the log and in the trail, and goes on.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written: nothing must happen that would not stand in it.
    pub async fn open(
        store: Arc<dyn AuditStore>,
        store_id: [u8; 16],
        key: Arc<AuditKey>,
        entropy: Arc<dyn Entropy>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let nothing = Tip { seq: 0, hash: EntryHash::before_all(&store_id) };
        let head = store.audit_head().await?.unwrap_or(nothing);
        let state = Mutex::new(State { known: head, sealed: head });
        let (key, whole) = (ArcSwap::new(key), tokio::sync::Mutex::default());
        let trail = Self { store, store_id, key, entropy, state, whole };
        match trail.judge_end(nothing).await {
            Ok(sealed) => trail.lock().sealed = sealed,
            Err(SealError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the audit trail was changed while no gateway ran");
                let event = Event::new(Action::AuditMismatch, GATEWAY).outcome(Outcome::Failed);
                let at = if let SealError::Changed(bad) = error { bad.seq } else { 0 };
                let event = event.object(format_args!("entry {at}"));
                trail.note(event, now).await?;
            }
        }
        if let Some(behind) = trail.behind_last_entry(head, now).await? {
            let event = Event::new(Action::ClockSetBack, GATEWAY).effect(Effect::of(behind.as_secs()));
            trail.note(event, now).await?;
        }
        let key = trail.key.load_full();
        if trail.store.sealing_key(key.id()).await?.is_none() {
            trail.introduce(&key, now).await?;
        }
        Ok(trail)
    }

    /// Writes what happened. Returns the number of its entry once that is durable.
    ///
    /// # Errors
    /// [`StoreError`]; then it does not stand in the trail.
    pub async fn note(&self, event: Event, now: Timestamp) -> Result<u64, StoreError> {
        let key = self.key.load().id().to_owned();
        let fresh = SecretBytes::new(random::<32>(&*self.entropy).to_vec());
        let known = Some(self.lock().known);
        let entry = self.store.append(NewAuditEntry { event, at: now, key, known, fresh }).await?;
        let mut state = self.lock();
        // Entries that are written at once may be answered in any order.
        if state.known.seq < entry.seq {
            state.known = Tip { seq: entry.seq, hash: entry.hash() };
        }
        Ok(entry.seq)
    }

    /// Writes that something is about to be done. Do it only then.
    ///
    /// # Errors
    /// [`StoreError`]; then it must not be done.
    pub async fn begin(&self, event: Event, now: Timestamp) -> Result<Begun, StoreError> {
        let seq = self.note(event.clone().outcome(Outcome::Begun), now).await?;
        Ok(Begun { seq, event })
    }

    /// Writes how it ended.
    ///
    /// # Errors
    /// [`StoreError`]; then the trail says that it began, and no more.
    pub async fn end(
        &self,
        Begun { seq, event }: Begun,
        outcome: Outcome,
        effect: Effect,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.note(event.end_of(seq).outcome(outcome).effect(effect), now).await.map(drop)
    }

    /// Does `work` between its beginning and its end in the trail. Nothing is acknowledged whose end could not be
    /// written.
    ///
    /// # Errors
    /// Those of `work`, and [`StoreError`] where the trail could not be written.
    pub async fn act<T, E: Ends + From<StoreError>>(
        &self,
        event: Event,
        clock: &dyn Clock,
        work: impl Future<Output = Result<(T, Effect), E>> + Send,
    ) -> Result<T, E> {
        // In a place of its own: work is large, and would be held twice.
        match Box::pin(self.act_for_good(event, clock, work)).await? {
            (value, None) => Ok(value),
            (_, Some(error)) => Err(error.into()),
        }
    }

    /// The same for `work` that nobody can do again or take back, so that who asked must hear that it is done. With it: why
    /// its end could not be written, where it could not; the trail says then that it began, and no more.
    ///
    /// # Errors
    /// Those of `work`, and [`StoreError`] where the trail could not be written before.
    pub async fn act_for_good<T, E: Ends + From<StoreError>>(
        &self,
        event: Event,
        clock: &dyn Clock,
        work: impl Future<Output = Result<(T, Effect), E>> + Send,
    ) -> Result<(T, Option<StoreError>), E> {
        let begun = self.begin(event, clock.now()).await?;
        match work.await {
            Ok((value, effect)) => Ok((value, self.end(begun, Outcome::Done, effect, clock.now()).await.err())),
            Err(error) => {
                if let Err(error) = self.end(begun, error.outcome(), Effect::none(), clock.now()).await {
                    tracing::error!(%error, "how an action failed could not be written into the audit trail");
                }
                Err(error)
            }
        }
    }

    /// Seals what is behind the last checkpoint, if it is what was written. Does nothing where there is nothing new.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn seal(&self, now: Timestamp) -> Result<(), SealError> {
        let State { known, sealed } = *self.lock();
        if known.seq <= sealed.seq {
            return Ok(());
        }
        let judged = self.judge_behind(sealed).await?;
        let tip = judged.tip().unwrap_or(sealed);
        if tip.seq < known.seq || (tip.seq == known.seq && tip.hash != known.hash) {
            let problem = "the end is not the one that was written";
            return Err(SealError::Changed(Bad { seq: tip.seq.min(known.seq), line: 0, problem }));
        }
        let key = self.key.load_full();
        if judged.last_key() != key.id() {
            // The key has just been replaced; its first entry is on its way.
            return Ok(());
        }
        let checkpoint = Checkpoint {
            hash: tip.hash,
            key: key.id().to_owned(),
            seq: tip.seq,
            store: store_name(&self.store_id),
            time: now.rfc3339(),
        };
        let seal = key.seal(&checkpoint.sealed_bytes()).ok_or(SealError::NoSignature)?.to_vec();
        let (text, key) = (checkpoint.text(), checkpoint.key);
        if !self.store.keep_checkpoint(StoredCheckpoint { seq: tip.seq, key, text, seal }, tip.hash).await? {
            let problem = "the entry changed while it was sealed";
            return Err(SealError::Changed(Bad { seq: tip.seq, line: 0, problem }));
        }
        let mut state = self.lock();
        if state.sealed.seq < tip.seq {
            state.sealed = tip;
        }
        Ok(())
    }

    /// Seals with another key from now on; does nothing where it is the one in use. Returns whether it is another. What was written before is sealed by the old one, which so vouches for the
    /// new one.
    ///
    /// # Errors
    /// [`SealError`]; then the old key stays.
    pub async fn replace_key(&self, key: Arc<AuditKey>, now: Timestamp) -> Result<bool, SealError> {
        if self.key.load().id() == key.id() {
            return Ok(false);
        }
        self.introduce(&key, now).await?;
        self.seal(now).await?;
        self.key.store(key);
        Ok(true)
    }

    /// Erases entries from before `before`, from the beginning of the trail on, some at a time. Returns how many that were;
    /// more may be left where they were [`AuditTrail::MOST_ERASED`]. `None` where it has to be asked again.
    ///
    /// An entry that says which, with the hash of the last one, is written and sealed before: what is left verifies as the
    /// rest of a whole trail. An entry with a later time keeps all that is behind it. Does nothing while the trail is
    /// judged, or its end is not sealed.
    ///
    /// # Errors
    /// [`SealError`]; then nothing was erased, or all of that entry.
    pub async fn erase_older(&self, before: Timestamp, now: Timestamp) -> Result<Option<u64>, SealError> {
        let Ok(_whole) = self.whole.try_lock() else { return Ok(None) };
        // Who writes at this moment looks for that one.
        let known = self.lock().known;
        let oldest = self.store.audit_entries(0, Self::MOST_ERASED).await?;
        let old = |stored: &&StoredAuditEntry| stored.seq < known.seq && written_before(stored, before);
        let (Some(first), Some(last)) = (oldest.first(), oldest.iter().take_while(old).last()) else {
            return Ok(Some(0));
        };
        let event = Event::new(Action::AuditErase, RETENTION)
            .object(format_args!("{}-{} {}", first.seq, last.seq, last.hash))
            .reason(&format!("older than {}", before.rfc3339()));
        let begun = self.begin(event, now).await?;
        let sealed = self.seal(now).await.map(|()| self.lock().sealed.seq >= begun.seq);
        if !matches!(sealed, Ok(true)) {
            self.end(begun, Outcome::Refused, Effect::none(), now).await?;
            return sealed.map(|_| None);
        }
        let erased = self.store.erase_before(last.seq + 1).await?;
        self.end(begun, Outcome::Done, Effect::of(erased), now).await?;
        self.seal(now).await?;
        Ok(Some(erased))
    }

    /// How many entries [`AuditTrail::erase_older`] would erase next.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn older(&self, before: Timestamp) -> Result<u64, StoreError> {
        let known = self.lock().known;
        let oldest = self.store.audit_entries(0, Self::MOST_ERASED).await?;
        let old = |stored: &&StoredAuditEntry| stored.seq < known.seq && written_before(stored, before);
        Ok(oldest.iter().take_while(old).count() as u64)
    }

    /// Up to `limit` entries behind number `after`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one of them can no longer be read.
    pub async fn entries(&self, after: u64, limit: u32) -> Result<Vec<(Entry, EntryHash)>, StoreError> {
        let stored = self.store.audit_entries(after, limit).await?;
        stored.into_iter().map(|entry| Ok((read(&entry)?, entry.hash))).collect()
    }

    /// The end of the chain; `None` before the first entry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn head(&self) -> Result<Option<Tip>, StoreError> {
        self.store.audit_head().await
    }

    /// The entries behind number `after` with all that verification needs; `None` if there is no such entry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn export(&self, after: u64) -> Result<Option<Export>, StoreError> {
        Export::behind(Arc::clone(&self.store), self.store_id, after).await
    }

    /// Judges the whole trail: by the key in use, and by what this process remembers of its end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn verify(&self) -> Result<Verdict, StoreError> {
        let _whole = self.whole.lock().await;
        let known = self.lock().known;
        let keys = vec![self.key.load().public().fingerprint()];
        let head = (known.seq > 0).then_some(known.hash);
        let mut verifier = Verifier::new(Expected { keys, head, entries: None, whole: true });
        if let Some(export) = self.export(0).await? {
            judge(&mut verifier, export).await?;
        }
        Ok(verifier.finish())
    }

    /// Who the account is in the trail; `None` if no entry was ever about it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pseudonym(&self, account: &AccountId) -> Result<Option<Pseudonym>, StoreError> {
        self.store.pseudonym(account).await
    }

    /// The entries about the account, oldest first. Reads the whole trail.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one of them can no longer be read.
    pub async fn about(&self, account: &AccountId) -> Result<Vec<Entry>, StoreError> {
        let Some(pseudonym) = self.store.pseudonym(account).await? else { return Ok(Vec::new()) };
        let stored = self.store.audit_entries_about(&pseudonym).await?;
        let entries: Vec<Entry> = stored.iter().map(read).collect::<Result<_, _>>()?;
        let known_as = Some(pseudonym.to_string());
        Ok(entries.into_iter().filter(|entry| entry.account == known_as).collect())
    }

    /// Erases what ties the account to its entries, which stay. For the erasure of the account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget(&self, account: &AccountId) -> Result<bool, StoreError> {
        self.store.forget_pseudonym(account).await
    }

    async fn introduce(&self, key: &AuditKey, now: Timestamp) -> Result<(), StoreError> {
        let (id, public) = (key.id().to_owned(), key.public());
        let object = format!("{id} {}", public.fingerprint());
        self.note(Event::new(Action::AuditKeyIntroduce, GATEWAY).object(object), now).await?;
        self.store.keep_sealing_key(SealingKey { id, public }).await
    }

    /// Where the last checkpoint is, if it is sound and so is what is behind it.
    async fn judge_end(&self, nothing: Tip) -> Result<Tip, SealError> {
        let Some(last) = self.store.last_checkpoint().await? else {
            return self.judge_behind(nothing).await.map(|_| nothing);
        };
        let changed = |problem| SealError::Changed(Bad { seq: last.seq, line: 0, problem });
        let checkpoint: Option<Checkpoint> = serde_json::from_str(&last.text).ok();
        let checkpoint = checkpoint.filter(|c| c.seq == last.seq && c.key == last.key && c.text() == last.text);
        let checkpoint = checkpoint.ok_or_else(|| changed("the checkpoint cannot be read"))?;
        let own = self.key.load_full();
        let public = if own.id() == last.key {
            Some(own.public())
        } else {
            self.store.sealing_key(&last.key).await?.map(|key| key.public)
        };
        if public.is_some_and(|public| !public.verifies(&checkpoint.sealed_bytes(), &last.seal)) {
            return Err(changed("the seal of the last checkpoint does not fit"));
        }
        self.judge_behind(checkpoint.tip()).await.map(|_| checkpoint.tip())
    }

    /// Judges the entries behind `first`, and that it is there.
    async fn judge_behind(&self, first: Tip) -> Result<Verifier, SealError> {
        let head = self.store.audit_head().await?;
        let there = head.map_or(first.seq == 0, |head| head.seq > first.seq || head == first);
        if !there {
            let problem = "entries that were sealed are not there";
            let seq = head.map_or(0, |head| head.seq.min(first.seq));
            return Err(SealError::Changed(Bad { seq, line: 0, problem }));
        }
        let mut verifier = Verifier::new(Expected::default());
        judge(&mut verifier, Export::behind_tip(Arc::clone(&self.store), self.store_id, first).await?).await?;
        match verifier.bad() {
            Some(bad) => Err(SealError::Changed(bad.clone())),
            None => Ok(verifier),
        }
    }

    /// By how much the clock is behind the last entry.
    async fn behind_last_entry(&self, head: Tip, now: Timestamp) -> Result<Option<Duration>, StoreError> {
        let last = self.store.audit_entries(head.seq.saturating_sub(1), 1).await?;
        let time = last.first().and_then(|entry| read(entry).ok()).and_then(|entry| Timestamp::parse(&entry.time));
        Ok(time.map(|time| time.since(now)).filter(|behind| *behind > CLOCK_TOLERANCE))
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(stored: &StoredAuditEntry) -> Result<Entry, StoreError> {
    let entry: Option<Entry> = serde_json::from_str(&stored.text).ok();
    entry.ok_or_else(|| StoreError::Corrupt(format!("audit entry {}; `sekisho audit verify` tells more", stored.seq)))
}

/// An entry whose time cannot be read is of no age.
fn written_before(stored: &StoredAuditEntry, before: Timestamp) -> bool {
    read(stored).ok().and_then(|entry| Timestamp::parse(&entry.time)).is_some_and(|time| time < before)
}

async fn judge(verifier: &mut Verifier, mut export: Export) -> Result<(), StoreError> {
    while let Some(lines) = export.page().await? {
        // The text of an entry that was changed may have line feeds in it: each piece is a line that does not fit.
        for line in lines.lines() {
            verifier.line(line.as_bytes());
        }
        // A long trail must not keep other calls of this thread waiting.
        tokio::task::yield_now().await;
    }
    Ok(())
}
