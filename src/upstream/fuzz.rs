//! What a fuzz target calls of the private parser; compiled for it alone (`--cfg fuzzing`, which cargo-fuzz sets).

use super::interim::passed;

/// What is passed on of `bytes` that come in pieces of `size` where an answer is to come, into so much `room` at a time, and the
/// status of what came before it.
#[must_use]
pub fn before_answer(bytes: &[u8], size: usize, room: usize) -> (Vec<u8>, Vec<u16>) {
    passed(bytes, size, room)
}
