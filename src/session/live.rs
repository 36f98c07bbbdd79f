//! One live session, kept small: a gateway may hold a million of them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::end::SessionEnd;
use super::lifecycle::expired;
use super::token::ContinuityKey;
use super::{Expiry, SessionId, SessionToken, TokenHash};
use crate::binding::{AccountId, BindingId};
use crate::carrier::{CarrierName, RawIdentifier};
use crate::clock::Timestamp;
use crate::store::{Renewal, SessionRecord, SessionScope, TokenTransport};
use ring::hmac;
use subtle::ConstantTimeEq as _;

/// What a session was opened with; none of it ever changes.
#[derive(Debug)]
pub struct SessionFacts {
    /// SHA-256 of the token.
    pub token_hash: TokenHash,
    /// Random public id, for listing and revoking.
    pub id: SessionId,
    /// Who is signed in.
    pub account: AccountId,
    /// The binding that signed in.
    pub binding: BindingId,
    /// The carrier profile that signed in.
    pub carrier: CarrierName,
    /// Random; from it the per-audience `sid` is derived.
    pub sid_seed: [u8; 16],
    /// When it was opened.
    pub created_at: Timestamp,
    /// The first half of the tag. It is as hard to meet by chance as a key of 128 bits (RFC 2104 §5 asks for no more).
    continuity: [u8; TAG],
}

/// What a session has in which the right PIN was typed.
#[derive(Clone, Copy, Debug)]
struct ByPin {
    at: Timestamp,
    /// As in [`SessionRecord`].
    link: Option<[u8; 32]>,
}

/// Octets of a continuity tag that a live session keeps.
const TAG: usize = 16;

/// A session that was neither expired nor revoked when it was checked.
///
/// `state` is what a later stage keeps with the session so that it is made once a session, not once a request. It and what
/// tells of the end come to be with the first request that asks for them.
///
/// Each octet of it is a megabyte for a million sessions, and the allocator rounds up to sixteen: what few sessions have is
/// in `More`, and the small fields stand together, so that none is padded.
pub struct LiveSession<S> {
    facts: SessionFacts,
    /// How long it lasts at most.
    lasts: Offset,
    last_seen: AtomicU32,
    stored_seen: AtomicU32,
    /// Whether its cookie has come back, so that no URL may hold it any more.
    in_cookie: AtomicBool,
    /// Whether the store has it: until then nobody holds its token, and nobody may end it.
    durable: AtomicBool,
    by_code: bool,
    more: OnceLock<Box<More<S>>>,
}

/// What only a session has that is used, or in which a PIN was typed.
#[derive(Default)]
struct More<S> {
    end: Arc<SessionEnd>,
    state: S,
    pin: Option<ByPin>,
}

/// Milliseconds after the opening of a session, 49 days at most: none lasts that long.
#[derive(Clone, Copy)]
struct Offset(u32);

impl Offset {
    fn between(opened: Timestamp, then: Timestamp) -> Self {
        Self(u32::try_from(then.since(opened).as_millis()).unwrap_or(u32::MAX))
    }

    fn after(self, opened: Timestamp) -> Timestamp {
        Timestamp::from_unix_millis(opened.unix_millis().saturating_add(self.0.into()))
    }
}

impl<S: Default> More<S> {
    /// As a session begins with it, if it does.
    fn of_pin(pin: Option<ByPin>) -> OnceLock<Box<Self>> {
        pin.map(|pin| Box::new(Self { pin: Some(pin), ..Self::default() })).map_or_else(OnceLock::new, OnceLock::from)
    }
}

impl<S: Default> LiveSession<S> {
    pub(super) fn of(record: SessionRecord) -> Self {
        let SessionRecord { created_at, transport, last_seen_at, expires_at, .. } = record;
        let seen = Offset::between(created_at, last_seen_at).0;
        Self {
            facts: SessionFacts {
                token_hash: record.token_hash,
                id: record.id,
                account: record.account,
                binding: record.binding,
                carrier: record.carrier,
                sid_seed: record.sid_seed,
                created_at,
                continuity: kept(&record.continuity),
            },
            lasts: Offset::between(created_at, expires_at),
            last_seen: AtomicU32::new(seen),
            stored_seen: AtomicU32::new(seen),
            in_cookie: AtomicBool::new(transport == TokenTransport::Cookie),
            durable: AtomicBool::new(false),
            by_code: record.by_code,
            more: More::of_pin(record.pin_at.map(|at| ByPin { at, link: record.link })),
        }
    }

    /// The same under another token.
    pub(super) fn renewed(&self, renewal: &Renewal) -> Self {
        let Renewal { token_hash, link, transport, at } = *renewal;
        let SessionFacts { id, binding, sid_seed, created_at, continuity, .. } = self.facts;
        let (account, carrier) = (self.facts.account.clone(), self.facts.carrier.clone());
        let seen = Offset::between(created_at, at).0;
        Self {
            facts: SessionFacts { token_hash, id, account, binding, carrier, sid_seed, created_at, continuity },
            lasts: self.lasts,
            last_seen: AtomicU32::new(seen),
            stored_seen: AtomicU32::new(seen),
            in_cookie: AtomicBool::new(transport == TokenTransport::Cookie),
            durable: AtomicBool::new(false),
            by_code: false,
            more: More::of_pin(Some(ByPin { at, link: Some(link) })),
        }
    }
}

impl<S> LiveSession<S> {
    /// What it was opened with.
    #[must_use]
    pub const fn facts(&self) -> &SessionFacts {
        &self.facts
    }

    /// Whether an enrolment code opened it.
    #[must_use]
    pub const fn by_code(&self) -> bool {
        self.by_code
    }

    /// When the right PIN was typed in it; then also `auth_time`.
    #[must_use]
    pub fn pin_at(&self) -> Option<Timestamp> {
        self.pin().map(|pin| pin.at)
    }

    fn pin(&self) -> Option<&ByPin> {
        self.more.get()?.pin.as_ref()
    }

    /// The end, whatever happens.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.lasts.after(self.facts.created_at)
    }

    /// When it was last used.
    #[must_use]
    pub fn last_seen_at(&self) -> Timestamp {
        Offset(self.last_seen.load(Ordering::Relaxed)).after(self.facts.created_at)
    }

    /// Notes that its own device used it.
    pub fn note_use(&self, now: Timestamp) {
        let seen = Offset::between(self.facts.created_at, now).0;
        // Looked at first: of requests within a millisecond one has to write.
        if self.last_seen.load(Ordering::Relaxed) < seen {
            self.last_seen.fetch_max(seen, Ordering::Relaxed);
        }
    }

    /// When it was last used, as the store knows it.
    pub(super) fn stored_seen_at(&self) -> Timestamp {
        Offset(self.stored_seen.load(Ordering::Relaxed)).after(self.facts.created_at)
    }

    /// The store knows of a use at `seen`.
    pub(super) fn note_stored(&self, seen: Timestamp) {
        self.stored_seen.fetch_max(Offset::between(self.facts.created_at, seen).0, Ordering::Relaxed);
    }

    /// How its token travels, as of now.
    #[must_use]
    pub fn transport(&self) -> TokenTransport {
        if self.in_cookie.load(Ordering::Acquire) { TokenTransport::Cookie } else { TokenTransport::Url }
    }

    pub(super) fn note_in_cookie(&self) {
        self.in_cookie.store(true, Ordering::Release);
    }

    /// Whether `identifier` is the one that signed in, in constant time. `token` is this session's own.
    #[must_use]
    pub fn same_device(&self, token: &SessionToken, identifier: &RawIdentifier) -> bool {
        let tag = continuity_tag(&self.continuity_key(token), identifier);
        identifier.carrier() == &self.facts.carrier && kept(&tag).ct_eq(&self.facts.continuity).into()
    }

    /// What its tag was made with. `token` is its own.
    pub(super) fn continuity_key(&self, token: &SessionToken) -> ContinuityKey {
        match self.pin().and_then(|pin| pin.link.as_ref()) {
            Some(link) => token.linked_key(link),
            None => token.continuity_key(),
        }
    }

    pub(super) fn note_durable(&self) {
        self.durable.store(true, Ordering::Release);
    }

    pub(super) fn durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    /// `scope` has its bindings in order.
    pub(super) fn is_in(&self, scope: &SessionScope) -> bool {
        match scope {
            SessionScope::Id(account, id) => *id == self.facts.id && *account == self.facts.account,
            SessionScope::Account(account) => *account == self.facts.account,
            SessionScope::Binding(binding) => *binding == self.facts.binding,
            SessionScope::AnyOf(bindings) => bindings.binary_search(&self.facts.binding).is_ok(),
        }
    }

    /// As [`expired`] says of one that may be unused for `idle`.
    pub(super) fn expired(&self, idle: Duration, now: Timestamp) -> Option<Expiry> {
        expired(idle, self.facts.created_at, self.last_seen_at(), self.expires_at(), now)
    }
}

/// HMAC of the identifier under a token's continuity key.
pub(super) fn continuity_tag(key: &ContinuityKey, identifier: &RawIdentifier) -> [u8; 32] {
    let tag = hmac::sign(&key.hmac(), identifier.expose());
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

fn kept(tag: &[u8; 32]) -> [u8; TAG] {
    *tag.first_chunk().unwrap_or_else(|| unreachable!("it is longer"))
}

impl<S: Default> LiveSession<S> {
    /// Its end, for connections that outlive their request.
    #[must_use]
    pub fn end(&self) -> &Arc<SessionEnd> {
        &self.more().end
    }

    /// What a later stage keeps with it.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.more().state
    }

    fn more(&self) -> &More<S> {
        self.more.get_or_init(Box::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        // With the counters of its `Arc` and what the allocator adds, 192 bytes; the tables add some 30.
        assert!(size_of::<LiveSession<Vec<u64>>>() <= 168, "{}", size_of::<LiveSession<Vec<u64>>>());
    }

    #[test]
    fn instants_are_kept_to_the_millisecond_and_no_earlier_than_the_opening() {
        let opened = Timestamp::from_unix_millis(1_795_530_117_042);
        for (then, kept) in
            [(0, 0), (1, 1), (-5, 0), (30 * 86_400_000, 30 * 86_400_000), (i64::from(u32::MAX) + 9, 4_294_967_295)]
        {
            let then = Timestamp::from_unix_millis(opened.unix_millis() + then);
            assert_eq!(Offset::between(opened, then).after(opened).unix_millis(), opened.unix_millis() + kept);
        }
    }
}
