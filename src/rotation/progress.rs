//! How far a rotation is.

use crate::binding::{Chain, KeyId};
use crate::clock::Day;
use crate::store::{KeyPurpose, RotationRecord, RotationState, StoreError};

/// A rotation and what was counted of it.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What the store keeps. `total = flattened + purged + remaining`.
    pub record: RotationRecord,
    /// Records whose chain contains the old key, or would once wrapped.
    pub remaining: u64,
    /// Records that are gone since it began: revoked, unused for too long, or past the deadline.
    pub purged: u64,
    /// Records that are still to be wrapped.
    pub unwrapped: u64,
    /// Records wrapped in a second, lately; 0 while none are.
    pub rate: u64,
    /// The first day on which another rotation may begin.
    pub next_on: Day,
    /// The revision of the keys.
    pub revision: u64,
}

impl Progress {
    /// Seconds until all records are wrapped, at the present rate; `None` while none are.
    #[must_use]
    pub fn eta_seconds(&self) -> Option<u64> {
        self.unwrapped.checked_div(self.rate)
    }
}

/// The records of a store by their chains.
pub(super) struct Census(Vec<(Chain, u64)>);

impl Census {
    pub(super) const fn new(chains: Vec<(Chain, u64)>) -> Self {
        Self(chains)
    }

    /// Records not past `key`: their chain contains it, or would once wrapped.
    pub(super) fn not_past(&self, key: KeyId) -> u64 {
        self.count(|chain| chain.innermost() <= key)
    }

    /// Records whose outermost key is `key` or older.
    pub(super) fn unwrapped_by_younger_than(&self, key: KeyId) -> u64 {
        self.count(|chain| chain.outermost() <= key)
    }

    /// Records whose digest `key` alone made.
    pub(super) fn made_by(&self, key: KeyId) -> u64 {
        self.count(|chain| chain.keys() == [key])
    }

    fn count(&self, which: impl Fn(&Chain) -> bool) -> u64 {
        self.0.iter().filter(|(chain, _)| which(chain)).map(|(_, records)| records).sum()
    }

    /// What is left of `record`; `begun` unless its new key was never active.
    pub(super) fn progress(
        &self,
        mut record: RotationRecord,
        begun: bool,
        rate: u64,
        (next_on, revision): (Day, u64),
    ) -> Result<Progress, StoreError> {
        if record.purpose != KeyPurpose::Binding || !record.state.is_open() {
            let purged = record.total.saturating_sub(record.flattened);
            return Ok(Progress { record, remaining: 0, purged, unwrapped: 0, rate: 0, next_on, revision });
        }
        let from = key_id(&record.from)?;
        let remaining = self.not_past(from);
        if !begun {
            record.total = remaining;
        }
        // A sign-in between the two reads may have taken one off already.
        let purged = record.total.saturating_sub(record.flattened).saturating_sub(remaining);
        let unwrapped = self.unwrapped_by_younger_than(from);
        let rate = if record.state == RotationState::Running && unwrapped > 0 { rate } else { 0 };
        Ok(Progress { record, remaining, purged, unwrapped, rate, next_on, revision })
    }
}

/// The id of a binding key, as records of keys and rotations have it.
pub(super) fn key_id(text: &str) -> Result<KeyId, StoreError> {
    KeyId::parse(text).map_err(|_| StoreError::Corrupt("a binding key has no id of the form k1".into()))
}
