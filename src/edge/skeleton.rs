//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use http::{HeaderMap, HeaderName, HeaderValue, Method, request::Parts};
use std::net::IpAddr;

/// A request head whose grammar is sound and whose repeats are visible. Never hands out its `HeaderMap`.
pub struct RawHead {
    method: Method,
    path: String,
    query: Option<String>,
    authority: Option<String>,
    headers: HeaderMap,
}
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub head_bytes: usize,
    pub headers: usize,
    pub url_bytes: usize,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("too-large")]
    TooLarge,
    #[error("malformed-request")]
    Malformed,
    #[error("host-not-allowed")]
    HostNotAllowed,
}
impl RawHead {
    /// Absolute-form targets: the URI's authority stands for Host and must equal it.
    pub fn read(_parts: Parts, _limits: &HeadLimits) -> Result<Self, HeadError> {
        todo!()
    }
    pub fn method(&self) -> &Method {
        &self.method
    }
    /// The path exactly as sent, beginning with `/` (or `*`).
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The query exactly as sent, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    /// All values of a field, in order.
    pub fn all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.headers.get_all(name).iter()
    }
    /// The value of a field that occurs exactly once.
    pub fn single(&self, _name: &HeaderName) -> Option<&HeaderValue> {
        todo!()
    }
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.keys()
    }
    /// Ends the head: the fields that `keep` keeps, for the upstream stage alone.
    pub(crate) fn into_kept(self, _keep: impl FnMut(&HeaderName, &HeaderValue) -> bool) -> HeaderMap {
        todo!()
    }
}

/// Field name folded: lower case, every byte outside a-z 0-9 as `-`.
pub fn fold(_name: &str) -> String {
    todo!()
}

pub struct HostAllowList {
    hosts: Vec<String>,
}
impl HostAllowList {
    pub fn new(_hosts: impl IntoIterator<Item = String>) -> Self {
        todo!()
    }
    /// Exactly one Host / :authority, equal to a configured name without case, port and one final dot.
    pub fn check(&self, _head: &RawHead) -> Result<(), HeadError> {
        todo!()
    }
}

pub struct TrustedProxies {
    networks: Vec<ipnet::IpNet>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}
/// Who asks: the nearest hop we do not trust, and how the request reached the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: ClientAddr,
    pub scheme: Scheme,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(IpAddr);
impl ClientAddr {
    pub fn ip(&self) -> IpAddr {
        self.0
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown-source-address")]
pub struct UnknownSource;
impl TrustedProxies {
    pub fn new(_networks: Vec<ipnet::IpNet>) -> Self {
        todo!()
    }
    pub fn trusts(&self, _peer: IpAddr) -> bool {
        todo!()
    }
    /// Walks X-Forwarded-For from right to left, starting at `peer`. `connection`: the scheme of the TCP connection;
    /// X-Forwarded-Proto replaces it when the peer is trusted.
    pub fn resolve(&self, _peer: IpAddr, _connection: Scheme, _head: &RawHead) -> Result<Client, UnknownSource> {
        todo!()
    }
}
