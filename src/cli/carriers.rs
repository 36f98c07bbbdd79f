//! `carriers list | explain | user-agent`: no gateway needed.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::failure::{Failure, Findings};
use super::output::{Document, end, finish};
use crate::carrier::{self, OverTls, Profile};
use crate::config::Identification;

const EXAMPLE: &str = r#"One line in, one line out, until stdin ends; a line that is no request is answered by an error:
{"remote_ip":"27.90.207.40","scheme":"http","method":"GET","target":"/","headers":[["Host","admin.example.jp"]]}
{"outcome":"refused","reason":"missing-identifier","must_not_forward":[]}"#;

#[derive(Args)]
pub(super) struct Carriers {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Carrier profiles, and which are switched on
    List {
        /// The configuration; without it the built-in profiles
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print one JSON document on stdout and nothing else
        #[arg(long)]
        json: bool,
    },
    /// Say of each request on stdin, one JSON object a line, what the gateway would make of its identifier
    #[command(after_help = EXAMPLE)]
    Explain {
        /// The configuration; of it, [gateway] and [carriers.*] are enough
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Add the identifier's fingerprint, HMAC-SHA256 under this key: tells identifiers apart without showing them
        #[arg(long, value_name = "HEX")]
        fingerprint_key: Option<String>,
    },
    /// Say of each User-Agent on stdin, one a line, what it tells of the handset
    UserAgent,
}

impl Carriers {
    pub(super) fn run(self) -> ExitCode {
        match self.verb {
            Verb::List { config, json } => finish(list(config.as_deref()), json),
            Verb::Explain { config, fingerprint_key } => end(explain(&config, fingerprint_key), false),
            Verb::UserAgent => {
                end(carrier::user_agent_lines(io::stdin().lock(), io::stdout().lock()).map_err(Failure::from), false)
            }
        }
    }
}

fn explain(config: &Path, fingerprint_key: Option<String>) -> Result<(), Failure> {
    let key = match fingerprint_key.map(Zeroizing::new) {
        None => None,
        Some(hex) => Some(parse_hex(&hex).ok_or(Failure::FingerprintKey)?),
    };
    let Identification { gateway, carriers } = load(config)?;
    let (hosts, proxies) = (&gateway.hosts, &gateway.trusted_proxies);
    let key = key.as_ref().map(|key| key.as_slice());
    Ok(carrier::explain_lines(&carriers, hosts, proxies, key, io::stdin().lock(), io::stdout().lock())?)
}

fn list(config: Option<&Path>) -> Result<Profiles, Failure> {
    let carriers = match config {
        Some(file) => load(file)?.carriers,
        None => {
            carrier::Carriers::build(&BTreeMap::new())
                .expect("the built-in profiles are sound: their own tests build them")
                .0
        }
    };
    Ok(Profiles { carriers: carriers.profiles().iter().map(|profile| ProfileDocument::of(profile)).collect() })
}

/// Reads what the tools need of the configuration; warnings go to stderr.
fn load(file: &Path) -> Result<Identification, Failure> {
    let (parts, warnings) = Identification::load(file).map_err(|found| Failure::Configuration(Findings(found)))?;
    for warning in warnings {
        let _ = writeln!(io::stderr(), "{warning}"); // nowhere is left to say that stderr failed
    }
    Ok(parts)
}

fn parse_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    for pair in text.as_bytes().chunks(2) {
        let [high, low] = *pair else { return None };
        bytes.push(digit(high)? << 4 | digit(low)?);
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// `carriers list --json`.
#[derive(Serialize)]
struct Profiles {
    carriers: Vec<ProfileDocument>,
}

#[derive(Serialize)]
struct ProfileDocument {
    carrier: String,
    enabled: bool,
    /// `accept` or `refuse`.
    over_tls: &'static str,
    /// What the sign-in link carries, e.g. `guid=ON`.
    require_query: Option<String>,
    /// Whether the identifier space is so small that its hashes are stretched.
    small_identifier_space: bool,
}

impl ProfileDocument {
    fn of(profile: &Profile) -> Self {
        Self {
            carrier: profile.name().to_string(),
            enabled: profile.enabled(),
            over_tls: match profile.over_tls() {
                OverTls::Accept => "accept",
                OverTls::Refuse => "refuse",
            },
            require_query: profile.required_query().map(|(name, value)| format!("{name}={value}")),
            small_identifier_space: profile.small_identifier_space(),
        }
    }
}

impl Document for Profiles {
    const COLUMNS: &'static [&'static str] = &["carrier", "enabled", "over TLS", "sign-in link", "identifier space"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |p: &ProfileDocument| {
            let enabled = if p.enabled { "yes" } else { "no" };
            let space = if p.small_identifier_space { "small" } else { "large" };
            let query = p.require_query.as_deref().unwrap_or("-");
            [&p.carrier, enabled, p.over_tls, query, space].map(str::to_owned).into()
        };
        self.carriers.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_key_is_hexadecimal() {
        for (text, bytes) in [("00", &[0][..]), ("dEaDbeef", &[0xde, 0xad, 0xbe, 0xef])] {
            assert_eq!(parse_hex(text).unwrap().as_slice(), bytes);
        }
        for text in ["", "0", "000", "0x", "+f", "é0", "0 0"] {
            assert!(parse_hex(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_wrong_fingerprint_key_is_not_repeated() {
        let failure = explain(Path::new("none"), Some("secret".to_owned())).unwrap_err();
        assert!(matches!(failure, Failure::FingerprintKey));
        assert!(!failure.to_string().contains("secret"));
    }
}
