//! Who may use which verb: the kernel's word (`SO_PEERCRED`) on the socket, a certificate's name over TLS, roles from the
//! configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, MatchedPath};
use http::request::Parts;

use super::refused::Refused;
use crate::config::{CertificateName, ClientAddressDetail, Principal, Role};
use crate::telemetry::{Actor, SecurityEvent, security};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine, as the kernel says (`SO_PEERCRED`, unix(7)).
    Socket {
        /// Effective user id.
        uid: u32,
        /// Effective group id.
        gid: u32,
    },
    /// Whom a client certificate names, which the handshake has verified.
    Certificate(CertificateName),
}

/// As logs name it: `uid:1001`, `cert:alice`.
impl From<Peer> for Actor {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Socket { uid, .. } => Self::Uid(uid),
            Peer::Certificate(name) => Self::Certificate(name),
        }
    }
}

/// The roles that were given out.
#[derive(Clone, Debug)]
pub struct Roles {
    own_uid: u32,
    given: BTreeMap<Role, Vec<Principal>>,
}

impl Roles {
    /// The configured roles. The gateway's own uid and root hold every role beside them, on the socket alone.
    #[must_use]
    pub const fn new(own_uid: u32, given: BTreeMap<Role, Vec<Principal>>) -> Self {
        Self { own_uid, given }
    }

    /// Whether `peer` holds `role`.
    #[must_use]
    pub fn holds(&self, peer: Peer, role: Role) -> bool {
        let trusted = matches!(peer, Peer::Socket { uid, .. } if uid == 0 || uid == self.own_uid);
        trusted || self.given.get(&role).is_some_and(|given| given.iter().any(|p| matches(p, peer)))
    }
}

fn matches(principal: &Principal, peer: Peer) -> bool {
    match (principal, peer) {
        (Principal::Uid(given), Peer::Socket { uid, .. }) => *given == uid,
        (Principal::Gid(given), Peer::Socket { gid, .. }) => *given == gid,
        (Principal::Certificate(given), Peer::Certificate(name)) => *given == name,
        (Principal::Uid(_) | Principal::Gid(_), Peer::Certificate(_))
        | (Principal::Certificate(_), Peer::Socket { .. }) => false,
    }
}

/// Declares extractors: proof that the caller holds the role, and who it is. The first argument of a handler, so
/// that nothing else of the request is judged before.
macro_rules! holders {
    ($($(#[$doc:meta])* $name:ident: $word:literal;)+) => {$(
        $(#[$doc])*
        pub(super) struct $name(pub(super) Actor);

        impl<S: Send + Sync> FromRequestParts<S> for $name
        where
            Arc<Roles>: FromRef<S>,
        {
            type Rejection = Refused;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
                holder(parts, &Arc::<Roles>::from_ref(state), &[Role::$name], $word).map(Self)
            }
        }
    )+};
}

holders! {
    /// Holds [`Role::Operator`].
    Operator: "operator";
    /// Holds [`Role::Security`].
    Security: "security";
    /// Holds [`Role::Privacy`].
    Privacy: "privacy";
}

/// Proof that the caller may read what waits for people: holds [`Role::Security`], [`Role::Privacy`] or [`Role::Auditor`].
pub(super) struct ApprovalReader;

impl<S: Send + Sync> FromRequestParts<S> for ApprovalReader
where
    Arc<Roles>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let any = [Role::Security, Role::Privacy, Role::Auditor];
        holder(parts, &Arc::<Roles>::from_ref(state), &any, "security, privacy or auditor").map(|_| Self)
    }
}

/// Proof that the caller may read the policy: holds [`Role::Privacy`] or [`Role::Auditor`].
pub(super) struct PolicyReader;

impl<S: Send + Sync> FromRequestParts<S> for PolicyReader
where
    Arc<Roles>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let any = [Role::Privacy, Role::Auditor];
        holder(parts, &Arc::<Roles>::from_ref(state), &any, "privacy or auditor").map(|_| Self)
    }
}

/// Proof that the caller may read sealed logs: holds [`Role::Privacy`] or [`Role::Auditor`], and who it is.
pub(super) struct LogReader(pub(super) Actor);

impl<S: Send + Sync> FromRequestParts<S> for LogReader
where
    Arc<Roles>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let any = [Role::Privacy, Role::Auditor];
        holder(parts, &Arc::<Roles>::from_ref(state), &any, "privacy or auditor").map(Self)
    }
}

/// Proof that the caller may answer what waits for people, of some kind: holds [`Role::Security`] or [`Role::Privacy`].
pub(super) struct Decider {
    /// Who it is.
    pub(super) by: Actor,
    /// Whether what is about keys is for them.
    pub(super) of_keys: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Decider
where
    Arc<Roles>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let roles = Arc::<Roles>::from_ref(state);
        let by = holder(parts, &roles, &[Role::Security, Role::Privacy], "security or privacy")?;
        let of_keys = parts.extensions.get::<Peer>().is_some_and(|peer| roles.holds(*peer, Role::Security));
        Ok(Self { by, of_keys })
    }
}

/// Proof that the caller holds [`Role::Security`] or, to look on, [`Role::Auditor`], and who it is.
pub(super) struct SecurityReader(pub(super) Actor);

impl<S: Send + Sync> FromRequestParts<S> for SecurityReader
where
    Arc<Roles>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let any = [Role::Security, Role::Auditor];
        holder(parts, &Arc::<Roles>::from_ref(state), &any, "security or auditor").map(Self)
    }
}

/// Proof that the caller holds a role, whichever.
pub(super) struct AnyRole;

impl<S: Send + Sync> FromRequestParts<S> for AnyRole
where
    Arc<Roles>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let any = [Role::Operator, Role::Security, Role::Privacy, Role::Auditor];
        holder(parts, &Arc::<Roles>::from_ref(state), &any, "operator, security, privacy or auditor").map(|_| Self)
    }
}

fn holder(parts: &Parts, roles: &Roles, any: &[Role], word: &'static str) -> Result<Actor, Refused> {
    // Without a peer it came over no connection of ours, and holds nothing.
    let peer = *parts.extensions.get::<Peer>().ok_or(Refused::RoleRequired(word))?;
    let by = Actor::from(peer);
    if any.iter().any(|role| roles.holds(peer, *role)) {
        return Ok(by);
    }
    // As the API describes it: what somebody may not ask for is not to be read in a log either.
    let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let verb = format!("{} {path}", parts.method);
    security(&SecurityEvent::RoleRefused { by, verb: &verb }, None, ClientAddressDetail::None);
    Err(Refused::RoleRequired(word))
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

    const ALL: [Role; 4] = [Role::Operator, Role::Security, Role::Privacy, Role::Auditor];

    fn name(text: &str) -> CertificateName {
        CertificateName::parse(text).unwrap()
    }

    #[test]
    fn strangers_hold_nothing_and_each_principal_what_it_was_given() {
        let roles = Roles::new(
            500,
            BTreeMap::from([
                (Role::Operator, vec![Principal::Uid(1001), Principal::Gid(20)]),
                (Role::Auditor, vec![Principal::Certificate(name("1001")), Principal::Certificate(name("alice"))]),
                (Role::Security, vec![Principal::Certificate(name("alice"))]),
            ]),
        );
        let held = |peer| ALL.into_iter().filter(|role| roles.holds(peer, *role)).collect::<Vec<_>>();
        let socket = |uid, gid| held(Peer::Socket { uid, gid });
        assert_eq!(socket(0, 0).len(), 4);
        assert_eq!(socket(500, 1).len(), 4);
        assert_eq!(socket(1001, 1), [Role::Operator]);
        assert_eq!(socket(7, 20), [Role::Operator]);
        assert_eq!(socket(7, 7), []);
        let certificate = |text| held(Peer::Certificate(name(text)));
        assert_eq!(certificate("alice"), [Role::Security, Role::Auditor]);
        assert_eq!(certificate("1001"), [Role::Auditor]);
        for nobody in ["0", "500", "root", "Alice", "alice@ops"] {
            assert_eq!(certificate(nobody), [], "{nobody}");
        }
    }

    #[tokio::test]
    async fn only_an_operator_reaches_a_handler() {
        let given = vec![Principal::Uid(1001), Principal::Certificate(name("alice"))];
        let roles = Arc::new(Roles::new(500, BTreeMap::from([(Role::Operator, given)])));
        let router = Router::new().route("/", get(async |Operator(by): Operator| by.to_string())).with_state(roles);
        for (peer, status, body) in [
            (Some(Peer::Socket { uid: 1001, gid: 1 }), 200, "uid:1001"),
            (Some(Peer::Certificate(name("alice"))), 200, "cert:alice"),
            (Some(Peer::Socket { uid: 1002, gid: 1 }), 403, "role-required"),
            (Some(Peer::Certificate(name("bob"))), 403, "role-required"),
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
