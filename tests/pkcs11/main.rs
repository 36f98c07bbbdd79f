//! The KEK in a PKCS#11 token: the real binary and `SoftHSM2`, made by the commands of docs/kek.md.
//!
//! Needs `--features pkcs11`, softhsm2, opensc and a C compiler; `tests/run features` installs them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

#[expect(dead_code, reason = "handsets and the upstream are shared with tests/gateway, its in-process gateway is not")]
#[path = "../gateway/harness.rs"]
mod harness;
#[expect(dead_code, reason = "what the shared harness needs")]
#[path = "../gateway/logs.rs"]
mod logs;
#[expect(dead_code, reason = "shared with tests/process, which uses all of it")]
#[path = "../process/process.rs"]
mod process;
#[expect(dead_code, reason = "what the shared harness needs")]
#[path = "../gateway/recorder.rs"]
mod recorder;
#[expect(dead_code, reason = "what the shared harness needs")]
#[path = "../gateway/wire.rs"]
mod wire;

mod calls;
mod restored;
mod rewrap;
mod start;
mod token;
