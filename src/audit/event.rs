//! What may stand in the trail. Fixed words but for the reason that a person gave.

use std::fmt::Display;

use super::entry::{Entry, Pseudonym, Tip};
use crate::binding::AccountId;
use crate::clock::Timestamp;

/// Most characters of who, of what and of why.
const MOST_ACTOR: usize = 128;
const MOST_OBJECT: usize = 256;
const MOST_REASON: usize = 512;

/// What is done, or happened. Nouns come first, so that a list sorts by what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The gateway began to serve; the object is its version.
    GatewayStart,
    /// The gateway was told to stop, and drained.
    GatewayStop,
    /// The keys were opened under the KEK; the object names those in use.
    KeySetOpen,
    /// A key seals from now on; the object is its id and the fingerprint of its public half.
    AuditKeyIntroduce,
    /// At its start the gateway found the end of the trail changed; the object says where.
    AuditMismatch,
    /// The gateway's test of itself failed, or passed again.
    SelfTest,
    /// The clock of the machine went back; the count is by how many seconds.
    ClockSetBack,
    /// Another configuration comes into force; the object is the SHA-256 of its file.
    ConfigReload,
    /// What people are told of their data is another from now on; the object is its revision date and its SHA-256.
    NoticeChange,
    /// What the system log tells is chosen anew; the object is the choice.
    LogLevel,
    /// An enrolment code was issued; the object is the handset, where a person asked for it there.
    CodeIssue,
    /// An account is kept out, and its sessions end; the counts are of sessions.
    AccountSuspend,
    /// An account is let in again.
    AccountResume,
    /// A person sets the first PIN of the account.
    PinSet,
    /// A person sets another.
    PinChange,
    /// The account's PIN is taken away, by its person or by an operator.
    PinRemove,
    /// A series of wrong PINs was typed on one handset; the object is its binding, the count of tries in a row.
    PinTries,
    /// The right PIN was typed in a session, which goes on under a new token; the object is the session.
    SessionStepUp,
    /// A handset was bound.
    BindingEnrol,
    /// A binding is erased and its sessions end; the object is the binding.
    BindingRevoke,
    /// Handsets are bound by an import; the count is of bindings.
    BindingsImport,
    /// Handsets that were not used for too long were erased; the count is of bindings.
    BindingsErase,
    /// Sessions are ended; the counts are of sessions.
    SessionsEnd,
    /// A session was used from another handset, carrier or network, and ended; the object is the session.
    SessionDeviceMismatch,
    /// Somebody asks for what takes more people; the object is what, and to what.
    ApprovalAsk,
    /// Somebody agrees; the object is the approval.
    ApprovalGive,
    /// Somebody says no; the object is the approval.
    ApprovalDeny,
    /// Somebody asked which pseudonym an account has.
    PseudonymRead,
    /// A key is made; the object is its purpose.
    KeyGenerate,
    /// A key comes into use; the object is its id.
    KeyActivate,
    /// What needs the key is refused; the object is its id.
    KeySuspend,
    /// That ends; the object is its id.
    KeyResume,
    /// A key has leaked; the object is its id.
    KeyCompromise,
    /// A leak of a key is rehearsed on a copy of the store; the object is the key, the count is of bindings that it concerns.
    CompromiseDrill,
    /// A key is wiped; the object is its id.
    KeyDestroy,
    /// Every key is wrapped under another KEK; the count is of keys.
    KeysRewrap,
    /// A copy of the store goes out, encrypted; the object is the backup, the count is of bytes.
    BackupTake,
    /// The key of a backup is destroyed; the object is the backup.
    BackupDestroy,
    /// At its start the gateway found the store older than the ledger had seen it; the object says how far it should be.
    /// The count is of accounts and bindings that were erased again.
    StoreBehind,
    /// Such a store is in use: its records are under a key that was not replaced since.
    StoreCaughtUp,
    /// Keys are made, or come to their next state, because that is due; the object names them, the reason the steps.
    KeySchedule,
    /// Keys are replaced from now on; the object is what they are for. The counts of rotations are of the records that
    /// contained the old key when it began, and of those that still do.
    RotationStart,
    /// A rotation moves nothing until it is resumed; the object is the rotation.
    RotationPause,
    /// A rotation goes on.
    RotationResume,
    /// A rotation that never began is given up.
    RotationAbort,
    /// Its records are counted again, and what is due is done.
    RotationRescan,
    /// Every record is under the new key; the object is the rotation.
    RotationDrain,
    /// No record needs the old key any more.
    RotationFinish,
    /// Its deadline has passed: the bindings that still need the old key are erased.
    RotationPurge,
    /// The oldest entries of the trail itself are erased; the object names the first, the last and the hash of the last, the
    /// count is of entries.
    AuditErase,
    /// Somebody read all that is kept of an account.
    SubjectExport,
    /// An account is erased with all that is its own; the count is of bindings.
    SubjectErase,
    /// A handset's label is changed; the object is the binding.
    SubjectCorrect,
    /// An account is kept out because its person asked for that, and its sessions end; the counts are of sessions.
    SubjectStop,
    /// That ends.
    SubjectResume,
    /// Somebody had erased what is old enough; the count is of bindings.
    RetentionRun,
    /// Somebody reads lines of the sealed access log; the object is the day.
    LogRead,
    /// A legal hold is placed on an account.
    SubjectHold,
    /// It is released.
    SubjectRelease,
}

impl Action {
    /// The word in the trail.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GatewayStart => "gateway-start",
            Self::GatewayStop => "gateway-stop",
            Self::KeySetOpen => "key-set-open",
            Self::AuditKeyIntroduce => "audit-key-introduce",
            Self::AuditMismatch => "audit-mismatch",
            Self::SelfTest => "self-test",
            Self::ClockSetBack => "clock-set-back",
            Self::ConfigReload => "config-reload",
            Self::NoticeChange => "notice-change",
            Self::LogLevel => "log-level",
            Self::CodeIssue => "code-issue",
            Self::AccountSuspend => "account-suspend",
            Self::AccountResume => "account-resume",
            Self::PinSet => "pin-set",
            Self::PinChange => "pin-change",
            Self::PinRemove => "pin-remove",
            Self::PinTries => "pin-tries",
            Self::SessionStepUp => "session-step-up",
            Self::BindingEnrol => "binding-enrol",
            Self::BindingRevoke => "binding-revoke",
            Self::BindingsImport => "bindings-import",
            Self::BindingsErase => "bindings-erase",
            Self::SessionsEnd => "sessions-end",
            Self::SessionDeviceMismatch => "session-device-mismatch",
            Self::KeyDestroy => "key-destroy",
            Self::ApprovalAsk => "approval-ask",
            Self::ApprovalGive => "approval-give",
            Self::ApprovalDeny => "approval-deny",
            Self::PseudonymRead => "pseudonym-read",
            Self::KeyGenerate => "key-generate",
            Self::KeyActivate => "key-activate",
            Self::KeySuspend => "key-suspend",
            Self::KeyResume => "key-resume",
            Self::KeyCompromise => "key-compromise",
            Self::CompromiseDrill => "compromise-drill",
            Self::KeysRewrap => "keys-rewrap",
            Self::BackupTake => "backup-take",
            Self::BackupDestroy => "backup-destroy",
            Self::StoreBehind => "store-behind",
            Self::StoreCaughtUp => "store-caught-up",
            Self::KeySchedule => "key-schedule",
            Self::RotationStart => "rotation-start",
            Self::RotationPause => "rotation-pause",
            Self::RotationResume => "rotation-resume",
            Self::RotationAbort => "rotation-abort",
            Self::RotationRescan => "rotation-rescan",
            Self::RotationDrain => "rotation-drain",
            Self::RotationFinish => "rotation-finish",
            Self::RotationPurge => "rotation-purge",
            Self::AuditErase => "audit-erase",
            Self::SubjectExport => "subject-export",
            Self::SubjectErase => "subject-erase",
            Self::SubjectCorrect => "subject-correct",
            Self::SubjectStop => "subject-stop",
            Self::SubjectResume => "subject-resume",
            Self::RetentionRun => "retention-run",
            Self::LogRead => "log-read",
            Self::SubjectHold => "subject-hold",
            Self::SubjectRelease => "subject-release",
        }
    }
}

/// How far an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is about to take effect; an entry with `of` says how it ended. Without one the gateway died in between, and
    /// whether it took effect is not known.
    Begun,
    /// It took effect, or it happened.
    Done,
    /// It was refused and changed nothing.
    Refused,
    /// It failed; a part may have taken effect.
    Failed,
}

impl Outcome {
    /// The word in the trail.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What an action changed, as far as that is a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    before: Option<u64>,
    after: Option<u64>,
    count: Option<u64>,
}

impl Effect {
    /// Nothing that could be counted.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// There were `before` and there are `after`.
    #[must_use]
    pub fn change(before: usize, after: usize) -> Self {
        Self::records(before as u64, after as u64)
    }

    /// As [`Effect::change`], of what a store counts.
    #[must_use]
    pub fn records(before: u64, after: u64) -> Self {
        Self { before: Some(before), after: Some(after), ..Self::default() }
    }

    /// So many.
    #[must_use]
    pub fn of(count: u64) -> Self {
        Self { count: Some(count), ..Self::default() }
    }
}

/// Something that is to stand in the trail.
#[derive(Clone, Debug)]
pub struct Event {
    action: Action,
    actor: String,
    account: Option<AccountId>,
    object: Option<String>,
    reason: Option<String>,
    outcome: Outcome,
    of: Option<u64>,
    effect: Effect,
}

impl Event {
    /// `actor` did, or does, `action`: `uid:1001`, `cert:alice`, `handset`, `console`, `gateway`, `retention`.
    #[must_use]
    pub fn new(action: Action, actor: impl Display) -> Self {
        Self {
            action,
            actor: plain(&actor.to_string(), MOST_ACTOR),
            account: None,
            object: None,
            reason: None,
            outcome: Outcome::Done,
            of: None,
            effect: Effect::none(),
        }
    }

    /// To, or by, this account. Only its pseudonym will stand there.
    #[must_use]
    pub fn account(mut self, account: &AccountId) -> Self {
        self.account = Some(account.clone());
        self
    }

    /// To this thing: an id of ours, never what a stranger sent.
    #[must_use]
    pub fn object(mut self, object: impl Display) -> Self {
        self.object = Some(plain(&object.to_string(), MOST_OBJECT));
        self
    }

    /// For this reason, as a person put it, or what makes it due: 512 characters of it, without any that control a terminal.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = (!reason.is_empty()).then(|| plain(reason, MOST_REASON));
        self
    }

    /// How it ended, where that is not [`Outcome::Done`].
    #[must_use]
    pub const fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// What it changed.
    #[must_use]
    pub const fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// The end of what entry `seq` began.
    pub(super) const fn end_of(mut self, seq: u64) -> Self {
        self.of = Some(seq);
        self
    }

    /// Whose pseudonym is to stand in the entry.
    #[must_use]
    pub const fn whose(&self) -> Option<&AccountId> {
        self.account.as_ref()
    }

    /// The entry behind `tip`, under the audit key `key`. For stores, in the step that writes it.
    #[must_use]
    pub fn entry(&self, tip: Tip, at: Timestamp, key: &str, pseudonym: Option<&Pseudonym>) -> Entry {
        Entry {
            account: pseudonym.map(ToString::to_string),
            action: self.action.as_str().to_owned(),
            actor: self.actor.clone(),
            after: self.effect.after,
            before: self.effect.before,
            count: self.effect.count,
            key: key.to_owned(),
            object: self.object.clone(),
            of: self.of,
            outcome: self.outcome.as_str().to_owned(),
            prev: tip.hash,
            reason: self.reason.clone(),
            seq: tip.seq + 1,
            time: at.rfc3339(),
        }
    }
}

/// The beginning of `text`, with what would move a terminal's cursor or the reading direction replaced.
pub(crate) fn plain(text: &str, most: usize) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().take(most).map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::EntryHash;

    #[test]
    fn a_reason_is_bounded_and_steers_nothing() {
        let tip = Tip { seq: 0, hash: EntryHash::before_all(&[1; 16]) };
        let event = Event::new(Action::AccountSuspend, "uid:1").reason("lost\u{1b}[2J\n\u{202e}handset 端末");
        let entry = event.entry(tip, Timestamp::from_unix_millis(0), "u1", None);
        assert_eq!(entry.reason.unwrap(), "lost\u{fffd}[2J\u{fffd}\u{fffd}handset 端末");
        let long = Event::new(Action::AccountSuspend, "uid:1").reason(&"あ".repeat(600));
        assert_eq!(long.reason.unwrap().chars().count(), MOST_REASON);
        assert!(Event::new(Action::AccountSuspend, "uid:1").reason("").reason.is_none());
    }
}
