//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    sekisho::telemetry::hide_panic_messages();
    sekisho::cli::run(std::env::args_os())
}
