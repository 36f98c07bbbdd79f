//! What the fuzz target calls; compiled for it alone (`--cfg fuzzing`, which cargo-fuzz sets).

use std::sync::Arc;

use encoding_rs::Encoding;

use super::markup::Page;
use super::stream::Stream;
use super::{LeaveLinks, LinkPlan, OwnSites};
use crate::clock::Timestamp;
use crate::config::Origin;
use crate::edge::HostAllowList;
use crate::entropy::SeededEntropy;
use crate::session::SessionToken;

/// The token that is put into links.
pub const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz012345";

/// A page of `http://admin.example.jp`, in the charset that the label names or in none, HTML or `xml`, that comes in
/// pieces of `size` bytes.
#[must_use]
pub fn rewritten(page: &[u8], label: Option<&str>, xml: bool, size: usize) -> Vec<u8> {
    let origin = Origin { https: false, host: "admin.example.jp".to_owned(), port: None };
    let sites = Arc::new(OwnSites::new(&origin, &origin, &HostAllowList::new([origin.host.clone()])));
    let leave = Arc::new(LeaveLinks::new(&SeededEntropy::new(1)));
    let said = label.and_then(|label| Encoding::for_label(label.as_bytes()));
    let Some(token) = SessionToken::parse(TOKEN.as_bytes()) else { return Vec::new() };
    let plan = LinkPlan::new(&token, None, "/dir/page", sites, leave, Timestamp::from_unix_millis(0));
    let mut stream = Stream::new(Page::new(plan, said, xml), said);
    let mut out: Vec<u8> = page.chunks(size.max(1)).flat_map(|piece| stream.push(piece)).collect();
    out.extend(stream.finish());
    out
}
