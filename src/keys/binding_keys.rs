//! Binding keys while the gateway runs: a fresh one for the store, and those of the store into the ring.

use std::sync::Arc;

use super::kek::{Kek, KeyPlace};
use super::keyset::{KeySet, KeysError, commitment, live_keys, random_key, unwrap_all};
use crate::clock::Timestamp;
use crate::entropy::Entropy;
use crate::store::{KeyDates, KeyPurpose, KeyRecord, KeyState, KeyStore};

/// What a rotation needs of the keys. Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct BindingKeys {
    set: Arc<KeySet>,
    store: Arc<dyn KeyStore>,
    kek: Kek,
    entropy: Arc<dyn Entropy>,
}

impl BindingKeys {
    /// Of the keys in `set`, which were opened from `store` with `kek`.
    #[must_use]
    pub const fn new(set: Arc<KeySet>, store: Arc<dyn KeyStore>, kek: Kek, entropy: Arc<dyn Entropy>) -> Self {
        Self { set, store, kek, entropy }
    }

    /// The set whose ring is kept.
    #[must_use]
    pub const fn set(&self) -> &Arc<KeySet> {
        &self.set
    }

    /// A key that was never there, `k` and `number`, pending or active, wrapped under the KEK. Always from the generator,
    /// never derived from an older one.
    ///
    /// # Errors
    /// [`KeysError`] if the store does not tell its id, or the KEK's token fails.
    pub async fn fresh(&self, number: u32, state: KeyState, now: Timestamp) -> Result<KeyRecord, KeysError> {
        let store_id = self.store.store_id().await?;
        let (purpose, id) = (KeyPurpose::Binding, format!("{}{number}", KeyPurpose::Binding.letter()));
        let clear = random_key(&*self.entropy);
        let place = KeyPlace { store_id: &store_id, purpose, id: &id };
        let wrapped = self.kek.wrap(&place, &clear, &*self.entropy).await?;
        let dates = KeyDates { activated_at: (state == KeyState::Active).then_some(now), ..KeyDates::default() };
        Ok(KeyRecord {
            commitment: commitment(purpose, &id, &clear),
            purpose,
            state,
            suspended: false,
            compromised: false,
            wrapped,
            created_at: now,
            dates,
            id,
        })
    }

    /// Puts the binding keys that the store has into the ring.
    ///
    /// # Errors
    /// [`KeysError`]; the ring is as it was, and refuses to write what the store would not take.
    pub async fn refresh(&self) -> Result<(), KeysError> {
        let stored = self.store.keys().await?;
        let binding = stored.keys.into_iter().filter(|key| key.purpose == KeyPurpose::Binding).collect();
        let keys = unwrap_all(&self.store.store_id().await?, &self.kek, binding).await?;
        self.set.binding.replace(live_keys(keys, stored.generation)?);
        Ok(())
    }
}
