//! The embedded store: one SQLite file behind all ports.
//!
//! Writes go through one thread that puts every waiting call into one transaction, so that many sign-ins share
//! one fsync; a call is answered only after the commit that holds it. Another thread brings the journal into the file. Reads run on a few threads of their own, each
//! in one snapshot, which it shares with those that were asked before that began. A connection that met an error is dropped and opened anew for the next call, so the store comes
//! back by itself when its medium does. Nothing here blocks a runtime or needs one: calls come from many.
//!
//! Deliberately absent: a raw identifier, a token, a code. The file holds keyed hashes, wrapped keys and dates.

mod anew;
mod approvals;
mod audit;
mod backups;
mod bindings;
mod burden;
mod chains;
mod checkpointer;
mod connection;
mod damage;
mod enrolment;
mod file;
mod import;
mod key_change;
mod keys;
mod log_keys;
mod news;
mod notices;
mod open;
mod pins;
mod place;
mod proofs;
mod queue;
mod reader;
mod receipts;
mod rotations;
mod schema;
mod sessions;
mod shadow;
mod statistics;
mod subjects;
mod writer;

pub use open::{EmbeddedStore, Inspection, OpenError, Opened};
pub use place::VacantPlace;
pub use writer::WriteEvent;
