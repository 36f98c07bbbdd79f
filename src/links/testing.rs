//! What the tests of this folder share: a token, a site and a plan.

use std::sync::Arc;

use super::{LeaveLinks, LinkPlan, OwnSites};
use crate::clock::Timestamp;
use crate::config::Origin;
use crate::edge::HostAllowList;
use crate::entropy::SeededEntropy;
use crate::session::SessionToken;

/// The token of every plan here.
pub(super) const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz012345";

/// The plan of a page at `/dir/page?q=1` of `http://admin.example.jp`.
pub(super) fn plan(carrier_query: Option<(&str, &str)>) -> LinkPlan {
    let origin = Origin { https: false, host: "admin.example.jp".to_owned(), port: None };
    let hosts = HostAllowList::new([origin.host.clone()]);
    let sites = Arc::new(OwnSites::new(&origin, &origin, &hosts));
    let leave = Arc::new(LeaveLinks::new(&SeededEntropy::new(1)));
    let token = SessionToken::parse(TOKEN.as_bytes()).unwrap();
    LinkPlan::new(&token, carrier_query, "/dir/page?q=1", sites, leave, Timestamp::from_unix_millis(1_795_530_117_042))
}
