//! What the links of one answer get.

use std::sync::Arc;

use super::leave::LeaveLinks;
use super::sites::OwnSites;
use crate::clock::Timestamp;
use crate::session::SessionToken;

/// What the links of one answer get.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`; it holds the token.
pub struct LinkPlan {
    token: zeroize::Zeroizing<String>,
    carrier_query: Option<(String, String)>,
    page: String,
    sites: Arc<OwnSites>,
    leave: Arc<LeaveLinks>,
    now: Timestamp,
}

impl LinkPlan {
    /// `page` is path and query of the request that is answered, without the token: relative links start there.
    /// `carrier_query` is what the profile must be asked with to show the identifier again, `guid` and `ON`.
    #[must_use]
    pub fn new(
        token: &SessionToken,
        carrier_query: Option<(&str, &str)>,
        page: &str,
        sites: Arc<OwnSites>,
        leave: Arc<LeaveLinks>,
        now: Timestamp,
    ) -> Self {
        Self {
            token: zeroize::Zeroizing::new(token.expose().to_owned()),
            carrier_query: carrier_query.map(|(key, value)| (key.to_owned(), value.to_owned())),
            page: page.to_owned(),
            sites,
            leave,
            now,
        }
    }

    /// A path on this site, with query and fragment or without, with the token (instead of one that is there) and the
    /// carrier's query: for our own pages and redirects.
    #[must_use]
    pub fn local(&self, target: &str) -> String {
        let (rest, fragment) = target.find('#').map_or((target, ""), |at| target.split_at(at));
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let kept = super::query::take_token(query).0;
        let mut added = format!("{}={}", super::query::TOKEN_KEY, *self.token);
        if let Some((key, value)) = &self.carrier_query
            && !kept.as_deref().unwrap_or_default().split('&').any(|pair| super::query::has_key(pair, key))
        {
            added = format!("{key}={value}&{added}");
        }
        kept.map_or_else(|| format!("{path}?{added}{fragment}"), |kept| format!("{path}?{added}&{kept}{fragment}"))
    }
}
