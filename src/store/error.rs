//! How a store fails.

use thiserror::Error;

/// The store itself failed; the answer to a client is `store-unavailable`. Hardly ever, what was asked for has come to pass all
/// the same, and only its acknowledgement failed: who must know reads it back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The medium refused: full, read-only, I/O error. The text is for the operator's log.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// What was read back breaks an invariant of this program. The text names the record, never its content.
    #[error("the store holds a record that cannot be right: {0}")]
    Corrupt(String),
    /// What was asked for is done, and on the disk; what it erased may still stand in the journal, which was not emptied.
    /// To be scrubbed ([`SubjectStore::scrub`](super::SubjectStore::scrub)).
    #[error("it is done, and what was erased may still stand in the journal: {0}")]
    Unemptied(String),
    /// The store was shut down while the call waited.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Why the journal was not emptied behind what is done.
    pub(super) fn behind_what_is_done(self) -> Self {
        match self {
            Self::Unavailable(why) => Self::Unemptied(why),
            other @ (Self::Corrupt(_) | Self::Unemptied(_) | Self::Closed) => Self::Unemptied(other.to_string()),
        }
    }
}
