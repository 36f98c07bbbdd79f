//! Placeholder; replaced by the real files.
#![expect(missing_docs, reason = "skeleton")]
pub struct EmbeddedStore;
#[derive(Debug, thiserror::Error)]
#[error("open")]
pub struct OpenError;
