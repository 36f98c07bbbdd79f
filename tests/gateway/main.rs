//! The gateway as handsets, upstreams and operators meet it: real sockets, the real store, a clock that is moved.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

mod enrolment;
mod harness;
mod sign_in;
