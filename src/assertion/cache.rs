//! What is kept of assertions beside each session, so that most requests sign nothing and ask no store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{Context, SHA256};

use super::claims::LIFETIME;
use super::signer::Assertion;
use crate::clock::Timestamp;

/// The assertions and identities of one session, one of each for an upstream.
///
/// Upstreams are known by what is said to them, so a session outlives the configuration that it was opened under. The lock
/// is held for a few comparisons, never across an await. An ended session takes its cache along, and another signing key
/// makes its assertions stale.
#[derive(Default)]
pub struct AssertionCache(Mutex<Vec<Entry>>);

/// Stands for an upstream as its assertions see it: equal as long as the same can be said to it of the same account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamId([u8; 16]);

impl UpstreamId {
    /// Of the upstream with this name and audience. `issuer` is who speaks, `subject` which kind of subject it is told.
    #[must_use]
    pub fn new(issuer: &str, name: &str, audience: &str, subject: &str) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [issuer, name, audience, subject] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(id)
    }
}

/// Upstreams of one session that are remembered; the oldest gives way. Those that a configuration no longer has are
/// forgotten by it.
const MOST_UPSTREAMS: usize = 64;

/// How one upstream knows the session's account.
pub struct UpstreamIdentity {
    /// The `sub`.
    pub subject: String,
    /// The `sid`.
    pub sid: String,
}

struct Entry {
    upstream: UpstreamId,
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
    pub fn fresh(&self, upstream: UpstreamId, kid: &str, with_pin: bool, now: Timestamp) -> Option<Assertion> {
        let entries = self.lock();
        let signed = entry(&entries, upstream)?.signed.as_ref()?;
        // Signed in the future: the clock was set back, and the upstream would refuse it.
        let in_first_half = signed.at <= now && now.since(signed.at) < LIFETIME / 2;
        (in_first_half && *signed.kid == *kid && signed.with_pin == with_pin).then(|| signed.assertion.clone())
    }

    /// Keeps an assertion that was signed by `kid` at `now`; it takes the place of the last one.
    pub fn remember(&self, upstream: UpstreamId, kid: &str, with_pin: bool, assertion: &Assertion, now: Timestamp) {
        let signed = Signed { assertion: assertion.clone(), kid: kid.into(), with_pin, at: now };
        entry_or_new(&mut self.lock(), upstream).signed = Some(signed);
    }

    /// The subject and sid for this upstream, if known.
    #[must_use]
    pub fn identity(&self, upstream: UpstreamId) -> Option<Arc<UpstreamIdentity>> {
        entry(&self.lock(), upstream)?.identity.clone()
    }

    /// Keeps the subject and sid for this upstream. Where two requests ask at once, the first answer stays.
    pub fn remember_identity(&self, upstream: UpstreamId, identity: UpstreamIdentity) -> Arc<UpstreamIdentity> {
        let mut entries = self.lock();
        Arc::clone(entry_or_new(&mut entries, upstream).identity.get_or_insert_with(|| Arc::new(identity)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session meets a handful of upstreams, so a scan beats a map.
fn entry(entries: &[Entry], upstream: UpstreamId) -> Option<&Entry> {
    entries.iter().find(|entry| entry.upstream == upstream)
}

fn entry_or_new(entries: &mut Vec<Entry>, upstream: UpstreamId) -> &mut Entry {
    let at = entries.iter().position(|entry| entry.upstream == upstream).unwrap_or_else(|| {
        if entries.len() >= MOST_UPSTREAMS {
            entries.remove(0);
        }
        entries.push(Entry { upstream, identity: None, signed: None });
        entries.len() - 1
    });
    entries.get_mut(at).unwrap_or_else(|| unreachable!("it was found or pushed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::verify::tests::{now, signed_at, signer};

    fn id(name: &str) -> UpstreamId {
        UpstreamId::new("https://admin.example.jp", name, "https://console.internal", "pairwise")
    }

    fn after(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(now().unix_millis() + seconds * 1000)
    }

    #[test]
    fn an_assertion_is_reused_for_half_its_life_by_its_upstream_and_key() {
        let cache = AssertionCache::default();
        assert!(cache.fresh(id("a"), "a", false, now()).is_none());
        let assertion = signed_at(&signer(), now());
        cache.remember(id("a"), "a", false, &assertion, now());
        for (upstream, kid, seconds, expected) in [
            ("a", "a", 0, true),
            ("a", "a", 29, true),
            ("a", "a", 30, false),
            ("a", "a", 3600, false),
            ("a", "a", -1, false),
            ("a", "b", 0, false),
            ("b", "a", 0, false),
        ] {
            let case = format!("upstream {upstream}, {kid}, {seconds} s");
            assert_eq!(cache.fresh(id(upstream), kid, false, after(seconds)).is_some(), expected, "{case}");
            assert!(cache.fresh(id(upstream), kid, true, after(seconds)).is_none(), "{case}: it says nothing of a PIN");
        }
        let reused = cache.fresh(id("a"), "a", false, now()).unwrap();
        assert!(reused.value() == assertion.value() && reused.value().is_sensitive());
        assert_eq!(reused.value().as_bytes().as_ptr(), assertion.value().as_bytes().as_ptr(), "shared, not copied");
    }

    #[test]
    fn a_newer_assertion_takes_the_place_of_the_last() {
        let cache = AssertionCache::default();
        cache.remember(id("a"), "a", true, &signed_at(&signer(), now()), now());
        let newer = signed_at(&signer(), after(40));
        cache.remember(id("a"), "a", true, &newer, after(40));
        assert!(cache.fresh(id("a"), "a", true, after(40)).unwrap().value() == newer.value());
    }

    #[test]
    fn the_first_identity_stays() {
        let cache = AssertionCache::default();
        assert!(cache.identity(id("a")).is_none());
        let of = |subject: &str| UpstreamIdentity { subject: subject.into(), sid: String::new() };
        assert_eq!(cache.remember_identity(id("a"), of("first")).subject, "first");
        assert_eq!(cache.remember_identity(id("a"), of("second")).subject, "first");
        assert_eq!(cache.identity(id("a")).unwrap().subject, "first");
        assert!(cache.identity(id("b")).is_none());
    }

    #[test]
    fn an_upstream_of_which_anything_is_said_otherwise_is_another() {
        let same = UpstreamId::new("i", "n", "a", "s");
        assert_eq!(same, UpstreamId::new("i", "n", "a", "s"));
        for [issuer, name, audience, subject] in [
            ["x", "n", "a", "s"],
            ["i", "x", "a", "s"],
            ["i", "n", "x", "s"],
            ["i", "n", "a", "x"],
            ["in", "", "a", "s"],
        ] {
            assert_ne!(same, UpstreamId::new(issuer, name, audience, subject));
        }
    }

    #[test]
    fn what_configurations_leave_behind_is_bounded() {
        let cache = AssertionCache::default();
        let of = |subject: &str| UpstreamIdentity { subject: subject.into(), sid: String::new() };
        for n in 0..=MOST_UPSTREAMS {
            cache.remember_identity(id(&n.to_string()), of(""));
        }
        assert_eq!(cache.lock().len(), MOST_UPSTREAMS);
        assert!(cache.identity(id("0")).is_none() && cache.identity(id("1")).is_some());
    }
}
