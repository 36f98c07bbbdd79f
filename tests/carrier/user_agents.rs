//! Every row of `user-agents.json`.

use sekisho::carrier::{UserAgent, UserAgentKind};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    ua: String,
    expect: Expect,
    #[serde(rename = "sources")]
    _sources: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    carrier: String,
    kind: UserAgentKind,
    model: Option<String>,
    generation: Option<String>,
    browser: Option<String>,
    cookies: Option<bool>,
    device_serial: Option<String>,
    card_serial: Option<String>,
    redacted: Option<String>,
}

#[test]
fn every_string_is_read_as_expected() {
    let File { cases, .. } = serde_json::from_str(include_str!("../data/user-agents.json")).unwrap();
    assert!(cases.len() > 800);
    let wrong: Vec<String> = cases.iter().filter_map(difference).collect();
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// A field that the row does not state is not asserted; without serials the string stays as it is.
fn difference(case: &Case) -> Option<String> {
    let Case { ua, expect, .. } = case;
    let found = UserAgent::parse(ua);
    let stated = |expected: &Option<String>, found: Option<&str>| expected.is_none() || expected.as_deref() == found;
    let serials = [&expect.device_serial, &expect.card_serial];
    let same = found.carrier.unwrap_or("none") == expect.carrier
        && found.kind == expect.kind
        && stated(&expect.model, found.model.as_deref())
        && stated(&expect.generation, found.generation)
        && stated(&expect.browser, found.browser)
        && (expect.cookies.is_none() || expect.cookies == found.cookies)
        && found.redacted == *expect.redacted.as_ref().unwrap_or(ua)
        && serials.iter().all(|serial| serial.as_ref().is_none_or(|s| !format!("{found:?}").contains(s.as_str())));
    (!same).then(|| format!("{}: {ua}\n    {found:?}", case.id))
}
