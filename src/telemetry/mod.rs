//! Logs and metrics: no identifier, digest, token, code, cookie or serial, ever.
mod skeleton;
pub use skeleton::*;
