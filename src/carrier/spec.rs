//! What an operator may write about a profile: text, not yet judged.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One `[carriers.NAME]` table. What is left out comes from the built-in profile of that name, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileSpec {
    /// The identifier's header field.
    pub header: Option<String>,
    /// Anchored regular expression over the trimmed value; may have named groups.
    pub grammar: Option<String>,
    /// Named groups that make the identifier, in order; without it the whole value does.
    pub identifier_parts: Option<Vec<String>>,
    /// Values of named groups that make an identifier transient.
    pub refuse_parts: Option<BTreeMap<String, Vec<String>>>,
    /// The query parameter that makes the carrier's gateway insert the identifier.
    pub require_query: Option<RequiredQuery>,
    /// The carrier whose browser must be seen, or `any`.
    pub user_agent: Option<String>,
    /// `accept` or `refuse`.
    pub over_tls: Option<String>,
    /// Where the carrier's gateway connects from; without it the profile is off.
    pub networks: Option<Networks>,
    /// Browser generation -> whether it keeps cookies; `all` or `default` for every other one.
    pub cookies: Option<BTreeMap<String, bool>>,
    /// Browser generation -> charset (`Shift_JIS`, `EUC-JP`, `UTF-8`); `all` or `default` for every other one.
    pub charset: Option<BTreeMap<String, String>>,
}

/// A query parameter that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequiredQuery {
    /// Parameter name.
    pub name: String,
    /// Parameter value.
    pub value: String,
    /// Compare both without case.
    pub ignore_case: bool,
}

/// Source networks of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Networks {
    /// `"reference"`: the dated list that was published, which may have been reassigned since.
    Reference,
    /// CIDRs; a bare address stands for itself alone.
    List(Vec<String>),
}

/// Something wrong, or doubtful, in a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    /// The profile's name.
    pub profile: String,
    /// The key below `carriers.NAME`, e.g. `networks`; with an index where one entry is meant.
    pub key: String,
    /// What is wrong and what to do.
    pub problem: String,
}
