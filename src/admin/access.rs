//! Who may use which verb: SO_PEERCRED on the socket, roles from the configuration.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Principal, Role};

/// Who is at the other end of the socket, as the kernel says (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The roles that were given out.
#[derive(Clone, Debug)]
pub struct Roles {
    own_uid: u32,
    given: BTreeMap<Role, Vec<Principal>>,
}

impl Roles {
    /// The configured roles. The gateway's own uid and root hold every role beside them.
    #[must_use]
    pub const fn new(own_uid: u32, given: BTreeMap<Role, Vec<Principal>>) -> Self {
        Self { own_uid, given }
    }

    /// The roles that `peer` holds; none means that it may do nothing.
    #[must_use]
    pub fn of(&self, peer: Peer) -> BTreeSet<Role> {
        const ALL: [Role; 4] = [Role::Operator, Role::Security, Role::Privacy, Role::Auditor];
        let trusted = peer.uid == 0 || peer.uid == self.own_uid;
        ALL.into_iter()
            .filter(|role| trusted || self.given.get(role).is_some_and(|p| p.iter().any(|p| matches(p, peer))))
            .collect()
    }
}

fn matches(principal: &Principal, peer: Peer) -> bool {
    match principal {
        Principal::Uid(uid) => *uid == peer.uid,
        Principal::Gid(gid) => *gid == peer.gid,
        Principal::Certificate(_) => false, // a socket shows no certificate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_hold_nothing_and_each_principal_what_it_was_given() {
        let roles = Roles::new(
            500,
            BTreeMap::from([
                (Role::Operator, vec![Principal::Uid(1001), Principal::Gid(20)]),
                (Role::Auditor, vec![Principal::Certificate("uid:7".to_owned())]),
            ]),
        );
        let of = |uid, gid| roles.of(Peer { uid, gid }).into_iter().collect::<Vec<_>>();
        assert_eq!(of(0, 0).len(), 4);
        assert_eq!(of(500, 1).len(), 4);
        assert_eq!(of(1001, 1), [Role::Operator]);
        assert_eq!(of(7, 20), [Role::Operator]);
        assert_eq!(of(7, 7), []);
    }
}
