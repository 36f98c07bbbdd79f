//! `rotation start | list | status | pause | resume | abort | rescan`, and those of receipts.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::connection::{Connection, path};
use super::failure::Failure;
use super::output::Document;
use super::receipt::ReceiptVerb;
use crate::admin::{self, AdminClient, ClientError, ShownRotation};

/// How often a rotation that is followed is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Rotation {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Begin to replace the active key; handsets go on signing in
    Start {
        /// Which keys
        #[arg(long, value_enum)]
        purpose: Purpose,
        /// Why, in your words; it is kept
        #[arg(long)]
        reason: Option<String>,
        /// Only make the new key; `rotation resume` begins, `rotation abort` gives up
        #[arg(long)]
        paused: bool,
        /// Erase bindings that still need the old key after so many days, before binding.retention would
        #[arg(long, value_name = "DAYS")]
        drain_within: Option<u32>,
        /// How many bindings that may cost; the refusal without it says how many
        #[arg(long, value_name = "N", requires = "drain_within")]
        expected_loss: Option<u64>,
    },
    /// Rotations, the latest first
    List,
    /// How far one is
    Status {
        /// Its id, as `rotation list` shows it
        id: String,
        /// Show a bar on the terminal until all bindings are moved
        #[arg(long)]
        follow: bool,
    },
    /// Stop moving bindings until it is resumed
    Pause {
        /// Its id
        id: String,
    },
    /// Go on, or begin what was started paused
    Resume {
        /// Its id
        id: String,
    },
    /// Give up one that never began
    Abort {
        /// Its id
        id: String,
    },
    /// Count the bindings again, and take the steps that are due
    Rescan {
        /// Its id
        id: String,
    },
    #[command(flatten)]
    Receipt(ReceiptVerb),
}

/// Which keys.
#[derive(Clone, Copy, ValueEnum)]
enum Purpose {
    /// Those that hash handset identifiers
    Binding,
    /// Those that sign assertions
    Assertion,
    /// Those that hash codes and handset tags
    Session,
    /// Those that seal the audit trail and receipts
    Audit,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Assertion => "assertion",
            Self::Session => "session",
            Self::Audit => "audit",
        }
    }
}

impl Rotation {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        let ask = |id: &str, verb| connection.call::<ShownRotation>(Method::POST, &path(["rotations", id, verb]));
        match verb {
            Verb::Start { purpose, reason, paused, drain_within, expected_loss } => {
                let start = json!({
                    "purpose": purpose.as_str(),
                    "reason": reason,
                    "paused": paused,
                    "drain_within": drain_within,
                    "expected_loss": expected_loss,
                });
                connection.call_with::<ShownRotation>(Method::POST, &path(["rotations"]), &start)
            }
            Verb::List => connection.call::<admin::Rotations>(Method::GET, &path(["rotations"])),
            Verb::Status { id, follow } => connection.finish(status(&connection, &id, follow)),
            Verb::Pause { id } => ask(&id, "pause"),
            Verb::Resume { id } => ask(&id, "resume"),
            Verb::Abort { id } => ask(&id, "abort"),
            Verb::Rescan { id } => ask(&id, "rescan"),
            Verb::Receipt(verb) => verb.run(&connection),
        }
    }
}

/// The rotation; a bar on a terminal goes before it while bindings are moved, if it is to be followed.
fn status(connection: &Connection, id: &str, follow: bool) -> Result<ShownRotation, Failure> {
    let follow = follow && io::stderr().is_terminal();
    connection.run(async |client| {
        let mut shown = look(&client, id).await?;
        let bar = bar(shown.rotation.total);
        while follow && moves(&shown) {
            tell(&bar, &shown.rotation);
            tokio::time::sleep(LOOK).await;
            shown = look(&client, id).await?;
        }
        bar.finish_and_clear();
        Ok(shown)
    })
}

/// A bar of so many bindings, on stderr, and only if that is a terminal.
pub(super) fn bar(total: u64) -> ProgressBar {
    ProgressBar::new(total).with_style(style())
}

/// Has `bar` say how far `rotation` is.
pub(super) fn tell(bar: &ProgressBar, rotation: &admin::Rotation) {
    bar.set_position(rotation.total.saturating_sub(rotation.unwrapped));
    let eta = rotation.eta_seconds.map(|seconds| format!(", {seconds} s left"));
    bar.set_message(format!("{}/s{}", rotation.rate, eta.unwrap_or_default()));
}

pub(super) async fn look(client: &AdminClient, id: &str) -> Result<ShownRotation, ClientError> {
    client.call(Method::GET, &path(["rotations", id])).await
}

fn moves(shown: &ShownRotation) -> bool {
    shown.rotation.state == "running"
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} bindings, {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Document for ShownRotation {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let r = &self.rotation;
        let moved = r.total.saturating_sub(r.unwrapped);
        let percent = moved.saturating_mul(100).checked_div(r.total).unwrap_or(100);
        let mut rows = vec![
            ("rotation", r.id.clone()),
            ("state", r.state.clone()),
            ("keys", format!("{} to {}", r.from, r.to)),
            ("bindings", r.total.to_string()),
            ("moved", format!("{moved} ({percent} %)")),
            ("flattened", r.flattened.to_string()),
            ("purged", r.purged.to_string()),
            ("remaining", r.remaining.to_string()),
        ];
        if let Some(seconds) = r.eta_seconds {
            rows.push(("moved in", format!("{seconds} s at {}/s", r.rate)));
        }
        rows.push(("old key needed until", r.drain_by.clone()));
        rows.push(("next rotation from", r.next_rotation_on.clone()));
        rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
    }
}

impl Document for admin::Rotations {
    const COLUMNS: &'static [&'static str] =
        &["id", "purpose", "state", "from", "to", "bindings", "remaining", "drain by", "started at", "reason"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |r: &admin::Rotation| {
            let (total, remaining) = (r.total.to_string(), r.remaining.to_string());
            let (id, purpose, state) = (r.id.clone(), r.purpose.clone(), r.state.clone());
            let (from, to, drain_by) = (r.from.clone(), r.to.clone(), r.drain_by.clone());
            vec![id, purpose, state, from, to, total, remaining, drain_by, r.started_at.clone(), r.reason.clone()]
        };
        self.rotations.iter().map(row).collect()
    }
}
