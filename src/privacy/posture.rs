//! How the promises stand: each with its setting and what was last seen of it, so that an auditor need not take our word.

use std::time::Duration;

use super::canary_search::CANARY_PROOF;
use super::retention::RETENTION_PROOF;
use crate::clock::Timestamp;
use crate::config::{AccessLog, Config, KeyPeriods, SecurityLog, TransportSetting};
use crate::store::{KeyPurpose, KeyRecord, KeyState, Proof, RotationRecord, RotationState};

/// A round of retention is noted each hour, though it erases nothing.
const RETENTION_SEEN: Duration = Duration::from_hours(2);
/// A canary is searched for once a day.
const CANARY_SEEN: Duration = Duration::from_hours(26);
const DAY: Duration = Duration::from_hours(24);
/// A gateway that was off for a day or two replaces its keys by itself.
const GRACE: Duration = Duration::from_hours(48);

/// How a promise stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is kept.
    Kept,
    /// What keeps it should have happened by now.
    Overdue,
    /// It is not kept.
    Broken,
    /// Others have to keep it; the gateway cannot see whether they do.
    Elsewhere,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Overdue => "overdue",
            Self::Broken => "broken",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// Whether somebody has to look after it.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Overdue | Self::Broken)
    }
}

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// A fixed word of the program's.
    pub name: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// The setting that decides about it, as `key = value`; empty where none does.
    pub setting: String,
    /// How it stands.
    pub standing: Standing,
    /// When that was last seen.
    pub seen_at: Option<Timestamp>,
    /// What was seen: counts and ids of keys, never of whom.
    pub detail: String,
}

/// What is looked at.
pub struct Evidence<'e> {
    /// When.
    pub now: Timestamp,
    /// When the process began to serve; it had found a purpose for everything then.
    pub started_at: Timestamp,
    /// Whether the last test of itself found every forged field taken out.
    pub unforgeable: bool,
    /// All keys, tombstones included.
    pub keys: &'e [KeyRecord],
    /// All rotations.
    pub rotations: &'e [RotationRecord],
    /// What was noted.
    pub proofs: &'e [Proof],
    /// Since when nothing is left in the store's files that had been erased before.
    pub scrubbed_at: Option<Timestamp>,
    /// What keeps the access log from being written as promised, or from being erased in time.
    pub access_log: Option<&'static str>,
    /// The same of the security log.
    pub security_log: Option<&'static str>,
    /// Erasures that were begun and are not finished.
    pub unfinished: usize,
    /// That the revision date of the notice stood over something else before.
    pub notice_doubt: Option<&'e str>,
}

/// The names of all promises, in their order.
pub const PROMISES: [&str; 13] = [
    "purpose",
    "sign-in-only",
    "retention",
    "erasure",
    "statistics",
    "access-log",
    "cookies",
    "key-age",
    "rotation",
    "leaked-keys",
    "notice",
    "canary",
    "security-log",
];

/// Each promise under `config`, in the order of [`PROMISES`].
#[must_use]
pub fn posture(config: &Config, evidence: &Evidence<'_>) -> Vec<Promise> {
    let Evidence { now, started_at, unforgeable, unfinished, notice_doubt, .. } = *evidence;
    let seen_now = Some(now);
    let judged = |holds, otherwise| if holds { Standing::Kept } else { otherwise };
    let floor = config.privacy.statistics_floor;
    let access = access_log(config, evidence);
    let cookies = config.session.transport != TransportSetting::Cookie;
    let enabled = config.carriers.profiles().iter().filter(|profile| profile.enabled()).count();
    let (aged, key_ages) = key_age(&config.keys.periods, evidence);
    let late = ids(evidence.rotations.iter().filter(|r| is_late(r, now)).map(|r| &r.id));
    let leaked = ids(evidence.keys.iter().filter(|key| is_leaked(key)).map(|key| &key.id));
    let new = |name, promise, setting: String, standing, seen_at, detail: String| Promise {
        name,
        promise,
        setting,
        standing,
        seen_at,
        detail,
    };
    vec![
        new(
            PROMISES[0],
            "what is kept has a purpose",
            String::new(),
            Standing::Kept,
            Some(started_at),
            "each column, log field and label was found in the register at the start".into(),
        ),
        new(
            PROMISES[1],
            "identifiers are read at sign-in and passed to nobody",
            format!("carriers: {enabled}"),
            judged(unforgeable, Standing::Broken),
            seen_now,
            if unforgeable { "the test of itself passed" } else { "the test of itself failed; nobody is served" }
                .into(),
        ),
        retention(config, evidence),
        new(
            PROMISES[3],
            "what is asked to be erased is erased at once",
            String::new(),
            judged(unfinished == 0, Standing::Overdue),
            seen_now,
            format!("erasures that were begun and not finished: {unfinished}"),
        ),
        new(
            PROMISES[4],
            "nobody is recognised in what is counted",
            format!("privacy.statistics_floor = {floor}"),
            Standing::Kept,
            seen_now,
            format!("counts below {floor} are withheld, and those that would tell them"),
        ),
        new(
            PROMISES[5],
            "access logs are kept no longer than needed",
            format!("log.access: {}", access.0),
            access.1,
            seen_now,
            access.2.into(),
        ),
        new(
            PROMISES[6],
            "cookies may be refused",
            format!("session.transport = {}", transport(config.session.transport)),
            judged(cookies, Standing::Broken),
            seen_now,
            if cookies { "who keeps none gets the session in links" } else { "who refuses them cannot sign in" }.into(),
        ),
        new(PROMISES[7], "keys are replaced in time", periods(&config.keys.periods), aged, seen_now, key_ages),
        new(
            PROMISES[8],
            "a replaced key is needed by nobody after its deadline",
            String::new(),
            judged(late.is_empty(), Standing::Overdue),
            seen_now,
            if late.is_empty() { "no rotation is late".into() } else { format!("late: {late}") },
        ),
        new(
            PROMISES[9],
            "a key that leaked is needed by nobody",
            String::new(),
            judged(leaked.is_empty(), Standing::Broken),
            seen_now,
            if leaked.is_empty() { "none".into() } else { format!("leaked, and records still need it: {leaked}") },
        ),
        new(
            PROMISES[10],
            "purpose and period are told beforehand",
            format!("notice.revision = {}", config.notice.revision),
            judged(notice_doubt.is_none(), Standing::Broken),
            seen_now,
            notice_doubt
                .unwrap_or("sign-in page and notice are made from the configuration in force, and kept with their date")
                .into(),
        ),
        canary(evidence),
        security_log(config, evidence),
    ]
}

/// The setting of the access log, how it stands, and what was seen.
fn access_log(config: &Config, evidence: &Evidence<'_>) -> (String, Standing, &'static str) {
    match &config.log.access {
        AccessLog::Off => ("off".to_owned(), Standing::Kept, "none is written"),
        AccessLog::Stdout => ("stdout".to_owned(), Standing::Elsewhere, "whoever collects it has to erase it"),
        AccessLog::File(_) => {
            let sealed = if config.log.sealed { "a sealed file" } else { "a file" };
            let setting = format!("{sealed}, privacy.access_log_retention = {}d", config.privacy.access_log_days);
            let kept = if config.log.sealed { "a day's key goes with its file" } else { "a day's file is erased" };
            match evidence.access_log {
                Some(trouble) => (setting, Standing::Broken, trouble),
                None => (setting, Standing::Kept, kept),
            }
        }
    }
}

fn security_log(config: &Config, evidence: &Evidence<'_>) -> Promise {
    let (setting, standing, detail) = match (&config.log.security, evidence.security_log) {
        (SecurityLog::Stdout, _) => ("stdout".to_owned(), Standing::Elsewhere, "whoever collects it has to erase it"),
        (SecurityLog::File(_), trouble) => (
            format!("a file, privacy.security_log_retention = {}d", config.privacy.security_log_days),
            if trouble.is_some() { Standing::Broken } else { Standing::Kept },
            trouble.unwrap_or("a day's file is erased"),
        ),
    };
    Promise {
        name: PROMISES[12],
        promise: "the security log is kept no longer than needed",
        setting: format!("log.security: {setting}"),
        standing,
        seen_at: Some(evidence.now),
        detail: detail.to_owned(),
    }
}

fn retention(config: &Config, evidence: &Evidence<'_>) -> Promise {
    let last = evidence.proofs.iter().find(|proof| proof.name == RETENTION_PROOF);
    let (standing, detail) = match last {
        None => (Standing::Overdue, "no round was noted yet".to_owned()),
        Some(proof) if evidence.now.since(proof.at) > RETENTION_SEEN => (Standing::Overdue, proof.detail.clone()),
        Some(proof) if !proof.ok => (Standing::Overdue, proof.detail.clone()),
        Some(_) if is_unscrubbed(config, evidence) => (
            Standing::Overdue,
            "what ended sessions and codes left is not gone from the store's file in time".to_owned(),
        ),
        Some(proof) => (Standing::Kept, proof.detail.clone()),
    };
    Promise {
        name: PROMISES[2],
        promise: "what is old enough is erased",
        setting: format!(
            "binding.retention = {}d, privacy.sessions_retention = {}d, privacy.codes_retention = {}d",
            config.binding.retention_days, config.privacy.sessions_days, config.privacy.codes_days
        ),
        standing,
        seen_at: last.map(|proof| proof.at),
        detail,
    }
}

fn canary(evidence: &Evidence<'_>) -> Promise {
    let last = evidence.proofs.iter().find(|proof| proof.name == CANARY_PROOF);
    let (standing, detail) = match last {
        None => (Standing::Overdue, "no canary was searched for yet".to_owned()),
        Some(proof) if !proof.ok => (Standing::Broken, proof.detail.clone()),
        Some(proof) if evidence.now.since(proof.at) > CANARY_SEEN => (Standing::Overdue, proof.detail.clone()),
        Some(proof) => (Standing::Kept, proof.detail.clone()),
    };
    Promise {
        name: PROMISES[11],
        promise: "no identifier stands in a file",
        setting: String::new(),
        standing,
        seen_at: last.map(|proof| proof.at),
        detail,
    }
}

/// Whether what ended has been in the file for longer than `config` lets it, and a round or two more.
fn is_unscrubbed(config: &Config, evidence: &Evidence<'_>) -> bool {
    let days = config.privacy.sessions_days.min(config.privacy.codes_days);
    let most = (DAY * days).saturating_add(RETENTION_SEEN);
    evidence.scrubbed_at.is_none_or(|at| evidence.now.since(at) > most)
}

/// Whether a key in use is older than it should be, and how old they are.
fn key_age(periods: &KeyPeriods, evidence: &Evidence<'_>) -> (Standing, String) {
    let active = evidence.keys.iter().filter(|key| key.state == KeyState::Active);
    let (mut standing, mut ages) = (Standing::Kept, Vec::new());
    for key in active {
        let age = evidence.now.since(key.dates.activated_at.unwrap_or(key.created_at));
        let most = match key.purpose {
            KeyPurpose::Binding => None,
            KeyPurpose::Session => Some(periods.session_rotate),
            KeyPurpose::Assertion => Some(periods.assertion_rotate),
            KeyPurpose::Audit => Some(periods.audit_rotate),
        };
        if most.is_some_and(|most| age > most.saturating_add(GRACE)) {
            standing = Standing::Overdue;
        }
        ages.push(format!("{} {}d", key.id, days(age)));
    }
    (standing, ages.join(", "))
}

fn is_late(rotation: &RotationRecord, now: Timestamp) -> bool {
    let open = !matches!(rotation.state, RotationState::Done | RotationState::Aborted);
    open && rotation.purpose == KeyPurpose::Binding && now.day() > rotation.drain_by
}

fn is_leaked(key: &KeyRecord) -> bool {
    key.compromised && matches!(key.state, KeyState::Active | KeyState::Retiring | KeyState::Inner)
}

fn ids<'i>(all: impl Iterator<Item = &'i String>) -> String {
    all.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn periods(periods: &KeyPeriods) -> String {
    let KeyPeriods { assertion_rotate, session_rotate, audit_rotate, .. } = periods;
    format!(
        "assertion {}d, session {}d, audit {}d",
        days(*assertion_rotate),
        days(*session_rotate),
        days(*audit_rotate)
    )
}

const fn days(time: Duration) -> u64 {
    time.as_secs() / 86_400
}

const fn transport(setting: TransportSetting) -> &'static str {
    match setting {
        TransportSetting::Auto => "auto",
        TransportSetting::Cookie => "cookie",
        TransportSetting::Url => "url",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Day;
    use crate::store::KeyDates;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_795_530_117_042);

    fn config(transport: &str) -> Config {
        parsed(&config_text(transport))
    }

    fn parsed(text: &str) -> Config {
        Config::parse(text, Path::new("t.toml")).unwrap().0
    }

    fn config_text(transport: &str) -> String {
        format!(
            "[gateway]\npublic_url = \"http://a.example\"\n[[listener]]\nserves = \"handset\"\naddress = \"127.0.0.1:0\"\n\
             [admin]\nsocket = \"s\"\n[carriers.au]\nnetworks = [\"127.0.2.0/24\"]\n[store]\npath = \"t\"\n\
             [session]\ntransport = \"{transport}\"\n[keys]\nkek = {{ file = \"k\" }}\n[log]\naccess = {{ to = \"off\" }}\n\
             [notice]\ncontroller = \"E\"\ncontact = \"https://e.example\"\nrevision = \"2026-11-23\"\n"
        )
    }

    fn key(id: &str, purpose: KeyPurpose, state: KeyState, days: u64, compromised: bool) -> KeyRecord {
        KeyRecord {
            id: id.to_owned(),
            purpose,
            state,
            suspended: false,
            compromised,
            wrapped: vec![],
            commitment: [0; 32],
            public: None,
            created_at: NOW.minus(Duration::from_hours(24 * days)),
            dates: KeyDates::default(),
        }
    }

    fn rotation(state: RotationState, drain_by: Day) -> RotationRecord {
        RotationRecord::new("r1", KeyPurpose::Binding, "k1", "k2", state, NOW, drain_by)
    }

    fn proof(name: &str, age: Duration, ok: bool) -> Proof {
        Proof { name: name.into(), at: NOW.minus(age), ok, detail: "bindings 0".into() }
    }

    /// All as it should be.
    fn fresh() -> [Proof; 2] {
        [RETENTION_PROOF, CANARY_PROOF].map(|name| proof(name, Duration::ZERO, true))
    }

    /// The names of what somebody has to look after.
    fn bad<'e>(config: &Config, proofs: &'e [Proof], change: impl FnOnce(&mut Evidence<'e>)) -> Vec<&'static str> {
        let mut evidence = Evidence {
            now: NOW,
            started_at: NOW,
            unforgeable: true,
            keys: &[],
            rotations: &[],
            proofs,
            scrubbed_at: Some(NOW.minus(DAY)),
            access_log: None,
            security_log: None,
            unfinished: 0,
            notice_doubt: None,
        };
        change(&mut evidence);
        let stand = posture(config, &evidence);
        assert_eq!(stand.iter().map(|promise| promise.name).collect::<Vec<_>>(), PROMISES);
        stand.iter().filter(|promise| promise.standing.is_bad()).map(|promise| promise.name).collect()
    }

    #[test]
    fn each_promise_is_bad_for_its_own_reason_alone() {
        let (ours, fresh) = (config("auto"), fresh());
        assert_eq!(bad(&ours, &fresh, |_| {}), [""; 0]);
        assert_eq!(bad(&config("cookie"), &fresh, |_| {}), ["cookies"]);
        assert_eq!(bad(&ours, &fresh, |e| e.unforgeable = false), ["sign-in-only"]);
        assert_eq!(bad(&ours, &fresh, |e| e.unfinished = 1), ["erasure"]);
        let log_in_file = parsed(&config_text("auto").replace("to = \"off\"", "file = \"a\""));
        assert_eq!(bad(&log_in_file, &fresh, |_| {}), [""; 0]);
        assert_eq!(bad(&log_in_file, &fresh, |e| e.access_log = Some("lost")), ["access-log"]);
        let text = config_text("auto").replace("[log]\n", "[log]\nsecurity = { file = \"s\" }\n");
        let security_in_file = parsed(&text);
        assert_eq!(bad(&security_in_file, &fresh, |_| {}), [""; 0]);
        assert_eq!(bad(&security_in_file, &fresh, |e| e.security_log = Some("lost")), ["security-log"]);
        assert_eq!(bad(&ours, &fresh, |e| e.notice_doubt = Some("another")), ["notice"]);
        for (index, name, most) in [(0, "retention", 2), (1, "canary", 26)] {
            let [seen, other] = [index, 1 - index].map(|index| fresh[index].clone());
            let old = |hours| vec![other.clone(), proof(&seen.name, Duration::from_hours(hours), true)];
            let failed = vec![other.clone(), proof(&seen.name, Duration::ZERO, false)];
            for proofs in [vec![other.clone()], old(most + 1), failed] {
                assert_eq!(bad(&ours, &proofs, |_| {}), [name]);
            }
            assert_eq!(bad(&ours, &old(most), |_| {}), [""; 0]);
        }
        for at in [None, Some(NOW.minus(DAY + RETENTION_SEEN * 2))] {
            assert_eq!(bad(&ours, &fresh, |e| e.scrubbed_at = at), ["retention"]);
        }
    }

    #[test]
    fn keys_are_judged_by_age_and_by_what_leaked() {
        let (ours, fresh) = (config("auto"), fresh());
        for (key, expected) in [
            (key("s1", KeyPurpose::Session, KeyState::Active, 91, false), vec![]),
            (key("s1", KeyPurpose::Session, KeyState::Active, 93, false), vec!["key-age"]),
            (key("s1", KeyPurpose::Session, KeyState::Retiring, 93, false), vec![]),
            (key("k1", KeyPurpose::Binding, KeyState::Active, 900, false), vec![]),
            (key("k1", KeyPurpose::Binding, KeyState::Inner, 9, true), vec!["leaked-keys"]),
            (key("k1", KeyPurpose::Binding, KeyState::Drained, 9, true), vec![]),
        ] {
            let keys = [key];
            assert_eq!(bad(&ours, &fresh, |e| e.keys = &keys), expected);
        }
        let (yesterday, today) = (NOW.day().minus_days(1), NOW.day());
        for (state, drain_by, late) in [
            (RotationState::Draining, today, false),
            (RotationState::Draining, yesterday, true),
            (RotationState::Done, yesterday, false),
        ] {
            let rotations = [rotation(state, drain_by)];
            assert_eq!(bad(&ours, &fresh, |e| e.rotations = &rotations) == ["rotation"], late, "{state:?}");
        }
    }
}
