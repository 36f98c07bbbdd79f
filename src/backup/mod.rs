//! Copies of the store that leave the machine, and what must outlive the store so that none of them brings back what is over.
//!
//! In: the ports to the store, the KEK, a folder. Out: [`Backups`], which takes copies as encrypted files ([`Taking`]) and
//! keeps the [`Ledger`]; `crate::gateway::restore` puts a file back where no gateway runs. Each copy has a key of its own, which
//! the ledger alone has: whoever destroys that entry has shredded the file, wherever copies of it are. Absent on purpose:
//! the KEK, which is in no copy and in no ledger; names of what was erased.

mod archive;
mod hex;
mod ledger;
mod service;
mod taking;

pub use archive::{ArchiveError, ArchiveHeader, ArchiveKey, ArchiveReader, ArchiveWriter, Unopened};
pub use hex::hex;
pub use ledger::{Entry, KeyFact, Ledger, LedgerError, Witness};
pub use service::{BackupError, Backups, Behind};
pub use taking::Taking;
