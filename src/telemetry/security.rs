//! The security stream: typed events, fixed field names.

use std::fmt;

use super::BindOutcome;
use super::client::ShownClient;
use crate::binding::AccountId;
use crate::carrier::CarrierName;
use crate::config::{CertificateName, ClientAddressDetail};
use crate::edge::ClientAddr;
use crate::refusal::Reason;

/// The `tracing` target of the stream.
pub(super) const TARGET: &str = "security";

/// Who caused an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The person with the handset, on the self-service page.
    Handset,
    /// The user id at the other end of the admin socket.
    Uid(u32),
    /// Whom the client certificate names at the admin listener.
    Certificate(CertificateName),
    /// A console, of a handset that its own login vouched for.
    Console,
    /// The gateway itself, by its retention rules.
    Retention,
    /// The gateway itself.
    Gateway,
    /// The gateway itself, when keys are due.
    Schedule,
    /// Whoever may send signals to the process, on this machine.
    Signal,
}

/// `handset`, `uid:1001`, `cert:alice`, `console`, `retention`, `gateway`, `schedule`, `signal`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handset => f.write_str("handset"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Certificate(name) => write!(f, "cert:{name}"),
            Self::Console => f.write_str("console"),
            Self::Retention => f.write_str("retention"),
            Self::Gateway => f.write_str("gateway"),
            Self::Schedule => f.write_str("schedule"),
            Self::Signal => f.write_str("signal"),
        }
    }
}

/// What was done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAction {
    /// It was made.
    Generated,
    /// It came into use.
    Activated,
    /// What needs it is refused.
    Suspended,
    /// That ended.
    Resumed,
    /// It has leaked.
    Compromised,
    /// It was wiped.
    Destroyed,
    /// It is wrapped under another KEK.
    Rewrapped,
    /// It came to its next state because it was due.
    Scheduled,
}

impl KeyAction {
    const fn event(self) -> &'static str {
        match self {
            Self::Generated => "key-generated",
            Self::Activated => "key-activated",
            Self::Suspended => "key-suspended",
            Self::Resumed => "key-resumed",
            Self::Compromised => "key-compromised",
            Self::Destroyed => "key-destroyed",
            Self::Rewrapped => "keys-rewrapped",
            Self::Scheduled => "key-scheduled",
        }
    }
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// It was asked for, and begins or waits.
    Started,
    /// It was stopped.
    Paused,
    /// It goes on.
    Resumed,
    /// It was given up before it began.
    Aborted,
    /// All records are under the new key.
    Draining,
    /// No record needs the old key.
    Done,
}

impl RotationStep {
    const fn event(self) -> &'static str {
        match self {
            Self::Started => "rotation-started",
            Self::Paused => "rotation-paused",
            Self::Resumed => "rotation-resumed",
            Self::Aborted => "rotation-aborted",
            Self::Draining => "rotation-draining",
            Self::Done => "rotation-done",
        }
    }
}

/// What the security team must see. There is no variant that takes a text from a stranger.
#[derive(Clone, Copy)]
pub enum SecurityEvent<'a> {
    /// A bound handset signed in.
    SignedIn {
        /// Whose it is.
        account: &'a AccountId,
        /// From which carrier.
        carrier: &'a CarrierName,
    },
    /// A handset was bound.
    Enrolled {
        /// To this account.
        account: &'a AccountId,
        /// From which carrier.
        carrier: &'a CarrierName,
    },
    /// The right PIN was typed in a session.
    SteppedUp {
        /// Whose it is.
        account: &'a AccountId,
        /// From which carrier.
        carrier: &'a CarrierName,
    },
    /// A series of wrong PINs was typed on one handset.
    WrongPins {
        /// Whose PIN was tried.
        account: &'a AccountId,
        /// The handset's carrier.
        carrier: &'a CarrierName,
        /// So many in a row.
        count: u32,
    },
    /// A person set a PIN.
    PinSet {
        /// Whose it is.
        account: &'a AccountId,
    },
    /// A PIN was taken away.
    PinRemoved {
        /// Whose it was.
        account: &'a AccountId,
        /// By whom.
        by: Actor,
    },
    /// A person signed out.
    SignedOut {
        /// Who.
        account: &'a AccountId,
    },
    /// A sign-in or an enrolment was refused.
    Refused {
        /// Why.
        reason: Reason,
        /// From which carrier, where that is known.
        carrier: Option<&'a CarrierName>,
    },
    /// An upstream said whose handset it is, and it was not bound.
    NotBoundByConsole {
        /// The upstream's name in the configuration.
        upstream: &'a str,
        /// Why not.
        outcome: BindOutcome,
        /// Whose it said, if that is an account id.
        account: Option<&'a AccountId>,
        /// From which carrier, where that is known.
        carrier: Option<&'a CarrierName>,
    },
    /// A session was used from another handset, carrier or network, and ended.
    DeviceMismatch {
        /// Whose session.
        account: &'a AccountId,
        /// The carrier that had signed in.
        carrier: &'a CarrierName,
    },
    /// A binding was erased.
    BindingRemoved {
        /// Whose it was.
        account: &'a AccountId,
        /// Of which carrier.
        carrier: &'a CarrierName,
        /// By whom.
        by: Actor,
    },
    /// Handsets were bound by an import, however it ended.
    BindingsImported {
        /// How many.
        count: u64,
        /// Lines that changed nothing.
        unchanged: u64,
        /// Lines that were not taken.
        refused: u64,
        /// By whom.
        by: Actor,
    },
    /// Sessions were ended.
    SessionsEnded {
        /// Whose they were, where all were one account's.
        account: Option<&'a AccountId>,
        /// How many.
        count: usize,
        /// By whom.
        by: Actor,
    },
    /// Handsets that were not used for too long were erased.
    BindingsErased {
        /// How many.
        count: usize,
    },
    /// An enrolment code was issued.
    CodeIssued {
        /// For whom.
        account: &'a AccountId,
        /// By whom.
        by: Actor,
    },
    /// An account was suspended.
    AccountSuspended {
        /// Which.
        account: &'a AccountId,
        /// By whom.
        by: Actor,
    },
    /// An account was let in again.
    AccountResumed {
        /// Which.
        account: &'a AccountId,
        /// By whom.
        by: Actor,
    },
    /// An account was erased with all that was its own; whose it was is not said any more.
    SubjectErased {
        /// By whom.
        by: Actor,
    },
    /// A key was made, or came to another state.
    KeyChanged {
        /// Its id, `a1`; `all` where every key was wrapped anew.
        id: &'a str,
        /// What was done to it.
        change: KeyAction,
        /// By whom.
        by: Actor,
    },
    /// Something was asked for that takes more than one person, or one of them answered.
    Approval {
        /// `approval-asked`, `approval-given` or `approval-denied`.
        event: &'static str,
        /// Which approval.
        approval: &'a str,
        /// What is to happen.
        action: &'static str,
        /// To what.
        object: &'a str,
        /// By whom.
        by: Actor,
    },
    /// A rotation of keys moved a step.
    Rotation {
        /// `r1`.
        id: &'a str,
        /// Which step.
        step: RotationStep,
        /// By whom; `None` where it came by itself.
        by: Option<Actor>,
    },
    /// Somebody at the admin API lacks the role for what they asked.
    RoleRefused {
        /// Who.
        by: Actor,
        /// What: a method and a path as the API describes it, `POST /v1/keys/{id}`, without what it was asked about.
        verb: &'a str,
    },
}

/// The fields that a line of the stream may have.
pub const SECURITY_FIELDS: &[&str] = &[
    "time",
    "stream",
    "level",
    "event",
    "account",
    "carrier",
    "reason",
    "upstream",
    "key",
    "approval",
    "action",
    "object",
    "client",
    "count",
    "unchanged",
    "refused",
    "rotation",
    "verb",
    "by",
];

/// Writes `event`, with the client's address cut to `detail`.
pub fn security(event: &SecurityEvent<'_>, client: Option<ClientAddr>, detail: ClientAddressDetail) {
    let fields = Fields::of(event);
    tracing::info!(
        target: TARGET,
        event = fields.event,
        account = fields.account.map(AccountId::as_str),
        carrier = fields.carrier.map(CarrierName::as_str),
        reason = fields.reason,
        upstream = fields.upstream,
        key = fields.key,
        approval = fields.approval,
        action = fields.action,
        object = fields.object,
        client = ShownClient::of(client, detail).map(tracing::field::display),
        count = fields.count,
        unchanged = fields.unchanged,
        refused = fields.refused,
        rotation = fields.rotation,
        verb = fields.verb,
        by = fields.by.map(tracing::field::display),
    );
}

#[derive(Default)]
struct Fields<'a> {
    event: &'static str,
    account: Option<&'a AccountId>,
    carrier: Option<&'a CarrierName>,
    reason: Option<&'static str>,
    upstream: Option<&'a str>,
    key: Option<&'a str>,
    approval: Option<&'a str>,
    action: Option<&'static str>,
    object: Option<&'a str>,
    count: Option<u64>,
    unchanged: Option<u64>,
    refused: Option<u64>,
    rotation: Option<&'a str>,
    verb: Option<&'a str>,
    by: Option<Actor>,
}

impl<'a> Fields<'a> {
    fn of(event: &SecurityEvent<'a>) -> Self {
        let none = Self::default();
        match *event {
            SecurityEvent::SignedIn { account, carrier } => {
                Self { event: "signed-in", account: Some(account), carrier: Some(carrier), ..none }
            }
            SecurityEvent::Enrolled { account, carrier } => {
                Self { event: "enrolled", account: Some(account), carrier: Some(carrier), ..none }
            }
            SecurityEvent::SteppedUp { account, carrier } => {
                Self { event: "stepped-up", account: Some(account), carrier: Some(carrier), ..none }
            }
            SecurityEvent::WrongPins { account, carrier, count } => Self {
                event: "wrong-pins",
                account: Some(account),
                carrier: Some(carrier),
                count: Some(u64::from(count)),
                ..none
            },
            SecurityEvent::PinSet { account } => {
                Self { event: "pin-set", account: Some(account), by: Some(Actor::Handset), ..none }
            }
            SecurityEvent::PinRemoved { account, by } => {
                Self { event: "pin-removed", account: Some(account), by: Some(by), ..none }
            }
            SecurityEvent::SignedOut { account } => Self { event: "signed-out", account: Some(account), ..none },
            SecurityEvent::Refused { reason, carrier } => {
                Self { event: "refused", reason: Some(reason.as_str()), carrier, ..none }
            }
            SecurityEvent::NotBoundByConsole { upstream, outcome, account, carrier } => Self {
                event: "not-bound-by-console",
                account,
                carrier,
                reason: Some(outcome.as_str()),
                upstream: Some(upstream),
                ..none
            },
            SecurityEvent::DeviceMismatch { account, carrier } => {
                Self { event: "device-mismatch", account: Some(account), carrier: Some(carrier), ..none }
            }
            SecurityEvent::BindingRemoved { account, carrier, by } => {
                Self { event: "binding-removed", account: Some(account), carrier: Some(carrier), by: Some(by), ..none }
            }
            SecurityEvent::BindingsImported { count, unchanged, refused, by } => {
                let (count, unchanged, refused) = (Some(count), Some(unchanged), Some(refused));
                Self { event: "bindings-imported", count, unchanged, refused, by: Some(by), ..none }
            }
            SecurityEvent::SessionsEnded { account, count, by } => {
                Self { event: "sessions-ended", account, count: Some(count as u64), by: Some(by), ..none }
            }
            SecurityEvent::BindingsErased { count } => {
                Self { event: "bindings-erased", count: Some(count as u64), by: Some(Actor::Retention), ..none }
            }
            SecurityEvent::CodeIssued { account, by } => {
                Self { event: "code-issued", account: Some(account), by: Some(by), ..none }
            }
            SecurityEvent::AccountSuspended { account, by } => {
                Self { event: "account-suspended", account: Some(account), by: Some(by), ..none }
            }
            SecurityEvent::AccountResumed { account, by } => {
                Self { event: "account-resumed", account: Some(account), by: Some(by), ..none }
            }
            SecurityEvent::SubjectErased { by } => Self { event: "subject-erased", by: Some(by), ..none },
            SecurityEvent::Approval { event, approval, action, object, by } => {
                let (approval, action, object) = (Some(approval), Some(action), Some(object));
                Self { event, approval, action, object, by: Some(by), ..none }
            }
            SecurityEvent::Rotation { id, step, by } => Self { event: step.event(), rotation: Some(id), by, ..none },
            SecurityEvent::KeyChanged { id, change, by } => {
                Self { event: change.event(), key: Some(id), by: Some(by), ..none }
            }
            SecurityEvent::RoleRefused { by, verb } => {
                Self { event: "role-refused", verb: Some(verb), by: Some(by), ..none }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use crate::binding::{EnrolmentCode, KeyRing, Pin};
    use crate::carrier::RawIdentifier;
    use crate::secret::SecretBytes;
    use crate::session::SessionToken;

    // `tracing` takes a field as `Value`, `Display` or `Debug`: a secret is none of them, so no macro can log it.
    assert_not_impl_any!(RawIdentifier: tracing::Value, std::fmt::Display, std::fmt::Debug);
    assert_not_impl_any!(SessionToken: tracing::Value, std::fmt::Display, std::fmt::Debug);
    assert_not_impl_any!(Pin: tracing::Value, std::fmt::Display, std::fmt::Debug);
    assert_not_impl_any!(EnrolmentCode: tracing::Value, std::fmt::Display, std::fmt::Debug);
    assert_not_impl_any!(SecretBytes: tracing::Value, std::fmt::Display, std::fmt::Debug);
    assert_not_impl_any!(KeyRing: tracing::Value, std::fmt::Display, std::fmt::Debug);
}
