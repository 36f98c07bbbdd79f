//! The gateway as handsets, upstreams and operators meet it: real sockets, the real store, a clock that is moved.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

mod admin;
mod admin_input;
mod admin_tls;
mod answers;
mod approvals;
mod assertion;
mod audit;
mod authorize;
mod bind;
mod csrf;
mod enrolment;
mod failures;
mod form_fields;
mod forms_by_get;
mod hand_over;
mod harness;
mod import;
mod keys;
mod logs;
mod me;
mod ops;
mod paths;
mod proxy_header;
mod readiness;
mod recorder;
mod redirects;
mod reflected;
mod regressions;
mod retention;
mod rotation;
mod sessions;
mod sign_in;
mod smuggling;
mod spoofing;
mod strangers;
mod streaming;
mod tickets;
mod tls;
mod upgrade;
mod upstreams;
mod url_abuse;
mod url_sessions;
mod url_ways;
mod wire;
