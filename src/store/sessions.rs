//! The port of sessions.

use async_trait::async_trait;

use super::StoreError;
use crate::binding::{AccountId, BindingId};
use crate::carrier::CarrierName;
use crate::clock::Timestamp;
use crate::session::{SessionId, TokenHash};

/// A session as stored. The token itself is nowhere; only its hash is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// SHA-256 of the token.
    pub token_hash: TokenHash,
    /// Random public id, for listing and revoking.
    pub id: SessionId,
    /// Who is signed in.
    pub account: AccountId,
    /// The binding that signed in.
    pub binding: BindingId,
    /// The carrier profile that signed in.
    pub carrier: CarrierName,
    /// HMAC of the identifier under a key derived from the token: the device check needs the token to be made.
    pub continuity: [u8; 32],
    /// What makes the key of `continuity` of this token, where it was made with another: a session that goes on under a
    /// new token keeps its tag, since nobody has the identifier then.
    pub link: Option<[u8; 32]>,
    /// Random; from it the per-audience `sid` is derived.
    pub sid_seed: [u8; 16],
    /// How the token travels.
    pub transport: TokenTransport,
    /// Whether an enrolment code opened it: within minutes of that its person may set a PIN without the old one.
    pub by_code: bool,
    /// When the right PIN was typed in it; then also `auth_time`.
    pub pin_at: Option<Timestamp>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last used, with at most a minute's delay.
    pub last_seen_at: Timestamp,
    /// The end, whatever happens.
    pub expires_at: Timestamp,
}

/// How a session token travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenTransport {
    /// In a cookie.
    Cookie,
    /// In the query parameter `_sk`.
    Url,
}

impl TokenTransport {
    /// The word used in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Url => "url",
        }
    }
}

/// Which sessions to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionScope {
    /// The one of this account with this public id.
    Id(AccountId, SessionId),
    /// All of an account.
    Account(AccountId),
    /// All that this binding opened.
    Binding(BindingId),
    /// All that any of these bindings opened.
    AnyOf(Vec<BindingId>),
}

/// What a session goes on with when the right PIN was typed in it; the rest stays as it is, but `by_code`, which is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// SHA-256 of the new token.
    pub token_hash: TokenHash,
    /// Makes the key of the tag of the new token.
    pub link: [u8; 32],
    /// How the token travels.
    pub transport: TokenTransport,
    /// When it was typed.
    pub at: Timestamp,
}

/// Sees one session after the other, on a thread of the store.
pub type SessionVisit = Box<dyn FnMut(SessionRecord) + Send>;

/// Sessions.
///
/// 13. **Bounded.** After `open`, an account has at most `per_account` sessions; the one opened first ends first.
/// 14. **Gone.** A session that was ended is never returned again.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Keeps a new session. Returns the hashes of the sessions that ended to make room, and of `replaces`.
    async fn open(
        &self,
        session: SessionRecord,
        per_account: u32,
        replaces: Option<TokenHash>,
    ) -> Result<Vec<TokenHash>, StoreError>;

    /// Lets a session go on under the token of `renewal`, as the latest that was opened: the old token is gone in the same
    /// step. `false`, and nothing is kept, if there was none. 55. **No way back in.** A session that was ended never goes
    /// on under another token.
    async fn renew(&self, old: TokenHash, renewal: Renewal) -> Result<bool, StoreError>;

    /// Shows all sessions to `visit`, in the order in which they were opened; read once at start-up. Those of one carrier
    /// share its name. Whether one is over is for the reader to judge.
    async fn load(&self, visit: SessionVisit) -> Result<(), StoreError>;

    /// Notes uses. 15. `last_seen_at` never moves back; a session that is gone stays gone.
    async fn touch(&self, seen: Vec<(TokenHash, Timestamp)>) -> Result<(), StoreError>;

    /// Its token travels in a cookie from now on. 18. **Never back.** No call turns a cookie into a URL; a session that
    /// is gone stays gone.
    async fn keep_in_cookie(&self, token: TokenHash) -> Result<(), StoreError>;

    /// Ends sessions; returns the hashes of those that were there.
    async fn end(&self, scope: SessionScope) -> Result<Vec<TokenHash>, StoreError>;

    /// Ends one session by its token's hash. `false` if there was none.
    async fn end_one(&self, token: TokenHash) -> Result<bool, StoreError>;

    /// Erases sessions that are over. Those that are gone already, or never were, do not matter.
    async fn erase(&self, sessions: Vec<TokenHash>) -> Result<(), StoreError>;
}
