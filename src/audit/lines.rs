//! The lines of an export. Each is canonical JSON, so that there is one way to write it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::entry::{Checkpoint, Entry, EntryHash, canonical};

/// The format of exports that this program writes and reads.
pub(super) const FORMAT: u32 = 1;

/// Most bytes of a line: an entry with all its texts as long as they may be is shorter.
pub const MOST_LINE_BYTES: usize = 64 << 10;

/// The first line: which part of which chain follows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadLine {
    pub(super) audit: Head,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) format: u32,
    /// The number of the first entry that follows.
    pub(super) from: u64,
    /// The hash that it is chained to.
    pub(super) prev: EntryHash,
    pub(super) store: String,
}

/// What verifies the seals of one key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyLine {
    pub(super) public_key: PublicKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublicKey {
    pub(super) id: String,
    /// [`AuditPublicKey::text`](crate::keys::AuditPublicKey::text).
    pub(super) point: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine {
    pub(super) entry: Entry,
    pub(super) hash: EntryHash,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointLine {
    pub(super) checkpoint: Checkpoint,
    /// r and s, base64url without padding.
    pub(super) seal: String,
}

/// The last line: nothing was cut off.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) end: End,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) entries: u64,
    pub(super) head: EntryHash,
}

/// A line that was read.
pub(super) enum Line {
    Head(Head),
    Key(PublicKey),
    Entry(Box<Entry>, EntryHash),
    Checkpoint(Checkpoint, String),
    End(End),
}

/// What entry lines begin with; none of the others does.
const ENTRY: &str = r#"{"entry":"#;

impl Line {
    /// Whether `text` means to be an entry.
    pub(super) fn is_entry(text: &str) -> bool {
        text.starts_with(ENTRY)
    }

    /// Reads a line without its end. `None` for anything that this program would not have written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if Self::is_entry(text) {
            exactly::<EntryLine>(text).map(|line| Self::Entry(Box::new(line.entry), line.hash))
        } else if text.starts_with(r#"{"checkpoint":"#) {
            exactly::<CheckpointLine>(text).map(|line| Self::Checkpoint(line.checkpoint, line.seal))
        } else if text.starts_with(r#"{"audit":"#) {
            exactly::<HeadLine>(text).map(|line| Self::Head(line.audit))
        } else if text.starts_with(r#"{"public_key":"#) {
            exactly::<KeyLine>(text).map(|line| Self::Key(line.public_key))
        } else {
            exactly::<EndLine>(text).map(|line| Self::End(line.end))
        }
    }
}

/// Reads what was written in the one way that there is.
fn exactly<T: DeserializeOwned + Serialize>(text: &str) -> Option<T> {
    let line: T = serde_json::from_str(text).ok()?;
    (canonical(&line) == text).then_some(line)
}

/// The line of an entry whose text and hash are as a store holds them, changed or not.
pub(super) fn raw_entry(text: &str, hash: EntryHash) -> String {
    format!(r#"{ENTRY}{text},"hash":"{hash}"}}"#)
}

/// The line of a checkpoint as a store holds it.
pub(super) fn raw_checkpoint(text: &str, seal: &str) -> String {
    format!(r#"{{"checkpoint":{text},"seal":"{seal}"}}"#)
}
