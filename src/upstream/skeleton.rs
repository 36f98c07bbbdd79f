//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;

use crate::assertion::Assertion;
use crate::body::Body;
use crate::carrier::ReservedFields;
use crate::config::{LimitsConfig, RouteConfig, UpstreamConfig};
use crate::edge::{Client, RawHead};

/// The gateway's own prefix; nothing below it reaches an upstream.
pub const RESERVED_PREFIX: &str = "/_sekisho";

pub struct Routes {
    _p: (),
}
/// Where a path leads.
pub enum Destination<'r> {
    /// `/_sekisho` or below.
    Gateway,
    Route(&'r RouteConfig),
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    #[error("path-ambiguous")]
    Ambiguous,
    #[error("no-route")]
    NoRoute,
}
impl Routes {
    pub fn new(_routes: Vec<RouteConfig>) -> Self {
        todo!()
    }
    /// Longest prefix of whole segments, under every reading of the path in which software differs.
    pub fn find(&self, _path: &str) -> Result<Destination<'_>, RouteRefusal> {
        todo!()
    }
}
/// The head without anything that must not pass: hop-by-hop and reserved fields, gateway cookies, `_sk`, `guid`, serials.
pub struct StrippedHead {
    _p: (),
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// `Connection` names a field that the gateway protects.
    #[error("malformed-request")]
    ConnectionNamesProtected,
    #[error("malformed-request")]
    Malformed,
}
impl StrippedHead {
    pub fn of(_head: RawHead, _reserved: &ReservedFields) -> Result<Self, StripError> {
        todo!()
    }
    /// Adds what the gateway itself says; exactly one assertion, or none.
    pub fn with(self, _assertion: Option<Assertion>, _forwarded: &Forwarded<'_>) -> UpstreamRequest {
        todo!()
    }
}
/// What the gateway says of the client.
pub struct Forwarded<'a> {
    pub client: &'a Client,
    /// Host as the client named it.
    pub host: &'a str,
    /// `X-Request-Id`, also the trace id of `traceparent` where the client sent none.
    pub request_id: &'a str,
}
pub struct UpstreamRequest {
    _p: (),
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    #[error("upstream-unreachable")]
    Unreachable,
    #[error("upstream-timeout")]
    Timeout,
    /// The client's request body failed or was too large before the upstream answered.
    #[error("body-too-large")]
    BodyTooLarge,
    #[error("the client went away")]
    ClientGone,
}
/// The upstreams of one worker: a small pool of idle connections to each server, never shared between cores.
pub struct Upstreams {
    _p: (),
}
impl Upstreams {
    /// `roots`: see `tls.rs`; built once and shared.
    pub fn new(
        _upstreams: &[UpstreamConfig],
        _tls: std::sync::Arc<crate::tls::UpstreamTls>,
        _limits: &LimitsConfig,
    ) -> Self {
        todo!()
    }
    /// Sends the request and gives back the answer's head, hop-by-hop and gateway fields taken out, its body streaming.
    /// An upgrade (101) is spliced until either side closes or `ended` fires.
    pub async fn send(
        &self,
        _upstream: usize,
        _request: UpstreamRequest,
        _body: Incoming,
        _upgrade: Option<OnUpgrade>,
        _ended: &CancellationToken,
    ) -> Result<Response<Body>, UpstreamError> {
        todo!()
    }
}
