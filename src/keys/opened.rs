//! Keys in clear, as they come out of the store: opened under the KEK, or known to this process since it opened them.

use std::collections::BTreeMap;

use super::kek::{Kek, KeyPlace};
use super::keyset::{KeysError, corrupt};
use super::seal::public_point;
use crate::secret::SecretBytes;
use crate::store::{KeyPurpose, KeyRecord, KeyState};

/// Bytes of a binding or session key, and of the secret of the PINs.
pub(super) const KEY_BYTES: usize = 32;

/// A key record whose material was opened.
pub(super) struct ClearKey {
    pub(super) record: KeyRecord,
    pub(super) material: SecretBytes,
}

impl ClearKey {
    pub(super) fn named(&self) -> (&str, &SecretBytes) {
        (&self.record.id, &self.material)
    }

    fn judged(self) -> Result<Self, KeysError> {
        let Self { record, material } = &self;
        let id = &record.id;
        if !signs(record.purpose) && material.expose().len() != KEY_BYTES {
            return Err(corrupt(&format!("key {id} is not {KEY_BYTES} bytes long")));
        }
        if signs(record.purpose) && public_point(material) != record.public {
            return Err(corrupt(&format!("key {id} has another public half than its record says")));
        }
        Ok(self)
    }
}

/// Whether its keys are P-256 keys in PKCS#8; the others are random bytes.
pub(super) const fn signs(purpose: KeyPurpose) -> bool {
    matches!(purpose, KeyPurpose::Assertion | KeyPurpose::Audit)
}

/// The clear keys of a store; destroyed ones are left out, there is nothing in them.
pub(super) async fn unwrap_all(
    store_id: &[u8; 16],
    kek: &Kek,
    records: Vec<KeyRecord>,
) -> Result<Vec<ClearKey>, KeysError> {
    let mut opened = Vec::new();
    let mut closed = Vec::new();
    for record in records.into_iter().filter(|record| record.state != KeyState::Destroyed) {
        let place = KeyPlace { store_id, purpose: record.purpose.as_str(), id: &record.id };
        match kek.unwrap(&place, &record.wrapped).await? {
            Some(material) => opened.push(ClearKey { record, material }),
            None => closed.push(record.id),
        }
    }
    match (opened.is_empty(), closed.is_empty()) {
        (_, true) => {}
        (true, false) => return Err(KeysError::WrongKek),
        // The KEK is right, then, and these records were damaged or moved.
        (false, false) => return Err(corrupt(&format!("damaged key {}", closed.join(", ")))),
    }
    opened.into_iter().map(ClearKey::judged).collect()
}

/// The keys that this process opened and that may be needed: what happens to them alone needs no KEK.
///
/// Otherwise a token that is away would keep everybody from suspending a key that leaks. What is made of these keys is
/// in memory as long as they are. A key is taken from here only where the store holds the very bytes that were opened.
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
#[derive(Default)]
pub(super) struct OpenedKeys(BTreeMap<String, Opened>);

struct Opened {
    wrapped: Vec<u8>,
    material: SecretBytes,
}

impl OpenedKeys {
    /// The clear keys of `records` that may be needed; what is drained or gone is forgotten. The KEK opens those that are
    /// not known.
    ///
    /// # Errors
    /// [`KeysError`]; then it knows what it knew.
    pub(super) async fn open(
        &mut self,
        store_id: &[u8; 16],
        kek: &Kek,
        records: Vec<KeyRecord>,
    ) -> Result<Vec<ClearKey>, KeysError> {
        let needed = |record: &KeyRecord| !matches!(record.state, KeyState::Drained | KeyState::Destroyed);
        let records: Vec<_> = records.into_iter().filter(needed).collect();
        let unknown = records.iter().filter(|record| self.material(record).is_none()).cloned().collect();
        let mut now = BTreeMap::new();
        for ClearKey { record, material } in unwrap_all(store_id, kek, unknown).await? {
            now.insert(record.id, Opened { wrapped: record.wrapped, material });
        }
        for record in &records {
            if let Some(known) = self.0.remove(&record.id) {
                now.entry(record.id.clone()).or_insert(known);
            }
        }
        self.0 = now;
        let clear = |record: KeyRecord| {
            let material = SecretBytes::new(self.material(&record)?.expose().to_vec());
            Some(ClearKey { record, material }.judged())
        };
        records.into_iter().filter_map(clear).collect()
    }

    /// Proves that the KEK opens what it has just wrapped, before anything is made to need it, and knows the key.
    ///
    /// # Errors
    /// [`KeysError`].
    pub(super) async fn admit(&mut self, store_id: &[u8; 16], kek: &Kek, fresh: &KeyRecord) -> Result<(), KeysError> {
        for ClearKey { record, material } in unwrap_all(store_id, kek, vec![fresh.clone()]).await? {
            self.know(record.id, record.wrapped, material);
        }
        Ok(())
    }

    /// Knows a key by what it is wrapped as; of a record it knows one way to wrap it alone.
    pub(super) fn know(&mut self, id: String, wrapped: Vec<u8>, material: SecretBytes) {
        self.0.insert(id, Opened { wrapped, material });
    }

    /// Whether it knows all of `records` that can be known, as they are wrapped there.
    pub(super) fn knows(&self, records: &[KeyRecord]) -> bool {
        let there = |record: &&KeyRecord| record.state != KeyState::Destroyed;
        records.iter().filter(there).all(|record| self.material(record).is_some())
    }

    fn material(&self, record: &KeyRecord) -> Option<&SecretBytes> {
        self.0.get(&record.id).filter(|opened| opened.wrapped == record.wrapped).map(|opened| &opened.material)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::clock::Timestamp;
    use crate::entropy::SeededEntropy;
    use crate::keys::keyset::{NewKey, fresh_key};

    assert_not_impl_any!(OpenedKeys: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    const STORE: [u8; 16] = [7; 16];

    fn kek(seed: u64) -> Kek {
        Kek::parse(&Kek::generate_text(&SeededEntropy::new(seed))).unwrap()
    }

    fn record(number: u32) -> KeyRecord {
        let new = NewKey { purpose: KeyPurpose::Session, number, state: KeyState::Active };
        let entropy = SeededEntropy::new(number.into());
        let now = Timestamp::from_unix_millis(0);
        fresh_key(&STORE, &kek(1), new, &entropy, now).now_or_never().unwrap().unwrap()
    }

    fn opened(keys: &mut OpenedKeys, kek: &Kek, records: &[KeyRecord]) -> Result<Vec<String>, KeysError> {
        let clear = keys.open(&STORE, kek, records.to_vec()).now_or_never().unwrap()?;
        Ok(clear.into_iter().map(|key| key.record.id).collect())
    }

    #[test]
    fn what_was_opened_needs_the_kek_no_more_as_long_as_it_is_needed() {
        let (mut keys, another) = (OpenedKeys::default(), kek(2));
        let (first, second) = (record(1), record(2));
        assert!(opened(&mut keys, &another, std::slice::from_ref(&first)).is_err());
        let both = [first.clone(), second.clone()];
        assert_eq!(opened(&mut keys, &kek(1), &both).ok().unwrap(), ["s1", "s2"]);
        let turned = [second.clone(), KeyRecord { suspended: true, ..first.clone() }];
        assert_eq!(opened(&mut keys, &another, &turned).ok().unwrap(), ["s2", "s1"], "in the order of the records");

        assert!(opened(&mut keys, &another, &[first.clone(), record(3)]).is_err(), "s3 is not known");
        assert_eq!(opened(&mut keys, &another, &both).ok().unwrap().len(), 2, "it knows what it knew");
        let mut changed = both.clone();
        changed[0].wrapped = record(3).wrapped;
        assert!(opened(&mut keys, &another, &changed).is_err(), "other bytes than were opened");

        for state in [KeyState::Drained, KeyState::Destroyed] {
            let gone = [KeyRecord { state, ..first.clone() }, second.clone()];
            assert_eq!(opened(&mut keys, &another, &gone).ok().unwrap(), ["s2"]);
            assert!(opened(&mut keys, &another, &both).is_err(), "s1 was forgotten");
            assert!(opened(&mut keys, &kek(1), &both).is_ok());
        }
    }

    #[test]
    fn what_the_kek_does_not_open_again_is_not_admitted() {
        let mut keys = OpenedKeys::default();
        let mut fresh = record(1);
        assert!(keys.admit(&STORE, &kek(1), &fresh).now_or_never().unwrap().is_ok());
        assert!(opened(&mut keys, &kek(2), std::slice::from_ref(&fresh)).is_ok());
        fresh.wrapped[20] ^= 1;
        assert!(keys.admit(&STORE, &kek(1), &fresh).now_or_never().unwrap().is_err());
    }
}
