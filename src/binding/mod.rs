//! `RawIdentifier` -> `BindingDigest` -> `AccountId`: the keyed hashes that stand for handsets.

mod account;
mod digest;
mod skeleton;

pub use account::{AccountId, AccountIdError, AccountState};
pub use digest::{BindingDigest, BindingId, Chain, KeyId};
pub use skeleton::*;
