//! What a fuzz target calls of the private parser; compiled for it alone (`--cfg fuzzing`, which cargo-fuzz sets).

use http::{HeaderMap, HeaderValue, header};

use super::body::{NoFields, document};
use super::if_match::RevisionMatch;

/// Whether a verb without fields takes this body under this content type; otherwise the reason of its refusal.
///
/// # Errors
/// The reason.
pub fn no_fields(kind: HeaderValue, body: &[u8]) -> Result<(), String> {
    let fields = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    document::<NoFields>(&fields, body).map(drop).map_err(|refused| refused.document().error.reason)
}

/// Whether the keys may be changed by who sent these values of `If-Match` while they are at `current`.
///
/// # Errors
/// The reason.
pub fn if_match(values: Vec<HeaderValue>, current: u64) -> Result<(), String> {
    let fields = values.into_iter().map(|value| (header::IF_MATCH, value)).collect();
    let judged = RevisionMatch::read(&fields).and_then(|revision| revision.check(current));
    judged.map_err(|refused| refused.document().error.reason)
}
