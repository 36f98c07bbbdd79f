//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use super::{AccountId, BindingDigest, BindingId, Chain};
use crate::carrier::{CarrierName, RawIdentifier};
use crate::clock::Timestamp;
use crate::entropy::Entropy;
use crate::store::{BindingStore, Probe, StoreError};

/// The binding keys in clear and what they compute. Wiped on drop, but for ring's own copies.
pub struct KeyRing {
    _p: (),
}
/// Everything the store needs to find one handset. Holds no clear identifier.
pub struct Candidates {
    pub carrier: CarrierName,
    /// All live chains and each extended by the active key, in migration order; `[active]` last.
    pub probes: Vec<Probe>,
    /// The digest that a new record gets.
    pub flat: (Chain, BindingDigest),
    /// Generation of the key ring that made them.
    pub generation: u64,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// More stretches wait than the semaphore's queue allows: answer `rate-limited`.
    #[error("too many sign-ins at once")]
    Busy,
    #[error("a key that the digest needs is suspended")]
    KeySuspended,
}
impl KeyRing {
    /// By value: the clear identifier ends here. Stretches (on a blocking thread, behind a small semaphore) where the
    /// identifier's space is small.
    pub async fn digest(&self, _identifier: RawIdentifier) -> Result<Candidates, DigestError> {
        todo!()
    }
}
/// An active account that holds the binding: built only by `resolve` (and by a completed enrolment).
pub struct BoundAccount {
    pub account: AccountId,
    pub binding: BindingId,
    pub carrier: CarrierName,
}
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// Unknown, suspended or revoked: one answer for all, in the same time.
    #[error("not-bound")]
    NotBound,
    /// The key ring moved on during the look-up, several times.
    #[error("the key ring keeps moving")]
    Unsettled,
    #[error(transparent)]
    Store(#[from] StoreError),
}
/// Looks a handset up under all its chains, with the generation re-check of rotation.md §3, then notes the use and
/// flattens the record (`BindingStore::used`).
pub async fn resolve(
    _store: &dyn BindingStore,
    _candidates: &Candidates,
    _now: Timestamp,
) -> Result<BoundAccount, BindingError> {
    todo!()
}
/// Twelve decimal digits; the first four select the code. No Debug, Display, Clone, Serialize; wiped on drop.
pub struct EnrolmentCode {
    _p: (),
}
impl EnrolmentCode {
    pub const LIFETIME: std::time::Duration = std::time::Duration::from_mins(10);
    /// Uniform over all 10^12 codes (rejection sampling).
    pub fn generate(_entropy: &dyn Entropy) -> Self {
        todo!()
    }
    /// What a person typed: spaces, hyphens, full-width digits and full-width hyphens are forgiven. None otherwise.
    pub fn parse(_text: &str) -> Option<Self> {
        todo!()
    }
    pub fn selector(&self) -> &str {
        todo!()
    }
    /// `1234-5678-9012`, for the one time it is shown.
    pub fn expose_grouped(&self) -> String {
        todo!()
    }
    /// The 12 digits.
    pub fn expose(&self) -> &str {
        todo!()
    }
}
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("code-invalid")]
    CodeInvalid,
    #[error("binding-limit")]
    BindingLimit,
    #[error("the key ring keeps moving")]
    Unsettled,
    #[error(transparent)]
    Store(#[from] StoreError),
}
/// Binds a handset by a code. A suspended account answers as a wrong code does.
/// `handset_tag` and `code_macs` come from `SessionKeys`, made before the identifier was given up.
pub async fn enrol_by_code(
    _store: &dyn BindingStore,
    _candidates: Candidates,
    _selector: &str,
    _macs: Vec<(String, [u8; 32])>,
    _handset_tag: [u8; 16],
    _per_account: u32,
    _entropy: &dyn Entropy,
    _now: Timestamp,
) -> Result<BoundAccount, EnrolError> {
    todo!()
}
/// Draws a code whose selector is free and keeps its keyed hash. Returns it and its end.
pub async fn issue_code(
    _store: &dyn BindingStore,
    _keys: &crate::keys::SessionKeys,
    _account: AccountId,
    _entropy: &dyn Entropy,
    _now: Timestamp,
) -> Result<(EnrolmentCode, Timestamp), StoreError> {
    todo!()
}
