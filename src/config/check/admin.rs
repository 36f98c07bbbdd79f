//! `[admin]`.

use std::collections::{BTreeMap, BTreeSet};

use super::values::Context;
use crate::config::raw::{self, Table};
use crate::config::types::{AdminConfig, Principal, Role};

const DEFAULT_SOCKET: &str = "run/admin.sock";

/// `sockaddr_un.sun_path` holds 108 bytes, the last of them zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

const GROUPS: &str = "/etc/group";

pub(super) fn check(raw: Option<Table<raw::Admin>>, cx: &mut Context) -> AdminConfig {
    let Table(raw) = raw.unwrap_or_default();
    let socket = cx.path("admin.socket", Some(raw.socket.as_deref().unwrap_or(DEFAULT_SOCKET))).unwrap_or_default();
    if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
        let problem = format!("the path of a socket holds at most {LONGEST_SOCKET_PATH} bytes, folder included");
        cx.report.error("admin.socket", problem);
    }
    let Table(roles) = raw.roles.unwrap_or_default();
    let roles: BTreeMap<Role, Vec<Principal>> = [
        (Role::Operator, "admin.roles.operator", roles.operator),
        (Role::Security, "admin.roles.security", roles.security),
        (Role::Privacy, "admin.roles.privacy", roles.privacy),
        (Role::Auditor, "admin.roles.auditor", roles.auditor),
    ]
    .into_iter()
    .map(|(role, key, written)| (role, principals(key, &written.unwrap_or_default(), cx)))
    .filter(|(_, principals)| !principals.is_empty())
    .collect();

    let approvals = cx.number("admin.approvals", raw.approvals, 1, 1..=9);
    let people = people(roles.get(&Role::Security).map_or(&[], Vec::as_slice));
    if approvals > 1 && people < usize::try_from(approvals).unwrap_or(usize::MAX) && !cx.report.names("admin.roles") {
        cx.report.error(
            "admin.approvals",
            format_args!(
                "{approvals} people must approve, but admin.roles.security names {people} (a group names nobody, and root \
                 is no approver); add \"uid:…\" or \"cert:…\""
            ),
        );
    }
    AdminConfig { socket, roles }
}

/// How many different people may approve. A group may be empty, and root approves nothing (§2 of the contract).
fn people(security: &[Principal]) -> usize {
    let named = security.iter().filter_map(|principal| match principal {
        Principal::Uid(0) | Principal::Gid(_) => None,
        Principal::Uid(uid) => Some(format!("uid:{uid}")),
        Principal::Certificate(name) => Some(format!("cert:{name}")),
    });
    named.collect::<BTreeSet<_>>().len()
}

fn principals(key: &str, written: &[String], cx: &mut Context) -> Vec<Principal> {
    let entries = written.iter().enumerate();
    entries.filter_map(|(index, text)| cx.read(&format!("{key}[{index}]"), Some(text), principal)).collect()
}

fn principal(text: &str) -> Result<Principal, String> {
    const FORMS: &str = "must be \"uid:1001\", \"gid:GROUP\" or \"cert:NAME\"";
    let (kind, name) = text.split_once(':').ok_or(FORMS)?;
    let number = || name.parse().ok().filter(|_| name.bytes().all(|b| b.is_ascii_digit()));
    match kind {
        "uid" => {
            number().map(Principal::Uid).ok_or_else(|| "uid: is followed by a number; id -u USER shows it".to_owned())
        }
        "gid" if number().is_some() => number().map(Principal::Gid).ok_or_else(|| FORMS.to_owned()),
        "gid" => {
            let groups = std::fs::read_to_string(GROUPS)
                .map_err(|error| format!("{GROUPS} cannot be read ({error}); write the group's number"))?;
            let id = group_id(&groups, name);
            id.map(Principal::Gid)
                .ok_or_else(|| format!("there is no group {name:?} in {GROUPS}; create it or write its number"))
        }
        "cert" if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Principal::Certificate(name.to_owned()))
        }
        "cert" => Err("cert: is followed by the subject name of a client certificate, without spaces".to_owned()),
        _ => Err(FORMS.to_owned()),
    }
}

/// The number of a group in the text of group(5).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name) && !name.is_empty()).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nwheel:x:998:alice,bob\n\nbroken\nodd:x:many:\n";
        for (name, id) in
            [("root", Some(0)), ("wheel", Some(998)), ("alice", None), ("broken", None), ("odd", None), ("", None)]
        {
            assert_eq!(group_id(groups, name), id, "{name}");
        }
    }

    #[test]
    fn principals_read() {
        assert_eq!(principal("uid:1001"), Ok(Principal::Uid(1001)));
        assert_eq!(principal("gid:0"), Ok(Principal::Gid(0)));
        assert_eq!(principal("gid:root"), Ok(Principal::Gid(0)));
        assert_eq!(principal("cert:alice@ops"), Ok(Principal::Certificate("alice@ops".into())));
        for text in
            ["", "alice", "uid:", "uid:alice", "uid:+1", "uid:4294967296", "gid:", "cert:", "cert:a b", "user:1"]
        {
            assert!(principal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_different_people_count() {
        let alice = || Principal::Certificate("alice".into());
        assert_eq!(people(&[alice(), alice(), Principal::Uid(0), Principal::Gid(5)]), 1);
        assert_eq!(people(&[alice(), Principal::Uid(1001)]), 2);
    }
}
