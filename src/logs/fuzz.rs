//! What a fuzz target calls of the private parser; compiled for it alone (`--cfg fuzzing`, which cargo-fuzz sets).

use super::reader::{Found, KeyOfDay, SealedLine, SealedReader};
use crate::keys::DayKey;

/// How many bytes of lines come out of a file under a key of nobody's, and how many findings.
#[must_use]
pub fn read(file: &[u8]) -> (usize, usize) {
    let mut reader = SealedReader::default();
    let mut found = Vec::new();
    for (number, line) in (1..).zip(file.split_inclusive(|byte| *byte == b'\n')) {
        let ended = line.ends_with(b"\n");
        let line = SealedLine::read(number, Some(line.strip_suffix(b"\n").unwrap_or(line)), ended);
        let key = line.day().map(|day| DayKey::of_nobody(day, 1));
        found.extend(reader.take(&line, key.as_ref().map_or(KeyOfDay::NotAsked, KeyOfDay::Key)));
    }
    found.extend(reader.finish());
    found.iter().fold((0, 0), |(bytes, findings), found| match found {
        Found::Lines(lines) => (bytes + lines.len(), findings),
        Found::Finding(_) => (bytes, findings + 1),
    })
}
