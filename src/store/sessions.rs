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
    /// The one with this public id.
    Id(SessionId),
    /// All of an account.
    Account(AccountId),
    /// All that this binding opened.
    Binding(BindingId),
}

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

    /// Lets a session go on under the token of `renewed`: the old one is gone in the same step. `false`, and nothing is
    /// kept, if there was none. 55. **No way back in.** A session that was ended never goes on under another token.
    async fn renew(&self, old: TokenHash, renewed: SessionRecord) -> Result<bool, StoreError>;

    /// All sessions that have not reached `expires_at`; read once at start-up.
    async fn load(&self, now: Timestamp) -> Result<Vec<SessionRecord>, StoreError>;

    /// Notes uses. 15. `last_seen_at` never moves back; a session that is gone stays gone.
    async fn touch(&self, seen: Vec<(TokenHash, Timestamp)>) -> Result<(), StoreError>;

    /// Its token travels in a cookie from now on. 18. **Never back.** No call turns a cookie into a URL; a session that
    /// is gone stays gone.
    async fn keep_in_cookie(&self, token: TokenHash) -> Result<(), StoreError>;

    /// Ends sessions; returns the hashes of those that were there.
    async fn end(&self, scope: SessionScope) -> Result<Vec<TokenHash>, StoreError>;

    /// Ends one session by its token's hash. `false` if there was none.
    async fn end_one(&self, token: TokenHash) -> Result<bool, StoreError>;

    /// Erases sessions that have reached `expires_at` at `now` or were last seen before `idle_since`. Returns how many.
    async fn purge(&self, now: Timestamp, idle_since: Timestamp) -> Result<u64, StoreError>;
}
