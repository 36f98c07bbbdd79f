//! What a fuzz target calls of the private parser; compiled for it alone (`--cfg fuzzing`, which cargo-fuzz sets).

use super::framing::{Follows, passed};

/// What is passed on of `bytes` that come in pieces of `size`, and whether they were refused behind that. What `follows` the heads
/// is so many octets, or chunks where it is none.
#[must_use]
pub fn messages(bytes: &[u8], size: usize, follows: impl IntoIterator<Item = Option<u64>>) -> (Vec<u8>, bool) {
    let mut follows = follows.into_iter();
    passed(bytes, size, || match follows.next() {
        Some(octets) => octets.map_or(Follows::Chunks, Follows::Octets),
        None => Follows::Nothing,
    })
}
