//! `stats`.

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::connection::{Connection, path};
use super::days::{day, span};
use super::output::Document;
use crate::admin;
use crate::clock::Day;

const STATS: &str = "\
Counts under privacy.statistics_floor are withheld, and so is what would tell one of them. A day that is not over is rounded
down to a multiple of the floor. No account and no handset is counted by itself anywhere.";

#[derive(Args)]
#[command(after_help = STATS)]
pub(super) struct Stats {
    #[command(flatten)]
    connection: Connection,
    /// The first day, YYYY-MM-DD [default: 30 days before --to]
    #[arg(long, value_name = "DAY", value_parser = day)]
    from: Option<Day>,
    /// The last day, YYYY-MM-DD [default: today]
    #[arg(long, value_name = "DAY", value_parser = day)]
    to: Option<Day>,
}

impl Stats {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, from, to } = self;
        connection.call::<admin::Stats>(Method::GET, &format!("{}?{}", path(["stats"]), span(from, to)))
    }
}

impl Document for admin::Stats {
    const COLUMNS: &'static [&'static str] = &["day", "carrier", "sign-ins", "enrolments", "refusals"];

    fn rows(&self) -> Vec<Vec<String>> {
        let shown = |stat: Option<&admin::Stat>| {
            stat.and_then(|stat| stat.count).map_or_else(|| "-".to_owned(), |count| count.to_string())
        };
        let rows = self.sign_ins.iter().enumerate().map(|(at, stat)| {
            let day = if stat.open { format!("{} (not over)", stat.day) } else { stat.day.clone() };
            vec![
                day,
                stat.carrier.clone(),
                shown(Some(stat)),
                shown(self.enrolments.get(at)),
                shown(self.refusals.get(at)),
            ]
        });
        rows.collect()
    }
}
