//! `subject export | erase | correct | stop | resume | hold | release | erasures | verify`: the privacy officer's work.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::connection::{Connection, path};
use super::failure::Failure;
use super::output::{Document, finish};
use super::policy::Lang;
use crate::admin;
use crate::privacy::CERTIFICATE;
use crate::receipt::{KnownKey, Origin, SealVerdict, verify_sealed};

/// More than any certificate; what is longer is not read.
const MOST_BYTES: u64 = 2 << 20;

const VERIFY: &str = "\
Needs no gateway. Takes a certificate, or the document that `subject erase` printed. Whose seal it is, only --audit-key tells.
Exit codes: 0 as it was sealed, 1 not, 2 no such file or key.";

const HOLD: &str = "\
Nothing of the account is erased while it is held: not by an officer, not by its person, not by age. Where admin.approvals
wants more people, it waits for them (`approvals list`). The reason is shown to the person in their export.";

#[derive(Args)]
pub(super) struct Subject {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Everything that is kept of an account, with what it is for and for how long
    Export {
        /// The account's id
        account: String,
        /// In which language the texts are
        #[arg(long, value_enum, default_value_t = Lang::En)]
        lang: Lang,
    },
    /// Erase an account and all that is its own, at once and for good
    Erase {
        /// The account's id
        account: String,
    },
    /// Change what a handset is called
    Correct {
        /// The account's id
        account: String,
        /// The handset's id, as `bindings list` shows it
        #[arg(long, value_name = "ID")]
        binding: String,
        /// Its name from now on: 1 to 20 characters, four digits at most
        #[arg(long, value_name = "TEXT", required_unless_present = "no_label")]
        label: Option<String>,
        /// Take its name away
        #[arg(long, conflicts_with = "label")]
        no_label: bool,
    },
    /// Keep an account out because its person asked for that; nothing is erased
    Stop {
        /// The account's id
        account: String,
    },
    /// Let it in again
    Resume {
        /// The account's id
        account: String,
    },
    /// Keep an account from being erased
    #[command(after_help = HOLD)]
    Hold {
        /// The account's id
        account: String,
        /// Why, in one line; not for anybody's personal data
        #[arg(long)]
        reason: String,
    },
    /// End that
    Release {
        /// The account's id
        account: String,
        /// Why, in one line
        #[arg(long)]
        reason: Option<String>,
    },
    /// Erasures, the latest first; whose they were is not kept
    Erasures,
    /// Say whether a certificate of erasure is as it was sealed
    #[command(after_help = VERIFY)]
    Verify {
        /// The certificate; `-` for stdin
        file: PathBuf,
        /// A key that may have sealed it, or its fingerprint; several may be named
        #[arg(long, value_name = "KEY")]
        audit_key: Vec<String>,
    },
}

impl Subject {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            Verb::Export { account, lang } => {
                let target = format!("{}?lang={}", path(["subjects", &account, "export"]), lang.tag());
                // It is the person's document, so that a pipe gets it whole.
                let document = connection.fetch::<admin::ExportedSubject>(Method::GET, &target);
                finish(document, connection.json || !io::stdout().is_terminal())
            }
            Verb::Erase { account } => {
                connection.call::<admin::ErasedSubject>(Method::DELETE, &path(["subjects", &account]))
            }
            Verb::Correct { account, binding, label, no_label: _ } => {
                let target = path(["subjects", &account, "bindings", &binding, "label"]);
                connection.call_with::<admin::LabelledHandset>(Method::PUT, &target, &json!({ "label": label }))
            }
            Verb::Stop { account } => {
                connection.call::<admin::Account>(Method::POST, &path(["subjects", &account, "stop"]))
            }
            Verb::Resume { account } => {
                connection.call::<admin::Account>(Method::POST, &path(["subjects", &account, "resume"]))
            }
            Verb::Hold { account, reason } => {
                decide(&connection, &path(["subjects", &account, "hold"]), &json!({ "reason": reason }))
            }
            Verb::Release { account, reason } => {
                decide(&connection, &path(["subjects", &account, "release"]), &json!({ "reason": reason }))
            }
            Verb::Erasures => connection.call::<admin::Erasures>(Method::GET, &path(["erasures"])),
            // A client's --key that was meant for the certificate must not be taken for a known origin.
            Verb::Verify { .. } if connection.names_a_gateway() => {
                finish::<SealVerdict>(Err(Failure::Offline), connection.json)
            }
            Verb::Verify { file, audit_key } => finish(verify(&file, &audit_key), connection.json),
        }
    }
}

/// A hold, or the approval that it waits for.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Decided {
    Waits(Box<admin::Approved>),
    Done(admin::ShownHold),
}

fn decide(connection: &Connection, target: &str, why: &serde_json::Value) -> ExitCode {
    connection.call_with::<Decided>(Method::POST, target, why)
}

fn verify(file: &Path, keys: &[String]) -> Result<SealVerdict, Failure> {
    let known: Option<Vec<_>> = keys.iter().map(|key| KnownKey::parse(key)).collect();
    let known = known.ok_or(Failure::AuditKey)?;
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(MOST_BYTES).read_to_end(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text))
    };
    read.map_err(|source| Failure::File { path: file.to_owned(), source })?;
    Ok(verify_sealed(&certificate_in(&text).unwrap_or(text), CERTIFICATE, &known))
}

/// The certificate within the document that `subject erase` printed; `None` where it stands for itself.
fn certificate_in(text: &[u8]) -> Option<Vec<u8>> {
    let document: serde_json::Value = serde_json::from_slice(text).ok()?;
    document.get("erased").filter(|_| document.get("format").is_none())?;
    serde_json::to_vec(document.get("certificate")?).ok()
}

impl Document for admin::ExportedSubject {
    const COLUMNS: &'static [&'static str] = &["what", "records", "kept", "what for"];

    fn rows(&self) -> Vec<Vec<String>> {
        self.items().into_iter().map(Vec::from).collect()
    }
}

impl Document for admin::ErasedSubject {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let text = |name: &str| self.certificate.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        vec![
            row("bindings", self.erased.bindings.to_string()),
            row("sessions", self.erased.sessions.to_string()),
            row("codes", self.erased.codes.to_string()),
            row("certificate", text("id")),
            row("erased at", text("erased_at")),
        ]
    }
}

impl Document for admin::LabelledHandset {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        vec![
            row("binding", &self.binding.id),
            row("account", &self.binding.account),
            row("label", self.label.as_deref().unwrap_or("none")),
        ]
    }
}

impl Document for Decided {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        match self {
            Self::Waits(approved) => approved.rows(),
            Self::Done(shown) => match &shown.hold {
                None => vec![row("account", &shown.account), row("hold", "none")],
                Some(hold) => vec![
                    row("account", &shown.account),
                    row("hold", &hold.reason),
                    row("placed by", &hold.placed_by),
                    row("placed at", &hold.placed_at),
                ],
            },
        }
    }
}

impl Document for admin::Erasures {
    const COLUMNS: &'static [&'static str] = &["id", "erased at", "bindings", "codes", "pseudonym", "state"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |erasure: &admin::Erasure| {
            vec![
                erasure.id.clone(),
                erasure.erased_at.clone(),
                erasure.bindings.to_string(),
                erasure.codes.to_string(),
                erasure.pseudonym.clone().unwrap_or_default(),
                if erasure.unfinished { "unfinished" } else { "finished" }.to_owned(),
            ]
        };
        self.erasures.iter().map(row).collect()
    }
}

impl Document for SealVerdict {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let origin = match self.origin {
            Origin::Known => "known",
            Origin::Unproven => "unproven",
        };
        let mut rows = vec![row("ok", if self.ok { "yes" } else { "NO" })];
        rows.extend(self.problems.iter().map(|problem| row("problem", problem)));
        rows.extend(self.fingerprint.iter().map(|key| row("fingerprint", key)));
        rows.push(row("origin", origin));
        rows
    }

    fn refusal(&self) -> Option<String> {
        (!self.ok).then(|| format!("the certificate is not as it was sealed: {}", self.problems.join("; ")))
    }
}
