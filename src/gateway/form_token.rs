//! Form tokens: short-lived, single-use, each bound to the form and to the one it was made for.
//!
//! Bound to a handset (its identifier), a browser (carrier and User-Agent) or a session, so that a page elsewhere
//! cannot use a token that it fetched for itself to make somebody's handset act (login CSRF, enrolment into another
//! person's account). The key is of this process alone: a restart spends every token, and a form lost that way says so.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use ring::hmac;

use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};

/// How long a form may stay open.
pub(super) const LIFETIME: Duration = Duration::from_mins(10);

const NONCE: usize = 9;
const TAG: usize = 16;
const BYTES: usize = 4 + NONCE + TAG;

/// Which form a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The sign-in button.
    Login,
    /// The enrolment code.
    Enrol,
    /// Everything on the `me` page, and signing out.
    Me,
}

/// Makes and redeems form tokens.
pub(super) struct FormTokens {
    key: hmac::Key,
    /// Nonces of redeemed tokens until they would have expired. Only tokens that we made get in here.
    spent: DashMap<[u8; NONCE], i64>,
}

impl FormTokens {
    /// With a fresh key.
    #[must_use]
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>(entropy)), spent: DashMap::new() }
    }

    /// A token for `form`, usable once by whoever has the same `context` again.
    #[must_use]
    pub(super) fn issue(&self, form: Form, context: &[u8], entropy: &dyn Entropy, now: Timestamp) -> String {
        let expires = u32::try_from(now.plus(LIFETIME).unix_seconds()).unwrap_or(u32::MAX).to_be_bytes();
        let nonce: [u8; NONCE] = random(entropy);
        let tag = hmac::sign(&self.key, &message(form, context, expires, nonce));
        let mut token = Vec::with_capacity(BYTES);
        token.extend_from_slice(&expires);
        token.extend_from_slice(&nonce);
        token.extend(tag.as_ref().iter().take(TAG));
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Spends a token. `false` if it is not for this form and context, expired, or spent.
    #[must_use]
    pub(super) fn redeem(&self, text: &str, form: Form, context: &[u8], now: Timestamp) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) else { return false };
        let Some((expires, rest)) = bytes.split_first_chunk::<4>() else { return false };
        let Some((nonce, tag)) = rest.split_first_chunk::<NONCE>() else { return false };
        let expected = hmac::sign(&self.key, &message(form, context, *expires, *nonce));
        let expected = expected.as_ref().get(..TAG).unwrap_or_default();
        let genuine = bool::from(subtle::ConstantTimeEq::ct_eq(expected, tag));
        let end = i64::from(u32::from_be_bytes(*expires));
        genuine && now.unix_seconds() < end && self.spent.insert(*nonce, end).is_none()
    }

    /// Forgets spent tokens that have expired by now.
    pub(super) fn sweep(&self, now: Timestamp) {
        self.spent.retain(|_, end| *end > now.unix_seconds());
    }
}

fn message(form: Form, context: &[u8], expires: [u8; 4], nonce: [u8; NONCE]) -> Vec<u8> {
    let label: &[u8] = match form {
        Form::Login => b"sekisho/form/login/v1",
        Form::Enrol => b"sekisho/form/enrol/v1",
        Form::Me => b"sekisho/form/me/v1",
    };
    let mut message = Vec::with_capacity(label.len() + context.len() + 32);
    for part in [label, context, &expires, &nonce] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis((1_800_000_000 + seconds) * 1000)
    }

    #[test]
    fn a_token_serves_once_for_its_form_and_owner_within_its_time() {
        let entropy = SeededEntropy::new(1);
        let tokens = FormTokens::new(&entropy);
        let token = tokens.issue(Form::Enrol, b"handset", &entropy, at(0));
        assert!(!tokens.redeem(&token, Form::Login, b"handset", at(1)), "another form");
        assert!(!tokens.redeem(&token, Form::Enrol, b"stranger", at(1)), "another handset");
        assert!(!tokens.redeem(&token, Form::Enrol, b"handset", at(600)), "too late");
        assert!(tokens.redeem(&token, Form::Enrol, b"handset", at(599)));
        assert!(!tokens.redeem(&token, Form::Enrol, b"handset", at(599)), "twice");
        tokens.sweep(at(700));
        assert!(tokens.spent.is_empty());
    }

    #[test]
    fn what_we_did_not_make_is_refused() {
        let entropy = SeededEntropy::new(1);
        let (ours, theirs) = (FormTokens::new(&entropy), FormTokens::new(&entropy));
        let foreign = theirs.issue(Form::Login, b"", &entropy, at(0));
        let good = ours.issue(Form::Login, b"", &entropy, at(0));
        for text in ["", "x", "====", &foreign, &good[1..], &format!("{good}A")] {
            assert!(!ours.redeem(text, Form::Login, b"", at(1)), "{text}");
        }
        assert!(ours.spent.is_empty(), "a stranger's token takes no memory");
    }
}
