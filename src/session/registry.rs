//! The live sessions: read from memory by every request, changed only together with the store.

use std::mem;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::yield_now;

use super::lifecycle::PolicyInForce;
use super::live::continuity_tag;
use super::table::{SHARDS, Table};
use super::{LiveSession, SessionId, SessionPolicy, SessionSecret, SessionToken, TokenHash};
use crate::binding::{AccountId, BindingId};
use crate::carrier::{CarrierName, RawIdentifier};
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::store::{BindingStore, Renewal, SessionRecord, SessionScope, SessionStore, StoreError, TokenTransport};

/// What a session is opened from.
pub struct Opening {
    /// Who signs in.
    pub account: AccountId,
    /// By which binding.
    pub binding: BindingId,
    /// From which carrier.
    pub carrier: CarrierName,
    /// Made before the identifier was given up, so that the tag could be made.
    pub secret: SessionSecret,
    /// HMAC of the identifier under the token's continuity key.
    pub continuity: [u8; 32],
    /// Whether an enrolment code was typed for it.
    pub by_code: bool,
    /// When the right PIN was typed for it, if it was.
    pub pin_at: Option<Timestamp>,
}

impl Opening {
    /// The tag that ties a session to the handset that opened it.
    #[must_use]
    pub fn continuity_of(secret: &SessionSecret, identifier: &RawIdentifier) -> [u8; 32] {
        continuity_tag(&secret.token().continuity_key(), identifier)
    }
}

/// What a token stands for.
pub enum Check<S> {
    /// A live session.
    Live(Arc<LiveSession<S>>),
    /// None: never was, expired, or revoked. The answer does not tell which.
    Gone,
}

/// Sessions of which the store is told in one call, beside which sign-ins wait.
const AT_ONCE: usize = 1000;
/// Bindings that the store is asked about in one call.
const LOOKED_AT_ONCE: usize = 50_000;

/// Times [`AT_ONCE`] that are read ahead of those that are taken in.
const AHEAD: usize = 4;

/// Sessions on their way from the store into memory. What is left goes when it is dropped.
struct Read {
    records: Vec<SessionRecord>,
    taken: SyncSender<Vec<SessionRecord>>,
}

impl Read {
    fn push(&mut self, record: SessionRecord) {
        self.records.push(record);
        if self.records.len() == AT_ONCE {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        // Nobody takes them where the runtime ends.
        let _ = self.taken.send(mem::replace(&mut self.records, Vec::with_capacity(AT_ONCE)));
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// All live sessions of this gateway.
pub struct Sessions<S> {
    live: Arc<Table<S>>,
    /// Those that are over by themselves, and whose rows have still to go.
    over: Arc<Mutex<Vec<TokenHash>>>,
    store: Arc<dyn SessionStore>,
    policy: PolicyInForce,
}

impl<S: Default + Send + Sync + 'static> Sessions<S> {
    /// Reads the sessions that outlived the last run.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn load(store: Arc<dyn SessionStore>, policy: SessionPolicy, now: Timestamp) -> Result<Self, StoreError> {
        let (live, over) = (Arc::new(Table::new()), Arc::default());
        let sessions =
            Self { live: Arc::clone(&live), over: Arc::clone(&over), store, policy: PolicyInForce::new(policy) };
        // The store reads on while those that it read are taken in.
        let (taken, arriving) = sync_channel::<Vec<SessionRecord>>(AHEAD);
        let take_in = move || {
            for record in arriving.into_iter().flatten() {
                let session = LiveSession::of(record);
                if session.expired(policy.idle, now).is_none() {
                    session.note_durable();
                    live.insert(Arc::new(session));
                } else {
                    lock(&over).push(session.facts().token_hash);
                }
            }
        };
        let taking_in = tokio::task::spawn_blocking(take_in);
        let mut read = Read { records: Vec::with_capacity(AT_ONCE), taken };
        let visit = move |mut record: SessionRecord| {
            // Seen in the future: the clock was set back, and would not let it idle out until it is there again.
            record.last_seen_at = record.last_seen_at.min(now);
            read.push(record);
        };
        let loaded = sessions.store.load(Box::new(visit)).await;
        let taken = taking_in.await;
        // Why the store could not be read says more than that nobody took what it read.
        loaded?;
        taken.map_err(|error| StoreError::Unavailable(format!("sessions were read and not taken in: {error}")))?;
        Ok(sessions)
    }

    /// Holds sessions to `policy` from now on. An open one keeps the absolute end that it was opened with.
    pub fn set_policy(&self, policy: SessionPolicy) {
        self.policy.replace(policy);
    }

    /// Opens a session whose token travels by `transport`; durable when this returns. `replaces`, and the oldest beyond
    /// the limit, end with it.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be made durable; then no session was opened.
    pub async fn open(
        &self,
        opening: Opening,
        transport: TokenTransport,
        replaces: Option<TokenHash>,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<(SessionSecret, Arc<LiveSession<S>>), StoreError> {
        let Opening { account, binding, carrier, secret, continuity, by_code, pin_at } = opening;
        let policy = self.policy.get();
        let record = SessionRecord {
            token_hash: secret.token().hash(),
            id: SessionId::from_random(random(entropy)),
            account,
            binding,
            carrier,
            continuity,
            link: None,
            sid_seed: random(entropy),
            transport,
            by_code,
            pin_at,
            created_at: now,
            last_seen_at: now,
            expires_at: policy.end_of(now),
        };
        let hash = record.token_hash;
        let session = Arc::new(LiveSession::of(record.clone()));
        // In memory first: a revocation that runs between the two steps must find it. Nobody holds the token yet.
        self.live.insert(Arc::clone(&session));
        match self.store.open(record, policy.per_account, replaces).await {
            Ok(ended) => {
                session.note_durable();
                self.forget(&ended);
                Ok((secret, session))
            }
            Err(error) => {
                self.live.remove(&hash);
                Err(error)
            }
        }
    }

    /// Lets a session go on under a fresh token, because its person has just typed the right PIN; durable when this
    /// returns. `token` is its own, which is dead then, and so are connections that were opened with it. Its id, its end
    /// and what upstreams know it by stay. `None` if it ended meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be made durable; then it is as it was.
    pub async fn step_up(
        &self,
        session: &LiveSession<S>,
        token: &SessionToken,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<Option<SessionSecret>, StoreError> {
        let secret = SessionSecret::generate(entropy);
        let fresh = secret.token();
        let renewal = Renewal {
            token_hash: fresh.hash(),
            link: fresh.link_to(&session.continuity_key(token)),
            transport: session.transport(),
            at: now,
        };
        let (old, new) = (session.facts().token_hash, renewal.token_hash);
        let renewed = Arc::new(session.renewed(&renewal));
        // In memory first, as when one is opened.
        self.live.insert(Arc::clone(&renewed));
        let outcome = self.store.renew(old, renewal).await;
        if outcome == Ok(true) {
            renewed.note_durable();
            self.forget(&[old]);
            return Ok(Some(secret));
        }
        self.forget(&[new]);
        outcome.map(|_| None)
    }

    /// Looks up a token that came by `transport`. In a URL it stands for no session that is kept in its cookie.
    #[must_use]
    pub fn check(&self, hash: TokenHash, transport: TokenTransport, now: Timestamp) -> Check<S> {
        let Some(session) = self.live.get(&hash) else { return Check::Gone };
        if session.expired(self.policy.idle(), now).is_some() {
            // Its row goes with the next sweep; it is gone for everybody now.
            if self.forget(&[hash]) > 0 {
                lock(&self.over).push(hash);
            }
            return Check::Gone;
        }
        if transport == TokenTransport::Url && session.transport() == TokenTransport::Cookie {
            return Check::Gone;
        }
        Check::Live(session)
    }

    /// Keeps a session whose cookie came back in that cookie for good: durably, then everywhere at once.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be made durable; then its URLs still hold.
    pub async fn keep_in_cookie(&self, session: &LiveSession<S>) -> Result<(), StoreError> {
        self.store.keep_in_cookie(session.facts().token_hash).await?;
        session.note_in_cookie();
        Ok(())
    }

    /// Ends sessions, durably, then everywhere at once. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be made durable; then none ended, but of [`SessionScope::AnyOf`] many bindings some
    /// may have.
    pub async fn end(&self, mut scope: SessionScope) -> Result<usize, StoreError> {
        let mut ended = Vec::new();
        if let SessionScope::AnyOf(bindings) = &mut scope {
            bindings.sort_unstable();
            for some in bindings.chunks(AT_ONCE) {
                let more = self.store.end(SessionScope::AnyOf(some.to_vec())).await?;
                self.forget(&more);
                ended.extend(more);
            }
        } else {
            ended = self.store.end(scope.clone()).await?;
            self.forget(&ended);
        }
        // What the store no longer has is over, even if the call that ended it there died before it said so here.
        let lost = |session: &LiveSession<S>| session.durable() && session.is_in(&scope);
        let mut left = Vec::new();
        match &scope {
            // There was one of that id.
            SessionScope::Id(..) if !ended.is_empty() => {}
            SessionScope::Account(account) | SessionScope::Id(account, _) => {
                let of_account = self.live.of(account);
                left.extend(
                    of_account.iter().filter(|session| lost(session)).map(|session| session.facts().token_hash),
                );
            }
            SessionScope::Binding(_) | SessionScope::AnyOf(_) => {
                self.look_through(|session| left.extend(lost(session).then_some(session.facts().token_hash))).await;
            }
        }
        Ok(ended.len() + self.forget(&left))
    }

    /// Ends the sessions of bindings that do not stand any more, as `bindings` knows them. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`] of either; what was not ended is by the next call.
    pub async fn end_fallen(&self, bindings: &dyn BindingStore) -> Result<usize, StoreError> {
        let mut fallen = Vec::new();
        for some in self.bindings().chunks(LOOKED_AT_ONCE) {
            fallen.extend(bindings.fallen(some.to_vec()).await?);
        }
        if fallen.is_empty() { Ok(0) } else { self.end(SessionScope::AnyOf(fallen)).await }
    }

    /// Ends one session by its token's hash: for this process even where the store fails.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be made durable; a restart may bring the session back.
    pub async fn end_one(&self, hash: TokenHash) -> Result<bool, StoreError> {
        self.forget(&[hash]);
        self.store.end_one(hash).await
    }

    /// The live sessions of one account, or all, oldest first.
    #[must_use]
    pub fn list(&self, account: Option<&AccountId>, now: Timestamp) -> Vec<Arc<LiveSession<S>>> {
        let idle = self.policy.idle();
        let mut found = account.map_or_else(|| self.live.all(), |account| self.live.of(account));
        found.retain(|session| session.expired(idle, now).is_none());
        found.sort_by_key(|session| (session.facts().created_at, session.facts().id));
        found
    }

    /// Any live session of which `is_it` holds. Looks at all of them, unlike [`Sessions::list`] of an account.
    pub fn find(&self, now: Timestamp, is_it: impl Fn(&LiveSession<S>) -> bool) -> Option<Arc<LiveSession<S>>> {
        let idle = self.policy.idle();
        self.live.find(|session| is_it(session) && session.expired(idle, now).is_none())
    }

    /// The bindings that opened the sessions that are held, each once.
    fn bindings(&self) -> Vec<BindingId> {
        let mut bindings = Vec::with_capacity(self.live.len());
        self.live.each(|session| bindings.push(session.facts().binding));
        bindings.sort_unstable();
        bindings.dedup();
        bindings
    }

    /// How many sessions are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes uses that the store has not heard of for a while, drops what expired, and erases it from the store.
    ///
    /// # Errors
    /// [`StoreError`] if the store refused; what was not written is tried again next time.
    pub async fn sweep(&self, now: Timestamp, all: bool) -> Result<(), StoreError> {
        let policy = self.policy.get();
        let interval = if all { std::time::Duration::ZERO } else { policy.touch_interval() };
        let (mut over, mut used) = (Vec::new(), Vec::new());
        self.look_through(|session| {
            let (seen, stored) = (session.last_seen_at(), session.stored_seen_at());
            if session.expired(policy.idle, now).is_some() {
                over.push(session.facts().token_hash);
            } else if seen > stored && seen.since(stored) >= interval {
                used.push((session.facts().token_hash, seen));
            }
        })
        .await;
        self.forget(&over);
        lock(&self.over).append(&mut over);
        for some in used.chunks(AT_ONCE) {
            self.store.touch(some.to_vec()).await?;
            for (hash, seen) in some {
                if let Some(session) = self.live.get(hash) {
                    session.note_stored(*seen);
                }
            }
        }
        self.erase_over().await
    }

    /// Erases the rows of those that are over.
    async fn erase_over(&self) -> Result<(), StoreError> {
        loop {
            let some: Vec<TokenHash> = {
                let mut over = lock(&self.over);
                let from = over.len().saturating_sub(AT_ONCE);
                over.split_off(from)
            };
            if some.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.store.erase(some.clone()).await {
                lock(&self.over).extend(some);
                return Err(error);
            }
        }
    }

    /// Looks at every session, and lets others run now and then.
    async fn look_through(&self, mut look: impl FnMut(&LiveSession<S>)) {
        for number in 0..SHARDS {
            self.live.each_in(number, |session| look(session));
            yield_now().await;
        }
    }

    /// Ends them for this process. Returns how many there were.
    fn forget(&self, hashes: &[TokenHash]) -> usize {
        let there = hashes.iter().filter_map(|hash| self.live.remove(hash));
        there.map(|session| session.end().come()).count()
    }
}

fn lock(over: &Mutex<Vec<TokenHash>>) -> std::sync::MutexGuard<'_, Vec<TokenHash>> {
    over.lock().unwrap_or_else(PoisonError::into_inner)
}
