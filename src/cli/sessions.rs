//! `sessions list | revoke`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;

use super::connection::{Connection, path};
use super::output::Document;
use crate::admin::{self, Revoked};

#[derive(Args)]
pub(super) struct Sessions {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Open sessions, oldest first
    List {
        /// Of this account alone
        #[arg(long)]
        account: Option<String>,
    },
    /// End one session, or all of an account
    Revoke {
        /// The session's id, as `sessions list` shows it
        #[arg(
            required_unless_present = "account",
            conflicts_with = "account",
            default_value = "",
            hide_default_value = true
        )]
        id: String,
        /// End all sessions of this account
        #[arg(long)]
        account: Option<String>,
    },
}

impl Sessions {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            Verb::List { account } => {
                let path = account.map_or_else(|| path(["sessions"]), |a| path(["accounts", &a, "sessions"]));
                connection.call::<admin::Sessions>(Method::GET, &path)
            }
            Verb::Revoke { id, account } => {
                let path = account.map_or_else(|| path(["sessions", &id]), |a| path(["accounts", &a, "sessions"]));
                connection.call::<Revoked>(Method::DELETE, &path)
            }
        }
    }
}

impl Document for admin::Sessions {
    const COLUMNS: &'static [&'static str] =
        &["id", "account", "carrier", "transport", "created at", "last seen at", "expires at"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |s: &admin::Session| {
            let (id, account, carrier) = (s.id.clone(), s.account.clone(), s.carrier.clone());
            let (created_at, last_seen_at) = (s.created_at.clone(), s.last_seen_at.clone());
            vec![id, account, carrier, s.transport.clone(), created_at, last_seen_at, s.expires_at.clone()]
        };
        self.sessions.iter().map(row).collect()
    }
}
