//! A KEK that never leaves its token: the token itself wraps and unwraps.
//!
//! A call is one login, one operation, one logout, and reads the PIN anew: nothing is held between calls, so a token that
//! is taken away and comes back serves the next one. There are few calls: one a key at start, one for a new key.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::module::{self, KeyInToken, Module};
use super::{KekError, NONCE_BYTES, TokenFault};
use crate::config::TokenKey;
use crate::entropy::{Entropy, random};
use crate::secret::SecretBytes;

/// What a sample is bound to.
const SAMPLE: &[u8] = b"sekisho/kek-sample/v1";
/// What it is not bound to.
const ELSEWHERE: &[u8] = b"sekisho/kek-sample/v0";

/// A key in a token, by its names, and what it once encrypted.
pub(super) struct TokenKek {
    key: TokenKey,
    sample: Arc<Sample>,
}

/// Random bytes, not secret, that the key encrypted.
struct Sample {
    clear: [u8; 32],
    wrapped: Vec<u8>,
}

impl TokenKek {
    /// Tries the token: PIN, key, a sample there and back. Comes with what is doubtful about the key.
    pub(super) async fn open(key: TokenKey, entropy: &dyn Entropy) -> Result<(Self, Vec<String>), KekError> {
        let (clear, nonce) = (random(entropy), random(entropy));
        let tried = call(&key, move |key| Ok((Sample::make(key, clear, nonce)?, key.doubts()?)));
        let (sample, doubts) = tried.await?;
        Ok((Self { key, sample: Arc::new(sample) }, doubts))
    }

    /// Its labels.
    pub(super) fn name(&self) -> String {
        format!("{} in token {}", self.key.key, self.key.token)
    }

    /// Nonce, ciphertext, tag.
    pub(super) async fn wrap(
        &self,
        nonce: [u8; NONCE_BYTES],
        bound_to: &[u8],
        clear: &SecretBytes,
    ) -> Result<Vec<u8>, KekError> {
        let bound_to = bound_to.to_vec();
        let clear = SecretBytes::new(clear.expose().to_vec());
        call(&self.key, move |key| key.encrypt(nonce, &bound_to, clear.expose())).await
    }

    pub(super) async fn unwrap(
        &self,
        nonce: [u8; NONCE_BYTES],
        bound_to: &[u8],
        sealed: &[u8],
    ) -> Result<Option<SecretBytes>, KekError> {
        let (bound_to, sealed) = (bound_to.to_vec(), sealed.to_vec());
        let sample = Arc::clone(&self.sample);
        call(&self.key, move |key| match key.decrypt(nonce, &bound_to, &sealed) {
            Ok(clear) => Ok(Some(clear)),
            // Tokens differ in what they say of a tag that does not fit, and some say that they are broken. Whose
            // sample opens is not, so it was the tag.
            Err(fault) => {
                if sample.opens(key, SAMPLE)? {
                    Ok(None)
                } else {
                    Err(fault)
                }
            }
        })
        .await
    }
}

impl Sample {
    /// One that comes back from the token, and does not where it is said to be bound to something else.
    fn make(key: &KeyInToken<'_>, clear: [u8; 32], nonce: [u8; NONCE_BYTES]) -> Result<Self, TokenFault> {
        let sample = Self { clear, wrapped: key.encrypt(nonce, SAMPLE, &clear)? };
        let sound = sample.opens(key, SAMPLE)? && sample.opens(key, ELSEWHERE).is_err();
        if sound { Ok(sample) } else { Err(TokenFault::Untrue) }
    }

    fn opens(&self, key: &KeyInToken<'_>, bound_to: &[u8]) -> Result<bool, TokenFault> {
        let (nonce, sealed) = self.wrapped.split_first_chunk().ok_or(TokenFault::Untrue)?;
        Ok(key.decrypt(*nonce, bound_to, sealed)?.expose() == self.clear)
    }
}

/// Has the module's thread do `work` with the key, and waits for it as long as the configuration says.
async fn call<T: Send + 'static>(
    key: &TokenKey,
    work: impl Fn(&KeyInToken<'_>) -> Result<T, TokenFault> + Send + 'static,
) -> Result<T, KekError> {
    let (answer, answered) = oneshot::channel();
    let named = key.clone();
    let job = Box::new(move |module: &mut Module| {
        // Nobody waits any more for what comes to its turn too late.
        if !answer.is_closed() {
            let _ = answer.send(module.with_key(&named, &work));
        }
    });
    let outcome = match module::ask(&key.module, job) {
        Err(fault) => Err(fault),
        Ok(()) => match tokio::time::timeout(key.timeout, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(TokenFault::Failed("the module's thread ended".to_owned())),
            Err(_) => Err(TokenFault::Slow(key.timeout)),
        },
    };
    outcome.map_err(|fault| {
        let TokenKey { module, token, key, .. } = key.clone();
        KekError::Token { module, token, key, fault }
    })
}
