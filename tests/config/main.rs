//! Configurations and what is said of them.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod mutated;
mod reports;
mod whole;
