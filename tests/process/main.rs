//! The program as its users meet it: the real binary, its arguments, exit codes, streams, signals and files.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

#[expect(dead_code, reason = "shared with tests/gateway, where it watches an in-process gateway")]
#[path = "../gateway/bystander.rs"]
mod bystander;
#[expect(dead_code, reason = "handsets and the upstream are shared with tests/gateway, its in-process gateway is not")]
#[path = "../gateway/harness.rs"]
mod harness;
#[expect(dead_code, reason = "what the shared harness needs")]
#[path = "../gateway/logs.rs"]
mod logs;
#[expect(dead_code, reason = "what the shared harness needs")]
#[path = "../gateway/recorder.rs"]
mod recorder;
#[expect(dead_code, reason = "what the shared harness needs")]
#[path = "../gateway/wire.rs"]
mod wire;

mod activation;
mod audit;
mod backup_kills;
mod backups;
mod check;
mod command_line;
mod crash;
mod deploy;
mod drill;
mod faults;
mod floods;
mod journey;
mod keks;
mod key_end;
mod lifecycle;
mod load_balancer;
mod log_level;
mod mounts;
mod offline;
mod privacy;
mod process;
mod proxies;
mod receipts;
mod reload;
mod restored;
mod rotation;
mod secrets;
mod security_log;
mod soak;
mod status;
