//! For how long each kind of data is kept, as the configuration in force says.

use std::time::Duration;

use super::tongue::Tongue;
use crate::config::{AccessLog, Config, SecurityLog};

/// The rule by which data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Until the account is erased.
    UntilErased,
    /// Until a handset was not used for `binding.retention`.
    Unused,
    /// As long as the handset that it is about.
    WithBinding,
    /// Until the session ends; what it leaves in the store's file for `privacy.sessions_retention` at most.
    Session,
    /// Until the code was used, or is ten minutes old; what it leaves in the store's file for `privacy.codes_retention` at
    /// most.
    Code,
    /// Until the hold is released.
    UntilReleased,
    /// For `privacy.audit_retention`, or for ever.
    Audit,
    /// For `privacy.access_log_retention` where it is a file of the gateway's.
    AccessLog,
    /// For `privacy.statistics_retention`.
    Statistics,
    /// For `privacy.security_log_retention` where it is a file of the gateway's.
    SecurityLog,
    /// By whoever collects it.
    Elsewhere,
    /// As long as something needs it.
    WhileNeeded,
    /// As long as the store.
    ForEver,
    /// Until the next of its kind.
    Latest,
    /// Until the gateway restarts.
    Process,
}

/// The periods of the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Periods {
    /// Days after which an unused binding is erased.
    pub binding_days: u32,
    /// How long a session lives unused.
    pub session_idle: Duration,
    /// How long a session lives at most.
    pub session_absolute: Duration,
    /// Days within which what a session leaves behind is gone from the store's file.
    pub sessions_days: u32,
    /// The same of a code.
    pub codes_days: u32,
    /// Where the access log goes.
    pub access_log: LogPeriod,
    /// Where the security log goes.
    pub security_log: LogPeriod,
    /// Days for which statistics are kept.
    pub statistics_days: u32,
    /// Days for which entries of the audit trail are kept; for ever if unsaid.
    pub audit_days: Option<u32>,
}

/// What the gateway can say of the age of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPeriod {
    /// None is written.
    Off,
    /// Whoever collects it must erase it.
    Elsewhere,
    /// For so many days, then its files are erased.
    Days(u32),
    /// For so many days, then no copy of it opens any more.
    SealedDays(u32),
}

impl Periods {
    /// Those of `config`.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            binding_days: config.binding.retention_days,
            session_idle: config.session.idle,
            session_absolute: config.session.absolute,
            sessions_days: config.privacy.sessions_days,
            codes_days: config.privacy.codes_days,
            access_log: match config.log.access {
                AccessLog::Off => LogPeriod::Off,
                AccessLog::Stdout => LogPeriod::Elsewhere,
                AccessLog::File(_) if config.log.sealed => LogPeriod::SealedDays(config.privacy.access_log_days),
                AccessLog::File(_) => LogPeriod::Days(config.privacy.access_log_days),
            },
            security_log: match config.log.security {
                SecurityLog::Stdout => LogPeriod::Elsewhere,
                SecurityLog::File(_) => LogPeriod::Days(config.privacy.security_log_days),
            },
            statistics_days: config.privacy.statistics_days,
            audit_days: config.privacy.audit_retention_days,
        }
    }

    /// Ordinary ones, for tests.
    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self {
            binding_days: 400,
            session_idle: Duration::from_mins(30),
            session_absolute: Duration::from_hours(12),
            sessions_days: 1,
            codes_days: 1,
            access_log: LogPeriod::Elsewhere,
            security_log: LogPeriod::Elsewhere,
            statistics_days: 400,
            audit_days: None,
        }
    }
}

impl LogPeriod {
    /// In English and Japanese.
    fn say(self) -> (String, String) {
        match self {
            Self::Off => ("none is written".to_owned(), "記録しない".to_owned()),
            Self::Elsewhere => ("as long as whoever collects it keeps it".to_owned(), "収集先の定める期間".to_owned()),
            Self::Days(days) => (
                format!("{}, then the day's file is erased", days_text(days)),
                format!("{days}日。その後、その日のファイルを消去"),
            ),
            Self::SealedDays(days) => (
                format!("{}, then the day's key is destroyed and no copy can be read", days_text(days)),
                format!("{days}日。その後、その日の鍵を廃棄し、写しも読めなくする"),
            ),
        }
    }
}

impl Kept {
    /// The rule in words, with the periods in force.
    #[must_use]
    pub fn say(self, periods: &Periods, tongue: Tongue) -> String {
        let Periods { binding_days, session_idle, session_absolute, sessions_days, codes_days, .. } = periods;
        let Periods { access_log, security_log, statistics_days, audit_days, .. } = periods;
        let (en, ja) = match self {
            Self::UntilErased => ("until the account is erased".to_owned(), "アカウントを消去するまで".to_owned()),
            Self::Unused => (
                format!("until the handset was not used for {binding_days} days"),
                format!("{binding_days}日使われなければ消去"),
            ),
            Self::WithBinding => ("as long as the handset is enrolled".to_owned(), "登録を削除するまで".to_owned()),
            Self::Session => (
                format!(
                    "until you sign out, {} without use, or {} at most; gone from the file within {} after that",
                    minutes(*session_idle),
                    minutes(*session_absolute),
                    days_text(*sessions_days)
                ),
                format!(
                    "サインアウトするまで。操作がないまま{}、長くても{}で消去し、{sessions_days}日以内にファイルからも消去",
                    ja_minutes(*session_idle),
                    ja_minutes(*session_absolute)
                ),
            ),
            Self::Code => (
                format!(
                    "until it was used, 10 minutes at most; gone from the file within {} after that",
                    days_text(*codes_days)
                ),
                format!("使うまで。長くても10分で消去し、{codes_days}日以内にファイルからも消去"),
            ),
            Self::UntilReleased => ("until the hold is released".to_owned(), "保全が解かれるまで".to_owned()),
            Self::Audit => match audit_days {
                Some(days) => (format!("{days} days"), format!("{days}日")),
                None => ("for ever".to_owned(), "無期限".to_owned()),
            },
            Self::AccessLog => access_log.say(),
            Self::SecurityLog => security_log.say(),
            Self::Elsewhere => LogPeriod::Elsewhere.say(),
            Self::Statistics => (format!("{statistics_days} days"), format!("{statistics_days}日")),
            Self::ForEver => ("for ever".to_owned(), "無期限".to_owned()),
            Self::WhileNeeded => ("as long as something needs it".to_owned(), "必要な間".to_owned()),
            Self::Latest => ("until the next one".to_owned(), "次の記録まで".to_owned()),
            Self::Process => ("until the gateway restarts".to_owned(), "再起動するまで".to_owned()),
        };
        match tongue {
            Tongue::English => en,
            Tongue::Japanese => ja,
        }
    }
}

fn days_text(count: u32) -> String {
    if count == 1 { "a day".to_owned() } else { format!("{count} days") }
}

fn minutes(time: Duration) -> String {
    match (time.as_secs(), time.as_secs() % 3600, time.as_secs() % 60) {
        (all, 0, _) => format!("{} hours", all / 3600),
        (all, _, 0) => format!("{} minutes", all / 60),
        (all, ..) => format!("{all} seconds"),
    }
}

fn ja_minutes(time: Duration) -> String {
    match (time.as_secs(), time.as_secs() % 3600, time.as_secs() % 60) {
        (all, 0, _) => format!("{}時間", all / 3600),
        (all, _, 0) => format!("{}分", all / 60),
        (all, ..) => format!("{all}秒"),
    }
}
