//! `Session` -> `Assertion`: the one statement that an upstream may believe.
mod skeleton;
pub use skeleton::*;
