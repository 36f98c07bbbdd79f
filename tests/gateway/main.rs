//! The gateway as handsets, upstreams and operators meet it: real sockets, the real store, a clock that is moved.

mod enrolment;
mod harness;
mod sign_in;
