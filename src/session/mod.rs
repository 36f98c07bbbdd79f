//! `AccountId` -> `Session`: opaque tokens, served from memory, durable in the store.

mod token;

pub use token::{SessionId, SessionToken, TokenHash};
