//! The PIN: the second secret of an account, what may be one, and how a typed one is judged.
//!
//! Four digits are searched in no time, so nothing that is stored may tell whether a guess is right without both the
//! memory-hard stretch and a secret that is not in the store's file in clear.

use std::sync::Arc;

use ring::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

use super::stretch::Stretcher;
use super::{AccountId, BindingId, DigestError};
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::keys::{framed, mac, subkey};
use crate::secret::SecretBytes;
use crate::store::{PinPace, PinRecord, PinStore, PinTry, PinVerdict, StoreError};

/// Digits that a PIN may have.
const SHORTEST: usize = 4;
const LONGEST: usize = 8;
/// Most characters of typed text that are looked at.
const MOST_TYPED: usize = 32;
/// How often a try is hashed again because the PIN was changed meanwhile.
const ATTEMPTS: u32 = 3;

/// Four to eight digits that a person chose.
///
/// Wiped on drop. Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// What a person typed: white space around it and full-width digits are forgiven. `None` if that does not leave four
    /// to eight digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Exact capacity, never exceeded: a string that grows would leave an unwiped copy behind.
        let mut digits = Zeroizing::new(String::with_capacity(LONGEST));
        if text.chars().nth(MOST_TYPED).is_some() {
            return None;
        }
        for typed in text.trim().chars() {
            let digit = match typed {
                '0'..='9' => typed,
                '０'..='９' => char::from_digit(u32::from(typed) - u32::from('０'), 10)?,
                _ => return None,
            };
            if digits.len() == LONGEST {
                return None;
            }
            digits.push(digit);
        }
        (digits.len() >= SHORTEST).then_some(Self(digits))
    }

    /// Whether it is among the first that anybody would try: one digit again and again, digits in a row up or down, two
    /// halves alike, the middle column of the keys. Such a PIN is not taken; one that was typed is judged all the same.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        let digits = self.0.as_bytes();
        let steps = |by: u8| digits.windows(2).all(|pair| matches!(pair, [a, b] if (a - b'0' + by) % 10 == b - b'0'));
        let (first, second) = digits.split_at(digits.len() / 2);
        let pairs = digits.chunks(2).all(|pair| pair.len() == 2 && digits.starts_with(pair));
        [0, 1, 9].into_iter().any(steps) || first == second || pairs || matches!(digits, b"2580" | b"0852")
    }

    /// Whether both are the same digits, in constant time for the same length.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_bytes(), other.0.as_bytes()).into()
    }

    /// The digits. Every use is a place to review.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// Makes the keyed hashes of PINs: HMAC, under a secret that lives as long as the store, of the account and what
/// Argon2id made of the PIN under a salt of its own. ring's copy of the key is not wiped.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct PinHasher {
    stretcher: Arc<Stretcher>,
    key: hmac::Key,
}

impl PinHasher {
    /// By the store's secret.
    #[must_use]
    pub fn new(stretcher: Arc<Stretcher>, secret: &SecretBytes) -> Self {
        Self { stretcher, key: subkey(secret.expose(), "sekisho/pin/v1") }
    }

    /// `pin` as it is stored for `account`.
    ///
    /// # Errors
    /// [`DigestError::Busy`] if too many wait for the stretch.
    pub async fn record(
        &self,
        account: &AccountId,
        pin: &Pin,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<PinRecord, DigestError> {
        let salt = random(entropy);
        Ok(PinRecord { salt, mac: self.mac(account, pin, salt).await?, set_at: now })
    }

    /// The account is in it, so that a row that is copied to another account is worth nothing there.
    async fn mac(&self, account: &AccountId, pin: &Pin, salt: [u8; 16]) -> Result<[u8; 32], DigestError> {
        let stretched = self.stretcher.stretch_pin(pin, salt).await?;
        Ok(mac(&self.key, &framed(&[account.as_str().as_bytes(), stretched.as_slice()])))
    }
}

/// Proof that the right PIN of an account was typed on one of its handsets: made only by [`try_pin`].
pub struct RightPin {
    binding: BindingId,
    salt: [u8; 16],
}

impl RightPin {
    /// On which handset.
    #[must_use]
    pub const fn binding(&self) -> BindingId {
        self.binding
    }

    /// Tells which PIN it was from the account's next one.
    #[must_use]
    pub const fn salt(&self) -> [u8; 16] {
        self.salt
    }
}

/// Why a PIN proved nothing.
#[derive(Debug, Error)]
pub enum PinError {
    /// The account has none.
    #[error("no PIN is set")]
    None,
    /// It is not the account's; the try was counted durably.
    #[error("pin-wrong")]
    Wrong {
        /// So many in a row on this handset; 0 where what was typed can be no PIN, which is no try.
        in_a_row: u32,
    },
    /// The handset may try again after that time.
    #[error("rate-limited")]
    TooOften(std::time::Duration),
    /// Too many stretches wait; nothing was counted.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The store failed, or the PIN was changed again and again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Judges what was typed on the handset of `binding`, which is `account`'s; `None` can be no PIN.
///
/// # Errors
/// [`PinError`].
pub async fn try_pin(
    store: &dyn PinStore,
    hasher: &PinHasher,
    (account, binding): (&AccountId, BindingId),
    typed: Option<&Pin>,
    pace: PinPace,
    now: Timestamp,
) -> Result<RightPin, PinError> {
    // Before the stretch, which costs: who has to wait is not stretched for.
    let wait = store.pin_wait(binding, pace, now).await?;
    if !wait.is_zero() {
        return Err(PinError::TooOften(wait));
    }
    for _ in 0..ATTEMPTS {
        let Some(PinRecord { salt, .. }) = store.pin(account).await? else { return Err(PinError::None) };
        let Some(typed) = typed else { return Err(PinError::Wrong { in_a_row: 0 }) };
        let mac = hasher.mac(account, typed, salt).await?;
        match store.judge_pin(PinTry { binding, salt, mac }, pace, now).await? {
            PinVerdict::Right => return Ok(RightPin { binding, salt }),
            PinVerdict::Wrong { in_a_row } => return Err(PinError::Wrong { in_a_row }),
            PinVerdict::TooOften(wait) => return Err(PinError::TooOften(wait)),
            PinVerdict::None => return Err(PinError::None),
            PinVerdict::Changed => {}
        }
    }
    Err(StoreError::Unavailable("the PIN keeps being changed".into()).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(Pin: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(PinHasher: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(PinRecord: std::fmt::Debug, std::fmt::Display, serde::Serialize);
    assert_not_impl_any!(RightPin: Clone, Copy, Default);

    fn pin(text: &str) -> Pin {
        Pin::parse(text).unwrap()
    }

    #[test]
    fn what_people_type_is_read_and_anything_else_is_not() {
        for (text, digits) in
            [("2719", "2719"), (" 27193846\r\n", "27193846"), ("２７１９", "2719"), ("\u{3000}27190", "27190")]
        {
            assert_eq!(pin(text).expose(), digits, "{text}");
        }
        let padded = format!("{}2719", " ".repeat(32));
        for text in ["", "271", "271938465", "27-19", "27 19", "271a", "+2719", "٢٧١٩", "-271", padded.as_str()] {
            assert!(Pin::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_first_guesses_of_anybody_are_weak() {
        for text in [
            "0000", "77777777", "1234", "0123", "7890", "4321", "98765432", "2109", "1212", "12341234", "123123",
            "4545", "121212", "2580", "0852",
        ] {
            assert!(pin(text).is_weak(), "{text}");
        }
        for text in ["2719", "1235", "1122", "13579", "27193846", "0001", "12312", "1221"] {
            assert!(!pin(text).is_weak(), "{text}");
        }
    }

    fn hasher(secret: u8) -> PinHasher {
        PinHasher::new(Arc::new(Stretcher::for_test()), &SecretBytes::new(vec![secret; 32]))
    }

    #[tokio::test]
    async fn a_hash_is_of_one_pin_one_account_one_salt_and_one_secret() {
        let alice = AccountId::parse("alice").unwrap();
        let bob = AccountId::parse("bob").unwrap();
        let one = hasher(1).mac(&alice, &pin("2719"), [7; 16]).await.unwrap();
        assert_eq!(one, hasher(1).mac(&alice, &pin("２７１９"), [7; 16]).await.unwrap());
        for other in [
            hasher(1).mac(&alice, &pin("2718"), [7; 16]).await,
            hasher(1).mac(&alice, &pin("27190"), [7; 16]).await,
            hasher(1).mac(&bob, &pin("2719"), [7; 16]).await,
            hasher(1).mac(&alice, &pin("2719"), [8; 16]).await,
            hasher(2).mac(&alice, &pin("2719"), [7; 16]).await,
        ] {
            assert_ne!(one, other.unwrap());
        }
        let entropy = SeededEntropy::new(1);
        let mut macs = Vec::new();
        for _ in 0..2 {
            macs.push(
                hasher(1).record(&alice, &pin("2719"), &entropy, Timestamp::from_unix_millis(1)).await.unwrap().mac,
            );
        }
        assert_ne!(macs[0], macs[1], "the same PIN is never stored alike");
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_reader(text in ".{0,40}") {
            if let Some(pin) = Pin::parse(&text) {
                prop_assert!((4..=8).contains(&pin.expose().len()) && pin.expose().bytes().all(|b| b.is_ascii_digit()));
                prop_assert!(!pin.is_weak() || pin.is(&pin));
            }
        }
    }
}
