//! Which lines of the `system` stream are written, and choosing anew while the program runs.
//!
//! There is one log a process, so there is one choice. The security stream and the access stream are written in any case.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use thiserror::Error;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::LogLevel;

/// The variable that chooses what is logged, in `RUST_LOG`'s language, e.g. `sekisho::upstream=debug`. It goes before the
/// configuration.
pub(super) const VARIABLE: &str = "SEKISHO_LOG";
/// Bytes of a choice; the longest that means something is far shorter.
const MOST_BYTES: usize = 256;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A choice that somebody made while the program runs: a level, levels of parts, or both, such as
/// `warn,sekisho::upstream=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChoice(String);

/// It is no choice. What was sent is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "it takes off, error, warn, info, debug or trace, or parts of the program with their own, such as \
     warn,sekisho::upstream=debug; 256 bytes at most"
)]
pub struct NoLogChoice;

impl FromStr for LogChoice {
    type Err = NoLogChoice;

    /// Less than [`EnvFilter`] takes: nothing that is compared with the values of fields.
    fn from_str(text: &str) -> Result<Self, NoLogChoice> {
        let part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let directive = |directive: &str| match directive.split_once('=') {
            None => LEVELS.contains(&directive),
            Some((target, level)) => target.split("::").all(part) && LEVELS.contains(&level),
        };
        let sound = text.len() <= MOST_BYTES && text.split(',').all(directive) && filter(text).is_ok();
        if sound { Ok(Self(text.to_owned())) } else { Err(NoLogChoice) }
    }
}

impl fmt::Display for LogChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is logged, as [`LogChoice`] says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInForce {
    /// What `SEKISHO_LOG`, or else the configuration, says.
    pub configured: String,
    /// What was chosen since, or else the same.
    pub level: String,
}

/// The filter of the process, once there is one.
static HANDLE: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
static IN_FORCE: Mutex<Option<LogInForce>> = Mutex::new(None);

pub(super) fn filter(chosen: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into()).parse(chosen)
}

/// What the variable says, or else the configuration.
pub(super) fn configured(level: LogLevel) -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| level.as_str().to_owned())
}

pub(super) fn installed(handle: reload::Handle<EnvFilter, Registry>, chosen: &str) {
    // Set once: a process has one log.
    let _ = HANDLE.set(handle);
    *in_force() = Some(LogInForce { configured: chosen.to_owned(), level: chosen.to_owned() });
}

/// What is logged now.
#[must_use]
pub fn log_in_force() -> LogInForce {
    in_force().clone().unwrap_or_else(|| {
        let configured = configured(LogLevel::Info);
        LogInForce { level: configured.clone(), configured }
    })
}

/// Has `chosen` be logged until the next reload or start; without it, what is configured.
#[must_use = "whoever asked wants to hear what holds"]
pub fn choose_log(chosen: Option<&LogChoice>) -> LogInForce {
    let LogInForce { configured, .. } = log_in_force();
    let level = chosen.map_or_else(|| configured.clone(), |chosen| chosen.0.clone());
    apply(LogInForce { configured, level })
}

/// Another configuration is in force: what was chosen since the last is forgotten.
pub fn configure_log(level: LogLevel) {
    let configured = configured(level);
    apply(LogInForce { level: configured.clone(), configured });
}

fn apply(log: LogInForce) -> LogInForce {
    let mut held = in_force();
    if let (Some(handle), Ok(filter)) = (HANDLE.get(), filter(&log.level)) {
        // Fails only where the subscriber is gone, and with it the log.
        let _ = handle.reload(filter);
    }
    *held = Some(log.clone());
    log
}

/// Nothing panics while it holds it, so what poison would protect is whole.
fn in_force() -> MutexGuard<'static, Option<LogInForce>> {
    IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_parts_are_choices_and_nothing_else_is() {
        for text in ["off", "info", "trace", "warn,sekisho::upstream=debug", "sekisho::edge::listener=trace", "h2=off"]
        {
            assert_eq!(text.parse::<LogChoice>().map(|choice| choice.to_string()), Ok(text.to_owned()), "{text}");
        }
        let long = "info,".repeat(60) + "info";
        for text in [
            "",
            "INFO",
            "loud",
            " info",
            "info,",
            "sekisho",
            "sekisho=",
            "=info",
            "sekisho::=info",
            "sekisho=loud",
            "[span]=info",
            "[span{field=1}]=info",
            "sekisho[x]=info",
            "a=b=c",
            "sekisho=info\n",
            "Sekisho=info",
            &*long,
        ] {
            assert_eq!(text.parse::<LogChoice>(), Err(NoLogChoice), "{text:?}");
        }
    }
}
