//! All that is wrapped under one KEK, under another.

use super::kek::{Kek, KeyPlace};
use super::keyset::{KeysError, pin_secret_place, unwrap_pin_secret};
use super::log_keys;
use super::opened::{ClearKey, OpenedKeys, unwrap_all};
use crate::entropy::Entropy;
use crate::store::{KeyChange, StoredKeys};

/// What is to change in the store, and the keys as they are known from then on. Each was proven to come back from the KEK
/// that it is wrapped under, so that nothing has to be asked of that once the store has them.
pub(super) struct Rewrapped {
    pub(super) changes: Vec<KeyChange>,
    pub(super) opened: OpenedKeys,
}

impl Rewrapped {
    /// `stored`, which is wrapped under `from`, under `to`; destroyed keys have nothing to wrap.
    ///
    /// # Errors
    /// [`KeysError`] where either KEK fails, at whichever key.
    pub(super) async fn under(
        to: &Kek,
        from: &Kek,
        store_id: &[u8; 16],
        stored: StoredKeys,
        entropy: &dyn Entropy,
    ) -> Result<Self, KeysError> {
        let (mut changes, mut opened) = (Vec::new(), OpenedKeys::default());
        for ClearKey { record, material } in unwrap_all(store_id, from, stored.keys).await? {
            let place = KeyPlace { store_id, purpose: record.purpose.as_str(), id: &record.id };
            let wrapped = to.wrap_proven(&place, &material, entropy).await?;
            changes.push(KeyChange::Rewrap { id: record.id.clone(), wrapped: wrapped.clone() });
            opened.know(record.id, wrapped, material);
        }
        if let Some(scheme) = stored.scheme {
            let secret = unwrap_pin_secret(store_id, from, &scheme).await?;
            let wrapped = to.wrap_proven(&pin_secret_place(store_id, &scheme.id), &secret, entropy).await?;
            changes.push(KeyChange::RewrapPinSecret { wrapped });
        }
        let log_keys = log_keys::rewrapped(store_id, from, to, stored.log_keys, entropy).await?;
        changes.push(KeyChange::RewrapLogKeys(log_keys));
        Ok(Self { changes, opened })
    }
}
