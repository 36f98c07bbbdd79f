//! The decision about a carrier identifier.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderName, HeaderValue};
use thiserror::Error;

use super::identifier::RawIdentifier;
use super::profile::{CarrierName, ExpectedBrowser, OverTls, Profile};
use super::ranges::Ranges;
use super::reserved::{ReservedFields, folds_to, forgeable};
use super::spec::RequiredQuery;
use super::user_agent::{UserAgent, UserAgentKind};
use crate::edge::{Client, RawHead, Scheme, fold};
use crate::refusal::Reason;

/// Why no identifier was accepted: one reason each, in the order in which they are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentificationRefusal {
    /// A field equals an identifier field only after folding.
    #[error("ambiguous-header-name")]
    AmbiguousHeaderName,
    /// No identifier field of any profile, or an empty one.
    #[error("missing-identifier")]
    MissingIdentifier,
    /// Two or more identifier fields.
    #[error("conflicting-identifiers")]
    ConflictingIdentifiers,
    /// The identifier field is repeated, or has a comma.
    #[error("duplicate-identifier")]
    DuplicateIdentifier,
    /// The source address lies in no network of any profile.
    #[error("untrusted-network")]
    UntrustedNetwork,
    /// The source address belongs to a profile that reads another field.
    #[error("carrier-mismatch")]
    CarrierMismatch,
    /// A robot, relay, transcoder or simulator.
    #[error("crawler-user-agent")]
    CrawlerUserAgent,
    /// Not the carrier's own browser, or not exactly one User-Agent.
    #[error("user-agent-mismatch")]
    UserAgentMismatch,
    /// Over TLS, where the carrier's gateway cannot have written it.
    #[error("identifier-over-tls")]
    IdentifierOverTls,
    /// Not asked for by the query.
    #[error("unsolicited-identifier")]
    UnsolicitedIdentifier,
    /// Outside the grammar.
    #[error("malformed-identifier")]
    MalformedIdentifier,
    /// New at every attachment.
    #[error("transient-identifier")]
    TransientIdentifier,
}

impl IdentificationRefusal {
    /// The contract's word, e.g. `untrusted-network`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        Reason::from(self).as_str()
    }
}

impl From<IdentificationRefusal> for Reason {
    fn from(refusal: IdentificationRefusal) -> Self {
        match refusal {
            IdentificationRefusal::AmbiguousHeaderName => Self::AmbiguousHeaderName,
            IdentificationRefusal::MissingIdentifier => Self::MissingIdentifier,
            IdentificationRefusal::ConflictingIdentifiers => Self::ConflictingIdentifiers,
            IdentificationRefusal::DuplicateIdentifier => Self::DuplicateIdentifier,
            IdentificationRefusal::UntrustedNetwork => Self::UntrustedNetwork,
            IdentificationRefusal::CarrierMismatch => Self::CarrierMismatch,
            IdentificationRefusal::CrawlerUserAgent => Self::CrawlerUserAgent,
            IdentificationRefusal::UserAgentMismatch => Self::UserAgentMismatch,
            IdentificationRefusal::IdentifierOverTls => Self::IdentifierOverTls,
            IdentificationRefusal::UnsolicitedIdentifier => Self::UnsolicitedIdentifier,
            IdentificationRefusal::MalformedIdentifier => Self::MalformedIdentifier,
            IdentificationRefusal::TransientIdentifier => Self::TransientIdentifier,
        }
    }
}

/// All profiles: the enabled ones decide, all of them are stripped.
pub struct Carriers {
    profiles: Vec<Arc<Profile>>,
    /// Source networks -> index in `profiles`.
    ranges: Ranges<usize>,
    /// The distinct identifier fields of all profiles, enabled or not, with their folded names. Two profiles may
    /// read the same field: the network tells them apart.
    fields: Vec<(HeaderName, Box<[u8]>)>,
    reserved: ReservedFields,
}

impl Carriers {
    pub(super) fn new(profiles: Vec<Arc<Profile>>, ranges: Ranges<usize>) -> Self {
        let mut fields: Vec<HeaderName> = Vec::new();
        for header in profiles.iter().filter_map(|profile| profile.header()) {
            if !fields.contains(header) {
                fields.push(header.clone());
            }
        }
        let reserved = ReservedFields::new(fields.iter().map(HeaderName::as_str));
        let fields = fields.into_iter().map(|name| (name.clone(), fold(name.as_str()).into_bytes().into())).collect();
        Self { profiles, ranges, fields, reserved }
    }

    /// The whole decision about a carrier identifier, in the order of [`IdentificationRefusal`]
    /// (host-not-allowed and unknown-source-address were decided by the edge before).
    ///
    /// # Errors
    /// The first reason that applies.
    pub fn identify(&self, head: &RawHead, client: &Client) -> Result<RawIdentifier, IdentificationRefusal> {
        let (field, value) = self.locate(head)?;
        let profile = self.match_source(client).ok_or(IdentificationRefusal::UntrustedNetwork)?;
        if profile.header() != Some(field) {
            return Err(IdentificationRefusal::CarrierMismatch);
        }
        check_browser(head, &profile.browser)?;
        if client.scheme == Scheme::Https && profile.over_tls == OverTls::Refuse {
            return Err(IdentificationRefusal::IdentifierOverTls);
        }
        if let Some(required) = &profile.required_query
            && !asked_for(head.query().unwrap_or_default(), required)
        {
            return Err(IdentificationRefusal::UnsolicitedIdentifier);
        }
        profile.read_identifier(value)
    }

    /// The enabled profile whose networks hold the client's address; headers have no say.
    #[must_use]
    pub fn match_source(&self, client: &Client) -> Option<&Arc<Profile>> {
        self.profiles.get(*self.ranges.find(client.address.ip())?)
    }

    /// Whether `address` lies in the networks of a profile.
    #[must_use]
    pub fn serves(&self, address: IpAddr) -> bool {
        self.ranges.find(address).is_some()
    }

    /// For a live session: the identifier presented now, if any. `Ok(None)`: no identifier field of any profile is
    /// there, or an empty one. Does not look at User-Agent, TLS or query.
    ///
    /// # Errors
    /// Ambiguous names, conflicting and duplicate fields, another profile's field, a value outside the grammar.
    pub fn presented(
        &self,
        head: &RawHead,
        carrier: &CarrierName,
    ) -> Result<Option<RawIdentifier>, IdentificationRefusal> {
        let (field, value) = match self.locate(head) {
            Ok(found) => found,
            Err(IdentificationRefusal::MissingIdentifier) => return Ok(None),
            Err(refusal) => return Err(refusal),
        };
        match self.profile(carrier) {
            Some(profile) if profile.header() == Some(field) => profile.read_identifier(value).map(Some),
            _ => Err(IdentificationRefusal::CarrierMismatch),
        }
    }

    /// What must never be forwarded or logged.
    #[must_use]
    pub const fn reserved(&self) -> &ReservedFields {
        &self.reserved
    }

    /// As if one rule of the reserved fields had been lost.
    #[cfg(test)]
    pub(crate) fn lose_rule(&mut self, rule: &str) {
        self.reserved.lose(rule);
    }

    /// The field names that no client may get through, as written in the profiles and data, to be tried in every
    /// spelling.
    #[must_use]
    pub fn forgeable(&self) -> Vec<String> {
        forgeable(self.fields.iter().map(|(field, _)| field.as_str()))
    }

    /// All profiles, by name.
    #[must_use]
    pub fn profiles(&self) -> &[Arc<Profile>] {
        &self.profiles
    }

    /// The profile of that name, enabled or not.
    #[must_use]
    pub fn profile(&self, name: &CarrierName) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|profile| profile.name() == name)
    }

    /// The one identifier field of the request and its only value.
    fn locate<'h>(&self, head: &'h RawHead) -> Result<(&HeaderName, &'h [u8]), IdentificationRefusal> {
        let mut found = None;
        let mut conflict = false;
        for name in head.names() {
            for (field, folded) in &self.fields {
                if folds_to(name.as_str().as_bytes(), folded) {
                    if name != field {
                        return Err(IdentificationRefusal::AmbiguousHeaderName);
                    }
                    conflict |= found.replace(field).is_some();
                }
            }
        }
        let field = found.ok_or(IdentificationRefusal::MissingIdentifier)?;
        if conflict {
            return Err(IdentificationRefusal::ConflictingIdentifiers);
        }
        if head.all(field).all(|value| value.as_bytes().trim_ascii().is_empty()) {
            return Err(IdentificationRefusal::MissingIdentifier);
        }
        match head.single(field).map(HeaderValue::as_bytes) {
            // A comma is the trace of two fields that a relay joined (RFC 9110 §5.3).
            Some(value) if !value.contains(&b',') => Ok((field, value)),
            _ => Err(IdentificationRefusal::DuplicateIdentifier),
        }
    }
}

fn check_browser(head: &RawHead, expected: &ExpectedBrowser) -> Result<(), IdentificationRefusal> {
    let seen: Vec<UserAgent> =
        head.all(&USER_AGENT).map(|value| UserAgent::parse(&String::from_utf8_lossy(value.as_bytes()))).collect();
    if seen.iter().any(|agent| matches!(agent.kind, UserAgentKind::Crawler | UserAgentKind::Emulator)) {
        return Err(IdentificationRefusal::CrawlerUserAgent);
    }
    match (expected, seen.as_slice()) {
        (ExpectedBrowser::Any, _) => Ok(()),
        (ExpectedBrowser::Of(carrier), [one]) if one.is_handset_of(carrier) => Ok(()),
        (ExpectedBrowser::Of(_), _) => Err(IdentificationRefusal::UserAgentMismatch),
    }
}

/// Whether the query has the parameter, exactly as sent: what the carrier's gateway would not decode, nor do we.
fn asked_for(query: &str, required: &RequiredQuery) -> bool {
    let same = |a: &str, b: &str| if required.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .any(|(name, value)| same(name, &required.name) && same(value, &required.value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::Request;

    use super::*;
    use crate::carrier::{Networks, ProfileSpec};
    use crate::edge::{HeadLimits, TrustedProxies};

    const GUID: (&str, &str) = ("X-DCMGUID", "AbCd012");
    const EZ: (&str, &str) = ("X-UP-SUBNO", "00000000000000_mj.ezweb.ne.jp");
    const HANDSET: (&str, &str) = ("User-Agent", "DoCoMo/2.0 P903i(c100;TB;W24H12)");

    /// docomo on, all others off.
    fn carriers() -> Carriers {
        let networks = Some(Networks::List(vec!["127.0.1.0/24".to_owned()]));
        let spec = ProfileSpec { networks, ..ProfileSpec::default() };
        Carriers::build(&BTreeMap::from([("docomo".to_owned(), spec)])).ok().unwrap().0
    }

    fn head(target: &str, fields: &[(&str, &str)]) -> RawHead {
        let limits = HeadLimits { head_bytes: 4096, headers: 20, url_bytes: 1024 };
        let request = fields.iter().fold(Request::get(target), |request, (name, value)| request.header(*name, *value));
        RawHead::read(request.body(()).unwrap().into_parts().0, &limits).unwrap()
    }

    fn identify(peer: &str, target: &str, fields: &[(&str, &str)]) -> Result<Vec<u8>, IdentificationRefusal> {
        let head = head(target, fields);
        let client = TrustedProxies::new(vec![]).resolve(peer.parse().unwrap(), Scheme::Http, &head).unwrap();
        carriers().identify(&head, &client).map(|identifier| identifier.expose().to_vec())
    }

    #[test]
    fn fields_of_profiles_that_are_off_count_too() {
        let asked = "/?guid=ON";
        assert_eq!(identify("127.0.1.1", asked, &[GUID, HANDSET]).as_deref(), Ok(&b"AbCd012"[..]));
        for (peer, fields, refusal) in [
            ("127.0.1.1", &[GUID, EZ][..], IdentificationRefusal::ConflictingIdentifiers),
            ("127.0.1.1", &[EZ], IdentificationRefusal::CarrierMismatch),
            ("127.0.2.1", &[EZ], IdentificationRefusal::UntrustedNetwork),
            ("127.0.1.1", &[GUID, HANDSET, ("x.up.subno", "")], IdentificationRefusal::AmbiguousHeaderName),
            ("127.0.1.1", &[GUID, ("X-UP-SUBNO", "")], IdentificationRefusal::ConflictingIdentifiers),
            ("127.0.1.1", &[("X-DCMGUID", " "), ("X-DCMGUID", "")], IdentificationRefusal::MissingIdentifier),
            ("127.0.1.1", &[GUID, HANDSET, ("User-Agent", "Anybot/1")], IdentificationRefusal::CrawlerUserAgent),
            ("127.0.1.1", &[GUID, HANDSET, HANDSET], IdentificationRefusal::UserAgentMismatch),
        ] {
            assert_eq!(identify(peer, asked, fields), Err(refusal), "{peer} {fields:?}");
        }
    }

    #[test]
    fn the_query_is_read_as_sent() {
        for (target, asked) in [
            ("/?GUID=on", true),
            ("/?a&guid=ON", true),
            ("/?%67uid=ON", false),
            ("/?guid=ON%20", false),
            ("/?guid", false),
            ("/?a;guid=ON", false),
            ("/guid=ON", false),
        ] {
            assert_eq!(identify("127.0.1.1", target, &[GUID, HANDSET]).is_ok(), asked, "{target}");
        }
    }

    #[test]
    fn a_query_is_asked_for_in_its_own_case_unless_the_profile_says_otherwise() {
        let spec = ProfileSpec {
            header: Some("X-Device-Ref".to_owned()),
            grammar: Some("^[a-z]{7}$".to_owned()),
            require_query: Some(RequiredQuery { name: "ref".to_owned(), value: "On".to_owned(), ignore_case: false }),
            networks: Some(Networks::List(vec!["127.0.4.0/24".to_owned()])),
            over_tls: Some("accept".to_owned()),
            ..ProfileSpec::default()
        };
        let (carriers, _) = Carriers::build(&BTreeMap::from([("own".to_owned(), spec)])).unwrap();
        assert!(carriers.forgeable().contains(&"x-device-ref".to_owned()), "{:?}", carriers.forgeable());
        for (target, asked) in [("/?ref=On", true), ("/?ref=on", false), ("/?Ref=On", false), ("/?a=b&c=d", false)] {
            let head = head(target, &[("X-Device-Ref", "abcdefg")]);
            let client =
                TrustedProxies::new(vec![]).resolve("127.0.4.1".parse().unwrap(), Scheme::Http, &head).unwrap();
            assert_eq!(carriers.identify(&head, &client).is_ok(), asked, "{target}");
        }
    }

    #[test]
    fn a_live_session_sees_what_is_presented() {
        let carriers = carriers();
        let presented = |carrier: &str, fields: &[(&str, &str)]| {
            let found = carriers.presented(&head("/", fields), &CarrierName::parse(carrier).unwrap());
            found.map(|identifier| identifier.map(|i| i.expose().to_vec()))
        };
        assert_eq!(presented("docomo", &[HANDSET]), Ok(None));
        assert_eq!(presented("docomo", &[("X-DCMGUID", "")]), Ok(None));
        // Neither browser nor query is looked at: the session was opened under them.
        assert_eq!(presented("docomo", &[(GUID.0, " AbCd012\t")]), Ok(Some(b"AbCd012".to_vec())));
        assert_eq!(presented("gone", &[HANDSET]), Ok(None));
        for (carrier, fields, refusal) in [
            ("docomo", &[("X_DCMGUID", "AbCd012")][..], IdentificationRefusal::AmbiguousHeaderName),
            ("docomo", &[GUID, EZ], IdentificationRefusal::ConflictingIdentifiers),
            ("docomo", &[GUID, GUID], IdentificationRefusal::DuplicateIdentifier),
            ("docomo", &[("X-DCMGUID", "AbCd012,AbCd012")], IdentificationRefusal::DuplicateIdentifier),
            ("docomo", &[EZ], IdentificationRefusal::CarrierMismatch),
            ("willcom", &[GUID], IdentificationRefusal::CarrierMismatch),
            ("gone", &[GUID], IdentificationRefusal::CarrierMismatch),
            ("docomo", &[("X-DCMGUID", "AbCd01")], IdentificationRefusal::MalformedIdentifier),
        ] {
            assert_eq!(presented(carrier, fields), Err(refusal), "{carrier} {fields:?}");
        }
    }

    #[test]
    fn every_refusal_says_its_own_word() {
        for refusal in [IdentificationRefusal::AmbiguousHeaderName, IdentificationRefusal::TransientIdentifier] {
            assert_eq!(refusal.reason(), refusal.to_string());
        }
    }
}
