//! The keys: wrapped under the KEK in the store, opened at start-up, held in clear while they are needed.
//!
//! In: the KEK from its secret source, or the token that holds it, and the [`KeyStore`](crate::store::KeyStore). Out: a [`KeySet`], whose parts
//! the later stages hold, and a [`Lifecycle`], which replaces single keys of the running set: store first, then memory.
//! Every key in use was proven to belong to this store, purpose and id. Absent on purpose: the moves of records in a
//! rotation, which are `rotation`'s, and any way to print or copy a key.

mod derive;
mod kek;
mod keyset;
mod lifecycle;
mod log_keys;
mod moves;
mod opened;
mod rewrap;
mod seal;
mod session_keys;
mod sid;

#[cfg(test)]
pub(crate) use derive::hex;
pub(crate) use derive::{framed, mac, subkey};
pub use kek::{Kek, KekError, KekSyntax, TokenFault};
pub use keyset::{KeySet, KeySuspended, KeysError};
pub use lifecycle::{Due, Lifecycle, LifecycleError, Moment, Rewrap};
pub use log_keys::{DayKey, LogDay};
pub use moves::{KeyRefusal, overdue};
pub use seal::{AuditKey, AuditPublicKey, SEAL_BYTES};
pub use session_keys::SessionKeys;
pub use sid::sid;
