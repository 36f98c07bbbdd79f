//! Sockets -> requests: bind, accept, PROXY header, TLS, HTTP/1.1 and HTTP/2, time-outs towards clients, drain.
//!
//! In: `[[listener]]` and a [`Handler`]. Out: one call of the handler a request, with the [`Connection`] it came by.
//! Every worker is one thread with a runtime, listening sockets and a handler of its own, so nothing on the way of a
//! request is shared between cores; what cores share is asked when a connection comes ([`Admission`]). Absent on purpose: what a request means; no field of it is read here.

mod accept;
mod activity;
mod admission;
mod bind;
mod closing;
mod connection;
mod cork;
mod framing;
#[cfg(fuzzing)]
pub mod fuzz;
mod halves;
mod http1;
mod inherited;
mod interim;
mod outbox;
mod proxy_header;
mod pulse;
mod terms;
#[cfg(test)]
mod tests;
mod turned_away;
mod watched;
mod workers;

pub use admission::{Admission, ConnectionLimits};
pub use bind::{BindError, BoundListener};
pub(crate) use connection::serve_stream;
pub use connection::{Connection, Handler};
pub use inherited::{Inherited, InheritedError};
pub use interim::{Answers, Before, Interim};
pub use outbox::Outbox;
pub(crate) use outbox::Outgoing;
pub use proxy_header::{Proxied, ProxyHeaderError, parse as parse_proxy_header};
pub use terms::{ListenerHandle, OpenConnection, Terms, TermsInForce};
pub use turned_away::TurnedAway;
pub use workers::{Entrance, Workers};
