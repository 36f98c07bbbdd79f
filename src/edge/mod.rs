//! Socket bytes -> [`RawHead`], [`Client`].
//!
//! In: a connection of a listener. Out: a bounded head with its repeats visible, whose host is one of ours, and
//! who asks. Absent on purpose: carriers, sessions, routes.

mod address_text;
mod client_addr;
mod client_body;
mod head;
mod host;
mod listener;
mod present;

pub use address_text::write_address;
pub use client_addr::{Client, ClientAddr, Scheme, TrustedProxies, UnknownSource, counted_as};
pub use client_body::ClientBody;
pub(crate) use head::cookie_pairs;
pub use head::{HeadError, HeadLimits, RawHead, fold, fold_byte};
pub use host::HostAllowList;
#[cfg(fuzzing)]
pub use listener::fuzz;
pub use listener::{
    Admission, Answers, Before, BindError, BoundListener, Connection, ConnectionLimits, Entrance, Handler, Inherited,
    InheritedError, Interim, ListenerHandle, OpenConnection, Outbox, Proxied, ProxyHeaderError, Terms, TermsInForce,
    TurnedAway, Workers, parse_proxy_header,
};
pub(crate) use listener::{Outgoing, serve_stream};
pub(crate) use present::{Present, is_gateways_own, is_hop_by_hop};
