//! `Session` -> [`Assertion`]: the one statement that an upstream may believe.
//!
//! A [`Signer`] turns [`Claims`] into a compact JWS (ES256, 60 s, one audience) and publishes its public keys; an
//! [`AssertionCache`] beside each session lets one be used for half its life; an [`AssertionVerifier`] judges one as
//! an upstream should. The format is the contract's (`interface.md` §5, `assertion.md`). No file outside this folder
//! names jsonwebtoken. Absent on purpose: anything that identifies the handset.

mod cache;
mod claims;
mod jwks;
mod provider;
mod signer;
mod verify;

pub use cache::{AssertionCache, UpstreamId, UpstreamIdentity};
pub use claims::{Claims, LIFETIME};
pub use jwks::JWKS_MAX_AGE;
pub use provider::install_crypto_provider;
pub use signer::{ASSERTION_FIELD, Assertion, SignError, Signer, UnusableKey, jwk_of_point};
pub use verify::{AssertionVerifier, JwksError, VerifiedClaims, VerifyError};
