//! The policy as a document: what `policy show` prints, and what changed between two of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::periods::Periods;
use super::register::REGISTER;
use super::tongue::Tongue;
use crate::config::{AccessLog, ClientAddressDetail, Config, SecurityLog};

/// The policy in force: settings, and every purpose.
#[must_use]
pub fn policy(config: &Config, tongue: Tongue) -> Value {
    let periods = Periods::of(config);
    let purposes: BTreeMap<&str, Value> = REGISTER
        .iter()
        .map(|purpose| {
            let shown = json!({
                "what": purpose.what.say(tongue),
                "fields": purpose.fields,
                "purpose": purpose.purpose.say(tongue),
                "retention": purpose.kept.say(&periods, tongue),
                "legal": purpose.ground.text().say(tongue),
                "personal": purpose.personal(),
            });
            (purpose.kind, shown)
        })
        .collect();
    json!({
        "language": tongue.tag(),
        "notice": {
            "controller": config.notice.controller,
            "contact": config.notice.contact,
            "revision": config.notice.revision,
        },
        "settings": settings(config),
        "purposes": purposes,
    })
}

/// What of the configuration decides about data of persons, by its key.
fn settings(config: &Config) -> BTreeMap<String, Value> {
    let seconds = |time: Duration| json!(format!("{}s", time.as_secs()));
    let days = |days: u32| json!(format!("{days}d"));
    let enabled = config.carriers.profiles().iter().filter(|profile| profile.enabled());
    let reads = enabled.map(|profile| {
        let header = profile.header().map(ToString::to_string);
        (format!("carriers.{}.header", profile.name()), json!(header))
    });
    let access = match &config.log.access {
        AccessLog::Off => "off",
        AccessLog::Stdout => "stdout",
        AccessLog::File(_) if config.log.sealed => "file, sealed",
        AccessLog::File(_) => "file",
    };
    let security = match &config.log.security {
        SecurityLog::Stdout => "stdout",
        SecurityLog::File(_) => "file",
    };
    let client = match config.privacy.client_address {
        ClientAddressDetail::Full => "full",
        ClientAddressDetail::Prefix => "prefix",
        ClientAddressDetail::None => "none",
    };
    [
        ("admin.approvals", json!(config.admin.approvals)),
        ("binding.retention", days(config.binding.retention_days)),
        ("log.access", json!(access)),
        ("log.security", json!(security)),
        ("privacy.access_log_retention", days(config.privacy.access_log_days)),
        ("privacy.audit_retention", config.privacy.audit_retention_days.map_or_else(|| json!("for ever"), days)),
        ("privacy.client_address", json!(client)),
        ("privacy.codes_retention", days(config.privacy.codes_days)),
        ("privacy.security_log_retention", days(config.privacy.security_log_days)),
        ("privacy.sessions_retention", days(config.privacy.sessions_days)),
        ("privacy.statistics_floor", json!(config.privacy.statistics_floor)),
        ("privacy.statistics_retention", days(config.privacy.statistics_days)),
        ("session.absolute", seconds(config.session.absolute)),
        ("session.idle", seconds(config.session.idle)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .chain(reads)
    .collect()
}

/// Something that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Where: `purposes.bindings.retention`.
    pub at: String,
    /// What stood there; null where nothing did.
    pub was: Value,
    /// What stands there now; null where nothing does.
    pub is: Value,
}

/// What changed from `old` to `new`, two documents of `policy show`.
#[must_use]
pub fn changes(old: &Value, new: &Value) -> Vec<PolicyChange> {
    let mut found = Vec::new();
    compare("", old, new, &mut found);
    found
}

fn compare(at: &str, old: &Value, new: &Value, found: &mut Vec<PolicyChange>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            for name in new.keys().chain(gone) {
                let place = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                compare(&place, old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null), found);
            }
        }
        _ if old == new => {}
        _ => found.push(PolicyChange { at: at.to_owned(), was: old.clone(), is: new.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_where_it_stands() {
        let old = json!({"a": {"b": 1, "gone": 2, "same": [1]}, "c": null});
        let new = json!({"a": {"b": 3, "same": [1], "new": {"d": 4}}, "c": null});
        let told: Vec<_> = changes(&old, &new).into_iter().map(|c| (c.at, c.was, c.is)).collect();
        assert_eq!(
            told,
            [
                ("a.b".to_owned(), json!(1), json!(3)),
                ("a.new".to_owned(), json!(null), json!({"d": 4})),
                ("a.gone".to_owned(), json!(2), json!(null)),
            ]
        );
        assert!(changes(&new, &new).is_empty());
    }
}
