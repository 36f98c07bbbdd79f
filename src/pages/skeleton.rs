//! Placeholder signatures; replaced by the real files.
#![expect(missing_docs, clippy::todo, dead_code, reason = "skeleton")]
use bytes::Bytes;
use http::HeaderValue;

use crate::carrier::{Profile, UserAgent};
use crate::clock::Day;
use crate::config::NoticeConfig;
use crate::edge::RawHead;
use crate::refusal::Reason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Japanese,
    English,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    ShiftJis,
    Utf8,
}
/// What the reader's browser can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    pub language: Language,
    pub charset: Charset,
    /// `Accept: application/json` was asked for.
    pub json: bool,
}
impl Reader {
    /// Language by `Accept-Language`, else by carrier (Japanese carriers: Japanese), else Japanese. Charset by browser generation.
    pub fn of(_head: &RawHead, _carrier: Option<&Profile>, _user_agent: &UserAgent) -> Self {
        todo!()
    }
}
pub enum Page<'a> {
    /// 401: what will be read, what for, how long kept, link to the notice, one button.
    SignIn {
        /// The button's link, e.g. `/_sekisho/login?to=%2F&t=…&guid=ON`.
        login_url: &'a str,
        /// Why the page is shown when it is not the first visit: session-expired, form-token-invalid.
        because: Option<Reason>,
        /// The carrier's name for people ("docomo"), where the source network tells it.
        carrier: Option<&'a str>,
        retention_days: u32,
    },
    /// 403: identified, not bound: a field for the code.
    Enrol {
        /// Where the form posts, e.g. `/_sekisho/enrol?guid=ON`.
        action: &'a str,
        form_token: &'a str,
        to: &'a str,
        /// code-invalid, binding-limit, form-token-invalid, rate-limited: what was wrong with the last try.
        because: Option<Reason>,
    },
    /// Any other refusal: what happened, what the person can do.
    Refusal {
        reason: Reason,
        retry_after_seconds: Option<u64>,
        request_id: &'a str,
    },
    /// The privacy notice, made from the configuration in force.
    Notice(NoticeFacts<'a>),
    Me(Me<'a>),
    /// GET logout: the form; ends nothing.
    Logout {
        form_token: &'a str,
    },
    /// After logout.
    SignedOut,
}
pub struct NoticeFacts<'a> {
    pub notice: &'a NoticeConfig,
    /// Names of the enabled carriers with the header each one's identifier is read from.
    pub carriers: &'a [(String, String)],
    pub retention_days: u32,
    pub session_idle_minutes: u64,
    pub session_absolute_hours: u64,
    /// full | prefix | none
    pub client_address: &'a str,
}
pub struct Me<'a> {
    pub account: &'a str,
    pub bindings: &'a [MeBinding],
    pub sessions: &'a [MeSession],
    pub form_token: &'a str,
    pub retention_days: u32,
    pub notice_done: Option<&'a str>,
}
pub struct MeBinding {
    pub id: String,
    pub carrier: String,
    pub bound_on: Day,
    pub last_used_on: Day,
    /// The handset in hand.
    pub this: bool,
}
pub struct MeSession {
    pub id: String,
    pub carrier: String,
    /// `YYYY-MM-DD HH:MM` UTC… as people read it.
    pub created: String,
    pub last_seen: String,
    pub this: bool,
}
pub struct Rendered {
    pub content_type: HeaderValue,
    pub body: Bytes,
    /// `Content-Language`.
    pub language: &'static str,
}
/// Renders a page; as JSON `{"error":{"reason","message"}}` (or a document) where the reader asked for JSON.
pub fn render(_page: &Page<'_>, _reader: Reader) -> Rendered {
    todo!()
}
/// The CSP of the gateway's own pages, with the hash of the one inline style sheet.
pub fn content_security_policy() -> HeaderValue {
    todo!()
}
