//! Raw shapes -> domain types, section by section; every rule that needs nothing but the configuration.
//!
//! A section's function always returns something to go on with: after an error it is a stand-in, and the
//! report keeps the configuration from being built. So one error never hides another.

mod admin;
mod carriers;
mod gateway;
mod house;
mod kek;
mod limits;
mod listeners;
mod routes;
mod sessions;
mod trace;
mod upstreams;
mod values;
mod version;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::document::Document;
use super::finding::{Finding, Report};
use super::raw;
use super::types::{CarrierSpecs, Config, GatewayConfig};
use values::Context;

/// What was found out without judging the carriers' profiles.
pub(super) struct Checked {
    /// The configuration, if no error stands in its way.
    pub(super) config: Option<Config<CarrierSpecs>>,
    /// `[gateway]`, even if something else is wrong.
    pub(super) gateway: Option<GatewayConfig>,
    /// What is written about carriers, even if something else is wrong.
    pub(super) specs: CarrierSpecs,
    /// `admin.socket`, even if something else is wrong.
    pub(super) socket: Option<PathBuf>,
    /// The findings so far.
    pub(super) report: Report,
}

/// Checks everything but the carriers' profiles, which `carrier` judges.
///
/// # Errors
/// All findings at once, warnings included, if there is at least one error.
pub fn parts(text: &str, path: &Path) -> Result<(Config<CarrierSpecs>, Vec<Finding>), Vec<Finding>> {
    let Checked { config, report, .. } = check(text, path);
    match config {
        Some(config) => Ok((config, report.into_findings())),
        None => Err(report.into_findings()),
    }
}

/// As [`parts`], for going on with the same report.
pub(super) fn check(text: &str, path: &Path) -> Checked {
    let (document, lines) = match Document::parse(text) {
        Ok(parsed) => parsed,
        Err(errors) => {
            let mut report = Report::new(path, super::document::Lines::default());
            for error in errors {
                report.error_at(error.line, &error.key, error.problem);
            }
            return Checked { config: None, gateway: None, specs: CarrierSpecs::new(), socket: None, report };
        }
    };
    let mut cx =
        Context { report: Report::new(path, lines.clone()), folder: path.parent().unwrap_or(Path::new("")).to_owned() };
    let raw: raw::Root = document.shape(&mut cx.report);
    version::check(&document, &mut cx.report);

    let gateway = gateway::check(raw.gateway, &mut cx);
    let listeners = listeners::check(raw.listener, gateway.as_ref(), &mut cx);
    let admin = admin::check(raw.admin, &listeners, &mut cx);
    let socket = (!cx.report.names("admin.socket")).then(|| admin.socket.clone());
    let specs = carriers::check(raw.carriers, &mut cx);
    let upstreams = upstreams::check(raw.upstream, &mut cx);
    let limits = limits::check(raw.limits, &mut cx);
    let routes = routes::check(raw.route, &upstreams, &limits, &mut cx);
    let session = sessions::session(raw.session, &mut cx);
    let binding = sessions::binding(raw.binding, &mut cx);
    let store = house::store(raw.store, &mut cx);
    let backup = house::backup(raw.backup, store.as_ref(), &mut cx);
    let keys = house::keys(raw.keys, &mut cx);
    let notice = house::notice(raw.notice, &mut cx);
    let log = house::log(raw.log, &mut cx);
    let privacy = house::privacy(raw.privacy, &log, &mut cx);
    let trace = trace::check(raw.trace, &mut cx);

    let report = cx.report;
    let config = match (gateway.clone(), store.zip(backup), keys, notice) {
        (Some(gateway), Some((store, backup)), Some(keys), Some(notice)) if !report.has_errors() => Some(Config {
            file: path.to_owned(),
            sha256: sha256(text),
            lines,
            carriers: specs.clone(),
            gateway,
            listeners,
            admin,
            upstreams,
            routes,
            session,
            binding,
            store,
            backup,
            limits,
            keys,
            notice,
            log,
            privacy,
            trace,
        }),
        _ => None,
    };
    Checked { config, gateway, specs, socket, report }
}

fn sha256(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // a String takes every write
        hex
    })
}
