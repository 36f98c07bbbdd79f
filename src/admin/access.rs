//! Who may use which verb: `SO_PEERCRED` on the socket, roles from the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::refused::Refused;
use crate::config::{ClientAddressDetail, Principal, Role};
use crate::telemetry::{Actor, SecurityEvent, security};

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

    /// Whether `peer` holds `role`.
    #[must_use]
    pub fn holds(&self, peer: Peer, role: Role) -> bool {
        let trusted = peer.uid == 0 || peer.uid == self.own_uid;
        trusted || self.given.get(&role).is_some_and(|given| given.iter().any(|p| matches(p, peer)))
    }
}

/// Proof that the caller holds [`Role::Operator`], and who it is. The first argument of a handler, so that nothing else
/// of the request is judged before.
pub(super) struct Operator(pub(super) Actor);

impl<S: Send + Sync> FromRequestParts<S> for Operator
where
    Arc<Roles>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        // Without a peer it did not come over the socket, and holds nothing.
        let peer = parts.extensions.get::<Peer>().copied().ok_or(Refused::RoleRequired("operator"))?;
        let by = Actor::Uid(peer.uid);
        if Arc::<Roles>::from_ref(state).holds(peer, Role::Operator) {
            Ok(Self(by))
        } else {
            security(&SecurityEvent::RoleRefused { by }, None, ClientAddressDetail::None);
            Err(Refused::RoleRequired("operator"))
        }
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
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

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
        let held = |uid, gid| {
            let all = [Role::Operator, Role::Security, Role::Privacy, Role::Auditor];
            all.into_iter().filter(|role| roles.holds(Peer { uid, gid }, *role)).collect::<Vec<_>>()
        };
        assert_eq!(held(0, 0).len(), 4);
        assert_eq!(held(500, 1).len(), 4);
        assert_eq!(held(1001, 1), [Role::Operator]);
        assert_eq!(held(7, 20), [Role::Operator]);
        assert_eq!(held(7, 7), []);
    }

    #[tokio::test]
    async fn only_an_operator_reaches_a_handler() {
        let roles = Arc::new(Roles::new(500, BTreeMap::from([(Role::Operator, vec![Principal::Uid(1001)])])));
        let router = Router::new().route("/", get(async |Operator(by): Operator| by.to_string())).with_state(roles);
        for (peer, status, body) in [
            (Some(Peer { uid: 1001, gid: 1 }), 200, "uid:1001"),
            (Some(Peer { uid: 1002, gid: 1 }), 403, "role-required"),
            (None, 403, "role-required"),
        ] {
            let mut request = Request::get("/").body(Body::empty()).unwrap();
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let answer = router.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{peer:?}");
            let said = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&said).contains(body), "{peer:?}");
        }
    }
}
