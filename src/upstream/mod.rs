//! `Assertion` -> [`UpstreamRequest`] -> answer: routes, the stripped head, and the connection to the server behind us.
//!
//! In: a bounded head, what the gateway knows of its client, an assertion or none. Out: the answer's head without
//! anything of ours or of the connection, its body streaming. What holds afterwards: an upstream has seen no field,
//! cookie or query key that the gateway keeps for itself except those that the gateway wrote. Absent on purpose:
//! sessions and any decision about who may pass.

mod answer;
mod beside;
mod connect;
mod cookies;
mod ejection;
mod exchange;
mod fields;
mod flow;
#[cfg(fuzzing)]
pub mod fuzz;
mod health;
mod held;
mod interim;
mod line;
mod link;
mod pool;
mod queue;
mod route;
mod sanitize;
mod send;
mod servers;
mod splice;
mod standing;

#[cfg(test)]
mod tests;

pub use answer::BindClaim;
pub use exchange::{Answered, Exchange};
pub use flow::UpstreamBody;
pub use health::{Health, Observer, ServerNow};
pub use route::{Destination, RESERVED_PREFIX, RouteRefusal, Routes};
pub use sanitize::{Forwarded, StripError, StrippedHead, UpstreamRequest};
pub use send::{Ends, LimitedBody, NotBegun, UpstreamError, Upstreams};
