//! What an operator wrote -> profiles that cannot be wrong. All problems are gathered before the first is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

use super::builtin::{BuiltinProfile, PROFILES, RESERVED};
use super::grammar::Grammar;
use super::identify::Carriers;
use super::profile::{CarrierName, Charset, EVERY_BROWSER, ExpectedBrowser, IdentifierField, OverTls, Profile};
use super::ranges::{Ranges, canonical};
use super::spec::{Networks, ProfileSpec, RequiredQuery, SpecProblem};
use crate::edge::fold;

/// Field names that other software, or this gateway, already gives a meaning: exact, or as a beginning if they end in
/// a hyphen.
const TAKEN_FIELDS: &[&str] = &[
    "accept",
    "accept-",
    "access-control-",
    "age",
    "alt-svc",
    "authorization",
    "cache-control",
    "cf-connecting-ip",
    "connection",
    "content-",
    "cookie",
    "cookie2",
    "date",
    "dnt",
    "expect",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "if-",
    "keep-alive",
    "last-event-id",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "proxy-",
    "range",
    "referer",
    "sec-",
    "sekisho-",
    "server",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-forwarded-",
    "x-http-method-override",
    "x-original-",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
    "idempotency-key",
];

impl Carriers {
    /// Builds all profiles: the built-in ones overlaid with `specs`, and the operator's own. With them come warnings.
    ///
    /// # Errors
    /// All problems at once.
    pub fn build(specs: &BTreeMap<String, ProfileSpec>) -> Result<(Self, Vec<SpecProblem>), Vec<SpecProblem>> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let names: BTreeSet<&String> = PROFILES.keys().chain(specs.keys()).collect();
        let nothing = ProfileSpec::default();
        let mut profiles = Vec::new();
        for name in names {
            let spec = specs.get(name).unwrap_or(&nothing);
            let mut draft =
                Draft { name, built_in: PROFILES.get(name), spec, problems: &mut problems, warnings: &mut warnings };
            profiles.extend(draft.profile().map(Arc::new));
        }
        one_spelling(&profiles, &mut problems);
        let networks = profiles.iter().enumerate().flat_map(|(i, p)| p.networks().iter().map(move |net| (*net, i)));
        match Ranges::new(networks) {
            Ok(ranges) if problems.is_empty() => return Ok((Self::new(profiles, ranges), warnings)),
            Ok(_) => {}
            Err(overlaps) => {
                let name = |i: usize| profiles.get(i).map_or_else(String::new, |p| p.name().to_string());
                problems.extend(overlaps.into_iter().map(|[(outer, a), (inner, b)]| SpecProblem {
                    profile: name(b),
                    key: "networks".to_owned(),
                    problem: format!(
                        "{inner} lies in {outer} of {}: a source address must mean one carrier, take one of them out",
                        name(a)
                    ),
                }));
            }
        }
        Err(problems)
    }
}

/// Two profiles may read one field, but not two fields that fold alike: each would void the other.
fn one_spelling(profiles: &[Arc<Profile>], problems: &mut Vec<SpecProblem>) {
    let mut seen: BTreeMap<String, (&HeaderName, &CarrierName)> = BTreeMap::new();
    for profile in profiles {
        let Some(header) = profile.header() else { continue };
        let (other, owner) = *seen.entry(fold(header.as_str())).or_insert((header, profile.name()));
        if other != header {
            problems.push(SpecProblem {
                profile: profile.name().to_string(),
                key: "header".to_owned(),
                problem: format!("{header} and {other} of {owner} are one name to some software: spell them alike"),
            });
        }
    }
}

/// One profile while it is judged.
struct Draft<'a> {
    name: &'a str,
    built_in: Option<&'static BuiltinProfile>,
    spec: &'a ProfileSpec,
    problems: &'a mut Vec<SpecProblem>,
    warnings: &'a mut Vec<SpecProblem>,
}

impl Draft<'_> {
    fn problem(&mut self, key: impl Into<String>, problem: impl Into<String>) {
        self.problems.push(SpecProblem { profile: self.name.into(), key: key.into(), problem: problem.into() });
    }

    fn warn(&mut self, key: impl Into<String>, problem: impl Into<String>) {
        self.warnings.push(SpecProblem { profile: self.name.into(), key: key.into(), problem: problem.into() });
    }

    /// The profile, as far as it is sound; what is not was noted.
    fn profile(&mut self) -> Option<Profile> {
        let Some(name) = CarrierName::parse(self.name) else {
            self.problem("", "is no profile name: use 1 to 32 of a-z, 0-9 and -");
            return None;
        };
        let field = self.field();
        let networks = self.networks();
        let required_query = self.required_query();
        let browser = self.browser();
        let over_tls = match self.spec.over_tls.as_deref() {
            None | Some("refuse") => OverTls::Refuse,
            Some("accept") => OverTls::Accept,
            Some(other) => {
                self.problem("over_tls", format!("{other:?} is neither \"accept\" nor \"refuse\""));
                OverTls::Refuse
            }
        };
        Some(Profile {
            display: self.built_in.map_or(self.name, |b| &b.display).to_owned(),
            japanese: self.built_in.is_some_and(|b| b.japanese),
            name,
            field,
            required_query,
            browser,
            over_tls,
            networks,
            cookies: self.cookies(),
            charset: self.charset(),
        })
    }

    fn field(&mut self) -> Option<IdentifierField> {
        let (spec, built_in) = (self.spec, self.built_in);
        let header = spec.header.as_ref().or(built_in.and_then(|b| b.header.as_ref()));
        let expression = spec.grammar.as_ref().or(built_in.and_then(|b| b.grammar.as_ref()));
        // A built-in carrier may send no identifier; one of the operator's own is there for nothing else.
        if built_in.is_none() || header.is_some() || expression.is_some() {
            if header.is_none() {
                self.problem("header", "is missing: name the field that carries the identifier");
            }
            if expression.is_none() {
                self.problem("grammar", "is missing: describe the identifier by an anchored regular expression");
            }
        }
        let (header, expression) = (header?, expression?);
        let header = self.header(header);
        // Left out, the built-in parts hold for another grammar too: one without their groups has to say so.
        let parts = spec.identifier_parts.as_ref().or(built_in.map(|b| &b.identifier_parts));
        let refused = spec.refuse_parts.as_ref().or(built_in.map(|b| &b.refuse_parts));
        let none = BTreeMap::new();
        match Grammar::new(expression, parts.map_or(&[], Vec::as_slice), refused.unwrap_or(&none)) {
            Ok(grammar) => Some(IdentifierField { header: header?, grammar }),
            Err(errors) => {
                for (key, error) in errors {
                    self.problem(key, error.to_string());
                }
                None
            }
        }
    }

    fn header(&mut self, text: &str) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
            self.problem("header", format!("{text:?} is no field name (RFC 9110 §5.1)"));
            return None;
        };
        let folded = fold(name.as_str());
        let taken = |name: &str| folded == name || (name.ends_with('-') && folded.starts_with(name));
        if TAKEN_FIELDS.iter().any(|name| taken(name)) {
            self.problem(
                "header",
                format!("{name} already has a meaning in HTTP or here: have the identifier put elsewhere"),
            );
            return None;
        }
        for (kind, names) in &RESERVED.headers {
            if names.iter().any(|reserved| fold(reserved) == folded) {
                let advice = "have the carrier write an opaque value into a field of its own";
                self.warn("header", format!("{name} is where others put a subscriber's {kind}: {advice}"));
            }
        }
        Some(name)
    }

    fn networks(&mut self) -> Vec<IpNet> {
        match &self.spec.networks {
            None => {
                if self.built_in.is_none() {
                    self.problem("networks", "is missing: list where the carrier's gateway connects from");
                }
                Vec::new()
            }
            Some(Networks::List(list)) => {
                if list.is_empty() {
                    self.problem("networks", "is empty: list a network, or leave the key out to keep the profile off");
                }
                self.each_network(list)
            }
            Some(Networks::Reference) => match self.built_in.and_then(|b| b.reference.as_ref()) {
                None => {
                    self.problem("networks", "has no published list to refer to: list the networks");
                    Vec::new()
                }
                Some(reference) => {
                    self.warn(
                        "networks",
                        format!(
                            "takes the list of {} ({}), which is history: the addresses may belong to somebody else by \
                             now, who could then sign in as any handset; list the networks yourself",
                            reference.date, reference.source
                        ),
                    );
                    self.each_network(&reference.networks)
                }
            },
        }
    }

    /// The networks, but those that lie in another one of the list.
    fn each_network(&mut self, list: &[String]) -> Vec<IpNet> {
        let mut networks: Vec<IpNet> = list.iter().enumerate().filter_map(|(i, text)| self.network(i, text)).collect();
        networks.sort_by_key(|net| (net.network(), net.prefix_len()));
        networks.dedup_by(|inner, outer| outer.contains(&*inner));
        networks
    }

    fn network(&mut self, index: usize, text: &str) -> Option<IpNet> {
        let key = format!("networks[{index}]");
        let parsed: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(net) = parsed else {
            self.problem(key, format!("{text:?} is neither an address nor a network such as 192.0.2.0/24"));
            return None;
        };
        let network = canonical(net);
        if network.prefix_len() == 0 || holds_all_ipv4(&network) {
            self.problem(
                key,
                format!("{text} is the whole Internet, where anybody can write the identifier: narrow it"),
            );
            return None;
        }
        if net.addr() != net.network() {
            self.warn(key, format!("{text} is read as {network}"));
        }
        Some(network)
    }

    fn required_query(&mut self) -> Option<RequiredQuery> {
        let query = self.spec.require_query.as_ref().or(self.built_in.and_then(|b| b.require_query.as_ref()))?;
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        if !plain(&query.name) || !plain(&query.value) {
            self.problem("require_query", "needs a name and a value made of letters, digits and - . _ ~");
        }
        Some(query.clone())
    }

    fn browser(&mut self) -> ExpectedBrowser {
        let named = self.spec.user_agent.as_deref().or(self.built_in.map(|b| b.user_agent.as_str())).unwrap_or("any");
        if named == "any" {
            return ExpectedBrowser::Any;
        }
        if PROFILES.get(named).is_none_or(|carrier| carrier.browser.is_empty()) {
            let known = PROFILES.iter().filter(|(_, p)| !p.browser.is_empty()).map(|(name, _)| name.as_str());
            let known: Vec<_> = known.collect();
            self.problem("user_agent", format!("{named:?} is not known: choose any, {}", known.join(", ")));
        }
        ExpectedBrowser::Of(named.to_owned())
    }

    fn cookies(&mut self) -> BTreeMap<String, bool> {
        self.by_browser("cookies", self.built_in.map(|b| &b.cookies), self.spec.cookies.as_ref(), |keeps| Ok(*keeps))
    }

    fn charset(&mut self) -> BTreeMap<String, Charset> {
        self.by_browser("charset", self.built_in.map(|b| &b.charset), self.spec.charset.as_ref(), |name| {
            Charset::parse(name).ok_or_else(|| format!("{name:?} is none of Shift_JIS, EUC-JP, UTF-8"))
        })
    }

    /// What was written, and of the built-in entries those that it leaves open.
    fn by_browser<W, V: Copy>(
        &mut self,
        table: &str,
        built_in: Option<&BTreeMap<String, V>>,
        written: Option<&BTreeMap<String, W>>,
        read: impl Fn(&W) -> Result<V, String>,
    ) -> BTreeMap<String, V> {
        let mut entries = BTreeMap::new();
        for (key, value) in written.into_iter().flatten() {
            match (generation(key), read(value)) {
                (Ok(generation), Ok(value)) => drop(entries.insert(generation.to_owned(), value)),
                (Err(problem), _) | (_, Err(problem)) => self.problem(format!("{table}.{key}"), problem),
            }
        }
        if !entries.contains_key(EVERY_BROWSER) {
            for (generation, value) in built_in.into_iter().flatten() {
                entries.entry(generation.clone()).or_insert(*value);
            }
        }
        entries
    }
}

/// A browser version or generation that some carrier's strings tell; `imode-2.0` says the same as `2.0`.
fn generation(key: &str) -> Result<&str, String> {
    let generation = match key {
        "default" => EVERY_BROWSER,
        _ => key.strip_prefix("imode-").unwrap_or(key),
    };
    let rows = PROFILES.values().flat_map(|profile| &profile.browser);
    let told = rows.filter_map(|row| row.generation.as_deref());
    let known: BTreeSet<&str> = told.chain([EVERY_BROWSER, "1.0", "2.0"]).collect();
    if known.contains(generation) {
        return Ok(generation);
    }
    Err(format!("is no browser generation: choose from {}", known.into_iter().collect::<Vec<_>>().join(", ")))
}

/// `::/0` down to `::ffff:0:0/96`: networks of IPv6 that have all of IPv4 inside.
fn holds_all_ipv4(network: &IpNet) -> bool {
    matches!(network, IpNet::V6(v6) if v6.contains(&std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()))
}
