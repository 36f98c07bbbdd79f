//! One written value -> one domain value: what every section needs.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::document::join;
use crate::config::duration::{self, Rate};
use crate::config::finding::Report;
use crate::config::raw::{Inline, Or, Secret, SecretTable, Table};
use crate::config::secret_source::SecretSource;
use crate::config::size;

/// What checking needs besides the raw values.
pub(super) struct Context {
    pub(super) report: Report,
    /// The folder of the configuration file; relative paths start there.
    pub(super) folder: PathBuf,
}

impl Context {
    /// Reads an optional text; reports what `read` says of it.
    pub(super) fn read<T, E: Display>(
        &mut self,
        key: &str,
        written: Option<&str>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        read(written?).map_err(|error| self.report.error(key, error)).ok()
    }

    /// A duration within `range`, else the default.
    pub(super) fn duration(
        &mut self,
        key: &str,
        written: Option<&str>,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let within = |text: &str| {
            let value = duration::parse(text).map_err(|error| error.to_string())?;
            let (least, most) = (duration::text(*range.start()), duration::text(*range.end()));
            if range.contains(&value) { Ok(value) } else { Err(format!("must be {least} to {most}")) }
        };
        self.read(key, written, within).unwrap_or(default)
    }

    /// A duration of whole days, one at least, else the default. Retention is counted in days (§8 of the contract).
    pub(super) fn days(&mut self, key: &str, written: Option<&str>, default: u32) -> u32 {
        const DAY: u128 = 86_400_000;
        let whole = |text: &str| {
            let millis = duration::parse(text).map_err(|error| error.to_string())?.as_millis();
            let days = if millis % DAY == 0 { u32::try_from(millis / DAY).ok() } else { None };
            days.ok_or_else(|| "retention is counted in whole days, 1d at least, such as \"90d\"".to_owned())
        };
        self.read(key, written, whole).unwrap_or(default)
    }

    /// A size within `range`, else the default.
    pub(super) fn size(&mut self, key: &str, written: Option<&str>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let within = |text: &str| {
            let value = size::parse(text).map_err(|error| error.to_string())?;
            let (least, most) = (size::text(*range.start()), size::text(*range.end()));
            if range.contains(&value) { Ok(value) } else { Err(format!("must be {least} to {most}")) }
        };
        self.read(key, written, within).unwrap_or(default)
    }

    /// A rate whose period is `1s` to `1d`, else the default.
    pub(super) fn rate(&mut self, key: &str, written: Option<&str>, default: Rate) -> Rate {
        let within = |text: &str| {
            let rate = duration::parse_rate(text).map_err(|error| error.to_string())?;
            let periods = Duration::from_secs(1)..=Duration::from_hours(24);
            if periods.contains(&rate.period) { Ok(rate) } else { Err("the period must be 1s to 1d".to_owned()) }
        };
        self.read(key, written, within).unwrap_or(default)
    }

    /// A number within `range`, else the default.
    pub(super) fn number(&mut self, key: &str, written: Option<i64>, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some(written) = written else { return default };
        u32::try_from(written).ok().filter(|value| range.contains(value)).unwrap_or_else(|| {
            self.report.error(key, format_args!("must be {} to {}", range.start(), range.end()));
            default
        })
    }

    /// A path, made relative to the configuration's folder.
    pub(super) fn path(&mut self, key: &str, written: Option<&str>) -> Option<PathBuf> {
        let folder = self.folder.clone();
        self.read(key, written, |text| {
            if text.is_empty() || text.contains('\0') { Err("must name a file") } else { Ok(folder.join(text)) }
        })
    }

    /// A text for people: not empty, one line, at most `most` characters.
    pub(super) fn text(&mut self, key: &str, written: Option<&str>, most: usize) -> Option<String> {
        self.read(key, written, |text| {
            let text = text.trim();
            if text.is_empty() {
                Err("must not be empty".to_owned())
            } else if text.chars().any(char::is_control) {
                Err("must be one line without control characters".to_owned())
            } else if text.chars().count() > most {
                Err(format!("must be at most {most} characters"))
            } else {
                Ok(text.to_owned())
            }
        })
    }

    /// Where a secret is.
    pub(super) fn secret(&mut self, key: &str, written: Secret) -> Option<SecretSource> {
        match written {
            Or::Long(Table(table)) => self.secret_place(key, table),
            Or::Short(Inline) => {
                self.inline_secret(key);
                None
            }
        }
    }

    /// Reports a secret that stands in the file itself.
    pub(super) fn inline_secret(&mut self, key: &str) {
        self.report.error(
            key,
            "a secret is never written into this file; use { file = \"…\" }, { env = \"…\" } or { credential = \"…\" }, \
             and change the secret if this file was shared",
        );
    }

    /// A file, a variable or a credential: exactly one of them.
    pub(super) fn secret_place(&mut self, key: &str, table: SecretTable) -> Option<SecretSource> {
        match (table.file, table.env, table.credential) {
            (Some(file), None, None) => self.path(&join(key, "file"), Some(&file)).map(SecretSource::File),
            (None, Some(name), None) => self.read(&join(key, "env"), Some(&name), variable_name).map(SecretSource::Env),
            (None, None, Some(name)) => {
                self.read(&join(key, "credential"), Some(&name), credential_name).map(SecretSource::Credential)
            }
            _ => {
                self.report.missing(key, "must have exactly one of file, env, credential");
                None
            }
        }
    }
}

fn variable_name(name: &str) -> Result<String, &'static str> {
    let sound = !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if sound { Ok(name.to_owned()) } else { Err("must be the name of an environment variable: letters, digits, _") }
}

fn credential_name(name: &str) -> Result<String, &'static str> {
    let sound =
        !matches!(name, "" | "." | "..") && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if sound { Ok(name.to_owned()) } else { Err("must be the name of a systemd credential, as in LoadCredential=") }
}
