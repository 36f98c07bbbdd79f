//! The stage over real sockets: a client, this stage behind an HTTP server, and an upstream, all on loopback.

mod exchange;
mod failure;
mod harness;
pub(super) mod pools;
mod upgrade;

use http::HeaderValue;

use super::sanitize::Reserved;
use crate::edge::fold;

/// What a carrier might reserve.
pub(super) struct StandIn;

impl Reserved for StandIn {
    fn holds(&self, name: &str) -> bool {
        fold(name) == "x-subscriber"
    }
    fn holds_cookie(&self, name: &str) -> bool {
        name == "subscriber"
    }
    fn redact_user_agent(&self, value: &HeaderValue) -> Option<HeaderValue> {
        HeaderValue::try_from(value.to_str().unwrap_or_default().replace("serial", "")).ok()
    }
}
