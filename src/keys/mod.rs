//! The keys: wrapped under the KEK in the store, opened once at start-up, held in clear for the life of the process.
//!
//! In: the KEK from its secret source, or the token that holds it, and the [`KeyStore`](crate::store::KeyStore). Out: a [`KeySet`], whose parts
//! the later stages hold. Afterwards every key in use was proven to belong to this store, purpose and id. Absent on
//! purpose: the moves of a rotation, which are `rotation`'s, and any way to print or copy a key.

mod binding_keys;
mod derive;
mod kek;
mod keyset;
mod seal;
mod session_keys;

pub use binding_keys::BindingKeys;
#[cfg(test)]
pub(crate) use derive::hex;
pub(crate) use derive::{framed, mac, subkey};
pub use kek::{Kek, KekError, KekSyntax, TokenFault};
pub use keyset::{KeySet, KeysError};
pub use seal::{AuditKey, AuditPublicKey, SEAL_BYTES};
pub use session_keys::SessionKeys;
