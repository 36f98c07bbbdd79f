//! `approvals list | approve | deny`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::connection::{Connection, path};
use super::keys::warnings;
use super::output::Document;
use crate::admin::{self, Approved};

#[derive(Args)]
pub(super) struct Approvals {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What waits for people and what became of it, the latest first
    List,
    /// Say yes; the last yes that is needed carries it out
    Approve {
        /// The approval's id, as `approvals list` shows it
        id: String,
    },
    /// Say no: nothing happens, and it is closed
    Deny {
        /// The approval's id, as `approvals list` shows it
        id: String,
    },
}

impl Approvals {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, verb } = self;
        let answer = |id: &str, decision: &str| {
            connection.call_with::<Approved>(Method::POST, &path(["approvals", id]), &json!({ "decision": decision }))
        };
        match verb {
            Verb::List => connection.call::<admin::Approvals>(Method::GET, &path(["approvals"])),
            Verb::Approve { id } => answer(&id, "approve"),
            Verb::Deny { id } => answer(&id, "deny"),
        }
    }
}

impl Document for admin::Approvals {
    const COLUMNS: &'static [&'static str] =
        &["id", "action", "object", "state", "needs", "given", "asked by", "expires at", "reason"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |a: &admin::Approval| {
            let (needs, given) = (a.needs.to_string(), a.given.join(", "));
            let (asked_by, expires_at, reason) = (a.asked_by.clone(), a.expires_at.clone(), a.reason.clone());
            vec![
                a.id.clone(),
                a.action.clone(),
                a.object.clone(),
                a.state.clone(),
                needs,
                given,
                asked_by,
                expires_at,
                reason,
            ]
        };
        self.approvals.iter().map(row).collect()
    }
}

impl Document for Approved {
    const COLUMNS: &'static [&'static str] = &[];

    fn rows(&self) -> Vec<Vec<String>> {
        let a = &self.approval;
        let (needs, given) = (a.needs.to_string(), a.given.join(", "));
        let rows = [
            ("approval", &a.id),
            ("action", &a.action),
            ("object", &a.object),
            ("state", &a.state),
            ("needs", &needs),
            ("given", &given),
            ("asked by", &a.asked_by),
            ("expires at", &a.expires_at),
            ("reason", &a.reason),
        ];
        let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value.clone()]);
        rows.chain(warnings(&self.warnings)).collect()
    }
}
