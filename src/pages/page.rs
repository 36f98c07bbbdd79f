//! What there is to say: facts only; the words come from the catalogue, the markup from the templates.
//!
//! No text in here is trusted: every one is escaped on its way into the markup.

use serde_json::{Map, Value};

use super::notice::{NoticeDocument, NoticeSection};
use crate::clock::{Day, Timestamp};
use crate::config::NoticeConfig;
use crate::refusal::Reason;

/// Form field and query parameter of the single-use form token.
pub const FORM_TOKEN_FIELD: &str = "t";
/// Form field and query parameter of the local path to go on to.
pub const TO_FIELD: &str = "to";
/// Form field of the enrolment code.
pub const CODE_FIELD: &str = "code";
/// Form field of the binding that `me/remove` removes.
pub const BINDING_FIELD: &str = "binding";
/// Form field that says that the binding may go; what it says of that does not matter.
pub const SURE_FIELD: &str = "sure";

/// Form field of a PIN, of the one to be set where there are two.
pub const PIN_FIELD: &str = "pin";
/// Form field of the same PIN again.
pub const AGAIN_FIELD: &str = "again";
/// Form field of the PIN that is to be replaced or removed.
pub const OLD_PIN_FIELD: &str = "old";
/// Form field that says that the PIN is to go; what it says of that does not matter.
pub const REMOVE_FIELD: &str = "remove";
/// Form field of the name of a handset.
pub const LABEL_FIELD: &str = "label";

/// One page. `carrier` is always a profile's name (`docomo`), where the source network tells it.
pub enum Page<'a> {
    /// 401: what will be read, what for, how long it is kept, by whom, and one button.
    SignIn {
        /// The button's link, e.g. `/_sekisho/login?to=%2F&t=…&guid=ON`.
        login_url: &'a str,
        /// Why the page is shown when this is not the first visit: session-expired, form-token-invalid, …
        because: Option<Reason>,
        /// The carrier whose network the handset is in.
        carrier: Option<&'a str>,
        /// Days after which an unused binding is erased.
        retention_days: u32,
        /// Who reads it.
        notice: &'a NoticeConfig,
    },
    /// 403: identified, but bound to no account that may sign in: a field for the code.
    Enrol {
        /// Where the form posts, e.g. `/_sekisho/enrol?guid=ON`.
        action: &'a str,
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
        /// Goes back in [`TO_FIELD`].
        to: &'a str,
        /// What was wrong with the last try: code-invalid, binding-limit, form-token-invalid, rate-limited.
        because: Option<Reason>,
    },
    /// Any other refusal: what happened, and what the person can do.
    Refusal {
        /// The one reason.
        reason: Reason,
        /// The carrier whose network the handset is in; without it the advice covers all carriers.
        carrier: Option<&'a str>,
        /// `Retry-After`, seconds.
        retry_after_seconds: Option<u64>,
        /// What the operator finds the request by in the logs.
        request_id: &'a str,
    },
    /// The privacy notice, or a former one.
    Notice(NoticePage<'a>),
    /// Self-service.
    Me(Me<'a>),
    /// Asks before a code for another handset is issued.
    Add {
        /// Where the form posts, e.g. `/_sekisho/me/add?guid=ON`.
        action: &'a str,
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
        /// Whether the PIN has to be typed.
        asks_pin: bool,
        /// What was wrong with the last try: pin-wrong.
        because: Option<Reason>,
        /// As in [`Page::Pin`].
        code_url: &'a str,
    },
    /// A code for another handset, shown once.
    Added {
        /// The enrolment code, grouped.
        code: &'a str,
        /// The last instant it may be used.
        expires_at: Timestamp,
        /// What is typed on the other handset.
        url: &'a str,
    },
    /// Asks before a binding is removed.
    Remove {
        /// Where the form posts, e.g. `/_sekisho/me/remove?guid=ON`.
        action: &'a str,
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
        /// What would go.
        binding: &'a MeBinding,
    },
    /// 403: the PIN is needed, or was wrong.
    Pin {
        /// Where the form posts, e.g. `/_sekisho/pin`.
        action: &'a str,
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
        /// Goes back in [`TO_FIELD`].
        to: &'a str,
        /// What was wrong with the last try.
        because: Option<Reason>,
        /// The link for who has forgotten it: to the field for an enrolment code.
        code_url: &'a str,
        /// Whether there is one; if not, the way to set one.
        set: bool,
    },
    /// Setting, changing and removing the PIN.
    MePin {
        /// Where both forms post, e.g. `/_sekisho/me/pin?guid=ON`.
        action: &'a str,
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
        /// Whether there is one, and whether it has to be typed.
        state: PinState,
        /// What was wrong with the last try.
        because: Option<Reason>,
        /// As in [`Page::Pin`].
        code_url: &'a str,
    },
    /// What a person is told once, after signing in.
    News {
        /// What is new, oldest first.
        news: &'a [News],
        /// What has changed of the notice since they were told of it.
        notice: Option<&'a NoticeNews>,
        /// Where the person wanted to go.
        to: &'a str,
    },
    /// Names of handsets, and the stop.
    Data(MyData<'a>),
    /// The form for the name of a handset.
    Label {
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
        /// Which.
        binding: &'a MeBinding,
        /// What was wrong with the last name: label-invalid.
        because: Option<Reason>,
    },
    /// Asks before everything is erased, or the account is stopped.
    Confirm {
        /// Which.
        act: DataAct,
        /// Where the form posts, e.g. `/_sekisho/me/erase?guid=ON`.
        action: &'a str,
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
    },
    /// Everything was erased, or the account was stopped.
    Acted {
        /// Which.
        act: DataAct,
        /// What the person can name it by: `e1`.
        receipt: Option<&'a str>,
        /// The sealed statement, for who asked for a document.
        certificate: Option<&'a Map<String, Value>>,
    },
    /// A document of the person's own; JSON for every browser.
    Document(&'a Value),
    /// GET logout: the form; ends nothing.
    Logout {
        /// Goes back in [`FORM_TOKEN_FIELD`].
        form_token: &'a str,
    },
    /// After logout.
    SignedOut,
    /// Between a session in URLs and another site.
    Leave {
        /// Where the link leads.
        url: &'a str,
        /// Whose place that is.
        host: &'a str,
    },
}

/// A notice, and the way to others.
pub struct NoticePage<'a> {
    /// What it says.
    pub told: &'a NoticeDocument,
    /// Days (UTC) from which and until which it was in force; `None` of the one that is.
    pub former: Option<(Day, Day)>,
    /// Those that were in force before it, the latest first.
    pub earlier: &'a [NoticeRevision],
}

/// A former notice.
pub struct NoticeRevision {
    /// What its link says which it is by.
    pub id: u32,
    /// Its revision date.
    pub revision: String,
    /// UTC day from which it was in force.
    pub from: Day,
}

/// That the notice has changed.
pub struct NoticeNews {
    /// The revision date of the one in force.
    pub revision: String,
    /// UTC day from which it is.
    pub from: Day,
    /// What has changed, in the reader's language.
    pub changes: Vec<NoticeSection>,
}

/// What the person may see and change of what is stored about them.
pub struct Me<'a> {
    /// The account's opaque id.
    pub account: &'a str,
    /// Its handsets.
    pub bindings: &'a [MeBinding],
    /// Its live sessions.
    pub sessions: &'a [MeSession],
    /// Goes back in [`FORM_TOKEN_FIELD`]; one for all forms of the page, since the page is made anew after each.
    pub form_token: &'a str,
    /// Days after which an unused binding is erased.
    pub retention_days: u32,
    /// The day the PIN was set, if one is.
    pub pin_set_on: Option<Day>,
    /// Revision date of the notice that the person of the handset in hand was shown last.
    pub told: Option<&'a str>,
    /// What the form that led here has done.
    pub done: Option<MeDone>,
}

/// What the page of names shows.
pub struct MyData<'a> {
    /// The account's handsets.
    pub handsets: &'a [MeBinding],
    /// Whether it is under legal hold.
    pub held: bool,
    /// Goes back in [`FORM_TOKEN_FIELD`].
    pub form_token: &'a str,
    /// What the form that led here has done.
    pub done: Option<DataDone>,
}

/// What a form of the page of names has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDone {
    /// A handset has another name.
    Renamed,
}

/// What is asked before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataAct {
    /// Everything is erased.
    Erase,
    /// The account is kept out.
    Stop,
}

impl DataAct {
    /// The last segment of its path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Erase => "erase",
            Self::Stop => "stop",
        }
    }
}

/// What a form of the self-service page has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeDone {
    /// A binding was removed.
    HandsetRemoved,
    /// One session, not the one in hand, was ended.
    SessionEnded,
    /// A PIN was set.
    PinSet,
    /// The PIN was removed.
    PinRemoved,
}

/// What there is of a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// None.
    None,
    /// One of that day.
    Set(Day),
    /// One that need not be typed: an enrolment code was.
    Forgotten,
}

/// One thing that a person does not know yet.
pub struct News {
    /// What happened.
    pub kind: NewsKind,
    /// The profile of the handset that it is about, where it is about one.
    pub carrier: String,
    /// UTC day.
    pub day: Day,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewsKind {
    /// Another handset was bound.
    HandsetBound,
    /// A series of wrong PINs.
    WrongPins,
    /// A series of wrong enrolment codes.
    WrongCodes,
}

/// A bound handset.
pub struct MeBinding {
    /// Goes back in [`BINDING_FIELD`].
    pub id: String,
    /// The profile's name.
    pub carrier: String,
    /// UTC day.
    pub bound_on: Day,
    /// UTC day.
    pub last_used_on: Day,
    /// What its person calls it.
    pub label: Option<String>,
    /// Revision date of the notice that its person was shown last.
    pub told: Option<String>,
    /// The handset in hand.
    pub this: bool,
}

/// A live session.
pub struct MeSession {
    /// The public id; never the token.
    pub id: String,
    /// The profile's name.
    pub carrier: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_seen_at: Timestamp,
    /// The session in hand.
    pub this: bool,
}
