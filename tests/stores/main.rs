//! The contract of the store ports, on every backend.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

mod approvals;
mod audit_conformance;
mod backup_conformance;
mod binding_conformance;
mod conformance;
mod embedded;
mod enrolment_conformance;
mod erased_bytes;
mod import_conformance;
mod key_conformance;
mod log_key_conformance;
mod notice_conformance;
mod pin_conformance;
mod receipt_conformance;
mod rotation_conformance;
mod session_conformance;
mod shadow_conformance;
mod statistics_conformance;
mod subject_conformance;
