//! `keys compromise`: says it, waits until no record is found by what the key alone made, and shows the one report.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::connection::{Connection, path};
use super::failure::Failure;
use super::rotation;
use crate::admin::{AdminClient, ApprovalsToEnd, ClientError, CompromiseReport, CompromiseStep, Key};
use crate::clock::Timestamp;

/// How often the rotation is looked at, at first and then.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_millis(250);
/// How long nothing may move before the report is shown as it is: a full disk, a suspended key.
const STALLED: Duration = Duration::from_secs(30);

/// Says that a key has leaked. What was done at once stands, whatever becomes of the wait.
pub(super) fn run(connection: &Connection, id: &str, reason: &str, no_wait: bool) -> Result<Key, Failure> {
    let target = path(["keys", id, "compromise"]);
    connection.run(async |client| {
        let mut key: Key = client.call_with(Method::POST, &target, Some(&json!({ "reason": reason }))).await?;
        let done = Instant::now();
        if let Some(report) = key.report.as_mut().filter(|_| !no_wait)
            && let Some(rotation) = report.rotation.clone()
            && wrapped(&client, &rotation).await.unwrap_or(false)
        {
            // By the gateway's clock: the steps are from there.
            let last = report.steps.last().and_then(|step| Timestamp::parse(&step.at));
            let at = last.map(|at| at.plus(done.elapsed()).rfc3339()).unwrap_or_default();
            report.steps.push(CompromiseStep { step: "wrapped".to_owned(), at });
            // As it is now: the key went on with its records.
            if let Ok(now) = client.call::<Key>(Method::GET, &path(["keys", id])).await {
                key = Key { report: key.report, warnings: key.warnings, ..now };
            }
        }
        Ok(key)
    })
}

/// Waits until every record is moved, and the rotation knows it; `false` where that does not go on.
async fn wrapped(client: &AdminClient, rotation: &str) -> Result<bool, ClientError> {
    let mut shown = rotation::look(client, rotation).await?.rotation;
    let bar = rotation::bar(shown.total);
    let mut moved_at = Instant::now();
    let mut pause = FIRST_LOOK;
    while shown.state == "running" && moved_at.elapsed() < STALLED {
        rotation::tell(&bar, &shown);
        sleep(pause).await;
        pause = (pause * 2).min(LOOK);
        let next = rotation::look(client, rotation).await?.rotation;
        if next.unwrapped != shown.unwrapped {
            moved_at = Instant::now();
        }
        shown = next;
    }
    bar.finish_and_clear();
    Ok(shown.unwrapped == 0)
}

fn approvals(ApprovalsToEnd { needs, approvers }: &ApprovalsToEnd) -> String {
    match (*needs, approvers.as_slice()) {
        (0 | 1, _) => "one person with the role security".to_owned(),
        (needs, []) => format!("{needs} people, and admin.roles.security names none"),
        (needs, named) => format!("{needs} of {}", named.join(", ")),
    }
}

/// The report as rows of names and values.
pub(super) fn rows(report: &CompromiseReport) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let count = |told: Option<u64>| told.map_or_else(|| "unknown: the store failed".to_owned(), |n| n.to_string());
    let mut rows = vec![
        row("bindings concerned", count(report.bindings)),
        row("asked for their PIN", count(report.bindings_with_pin)),
        row("need a new code", count(report.bindings_without_pin)),
        row("accounts concerned", count(report.accounts)),
        row("sessions ended", report.sessions_ended.to_string()),
    ];
    rows.extend(report.rotation.clone().map(|rotation| row("rotation", rotation)));
    rows.extend(report.steps.iter().map(|step| row(&step.step, step.at.clone())));
    match &report.backups {
        None => rows.push(row("backups concerned", "unknown: the ledger cannot be used".to_owned())),
        Some(backups) => {
            rows.push(row("backups concerned", backups.len().to_string()));
            rows.extend(backups.iter().map(|backup| {
                let until = backup.until.as_deref().unwrap_or("it is destroyed");
                let of = format!("{} bindings, of {}, opens until {until}", backup.bindings, backup.taken_at);
                row(&format!("backup {}", backup.id), of)
            }));
        }
    }
    rows.extend(report.copies.iter().flatten().map(|copy| row("copy beside the store", copy.clone())));
    rows.push(row("to destroy the key", approvals(&report.approvals)));
    rows.extend(report.next.iter().map(|step| row("next", step.clone())));
    rows
}
