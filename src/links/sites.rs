//! Which absolute URLs are ours.

use crate::config::Origin;
use crate::edge::HostAllowList;

/// The origins that a token may be sent to.
pub struct OwnSites {
    public: Origin,
    plain: Origin,
    hosts: HostAllowList,
}

impl OwnSites {
    /// `public` and `plain` as browsers see them, `hosts` by which names they may ask.
    #[must_use]
    pub fn new(public: &Origin, plain: &Origin, hosts: &HostAllowList) -> Self {
        Self { public: public.clone(), plain: plain.clone(), hosts: hosts.clone() }
    }
}
