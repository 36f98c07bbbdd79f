//! Socket bytes -> `RawHead`, `Client`.
mod skeleton;
pub use skeleton::*;
