//! `[session]` and `[binding]`.

use std::time::Duration;

use super::values::Context;
use crate::config::duration;
use crate::config::raw::{self, Or, StretchWord, Table};
use crate::config::types::{BindingConfig, SessionConfig, StretchSetting, TransportSetting};
use crate::store::StretchParameters;

/// A session that lives longer than a month is a second, weaker binding.
const LONGEST_SESSION: Duration = Duration::from_hours(30 * 24);

const MIB: u64 = 1 << 20;

pub(super) fn session(raw: Option<Table<raw::Session>>, cx: &mut Context) -> SessionConfig {
    let Table(raw) = raw.unwrap_or_default();
    let range = Duration::from_secs(1)..=LONGEST_SESSION;
    let idle = cx.duration("session.idle", raw.idle.as_deref(), Duration::from_mins(30), range.clone());
    let absolute = cx.duration("session.absolute", raw.absolute.as_deref(), Duration::from_hours(12), range);
    if idle > absolute && !cx.report.names("session.idle") && !cx.report.names("session.absolute") {
        // Only what is written has a line to point at; the other may be a default.
        let key = if raw.idle.is_some() { "session.idle" } else { "session.absolute" };
        let (idle, absolute) = (duration::text(idle), duration::text(absolute));
        cx.report.error(key, format_args!("idle ({idle}) must not be longer than absolute ({absolute})"));
    }
    let transport = match raw.transport {
        None | Some(raw::Transport::Auto) => TransportSetting::Auto,
        Some(raw::Transport::Cookie) => TransportSetting::Cookie,
        Some(raw::Transport::Url) => TransportSetting::Url,
    };
    let url_over_tls = raw.url_over_tls == Some(raw::UrlOverTls::Allow);
    if url_over_tls {
        cx.report.warning(
            "session.url_over_tls",
            "lets a URL that leaked be used by any subscriber of the same carrier, where TLS hides the identifier",
        );
    }
    // Neither longer than the session nor so short that nobody gets to the page behind.
    let pin_for = Duration::from_mins(1)..=LONGEST_SESSION;
    let pin_for = cx.duration("session.pin_for", raw.pin_for.as_deref(), Duration::from_hours(2), pin_for);
    let per_account = cx.number("session.per_account", raw.per_account, 5, 1..=100);
    SessionConfig { idle, absolute, per_account, transport, url_over_tls, pin_for }
}

pub(super) fn binding(raw: Option<Table<raw::Binding>>, cx: &mut Context) -> BindingConfig {
    let Table(raw) = raw.unwrap_or_default();
    BindingConfig {
        retention_days: cx.days("binding.retention", raw.retention.as_deref(), 400),
        per_account: cx.number("binding.per_account", raw.per_account, 3, 1..=100),
        stretch: match raw.stretch {
            None | Some(Or::Short(StretchWord::Auto)) => StretchSetting::Auto,
            Some(Or::Short(StretchWord::Off)) => StretchSetting::Off,
            Some(Or::Long(Table(stretch))) => StretchSetting::Custom(parameters(&stretch, cx)),
        },
    }
}

/// Bounds within which Argon2id both protects and lets a small server answer (RFC 9106 §4 recommends 64 MiB and more).
fn parameters(raw: &raw::Stretch, cx: &mut Context) -> StretchParameters {
    for (key, missing, what) in [
        ("binding.stretch.memory", raw.memory.is_none(), "write a size, such as \"19MiB\""),
        ("binding.stretch.passes", raw.passes.is_none(), "write a number, such as 2"),
    ] {
        if missing {
            cx.report.missing(key, format_args!("is missing; {what}"));
        }
    }
    let memory = cx.size("binding.stretch.memory", raw.memory.as_deref(), 19 * MIB, 8 * MIB..=1024 * MIB);
    if !memory.is_multiple_of(1024) {
        cx.report.error("binding.stretch.memory", "must be whole KiB");
    }
    StretchParameters {
        memory_kib: u32::try_from(memory / 1024).unwrap_or(u32::MAX),
        passes: cx.number("binding.stretch.passes", raw.passes, 2, 1..=10),
    }
}
