//! What a handset shows: tiny pages in the language, charset and markup that its browser knows.
mod skeleton;
pub use skeleton::*;
