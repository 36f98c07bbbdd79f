//! Which account a handset is bound to.

use thiserror::Error;

use super::{AccountId, AccountState, BindingId, Candidates, DigestError, KeyRing, PinError, RightPin};
use crate::carrier::CarrierName;
use crate::clock::{Day, Timestamp};
use crate::store::{BindingRecord, BindingStore, Hit, LookUp, Probe, StoreError};

/// How often a look-up is repeated while the key ring moves. A rotation moves it four times, days apart.
pub(super) const ATTEMPTS: u32 = 5;

/// An active account that holds the binding: made only by [`resolve()`], by [`Unproven::prove`] and by a completed
/// enrolment.
#[derive(Debug)]
pub struct BoundAccount {
    account: AccountId,
    binding: BindingId,
    carrier: CarrierName,
    by_code: bool,
}

impl BoundAccount {
    pub(super) const fn new(account: AccountId, binding: BindingId, carrier: CarrierName) -> Self {
        Self { account, binding, carrier, by_code: false }
    }

    /// The same, whose person typed an enrolment code for it that the operator gave them.
    pub(super) const fn with_code(mut self) -> Self {
        self.by_code = true;
        self
    }

    /// Whether its person typed an enrolment code of the operator's just now.
    #[must_use]
    pub const fn by_code(&self) -> bool {
        self.by_code
    }

    /// Who signs in.
    #[must_use]
    pub const fn account(&self) -> &AccountId {
        &self.account
    }

    /// By which binding.
    #[must_use]
    pub const fn binding(&self) -> BindingId {
        self.binding
    }

    /// From which carrier.
    #[must_use]
    pub const fn carrier(&self) -> &CarrierName {
        &self.carrier
    }

    /// Its parts, for a session to be opened from.
    #[must_use]
    pub fn into_parts(self) -> (AccountId, BindingId, CarrierName) {
        (self.account, self.binding, self.carrier)
    }
}

/// Why a handset is not signed in.
#[derive(Debug, Error)]
pub enum BindingError {
    /// Unknown, suspended or revoked: one answer for all, after the same work.
    #[error("not-bound")]
    NotBound,
    /// Bound under a key that leaked: whoever has the key could be here in the handset's name.
    #[error("bound under a key that has leaked")]
    Unproven(Box<Unproven>),
    /// The key ring moved on at every look-up, so that nothing was found proves nothing: the person has to try again.
    #[error("the key ring moved during the look-up; the sign-in has to be tried again")]
    Unsettled,
    /// A key came to be suspended meanwhile.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A binding of an active account under a key that has leaked. It signs nobody in before a second secret was given: the
/// account's PIN, or a new enrolment code.
#[derive(Debug)]
pub struct Unproven {
    account: AccountId,
    binding: BindingId,
    carrier: CarrierName,
    /// The record as the active key alone makes it.
    flat: Probe,
}

impl Unproven {
    /// Whose it is.
    #[must_use]
    pub const fn account(&self) -> &AccountId {
        &self.account
    }

    /// Which it is.
    #[must_use]
    pub const fn binding(&self) -> BindingId {
        self.binding
    }

    /// Of which carrier.
    #[must_use]
    pub const fn carrier(&self) -> &CarrierName {
        &self.carrier
    }

    /// Takes the record off the leaked key, because the right PIN was typed. `None` where another key is active by now, or
    /// the PIN was typed on another handset: the handset has to be identified again. That the key ring moved on otherwise,
    /// as it does while records are moved off the leaked key, changes nothing in what the active key makes.
    ///
    /// # Errors
    /// [`PinError`] of the keys or the store; the record is as it was.
    pub async fn prove(
        self,
        pin: &RightPin,
        store: &dyn BindingStore,
        ring: &KeyRing,
        now: Timestamp,
    ) -> Result<Option<BoundAccount>, PinError> {
        let Self { account, binding, carrier, flat } = self;
        if pin.binding() != binding {
            return Ok(None);
        }
        let mut keys = ring.wrapping()?;
        for _ in 0..ATTEMPTS {
            if keys.active() != flat.chain.outermost() {
                return Ok(None);
            }
            if store.used(binding, now.day(), flat.clone(), keys.generation()).await? {
                // Flattened, unless it was revoked or is under yet another key that leaked.
                return Ok(store.stands(binding).await?.then(|| BoundAccount::new(account, binding, carrier)));
            }
            let Some(newer) = ring.after(keys.generation()).await? else { return Ok(None) };
            keys = newer;
        }
        Ok(None)
    }
}

/// A sign-in that the store is to be told of: the day of use, and the record as the active key alone makes it.
///
/// Apart from the look-up, so that it is written together with the session. Where it is lost with the machine, the next
/// sign-in writes it.
#[must_use = "nothing is written before `note`"]
pub struct Use {
    candidates: Candidates,
    record: BindingRecord,
    day: Day,
}

/// Looks a handset up under all its chains. [`Use::note`] is to follow once it comes in.
///
/// The generation of the key ring is read with it, of the same state of the store: `rotation.md` §3 reads it before and after,
/// which is to know that it did not move between. Where it is not the one of the digests, a miss is no proof, and `ring` makes
/// them again.
///
/// # Errors
/// [`BindingError::NotBound`] also for a suspended account; [`BindingError::Unproven`] for a record whose chain contains a
/// compromised key.
pub async fn resolve(
    store: &dyn BindingStore,
    ring: &KeyRing,
    candidates: Candidates,
    now: Timestamp,
) -> Result<(BoundAccount, Use), BindingError> {
    let mut candidates = candidates;
    for _ in 0..ATTEMPTS {
        let found = store.resolve(&candidates.carrier, &candidates.probes).await?;
        match judge(found, candidates.generation) {
            Verdict::Bound(Hit { binding: record, .. }) => {
                let bound = BoundAccount::new(record.account.clone(), record.id, record.carrier.clone());
                return Ok((bound, Use { candidates, record, day: now.day() }));
            }
            Verdict::NotBound => return Err(BindingError::NotBound),
            Verdict::Unproven(hit) => return Err(BindingError::Unproven(Box::new(unproven(candidates, hit)))),
            Verdict::Outdated => candidates = ring.again(&candidates).await?.ok_or(BindingError::Unsettled)?,
        }
    }
    Err(BindingError::Unsettled)
}

/// What one look-up proves.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Bound(Hit),
    NotBound,
    Unproven(Hit),
    /// The digests were made by another key ring than the one in force.
    Outdated,
}

fn judge(found: LookUp, made_under: u64) -> Verdict {
    match found.hit {
        Some(hit) if hit.account_state == AccountState::Active && hit.compromised => Verdict::Unproven(hit),
        Some(hit) if hit.account_state == AccountState::Active => Verdict::Bound(hit),
        None if made_under != found.generation => Verdict::Outdated,
        Some(_) | None => Verdict::NotBound,
    }
}

fn unproven(candidates: Candidates, hit: Hit) -> Unproven {
    let BindingRecord { id, account, carrier, .. } = hit.binding;
    let (chain, digest) = candidates.flat;
    Unproven { account, binding: id, carrier, flat: Probe { chain, digest } }
}

impl Use {
    /// Notes the use and flattens the record, at most once a day; again with newer keys where they moved meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]; the handset is found all the same.
    pub async fn note(self, store: &dyn BindingStore, ring: &KeyRing) -> Result<(), StoreError> {
        let Self { mut candidates, record, day } = self;
        let flattened = record.chain == candidates.flat.0;
        if record.last_used_on >= day && flattened {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let (chain, digest) = candidates.flat.clone();
            let flat = Probe { chain, digest };
            if store.used(record.id, day, flat, candidates.generation).await? || flattened {
                break;
            }
            // Who is found stays found: where no newer keys come, the next sign-in flattens it.
            let Ok(Some(again)) = ring.again(&candidates).await else { break };
            candidates = again;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{Chain, KeyId};
    use crate::carrier::RawIdentifier;

    fn hit(account_state: AccountState) -> Hit {
        let binding = BindingRecord {
            id: BindingId::from_random([1; 16]),
            account: AccountId::parse("alice").unwrap(),
            carrier: RawIdentifier::for_test("docomo", b"x", true).carrier().clone(),
            chain: Chain::flat(KeyId::new(1)),
            bound_on: Day::from_unix_days(1),
            last_used_on: Day::from_unix_days(1),
        };
        Hit { binding, account_state, compromised: false }
    }

    #[test]
    fn only_a_miss_of_digests_of_the_ring_in_force_proves_that_nothing_is_bound() {
        let active = Some(hit(AccountState::Active));
        let suspended = Some(hit(AccountState::Suspended));
        let leaked = Hit { compromised: true, ..hit(AccountState::Active) };
        let leaked_and_suspended = Some(Hit { compromised: true, ..hit(AccountState::Suspended) });
        for (hit, made_under, generation, expected) in [
            (active.clone(), 0, 0, Verdict::Bound(active.clone().unwrap())),
            (active.clone(), 0, 2, Verdict::Bound(active.clone().unwrap())),
            (suspended.clone(), 0, 0, Verdict::NotBound),
            (suspended, 0, 2, Verdict::NotBound),
            (Some(leaked.clone()), 0, 0, Verdict::Unproven(leaked)),
            (leaked_and_suspended, 0, 0, Verdict::NotBound),
            (None, 0, 0, Verdict::NotBound),
            (None, 4, 4, Verdict::NotBound),
            (None, 0, 1, Verdict::Outdated),
            (None, 2, 1, Verdict::Outdated),
        ] {
            let case = format!("made under {made_under}, looked up under {generation}");
            assert_eq!(judge(LookUp { hit, generation }, made_under), expected, "{case}");
        }
    }
}
