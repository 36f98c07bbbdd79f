//! The keys at rest: wrapped under the KEK in the store, opened once at start-up.
mod derive;
mod skeleton;
#[cfg(test)]
pub(crate) use derive::hex;
pub(crate) use derive::{framed, mac, subkey};
pub use skeleton::*;
