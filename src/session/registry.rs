//! The live sessions: read from memory by every request, changed only together with the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use ring::hmac;
use tokio_util::sync::CancellationToken;

use super::token::ContinuityKey;
use super::{Expiry, SessionId, SessionPolicy, SessionSecret, SessionToken, TokenHash};
use crate::binding::{AccountId, BindingId};
use crate::carrier::{CarrierName, RawIdentifier};
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::store::{SessionRecord, SessionScope, SessionStore, StoreError, TokenTransport};

/// A session that was neither expired nor revoked when it was checked.
///
/// `state` is what a later stage keeps with the session so that it is made once a session, not once a request.
pub struct LiveSession<S> {
    record: SessionRecord,
    last_seen: AtomicI64,
    stored_seen: AtomicI64,
    /// Whether its cookie has come back, so that no URL may hold it any more.
    in_cookie: AtomicBool,
    /// Whether the store has it: until then nobody holds its token, and nobody may end it.
    durable: AtomicBool,
    ended: Arc<CancellationToken>,
    state: S,
}

impl<S> LiveSession<S> {
    /// What is stored of it; `last_seen_at` and `transport` as of its opening or loading.
    #[must_use]
    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// When it was last used.
    #[must_use]
    pub fn last_seen_at(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.last_seen.load(Ordering::Relaxed))
    }

    /// Notes that its own device used it.
    pub fn note_use(&self, now: Timestamp) {
        self.last_seen.fetch_max(now.unix_millis(), Ordering::Relaxed);
    }

    /// How its token travels, as of now.
    #[must_use]
    pub fn transport(&self) -> TokenTransport {
        if self.in_cookie.load(Ordering::Acquire) { TokenTransport::Cookie } else { TokenTransport::Url }
    }

    /// Fires when the session ends, for connections that outlive their request.
    #[must_use]
    pub const fn ended(&self) -> &Arc<CancellationToken> {
        &self.ended
    }

    /// What a later stage keeps with it.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Whether `identifier` is the one that signed in, in constant time. `token` is this session's own.
    #[must_use]
    pub fn same_device(&self, token: &SessionToken, identifier: &RawIdentifier) -> bool {
        let key = self.continuity_key(token).hmac();
        identifier.carrier() == &self.record.carrier
            && hmac::verify(&key, identifier.expose(), &self.record.continuity).is_ok()
    }

    fn continuity_key(&self, token: &SessionToken) -> ContinuityKey {
        match &self.record.link {
            Some(link) => token.linked_key(link),
            None => token.continuity_key(),
        }
    }
}

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
        let tag = hmac::sign(&secret.token().continuity_key().hmac(), identifier.expose());
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }
}

/// What a token stands for.
pub enum Check<S> {
    /// A live session.
    Live(Arc<LiveSession<S>>),
    /// None: never was, expired, or revoked. The answer does not tell which.
    Gone,
}

/// All live sessions of this gateway.
pub struct Sessions<S> {
    live: DashMap<TokenHash, Arc<LiveSession<S>>>,
    store: Arc<dyn SessionStore>,
    policy: ArcSwap<SessionPolicy>,
}

impl<S: Default> Sessions<S> {
    /// Reads the sessions that outlived the last run.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn load(store: Arc<dyn SessionStore>, policy: SessionPolicy, now: Timestamp) -> Result<Self, StoreError> {
        let live = DashMap::new();
        for mut record in store.load(now).await? {
            // Seen in the future: the clock was set back, and would not let it idle out until it is there again.
            record.last_seen_at = record.last_seen_at.min(now);
            let session = LiveSession::of(record);
            if session.expired(&policy, now).is_none() {
                session.durable.store(true, Ordering::Release);
                live.insert(session.record.token_hash, Arc::new(session));
            }
        }
        Ok(Self { live, store, policy: ArcSwap::from_pointee(policy) })
    }

    /// Holds sessions to `policy` from now on. An open one keeps the absolute end that it was opened with.
    pub fn set_policy(&self, policy: SessionPolicy) {
        self.policy.store(Arc::new(policy));
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
        let policy = **self.policy.load();
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
        let session = Arc::new(LiveSession::of(record.clone()));
        // In memory first: a revocation that runs between the two steps must find it. Nobody holds the token yet.
        self.live.insert(record.token_hash, Arc::clone(&session));
        match self.store.open(record.clone(), policy.per_account, replaces).await {
            Ok(ended) => {
                session.durable.store(true, Ordering::Release);
                self.forget(&ended);
                Ok((secret, session))
            }
            Err(error) => {
                self.live.remove(&record.token_hash);
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
        let record = SessionRecord {
            token_hash: fresh.hash(),
            link: Some(fresh.link_to(&session.continuity_key(token))),
            transport: session.transport(),
            by_code: false,
            pin_at: Some(now),
            last_seen_at: now,
            ..session.record.clone()
        };
        let (old, new) = (session.record.token_hash, record.token_hash);
        let renewed = Arc::new(LiveSession::of(record.clone()));
        // In memory first, as when one is opened.
        self.live.insert(new, Arc::clone(&renewed));
        let outcome = self.store.renew(old, record).await;
        if outcome == Ok(true) {
            renewed.durable.store(true, Ordering::Release);
            self.forget(&[old]);
            return Ok(Some(secret));
        }
        self.forget(&[new]);
        outcome.map(|_| None)
    }

    /// Looks up a token that came by `transport`. In a URL it stands for no session that is kept in its cookie.
    #[must_use]
    pub fn check(&self, hash: TokenHash, transport: TokenTransport, now: Timestamp) -> Check<S> {
        // The Arc is cloned out: no guard outlives this line.
        let Some(session) = self.live.get(&hash).map(|entry| Arc::clone(entry.value())) else { return Check::Gone };
        if session.expired(&self.policy.load(), now).is_some() {
            // Its row goes with the next sweep; it is gone for everybody now.
            self.forget(&[hash]);
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
        self.store.keep_in_cookie(session.record.token_hash).await?;
        session.in_cookie.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends sessions, durably, then everywhere at once. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be made durable; then none ended.
    pub async fn end(&self, scope: SessionScope) -> Result<usize, StoreError> {
        let ended = self.store.end(scope.clone()).await?;
        self.forget(&ended);
        // What the store no longer has is over, even if the call that ended it there died before it said so here.
        let left: Vec<_> = self.live.iter().filter(|s| s.durable() && s.is_in(&scope)).map(|s| *s.key()).collect();
        self.forget(&left);
        Ok(ended.len() + left.len())
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
        let policy = **self.policy.load();
        let mut found: Vec<_> = self
            .live
            .iter()
            .filter(|s| account.is_none_or(|a| a == &s.record.account) && s.expired(&policy, now).is_none())
            .map(|s| Arc::clone(s.value()))
            .collect();
        found.sort_by_key(|s| (s.record.created_at, s.record.id));
        found
    }

    /// How many sessions are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Writes uses that the store has not heard of for a while, drops what expired, and erases it from the store.
    ///
    /// # Errors
    /// [`StoreError`] if the store refused; what was not written is tried again next time.
    pub async fn sweep(&self, now: Timestamp, all: bool) -> Result<(), StoreError> {
        let policy = **self.policy.load();
        let interval = if all { std::time::Duration::ZERO } else { policy.touch_interval() };
        let mut stale = Vec::new();
        let mut over = Vec::new();
        for entry in &self.live {
            let session = entry.value();
            let seen = session.last_seen_at();
            let stored = Timestamp::from_unix_millis(session.stored_seen.load(Ordering::Relaxed));
            if session.expired(&policy, now).is_some() {
                over.push(*entry.key());
            } else if seen > stored && seen.since(stored) >= interval {
                stale.push((*entry.key(), seen));
            }
        }
        self.forget(&over);
        if !stale.is_empty() {
            self.store.touch(stale.clone()).await?;
            for (hash, seen) in stale {
                if let Some(session) = self.live.get(&hash) {
                    session.stored_seen.fetch_max(seen.unix_millis(), Ordering::Relaxed);
                }
            }
        }
        // A row's `last_seen_at` lags by up to the interval: only what is idle beyond that as well is erased.
        self.store.purge(now, now.minus(policy.idle + policy.touch_interval())).await?;
        Ok(())
    }

    fn forget(&self, hashes: &[TokenHash]) {
        for hash in hashes {
            if let Some((_, session)) = self.live.remove(hash) {
                session.ended.cancel();
            }
        }
    }
}

impl<S> LiveSession<S> {
    fn durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    fn is_in(&self, scope: &SessionScope) -> bool {
        match scope {
            SessionScope::Id(id) => *id == self.record.id,
            SessionScope::Account(account) => *account == self.record.account,
            SessionScope::Binding(binding) => *binding == self.record.binding,
        }
    }

    fn expired(&self, policy: &SessionPolicy, now: Timestamp) -> Option<Expiry> {
        policy.expired(self.record.created_at, self.last_seen_at(), self.record.expires_at, now)
    }
}

impl<S: Default> LiveSession<S> {
    fn of(record: SessionRecord) -> Self {
        let seen = record.last_seen_at.unix_millis();
        let in_cookie = AtomicBool::new(record.transport == TokenTransport::Cookie);
        Self {
            record,
            in_cookie,
            last_seen: AtomicI64::new(seen),
            stored_seen: AtomicI64::new(seen),
            durable: AtomicBool::new(false),
            ended: Arc::default(),
            state: S::default(),
        }
    }
}
