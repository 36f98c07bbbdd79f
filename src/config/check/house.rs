//! `[store]`, `[backup]`, `[keys]`, `[notice]`, `[log]`, `[privacy]`.

use std::time::Duration;

use time::Date;
use time::format_description::well_known::Iso8601;

use super::kek;
use super::values::Context;
use crate::config::log::{
    AccessFormat, AccessLog, ClientAddressDetail, LogConfig, LogLevel, PrivacyConfig, SecurityLog,
};
use crate::config::raw::{self, Table};
use crate::config::types::{BackupConfig, KeyPeriods, KeysConfig, NoticeConfig, StoreConfig};

const LONGEST_TEXT: usize = 200;

pub(super) fn store(raw: Option<Table<raw::Store>>, cx: &mut Context) -> Option<StoreConfig> {
    let Some(Table(raw)) = raw else {
        cx.report.missing("store", "is missing; write [store] with path = \"data/sekisho.store\"");
        return None;
    };
    let remote = raw.url.is_some();
    for (key, secret) in [("store.url", raw.url), ("store.sessions", raw.sessions)] {
        let _ = secret.and_then(|secret| cx.secret(key, secret));
    }
    if raw.path.is_none() && !remote {
        cx.report.missing("store.path", "is missing; write the embedded store's file, such as \"data/sekisho.store\"");
    }
    let path = cx.path("store.path", raw.path.as_deref())?;
    Some(StoreConfig { path })
}

/// Behind the store's own name, where the operator chose no other place.
const LEDGER: &str = ".ledger";

pub(super) fn backup(
    raw: Option<Table<raw::Backup>>,
    store: Option<&StoreConfig>,
    cx: &mut Context,
) -> Option<BackupConfig> {
    let Table(raw) = raw.unwrap_or_default();
    let chosen = raw.ledger.is_some();
    let ledger = if let Some(written) = raw.ledger {
        cx.path("backup.ledger", Some(&written))?
    } else {
        let mut beside = store?.path.as_os_str().to_owned();
        beside.push(LEDGER);
        beside.into()
    };
    let retention = raw.retention.map(|written| cx.days("backup.retention", Some(&written), u32::MAX));
    let retention_days = retention.filter(|days| *days < u32::MAX);
    Some(BackupConfig { ledger, chosen, retention_days })
}

pub(super) fn keys(raw: Option<Table<raw::Keys>>, cx: &mut Context) -> Option<KeysConfig> {
    let kek = "write kek = { file = \"secrets/kek\" }, a file with 32 random bytes in base64 (openssl rand -base64 32)";
    let Some(Table(raw)) = raw else {
        cx.report.missing("keys", format_args!("is missing; write [keys] and below it {kek}"));
        return None;
    };
    let periods = key_periods(&raw, cx);
    let kek_next = raw.kek_next.and_then(|written| kek::source("keys.kek_next", written, cx));
    let Some(written) = raw.kek else {
        cx.report.missing("keys.kek", format_args!("is missing; {kek}"));
        return None;
    };
    let kek = kek::source("keys.kek", written, cx)?;
    Some(KeysConfig { kek, kek_next, periods })
}

const DAY: Duration = Duration::from_hours(24);
/// What a cache of the JWKS may take to notice a new key, and a minute.
const LEAST_PUBLISHED: Duration = Duration::from_mins(6);
const MOST: Duration = DAY.saturating_mul(3640);

fn key_periods(raw: &raw::Keys, cx: &mut Context) -> KeyPeriods {
    let mut duration = |key: &str, written: &Option<String>, default, least| {
        cx.duration(key, written.as_deref(), default, least..=MOST)
    };
    let periods = KeyPeriods {
        cooling: duration("keys.cooling", &raw.cooling, 7 * DAY, Duration::from_secs(1)),
        assertion_publish: duration("keys.assertion_publish", &raw.assertion_publish, DAY, LEAST_PUBLISHED),
        assertion_rotate: duration("keys.assertion_rotate", &raw.assertion_rotate, 30 * DAY, DAY),
        session_rotate: duration("keys.session_rotate", &raw.session_rotate, 90 * DAY, DAY),
        audit_rotate: duration("keys.audit_rotate", &raw.audit_rotate, 365 * DAY, DAY),
    };
    if periods.assertion_publish >= periods.assertion_rotate {
        let problem = "must be longer than keys.assertion_publish: each key is published before it signs";
        cx.report.error("keys.assertion_rotate", problem);
    }
    periods
}

pub(super) fn notice(raw: Option<Table<raw::Notice>>, cx: &mut Context) -> Option<NoticeConfig> {
    let Some(Table(raw)) = raw else {
        let problem = "is missing; write [notice] with controller, contact and revision: handsets' owners must be told who reads \
                       their identifier";
        cx.report.missing("notice", problem);
        return None;
    };
    for (key, missing, what) in [
        ("notice.controller", raw.controller.is_none(), "write who runs this gateway"),
        ("notice.contact", raw.contact.is_none(), "write whom to ask: a URL or an address"),
        (
            "notice.revision",
            raw.revision.is_none(),
            "write the day the notice was last changed, such as \"2026-11-23\"",
        ),
    ] {
        if missing {
            cx.report.missing(key, format_args!("is missing; {what}"));
        }
    }
    let controller = cx.text("notice.controller", raw.controller.as_deref(), LONGEST_TEXT);
    let contact = cx.text("notice.contact", raw.contact.as_deref(), LONGEST_TEXT);
    let revision = cx.read("notice.revision", raw.revision.as_deref(), |text| {
        // The length keeps out the other forms of ISO 8601: week dates, ordinal dates, no dashes.
        let real = text.len() == 10 && !text.contains('W') && Date::parse(text, &Iso8601::DATE).is_ok();
        if real { Ok(text.to_owned()) } else { Err("must be a real day, YYYY-MM-DD, in quotes") }
    });
    Some(NoticeConfig { controller: controller?, contact: contact?, revision: revision? })
}

pub(super) fn log(raw: Option<Table<raw::Log>>, cx: &mut Context) -> LogConfig {
    let Table(raw) = raw.unwrap_or_default();
    let format = match raw.access.as_ref().and_then(|Table(access)| access.format) {
        Some(raw::Format::Clf) => AccessFormat::Common,
        Some(raw::Format::Json) | None => AccessFormat::Json,
    };
    let sealed = raw.access.as_ref().and_then(|Table(access)| access.sealed).unwrap_or(false);
    if sealed && raw.access.as_ref().is_some_and(|Table(access)| access.file.is_none() && access.to.is_some()) {
        cx.report.error("log.access.sealed", "needs a file: what goes elsewhere others keep, as they get it");
    }
    let access = match raw.access {
        None => AccessLog::Stdout,
        Some(Table(access)) => match (access.to, access.file) {
            (Some(raw::Destination::Stdout), None) => AccessLog::Stdout,
            (Some(raw::Destination::Off), None) => AccessLog::Off,
            (None, Some(file)) => cx.path("log.access.file", Some(&file)).map_or(AccessLog::Off, AccessLog::File),
            (Some(_), Some(_)) | (None, None) => {
                cx.report
                    .missing("log.access", "must have exactly one of to = \"stdout\", to = \"off\" and file = \"…\"");
                AccessLog::Off
            }
        },
    };
    if access == AccessLog::Stdout && !cx.report.names("log.access") {
        cx.report.warning(
            "log.access",
            "goes to stdout, whose retention is not ours: whoever collects it must erase it in time",
        );
    }
    if access == AccessLog::Stdout && format == AccessFormat::Common {
        cx.report.error("log.access.format", "\"clf\" needs a file: the other streams on stdout are JSON lines");
    }
    let level = match raw.level {
        Some(raw::Level::Error) => LogLevel::Error,
        Some(raw::Level::Warn) => LogLevel::Warn,
        Some(raw::Level::Info) | None => LogLevel::Info,
        Some(raw::Level::Debug) => LogLevel::Debug,
        Some(raw::Level::Trace) => LogLevel::Trace,
    };
    let security = match raw.security {
        None => SecurityLog::Stdout,
        Some(Table(security)) => match (security.to, security.file) {
            (Some(raw::Stdout::Stdout), None) => SecurityLog::Stdout,
            (None, Some(file)) => {
                cx.path("log.security.file", Some(&file)).map_or(SecurityLog::Stdout, SecurityLog::File)
            }
            (Some(_), Some(_)) | (None, None) => {
                cx.report.missing("log.security", "must have exactly one of to = \"stdout\" and file = \"…\"");
                SecurityLog::Stdout
            }
        },
    };
    if let (AccessLog::File(one), SecurityLog::File(other)) = (&access, &security)
        && one == other
    {
        cx.report.error("log.security.file", "is the file of log.access: each stream has its own retention");
    }
    LogConfig { access, format, sealed, security, level }
}

pub(super) fn privacy(raw: Option<Table<raw::Privacy>>, log: &LogConfig, cx: &mut Context) -> PrivacyConfig {
    let Table(raw) = raw.unwrap_or_default();
    let security_log_days = cx.days("privacy.security_log_retention", raw.security_log_retention.as_deref(), 90);
    if raw.security_log_retention.is_some() && log.security == SecurityLog::Stdout {
        cx.report.warning(
            "privacy.security_log_retention",
            "has no effect: the security log goes to stdout, and whoever collects it must erase it in time; \
             log.security = { file = \"…\" } keeps it here",
        );
    }
    let audit = raw.audit_retention.map(|written| cx.days("privacy.audit_retention", Some(&written), u32::MAX));
    let audit_retention_days = audit.filter(|days| *days < u32::MAX);
    let statistics_days = cx.days("privacy.statistics_retention", raw.statistics_retention.as_deref(), 400);
    let access_log_days = cx.days("privacy.access_log_retention", raw.access_log_retention.as_deref(), 90);
    let sessions_days = cx.days("privacy.sessions_retention", raw.sessions_retention.as_deref(), 1);
    let codes_days = cx.days("privacy.codes_retention", raw.codes_retention.as_deref(), 1);
    let statistics_floor = u64::from(cx.number("privacy.statistics_floor", raw.statistics_floor, 10, 1..=1_000_000));
    let client_address = match raw.client_address {
        Some(raw::ClientAddress::Full) => ClientAddressDetail::Full,
        Some(raw::ClientAddress::None) => ClientAddressDetail::None,
        Some(raw::ClientAddress::Prefix) | None => ClientAddressDetail::Prefix,
    };
    PrivacyConfig {
        client_address,
        access_log_days,
        security_log_days,
        audit_retention_days,
        statistics_floor,
        statistics_days,
        sessions_days,
        codes_days,
    }
}
