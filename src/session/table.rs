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
/// How unequal the parts are ([`part_of`]).
const SLOPE: u64 = 22;

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

fn shard<S>(shards: &[Shard<S>; SHARDS], hash: u64) -> &Shard<S> {
    shards.get(part_of(hash)).unwrap_or_else(|| unreachable!("there are so many"))
}

/// Which part holds what has that hash: by bits that the tables themselves do not go by.
///
/// The last part holds twice as much as the first, with all steps between. A table doubles when it is full; equal ones
/// would all do so at once, so that everybody waits, and from then on half of their room would stand empty.
const fn part_of(hash: u64) -> usize {
    const ALL: u64 = 1 << 16;
    // Where it is among all hashes.
    let at = (hash >> 32) % ALL;
    // 64 · log2(1 + x) is nearly 64x + 22x(1 - x); below ALL it stays below SHARDS · ALL · ALL.
    ((at * (SHARDS as u64 * ALL + SLOPE * (ALL - at))) >> 32) as usize
}

fn read<S>(shard: &Shard<S>) -> RwLockReadGuard<'_, Sessions<S>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<S>(shard: &Shard<S>) -> RwLockWriteGuard<'_, Sessions<S>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_part_holds_twice_as_much_as_the_smallest_and_none_is_left_out() {
        let mut parts = [0_u64; SHARDS];
        for at in 0..=0xffff_u64 {
            // Bits beside those do not matter.
            let part = part_of(at << 32);
            assert_eq!(part, part_of(at << 32 | 0xffff_0000_ffff_ffff));
            parts[part] += 1;
        }
        let (least, most) = (*parts.iter().min().unwrap(), *parts.iter().max().unwrap());
        assert!((750..=775).contains(&least), "{least}");
        assert!((1500..=1600).contains(&most), "{most}");
    }

    #[test]
    fn tables_are_as_full_whatever_the_number_of_sessions() {
        /// Slots of a table that has room for `count`: a power of two, of which seven eighths may be taken.
        fn slots(count: f64) -> f64 {
            (count * 8.0 / 7.0).log2().ceil().exp2()
        }
        let mut shares = [0.0_f64; SHARDS];
        (0..=0xffff_u64).for_each(|at| shares[part_of(at << 32)] += 1.0 / 65536.0);
        for count in (0..40).map(|step| 1e6 * (f64::from(step) / 40.0).exp2()) {
            let room: f64 = shares.iter().map(|share| slots(count * share)).sum();
            assert!((0.57..0.64).contains(&(count / room)), "{count} sessions fill {} of it", count / room);
        }
    }
}
