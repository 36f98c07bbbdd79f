//! Files on disk, carriers' profiles included.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use sekisho::config::{Config, Finding, Identification, KekSource, SecretSource};

const CONTRACT: &str = include_str!("../data/config/good-contract.toml");

/// Puts `text` beside a KEK file with `mode` and loads it.
fn load(text: &str, mode: u32) -> Result<(Config, Vec<String>), Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let kek = folder.path().join("secrets/kek");
    fs::create_dir(kek.parent().unwrap()).unwrap();
    fs::write(&kek, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    fs::set_permissions(&kek, fs::Permissions::from_mode(mode)).unwrap();
    let file = folder.path().join("sekisho.toml");
    fs::write(&file, text).unwrap();
    let shown = |findings: Vec<Finding>| findings.iter().map(|f| format!("{}: {}", f.key, f.problem)).collect();
    match Config::load(&file) {
        Ok((config, warnings)) => {
            assert!(matches!(&config.keys.kek, KekSource::Secret(SecretSource::File(path)) if *path == kek));
            Ok((config, shown(warnings)))
        }
        Err(findings) => Err(shown(findings)),
    }
}

fn mentions(findings: &[String], start: &str) -> bool {
    findings.iter().any(|finding| finding.starts_with(start))
}

#[test]
fn the_contract_example_loads() {
    let (config, warnings) = load(CONTRACT, 0o600).unwrap_or_else(|findings| panic!("{findings:#?}"));
    let enabled: Vec<_> =
        config.carriers.profiles().iter().filter(|p| p.enabled()).map(|p| p.name().as_str()).collect();
    assert_eq!(enabled.len(), 2, "{enabled:?}");
    assert!(!mentions(&warnings, "carriers."), "{warnings:#?}");
    assert!(!mentions(&warnings, "keys.kek: "), "{warnings:#?}");
}

#[test]
fn an_identifier_that_no_listener_could_read_is_a_warning() {
    let plain = "[[listener]]\nserves = \"handset\"\naddress = \"0.0.0.0:8080\"\n";
    let text = CONTRACT.replace(plain, "");
    assert_ne!(text, CONTRACT);
    let (_, warnings) = load(&text, 0o600).unwrap_or_else(|findings| panic!("{findings:#?}"));
    assert!(mentions(&warnings, "carriers.docomo.over_tls: "), "{warnings:#?}");
    assert!(!mentions(&warnings, "carriers.private-apn.over_tls: "), "{warnings:#?}");
}

#[test]
fn a_transport_that_browsers_cannot_keep_to_is_a_warning() {
    let auto = "transport = \"auto\"";
    assert!(CONTRACT.contains(auto));
    for (written, about) in [
        (auto, None),
        (
            "transport = \"cookie\"",
            Some("session.transport: browsers that keep no cookies cannot stay signed in: docomo 1.0;"),
        ),
        ("transport = \"url\"", Some("session.transport: public_url is https, ")),
        ("transport = \"url\"\nurl_over_tls = \"allow\"", Some("session.url_over_tls: ")),
    ] {
        let (_, warnings) = load(&CONTRACT.replace(auto, written), 0o600).unwrap_or_else(|f| panic!("{f:#?}"));
        let found: Vec<_> = warnings.iter().filter(|warning| warning.starts_with("session.")).collect();
        assert_eq!(found.len(), usize::from(about.is_some()), "{written}: {found:?}");
        assert!(about.is_none_or(|about| found[0].starts_with(about)), "{written}: {found:?}");
    }
}

#[test]
fn browsers_that_an_https_site_loses_are_named() {
    let about = |text: &str| {
        let (_, warnings) = load(text, 0o600).unwrap_or_else(|findings| panic!("{findings:#?}"));
        warnings.into_iter().find(|warning| warning.starts_with("gateway.public_url: is https, which browsers"))
    };
    let warning = about(CONTRACT).unwrap();
    assert!(warning.contains(": docomo (1.0, mova); serving them needs an http public_url"), "{warning}");
    let softbank = about(&CONTRACT.replace("[carriers.docomo]", "[carriers.softbank]")).unwrap();
    assert!(softbank.contains(": softbank (pdc-c, pdc-p, pdc-w); "), "{softbank}");
    // A profile that takes any browser promises nothing about old ones; in the clear nobody is lost.
    assert_eq!(about(&CONTRACT.replace("[carriers.docomo]", "[carriers.docomo]\nuser_agent = \"any\"")), None);
    assert_eq!(about(&CONTRACT.replace("public_url = \"https:", "public_url = \"http:")), None);
}

#[test]
fn a_network_that_is_a_carriers_and_a_proxys_is_a_warning() {
    let network = "networks = [\"10.64.0.0/16\"]";
    for (proxies, about) in [("10.64.9.0/24", true), ("10.0.0.0/8", true), ("10.65.0.0/16", false)] {
        let text = CONTRACT.replace("trusted_proxies = []", &format!("trusted_proxies = [\"{proxies}\"]"));
        assert!(text != CONTRACT && text.contains(network));
        let (_, warnings) = load(&text, 0o600).unwrap_or_else(|findings| panic!("{findings:#?}"));
        let found = warnings.iter().any(|warning| {
            warning.starts_with(&format!("carriers.private-apn.networks: 10.64.0.0/16 and {proxies} of "))
        });
        assert_eq!(found, about, "{proxies}: {warnings:#?}");
    }
}

#[test]
fn the_admin_socket_is_found_whatever_else_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sekisho.toml");
    let socket = |text: &str| {
        fs::write(&file, text).unwrap();
        Config::admin_socket(&file).ok()
    };
    let there = Some(folder.path().join("run/admin.sock"));
    assert_eq!(socket(CONTRACT), there);
    assert_eq!(socket(&CONTRACT.replace("idle = \"30m\"", "idle = \"30\"\nother = 1")), there);
    for wrong in ["socket = 1", "socket = \"\"", "socket = [["] {
        assert_eq!(socket(&CONTRACT.replace("socket = \"run/admin.sock\"", wrong)), None, "{wrong}");
    }
}

#[test]
fn a_secret_file_open_to_others_is_a_warning() {
    let (_, warnings) = load(CONTRACT, 0o644).unwrap_or_else(|findings| panic!("{findings:#?}"));
    assert!(mentions(&warnings, "keys.kek: "), "{warnings:#?}");
}

#[test]
fn a_profile_s_problem_stands_beside_others() {
    let text = CONTRACT.replace("10.64.0.0/16", "10.64.0.0/99").replace("idle = \"30m\"", "idle = \"30\"");
    let findings = load(&text, 0o600).err().unwrap();
    assert!(mentions(&findings, "carriers.private-apn.networks"), "{findings:#?}");
    assert!(mentions(&findings, "session.idle: "), "{findings:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let findings = Config::load(Path::new("/nonexistent/sekisho.toml")).err().unwrap();
    assert!(findings[0].to_string().starts_with("/nonexistent/sekisho.toml:1: (file): cannot be read: "));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sekisho.toml");
    fs::write(&file, b"[gateway]\n# \xff\n").unwrap();
    let findings = Config::load(&file).err().unwrap();
    assert_eq!((findings.len(), findings[0].line), (1, 2));
}

proptest! {
    #[test]
    fn no_text_is_a_panic(at in 0..CONTRACT.len(), length in 0_usize..40, with in "[ -~\n]{0,20}") {
        let end = (at + length).min(CONTRACT.len());
        prop_assume!(CONTRACT.is_char_boundary(at) && CONTRACT.is_char_boundary(end));
        let text = format!("{}{with}{}", &CONTRACT[..at], &CONTRACT[end..]);
        let _ = Config::parse(&text, Path::new("x.toml"));
    }
}

#[test]
fn the_offline_tools_need_two_parts_and_judge_these_alone() {
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let file = folder.path().join("gateway.toml");
        fs::write(&file, text).unwrap();
        Identification::load(&file)
            .map(|(found, warnings)| (found.carriers.profiles().iter().filter(|p| p.enabled()).count(), warnings))
            .map_err(|findings| findings.iter().map(|finding| finding.key.clone()).collect::<Vec<_>>())
    };
    let parts = "[gateway]\npublic_url = \"http://admin.example.jp\"\n[carriers.au]\nnetworks = [\"127.0.2.0/24\"]\n";
    assert_eq!(load(parts).unwrap().0, 1);
    assert_eq!(load(&format!("{parts}[session]\nidle = \"never\"\n")).unwrap().0, 1);
    let wrong = parts.replace("http://admin", "ftp://admin").replace("127.0.2.0/24", "127.0.2.0/99");
    assert_eq!(load(&wrong).unwrap_err(), ["gateway.public_url", "carriers.au.networks[0]"]);
    assert_eq!(load("[gateway\n").unwrap_err().len(), 1);
}
