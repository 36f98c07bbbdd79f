//! `policy show | diff | history`, `retention run | report`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::connection::{Connection, path};
use super::failure::Failure;
use super::output::{Document, finish};
use crate::admin;
use crate::privacy::{PolicyChange, changes};

/// More than any policy; what is longer is not read.
const MOST_BYTES: u64 = 2 << 20;

#[derive(Args)]
pub(super) struct Policy {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(Subcommand)]
enum PolicyVerb {
    /// What is kept, what for, for how long and on what ground, as the running gateway has it
    Show {
        /// In which language the texts are
        #[arg(long, value_enum, default_value_t = Lang::En)]
        lang: Lang,
    },
    /// What changed since
    Diff {
        /// What `policy show --json` printed earlier
        old: PathBuf,
    },
    /// What people were told of their data, and from when to when
    History {
        /// Print all that this one says
        id: Option<u32>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Lang {
    En,
    Ja,
}

impl Lang {
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ja => "ja",
        }
    }
}

impl Policy {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            PolicyVerb::Show { lang } => {
                // A document to be kept, so that a pipe gets it whole.
                finish(fetch(&connection, lang.tag()), connection.json || !io::stdout().is_terminal())
            }
            PolicyVerb::Diff { old } => connection.finish(diff(&connection, &old)),
            PolicyVerb::History { id: None } => {
                connection.call::<admin::Notices>(Method::GET, &path(["policy", "history"]))
            }
            PolicyVerb::History { id: Some(id) } => {
                let id = id.to_string();
                let told = connection.fetch::<admin::ToldNotice>(Method::GET, &path(["policy", "history", &id]));
                finish(told, connection.json || !io::stdout().is_terminal())
            }
        }
    }
}

fn fetch(connection: &Connection, lang: &str) -> Result<admin::Policy, Failure> {
    connection.fetch(Method::GET, &format!("{}?lang={lang}", path(["policy"])))
}

/// What became of a policy.
#[derive(Serialize)]
struct Changes {
    changed: bool,
    changes: Vec<PolicyChange>,
}

fn diff(connection: &Connection, file: &Path) -> Result<Changes, Failure> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    read.map_err(|source| Failure::File { path: file.to_owned(), source })?;
    let old: Option<Value> = serde_json::from_slice(&text).ok();
    let part = |old: &Value, name: &str| old.get(name).cloned().unwrap_or_default();
    let old = old.filter(|old| part(old, "purposes").is_object() && part(old, "settings").is_object());
    let old = old.ok_or_else(|| Failure::NoPolicy(file.to_owned()))?;
    // In the language of the old one, so that texts differ only where they say something else.
    let lang = if part(&old, "language") == "ja" { "ja" } else { "en" };
    let changes = changes(&old, &Value::Object(fetch(connection, lang)?.0));
    Ok(Changes { changed: !changes.is_empty(), changes })
}

impl Document for admin::Policy {
    const COLUMNS: &'static [&'static str] = &["kind", "what for", "kept", "ground"];

    fn rows(&self) -> Vec<Vec<String>> {
        let purposes = self.0.get("purposes").and_then(Value::as_object);
        let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let row = |(kind, purpose): (&String, &Value)| {
            vec![kind.clone(), text(purpose, "purpose"), text(purpose, "retention"), text(purpose, "legal")]
        };
        purposes.into_iter().flatten().map(row).collect()
    }
}

impl Document for admin::Notices {
    const COLUMNS: &'static [&'static str] = &["id", "revised", "in force from", "until", "sha256"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |notice: &admin::ShownNotice| {
            let admin::ShownNotice { id, revision, in_force_from, in_force_until, sha256 } = notice;
            let until = in_force_until.clone().unwrap_or_else(|| "now".to_owned());
            vec![id.to_string(), revision.clone(), in_force_from.clone(), until, sha256.clone()]
        };
        self.notices.iter().map(row).collect()
    }
}

impl Document for admin::ToldNotice {
    const COLUMNS: &'static [&'static str] = &["of what", "what was said"];

    fn rows(&self) -> Vec<Vec<String>> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let facts = self.told.get("facts").and_then(Value::as_object).into_iter().flatten();
        let facts = facts.map(|(name, value)| vec![name.clone(), text(value)]);
        let sections = self.told.get("en").and_then(Value::as_array).into_iter().flatten();
        let lines = |section: &Value, name: &str| {
            let lines = section.get(name).and_then(Value::as_array).into_iter().flatten();
            lines.map(&text).collect::<Vec<_>>()
        };
        let section = |section: &Value| {
            let heading = section.get("heading").map(&text).unwrap_or_default();
            vec![heading, [lines(section, "lines"), lines(section, "items")].concat().join(" ")]
        };
        facts.chain(sections.map(section)).collect()
    }
}

impl Document for Changes {
    const COLUMNS: &'static [&'static str] = &["at", "was", "is"];

    fn rows(&self) -> Vec<Vec<String>> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.changes.iter().map(|change| vec![change.at.clone(), text(&change.was), text(&change.is)]).collect()
    }
}

#[derive(Args)]
pub(super) struct Retention {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: RetentionVerb,
}

#[derive(Subcommand)]
enum RetentionVerb {
    /// Erase what is old enough now; the gateway does so by itself every few seconds
    Run {
        /// Only say what would be erased
        #[arg(long)]
        dry_run: bool,
    },
    /// For how long each kind is kept, what is due, and when a round last ran
    Report,
}

impl Retention {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            RetentionVerb::Run { dry_run } => {
                let asked = json!({ "dry_run": dry_run });
                connection.call_with::<admin::RetentionRun>(Method::POST, &path(["retention", "run"]), &asked)
            }
            RetentionVerb::Report => connection.call::<admin::RetentionReport>(Method::GET, &path(["retention"])),
        }
    }
}

impl Document for admin::RetentionRun {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row(if self.dry_run { "bindings due" } else { "bindings erased" }, self.erased.bindings.to_string()),
            row(if self.dry_run { "statistics due" } else { "statistics erased" }, self.erased.statistics.to_string()),
            row(if self.dry_run { "audit entries due" } else { "audit entries erased" }, self.erased.audit.to_string()),
            row(if self.dry_run { "log files due" } else { "log files erased" }, self.erased.log_files.to_string()),
            row(
                if self.dry_run { "security log files due" } else { "security log files erased" },
                self.erased.security_log_files.to_string(),
            ),
            row(if self.dry_run { "log keys due" } else { "log keys destroyed" }, self.erased.log_keys.to_string()),
            row(if self.dry_run { "backups due" } else { "backups destroyed" }, self.erased.backups.to_string()),
            row("bindings held", self.held.to_string()),
        ];
        if self.clock_doubted {
            rows.push(row("clock", "doubted: nothing that goes by age is erased for a day".to_owned()));
        }
        rows
    }
}

impl Document for admin::RetentionReport {
    const COLUMNS: &'static [&'static str] = &["kind", "kept", "due", "held"];

    fn rows(&self) -> Vec<Vec<String>> {
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let row = |k: &admin::KeptKind| vec![k.kind.clone(), k.retention.clone(), count(k.due), count(k.held)];
        let mut rows: Vec<_> = self.kinds.iter().map(row).collect();
        let last = self.last_run.as_ref().map_or("none yet".to_owned(), |run| format!("{}: {}", run.at, run.detail));
        rows.push(vec!["last round".to_owned(), last, String::new(), String::new()]);
        if self.clock_doubted {
            let doubt = "doubted: nothing that goes by age is erased for a day".to_owned();
            rows.push(vec!["clock".to_owned(), doubt, String::new(), String::new()]);
        }
        rows
    }
}
