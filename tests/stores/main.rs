//! The contract of the store ports, on every backend.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

mod approvals;
mod conformance;
mod embedded;
mod pin_conformance;
mod receipt_conformance;
mod rotation_conformance;
mod statistics_conformance;
mod subject_conformance;
