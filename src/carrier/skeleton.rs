//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use crate::edge::{Client, RawHead};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Name of a carrier profile: `[a-z0-9-]{1,32}`, e.g. `docomo`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CarrierName(Arc<str>);
impl CarrierName {
    pub fn parse(_text: &str) -> Option<Self> {
        todo!()
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl std::fmt::Display for CarrierName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// All profiles: the enabled ones decide, all of them are stripped.
pub struct Carriers {
    profiles: Vec<Arc<Profile>>,
}
impl Carriers {
    /// The whole decision about a carrier identifier, in the order of `about.reasons`
    /// (host-not-allowed and unknown-source-address were decided by the edge before).
    pub fn identify(&self, _head: &RawHead, _client: &Client) -> Result<RawIdentifier, IdentificationRefusal> {
        todo!()
    }
    /// The enabled profile whose networks hold the client's address; headers have no say.
    pub fn match_source(&self, _client: &Client) -> Option<&Arc<Profile>> {
        todo!()
    }
    /// For a live session: the identifier presented now, if any. `Ok(None)`: no identifier field of any profile is there.
    /// Refuses ambiguous names, conflicting and duplicate fields, another profile's field, a value outside the grammar.
    /// Does not look at User-Agent, TLS or query.
    pub fn presented(
        &self,
        _head: &RawHead,
        _carrier: &CarrierName,
    ) -> Result<Option<RawIdentifier>, IdentificationRefusal> {
        todo!()
    }
    /// What must never be forwarded or logged.
    pub fn reserved(&self) -> &ReservedFields {
        todo!()
    }
    pub fn profiles(&self) -> &[Arc<Profile>] {
        &self.profiles
    }
    pub fn profile(&self, _name: &CarrierName) -> Option<&Arc<Profile>> {
        todo!()
    }
}

/// One carrier as data. No per-carrier branch exists elsewhere.
pub struct Profile {
    _p: (),
}
impl Profile {
    pub fn name(&self) -> &CarrierName {
        todo!()
    }
    pub fn enabled(&self) -> bool {
        todo!()
    }
    /// (parameter, value) that the login link must carry, e.g. ("guid","ON").
    pub fn required_query(&self) -> Option<(&str, &str)> {
        todo!()
    }
    /// Whether the identifier space is under 2^80, so that it must be stretched.
    pub fn small_identifier_space(&self) -> bool {
        todo!()
    }
    pub fn over_tls(&self) -> OverTls {
        todo!()
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverTls {
    Accept,
    Refuse,
}

/// The clear identifier; wiped on drop. No Debug, Display, Clone, Serialize, PartialEq.
pub struct RawIdentifier {
    carrier: CarrierName,
    octets: Zeroizing<Box<[u8]>>,
    small_space: bool,
}
impl RawIdentifier {
    /// As the profile would have made it, for unit tests of later stages.
    #[cfg(test)]
    pub(crate) fn for_test(carrier: &str, octets: &[u8], small_space: bool) -> Self {
        Self { carrier: CarrierName(carrier.into()), octets: Zeroizing::new(octets.into()), small_space }
    }
    /// Whether its space is under 2^80, so that it must be stretched before it is hashed.
    pub fn small_space(&self) -> bool {
        self.small_space
    }
    pub fn carrier(&self) -> &CarrierName {
        &self.carrier
    }
    /// The octets to be hashed (named parts joined unambiguously where the profile has identifier_parts). Every use is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.octets
    }
}

/// Why no identifier was accepted, one reason each, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentificationRefusal {
    #[error("ambiguous-header-name")]
    AmbiguousHeaderName,
    #[error("missing-identifier")]
    MissingIdentifier,
    #[error("conflicting-identifiers")]
    ConflictingIdentifiers,
    #[error("duplicate-identifier")]
    DuplicateIdentifier,
    #[error("untrusted-network")]
    UntrustedNetwork,
    #[error("carrier-mismatch")]
    CarrierMismatch,
    #[error("crawler-user-agent")]
    CrawlerUserAgent,
    #[error("user-agent-mismatch")]
    UserAgentMismatch,
    #[error("identifier-over-tls")]
    IdentifierOverTls,
    #[error("unsolicited-identifier")]
    UnsolicitedIdentifier,
    #[error("malformed-identifier")]
    MalformedIdentifier,
    #[error("transient-identifier")]
    TransientIdentifier,
}
impl IdentificationRefusal {
    /// The contract's word, e.g. `untrusted-network`.
    pub const fn reason(self) -> &'static str {
        todo!()
    }
}

/// Which request fields never leave the gateway: identifier fields of all profiles, strip_always, folded.
pub struct ReservedFields {
    _p: (),
}
impl ReservedFields {
    /// Whether the field is reserved under any spelling. Fast for ordinary names: called for every field of every request.
    pub fn holds(&self, _name: &str) -> bool {
        todo!()
    }
    /// Whether a cookie of this name carries subscriber data.
    pub fn holds_cookie(&self, _name: &str) -> bool {
        todo!()
    }
    /// The User-Agent value without serials; the same value (cheap clone) where there are none.
    pub fn redact_user_agent(&self, _value: &HeaderValue) -> HeaderValue {
        todo!()
    }
}

/// What a User-Agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAgent {
    pub carrier: Option<&'static str>,
    pub kind: UserAgentKind,
    pub model: Option<String>,
    pub generation: Option<&'static str>,
    pub browser: Option<&'static str>,
    pub cookies: Option<bool>,
    pub redacted: String,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserAgentKind {
    Handset,
    FullBrowser,
    Crawler,
    Emulator,
    Smartphone,
    Other,
}
impl UserAgent {
    pub fn parse(_text: &str) -> Self {
        todo!()
    }
}
pub(crate) fn _unused(_: HeaderName) {}
impl Carriers {
    /// Builds all profiles: the built-in ones overlaid with `specs`, and the operator's own. Err: all problems at once.
    /// Ok: the profiles and warnings (reference networks, overlapping networks of two profiles are an error ...).
    pub fn build(
        _specs: &std::collections::BTreeMap<String, super::spec::ProfileSpec>,
    ) -> Result<(Self, Vec<super::spec::SpecProblem>), Vec<super::spec::SpecProblem>> {
        todo!()
    }
}
/// Behind `carriers explain`.
pub fn explain_lines(
    _carriers: &Carriers,
    _hosts: &crate::edge::HostAllowList,
    _proxies: &crate::edge::TrustedProxies,
    _fingerprint_key: Option<&[u8]>,
    _input: impl std::io::BufRead,
    _output: impl std::io::Write,
) -> std::io::Result<()> {
    todo!()
}
/// Behind `carriers user-agent`.
pub fn user_agent_lines(_input: impl std::io::BufRead, _output: impl std::io::Write) -> std::io::Result<()> {
    todo!()
}
