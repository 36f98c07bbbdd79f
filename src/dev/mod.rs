//! `sekisho dev`: the real gateway, a sample console and simulated carrier gateways on loopback.
#![expect(missing_docs, clippy::todo, reason = "skeleton")]
use std::path::Path;
use std::process::ExitCode;

#[must_use]
pub fn run(_dir: &Path) -> ExitCode {
    todo!()
}
