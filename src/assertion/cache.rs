//! What is kept of assertions beside each session, so that most requests sign nothing and ask no store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::claims::LIFETIME;
use super::signer::Assertion;
use crate::clock::Timestamp;

/// The assertions and identities of one session, one of each for an upstream.
///
/// Upstreams are known by their index in the routing table; a session that outlives the table must be given indices
/// that mean the same upstreams in the next one. The lock is held for a few comparisons, never across an await. An
/// ended session takes its cache along, and another signing key makes its assertions stale.
#[derive(Default)]
pub struct AssertionCache(Mutex<Vec<Entry>>);

/// How one upstream knows the session's account.
pub struct UpstreamIdentity {
    /// The `sub`.
    pub subject: String,
    /// The `sid`.
    pub sid: String,
}

struct Entry {
    upstream: usize,
    identity: Option<Arc<UpstreamIdentity>>,
    signed: Option<Signed>,
}

struct Signed {
    assertion: Assertion,
    kid: Box<str>,
    with_pin: bool,
    at: Timestamp,
}

impl AssertionCache {
    /// The assertion for this upstream that is still in the first half of its life, was signed by `kid` and says as much
    /// of a PIN as is so now.
    #[must_use]
    pub fn fresh(&self, upstream: usize, kid: &str, with_pin: bool, now: Timestamp) -> Option<Assertion> {
        let entries = self.lock();
        let signed = entry(&entries, upstream)?.signed.as_ref()?;
        // Signed in the future: the clock was set back, and the upstream would refuse it.
        let in_first_half = signed.at <= now && now.since(signed.at) < LIFETIME / 2;
        (in_first_half && *signed.kid == *kid && signed.with_pin == with_pin).then(|| signed.assertion.clone())
    }

    /// Keeps an assertion that was signed by `kid` at `now`; it takes the place of the last one.
    pub fn remember(&self, upstream: usize, kid: &str, with_pin: bool, assertion: &Assertion, now: Timestamp) {
        let signed = Signed { assertion: assertion.clone(), kid: kid.into(), with_pin, at: now };
        entry_or_new(&mut self.lock(), upstream).signed = Some(signed);
    }

    /// The subject and sid for this upstream, if known.
    #[must_use]
    pub fn identity(&self, upstream: usize) -> Option<Arc<UpstreamIdentity>> {
        entry(&self.lock(), upstream)?.identity.clone()
    }

    /// Keeps the subject and sid for this upstream. Where two requests ask at once, the first answer stays.
    pub fn remember_identity(&self, upstream: usize, identity: UpstreamIdentity) -> Arc<UpstreamIdentity> {
        let mut entries = self.lock();
        Arc::clone(entry_or_new(&mut entries, upstream).identity.get_or_insert_with(|| Arc::new(identity)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session meets a handful of upstreams, so a scan beats a map.
fn entry(entries: &[Entry], upstream: usize) -> Option<&Entry> {
    entries.iter().find(|entry| entry.upstream == upstream)
}

fn entry_or_new(entries: &mut Vec<Entry>, upstream: usize) -> &mut Entry {
    let at = entries.iter().position(|entry| entry.upstream == upstream).unwrap_or(entries.len());
    if at == entries.len() {
        entries.push(Entry { upstream, identity: None, signed: None });
    }
    entries.get_mut(at).unwrap_or_else(|| unreachable!("it was found or pushed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::verify::tests::{now, signed_at, signer};

    fn after(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(now().unix_millis() + seconds * 1000)
    }

    #[test]
    fn an_assertion_is_reused_for_half_its_life_by_its_upstream_and_key() {
        let cache = AssertionCache::default();
        assert!(cache.fresh(0, "a", false, now()).is_none());
        let assertion = signed_at(&signer(), now());
        cache.remember(0, "a", false, &assertion, now());
        for (upstream, kid, seconds, expected) in [
            (0, "a", 0, true),
            (0, "a", 29, true),
            (0, "a", 30, false),
            (0, "a", 3600, false),
            (0, "a", -1, false),
            (0, "b", 0, false),
            (1, "a", 0, false),
        ] {
            let case = format!("upstream {upstream}, {kid}, {seconds} s");
            assert_eq!(cache.fresh(upstream, kid, false, after(seconds)).is_some(), expected, "{case}");
            assert!(cache.fresh(upstream, kid, true, after(seconds)).is_none(), "{case}: it says nothing of a PIN");
        }
        let reused = cache.fresh(0, "a", false, now()).unwrap();
        assert!(reused.value() == assertion.value() && reused.value().is_sensitive());
        assert_eq!(reused.value().as_bytes().as_ptr(), assertion.value().as_bytes().as_ptr(), "shared, not copied");
    }

    #[test]
    fn a_newer_assertion_takes_the_place_of_the_last() {
        let cache = AssertionCache::default();
        cache.remember(3, "a", true, &signed_at(&signer(), now()), now());
        let newer = signed_at(&signer(), after(40));
        cache.remember(3, "a", true, &newer, after(40));
        assert!(cache.fresh(3, "a", true, after(40)).unwrap().value() == newer.value());
    }

    #[test]
    fn the_first_identity_stays() {
        let cache = AssertionCache::default();
        assert!(cache.identity(2).is_none());
        let of = |subject: &str| UpstreamIdentity { subject: subject.into(), sid: String::new() };
        assert_eq!(cache.remember_identity(2, of("first")).subject, "first");
        assert_eq!(cache.remember_identity(2, of("second")).subject, "first");
        assert_eq!(cache.identity(2).unwrap().subject, "first");
        assert!(cache.identity(0).is_none());
    }
}
