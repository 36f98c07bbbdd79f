//! What a fuzz target calls of the private parser; compiled for it alone (`--cfg fuzzing`, which cargo-fuzz sets).

use super::lines::Line;

/// Whether this is a line of an export.
#[must_use]
pub fn is_line(text: &str) -> bool {
    Line::parse(text).is_some()
}
