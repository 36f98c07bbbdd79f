//! Approvals: what takes more than one person waits here until enough have agreed, and is then carried out once.
//!
//! A verb calls [`require`] before it does its work. Where one person is enough that is all; otherwise the verb answers
//! 202 with the approval, and the last voice that is needed carries it out, in [`acts`](super::acts). The store makes
//! the change and ends the approval in one step, so a crash in between leaves an approval that was agreed to and can
//! still be carried out, by asking for it again or by saying yes again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{ApprovalReader, Decider};
use super::acts;
use super::body::Asked;
use super::if_match::RevisionMatch;
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Effect, Event};
use crate::binding::AccountId;
use crate::clock::Timestamp;
use crate::config::{AdminConfig, ClientAddressDetail, Principal, Role};
use crate::store::{
    AnswerOutcome, ApprovalRecord, ApprovalState, ApprovedAction, ApprovedOutcome, ChangeOutcome, KeyChange,
    NewApproval,
};
use crate::telemetry::{Actor, SecurityEvent, security};

/// How long an approval may wait.
const EXPIRES_AFTER: Duration = Duration::from_hours(24);
/// Characters of a reason.
const REASON_CHARACTERS: usize = 256;

/// How many people must agree, and who counts as one.
pub(super) struct ApprovalPolicy {
    needs: u32,
    /// Who may approve what is done to keys, each with the person that it is. Neither root nor the gateway's own uid, which
    /// are nobody in particular, nor a group.
    of_keys: Vec<(Principal, String)>,
    /// Who may approve what is done about persons: these, and who holds the role `privacy`.
    of_subjects: Vec<(Principal, String)>,
}

impl ApprovalPolicy {
    /// The policy of the configuration, for a gateway that runs as `own_uid`.
    #[must_use]
    pub(super) fn new(own_uid: u32, config: &AdminConfig) -> Self {
        let named = |principal: &&Principal| match principal {
            Principal::Uid(uid) => *uid != 0 && *uid != own_uid,
            Principal::Certificate(_) => true,
            Principal::Gid(_) => false,
        };
        let holders = |role| {
            let holders = config.roles.get(&role).map_or(&[][..], Vec::as_slice);
            holders.iter().filter(named).map(|p| (p.clone(), person(&config.people, p)))
        };
        let of_subjects = holders(Role::Security).chain(holders(Role::Privacy)).collect();
        Self { needs: config.approvals, of_keys: holders(Role::Security).collect(), of_subjects }
    }

    fn approvers(&self, action: ApprovedAction) -> &[(Principal, String)] {
        match action {
            ApprovedAction::DestroyKey => &self.of_keys,
            ApprovedAction::HoldSubject | ApprovedAction::ReleaseSubject => &self.of_subjects,
        }
    }

    /// How many people it takes to destroy a key, and what those are called who may agree to it.
    pub(super) fn to_destroy_keys(&self) -> (u32, Vec<String>) {
        let people: BTreeSet<String> = self.of_keys.iter().map(|(_, person)| shown(person).to_owned()).collect();
        (self.needs, people.into_iter().collect())
    }

    /// The person that `by` is, if it is one who may approve `action`.
    fn approver(&self, by: Actor, action: ApprovedAction) -> Option<String> {
        let is = |principal: &Principal| match (principal, by) {
            (Principal::Uid(given), Actor::Uid(uid)) => *given == uid,
            (Principal::Certificate(given), Actor::Certificate(name)) => *given == name,
            _ => false,
        };
        self.approvers(action).iter().find(|(principal, _)| is(principal)).map(|(_, person)| person.clone())
    }

    /// Whether as many agreed as were needed when it was asked for, and as are needed today. Who may no longer approve
    /// counts no longer.
    fn is_granted(&self, record: &ApprovalRecord) -> bool {
        let people: BTreeSet<&str> = self.approvers(record.action).iter().map(|(_, person)| person.as_str()).collect();
        let agreed = record.given.iter().filter(|given| people.contains(given.by.as_str())).count();
        record.state == ApprovalState::Open && agreed as u64 >= u64::from(record.needs.max(self.needs))
    }
}

/// One text for one person: what the configuration calls them, else the principal.
fn person(people: &BTreeMap<String, Vec<Principal>>, principal: &Principal) -> String {
    let known = people.iter().find(|(_, principals)| principals.contains(principal));
    known.map_or_else(|| principal.to_string(), |(name, _)| format!("person:{name}"))
}

/// What a person is called where people read it.
fn shown(person: &str) -> &str {
    person.strip_prefix("person:").or_else(|| person.strip_prefix("cert:")).unwrap_or(person)
}

/// Why somebody wants something: one line, 256 characters at most, empty if nobody said.
#[derive(Debug, Default)]
pub(super) struct Reason(pub(super) String);

impl Reason {
    /// Reads what was sent.
    pub(super) fn read(text: Option<String>) -> Result<Self, Refused> {
        let text = text.unwrap_or_default().trim().to_owned();
        let sound = text.chars().count() <= REASON_CHARACTERS && !text.chars().any(char::is_control);
        if sound { Ok(Self(text)) } else { Err(Refused::ReasonInvalid) }
    }

    /// Itself, where there must be one.
    pub(super) fn named(self) -> Result<Self, Refused> {
        if self.0.is_empty() { Err(Refused::ReasonInvalid) } else { Ok(self) }
    }

    /// The text, where there must be one.
    pub(super) fn said(self) -> Result<String, Refused> {
        if self.0.is_empty() { Err(Refused::ReasonInvalid) } else { Ok(self.0) }
    }
}

/// Whether it may be done now.
pub(super) enum Decision {
    /// Yes, once.
    Granted(Grant),
    /// Not before others agree: the answer to whoever asked.
    Pending(Response),
}

/// What an action is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    /// A key's id.
    Key(&'a str),
    /// An account, which stands in the trail under its pseudonym alone.
    Account(&'a AccountId),
}

/// Proof that as many people agreed as must, for one change to the keys as they were at `revision`, or to an account.
pub(super) struct Grant {
    /// `None` where one person is enough.
    approval: Option<String>,
    /// What the keys must still be at.
    pub(super) revision: u64,
    by: Actor,
    /// Why, in the words of whoever asked.
    pub(super) reason: String,
}

impl Grant {
    /// The approval that ends with the change; `None` where one person is enough.
    pub(super) fn approval(&self) -> Option<&str> {
        self.approval.as_deref()
    }

    /// Makes the changes, and ends the approval with them. Returns the revision now in force.
    ///
    /// # Errors
    /// [`Refused::RevisionStale`] if a key changed since, [`Refused::KeyInUse`], or the store's failure.
    pub(super) async fn change(self, ops: &Operations, changes: Vec<KeyChange>) -> Result<u64, Refused> {
        let Some(id) = &self.approval else {
            return match ops.key_store.change(self.revision, changes).await? {
                ChangeOutcome::Changed(revision) => Ok(revision),
                ChangeOutcome::Stale => Err(Refused::RevisionStale),
                ChangeOutcome::InUse(records) => Err(Refused::KeyInUse(records)),
            };
        };
        match ops.approvals.change_approved(id, changes, self.by.to_string(), ops.clock.now()).await? {
            ApprovedOutcome::Changed(revision) => Ok(revision),
            ApprovedOutcome::Stale => Err(Refused::RevisionStale),
            ApprovedOutcome::InUse(records) => Err(Refused::KeyInUse(records)),
            ApprovedOutcome::NotApproved => Err(Refused::ApprovalEnded),
        }
    }
}

/// Asks whether `action` may be done to `object`, about the keys at `revision`. The verb has judged before that it could
/// be done: nothing is to be approved that cannot happen.
///
/// # Errors
/// The store's failure.
pub(super) async fn require(
    ops: &Operations,
    action: ApprovedAction,
    about: About<'_>,
    by: Actor,
    revision: u64,
    reason: Reason,
) -> Result<Decision, Refused> {
    let policy = &ops.approval_policy();
    if policy.needs <= 1 {
        return Ok(Decision::Granted(Grant { approval: None, revision, by, reason: reason.0 }));
    }
    let at = ops.clock.now();
    let ask = NewApproval {
        action,
        object: match about {
            About::Key(id) => id.to_owned(),
            About::Account(account) => account.to_string(),
        },
        reason: reason.0,
        asked_by: by.to_string(),
        approver: policy.approver(by, action),
        needs: policy.needs,
        revision,
        at,
        expires_at: at.plus(EXPIRES_AFTER),
    };
    let deed = Event::new(Action::ApprovalAsk, by).reason(&ask.reason);
    let deed = match about {
        About::Key(id) => deed.object(format_args!("{} {id}", action.as_str())),
        About::Account(account) => deed.object(action.as_str()).account(account),
    };
    let work = async { Ok::<_, Refused>((ops.approvals.ask(ask).await?, Effect::none())) };
    let record = ops.audit.act(deed, &*ops.clock, work).await?;
    if policy.is_granted(&record) {
        return Ok(Decision::Granted(Grant { approval: Some(record.id), revision, by, reason: record.reason }));
    }
    report("approval-asked", &record, by);
    Ok(Decision::Pending((StatusCode::ACCEPTED, Json(Approved::of(&record))).into_response()))
}

/// All approvals, the latest first.
#[utoipa::path(get, path = "/v1/approvals", responses((status = 200, body = Approvals), Refused))]
pub(super) async fn list(_: ApprovalReader, State(ops): State<Operations>) -> Result<Json<Approvals>, Refused> {
    let records = ops.approvals.approvals(ops.clock.now()).await?;
    Ok(Json(Approvals { approvals: records.iter().map(Approval::of).collect() }))
}

/// Says yes, or no, to what somebody asked for.
///
/// The last yes that is needed carries it out (200, `"state":"done"`); one before that waits for more (202). An approval
/// is about the keys as they were when it was asked for: if any key changed since, it expires.
#[utoipa::path(
    post, path = "/v1/approvals/{id}", params(("id" = String, Path), RevisionMatch), request_body = Option<ApprovalAnswer>,
    responses((status = 200, body = Approved), (status = 202, body = Approved), Refused)
)]
pub(super) async fn answer(
    Decider { by, of_keys }: Decider,
    State(ops): State<Operations>,
    id: Result<Path<String>, PathRejection>,
    revision: RevisionMatch,
    Asked(answer): Asked<ApprovalAnswer>,
) -> Result<Response, Refused> {
    let Path(id) = id.map_err(|_| Refused::NotFound)?;
    let record = by_id(&ops, &id).await?;
    if record.action == ApprovedAction::DestroyKey && !of_keys {
        return Err(Refused::RoleRequired("security"));
    }
    revision.check(record.revision)?;
    match answer.decision.unwrap_or_default() {
        // Stopping is safe, so that whoever holds the role may.
        ApprovalDecision::Deny => {
            let work = async {
                match ops.approvals.deny(&id, by.to_string(), ops.clock.now()).await? {
                    AnswerOutcome::Counted(record) => Ok((record, Effect::none())),
                    AnswerOutcome::Twice(_) | AnswerOutcome::Ended(_) => Err(Refused::ApprovalEnded),
                    AnswerOutcome::NotThere => Err(Refused::NotFound),
                }
            };
            let deed = Event::new(Action::ApprovalDeny, by).object(&record.id);
            let record = ops.audit.act(deed, &*ops.clock, work).await?;
            report("approval-denied", &record, by);
            Ok(Json(Approved::of(&record)).into_response())
        }
        ApprovalDecision::Approve => {
            let policy = ops.approval_policy();
            let person = policy.approver(by, record.action).ok_or(Refused::NoApprover)?;
            let work = async {
                match ops.approvals.approve(&id, person, ops.clock.now()).await? {
                    AnswerOutcome::Counted(record) => {
                        report("approval-given", &record, by);
                        Ok((record, Effect::none()))
                    }
                    // Agreed to, and not carried out by whoever's voice was the last: it may be tried again.
                    AnswerOutcome::Twice(record) if policy.is_granted(&record) => Ok((record, Effect::none())),
                    AnswerOutcome::Twice(_) => Err(Refused::AlreadyApproved),
                    AnswerOutcome::Ended(_) => Err(Refused::ApprovalEnded),
                    AnswerOutcome::NotThere => Err(Refused::NotFound),
                }
            };
            let deed = Event::new(Action::ApprovalGive, by).object(&record.id);
            let record = ops.audit.act(deed, &*ops.clock, work).await?;
            if !policy.is_granted(&record) {
                return Ok((StatusCode::ACCEPTED, Json(Approved::of(&record))).into_response());
            }
            let reason = record.reason.clone();
            let grant = Grant { approval: Some(id.clone()), revision: record.revision, by, reason };
            let warnings = acts::carry_out(&ops, record.action, &record.object, grant, by).await?;
            Ok(Json(Approved { warnings, ..Approved::of(&carried_out(&ops, record, by).await) }).into_response())
        }
    }
}

async fn by_id(ops: &Operations, id: &str) -> Result<ApprovalRecord, Refused> {
    let records = ops.approvals.approvals(ops.clock.now()).await?;
    records.into_iter().find(|record| record.id == id).ok_or(Refused::NotFound)
}

/// The approval that `by` carried out just now. What was done stands, also where it cannot be read back.
async fn carried_out(ops: &Operations, record: ApprovalRecord, by: Actor) -> ApprovalRecord {
    match by_id(ops, &record.id).await {
        Ok(record) => record,
        Err(error) => {
            tracing::error!(%error, "an approval was carried out, and could not be read back");
            let (ended_at, ended_by) = (Some(ops.clock.now()), Some(by.to_string()));
            ApprovalRecord { state: ApprovalState::Done, ended_at, ended_by, ..record }
        }
    }
}

fn report(event: &'static str, record: &ApprovalRecord, by: Actor) {
    let (approval, action, object) = (&*record.id, record.action.as_str(), &*record.object);
    security(&SecurityEvent::Approval { event, approval, action, object, by }, None, ClientAddressDetail::None);
}

/// A yes or a no.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalAnswer {
    /// Yes where nothing is said.
    decision: Option<ApprovalDecision>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum ApprovalDecision {
    #[default]
    Approve,
    Deny,
}

/// One approval.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Approved {
    /// As it is now.
    pub approval: Approval,
    /// What was carried out and is not done everywhere yet: a line each, with what is to be done about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Approved {
    fn of(record: &ApprovalRecord) -> Self {
        Self { approval: Approval::of(record), warnings: Vec::new() }
    }
}

/// Approvals.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Approvals {
    /// The latest first.
    pub approvals: Vec<Approval>,
}

/// What somebody asked for and others must agree to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    /// For `approvals approve` and `approvals deny`.
    pub id: String,
    /// `destroy-key`, `hold-subject`, `release-subject`.
    pub action: String,
    /// To what: a key's id, or an account; the pseudonym of one that was erased.
    pub object: String,
    /// Why, in the words of whoever asked.
    pub reason: String,
    /// `open`, `done`, `denied` or `expired`.
    pub state: String,
    /// How many people must agree.
    pub needs: u32,
    /// Who agreed: a person of `[admin.people]`, a certificate's name, or `uid:…`.
    pub given: Vec<String>,
    /// The revision of the keys that it is about.
    pub revision: u64,
    /// Who asked: `uid:…` or `cert:…`.
    pub asked_by: String,
    /// When.
    pub asked_at: String,
    /// When it is too late.
    pub expires_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Who carried it out or denied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
}

impl Approval {
    fn of(record: &ApprovalRecord) -> Self {
        Self {
            id: record.id.clone(),
            action: record.action.as_str().to_owned(),
            object: record.object.clone(),
            reason: record.reason.clone(),
            state: record.state.as_str().to_owned(),
            needs: record.needs,
            given: record.given.iter().map(|given| shown(&given.by).to_owned()).collect(),
            revision: record.revision,
            asked_by: record.asked_by.clone(),
            asked_at: record.asked_at.rfc3339(),
            expires_at: record.expires_at.rfc3339(),
            ended_at: record.ended_at.map(Timestamp::rfc3339),
            ended_by: record.ended_by.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CertificateName;
    use crate::store::GivenApproval;

    fn certificate(name: &str) -> CertificateName {
        CertificateName::parse(name).unwrap()
    }

    fn policy(needs: u32, security: Vec<Principal>) -> ApprovalPolicy {
        let alice = vec![Principal::Uid(1001), Principal::Certificate(certificate("alice"))];
        let config = AdminConfig {
            socket: "s".into(),
            approvals: needs,
            people: BTreeMap::from([("alice".to_owned(), alice)]),
            roles: BTreeMap::from([(Role::Security, security)]),
        };
        ApprovalPolicy::new(500, &config)
    }

    #[test]
    fn only_people_who_are_named_approve_each_as_one() {
        let names = ["alice", "person:alice", "bob"].map(|name| name.replace(':', "-"));
        let mut security: Vec<_> = names.iter().map(|name| Principal::Certificate(certificate(name))).collect();
        security.extend([0, 500, 1001, 1002].map(Principal::Uid));
        security.push(Principal::Gid(1003));
        let policy = policy(2, security);
        for (by, person) in [
            (Actor::Uid(1001), Some("person:alice")),
            (Actor::Certificate(certificate("alice")), Some("person:alice")),
            (Actor::Certificate(certificate("person-alice")), Some("cert:person-alice")),
            (Actor::Certificate(certificate("bob")), Some("cert:bob")),
            (Actor::Uid(1002), Some("uid:1002")),
            (Actor::Uid(0), None),
            (Actor::Uid(500), None),
            (Actor::Uid(1003), None),
            (Actor::Certificate(certificate("1002")), None),
            (Actor::Handset, None),
        ] {
            assert_eq!(policy.approver(by, ApprovedAction::DestroyKey).as_deref(), person, "{by}");
        }
    }

    #[test]
    fn as_many_as_were_needed_and_are_needed_today() {
        let given = |people: &[&str]| people.iter().map(|by| GivenApproval { by: (*by).into(), at: at() }).collect();
        let record = |needs, state, people: &[&str]| ApprovalRecord {
            id: "p1".into(),
            action: ApprovedAction::DestroyKey,
            object: "k1".into(),
            reason: String::new(),
            asked_by: "uid:1002".into(),
            asked_at: at(),
            expires_at: at(),
            needs,
            revision: 0,
            state,
            given: given(people),
            ended_at: None,
            ended_by: None,
        };
        let (open, both) = (ApprovalState::Open, &["uid:1002", "cert:bob"][..]);
        let bob = || Principal::Certificate(certificate("bob"));
        let people = || vec![Principal::Uid(1002), bob()];
        for (policy, record, granted) in [
            (policy(2, people()), record(2, open, both), true),
            (policy(1, people()), record(2, open, both), true),
            (policy(2, people()), record(2, open, &["uid:1002"]), false),
            (policy(1, people()), record(2, open, &["uid:1002"]), false),
            (policy(3, people()), record(2, open, both), false),
            (policy(2, vec![bob()]), record(2, open, both), false),
            (policy(2, people()), record(2, ApprovalState::Denied, both), false),
            (policy(2, people()), record(2, ApprovalState::Done, both), false),
        ] {
            assert_eq!(policy.is_granted(&record), granted, "{record:?}");
        }
    }

    #[test]
    fn a_reason_is_one_short_line() {
        for (text, sound) in [("", true), (" rotated in May ", true), (&"理".repeat(256), true)] {
            assert_eq!(Reason::read(Some(text.to_owned())).is_ok(), sound);
        }
        assert_eq!(Reason::read(Some(" a ".to_owned())).unwrap().0, "a");
        assert_eq!(Reason::read(None).unwrap().0, "");
        for text in ["a\nb", "a\0", "\u{1b}[31m", "a\u{85}b", &"a".repeat(257)] {
            assert!(Reason::read(Some(text.to_owned())).is_err(), "{text:?}");
        }
    }

    fn at() -> Timestamp {
        Timestamp::from_unix_millis(0)
    }
}
