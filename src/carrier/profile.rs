//! One carrier as data: where its identifier stands, its grammar, its networks, what its browsers can do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;
use serde::Deserialize;
use smol_str::SmolStr;

use super::builtin::PROFILES;
use super::grammar::{Grammar, ValueError};
use super::identifier::RawIdentifier;
use super::identify::IdentificationRefusal;
use super::spec::RequiredQuery;
use super::user_agent::UserAgent;

/// The entry that stands for every browser without one of its own.
pub(super) const EVERY_BROWSER: &str = "all";

/// Name of a carrier profile: `[a-z0-9-]{1,32}`, e.g. `docomo`. A clone is one pointer to the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CarrierName(Arc<SmolStr>);

impl CarrierName {
    /// Reads a name; `None` if it has another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let form = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        ((1..=32).contains(&text.len()) && text.bytes().all(form)).then(|| Self(Arc::new(text.into())))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CarrierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to do with an identifier that came over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverTls {
    /// The operator vouches for what writes it.
    Accept,
    /// The carrier's gateway cannot write into TLS, so the handset's side did.
    Refuse,
}

/// A character encoding that a handset's browser reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Charset {
    /// `Shift_JIS`.
    #[serde(rename = "Shift_JIS")]
    ShiftJis,
    /// EUC-JP.
    #[serde(rename = "EUC-JP")]
    EucJp,
    /// UTF-8.
    #[serde(rename = "UTF-8")]
    Utf8,
}

impl Charset {
    /// Reads the name as `Content-Type` spells it, without case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ShiftJis, Self::EucJp, Self::Utf8].into_iter().find(|c| c.as_str().eq_ignore_ascii_case(text))
    }

    /// The name for `Content-Type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ShiftJis => "Shift_JIS",
            Self::EucJp => "EUC-JP",
            Self::Utf8 => "UTF-8",
        }
    }
}

/// A markup language that a handset's browser reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Markup {
    /// Compact HTML, the i-mode HTML of 1999 (W3C note of 1998-02-09): HTML 3.2 without style sheets.
    #[serde(rename = "CHTML")]
    Chtml,
    /// XHTML Mobile Profile (OMA, WAP-277).
    #[serde(rename = "XHTML-MP")]
    XhtmlMobile,
    /// HTML (WHATWG).
    #[serde(rename = "HTML")]
    Html,
}

/// Which browser must be seen with an identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpectedBrowser {
    Any,
    /// The own mobile browser of this carrier.
    Of(String),
}

/// The field that a profile reads.
pub(super) struct IdentifierField {
    pub(super) header: HeaderName,
    pub(super) grammar: Grammar,
}

/// One carrier as data. No per-carrier branch exists elsewhere.
pub struct Profile {
    pub(super) name: CarrierName,
    pub(super) display: String,
    pub(super) japanese: bool,
    /// `None`: the carrier sends no identifier, the profile can only recognise it.
    pub(super) field: Option<IdentifierField>,
    pub(super) required_query: Option<RequiredQuery>,
    pub(super) browser: ExpectedBrowser,
    pub(super) over_tls: OverTls,
    /// Empty: the profile is off.
    pub(super) networks: Vec<IpNet>,
    pub(super) cookies: BTreeMap<String, bool>,
    pub(super) charset: BTreeMap<String, Charset>,
}

impl Profile {
    /// The key of the profile.
    #[must_use]
    pub const fn name(&self) -> &CarrierName {
        &self.name
    }

    /// The carrier's name for people, e.g. `SoftBank`.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.display
    }

    /// Whether its subscribers are in Japan.
    #[must_use]
    pub const fn japanese(&self) -> bool {
        self.japanese
    }

    /// Whether it has networks, and so takes part in decisions.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Where the carrier's gateway connects from.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// The identifier's field; `None` for a carrier that sends no identifier.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        self.field.as_ref().map(|field| &field.header)
    }

    /// (parameter, value) that the login link must carry, e.g. `("guid", "ON")`.
    #[must_use]
    pub fn required_query(&self) -> Option<(&str, &str)> {
        self.required_query.as_ref().map(|query| (query.name.as_str(), query.value.as_str()))
    }

    /// Whether the identifier space is under 2^80, or may be, so that a keyed hash of it must be stretched.
    #[must_use]
    pub fn small_identifier_space(&self) -> bool {
        self.field.as_ref().is_none_or(|field| field.grammar.small_space())
    }

    /// What to do with an identifier that came over TLS.
    #[must_use]
    pub const fn over_tls(&self) -> OverTls {
        self.over_tls
    }

    /// Whether this browser keeps cookies over plain HTTP, as the profile says, else as is known of it; `None` where
    /// neither tells.
    #[must_use]
    pub fn keeps_cookies(&self, user_agent: &UserAgent) -> Option<bool> {
        self.by_browser(&self.cookies, user_agent).or(user_agent.cookies)
    }

    /// The browsers, by version or generation, that keep no cookies over plain HTTP, as the profile says.
    pub fn cookieless(&self) -> impl Iterator<Item = &str> {
        self.cookies.iter().filter(|(_, keeps)| !**keeps).map(|(browser, _)| browser.as_str())
    }

    /// The encoding for pages to this browser, as the profile says, else as is known of it.
    #[must_use]
    pub fn charset_for(&self, user_agent: &UserAgent) -> Charset {
        self.by_browser(&self.charset, user_agent).unwrap_or_else(|| user_agent.charset())
    }

    /// The generations of its own browsers that cannot speak TLS 1.2, e.g. `mova`; none where any browser is welcome.
    #[must_use]
    pub fn generations_without_tls12(&self) -> Vec<&'static str> {
        let ExpectedBrowser::Of(carrier) = &self.browser else { return Vec::new() };
        let known = PROFILES.get(carrier).into_iter().flat_map(|profile| &profile.tls12);
        known.filter(|(_, speaks)| !**speaks).map(|(generation, _)| generation.as_str()).collect()
    }

    /// Reads a value of the profile's field, as it stood there. Also the way in for identifiers that another system
    /// kept; in a request [`super::Carriers::identify`] decides first whether the value is to be believed.
    ///
    /// # Errors
    /// `MalformedIdentifier`, `TransientIdentifier`; `MissingIdentifier` for a profile without a field.
    pub fn read_identifier(&self, value: &[u8]) -> Result<RawIdentifier, IdentificationRefusal> {
        let field = self.field.as_ref().ok_or(IdentificationRefusal::MissingIdentifier)?;
        let parts = field.grammar.read(value.trim_ascii()).map_err(|error| match error {
            ValueError::Malformed => IdentificationRefusal::MalformedIdentifier,
            ValueError::Transient => IdentificationRefusal::TransientIdentifier,
        })?;
        Ok(RawIdentifier::join(self.name.clone(), parts.iter().copied(), field.grammar.small_space()))
    }

    /// What the profile says of a carrier's own browser says nothing about another one in its network.
    fn by_browser<V: Copy>(&self, map: &BTreeMap<String, V>, user_agent: &UserAgent) -> Option<V> {
        match &self.browser {
            ExpectedBrowser::Of(carrier) if !user_agent.is_handset_of(carrier) => None,
            ExpectedBrowser::Of(_) | ExpectedBrowser::Any => lookup(map, user_agent.browser, user_agent.generation),
        }
    }
}

/// The entry of the browser's version, else of its generation, else of all.
pub(super) fn lookup<V: Copy>(map: &BTreeMap<String, V>, version: Option<&str>, generation: Option<&str>) -> Option<V> {
    [version, generation, Some(EVERY_BROWSER)].into_iter().flatten().find_map(|key| map.get(key).copied())
}
