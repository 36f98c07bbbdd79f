//! Binding a handset by a one-time code or by the word of an upstream that may, and issuing the code.

use thiserror::Error;

use super::resolve::ATTEMPTS;
use super::{AccountId, BindingId, BoundAccount, Candidates, DigestError, EnrolmentCode, KeyRing};
use crate::carrier::RawIdentifier;
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};
use crate::keys::SessionKeys;
use crate::store::{
    BindingRecord, BindingStore, CodeIssuer, EnrolOutcome, Enrolment, EnrolmentAuthority, IssueOutcome, NewCode,
    StoreError,
};

/// Draws until a code with a free selector must have come up: with 9 in 10 selectors taken, this many draws miss
/// them all once in 37,000 times.
const SELECTOR_DRAWS: u32 = 100;

/// One handset's try at one code. Made while the identifier is still there, used after it is gone.
pub struct CodeAttempt {
    selector: String,
    macs: Vec<(String, [u8; 32])>,
    handset_tag: [u8; 16],
}

impl CodeAttempt {
    /// `identifier`'s try at `code`.
    #[must_use]
    pub fn new(keys: &SessionKeys, code: &EnrolmentCode, identifier: &RawIdentifier) -> Self {
        Self {
            selector: code.selector().to_owned(),
            macs: keys.code_macs(code),
            handset_tag: keys.handset_tag(identifier, code.selector()),
        }
    }
}

/// Why a handset was not bound.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// No live code matches, its tries are used up, or its account is suspended: one answer for all.
    #[error("code-invalid")]
    CodeInvalid,
    /// The account has its fill of bindings, or the handset belongs to another account. The code stays.
    /// [`enrol_by_console`] says it of a suspended account too.
    #[error("binding-limit")]
    BindingLimit,
    /// The key ring moved on at every attempt: the person has to try again. The code stays.
    #[error("the key ring moved during the enrolment; it has to be tried again")]
    Unsettled,
    /// A key came to be suspended meanwhile.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Binds the handset of `candidates` to the account of the code that `attempt` tried; `per_account` is the most
/// bindings an account may have.
///
/// # Errors
/// [`EnrolError`]; a wrong try was counted durably.
pub async fn enrol_by_code(
    store: &dyn BindingStore,
    ring: &KeyRing,
    candidates: Candidates,
    attempt: CodeAttempt,
    per_account: u32,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<BoundAccount, EnrolError> {
    let authority = || EnrolmentAuthority::Code {
        selector: attempt.selector.clone(),
        macs: attempt.macs.clone(),
        handset_tag: attempt.handset_tag,
    };
    match settled(store, ring, candidates, authority, per_account, entropy, now).await? {
        EnrolOutcome::Bound(record, issuer) | EnrolOutcome::AlreadyBound(record, issuer) => {
            let bound = bound(record);
            // One that a person made on another handset vouches for nothing but that.
            Ok(if issuer == Some(CodeIssuer::Operator) { bound.with_code() } else { bound })
        }
        EnrolOutcome::CodeInvalid | EnrolOutcome::Suspended => Err(EnrolError::CodeInvalid),
        EnrolOutcome::BindingLimit => Err(EnrolError::BindingLimit),
        EnrolOutcome::Stale => Err(EnrolError::Unsettled),
    }
}

/// What the word of an upstream led to.
pub enum ByConsole {
    /// The handset was bound.
    Bound(BoundAccount),
    /// It was bound to that account before.
    AlreadyBound(BoundAccount),
}

/// Binds the handset of `candidates` to `account`, because an upstream that may bind said that it is this account's;
/// the account is created if there is none.
///
/// # Errors
/// [`EnrolError`], never [`EnrolError::CodeInvalid`]; nothing changed.
pub async fn enrol_by_console(
    store: &dyn BindingStore,
    ring: &KeyRing,
    candidates: Candidates,
    account: AccountId,
    per_account: u32,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<ByConsole, EnrolError> {
    let authority = || EnrolmentAuthority::Console { account: account.clone() };
    match settled(store, ring, candidates, authority, per_account, entropy, now).await? {
        EnrolOutcome::Bound(record, _) => Ok(ByConsole::Bound(bound(record))),
        EnrolOutcome::AlreadyBound(record, _) => Ok(ByConsole::AlreadyBound(bound(record))),
        // One answer for all: whose handset it is, and who is suspended, is not for the console to learn.
        EnrolOutcome::BindingLimit | EnrolOutcome::Suspended | EnrolOutcome::CodeInvalid => {
            Err(EnrolError::BindingLimit)
        }
        EnrolOutcome::Stale => Err(EnrolError::Unsettled),
    }
}

/// Enrols under the key ring in force: where it moved on, with digests that are made again. Nothing but that outcome is
/// tried twice.
async fn settled(
    store: &dyn BindingStore,
    ring: &KeyRing,
    mut candidates: Candidates,
    authority: impl Fn() -> EnrolmentAuthority + Send,
    per_account: u32,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<EnrolOutcome, EnrolError> {
    let id = BindingId::from_random(random(entropy));
    for _ in 0..ATTEMPTS {
        let outcome = store.enrol(candidates.enrolment(authority(), id, per_account), now).await?;
        if outcome != EnrolOutcome::Stale {
            return Ok(outcome);
        }
        let Some(again) = ring.again(&candidates).await? else { break };
        candidates = again;
    }
    Ok(EnrolOutcome::Stale)
}

impl Candidates {
    fn enrolment(&self, authority: EnrolmentAuthority, id: BindingId, per_account: u32) -> Enrolment {
        let (chain, digest) = self.flat.clone();
        let (carrier, probes, generation) = (self.carrier.clone(), self.probes.clone(), self.generation);
        Enrolment { authority, carrier, probes, digest, chain, generation, id, per_account }
    }
}

fn bound(record: BindingRecord) -> BoundAccount {
    let BindingRecord { account, id, carrier, .. } = record;
    BoundAccount::new(account, id, carrier)
}

/// Draws a code whose selector is free, keeps its keyed hash, and creates the account if there is none. Returns the
/// code, shown once, and the last instant it may be used. `None` where the handset `asked_by` may not ask: it is not bound to
/// the account any more, or that is suspended; for the operator there is always one.
///
/// # Errors
/// [`StoreError`] if the store failed, or nearly all 10,000 selectors are in use.
pub async fn issue_code(
    store: &dyn BindingStore,
    keys: &SessionKeys,
    account: AccountId,
    asked_by: Option<BindingId>,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<Option<(EnrolmentCode, Timestamp)>, StoreError> {
    let expires_at = now.plus(EnrolmentCode::LIFETIME);
    for _ in 0..SELECTOR_DRAWS {
        let code = EnrolmentCode::generate(entropy);
        let (key, mac) = keys.code_mac(&code);
        let selector = code.selector().to_owned();
        let new = NewCode { account: account.clone(), selector, mac, key, expires_at, issued_at: now, asked_by };
        match store.issue_code(new).await? {
            IssueOutcome::Issued => return Ok(Some((code, expires_at))),
            IssueOutcome::NotEntitled => return Ok(None),
            IssueOutcome::SelectorTaken => {}
        }
    }
    Err(StoreError::Unavailable("too many enrolment codes are waiting to be used; they end within 10 minutes".into()))
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;

    assert_not_impl_any!(CodeAttempt: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
}
