//! Operator verbs: the same over HTTP and on the command line. Calls the stages; has no rules of its own.
//!
//! In: a request on the UNIX socket, whose peer the kernel names. Out: one of the documents of `interface.md` §8.
//! A handler that holds an `access::Operator` has proof that its caller may call it.

mod access;
mod api;
mod body;
mod client;
mod documents;
#[cfg(fuzzing)]
pub mod fuzz;
mod import;
mod lines;
mod operations;
mod refused;
mod replay;
mod server;

pub use access::{Peer, Roles};
pub use api::router;
pub use client::{AdminClient, ClientError};
pub use documents::{
    Account, Accounts, Binding, Bindings, ImportEvent, ImportProgress, Imported, IssuedCode, Refusal, RefusalDetail,
    RefusedLine, Revoked, Session, Sessions,
};
pub use operations::Operations;
pub use server::{AdminServer, BindSocketError};
