//! One look at all bindings: what stands for them in a receipt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::merkle::{MerkleRoot, hex, sha256};
use crate::binding::{Chain, KeyId};
use crate::store::{ReceiptStore, Scanned, StoreError};

/// All bindings of one instant.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    tree: MerkleRoot,
    chains: BTreeMap<Chain, u64>,
}

impl Survey {
    /// Adds the next binding; they come in the order of their ids.
    ///
    /// Its leaf is the text `ID CHAIN SHA256`, with the hash of its digest in hexadecimal: anybody with a copy of the
    /// store makes the same tree in ten lines, and from the tree nobody makes a digest.
    fn add(&mut self, binding: &Scanned) {
        let Scanned { id, chain, digest, .. } = binding;
        self.tree.add(format!("{id} {chain} {}", hex(&sha256(digest.as_bytes()))).as_bytes());
        if let Some(count) = self.chains.get_mut(chain) {
            *count += 1;
        } else {
            self.chains.insert(chain.clone(), 1);
        }
    }

    /// How many bindings there are.
    #[must_use]
    pub fn bindings(&self) -> u64 {
        self.tree.leaves()
    }

    /// The Merkle root over all of them.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        self.tree.root()
    }

    /// How many have each chain.
    #[must_use]
    pub const fn chains(&self) -> &BTreeMap<Chain, u64> {
        &self.chains
    }

    /// How many need `key`, or will once they are wrapped: their innermost key is that one or older.
    #[must_use]
    pub fn not_past(&self, key: KeyId) -> u64 {
        self.chains.iter().filter(|(chain, _)| chain.keys().first() <= Some(&key)).map(|(_, count)| count).sum()
    }
}

/// Looks at all bindings of `store` as they are at one instant. Memory does not grow with their number.
///
/// # Errors
/// [`StoreError`].
pub async fn survey(store: &dyn ReceiptStore) -> Result<Survey, StoreError> {
    let seen = Arc::new(Mutex::new(Survey::default()));
    let seeing = Arc::clone(&seen);
    let visit = move |binding: &Scanned| seeing.lock().unwrap_or_else(PoisonError::into_inner).add(binding);
    store.survey(Box::new(visit)).await?;
    let survey = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(survey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{BindingDigest, BindingId};

    #[test]
    fn a_survey_counts_by_chain_and_its_leaves_can_be_made_by_anybody() {
        let mut survey = Survey::default();
        for (number, chain) in [(1, "k1"), (2, "k1,k2"), (3, "k2")] {
            let digest = BindingDigest::from_bytes([number; 32]);
            let (id, chain) = (BindingId::from_random([number; 16]), Chain::parse(chain).unwrap());
            survey.add(&Scanned { position: number.into(), id, chain, digest });
        }
        assert_eq!((survey.bindings(), survey.not_past(KeyId::new(1)), survey.not_past(KeyId::new(2))), (3, 2, 3));
        assert_eq!(survey.not_past(KeyId::new(0)), 0);
        // Computed with Python's hashlib and uuid, from the sentence above `Survey::add`.
        assert_eq!(hex(&survey.root()), "b3b8880813c258e4b42beac9948dd940950701034acd5535355b89217bfacfeb");
    }
}
