//! What prose cannot keep true: who may import whom, where a crate is named, the map of the folders, the samples, the tests that pages name.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use sekisho::config::{Config, Finding, Severity};

/// A file longer than this has a seam that somebody should look for.
const MOST_LINES: usize = 600;

/// What the code of a folder or file of `src/` may import from the others, as `module` or `module::Item`.
///
/// The primitives ([`PRIMITIVES`]) are everybody's. Who is missing here may import anything but [`TOP`].
const IMPORTS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("entropy", &[]),
    ("secret", &[]),
    ("refusal", &[]),
    ("body", &["links::LinkedBody", "upstream::UpstreamBody"]),
    ("tls", &["config"]),
    ("config", &["carrier", "edge", "store::StretchParameters"]),
    ("edge", &["body", "config", "tls"]),
    ("carrier", &["edge", "refusal"]),
    ("keys", &["assertion::JWKS_MAX_AGE", "assertion::Signer", "binding", "carrier::RawIdentifier", "config", "store"]),
    ("binding", &["carrier", "keys", "store"]),
    (
        "rotation",
        &[
            "assertion::AssertionCache",
            "audit",
            "binding",
            "config::ClientAddressDetail",
            "config::KeyPeriods",
            "config::StretchSetting",
            "keys",
            "receipt",
            "session::SessionPolicy",
            "session::Sessions",
            "store",
            "telemetry",
        ],
    ),
    ("session", &["binding", "carrier::CarrierName", "carrier::RawIdentifier", "edge", "store"]),
    ("assertion", &[]),
    ("receipt", &["binding", "carrier::RawIdentifier", "keys", "store"]),
    (
        "upstream",
        &[
            "assertion::ASSERTION_FIELD",
            "assertion::Assertion",
            "body",
            "carrier",
            "config",
            "edge",
            "session::SessionCookie",
            "session::SessionEnd",
            "tls",
            "trace::RequestId",
            "trace::UpstreamCall",
            "trace::set_trace_context",
        ],
    ),
    ("links", &["body", "config::Origin", "edge::HostAllowList", "session::SessionToken"]),
    ("pages", &["carrier", "config", "edge", "refusal"]),
    ("audit", &["binding::AccountId", "keys::AuditKey", "keys::AuditPublicKey", "store"]),
    (
        "store",
        &[
            "audit::Entry",
            "audit::EntryHash",
            "audit::Event",
            "audit::Pseudonym",
            "audit::Tip",
            "binding::AccountId",
            "binding::AccountState",
            "binding::BindingDigest",
            "binding::BindingId",
            "binding::Chain",
            "binding::KeyId",
            "binding::Label",
            "carrier::CarrierName",
            "keys::AuditPublicKey",
            "session::SessionId",
            "session::TokenHash",
        ],
    ),
    ("backup", &["keys::Kek", "keys::KekError", "store"]),
    ("logs", &["keys::DayKey", "keys::framed"]),
    ("trace", &["config", "telemetry::Metrics", "telemetry::SpanOutcome", "tls"]),
    (
        "telemetry",
        &["binding", "carrier", "config", "edge", "keys::DayKey", "logs", "refusal", "session", "store::KeyPurpose"],
    ),
    (
        "privacy",
        &[
            "assertion::AssertionCache",
            "audit",
            "backup",
            "binding",
            "carrier::CarrierName",
            "config",
            "keys::KeySet",
            "logs",
            "receipt",
            "rotation::Rotations",
            "session",
            "store",
            "telemetry",
        ],
    ),
    (
        "admin",
        &[
            "assertion",
            "audit",
            "backup",
            "binding",
            "config",
            "edge::BoundListener",
            "edge::ListenerHandle",
            "edge::Terms",
            "keys",
            "logs",
            "privacy",
            "receipt",
            "rotation",
            "session",
            "store",
            "telemetry",
            "tls",
        ],
    ),
];

/// Injected and guarded primitives, which know nothing of the stages.
const PRIMITIVES: &[&str] = &["clock", "entropy", "secret"];

/// What knows the order of the stages, and who may name it.
const TOP: &[(&str, &[&str])] = &[("gateway", &["cli", "dev", "main"]), ("cli", &["main"]), ("dev", &["cli", "main"])];

/// Crates with a strong shape, and the only places that name them: swapping one is one diff.
const CRATES: &[(&str, &[&str])] = &[
    ("argon2", &["binding/stretch.rs"]),
    ("askama", &["pages/", "dev/"]),
    ("axum", &["admin/", "cli/connection.rs", "dev/"]),
    ("clap", &["cli/"]),
    ("comfy_table", &["cli/"]),
    ("crossterm", &["cli/top.rs"]),
    ("cryptoki", &["keys/kek/module.rs"]),
    ("jsonwebtoken", &["assertion/"]),
    ("listenfd", &["edge/listener/"]),
    ("opentelemetry_proto", &["trace/"]),
    ("prost", &["trace/"]),
    ("proxy_header", &["edge/listener/"]),
    ("lol_html", &["links/"]),
    ("prometheus_client", &["telemetry/"]),
    ("rcgen", &["dev/", "tls/"]),
    ("rusqlite", &["store/embedded/"]),
    ("rusqlite_migration", &["store/embedded/"]),
    ("rustls", &["tls/", "tls.rs"]),
    ("rustls_native_certs", &["tls/", "tls.rs"]),
    ("socket2", &["edge/"]),
    ("tokio_rustls", &["tls/", "tls.rs"]),
    ("tracing_subscriber", &["telemetry/"]),
    ("url", &["links/"]),
    ("utoipa", &["admin/"]),
    ("x509_parser", &["tls/"]),
];

/// A file of `src/`: its path there, and its code without comments and without the tests at its end.
struct Source {
    path: String,
    text: String,
    code: String,
}

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let root = root().join("src");
    files(&root, "rs")
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            // By convention unit tests are the last item of a file; folders of tests are skipped by name.
            let code = code.take_while(|line| *line != "#[cfg(test)]").collect::<Vec<_>>().join("\n");
            Source { path: file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text, code }
        })
        .collect()
});

impl Source {
    /// `edge` for `edge/head.rs` and `body` for `body.rs`.
    fn top(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The modules it names, each once as `module` and once as `module::Item`.
    fn imports(&self) -> BTreeSet<(String, String)> {
        static PATH: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\bcrate::(?:(\w+)(?:::(?:(\w+)|\{([^}]*)))?|\{([^}]*))").unwrap());
        let mut found = BTreeSet::new();
        for path in PATH.captures_iter(&self.code) {
            let part = |group| path.get(group).map(|m| m.as_str());
            let names = |list: &str| {
                list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect::<Vec<_>>()
            };
            if let Some(modules) = part(4) {
                found.extend(names(modules).into_iter().map(|module| (module, String::new())));
            } else if let Some(module) = part(1) {
                let items = part(3).map_or_else(|| vec![part(2).unwrap_or_default().to_owned()], names);
                found.extend(items.into_iter().map(|item| (module.to_owned(), item)));
            }
        }
        found
    }
}

#[test]
fn a_stage_imports_only_what_the_map_allows() {
    let mut breaches = Vec::new();
    for source in SOURCES.iter().filter(|source| !source.is_test()) {
        let here = source.top();
        let allowed = IMPORTS.iter().find(|(name, _)| *name == here).map(|(_, allowed)| *allowed);
        for (module, item) in source.imports() {
            let may = module == here
                || PRIMITIVES.contains(&module.as_str())
                || match (TOP.iter().find(|(name, _)| *name == module), allowed) {
                    (Some((_, by)), _) => by.contains(&here),
                    (None, Some(allowed)) => {
                        allowed.contains(&module.as_str()) || allowed.contains(&format!("{module}::{item}").as_str())
                    }
                    (None, None) => true,
                };
            if !may {
                breaches.push(format!("src/{}: crate::{module}::{item}", source.path));
            }
        }
    }
    assert!(breaches.is_empty(), "imports against the direction:\n{}", breaches.join("\n"));
}

#[test]
fn every_folder_and_file_has_its_place_in_the_table() {
    let tops: BTreeSet<&str> = SOURCES.iter().map(Source::top).filter(|top| !["lib", "main"].contains(top)).collect();
    let placed = IMPORTS.iter().chain(TOP).map(|(name, _)| *name).collect();
    assert_eq!(tops, placed);
}

#[test]
fn a_crate_with_a_strong_shape_is_named_in_one_place() {
    let mut breaches = Vec::new();
    for (name, places) in CRATES {
        let named = Regex::new(&format!(r"(?:^|[^\w:])(?:::)?{name}::|\buse {name}\b")).unwrap();
        let sources = SOURCES.iter().filter(|source| !source.is_test() && named.is_match(&source.code));
        let elsewhere = sources.filter(|source| !places.iter().any(|place| source.path.starts_with(place)));
        breaches.extend(elsewhere.map(|source| format!("src/{}: {name}", source.path)));
    }
    assert!(breaches.is_empty(), "crates named outside their place:\n{}", breaches.join("\n"));
}

#[test]
fn no_file_is_too_long_to_read() {
    let lines = |source: &Source| source.text.lines().count();
    let long = SOURCES.iter().filter(|source| lines(source) > MOST_LINES);
    let long: Vec<_> = long.map(|source| format!("src/{}: {} lines", source.path, lines(source))).collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn the_map_in_the_architecture_page_is_the_tree() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, map) = page.split_once("## The folders").unwrap();
    let map = map.split("\n## ").next().unwrap();
    let named = Regex::new(r"`src/(\w+)/`|`(\w+\.rs)`").unwrap();
    let drawn: BTreeSet<String> = named
        .captures_iter(map)
        .map(|c| c.get(1).map_or_else(|| c[2].to_owned(), |folder| format!("{}/", folder.as_str())))
        .collect();
    let there: BTreeSet<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let slash = if entry.file_type().unwrap().is_dir() { "/" } else { "" };
            entry.file_name().to_str().unwrap().to_owned() + slash
        })
        .filter(|name| !["lib.rs", "main.rs"].contains(&name.as_str()))
        .collect();
    assert_eq!(drawn, there, "ARCHITECTURE.md against src/");
}

#[test]
fn deployment_samples_load() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let least = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap().to_owned();
    let samples = files(&root().join("deploy"), "toml");
    assert!(!samples.is_empty());
    let read = |sample: PathBuf| (fs::read_to_string(&sample).unwrap(), sample);
    for (text, sample) in samples.into_iter().map(read).chain([(least, root().join("README.md"))]) {
        let (Ok(findings) | Err(findings)) = Config::parse(&text, &sample).map(|(_, doubts)| doubts);
        let errors: Vec<_> =
            findings.iter().filter(|finding| finding.severity == Severity::Error).map(Finding::to_string).collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
    }
}

/// A row of a table of attacks names a file that does something and a test that shows it, or says `none: why`.
#[test]
fn every_threat_has_its_file_and_its_test() {
    let page = fs::read_to_string(root().join("docs/threats.md")).unwrap();
    let file = Regex::new(r"`((?:src|tests|docs|deploy|fuzz)/[\w./-]+|deny\.toml)`").unwrap();
    let (mut gaps, mut rows, mut tests) = (Vec::new(), 0, 0);
    for row in rows_of(&page, "| attack |") {
        rows += 1;
        let cells: Vec<_> = row.trim_matches(['|', ' ']).split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        let named = file.captures_iter(cells[1]).filter(|named| !root().join(&named[1]).exists());
        gaps.extend(named.map(|named| format!("{}: no file {}", cells[0], &named[1])));
        if !cells[2].starts_with("none: ") {
            tests += look_for_tests(cells[0], cells[2], &mut gaps);
        }
    }
    assert!(gaps.is_empty(), "docs/threats.md:\n{}", gaps.join("\n"));
    assert!(rows > 50 && tests > 80, "{rows} rows, {tests} tests");
}

#[test]
fn every_invariant_of_a_rotation_has_its_test() {
    let page = fs::read_to_string(root().join("docs/rotation.md")).unwrap();
    let mut gaps = Vec::new();
    let mut numbers = Vec::new();
    for row in rows_of(&page, "| invariant |") {
        let (invariant, shown_by) = row.trim_matches(['|', ' ']).split_once(" | ").unwrap();
        numbers.push(invariant.split('.').next().unwrap().parse::<u32>().unwrap());
        look_for_tests(invariant, shown_by, &mut gaps);
    }
    assert!(gaps.is_empty(), "docs/rotation.md:\n{}", gaps.join("\n"));
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
}

/// How a test ends that had normal clients beside its fault: by itself, or by what its town or its load does at the end.
const BESIDE: &[&str] = &["watch.noticed_nothing()", "town.recovers(", "town.end()", "load.end()"];

#[test]
fn every_fault_is_played_beside_normal_clients() {
    let page = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let named = Regex::new(r"`([\w./-]+\.rs)::(\w+)`").unwrap();
    let (mut gaps, mut rows) = (Vec::new(), 0);
    for row in rows_of(&page, "| fault |") {
        rows += 1;
        let cells: Vec<_> = row.trim_matches(['|', ' ']).split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        look_for_tests(cells[0], cells[2], &mut gaps);
        for test in named.captures_iter(cells[2]) {
            let source = fs::read_to_string(root().join(&test[1])).unwrap_or_default();
            let body =
                source.split(&format!("fn {}() {{\n", &test[2])).nth(1).and_then(|rest| rest.split("\n}\n").next());
            if !body.is_some_and(|body| BESIDE.iter().any(|end| body.contains(end))) {
                gaps.push(format!("{}: nobody is beside {}::{}", cells[0], &test[1], &test[2]));
            }
        }
    }
    assert!(gaps.is_empty(), "docs/faults.md:\n{}", gaps.join("\n"));
    assert!(rows > 20, "{rows} rows");
}

/// The rows of each table of `page` whose first line begins with `head`.
fn rows_of<'a>(page: &'a str, head: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(head).skip(1).flat_map(|table| table.lines().skip(2).take_while(|line| !line.is_empty()))
}

/// Looks for each test that `cell` names, at least one, and notes in `gaps` what is missing of `what`. Returns how many it names.
fn look_for_tests(what: &str, cell: &str, gaps: &mut Vec<String>) -> usize {
    static TEST: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"`([\w./-]+\.rs)::(\w+)`").unwrap());
    let shown: Vec<_> = TEST.captures_iter(cell).collect();
    if shown.is_empty() {
        gaps.push(format!("{what}: no test"));
    }
    for shown in &shown {
        let source = fs::read_to_string(root().join(&shown[1])).unwrap_or_default();
        // Clauses of a port become tests by a macro.
        let before =
            if shown[1].ends_with("conformance.rs") { r"pub\(crate\)" } else { r"test\b[^\n]*\](?:\s+#\[[^\n]*)*" };
        if !Regex::new(&format!(r"{before}\s+(?:async )?fn {}\(", &shown[2])).unwrap().is_match(&source) {
            gaps.push(format!("{what}: no test {}::{}", &shown[1], &shown[2]));
        }
    }
    shown.len()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with this extension, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
