//! The live sessions by token and by account: two tables of pointers to one and the same sessions.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;

use super::{LiveSession, TokenHash};
use crate::binding::AccountId;

/// Parts of a table, each behind a lock of its own: cores rarely meet, and what goes through all sessions holds none for
/// long.
pub(super) const SHARDS: usize = 64;

/// All sessions of a gateway. What is handed out is cloned: no lock outlives a call.
pub(super) struct Table<S> {
    by_token: [Shard<S>; SHARDS],
    /// Holds the sessions of `by_token`, and for a moment one that is on its way in or out.
    by_account: [Shard<S>; SHARDS],
    accounts: RandomState,
    len: AtomicUsize,
}

type Sessions<S> = HashTable<Arc<LiveSession<S>>>;
type Shard<S> = RwLock<Sessions<S>>;

impl<S> Table<S> {
    pub(super) fn new() -> Self {
        let empty = || std::array::from_fn(|_| RwLock::new(HashTable::new()));
        Self { by_token: empty(), by_account: empty(), accounts: RandomState::new(), len: AtomicUsize::new(0) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Adds a session, which must not be in it.
    pub(super) fn insert(&self, session: Arc<LiveSession<S>>) {
        let (account, hash) = (self.of_account(&session), of_token(&session));
        let rehash = |session: &Arc<LiveSession<S>>| self.of_account(session);
        write(shard(&self.by_account, account)).insert_unique(account, Arc::clone(&session), rehash);
        let rehash = |session: &Arc<LiveSession<S>>| of_token(session);
        write(shard(&self.by_token, hash)).insert_unique(hash, session, rehash);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// The session of that token.
    pub(super) fn get(&self, token: &TokenHash) -> Option<Arc<LiveSession<S>>> {
        let hash = of_hash(token);
        let sessions = read(shard(&self.by_token, hash));
        sessions.find(hash, |session| session.facts().token_hash == *token).map(Arc::clone)
    }

    /// Takes the session of that token out. Of any number of callers at once one gets it.
    pub(super) fn remove(&self, token: &TokenHash) -> Option<Arc<LiveSession<S>>> {
        let hash = of_hash(token);
        let is_it = |session: &Arc<LiveSession<S>>| session.facts().token_hash == *token;
        let session = write(shard(&self.by_token, hash)).find_entry(hash, is_it).ok()?.remove().0;
        let account = self.of_account(&session);
        // It is there unless a defect took it out twice.
        if let Ok(entry) = write(shard(&self.by_account, account)).find_entry(account, is_it) {
            entry.remove();
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(session)
    }

    /// The sessions of an account, in any order.
    pub(super) fn of(&self, account: &AccountId) -> Vec<Arc<LiveSession<S>>> {
        let hash = self.accounts.hash_one(account);
        let sessions = read(shard(&self.by_account, hash));
        sessions.iter_hash(hash).filter(|session| session.facts().account == *account).map(Arc::clone).collect()
    }

    /// All sessions, in any order.
    pub(super) fn all(&self) -> Vec<Arc<LiveSession<S>>> {
        let mut all = Vec::with_capacity(self.len());
        self.each(|session| all.push(Arc::clone(session)));
        all
    }

    /// Looks at all sessions, in any order.
    pub(super) fn each(&self, mut look: impl FnMut(&Arc<LiveSession<S>>)) {
        (0..SHARDS).for_each(|number| self.each_in(number, &mut look));
    }

    /// Looks at the sessions of one part, and holds up only those who change that.
    pub(super) fn each_in(&self, number: usize, look: impl FnMut(&Arc<LiveSession<S>>)) {
        self.by_token.get(number).map(read).iter().flat_map(|part| part.iter()).for_each(look);
    }

    /// Any session of which `is_it` holds.
    pub(super) fn find(&self, is_it: impl Fn(&LiveSession<S>) -> bool) -> Option<Arc<LiveSession<S>>> {
        self.by_token.iter().find_map(|part| read(part).iter().find(|session| is_it(session)).map(Arc::clone))
    }

    fn of_account(&self, session: &LiveSession<S>) -> u64 {
        self.accounts.hash_one(&session.facts().account)
    }
}

fn of_token<S>(session: &Arc<LiveSession<S>>) -> u64 {
    of_hash(&session.facts().token_hash)
}

/// It is random, and not for others to choose, so that its first bytes are as good as any hash of it.
fn of_hash(token: &TokenHash) -> u64 {
    let first = token.as_bytes().first_chunk().unwrap_or_else(|| unreachable!("it has 32 bytes"));
    u64::from_le_bytes(*first)
}

/// By bits that the tables themselves do not go by.
fn shard<S>(shards: &[Shard<S>; SHARDS], hash: u64) -> &Shard<S> {
    let [_, _, _, _, _, number, _, _] = hash.to_le_bytes();
    shards.get(usize::from(number) % SHARDS).unwrap_or_else(|| unreachable!("the remainder is below"))
}

fn read<S>(shard: &Shard<S>) -> RwLockReadGuard<'_, Sessions<S>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<S>(shard: &Shard<S>) -> RwLockWriteGuard<'_, Sessions<S>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
