//! The built-in profiles and reserved names, read from the data files beside this one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::profile::{Charset, Markup};
use super::spec::RequiredQuery;
use super::user_agent::UserAgentKind;

/// The built-in profiles by name.
pub(super) static PROFILES: LazyLock<BTreeMap<String, BuiltinProfile>> = LazyLock::new(|| {
    toml::from_str(include_str!("builtin.toml")).expect("builtin.toml has the shape of BuiltinProfile")
});

/// What carries subscriber data, whoever sends it.
pub(super) static RESERVED: LazyLock<ReservedNames> = LazyLock::new(|| {
    toml::from_str(include_str!("reserved.toml")).expect("reserved.toml has the shape of ReservedNames")
});

/// One table of `builtin.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuiltinProfile {
    /// The carrier's name for people.
    pub(super) display: String,
    pub(super) japanese: bool,
    pub(super) header: Option<String>,
    /// Fields that can carry the same identifier but are never read.
    #[serde(default)]
    pub(super) other_headers: Vec<String>,
    pub(super) grammar: Option<String>,
    #[serde(default)]
    pub(super) identifier_parts: Vec<String>,
    #[serde(default)]
    pub(super) refuse_parts: BTreeMap<String, Vec<String>>,
    pub(super) require_query: Option<RequiredQuery>,
    pub(super) user_agent: String,
    #[serde(default)]
    pub(super) cookies: BTreeMap<String, bool>,
    pub(super) charset: BTreeMap<String, Charset>,
    #[serde(default)]
    pub(super) markup: BTreeMap<String, Markup>,
    #[serde(default)]
    pub(super) posts: BTreeMap<String, bool>,
    #[serde(default)]
    pub(super) queries: BTreeMap<String, bool>,
    #[serde(default)]
    pub(super) form_queries: BTreeMap<String, bool>,
    #[serde(default)]
    pub(super) url_bytes: BTreeMap<String, usize>,
    #[serde(default)]
    pub(super) tls12: BTreeMap<String, bool>,
    pub(super) reference: Option<ReferenceNetworks>,
    #[serde(default)]
    pub(super) browser: Vec<BrowserRow>,
}

/// A dated, published list of the networks of a carrier's browser gateways.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReferenceNetworks {
    pub(super) source: String,
    pub(super) date: String,
    pub(super) networks: Vec<String>,
}

/// One form of a carrier's User-Agent strings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BrowserRow {
    pub(super) kind: UserAgentKind,
    pub(super) generation: Option<String>,
    /// The browser version, where the form alone tells it.
    pub(super) version: Option<String>,
    pub(super) pattern: String,
}

/// `reserved.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReservedNames {
    /// By what they carry.
    pub(super) headers: BTreeMap<String, Vec<String>>,
    pub(super) folded_suffixes: Vec<String>,
    pub(super) cookies: Vec<String>,
    pub(super) query_keys: Vec<String>,
}
