//! What this version does not do yet. A later version deletes lines here.
//!
//! A setting that would silently be weaker than written is an error.

use crate::config::document::Document;
use crate::config::finding::Report;

/// Key (with `[]` for every index), and what to do instead.
#[rustfmt::skip]
const NOT_AVAILABLE: &[(&str, &str)] = &[
    ("store.url", "use store.path, the embedded store"),
    ("store.sessions", "remove it; sessions are kept in the embedded store"),
];

/// Reports every key that this version cannot honour.
pub(super) fn check(document: &Document<'_>, report: &mut Report) {
    document.walk(&mut |key, pattern, _| {
        for (_, instead) in NOT_AVAILABLE.iter().filter(|(name, _)| *name == pattern) {
            report.error(key, format_args!("is not available in this version; {instead}"));
        }
    });
}
