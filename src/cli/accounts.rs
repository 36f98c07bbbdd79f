//! `accounts list | show | suspend | resume | clear-pin`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;

use super::connection::{Connection, path};
use super::output::Document;
use crate::admin;

#[derive(Args)]
pub(super) struct Accounts {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// All accounts
    List,
    /// One account
    Show {
        /// Its id
        account: String,
    },
    /// Keep an account out and end its sessions; nothing is erased
    Suspend {
        /// Its id
        account: String,
    },
    /// Let a suspended account in again
    Resume {
        /// Its id
        account: String,
    },
    /// Take its PIN away, for a person who has forgotten it; whoever holds a handset may set the next
    ClearPin {
        /// Its id
        account: String,
    },
}

impl Accounts {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            Verb::List => connection.call::<admin::Accounts>(Method::GET, &path(["accounts"])),
            Verb::Show { account } => connection.call::<admin::Account>(Method::GET, &path(["accounts", &account])),
            Verb::Suspend { account } => {
                connection.call::<admin::Account>(Method::POST, &path(["accounts", &account, "suspend"]))
            }
            Verb::Resume { account } => {
                connection.call::<admin::Account>(Method::POST, &path(["accounts", &account, "resume"]))
            }
            Verb::ClearPin { account } => {
                connection.call::<admin::Account>(Method::DELETE, &path(["accounts", &account, "pin"]))
            }
        }
    }
}

impl Document for admin::Accounts {
    const COLUMNS: &'static [&'static str] = &["account", "state", "bindings", "sessions", "created at"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |a: &admin::Account| {
            let (bindings, sessions) = (a.bindings.to_string(), a.sessions.to_string());
            vec![a.account.clone(), a.state.clone(), bindings, sessions, a.created_at.clone()]
        };
        self.accounts.iter().map(row).collect()
    }
}

impl Document for admin::Account {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let mut rows = vec![
            row("account", &self.account),
            row("state", &self.state),
            row("bindings", &self.bindings.to_string()),
            row("sessions", &self.sessions.to_string()),
            row("pin", if self.has_pin { "set" } else { "none" }),
            row("created at", &self.created_at),
        ];
        rows.extend(self.subjects.iter().map(|(upstream, subject)| row(&format!("subject at {upstream}"), subject)));
        rows
    }
}
