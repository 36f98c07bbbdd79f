//! Why a verb was refused, and the one place of the API that names a failure status.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use thiserror::Error;
use utoipa::IntoResponses;
use utoipa::openapi::{self, ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::documents::{Refusal, RefusalDetail};
use crate::audit::{Ends, Outcome};
use crate::binding::{AccountIdError, LabelError};
use crate::keys::{KekError, KeyRefusal, KeysError, LifecycleError};
use crate::privacy::SubjectError;
use crate::rotation::RotationError;
use crate::store::StoreError;
use crate::telemetry::NoLogChoice;
use crate::tls::NameError;

/// Why a verb was refused. No variant holds what the caller sent: an account id may be somebody's telephone number.
#[derive(Debug, Error)]
pub(super) enum Refused {
    #[error("this needs the role {0}; [admin.roles] in the configuration gives it to uid:…, gid:… or cert:…")]
    RoleRequired(&'static str),
    #[error("{0}; it must name one principal, as docs/configuration.md says")]
    CertificateName(NameError),
    #[error("the admin API takes no requests from web pages")]
    ForeignOrigin,
    #[error(transparent)]
    AccountInvalid(#[from] AccountIdError),
    #[error(transparent)]
    LogLevelInvalid(#[from] NoLogChoice),
    #[error(transparent)]
    LabelInvalid(#[from] LabelError),
    #[error("the account is under legal hold, or a hold was asked for and waits for people; `subject release` ends it")]
    SubjectHeld,
    #[error("the account is not under hold")]
    SubjectNotHeld,
    #[error("the rotation is {0}; its receipt is issued once the old key is drained")]
    ReceiptNotDue(&'static str),
    #[error(
        "no account, binding, session, key, rotation, approval or backup has that id; of what was erased nothing is left that \
         could tell"
    )]
    NotFound,
    #[error("the API has no such path; /openapi.json lists those it has")]
    NoSuchPath,
    #[error("that path does not take this method")]
    MethodNotAllowed,
    #[error(
        "the body is no JSON object of the fields that /openapi.json names for this verb (line {line}, column {column})"
    )]
    BodyMalformed { line: usize, column: usize },
    #[error("a body must be application/json, and say so once")]
    BodyNotJson,
    #[error("the body is longer than 64 KiB")]
    BodyTooLarge,
    #[error("the body did not come within 10 seconds")]
    BodyTooSlow,
    #[error("an Idempotency-Key is there once, with 1 to 128 visible ASCII characters")]
    IdempotencyKeyInvalid,
    #[error("that Idempotency-Key was used for another request; draw a new one")]
    IdempotencyKeyReused,
    #[error("the first request of that Idempotency-Key is still at work; ask again")]
    IdempotencyKeyBusy,
    #[error(
        "a reason is one line of 256 characters at most, and of one character at least where a key has leaked or an account is held"
    )]
    ReasonInvalid,
    #[error("an If-Match is one revision of the keys in quotes, such as \"12\", or *")]
    IfMatchInvalid,
    #[error("a key changed since you looked, or since this was asked for; look again, and ask again")]
    RevisionStale,
    #[error("a backup is being taken; ask again when it is done")]
    BackupBusy,
    #[error("a drill is under way; ask again when it is done")]
    DrillBusy,
    #[error("the drill was given up: no record of its copy was moved for a minute; the gateway's log says why")]
    DrillStalled,
    #[error("a drill copies the store beside it, which takes {needs} bytes on its disk; {free} are free")]
    NoSpace { needs: u64, free: u64 },
    #[error("the ledger of backups cannot be used; the gateway's log says why")]
    LedgerUnusable,
    #[error("{0}")]
    KeyState(KeyRefusal),
    #[error("{0}")]
    RotationLimit(String),
    #[error("only keys that sign, of the purposes assertion and audit, have a public half")]
    NoPublicHalf,
    #[error("the configuration, as it stands now, cannot be used; `sekisho check` says why")]
    ConfigurationUnusable,
    #[error("the configuration, as it stands now, cannot come into force; the former one holds")]
    ConfigurationUnsound(Vec<String>),
    #[error("the configuration names no keys.kek_next; docs/keys.md tells how a KEK is replaced")]
    NoNextKek,
    #[error("keys.kek_next cannot be used: {0}")]
    KekUnusable(KekError),
    #[error("the token that holds the KEK failed; look at the keys before you ask again: {0}")]
    KekFailed(KekError),
    #[error(
        "no key can be made while the token that holds the KEK fails, so the key that leaked is suspended, and who came in by it is \
         out; say it again once the token answers: {0}"
    )]
    FlaggedAlone(KekError),
    #[error("the keys are wrapped under keys.kek_next already; write it as keys.kek and remove keys.kek_next")]
    KekInUse,
    #[error("{0}")]
    RotationState(String),
    #[error("{0}")]
    WouldLoseBindings(String),
    #[error("{0}")]
    DrainWithinInvalid(String),
    #[error("{0} bindings still need the key; a rotation moves them")]
    KeyInUse(u64),
    #[error("you have approved this; it takes another person")]
    AlreadyApproved,
    #[error("the approval has ended: carried out, denied, or too late; `sekisho approvals list` shows how")]
    ApprovalEnded,
    #[error(
        "you are no approver: that takes an entry of your own uid (not root's, not the gateway's) or certificate in \
         admin.roles.security"
    )]
    NoApprover,
    #[error("the store cannot be used, so nothing is acknowledged; the gateway's log says why")]
    Store(#[from] StoreError),
    #[error("a key that this needs is suspended; `sekisho keys list` shows which, `sekisho keys resume` ends that")]
    KeySuspended,
    #[error("the gateway stops; what it took is kept: ask again once it is back")]
    Stopping,
    #[error("the gateway failed at this request; its log says where")]
    Internal,
    #[error(
        "the query parameter {0} is unknown, there twice, or out of its bounds; /openapi.json names those there are"
    )]
    ParameterInvalid(&'static str),
}

impl Refused {
    const fn reason(&self) -> (StatusCode, &'static str) {
        match self {
            Self::RoleRequired(_) => (StatusCode::FORBIDDEN, "role-required"),
            Self::CertificateName(_) => (StatusCode::FORBIDDEN, "certificate-name"),
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign-origin"),
            Self::AccountInvalid(_) => (StatusCode::BAD_REQUEST, "account-invalid"),
            Self::LogLevelInvalid(_) => (StatusCode::BAD_REQUEST, "log-level-invalid"),
            Self::LabelInvalid(_) => (StatusCode::BAD_REQUEST, "label-invalid"),
            Self::SubjectHeld => (StatusCode::CONFLICT, "subject-held"),
            Self::SubjectNotHeld => (StatusCode::CONFLICT, "subject-not-held"),
            Self::ReceiptNotDue(_) => (StatusCode::CONFLICT, "receipt-not-due"),
            Self::NotFound | Self::NoSuchPath | Self::NoPublicHalf => (StatusCode::NOT_FOUND, "not-found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::BodyMalformed { .. } => (StatusCode::BAD_REQUEST, "body-malformed"),
            Self::BodyNotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type-invalid"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, "body-too-slow"),
            Self::IdempotencyKeyInvalid => (StatusCode::BAD_REQUEST, "idempotency-key-invalid"),
            Self::IdempotencyKeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused"),
            Self::IdempotencyKeyBusy => (StatusCode::CONFLICT, "idempotency-key-busy"),
            Self::ReasonInvalid => (StatusCode::BAD_REQUEST, "reason-invalid"),
            Self::IfMatchInvalid => (StatusCode::BAD_REQUEST, "if-match-invalid"),
            Self::RevisionStale => (StatusCode::PRECONDITION_FAILED, "revision-stale"),
            Self::KeyState(_) | Self::RotationState(_) => (StatusCode::CONFLICT, "key-state"),
            Self::RotationLimit(_) => (StatusCode::CONFLICT, "rotation-limit"),
            Self::BackupBusy => (StatusCode::CONFLICT, "backup-busy"),
            Self::DrillBusy => (StatusCode::CONFLICT, "drill-busy"),
            Self::DrillStalled => (StatusCode::SERVICE_UNAVAILABLE, "drill-stalled"),
            Self::NoSpace { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no-space"),
            Self::LedgerUnusable => (StatusCode::SERVICE_UNAVAILABLE, "ledger-unusable"),
            Self::KekFailed(_) | Self::FlaggedAlone(_) => (StatusCode::SERVICE_UNAVAILABLE, "kek-unavailable"),
            Self::WouldLoseBindings(_) => (StatusCode::CONFLICT, "would-lose-bindings"),
            Self::DrainWithinInvalid(_) => (StatusCode::BAD_REQUEST, "drain-within-invalid"),
            Self::ConfigurationUnusable | Self::NoNextKek | Self::KekUnusable(_) | Self::KekInUse => {
                (StatusCode::CONFLICT, "kek")
            }
            Self::ConfigurationUnsound(_) => (StatusCode::CONFLICT, "configuration-refused"),
            Self::KeyInUse(_) => (StatusCode::CONFLICT, "key-in-use"),
            Self::AlreadyApproved => (StatusCode::CONFLICT, "already-approved"),
            Self::ApprovalEnded => (StatusCode::CONFLICT, "approval-ended"),
            Self::NoApprover => (StatusCode::FORBIDDEN, "no-approver"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
            Self::KeySuspended => (StatusCode::SERVICE_UNAVAILABLE, "key-suspended"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "gateway-stopping"),
            Self::ParameterInvalid(_) => (StatusCode::BAD_REQUEST, "parameter-invalid"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal-error"),
        }
    }

    /// The document of the answer.
    pub(super) fn document(&self) -> Refusal {
        if let Self::Store(error) = self {
            tracing::error!(%error, "an admin call failed");
        }
        let findings = if let Self::ConfigurationUnsound(findings) = self { findings.clone() } else { Vec::new() };
        let (reason, message) = (self.reason().1.to_owned(), self.to_string());
        Refusal { error: RefusalDetail { reason, message, findings } }
    }
}

/// What was refused for a good reason changed nothing.
impl Ends for Refused {
    fn outcome(&self) -> Outcome {
        if self.reason().0.is_client_error() { Outcome::Refused } else { Outcome::Failed }
    }
}

impl From<LifecycleError> for Refused {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::Refused(KeyRefusal::NotThere) => Self::NotFound,
            LifecycleError::Refused(refusal @ KeyRefusal::RotationLimit(_)) => Self::RotationLimit(refusal.to_string()),
            LifecycleError::Refused(refusal) => Self::KeyState(refusal),
            LifecycleError::RevisionStale(_) => Self::RevisionStale,
            LifecycleError::InUse(records) => Self::KeyInUse(records),
            LifecycleError::SameKek => Self::KekInUse,
            LifecycleError::FlaggedAlone(fault) => Self::FlaggedAlone(fault),
            LifecycleError::Keys(error) => error.into(),
            LifecycleError::Store(error) => Self::Store(error),
        }
    }
}

impl From<KeysError> for Refused {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Kek(error) => Self::KekFailed(error),
            KeysError::Store(error) => Self::Store(error),
            KeysError::WrongKek
            | KeysError::StretchChanged { .. }
            | KeysError::StretchOutOfRange(_)
            | KeysError::UnknownScheme(_)
            | KeysError::Corrupt(_) => {
                tracing::error!(%error, "the keys were changed and could not be read back; the gateway tries again");
                Self::Internal
            }
        }
    }
}

impl From<RotationError> for Refused {
    fn from(error: RotationError) -> Self {
        let text = error.to_string();
        match error {
            RotationError::NotFound | RotationError::NoSuchKey => Self::NotFound,
            RotationError::State(_) => Self::RotationState(text),
            RotationError::Limit { .. } => Self::RotationLimit(text),
            RotationError::WouldLose { .. } => Self::WouldLoseBindings(text),
            RotationError::DrainWithin(_) => Self::DrainWithinInvalid(text),
            RotationError::Stale(_) => Self::RevisionStale,
            RotationError::FlaggedAlone(fault) => Self::FlaggedAlone(fault),
            RotationError::InUse(records) => Self::KeyInUse(records),
            RotationError::Keys(error) => error.into(),
            RotationError::Store(error) => Self::Store(error),
        }
    }
}

impl From<SubjectError> for Refused {
    fn from(error: SubjectError) -> Self {
        match error {
            SubjectError::NotThere => Self::NotFound,
            SubjectError::Held => Self::SubjectHeld,
            SubjectError::Store(error) => Self::Store(error),
        }
    }
}

/// For the description of the API: any verb may answer with any of them.
impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let by_status = [
            (
                "400",
                "account-invalid, body-malformed, idempotency-key-invalid, if-match-invalid, parameter-invalid, reason-invalid, \
                 drain-within-invalid, label-invalid, log-level-invalid",
            ),
            ("403", "role-required, no-approver; over TLS also certificate-name, foreign-origin"),
            ("404", "not-found"),
            ("408", "body-too-slow"),
            (
                "409",
                "idempotency-key-busy, key-state, rotation-limit, would-lose-bindings, kek, key-in-use, already-approved, approval-ended, receipt-not-due, \
                 configuration-refused, subject-held, subject-not-held, backup-busy, drill-busy",
            ),
            ("412", "revision-stale"),
            ("413", "body-too-large"),
            ("415", "content-type-invalid"),
            ("422", "idempotency-key-reused"),
            ("500", "internal-error"),
            ("503", "store-unavailable, key-suspended, kek-unavailable, ledger-unusable, gateway-stopping"),
        ];
        let schema = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Refusal"))).build();
        let response = |reasons| ResponseBuilder::new().description(reasons).content("application/json", schema());
        by_status.map(|(status, reasons)| (status.to_owned(), response(reasons).build().into())).into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.reason().0, Json(self.document())).into_response()
    }
}
