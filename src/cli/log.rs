//! `log level`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::connection::{Connection, path};
use super::output::Document;
use crate::admin::LogLevel;

#[derive(Args)]
pub(super) struct Log {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What the system log tells; with SET, what it tells until the next reload or start
    Level {
        #[arg(
            conflicts_with = "reset",
            help = "off, error, warn, info, debug or trace, or parts with their own, such as warn,sekisho::upstream=debug"
        )]
        set: Option<String>,
        /// Go back to what is configured
        #[arg(long)]
        reset: bool,
    },
}

impl Log {
    pub(super) fn run(self) -> ExitCode {
        let (connection, path) = (self.connection, path(["log"]));
        match self.verb {
            Verb::Level { set: Some(level), .. } => {
                connection.call_with::<LogLevel>(Method::PUT, &path, &json!({ "level": level }))
            }
            Verb::Level { set: None, reset: true } => connection.call::<LogLevel>(Method::DELETE, &path),
            Verb::Level { set: None, reset: false } => connection.call::<LogLevel>(Method::GET, &path),
        }
    }
}

impl Document for LogLevel {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let rows = [("level", &self.level), ("configured", &self.configured)];
        rows.map(|(name, value)| vec![name.to_owned(), value.clone()]).into()
    }
}
