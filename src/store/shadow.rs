//! The port of drills: a copy of everything to work on, of which nothing is left.

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use super::{ApprovalStore, AuditStore, BindingStore, KeyStore, ReceiptStore, RotationStore, SessionStore, StoreError};
use crate::clock::Timestamp;
use crate::entropy::Entropy;

/// Why there is no shadow.
#[derive(Debug, Error)]
pub enum ShadowError {
    /// There is one already.
    #[error("a copy of the store is being worked on already; ask again when it is done")]
    Busy,
    /// It might fill the disk that the store itself needs.
    #[error("a copy of the store needs {needs} bytes on its disk, and {free} are free")]
    NoSpace {
        /// Bytes that must be free.
        needs: u64,
        /// Bytes that are.
        free: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The ports of a shadow.
pub struct ShadowPorts {
    /// Its keys.
    pub keys: Arc<dyn KeyStore>,
    /// Its rotations.
    pub rotations: Arc<dyn RotationStore>,
    /// Its accounts and bindings.
    pub bindings: Arc<dyn BindingStore>,
    /// Its sessions.
    pub sessions: Arc<dyn SessionStore>,
    /// Its receipts.
    pub receipts: Arc<dyn ReceiptStore>,
    /// Its approvals.
    pub approvals: Arc<dyn ApprovalStore>,
    /// Its audit trail.
    pub audit: Arc<dyn AuditStore>,
    /// How many bytes were copied.
    pub bytes: u64,
}

/// A copy of a store, to work on for a while.
#[async_trait]
pub trait Shadow: Send + Sync {
    /// What can be done to it. Whoever holds one of these must let it go before [`Shadow::erase`].
    fn ports(&self) -> ShadowPorts;

    /// Erases it.
    async fn erase(self: Box<Self>) -> Result<(), StoreError>;
}

/// Copies to work on.
///
/// 95. **Of one instant.** A shadow holds what the store held at one instant between call and answer, sessions included. No
///     other call waits for the copy.
/// 96. **Apart.** What is done to a shadow changes nothing in the store, and nothing of it is kept anywhere but in its own
///     place, which is this user's alone.
/// 97. **Gone.** Nothing is left of a shadow after `erase`, nor after it is dropped; of one whose process died nothing is
///     left once the store is opened again.
/// 98. **One.** There is one shadow of a store at a time, and none where it could leave the store without room.
#[async_trait]
pub trait ShadowStore: Send + Sync + 'static {
    /// Copies the store.
    async fn shadow(&self, entropy: Arc<dyn Entropy>, now: Timestamp) -> Result<Box<dyn Shadow>, ShadowError>;
}
