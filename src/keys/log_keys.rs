//! Keys of the days of the sealed access log: made ahead, wrapped as all keys are, destroyed at the end of the retention.

use super::kek::{Kek, KeyPlace};
use super::keyset::{KeysError, corrupt, random_key};
use super::opened::KEY_BYTES;
use crate::clock::Day;
use crate::entropy::Entropy;
use crate::secret::SecretBytes;
use crate::store::{KeyStore, LogKeyOutcome, LogKeyRecord, StoreError};

/// How often a key is wrapped anew because somebody changed the keys in between.
const ATTEMPTS: u32 = 8;

/// The key of one day, in clear: 256 random bits. No other key, and no earlier or later day, tells anything of it.
///
/// Wiped on drop. Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct DayKey {
    day: Day,
    store_id: [u8; 16],
    material: SecretBytes,
}

/// What is known of a day that a sealed log names.
pub enum LogDay {
    /// Its key.
    Key(DayKey),
    /// Its key was destroyed at the end of the retention.
    Destroyed,
    /// This store never had a key for it, or it is another store.
    Unknown,
}

impl DayKey {
    /// Whose lines it seals.
    #[must_use]
    pub const fn day(&self) -> Day {
        self.day
    }

    /// The store that it is of.
    #[must_use]
    pub const fn store_id(&self) -> &[u8; 16] {
        &self.store_id
    }

    /// The clear bytes.
    pub(crate) fn expose(&self) -> &[u8] {
        self.material.expose()
    }

    /// A key of no store.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_nobody(day: Day, byte: u8) -> Self {
        Self { day, store_id: [7; 16], material: SecretBytes::new(vec![byte; KEY_BYTES]) }
    }
}

/// The key of `day`, made if there is none; `None` for a day whose time is over.
pub(super) async fn made(
    store: &dyn KeyStore,
    kek: &Kek,
    entropy: &dyn Entropy,
    day: Day,
) -> Result<Option<DayKey>, KeysError> {
    let store_id = store.store_id().await?;
    let place = day.to_string();
    for _ in 0..ATTEMPTS {
        let stored = store.keys().await?;
        if stored.log_keys_from.is_some_and(|from| day < from) {
            return Ok(None);
        }
        if let Some(there) = stored.log_keys.iter().find(|key| key.day == day) {
            return open(&store_id, kek, there).await.map(Some);
        }
        let wrapped = kek.wrap(&at(&store_id, &place), &random_key(entropy), entropy).await?;
        match store.keep_log_key(LogKeyRecord { day, wrapped }, stored.revision).await? {
            // Opened again: what the KEK cannot give back must seal nothing.
            LogKeyOutcome::There(there) => return open(&store_id, kek, &there).await.map(Some),
            LogKeyOutcome::Past => return Ok(None),
            LogKeyOutcome::Stale => {}
        }
    }
    Err(StoreError::Unavailable("the keys keep being changed by others; try again".into()).into())
}

/// What is known of `day`.
pub(super) async fn opened(store: &dyn KeyStore, kek: &Kek, day: Day) -> Result<LogDay, KeysError> {
    let (store_id, stored) = (store.store_id().await?, store.keys().await?);
    match stored.log_keys.iter().find(|key| key.day == day) {
        Some(there) => Ok(LogDay::Key(open(&store_id, kek, there).await?)),
        None if stored.log_keys_from.is_some_and(|from| day < from) => Ok(LogDay::Destroyed),
        None => Ok(LogDay::Unknown),
    }
}

/// The same keys under another KEK.
pub(super) async fn rewrapped(
    store_id: &[u8; 16],
    from: &Kek,
    to: &Kek,
    keys: Vec<LogKeyRecord>,
    entropy: &dyn Entropy,
) -> Result<Vec<LogKeyRecord>, KeysError> {
    let mut rewrapped = Vec::new();
    for key in keys {
        let clear = open(store_id, from, &key).await?;
        let place = key.day.to_string();
        let wrapped = to.wrap_proven(&at(store_id, &place), &clear.material, entropy).await?;
        rewrapped.push(LogKeyRecord { day: key.day, wrapped });
    }
    Ok(rewrapped)
}

async fn open(store_id: &[u8; 16], kek: &Kek, key: &LogKeyRecord) -> Result<DayKey, KeysError> {
    let place = key.day.to_string();
    let material = kek.unwrap(&at(store_id, &place), &key.wrapped).await?;
    let whole = material.filter(|material| material.expose().len() == KEY_BYTES);
    let material = whole.ok_or_else(|| corrupt(&format!("the key of log day {} is damaged", key.day)))?;
    Ok(DayKey { day: key.day, store_id: *store_id, material })
}

/// No other key has this purpose.
const fn at<'a>(store_id: &'a [u8; 16], day: &'a str) -> KeyPlace<'a> {
    KeyPlace { store_id, purpose: "log", id: day }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::DayKey;

    assert_not_impl_any!(DayKey: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
}
