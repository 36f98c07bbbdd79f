//! `codes issue`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;

use super::connection::{Connection, path};
use super::output::Document;
use crate::admin::IssuedCode;

#[derive(Args)]
pub(super) struct Codes {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Issue a code, good once and for ten minutes, that binds a handset; the account is created if there is none
    Issue {
        /// An opaque id; never a telephone number or an e-mail address
        account: String,
    },
}

impl Codes {
    pub(super) fn run(self) -> ExitCode {
        let Verb::Issue { account } = self.verb;
        self.connection.call::<IssuedCode>(Method::POST, &path(["accounts", &account, "codes"]))
    }
}

impl Document for IssuedCode {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let rows = [("account", &self.account), ("code", &self.code), ("expires at", &self.expires_at)];
        rows.map(|(name, value)| vec![name.to_owned(), value.clone()]).into()
    }
}
