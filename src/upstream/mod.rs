//! `Assertion` -> `UpstreamRequest`: routes, the stripped head, and the connection to the server behind us.
mod skeleton;
pub use skeleton::*;
