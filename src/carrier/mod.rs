//! `ClientAddr` -> `CarrierMatch` -> `RawIdentifier`.
mod skeleton;
pub use skeleton::*;
