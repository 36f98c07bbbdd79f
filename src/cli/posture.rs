//! `posture`: how the promises of the privacy policy stand; exit code 1 while one is overdue or broken.

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::connection::{Connection, path};
use super::output::Document;
use crate::admin::Posture;

#[derive(Args)]
pub(super) struct Stand {
    #[command(flatten)]
    connection: Connection,
}

impl Stand {
    pub(super) fn run(self) -> ExitCode {
        self.connection.call::<Posture>(Method::GET, &path(["posture"]))
    }
}

fn is_bad(standing: &str) -> bool {
    matches!(standing, "overdue" | "broken")
}

impl Document for Posture {
    const COLUMNS: &'static [&'static str] = &["promise", "stands", "setting", "seen", "what was seen"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |promise: &crate::admin::ShownPromise| {
            // Loud where somebody has to look after it, in a pipe too.
            let stands = &promise.standing;
            let stands = if is_bad(stands) { stands.to_uppercase() } else { stands.clone() };
            let seen = promise.seen_at.clone().unwrap_or_else(|| "never".to_owned());
            vec![promise.promise.clone(), stands, promise.setting.clone(), seen, promise.detail.clone()]
        };
        self.promises.iter().map(row).collect()
    }

    fn is_bad(&self, row: usize) -> bool {
        self.promises.get(row).is_some_and(|promise| is_bad(&promise.standing))
    }

    fn refusal(&self) -> Option<String> {
        let bad = self.promises.iter().filter(|promise| is_bad(&promise.standing)).map(|promise| &*promise.name);
        (!self.ok).then(|| format!("promises that are overdue or broken: {}", bad.collect::<Vec<_>>().join(", ")))
    }
}
