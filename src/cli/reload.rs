//! `reload`.

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::connection::{Connection, path};
use super::failure::Failure;
use super::output::Document;
use crate::admin::{ClientError, Reloaded};

#[derive(Args)]
pub(super) struct Reload {
    #[command(flatten)]
    connection: Connection,
}

impl Reload {
    pub(super) fn run(self) -> ExitCode {
        let reloaded = match self.connection.fetch::<Reloaded>(Method::POST, &path(["reload"])) {
            // The configuration is at fault, and not who asked or when.
            Err(Failure::Gateway(ClientError::Refused(detail))) if !detail.findings.is_empty() => {
                Err(Failure::Reload(detail))
            }
            outcome => outcome,
        };
        self.connection.finish(reloaded)
    }
}

impl Document for Reloaded {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let rows = [("file", &self.file), ("sha256", &self.sha256), ("reloaded at", &self.reloaded_at)];
        let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value.clone()]);
        rows.chain(self.warnings.iter().map(|warning| vec!["warning".to_owned(), warning.clone()])).collect()
    }
}
