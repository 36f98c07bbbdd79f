//! Every row of `ident-cases.json`, through the function that the listener and `carriers explain` share.

use std::collections::BTreeMap;

use ring::hmac;
use sekisho::carrier::{self, Carriers, Networks, ProfileSpec, RequiredQuery};
use sekisho::edge::{HostAllowList, TrustedProxies};
use serde::Deserialize;
use serde_json::Value;

pub(crate) const CASES: &str = include_str!("../data/ident-cases.json");
const FINGERPRINT_KEY: &[u8] = b"a key of this test";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: Value,
    config: Config,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    hosts: Vec<String>,
    trusted_proxies: Vec<String>,
    profiles: BTreeMap<String, RawProfile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    header: String,
    grammar: String,
    over_tls: String,
    require_query: Option<RequiredQuery>,
    user_agent: String,
    identifier_parts: Option<Vec<String>>,
    refuse_parts: Option<BTreeMap<String, Vec<String>>>,
    networks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    #[serde(rename = "title")]
    _title: String,
    #[serde(rename = "origin")]
    _origin: String,
    request: Value,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    outcome: String,
    carrier: Option<String>,
    identifier: Option<String>,
    reason: Option<String>,
    must_not_forward: Vec<String>,
}

/// The file's configuration, as an operator would state it.
pub(crate) struct Gate {
    pub(crate) carriers: Carriers,
    hosts: HostAllowList,
    proxies: TrustedProxies,
}

impl Gate {
    /// Host names, proxies and profiles of the file.
    pub(crate) fn of_the_file() -> Self {
        let File { config, .. } = serde_json::from_str(CASES).expect("the file has the shape of File");
        Self::new(config)
    }

    fn new(config: Config) -> Self {
        let specs = config.profiles.into_iter().map(|(name, profile)| (name, profile.into())).collect();
        let Ok((carriers, warnings)) = Carriers::build(&specs) else { panic!("the file's profiles are sound") };
        assert_eq!(warnings, []);
        Self {
            carriers,
            hosts: HostAllowList::new(config.hosts),
            proxies: TrustedProxies::new(
                config.trusted_proxies.iter().map(|net| net.parse().expect("a network")).collect(),
            ),
        }
    }

    /// What `carriers explain` answers, line by line.
    pub(crate) fn explain(&self, lines: &[u8], key: Option<&[u8]>) -> Vec<Value> {
        let mut output = Vec::new();
        carrier::explain_lines(&self.carriers, &self.hosts, &self.proxies, key, lines, &mut output)
            .expect("memory takes all");
        output
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|l| serde_json::from_slice(l).expect("each answer is JSON"))
            .collect()
    }
}

impl From<RawProfile> for ProfileSpec {
    fn from(raw: RawProfile) -> Self {
        Self {
            header: Some(raw.header),
            grammar: Some(raw.grammar),
            identifier_parts: raw.identifier_parts,
            refuse_parts: raw.refuse_parts,
            require_query: raw.require_query,
            user_agent: Some(raw.user_agent),
            over_tls: Some(raw.over_tls),
            networks: Some(Networks::List(raw.networks)),
            cookies: None,
            charset: None,
        }
    }
}

#[test]
fn every_case_is_decided_as_expected() {
    let File { config, cases, .. } = serde_json::from_str(CASES).expect("the file has the shape of File");
    let gate = Gate::new(config);
    assert!(cases.len() > 200);
    let key = hmac::Key::new(hmac::HMAC_SHA256, FINGERPRINT_KEY);
    let mut wrong = Vec::new();
    for case in &cases {
        let line = serde_json::to_vec(&case.request).unwrap();
        let [answer] = gate.explain(&line, Some(FINGERPRINT_KEY)).try_into().unwrap();
        let expect = &case.expect;
        let mut expected = serde_json::json!({
            "outcome": expect.outcome,
            "must_not_forward": expect.must_not_forward,
        });
        if let Some(carrier) = &expect.carrier {
            expected["carrier"] = carrier.clone().into();
        }
        if let Some(reason) = &expect.reason {
            expected["reason"] = reason.clone().into();
        }
        if let Some(identifier) = &expect.identifier {
            let tag = hmac::sign(&key, identifier.as_bytes());
            let hex = tag.as_ref().iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
            expected["fingerprint"] = hex.into();
        }
        if answer != expected {
            wrong.push(format!("{}: {answer}, not {expected}", case.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The built-in profiles decide as the file's do once they have its networks.
#[test]
fn built_in_profiles_need_only_their_networks() {
    let File { mut config, cases, .. } = serde_json::from_str(CASES).expect("the file has the shape of File");
    let mut specs = BTreeMap::new();
    for (name, raw) in std::mem::take(&mut config.profiles) {
        let networks = Some(Networks::List(raw.networks.clone()));
        let over_tls = Some(raw.over_tls.clone());
        let built_in = ProfileSpec { networks, over_tls, ..ProfileSpec::default() };
        let spec = if name == "private-apn" { raw.into() } else { built_in };
        specs.insert(name, spec);
    }
    let Ok((carriers, _)) = Carriers::build(&specs) else { panic!("networks are all that a built-in profile needs") };
    let mut gate = Gate::new(config);
    gate.carriers = carriers;
    for case in &cases {
        let line = serde_json::to_vec(&case.request).unwrap();
        let [answer] = gate.explain(&line, None).try_into().unwrap();
        assert_eq!(answer["outcome"], case.expect.outcome, "{}", case.id);
        assert_eq!(answer["reason"].as_str(), case.expect.reason.as_deref(), "{}", case.id);
    }
}
