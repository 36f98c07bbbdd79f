//! `keys list | show | generate | activate | suspend | resume | compromise | destroy | export-public | rewrap`.

use std::iter;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::json;

use super::compromise;
use super::connection::{Connection, path};
use super::output::Document;
use crate::admin::{self, Destroyed, Key, PublicKey, Rewrapped};

#[derive(Args)]
pub(super) struct Keys {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// All keys, those that were destroyed too
    List,
    /// One key
    Show(Id),
    /// Make a key that waits to be made active
    Generate {
        /// What for; binding keys are made by `rotation start`, because records move with them
        #[arg(long)]
        purpose: Purpose,
    },
    /// Make a pending key the one in use; the former one retires
    Activate(Id),
    /// Refuse whatever needs a key, until it is resumed or another one is in use
    Suspend(Id),
    /// End that
    Resume(Id),
    /// Say that a key has leaked: acts at once, and cannot be taken back
    Compromise {
        #[command(flatten)]
        id: Id,
        /// Why it counts as leaked; not for secrets or anybody's personal data
        #[arg(long)]
        reason: String,
        /// Do not wait until the records of a binding key are moved off it
        #[arg(long)]
        no_wait: bool,
    },
    /// Wipe a drained key that cooled off (keys.cooling); waits for the approvals that admin.approvals wants
    Destroy {
        #[command(flatten)]
        id: Id,
        /// Why; whoever approves sees it
        #[arg(long)]
        reason: Option<String>,
    },
    /// The public half of an assertion or audit key
    ExportPublic(Id),
    /// Wrap every key under the KEK that the configuration names as `keys.kek_next`
    Rewrap,
}

#[derive(Args)]
struct Id {
    /// The key's id, as `keys list` shows it
    id: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Purpose {
    Binding,
    Assertion,
    Audit,
    Session,
}

impl Purpose {
    const fn of_the_api(self) -> admin::Purpose {
        match self {
            Self::Binding => admin::Purpose::Binding,
            Self::Assertion => admin::Purpose::Assertion,
            Self::Audit => admin::Purpose::Audit,
            Self::Session => admin::Purpose::Session,
        }
    }
}

impl Keys {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        let step = |id: &Id, step: &str| connection.call::<Key>(Method::POST, &path(["keys", &id.id, step]));
        match verb {
            Verb::List => connection.call::<admin::Keys>(Method::GET, &path(["keys"])),
            Verb::Show(id) => connection.call::<Key>(Method::GET, &path(["keys", &id.id])),
            Verb::Generate { purpose } => {
                let document = json!({ "purpose": purpose.of_the_api() });
                connection.call_with::<Key>(Method::POST, &path(["keys"]), &document)
            }
            Verb::Activate(id) => step(&id, "activate"),
            Verb::Suspend(id) => step(&id, "suspend"),
            Verb::Resume(id) => step(&id, "resume"),
            Verb::Compromise { id, reason, no_wait } => {
                connection.finish(compromise::run(&connection, &id.id, &reason, no_wait))
            }
            Verb::Destroy { id, reason } => {
                let document = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
                connection.call_with::<Destroyed>(Method::DELETE, &path(["keys", &id.id]), &document)
            }
            Verb::ExportPublic(id) => connection.call::<PublicKey>(Method::GET, &path(["keys", &id.id, "public"])),
            Verb::Rewrap => connection.call::<Rewrapped>(Method::POST, &path(["keys", "rewrap"])),
        }
    }
}

impl Document for admin::Keys {
    const COLUMNS: &'static [&'static str] = &["id", "purpose", "state", "suspended", "compromised", "created at"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |key: &Key| {
            let flag = |set: bool| if set { "yes" } else { "" }.to_owned();
            let (id, purpose, state) = (key.id.clone(), key.purpose.clone(), key.state.clone());
            vec![id, purpose, state, flag(key.suspended), flag(key.compromised), key.created_at.clone()]
        };
        self.keys.iter().map(row).collect()
    }
}

impl Document for Key {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let always = [
            ("id", self.id.clone()),
            ("purpose", self.purpose.clone()),
            ("state", self.state.clone()),
            ("suspended", self.suspended.to_string()),
            ("compromised", self.compromised.to_string()),
            ("created at", self.created_at.clone()),
        ];
        let dated = [
            ("activated at", &self.activated_at),
            ("retired at", &self.retired_at),
            ("drained at", &self.drained_at),
            ("destroyable at", &self.destroyable_at),
            ("destroyed at", &self.destroyed_at),
            ("kid", &self.kid),
        ];
        let dated = dated.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let rows = always.into_iter().chain(dated).chain([("commitment", self.commitment.clone())]);
        let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
        let rows = rows.chain(self.report.iter().flat_map(|report| compromise::rows(report)));
        rows.chain(warnings(&self.warnings)).collect()
    }
}

impl Document for Destroyed {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        match self {
            Self::Waits(approved) => approved.rows(),
            Self::Done(key) => key.rows(),
        }
    }
}

impl Document for PublicKey {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let rows = [("id", &self.id), ("purpose", &self.purpose), ("point", &self.point)];
        let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value.clone()]);
        rows.chain([vec!["jwk".to_owned(), self.jwk.to_string()]]).collect()
    }
}

impl Document for Rewrapped {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let rewrapped = iter::once(vec!["rewrapped".to_owned(), self.rewrapped.to_string()]);
        rewrapped.chain(warnings(&self.warnings)).collect()
    }
}

/// A row each.
pub(super) fn warnings(texts: &[String]) -> impl Iterator<Item = Vec<String>> {
    texts.iter().map(|text| vec!["warning".to_owned(), text.clone()])
}
