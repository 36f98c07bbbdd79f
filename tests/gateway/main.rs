//! The gateway as handsets, upstreams and operators meet it: real sockets, the real store, a clock that is moved.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

mod answers;
mod assertion;
mod enrolment;
mod failures;
mod harness;
mod ops;
mod paths;
mod sign_in;
mod smuggling;
mod spoofing;
mod streaming;
mod tls;
mod upgrade;
mod wire;
