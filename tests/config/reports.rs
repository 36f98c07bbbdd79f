//! Every `tests/data/config/NAME.toml` has the report it must give beside it, in `NAME.expected`.
//!
//! `SEKISHO_WRITE_EXPECTED=1` writes the reports anew; read the difference before it is committed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sekisho::config::{Finding, Severity, parts};

/// Stands where a secret might have been pasted; no report may repeat it.
const CANARIES: [&str; 3] = ["canary", "Y2FuYXJ5", "c2VjcmV0"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config")
}

fn names() -> Vec<String> {
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).map(stem).collect();
    names.sort();
    names
}

fn findings(name: &str) -> (bool, Vec<Finding>) {
    let text = fs::read_to_string(folder().join(format!("{name}.toml"))).unwrap();
    match parts(&text, Path::new(&format!("{name}.toml"))) {
        Ok((_, warnings)) => (true, warnings),
        Err(findings) => (false, findings),
    }
}

#[test]
fn every_configuration_gives_its_report() {
    let mut differences = String::new();
    for name in names() {
        let report: String =
            findings(&name).1.iter().flat_map(|finding| [finding.to_string(), "\n".to_owned()]).collect();
        let expected_file = folder().join(format!("{name}.expected"));
        if std::env::var_os("SEKISHO_WRITE_EXPECTED").is_some() {
            fs::write(&expected_file, &report).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if report != expected {
            writeln!(differences, "{name}: expected\n{expected}but got\n{report}").unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn good_ones_pass_and_others_do_not() {
    let (mut good, mut broken) = (0, 0);
    for name in names() {
        let (passes, findings) = findings(&name);
        assert_eq!(passes, name.starts_with("good-"), "{name}");
        assert_eq!(passes, findings.iter().all(|f| f.severity == Severity::Warning), "{name}");
        *(if passes { &mut good } else { &mut broken }) += 1;
    }
    assert!(good >= 3 && broken >= 30, "data files are missing: {good} good, {broken} broken");
}

#[test]
fn no_report_repeats_what_was_pasted() {
    for name in names() {
        for finding in findings(&name).1 {
            let shown = finding.to_string();
            assert!(!CANARIES.iter().any(|canary| shown.contains(canary)), "{shown}");
            assert_eq!(shown.lines().count(), 1, "{shown}");
        }
    }
}

#[test]
fn findings_stand_in_the_order_of_the_file() {
    for name in names() {
        assert!(findings(&name).1.is_sorted_by_key(|finding| finding.line), "{name}");
    }
}

#[test]
fn values_of_a_good_configuration_arrive() {
    let text = fs::read_to_string(folder().join("good-everything.toml")).unwrap();
    let (config, _) = parts(&text, Path::new("/etc/sekisho/sekisho.toml")).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(config.gateway.public_url.to_string(), "http://admin.example.jp:8080");
    assert_eq!(config.gateway.plain_url.to_string(), "http://plain.example.jp:8081");
    assert!(config.gateway.hosts.allows("[2001:db8::1]:80"));
    assert!(config.gateway.trusted_proxies.trusts("2001:db8:ff::9".parse().unwrap()));
    assert_eq!(config.admin.socket, Path::new("/run/sekisho/admin.sock"));
    assert!(!config.carriers["docomo"].cookies.as_ref().unwrap()["all"]);
    assert_eq!(config.upstreams[0].ca.as_deref(), Some(Path::new("/etc/sekisho/certs/internal-ca.pem")));
    let servers: Vec<String> = config.upstreams[0].servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers[2], "https://[2001:db8::2]:443");
    assert_eq!(config.upstreams[0].timeout.connect.as_millis(), 500);
    assert_eq!(config.routes[1].upstream, 1);
    let asks_pin = |route: &sekisho::config::RouteConfig| route.assurance == sekisho::config::Assurance::DevicePin;
    assert_eq!(config.routes.iter().map(asks_pin).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((config.session.pin_for.as_secs(), config.limits.pin.count), (900, 5));
    assert_eq!(config.session.idle.as_secs(), 300);
    assert_eq!(config.binding.retention_days, 1);
    assert_eq!(config.limits.network.period.as_secs(), 10);
    assert_eq!(config.limits.body_bytes, 1 << 30);
    assert!(config.log.sealed);
    let privacy = config.privacy;
    assert_eq!((privacy.access_log_days, privacy.sessions_days, privacy.codes_days), (30, 2, 3));
}
