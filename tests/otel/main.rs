//! Spans of requests, as a collector on loopback receives and reads them. Needs `--features otel`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

mod collector;
#[expect(dead_code, reason = "shared with tests/gateway, which uses all of it")]
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

mod context;
mod sending;
mod spans;
