//! The only place that knows the order of the stages.
#![expect(missing_docs, clippy::todo, reason = "skeleton")]
use std::path::Path;
use std::process::ExitCode;

pub fn serve(_config: &Path) -> ExitCode {
    todo!()
}
pub fn check(_config: &Path) -> ExitCode {
    todo!()
}
