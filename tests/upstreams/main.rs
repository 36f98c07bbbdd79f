//! The conformance file that upstream developers get, `deploy/upstreams/conformance/assertion.json`: made from the table
//! in `cases.rs`, and our own verifier run over it. `samples.py` beside it runs the samples over the same file.
//!
//! `SEKISHO_WRITE_EXPECTED=1` writes it anew; read the difference before it is committed.

#![expect(clippy::unwrap_used, reason = "a set-up that fails should fail its test")]
#![expect(clippy::indexing_slicing, reason = "tokens are made here")]

mod cases;
mod forge;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sekisho::assertion::AssertionVerifier;
use sekisho::clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cases::{Case, Expect, cases};
use crate::forge::{AUDIENCE, Forge, ISSUER, NOW};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/upstreams/conformance/assertion.json");
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/upstreams/README.md");
const ABOUT: &str = "Tokens that a verifier of Sekisho-Jwt-Assertion must accept or reject, with its clock at `now` \
    (seconds since the Unix epoch), expecting `issuer` and `audience`, and keys from `jwks` alone. `token` is the \
    header's value; `signed` says whether it bears a valid signature of a published key.";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conformance {
    about: String,
    issuer: String,
    audience: String,
    now: i64,
    jwks: Value,
    cases: Vec<Case>,
}

fn stored() -> Conformance {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

#[test]
fn the_file_is_what_the_table_makes() {
    let old = std::fs::read_to_string(FILE).unwrap_or_default();
    let tokens = serde_json::from_str::<Conformance>(&old).map_or_else(|_| Vec::new(), |file| file.cases);
    let forge = Forge::new(tokens.into_iter().map(|case| case.token).collect());
    let made = Conformance {
        about: ABOUT.into(),
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        now: NOW,
        jwks: forge.jwks(),
        cases: cases(&forge),
    };
    let made = serde_json::to_string_pretty(&made).unwrap() + "\n";
    if std::env::var_os("SEKISHO_WRITE_EXPECTED").is_some() {
        std::fs::write(FILE, &made).unwrap();
    } else {
        assert!(made == old, "{FILE} is not what the table makes: SEKISHO_WRITE_EXPECTED=1, and read the difference");
    }
}

#[test]
fn our_own_verifier_judges_every_token_as_the_file_says() {
    let file = stored();
    let verifier = AssertionVerifier::new(&file.jwks.to_string(), &file.issuer, &file.audience).unwrap();
    let now = Timestamp::from_unix_millis(file.now * 1000);
    let wrong: Vec<_> = file
        .cases
        .iter()
        .map(|case| (case, verifier.verify(&case.token, now)))
        .filter(|(case, said)| said.is_ok() != (case.expect == Expect::Accept))
        .map(|(case, said)| format!("{}: {:?}", case.name, said.err()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_file_is_worth_its_name() {
    let file = stored();
    let names: BTreeSet<_> = file.cases.iter().map(|case| case.name.as_str()).collect();
    let tokens: BTreeSet<_> = file.cases.iter().map(|case| case.token.as_str()).collect();
    assert_eq!((names.len(), tokens.len()), (file.cases.len(), file.cases.len()), "each case once");
    assert!(file.cases.iter().all(|case| case.signed || case.expect == Expect::Reject));
    assert!(file.cases.iter().all(|case| case.why.ends_with('.')));
    let of = |signed, expect| file.cases.iter().filter(|c| c.signed == signed && c.expect == expect).count();
    let (accepted, forged, strange) = (of(true, Expect::Accept), of(false, Expect::Reject), of(true, Expect::Reject));
    assert!(accepted >= 2 && forged >= 50 && strange >= 50, "{accepted}, {forged}, {strange}");
    assert_eq!(file.jwks["keys"].as_array().unwrap().len(), 2);
    let readme = std::fs::read_to_string(README).unwrap();
    for number in [
        format!("has {} tokens", file.cases.len()),
        format!("the {} hostile tokens", forged + strange),
        format!("{forged} of the hostile ones bear no valid signature"),
    ] {
        assert!(readme.contains(&number), "{README} does not say: {number}");
    }
}

/// Samples refuse members that come twice by writing the JSON again where their parser cannot tell.
#[test]
fn genuine_tokens_hold_compact_json() {
    let forge = Forge::new(Vec::new());
    for token in [forge.genuine(), forge.genuine_by_next()] {
        for segment in token.split('.').take(2) {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value.to_string().len(), text.len(), "{text}");
        }
    }
}
