//! The keys at rest: wrapped under the KEK in the store, opened once at start-up.
mod skeleton;
pub use skeleton::*;
