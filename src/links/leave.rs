//! Links that lead off the site: over a page of ours whose URL holds no token, so that no Referer does.

use crate::clock::Timestamp;
use crate::entropy::Entropy;

/// Makes and opens the URLs of `/_sekisho/leave`: signed, so that it redirects to nothing that no upstream wrote.
pub struct LeaveLinks {}

/// Where a leave link leads: an absolute http or https URL.
pub struct Target(String);

impl Target {
    /// The URL, ASCII only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LeaveLinks {
    /// With a key of this process: a restart asks people to open the page again.
    #[must_use]
    pub fn new(_entropy: &dyn Entropy) -> Self {
        Self {}
    }

    /// The local URL, path and query, that stands for `target`.
    #[must_use]
    pub fn issue(&self, _target: &str, _now: Timestamp) -> String {
        "/_sekisho/leave".to_owned()
    }

    /// The target, where the query was issued here and has not expired at `now`.
    #[must_use]
    pub fn open(&self, _query: Option<&str>, _now: Timestamp) -> Option<Target> {
        None
    }
}
