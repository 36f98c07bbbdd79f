//! The binding keys and what they compute: the only place that hashes identifiers of handsets.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::hmac;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::stretch::{Stretched, Stretcher, Urgency};
use super::{BindingDigest, Chain, KeyId};
use crate::carrier::{CarrierName, RawIdentifier};
use crate::keys::{framed, mac, subkey};
use crate::secret::SecretBytes;
use crate::store::{KeyState, Probe, Wrappable, Wrapped};

/// First byte of every hashed message; another layout gets another number.
const MESSAGE_VERSION: u8 = 1;
/// How long digests that are out of date wait for the keys that the store has already: a moment, as a rule.
const PATIENCE: Duration = Duration::from_secs(2);

/// The binding keys in use and the stretch before them.
///
/// The keys can be replaced while digests are being made; each digest is made under one set of them.
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct KeyRing {
    keys: ArcSwap<LiveKeys>,
    /// Told when the keys are replaced.
    moved: Notify,
    stretcher: Arc<Stretcher>,
}

/// Everything the store needs to find one handset.
///
/// Beside the digests it holds the message they are made of, because a key ring that moves on before the store was
/// asked needs it again: the stretched identifier or, where its space is too large to be searched, the clear one. It
/// can be read by nobody but the ring, and is wiped with this value, at the end of the look-up. Deliberately absent:
/// `Debug`, `Display`, `Clone`, `Serialize`.
pub struct Candidates {
    /// The carrier profile (the namespace of the digests).
    pub carrier: CarrierName,
    /// The handset's digest under every live chain, in migration order; `[active]` last.
    pub probes: Vec<Probe>,
    /// The digest that a new record gets: made by the active key alone.
    pub flat: (Chain, BindingDigest),
    /// Generation of the key ring that made them.
    pub generation: u64,
    message: Zeroizing<Vec<u8>>,
}

/// Why there is no digest. Says nothing about the identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DigestError {
    /// More stretches wait than the queue holds: answer `rate-limited`.
    #[error("too many sign-ins at once; try again shortly")]
    Busy,
    /// A key that some record may need is suspended, so no look-up could be trusted to miss: answer `key-suspended`.
    #[error("a binding key is suspended; `sekisho keys resume` or `sekisho keys compromise` ends that")]
    KeySuspended,
}

impl KeyRing {
    /// A ring of `keys` behind `stretcher`.
    #[must_use]
    pub fn new(keys: LiveKeys, stretcher: impl Into<Arc<Stretcher>>) -> Self {
        Self { keys: ArcSwap::from_pointee(keys), moved: Notify::new(), stretcher: stretcher.into() }
    }

    /// Replaces the keys by those of a later generation; others change nothing, so that whoever read the store first may
    /// write here last. Digests that are being made may still use the former ones, and carry their generation.
    pub fn replace(&self, keys: LiveKeys) {
        let keys = Arc::new(keys);
        self.keys.rcu(|current| Arc::clone(if keys.generation > current.generation { &keys } else { current }));
        self.moved.notify_waiters();
    }

    /// Generation of the keys in force here; the store's is ahead of it for the moment of a change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.keys.load().generation
    }

    /// The digests of the same handset under the keys that came after those of `outdated`. Waits a little where only
    /// the store has them yet; `None` where none come.
    ///
    /// # Errors
    /// [`DigestError::KeySuspended`] if a key in use is.
    pub async fn again(&self, outdated: &Candidates) -> Result<Option<Candidates>, DigestError> {
        let Some(Wrapping(keys)) = self.after(outdated.generation).await? else { return Ok(None) };
        Ok(Some(keys.candidates(outdated.carrier.clone(), outdated.message.clone())))
    }

    /// The keys that came after those of `generation`. Waits a little where only the store has them yet; `None` where none
    /// come.
    ///
    /// # Errors
    /// [`DigestError::KeySuspended`] if a key in use is.
    pub async fn after(&self, generation: u64) -> Result<Option<Wrapping>, DigestError> {
        let moved = async {
            loop {
                let moves = self.moved.notified();
                if self.generation() != generation {
                    return;
                }
                moves.await;
            }
        };
        if timeout(PATIENCE, moved).await.is_err() {
            return Ok(None);
        }
        self.wrapping().map(Some)
    }

    /// The keys in force, to move records with.
    ///
    /// # Errors
    /// [`DigestError::KeySuspended`] if a key in use is: nothing is written then.
    pub fn wrapping(&self) -> Result<Wrapping, DigestError> {
        let keys = self.keys.load_full();
        keys.usable()?;
        Ok(Wrapping(keys))
    }

    /// Every digest under which this handset may be bound. By value: from here on only a key ring can read the identifier,
    /// until the look-up is over ([`Candidates`]).
    ///
    /// Stretches first, on a blocking thread, where the identifier's space is small. Time and work depend on the
    /// carrier's profile and on the keys, never on whether the handset is bound.
    ///
    /// # Errors
    /// [`DigestError`] if too many wait for the stretch, or a key in use is suspended.
    pub async fn digest(&self, identifier: RawIdentifier) -> Result<Candidates, DigestError> {
        self.digest_for(identifier, Urgency::SignIn).await
    }

    /// As [`KeyRing::digest`], for one of many that nobody waits for: is never refused for being too many, and leaves
    /// half of the stretches at a time to sign-ins.
    ///
    /// # Errors
    /// [`DigestError`] if a key in use is suspended, or the gateway ends.
    pub async fn digest_in_bulk(&self, identifier: RawIdentifier) -> Result<Candidates, DigestError> {
        self.digest_for(identifier, Urgency::Bulk).await
    }

    async fn digest_for(&self, identifier: RawIdentifier, urgency: Urgency) -> Result<Candidates, DigestError> {
        self.keys.load().usable()?;
        let carrier = identifier.carrier().clone();
        let stretched = self.stretcher.stretch(identifier, urgency).await?;
        // Loaded again: the stretch may have waited while a rotation replaced the keys.
        let keys = self.keys.load();
        keys.usable()?;
        let message = message(carrier.as_str(), &stretched);
        Ok(keys.candidates(carrier, message))
    }
}

/// The keys of one generation, to move records with.
pub struct Wrapping(Arc<LiveKeys>);

impl Wrapping {
    /// The key to which records move.
    #[must_use]
    pub fn active(&self) -> KeyId {
        self.0.keys.last().map_or_else(|| unreachable!("a ring has its active key"), |key| key.id)
    }

    /// Generation of the key ring.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// The record under every live key that is younger than its outermost one, in their order; `None` where there is
    /// none.
    #[must_use]
    pub fn wrap(&self, record: &Wrappable) -> Option<Wrapped> {
        self.wrap_all([record]).pop()
    }

    /// As [`Wrapping::wrap`], of many; those that it would give nothing for are left out.
    pub fn wrap_all<'r>(&self, records: impl IntoIterator<Item = &'r Wrappable>) -> Vec<Wrapped> {
        // Neighbours mostly have the same.
        let mut led: Option<(Chain, Chain)> = None;
        let mut wrapped = Vec::new();
        for Wrappable { position, rev, chain: before, digest } in records {
            let mut younger = self.younger_than(before.outermost()).peekable();
            if younger.peek().is_none() {
                continue;
            }
            let chain = match &led {
                Some((from, to)) if from == before => to.clone(),
                _ => {
                    let keys = self.younger_than(before.outermost());
                    let to = keys.fold(before.clone(), |chain, key| chain.under(key.id));
                    led.insert((before.clone(), to)).1.clone()
                }
            };
            let digest = younger.fold(digest.clone(), |digest, key| key.wrap(&digest));
            wrapped.push(Wrapped { position: *position, rev: *rev, before: before.clone(), chain, digest });
        }
        wrapped
    }

    fn younger_than(&self, outermost: KeyId) -> impl Iterator<Item = &LiveKey> {
        self.0.keys.iter().filter(move |key| key.id > outermost)
    }
}

/// A binding key, in clear, with what its state allows.
pub struct BindingKey {
    /// Its id.
    pub id: KeyId,
    /// Where it is in its life.
    pub state: KeyState,
    /// No sign-in may use it for now.
    pub suspended: bool,
    /// 32 bytes.
    pub material: SecretBytes,
}

/// The binding keys that records may be made of, oldest first, the active one last.
///
/// Their states are the catalogue of live chains. A chain is an unbroken run of live keys, because a wrap applies
/// every live key that is younger than the record's outermost one, in order and in one step. It ends at a key that
/// may be outermost, which an `inner` key is not. So D keys give at most D(D+1)/2 chains, and one key gives one.
/// ring's copies of the sub-keys are not wiped.
pub struct LiveKeys {
    keys: Vec<LiveKey>,
    suspended: bool,
    generation: u64,
}

struct LiveKey {
    id: KeyId,
    may_be_outermost: bool,
    base: hmac::Key,
    wrap: hmac::Key,
}

/// Keys whose states contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("exactly one binding key must be active, and no key in use may be younger")]
pub struct LiveKeysError;

impl LiveKeys {
    /// Picks from `keys`, in any order, those that records may be made of. `generation` is the store's.
    ///
    /// # Errors
    /// [`LiveKeysError`] unless exactly one key is active and none that is live is younger.
    pub fn new(keys: Vec<BindingKey>, generation: u64) -> Result<Self, LiveKeysError> {
        let mut live: Vec<_> = keys
            .into_iter()
            .filter(|key| matches!(key.state, KeyState::Active | KeyState::Retiring | KeyState::Inner))
            .collect();
        live.sort_by_key(|key| key.id);
        let one_active = live.iter().filter(|key| key.state == KeyState::Active).count() == 1;
        if !one_active || live.last().is_none_or(|youngest| youngest.state != KeyState::Active) {
            return Err(LiveKeysError);
        }
        let suspended = live.iter().any(|key| key.suspended);
        Ok(Self { keys: live.iter().map(LiveKey::of).collect(), suspended, generation })
    }

    fn usable(&self) -> Result<(), DigestError> {
        if self.suspended { Err(DigestError::KeySuspended) } else { Ok(()) }
    }

    /// Probes in migration order: older root first, shorter chain first. Records only ever move in that direction,
    /// so a record that moves during a look-up moves towards a probe still to come (`rotation.md` §4).
    fn candidates(&self, carrier: CarrierName, message: Zeroizing<Vec<u8>>) -> Candidates {
        let mut probes = Vec::with_capacity(self.keys.len() * (self.keys.len() + 1) / 2);
        for (at, root) in self.keys.iter().enumerate() {
            let mut outermost = root;
            let mut probe = Probe { chain: Chain::flat(root.id), digest: root.base(&message) };
            for outer in self.keys.iter().skip(at + 1) {
                let wrapped = Probe { chain: probe.chain.under(outer.id), digest: outer.wrap(&probe.digest) };
                let inner = std::mem::replace(&mut probe, wrapped);
                if outermost.may_be_outermost {
                    probes.push(inner);
                }
                outermost = outer;
            }
            // The whole run: it ends with the active key.
            probes.push(probe);
        }
        let flat = probes.last().map(|last| (last.chain.clone(), last.digest.clone()));
        let flat = flat.unwrap_or_else(|| unreachable!("a ring has its active key, which is the last root"));
        Candidates { carrier, probes, flat, generation: self.generation, message }
    }
}

impl LiveKey {
    fn of(key: &BindingKey) -> Self {
        Self {
            id: key.id,
            may_be_outermost: key.state != KeyState::Inner,
            base: subkey(key.material.expose(), "sekisho/id/v1"),
            wrap: subkey(key.material.expose(), "sekisho/wrap/v1"),
        }
    }

    fn base(&self, message: &[u8]) -> BindingDigest {
        BindingDigest::from_bytes(mac(&self.base, message))
    }

    fn wrap(&self, inner: &BindingDigest) -> BindingDigest {
        BindingDigest::from_bytes(mac(&self.wrap, inner.as_bytes()))
    }
}

/// What is hashed: version byte, then carrier, type and octets, each behind its length. No case folding: i-mode IDs
/// differ by case.
fn message(carrier: &str, stretched: &Stretched) -> Zeroizing<Vec<u8>> {
    let (kind, octets): (&str, &[u8]) = match stretched {
        Stretched::Plain(identifier) => ("handset", identifier.expose()),
        Stretched::Argon2id(octets) => ("handset-argon2id", octets.as_slice()),
    };
    let framed = framed(&[carrier.as_bytes(), kind.as_bytes(), octets]);
    let mut out = Zeroizing::new(Vec::with_capacity(1 + framed.len()));
    out.push(MESSAGE_VERSION);
    out.extend_from_slice(&framed);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::keys::hex;

    assert_not_impl_any!(KeyRing: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(Candidates: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(LiveKeys: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(BindingKey: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    use KeyState::{Active, Destroyed, Drained, Inner, Pending, Retiring};

    fn key(number: u32, state: KeyState) -> BindingKey {
        let material = if number == 1 { (0..32).collect() } else { vec![u8::try_from(number).unwrap(); 32] };
        BindingKey { id: KeyId::new(number), state, suspended: false, material: SecretBytes::new(material) }
    }

    fn live(states: &[KeyState]) -> LiveKeys {
        LiveKeys::new((1..).zip(states).map(|(number, state)| key(number, *state)).collect(), 7).unwrap()
    }

    fn plain(carrier: &str, octets: &[u8]) -> (CarrierName, Zeroizing<Vec<u8>>) {
        let identifier = RawIdentifier::for_test(carrier, octets, false);
        let carrier = identifier.carrier().clone();
        let message = message(carrier.as_str(), &Stretched::Plain(identifier));
        (carrier, message)
    }

    fn chains(candidates: &Candidates) -> Vec<String> {
        candidates.probes.iter().map(|probe| probe.chain.to_string()).collect()
    }

    #[test]
    fn the_states_of_the_keys_give_the_chains_in_migration_order() {
        for (states, expected) in [
            (&[Active][..], &["k1"][..]),
            (&[Active, Pending], &["k1"]),
            (&[Retiring, Active], &["k1", "k1,k2", "k2"]),
            (&[Inner, Active], &["k1,k2", "k2"]),
            (&[Drained, Active], &["k2"]),
            (&[Destroyed, Active], &["k2"]),
            (&[Retiring, Retiring, Active], &["k1", "k1,k2", "k1,k2,k3", "k2", "k2,k3", "k3"]),
            (&[Inner, Retiring, Active], &["k1,k2", "k1,k2,k3", "k2", "k2,k3", "k3"]),
            (&[Inner, Inner, Active], &["k1,k2,k3", "k2,k3", "k3"]),
            (&[Retiring, Drained, Active], &["k1", "k1,k3", "k3"]),
        ] {
            let (carrier, message) = plain("docomo", b"x");
            let candidates = live(states).candidates(carrier, message);
            assert_eq!(chains(&candidates), expected, "{states:?}");
            assert_eq!(candidates.probes.last().unwrap().chain, candidates.flat.0, "{states:?}");
            assert_eq!(candidates.probes.last().unwrap().digest, candidates.flat.1, "{states:?}");
            assert_eq!(candidates.generation, 7);
        }
    }

    #[test]
    fn contradicting_states_are_refused() {
        for states in [&[][..], &[Pending], &[Retiring], &[Active, Active], &[Active, Retiring], &[Active, Inner]] {
            let keys = (1..).zip(states).map(|(number, state)| key(number, *state)).collect();
            assert_eq!(LiveKeys::new(keys, 0).err(), Some(LiveKeysError), "{states:?}");
        }
    }

    #[test]
    fn keys_may_come_in_any_order() {
        let keys = LiveKeys::new(vec![key(2, Active), key(1, Retiring)], 0).unwrap();
        let (carrier, message) = plain("docomo", b"x");
        assert_eq!(chains(&keys.candidates(carrier, message)), ["k1", "k1,k2", "k2"]);
    }

    #[test]
    fn known_answers() {
        // Computed with Python's hmac and hashlib.
        let (carrier, message) = plain("softbank", b"1234567890123456");
        let candidates = live(&[Retiring, Retiring, Active]).candidates(carrier, message);
        let digests: Vec<_> = candidates.probes.iter().map(|probe| hex(probe.digest.as_bytes())).collect();
        assert_eq!(
            digests,
            [
                "d8d94ae4c4ba44d104f23dc09f162bd8d5b7bf05fa3c49f5d2ec97f1dc0ef0a3",
                "dba5f540f44c177890864b4f0d5b3dc652ff883cce9194c779787113b53264eb",
                "987387778da1cc4aad8c7aad57aa01e7033ba4d2a7ce427b778d489de2ef9fa6",
                "3ffa2957f5e643b7e46cc3c4773f08134100555c2f54eb598beace6295850916",
                "1c6002019a1b4fff5160156302b557ba48a595314ad300d5db2bd542bf0745d8",
                "64fb962ac4d54fd279a8c997da293bf8f192da815ee15af5348897330533a002",
            ]
        );
    }

    #[tokio::test]
    async fn a_small_space_is_stretched_before_it_is_hashed() {
        let ring = KeyRing::new(live(&[Active]), Stretcher::for_test());
        let digest = async |octets: &[u8], small| {
            ring.digest(RawIdentifier::for_test("docomo", octets, small)).await.ok().unwrap().flat.1
        };
        // Computed with Python's cryptography (Argon2id, 64 KiB, 1 pass, salt 00..0f), hmac and hashlib.
        assert_eq!(
            hex(digest(b"0123abc", true).await.as_bytes()),
            "be6f1f67ce03e3abc6a06686ec0fdc69d62110482546dfec06db1f91cc454f3e"
        );
        assert_ne!(digest(b"0123abc", false).await, digest(b"0123abc", true).await);
        assert_ne!(digest(b"0123abc", true).await, digest(b"0123abC", true).await);
    }

    #[tokio::test]
    async fn a_replaced_ring_digests_under_its_new_keys() {
        let ring = KeyRing::new(live(&[Active]), Stretcher::for_test());
        let before = ring.digest(RawIdentifier::for_test("docomo", b"0123abc", true)).await.ok().unwrap();
        ring.replace(LiveKeys::new(vec![key(1, Retiring), key(2, Active)], 8).unwrap());
        let after = ring.digest(RawIdentifier::for_test("docomo", b"0123abc", true)).await.ok().unwrap();
        assert_eq!((before.generation, after.generation), (7, 8));
        assert_eq!(chains(&after), ["k1", "k1,k2", "k2"]);
        assert_eq!(after.probes[0].digest, before.flat.1);
        assert_ne!(after.flat.1, before.flat.1);
    }

    #[tokio::test]
    async fn digests_are_made_again_under_the_keys_that_come() {
        let ring = KeyRing::new(live(&[Active]), Stretcher::for_test());
        let before = ring.digest(RawIdentifier::for_test("docomo", b"0123abc", true)).await.ok().unwrap();
        tokio::time::pause();
        assert!(ring.again(&before).await.ok().unwrap().is_none(), "none come");
        let mut waiting = Box::pin(ring.again(&before));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        ring.replace(LiveKeys::new(vec![key(1, Retiring), key(2, Active)], 8).unwrap());
        let after = waiting.await.ok().unwrap().unwrap();
        let fresh = ring.digest(RawIdentifier::for_test("docomo", b"0123abc", true)).await.ok().unwrap();
        assert_eq!((after.generation, &after.flat.1), (8, &fresh.flat.1));
        assert_eq!(chains(&after), chains(&fresh));

        // What is older, or the same, replaces nothing.
        ring.replace(live(&[Active]));
        assert_eq!(ring.generation(), 8);
        let mut suspended = key(2, Active);
        suspended.suspended = true;
        ring.replace(LiveKeys::new(vec![key(1, Retiring), suspended], 9).unwrap());
        assert_eq!(ring.again(&after).await.err(), Some(DigestError::KeySuspended));
        assert!(ring.wrapping().is_err(), "nothing is written");
    }

    #[tokio::test]
    async fn a_wrapped_record_is_found_where_a_look_up_looks() {
        let ring = KeyRing::new(live(&[Retiring, Retiring, Active]), Stretcher::for_test());
        let (carrier, message) = plain("docomo", b"x");
        let candidates = live(&[Retiring, Retiring, Active]).candidates(carrier, message);
        let wrapping = ring.wrapping().unwrap();
        assert_eq!((wrapping.active(), wrapping.generation()), (KeyId::new(3), 7));
        for (at, expected) in [(0, Some(2)), (1, Some(2)), (2, None), (3, Some(4)), (4, None), (5, None)] {
            let Probe { chain, digest } = candidates.probes[at].clone();
            let wrapped = wrapping.wrap(&Wrappable { position: 5, rev: 6, chain, digest });
            let found = wrapped.map(|w| {
                assert_eq!((w.position, w.rev), (5, 6));
                candidates.probes.iter().position(|probe| probe.chain == w.chain && probe.digest == w.digest).unwrap()
            });
            assert_eq!(found, expected, "{}", candidates.probes[at].chain);
        }
    }

    #[tokio::test]
    async fn a_suspended_key_in_use_stops_every_digest() {
        for (suspended, expected) in
            [(1, Some(DigestError::KeySuspended)), (2, Some(DigestError::KeySuspended)), (3, None)]
        {
            let mut keys = vec![key(1, Retiring), key(2, Active), key(3, Pending)];
            keys[suspended - 1].suspended = true;
            let ring = KeyRing::new(LiveKeys::new(keys, 0).unwrap(), Stretcher::for_test());
            let outcome = ring.digest(RawIdentifier::for_test("docomo", b"0123abc", true)).await;
            assert_eq!(outcome.err(), expected, "k{suspended}");
        }
    }

    proptest! {
        #[test]
        fn distinct_carriers_types_and_identifiers_never_hash_the_same_message(
            a in ("[a-z]{1,3}", any::<bool>(), proptest::collection::vec(0_u8..4, 32)),
            b in ("[a-z]{1,3}", any::<bool>(), proptest::collection::vec(0_u8..4, 32)),
        ) {
            let of = |(carrier, argon, octets): &(String, bool, Vec<u8>)| {
                let stretched = if *argon {
                    Stretched::Argon2id(Zeroizing::new(octets.as_slice().try_into().unwrap()))
                } else {
                    Stretched::Plain(RawIdentifier::for_test(carrier, octets, false))
                };
                message(carrier, &stretched)
            };
            prop_assert_eq!(a == b, of(&a) == of(&b));
            // The same octets, only differently cut or typed.
            let moved = (format!("{}{}", a.0, "a"), a.1, a.2.clone());
            let retyped = (a.0.clone(), !a.1, a.2.clone());
            prop_assert!(of(&moved) != of(&a));
            prop_assert!(of(&retyped) != of(&a));
        }

        #[test]
        fn d_live_keys_give_at_most_their_triangle_of_probes_whatever_the_identifier(
            older in proptest::collection::vec(prop_oneof![Just(Retiring), Just(Inner)], 0..5),
            octets in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let mut states = older;
            states.push(Active);
            let ring = live(&states);
            let (carrier, message) = plain("docomo", &octets);
            let candidates = ring.candidates(carrier, message);
            let d = states.len();
            let inner = states.iter().filter(|state| **state == Inner).count();
            prop_assert!(candidates.probes.len() <= d * (d + 1) / 2);
            prop_assert_eq!(inner == 0, candidates.probes.len() == d * (d + 1) / 2);
            let (other_carrier, other) = plain("au", b"other");
            prop_assert_eq!(chains(&candidates), chains(&ring.candidates(other_carrier, other)));
            for (at, probe) in candidates.probes.iter().enumerate() {
                prop_assert!(candidates.probes[..at].iter().all(|p| p.digest != probe.digest && p.chain < probe.chain));
            }
        }
    }
}
