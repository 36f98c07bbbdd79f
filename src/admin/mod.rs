//! Operator verbs: the same over HTTP and on the command line. Calls the stages; has no rules of its own.

mod access;
#[cfg(any())]
mod api;
mod client;
mod documents;
mod server;

pub use access::{Peer, Roles};
pub use client::{AdminClient, ClientError};
pub use documents::{
    Account, Accounts, Binding, Bindings, IssuedCode, Refusal, RefusalDetail, Revoked, Session, Sessions,
};
pub use server::{AdminServer, BindSocketError};
