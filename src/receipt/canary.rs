//! Canaries: synthetic handsets that go the way of bindings through a rotation, and show in each phase that a sign-in
//! finds its record, and that it needs the old key for it no longer than it should.
//!
//! Their digests are made, wrapped and flattened by the key ring, as those of bindings are; half of them sign in once the
//! wrap is done, half stay dormant. What was dormant is found until the old key is drained, and never after.

use serde::Serialize;
use thiserror::Error;

use crate::binding::{Candidates, DigestError, KeyId, KeyRing, Wrapping};
use crate::carrier::RawIdentifier;
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::store::{Canaries, CanaryPhase, CanaryRecord, Observation, ReceiptStore, StoreError, Wrappable};

/// Canaries of each kind. Each costs a stretch a phase.
const OF_EACH: usize = 4;

/// Why canaries were not looked up; ask again.
#[derive(Debug, Error)]
pub enum CanaryError {
    /// No digest can be made for now.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks the canaries of `rotation` up as a sign-in would, once a phase, and keeps what was found. In
/// [`CanaryPhase::Planted`], which comes before the rotation's first step, it draws them first; a rotation that has none
/// gets none later. `from` is the key that is to go.
///
/// # Errors
/// [`CanaryError`]; then nothing is kept, and the call may be repeated.
pub async fn observe(
    store: &dyn ReceiptStore,
    ring: &KeyRing,
    (rotation, from): (&str, KeyId),
    phase: CanaryPhase,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<(), CanaryError> {
    let Canaries { records, observed } = store.canaries(rotation).await?;
    if observed.iter().any(|observation| observation.phase == phase) {
        return Ok(());
    }
    let records = match phase {
        CanaryPhase::Planted => planted(ring, entropy).await?,
        // The bindings may not have been moved yet either.
        CanaryPhase::Activated => records,
        CanaryPhase::Wrapped | CanaryPhase::Flattened | CanaryPhase::Drained | CanaryPhase::Destroyed => {
            let wrapping = ring.wrapping()?;
            records.into_iter().map(|record| wrapped(&wrapping, record)).collect()
        }
    };
    if records.is_empty() {
        return Ok(());
    }
    let signs_in = matches!(phase, CanaryPhase::Flattened | CanaryPhase::Drained | CanaryPhase::Destroyed);
    let mut observation = Observation { phase, at: now, used: 0, dormant: 0, without_old_key: 0 };
    let mut seen = Vec::with_capacity(records.len());
    for mut record in records {
        let candidates = candidates(ring, &record.octets).await?;
        let found = finds(&candidates, &record, |_| true);
        if record.dormant {
            observation.dormant += u32::from(found);
            let without = finds(&candidates, &record, |keys| !keys.contains(&from));
            observation.without_old_key += u32::from(without);
        } else {
            observation.used += u32::from(found);
            if found && signs_in {
                (record.chain, record.digest) = candidates.flat;
            }
        }
        seen.push(record);
    }
    store.observe_canaries(rotation, seen, observation).await?;
    Ok(())
}

async fn planted(ring: &KeyRing, entropy: &dyn Entropy) -> Result<Vec<CanaryRecord>, DigestError> {
    let mut records = Vec::with_capacity(2 * OF_EACH);
    for number in 0..2 * OF_EACH {
        let octets = random(entropy);
        let (chain, digest) = candidates(ring, &octets).await?.flat;
        records.push(CanaryRecord { octets, dormant: number >= OF_EACH, chain, digest });
    }
    Ok(records)
}

async fn candidates(ring: &KeyRing, octets: &[u8; 32]) -> Result<Candidates, DigestError> {
    // In bulk: no person's stretch waits for it.
    ring.digest_in_bulk(RawIdentifier::canary(octets)).await
}

fn wrapped(ring: &Wrapping, record: CanaryRecord) -> CanaryRecord {
    let CanaryRecord { octets, dormant, chain, digest } = record;
    // As the runner that wraps bindings does it; a canary has no place among them.
    let as_it_was = Wrappable { position: 0, rev: 0, chain, digest };
    let (chain, digest) = match ring.wrap(&as_it_was) {
        Some(wrapped) => (wrapped.chain, wrapped.digest),
        None => (as_it_was.chain, as_it_was.digest),
    };
    CanaryRecord { octets, dormant, chain, digest }
}

/// Whether one of the digests that a sign-in probes is the record's; of chains that `may` be probed.
fn finds(candidates: &Candidates, record: &CanaryRecord, may: impl Fn(&[KeyId]) -> bool) -> bool {
    let probed = candidates.probes.iter().filter(|probe| may(probe.chain.keys()));
    // All are compared, as in a look-up.
    probed.filter(|probe| probe.digest == record.digest).count() > 0
}

/// What a receipt says of canaries.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CanaryReport {
    planted: Kinds,
    observed: Vec<Observed>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Kinds {
    used: u32,
    dormant: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Observed {
    phase: &'static str,
    at: String,
    found: Kinds,
    found_without_old_key: u32,
}

impl CanaryReport {
    /// The report on `canaries`.
    #[must_use]
    pub fn of(canaries: &Canaries) -> Self {
        let count = |dormant| canaries.records.iter().filter(|record| record.dormant == dormant).count();
        let count = |dormant| u32::try_from(count(dormant)).unwrap_or(u32::MAX);
        let observed = canaries.observed.iter().map(|observation| Observed {
            phase: observation.phase.as_str(),
            at: observation.at.rfc3339(),
            found: Kinds { used: observation.used, dormant: observation.dormant },
            found_without_old_key: observation.without_old_key,
        });
        Self { planted: Kinds { used: count(false), dormant: count(true) }, observed: observed.collect() }
    }
}
