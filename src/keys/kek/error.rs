//! Why a KEK cannot be had. Names its place and what to do, never the key or the PIN.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::config::SecretError;

/// A text that is no KEK; it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the KEK must be 32 bytes in base64 (44 characters); `openssl rand -base64 32` makes one")]
pub struct KekSyntax;

/// Why a KEK cannot be opened or used.
#[derive(Debug, Error)]
pub enum KekError {
    /// Its file, variable or credential cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What was read is no KEK.
    #[error(transparent)]
    Syntax(#[from] KekSyntax),
    /// It is in a token, and this program cannot talk to one.
    #[error(
        "pkcs11 is not in this build; build with `cargo build --release --features pkcs11`, or keep the KEK in a file, \
         a variable or a credential"
    )]
    NotBuilt,
    /// It is no KEK to rely on.
    #[error("the KEK does not give back what it has just wrapped, so nothing was changed; look at its token")]
    Untrue,
    /// The token, or the key in it.
    #[error("token {token:?}, key {key:?}, module {}: {fault}", module.display())]
    Token {
        /// The token's module.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
        /// What is wrong.
        fault: TokenFault,
    },
}

/// What can be wrong with a token.
#[derive(Debug, Error)]
pub enum TokenFault {
    /// The module is no PKCS#11 module, or is not there.
    #[error("the module cannot be loaded ({0}); install it, or correct pkcs11.module")]
    Module(String),
    /// No token has this label.
    #[error("there is no such token; connect it, or correct pkcs11.token")]
    NoToken,
    /// Several tokens have this label.
    #[error("several tokens have this label; rename or disconnect all but one")]
    ManyTokens,
    /// The PIN cannot be read.
    #[error("the PIN cannot be had: {0}")]
    Pin(#[from] SecretError),
    /// The token refused the PIN.
    #[error(
        "the token refused the PIN; correct what pkcs11.pin names before the next start, for a token locks after \
         some wrong ones"
    )]
    PinWrong,
    /// The PIN is the one that this token refused before.
    #[error(
        "the token refused this PIN before, so it was not tried again; correct what pkcs11.pin names, or restart \
         the gateway if the PIN was changed in the token"
    )]
    PinRefusedBefore,
    /// One more wrong PIN would lock the token.
    #[error(
        "one more wrong PIN locks this token, so none was tried; log in to it once by its own tools with the right PIN, \
         and correct what pkcs11.pin names"
    )]
    PinFinalTry,
    /// The PIN is locked.
    #[error("the PIN is locked; the token's security officer has to unlock it")]
    PinLocked,
    /// The user's PIN was never set, or must be changed first.
    #[error("the user's PIN is not set, or has to be changed first; the token's security officer sets it")]
    PinNotSet,
    /// No key has this label.
    #[error("there is no such key in the token; make it as docs/kek.md shows, or correct pkcs11.key")]
    NoKey,
    /// Several keys have this label.
    #[error("several keys in the token have this label; rename or delete all but one")]
    ManyKeys,
    /// The key is of another kind.
    #[error("the key is not an AES key of 256 bits; make one as docs/kek.md shows")]
    NotAes256,
    /// The key may not be used so.
    #[error("the key may not both encrypt and decrypt (CKA_ENCRYPT, CKA_DECRYPT); make one as docs/kek.md shows")]
    MayNotEncrypt,
    /// The token cannot do AES-GCM.
    #[error("the token does not know CKM_AES_GCM; it cannot hold a KEK")]
    NoMechanism,
    /// A sample did not come back from the token, or came back although it was altered.
    #[error("the token does not give back what it encrypted, or does not authenticate it; it cannot hold a KEK")]
    Untrue,
    /// The token did not answer in time.
    #[error("no answer within {0:?}; is it connected? pkcs11.timeout says how long to wait")]
    Slow(Duration),
    /// Calls wait for a token that does not answer.
    #[error("calls are waiting for an answer already; is it connected?")]
    Busy,
    /// Any other failure of a call.
    #[error("{0}; see the token's own log, and connect it again")]
    Failed(String),
}
