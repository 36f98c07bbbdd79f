//! `bindings list | revoke | import`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;

use super::connection::{Connection, path};
use super::import;
use super::output::Document;
use crate::admin::{self, Revoked};

#[derive(Args)]
pub(super) struct Bindings {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bindings, oldest first
    List {
        /// Of this account alone
        #[arg(long)]
        account: Option<String>,
    },
    /// Erase a binding and end its sessions
    Revoke {
        /// Its id, as `bindings list` shows it
        id: String,
    },
    /// How many bindings there are
    Stats {
        /// By what they are counted
        #[arg(long, value_enum, default_value = "chain")]
        by: By,
    },
    /// Bind handsets that another system knew: JSON lines {"account","carrier","identifier"} on stdin
    ///
    /// Accounts are created where there are none. Lines that are not taken are listed by number and not repeated; the
    /// exit code is 1 then. Running the same lines again changes nothing, so an import that broke off is run again.
    Import,
}

/// What bindings are counted by.
#[derive(Clone, Copy, ValueEnum)]
enum By {
    /// By the keys that made their digests
    Chain,
}

impl Bindings {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        match verb {
            Verb::List { account } => {
                let path = account.map_or_else(|| path(["bindings"]), |a| path(["accounts", &a, "bindings"]));
                connection.call::<admin::Bindings>(Method::GET, &path)
            }
            Verb::Stats { by: By::Chain } => {
                connection.call::<admin::Chains>(Method::GET, &path(["bindings", "stats"]))
            }
            Verb::Import => connection.finish(import::run(&connection)),
            Verb::Revoke { id } => connection.call::<Revoked>(Method::DELETE, &path(["bindings", &id])),
        }
    }
}

impl Document for admin::Bindings {
    const COLUMNS: &'static [&'static str] = &["id", "account", "carrier", "keys", "bound on", "last used on"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |b: &admin::Binding| {
            let (bound_on, last_used_on) = (b.bound_on.clone(), b.last_used_on.clone());
            vec![b.id.clone(), b.account.clone(), b.carrier.clone(), b.chain.join(","), bound_on, last_used_on]
        };
        self.bindings.iter().map(row).collect()
    }
}

impl Document for admin::Chains {
    const COLUMNS: &'static [&'static str] = &["keys", "bindings"];

    fn rows(&self) -> Vec<Vec<String>> {
        self.chains.iter().map(|count| vec![count.chain.join(","), count.bindings.to_string()]).collect()
    }
}
