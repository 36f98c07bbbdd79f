//! What this version does not do yet. A later version deletes lines here.
//!
//! A setting that would silently be weaker than written is an error; a harmless one that does nothing yet is a
//! warning.

use crate::config::document::Document;
use crate::config::finding::Report;

/// When a row applies.
enum When {
    /// The key is there.
    Written,
    /// It is `true`.
    True,
}

use When::{True, Written};

/// Key (with `[]` for every index), when, and what to do instead.
#[rustfmt::skip]
const NOT_AVAILABLE: &[(&str, When, &str)] = &[
    ("store.url", Written, "use store.path, the embedded store"),
    ("store.sessions", Written, "remove it; sessions are kept in the embedded store"),
    ("log.access.sealed", True, "remove it and restrict who may read the file"),
];

/// Key, and what it means meanwhile.
#[rustfmt::skip]
const NO_EFFECT: &[(&str, &str)] = &[
    ("privacy.access_log_retention", "let the log's own rotation erase it"),
    ("privacy.security_log_retention", "let the log's own rotation erase it"),
];

/// Reports every key that this version cannot honour.
pub(super) fn check(document: &Document<'_>, report: &mut Report) {
    document.walk(&mut |key, pattern, value| {
        let applies = |when: &When| match when {
            Written => true,
            True => value.as_bool() == Some(true),
        };
        for (_, _, instead) in NOT_AVAILABLE.iter().filter(|(name, when, _)| *name == pattern && applies(when)) {
            report.error(key, format_args!("is not available in this version; {instead}"));
        }
        for (_, meanwhile) in NO_EFFECT.iter().filter(|(name, _)| *name == pattern) {
            report.warning(key, format_args!("has no effect in this version; {meanwhile}"));
        }
    });
}
