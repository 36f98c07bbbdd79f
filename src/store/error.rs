//! How a store fails.

use thiserror::Error;

/// The store itself failed; the answer to a client is `store-unavailable`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The medium refused: full, read-only, I/O error. The text is for the operator's log.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// What was read back breaks an invariant of this program. The text names the record, never its content.
    #[error("the store holds a record that cannot be right: {0}")]
    Corrupt(String),
    /// The store was shut down while the call waited.
    #[error("the store is closed")]
    Closed,
}
