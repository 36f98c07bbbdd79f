//! `AccountId` -> `Session`: opaque tokens, served from memory, durable in the store.
//!
//! Every request that carries a token is answered from memory ([`Sessions::check`]); every change is durable
//! before it is acknowledged. A [`LiveSession`] in hand proves that it had neither expired nor been revoked at the
//! `now` of the check. Whether the handset is still the one that signed in is asked of it with
//! [`LiveSession::same_device`].

mod cookie;
mod end;
mod last_cookie;
mod lifecycle;
mod live;
mod registry;
mod table;
mod token;

pub use cookie::{CookiePresence, SessionCookie};
pub use end::SessionEnd;
pub use last_cookie::{CookieToken, LastCookie};
pub use lifecycle::{Expiry, SessionPolicy};
pub use live::{LiveSession, SessionFacts};
pub use registry::{Check, Opening, Sessions};
pub use token::{ContinuityKey, SessionId, SessionSecret, SessionToken, TokenHash};
