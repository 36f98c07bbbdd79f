//! Opening the keys of a store, making new ones, and the set of those in use.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use thiserror::Error;
use zeroize::Zeroizing;

use super::derive::framed;
use super::kek::{Kek, KekError, KeyPlace};
use super::opened::{ClearKey, KEY_BYTES, OpenedKeys, signs, unwrap_all};
use super::seal::{AuditKey, public_point};
use super::session_keys::SessionKeys;
use crate::assertion::Signer;
use crate::binding::{AUTO_STRETCH, BindingKey, KeyId, KeyRing, LiveKeys, PinHasher, StretchOutOfRange, Stretcher};
use crate::clock::Timestamp;
use crate::config::StretchSetting;
use crate::entropy::{Entropy, random};
use crate::secret::SecretBytes;
use crate::store::{
    KeyDates, KeyPurpose, KeyRecord, KeyState, KeyStore, SchemeRecord, StoreError, StoredKeys, StretchParameters,
};

/// The scheme of a new store, and the only one this program knows.
const SCHEME: &str = "v1";

/// The keys in clear, each part of which can be replaced while the others, and requests, go on.
pub struct KeySet {
    /// Keyed hashes of handset identifiers.
    pub binding: KeyRing,
    /// Keyed hashes of PINs.
    pub pins: PinHasher,
    assertion: ArcSwap<Signer>,
    /// `None` while a key that may be needed is suspended.
    session: ArcSwapOption<SessionKeys>,
    audit: ArcSwap<AuditKey>,
}

/// The session key is suspended: answer `key-suspended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the session key is suspended; `sekisho keys resume` or a rotation ends that")]
pub struct KeySuspended;

/// What a [`KeySet`] is made of, and what takes the place of its parts.
pub(super) struct Parts {
    binding: LiveKeys,
    assertion: Signer,
    session: Option<SessionKeys>,
    audit: AuditKey,
}

/// Why the keys cannot be opened. Nothing in the store was changed.
#[derive(Debug, Error)]
pub enum KeysError {
    /// No key opens under this KEK.
    #[error(
        "the keys in the store were wrapped under another KEK; nothing was changed. Point keys.kek at the KEK that \
         this store was made with, or store.path at the store that belongs to this KEK"
    )]
    WrongKek,
    /// The configured stretch is not the one that the store's records were made with.
    #[error(
        "binding.stretch differs from the one this store was made with; {orphaned} bindings would be orphaned. \
         Set binding.stretch = {stored} again, or start with a new store"
    )]
    StretchChanged {
        /// The value of `binding.stretch` that fits the store.
        stored: String,
        /// Bindings whose handsets would no longer be found.
        orphaned: u64,
    },
    /// The costs of the stretch are outside the accepted range.
    #[error(transparent)]
    StretchOutOfRange(#[from] StretchOutOfRange),
    /// The store's scheme is one that this program does not know.
    #[error("the store hashes by scheme {0}, which this version does not know; run the version that made it")]
    UnknownScheme(String),
    /// A record breaks an invariant. The text names the record, never its content.
    #[error("the keys in the store cannot be used: {0}; restore the store from a backup")]
    Corrupt(String),
    /// The token that holds the KEK failed.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeySet {
    /// Opens what the store holds; makes the first keys and the scheme in a store that has none.
    ///
    /// # Errors
    /// [`KeysError`]; the store is as it was.
    pub async fn open(
        store: &dyn KeyStore,
        kek: &Kek,
        stretch: StretchSetting,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<Self, KeysError> {
        if let Some(opened) = Self::inspect(store, kek, stretch).await? {
            return Ok(opened);
        }
        let store_id = store.store_id().await?;
        let scheme = first_scheme(&store_id, kek, stretch, entropy).await?;
        let keys = first_keys(&store_id, kek, entropy, now).await?;
        store.initialise(keys, scheme).await?;
        // Read back: the first writer wins, and that may have been another process.
        Self::inspect(store, kek, stretch).await?.ok_or_else(|| corrupt("the first keys were not kept"))
    }

    /// As [`KeySet::open`], but never writes: for `check`. `Ok(None)` if the store has no keys yet.
    ///
    /// # Errors
    /// As [`KeySet::open`].
    pub async fn inspect(store: &dyn KeyStore, kek: &Kek, stretch: StretchSetting) -> Result<Option<Self>, KeysError> {
        let stored = store.keys().await?;
        let scheme = match &stored.scheme {
            None if stored.keys.is_empty() => return Ok(None),
            None => return Err(corrupt("there are keys but no scheme")),
            Some(scheme) => scheme.clone(),
        };
        // The KEK is judged first: under a wrong one nothing else that could be said helps.
        let store_id = store.store_id().await?;
        let keys = unwrap_all(&store_id, kek, stored.keys).await?;
        if scheme.id != SCHEME {
            return Err(KeysError::UnknownScheme(scheme.id));
        }
        if scheme.stretch != parameters(stretch) {
            let orphaned = store.bound_under(&scheme.id).await?;
            return Err(KeysError::StretchChanged { stored: setting_text(scheme.stretch), orphaned });
        }
        let pin_secret = unwrap_pin_secret(&store_id, kek, &scheme).await?;
        Self::of(Parts::assemble(keys, stored.generation)?, &scheme, &pin_secret).map(Some)
    }

    fn of(parts: Parts, scheme: &SchemeRecord, pin_secret: &SecretBytes) -> Result<Self, KeysError> {
        let stretcher = Arc::new(Stretcher::new(scheme)?);
        Ok(Self {
            binding: KeyRing::new(parts.binding, Arc::clone(&stretcher)),
            pins: PinHasher::new(stretcher, pin_secret),
            assertion: ArcSwap::from_pointee(parts.assertion),
            session: ArcSwapOption::from_pointee(parts.session),
            audit: ArcSwap::from_pointee(parts.audit),
        })
    }

    /// What signs assertions now. Not to be held across an await.
    pub fn signer(&self) -> Guard<Arc<Signer>> {
        self.assertion.load()
    }

    /// What hashes codes and handset tags now.
    ///
    /// # Errors
    /// [`KeySuspended`] while a session key is suspended under which a live code may have been made.
    pub fn session(&self) -> Result<Arc<SessionKeys>, KeySuspended> {
        self.session.load_full().ok_or(KeySuspended)
    }

    /// What seals audit checkpoints and receipts now.
    #[must_use]
    pub fn audit(&self) -> Arc<AuditKey> {
        self.audit.load_full()
    }

    /// Puts `parts` in the place of those in force. The caller makes sure that they are newer.
    pub(super) fn replace(&self, parts: Parts) {
        self.binding.replace(parts.binding);
        self.assertion.store(Arc::new(parts.assertion));
        self.session.store(parts.session.map(Arc::new));
        self.audit.store(Arc::new(parts.audit));
    }
}

impl Parts {
    /// Opens `stored`, all of it.
    pub(super) async fn open(store_id: &[u8; 16], kek: &Kek, stored: StoredKeys) -> Result<Self, KeysError> {
        Self::assemble(unwrap_all(store_id, kek, stored.keys).await?, stored.generation)
    }

    /// Opens what may be needed of `stored`; what `opened` knows needs no KEK.
    pub(super) async fn reopen(
        opened: &mut OpenedKeys,
        store_id: &[u8; 16],
        kek: &Kek,
        stored: StoredKeys,
    ) -> Result<Self, KeysError> {
        Self::assemble(opened.open(store_id, kek, stored.keys).await?, stored.generation)
    }

    fn assemble(keys: Vec<ClearKey>, generation: u64) -> Result<Self, KeysError> {
        let (binding, others): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| key.record.purpose == KeyPurpose::Binding);
        let audit = active(&others, KeyPurpose::Audit)?;
        let audit = AuditKey::new(&audit.record.id, &audit.material);
        Ok(Self {
            binding: live_keys(binding, generation)?,
            assertion: signer(&others)?,
            session: session_keys(&others)?,
            audit: audit.ok_or_else(|| corrupt("an audit key is no P-256 key in PKCS#8"))?,
        })
    }
}

pub(super) fn live_keys(keys: Vec<ClearKey>, generation: u64) -> Result<LiveKeys, KeysError> {
    let keys = keys
        .into_iter()
        .map(|ClearKey { record, material }| {
            let id = KeyId::parse(&record.id).map_err(|_| corrupt("a binding key has no id of the form k1"))?;
            Ok(BindingKey { id, state: record.state, suspended: record.suspended, material })
        })
        .collect::<Result<_, KeysError>>()?;
    LiveKeys::new(keys, generation).map_err(|error| corrupt(&error.to_string()))
}

/// Published are the key that signs, the next one, so that verifiers know it before it signs, and the last one; none
/// that leaked, and none that is suspended.
fn signer(keys: &[ClearKey]) -> Result<Signer, KeysError> {
    use KeyState::{Active, Pending, Retiring};
    let active = active(keys, KeyPurpose::Assertion)?;
    let known: Vec<_> = in_states(keys, KeyPurpose::Assertion, &[Pending, Active, Retiring]).collect();
    let doubtful = |key: &ClearKey| key.record.compromised || key.record.suspended;
    let others: Vec<_> =
        known.iter().filter(|key| key.record.state != Active && !doubtful(key)).map(|key| &key.material).collect();
    let signer =
        if active.record.suspended { Signer::suspended(&others) } else { Signer::new(&active.material, &others) };
    let signer = signer.map_err(|_| corrupt("an assertion key is no P-256 key in PKCS#8"))?;
    Ok(if known.iter().any(|key| doubtful(key)) { signer.in_flux() } else { signer })
}

/// `None` if one that is needed is suspended: a code that was made under it could not be told from a wrong one.
fn session_keys(keys: &[ClearKey]) -> Result<Option<SessionKeys>, KeysError> {
    let active = active(keys, KeyPurpose::Session)?;
    let retiring: Vec<_> = in_states(keys, KeyPurpose::Session, &[KeyState::Retiring]).collect();
    if active.record.suspended || retiring.iter().any(|key| key.record.suspended) {
        return Ok(None);
    }
    Ok(Some(SessionKeys::new(active.named(), &retiring.iter().map(|key| key.named()).collect::<Vec<_>>())))
}

fn in_states<'k>(
    keys: &'k [ClearKey],
    purpose: KeyPurpose,
    states: &'k [KeyState],
) -> impl Iterator<Item = &'k ClearKey> {
    keys.iter().filter(move |key| key.record.purpose == purpose && states.contains(&key.record.state))
}

fn active(keys: &[ClearKey], purpose: KeyPurpose) -> Result<&ClearKey, KeysError> {
    match in_states(keys, purpose, &[KeyState::Active]).collect::<Vec<_>>().as_slice() {
        [active] => Ok(active),
        _ => Err(corrupt(&format!("not exactly one {purpose:?} key is active"))),
    }
}

/// `k1`, `a1`, `s1`, `u1`.
async fn first_keys(
    store_id: &[u8; 16],
    kek: &Kek,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<Vec<KeyRecord>, KekError> {
    let mut records = Vec::new();
    for purpose in KeyPurpose::ALL {
        let first = NewKey { purpose, number: 1, state: KeyState::Active };
        records.push(fresh_key(store_id, kek, first, entropy, now).await?);
    }
    Ok(records)
}

/// A key that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewKey {
    pub(super) purpose: KeyPurpose,
    /// What follows the purpose's letter in its id.
    pub(super) number: u32,
    /// Pending or active.
    pub(super) state: KeyState,
}

impl NewKey {
    /// `a2`.
    pub(super) fn id(self) -> String {
        format!("{}{}", self.purpose.letter(), self.number)
    }
}

/// A fresh key, wrapped.
pub(super) async fn fresh_key(
    store_id: &[u8; 16],
    kek: &Kek,
    new: NewKey,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<KeyRecord, KekError> {
    let NewKey { purpose, state, .. } = new;
    let id = new.id();
    let clear = if signs(purpose) { signing_key() } else { random_key(entropy) };
    Ok(KeyRecord {
        purpose,
        state,
        suspended: false,
        compromised: false,
        wrapped: kek.wrap(&KeyPlace { store_id, purpose: purpose.as_str(), id: &id }, &clear, entropy).await?,
        commitment: commitment(purpose, &id, &clear),
        public: if signs(purpose) { public_point(&clear) } else { None },
        created_at: now,
        dates: KeyDates { activated_at: (state == KeyState::Active).then_some(now), ..KeyDates::default() },
        id,
    })
}

/// What stands for the key where it must not: SHA-256 over purpose, id and material. A key has 256 random bits, so no
/// search finds it from there.
pub(super) fn commitment(purpose: KeyPurpose, id: &str, clear: &SecretBytes) -> [u8; 32] {
    let label = b"sekisho/key-commitment/v1";
    let framed = framed(&[label, purpose.as_str().as_bytes(), id.as_bytes(), clear.expose()]);
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, &framed).as_ref());
    out
}

pub(super) fn random_key(entropy: &dyn Entropy) -> SecretBytes {
    SecretBytes::new(Zeroizing::new(random::<KEY_BYTES>(entropy)).to_vec())
}

/// A P-256 key in PKCS#8. From ring's own generator, because ring accepts no other when it makes a key; so it does
/// not come from the injected [`Entropy`]. ring does not wipe the document it hands out.
#[expect(clippy::expect_used, reason = "no secret may be made without the generator, so the process ends here")]
fn signing_key() -> SecretBytes {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    SecretBytes::new(document.expect("getrandom(2) does not fail once the kernel is seeded").as_ref().to_vec())
}

async fn first_scheme(
    store_id: &[u8; 16],
    kek: &Kek,
    stretch: StretchSetting,
    entropy: &dyn Entropy,
) -> Result<SchemeRecord, KeysError> {
    let pin_secret = kek.wrap(&pin_secret_place(store_id, SCHEME), &random_key(entropy), entropy).await?;
    let scheme = SchemeRecord { id: SCHEME.into(), stretch: parameters(stretch), salt: random(entropy), pin_secret };
    // Costs that cannot be used must not be fixed in a store.
    Stretcher::new(&scheme)?;
    Ok(scheme)
}

/// No key has this purpose.
pub(super) const fn pin_secret_place<'a>(store_id: &'a [u8; 16], scheme: &'a str) -> KeyPlace<'a> {
    KeyPlace { store_id, purpose: "pin", id: scheme }
}

/// What keyed hashes of PINs are made with, in clear. The KEK has opened the keys before.
pub(super) async fn unwrap_pin_secret(
    store_id: &[u8; 16],
    kek: &Kek,
    scheme: &SchemeRecord,
) -> Result<SecretBytes, KeysError> {
    let secret = kek.unwrap(&pin_secret_place(store_id, &scheme.id), &scheme.pin_secret).await?;
    let whole = secret.filter(|secret| secret.expose().len() == KEY_BYTES);
    whole.ok_or_else(|| corrupt("the secret that PINs are hashed with is damaged"))
}

const fn parameters(stretch: StretchSetting) -> Option<StretchParameters> {
    match stretch {
        StretchSetting::Auto => Some(AUTO_STRETCH),
        StretchSetting::Off => None,
        StretchSetting::Custom(custom) => Some(custom),
    }
}

/// What to write behind `binding.stretch =`.
fn setting_text(stretch: Option<StretchParameters>) -> String {
    match stretch {
        None => r#""off""#.into(),
        Some(AUTO_STRETCH) => r#""auto""#.into(),
        Some(StretchParameters { memory_kib, passes }) => {
            format!(r#"{{ memory = "{memory_kib}KiB", passes = {passes} }}"#)
        }
    }
}

pub(super) fn corrupt(what: &str) -> KeysError {
    KeysError::Corrupt(what.to_owned())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(KeySet: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    const STORE: [u8; 16] = [7; 16];

    fn kek(seed: u64) -> Kek {
        Kek::parse(&Kek::generate_text(&SeededEntropy::new(seed))).unwrap()
    }

    fn records() -> Vec<KeyRecord> {
        let now = Timestamp::from_unix_millis(0);
        first_keys(&STORE, &kek(1), &SeededEntropy::new(2), now).now_or_never().unwrap().unwrap()
    }

    /// A KEK in the process answers at once.
    fn unwrapped(store_id: &[u8; 16], kek: &Kek, records: Vec<KeyRecord>) -> Result<Vec<ClearKey>, KeysError> {
        unwrap_all(store_id, kek, records).now_or_never().unwrap()
    }

    fn off() -> SchemeRecord {
        scheme_of(StretchSetting::Off).unwrap()
    }

    fn scheme_of(stretch: StretchSetting) -> Result<SchemeRecord, KeysError> {
        first_scheme(&STORE, &kek(1), stretch, &SeededEntropy::new(3)).now_or_never().unwrap()
    }

    fn set(keys: Vec<ClearKey>) -> KeySet {
        let secret = unwrap_pin_secret(&STORE, &kek(1), &off()).now_or_never().unwrap().ok().unwrap();
        KeySet::of(Parts::assemble(keys, 0).ok().unwrap(), &off(), &secret).ok().unwrap()
    }

    fn problem(records: Vec<KeyRecord>) -> String {
        let outcome = unwrapped(&STORE, &kek(1), records).and_then(|keys| Parts::assemble(keys, 0));
        outcome.err().map_or_else(|| "none".into(), |error| error.to_string())
    }

    #[test]
    fn the_first_keys_open_and_work() {
        let records = records();
        let ids: Vec<_> = records.iter().map(|record| (record.id.as_str(), record.purpose, record.state)).collect();
        assert_eq!(
            ids,
            [
                ("k1", KeyPurpose::Binding, KeyState::Active),
                ("a1", KeyPurpose::Assertion, KeyState::Active),
                ("s1", KeyPurpose::Session, KeyState::Active),
                ("u1", KeyPurpose::Audit, KeyState::Active),
            ]
        );
        let keys = unwrapped(&STORE, &kek(1), records).ok().unwrap();
        assert_ne!(keys[0].material.expose(), keys[2].material.expose());
        let set = set(keys);
        assert_eq!(set.signer().kid().unwrap().len(), 43);
    }

    #[test]
    fn a_wrong_kek_is_told_from_a_damaged_key() {
        assert!(matches!(unwrapped(&STORE, &kek(2), records()), Err(KeysError::WrongKek)));
        assert!(matches!(unwrapped(&[8; 16], &kek(1), records()), Err(KeysError::WrongKek)), "another store");
        let mut damaged = records();
        damaged[1].wrapped[20] ^= 1;
        assert!(problem(damaged).contains("damaged key a1"));
        let mut swapped = records();
        let moved = swapped[0].wrapped.clone();
        swapped[2].wrapped = moved;
        assert!(problem(swapped).contains("damaged key s1"));
    }

    #[test]
    fn key_records_that_contradict_each_other_are_refused() {
        type Change = fn(&mut Vec<KeyRecord>);
        let cases: [(&str, Change, &str); 7] = [
            ("as made", |_| (), "none"),
            ("no binding key", |keys| drop(keys.remove(0)), "exactly one binding key must be active"),
            ("no assertion key", |keys| drop(keys.remove(1)), "not exactly one Assertion key is active"),
            ("no session key", |keys| drop(keys.remove(2)), "not exactly one Session key is active"),
            ("two session keys", |keys| keys.push(keys[2].clone()), "not exactly one Session key is active"),
            ("no audit key", |keys| drop(keys.remove(3)), "not exactly one Audit key is active"),
            ("all destroyed", |keys| keys.iter_mut().for_each(|key| key.state = KeyState::Destroyed), "exactly one"),
        ];
        for (name, change, expected) in cases {
            let mut keys = records();
            change(&mut keys);
            assert!(problem(keys.clone()).contains(expected), "{name}: {}", problem(keys));
        }
    }

    #[test]
    fn a_destroyed_key_is_not_opened() {
        let mut keys = records();
        keys.push(KeyRecord { id: "k0".into(), state: KeyState::Destroyed, wrapped: Vec::new(), ..keys[0].clone() });
        assert_eq!(problem(keys), "none");
    }

    #[test]
    fn the_next_and_the_last_assertion_key_are_published_beside_the_active_one() {
        for (state, compromised, expected) in [
            (KeyState::Pending, false, 2),
            (KeyState::Retiring, false, 2),
            (KeyState::Retiring, true, 1),
            (KeyState::Drained, false, 1),
        ] {
            let new = NewKey { purpose: KeyPurpose::Assertion, number: 2, state };
            let (kek, entropy) = (kek(1), SeededEntropy::new(5));
            let fresh = fresh_key(&STORE, &kek, new, &entropy, Timestamp::from_unix_millis(0));
            let fresh = fresh.now_or_never().unwrap().unwrap();
            let mut all = records();
            all.push(KeyRecord { compromised, ..fresh });
            let keys = unwrapped(&STORE, &kek, all).ok().unwrap();
            let set = set(keys);
            let document = String::from_utf8(set.signer().jwks().0.to_vec()).unwrap();
            assert_eq!(document.matches("\"kid\"").count(), expected, "{state:?}");
        }
    }

    #[test]
    fn a_stretch_setting_is_fixed_as_its_parameters() {
        let custom = |memory_kib, passes| StretchSetting::Custom(StretchParameters { memory_kib, passes });
        for (setting, text) in [
            (StretchSetting::Auto, r#""auto""#),
            (StretchSetting::Off, r#""off""#),
            (custom(19_456, 2), r#""auto""#),
            (custom(65_536, 3), r#"{ memory = "65536KiB", passes = 3 }"#),
        ] {
            assert_eq!(setting_text(parameters(setting)), text, "{setting:?}");
        }
        let refused = scheme_of(custom(4, 1));
        assert!(matches!(refused, Err(KeysError::StretchOutOfRange(_))));
    }
}
