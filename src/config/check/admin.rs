//! `[admin]`.

use std::collections::{BTreeMap, BTreeSet};

use super::values::Context;
use crate::config::certificate_name::CertificateName;
use crate::config::document::join;
use crate::config::raw::{self, Table};
use crate::config::types::{AdminConfig, ListenerConfig, Principal, Role, Serves};

const DEFAULT_SOCKET: &str = "run/admin.sock";

/// `sockaddr_un.sun_path` holds 108 bytes, the last of them zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

const GROUPS: &str = "/etc/group";

pub(super) fn check(raw: Option<Table<raw::Admin>>, listeners: &[ListenerConfig], cx: &mut Context) -> AdminConfig {
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

    let people = people(raw.people.unwrap_or_default(), &roles, cx);
    certificates_to_show(&roles, listeners, cx);
    let approvals = cx.number("admin.approvals", raw.approvals, 1, 1..=9);
    let approvers = approvers(roles.get(&Role::Security).map_or(&[], Vec::as_slice), &people);
    if approvals > 1 && approvers < usize::try_from(approvals).unwrap_or(usize::MAX) && !cx.report.names("admin.roles")
    {
        cx.report.error(
            "admin.approvals",
            format_args!(
                "{approvals} people must approve, but admin.roles.security names {approvers} (a group names nobody, and root \
                 is no approver); add \"uid:…\" or \"cert:…\""
            ),
        );
    }
    AdminConfig { socket, approvals, people, roles }
}

/// Which principals are one person. Without it every principal counts as a person of its own.
fn people(
    written: BTreeMap<String, Vec<String>>,
    roles: &BTreeMap<Role, Vec<Principal>>,
    cx: &mut Context,
) -> BTreeMap<String, Vec<Principal>> {
    let mut people = BTreeMap::new();
    let mut whose: Vec<(Principal, String)> = Vec::new();
    for (name, written) in written {
        let key = join("admin.people", &name);
        if CertificateName::parse(&name).is_none() {
            cx.report.error(&key, "a person is named by 1 to 64 visible ASCII characters without a colon");
        }
        let principals = principals(&key, &written, cx);
        for principal in &principals {
            if matches!(principal, Principal::Gid(_)) {
                cx.report.error(&key, "a group is not one person; write \"uid:…\" or \"cert:…\"");
            }
            if let Some((_, other)) = whose.iter().find(|(known, _)| known == principal) {
                cx.report.error(&key, format_args!("somebody is two people: see also {other}"));
            }
            whose.push((principal.clone(), key.clone()));
        }
        // Approvals are listed by these names.
        let namesake = CertificateName::parse(&name).map(Principal::Certificate);
        let namesake = namesake.filter(|namesake| !principals.contains(namesake));
        if namesake.is_some_and(|namesake| roles.values().flatten().any(|principal| *principal == namesake)) {
            cx.report.error(
                &key,
                format_args!("is not who \"cert:{name}\" in admin.roles is; give this person another name"),
            );
        }
        people.insert(name, principals);
    }
    people
}

/// A certificate can be shown at an admin listener, and there nothing else can.
fn certificates_to_show(roles: &BTreeMap<Role, Vec<Principal>>, listeners: &[ListenerConfig], cx: &mut Context) {
    let holds = roles.values().flatten().any(|principal| matches!(principal, Principal::Certificate(_)));
    match listeners.iter().position(|listener| listener.serves == Serves::Admin) {
        Some(index) if !holds => cx.report.warning(
            &format!("listener[{index}].serves"),
            "serves nobody: no \"cert:NAME\" in admin.roles has a role there",
        ),
        None if holds && !cx.report.names("listener") => cx.report.warning(
            "admin.roles",
            "names a certificate, but no [[listener]] that serves \"admin\" takes one; add it or write \"uid:…\"",
        ),
        _ => {}
    }
}

/// How many different people may approve. A group may be empty, and root approves nothing (§2 of the contract).
fn approvers(security: &[Principal], people: &BTreeMap<String, Vec<Principal>>) -> usize {
    let named = security.iter().filter(|principal| !matches!(principal, Principal::Uid(0) | Principal::Gid(_)));
    let person = |principal: &Principal| {
        let person = people.iter().find(|(_, principals)| principals.contains(principal));
        person.map_or_else(|| principal.to_string(), |(name, _)| name.clone())
    };
    named.map(person).collect::<BTreeSet<_>>().len()
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
        "cert" => CertificateName::parse(name).map(Principal::Certificate).ok_or_else(|| {
            "cert: is followed by the name in a client certificate: 1 to 64 visible ASCII characters without a colon"
                .to_owned()
        }),
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
        assert_eq!(
            principal("cert:alice@ops"),
            Ok(Principal::Certificate(CertificateName::parse("alice@ops").unwrap()))
        );
        for text in
            ["", "alice", "uid:", "uid:alice", "uid:+1", "uid:4294967296", "gid:", "cert:", "cert:a b", "user:1"]
        {
            assert!(principal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_different_people_count() {
        let alice = || Principal::Certificate(CertificateName::parse("alice").unwrap());
        let nobody = BTreeMap::new();
        assert_eq!(approvers(&[alice(), alice(), Principal::Uid(0), Principal::Gid(5)], &nobody), 1);
        assert_eq!(approvers(&[alice(), Principal::Uid(1001)], &nobody), 2);
        let known = BTreeMap::from([("alice".to_owned(), vec![Principal::Uid(1001), alice()])]);
        assert_eq!(approvers(&[alice(), Principal::Uid(1001)], &known), 1);
        assert_eq!(approvers(&[alice(), Principal::Uid(1002)], &known), 2);
    }
}
