//! The command line: arguments, exit codes, tables. No domain logic.
//!
//! A command that administers is one request to a running gateway, and prints the document of the answer: as a table to
//! a terminal, as aligned text to a pipe, as JSON when asked. `serve`, `check` and `dev` only hand over.

mod accounts;
mod approvals;
mod arguments;
mod audit;
mod backups;
mod bindings;
mod carriers;
mod codes;
mod compromise;
mod connection;
mod days;
mod drill;
mod failure;
mod import;
mod keys;
mod log;
mod logs;
mod output;
mod policy;
mod posture;
mod receipt;
mod reload;
mod rotation;
mod sessions;
mod stats;
mod status;
mod subject;
mod top;

pub use arguments::run;
