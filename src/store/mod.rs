//! The ports to durable state: what the gateway asks of a store, as numbered clauses.
//!
//! A port speaks the domain, not SQL. "Not there" is `Ok(None)` or an outcome; [`StoreError`] means the
//! store itself failed, and the caller fails closed. The caller passes `now`; a backend never reads a
//! clock. Each clause has one function in the conformance suite (`tests/stores/conformance.rs`), which
//! every backend runs.
//!
//! Clauses that hold for every method of every port:
//!
//! 1. **Durable.** When a mutating call returns `Ok`, its effect survives `kill -9` and power loss.
//! 2. **Atomic.** A call that returns `Err` or a refusing outcome has changed nothing.
//! 3. **Read your write.** A read that starts after a write returned sees it, from any caller.
//! 4. **Linear.** Concurrent calls behave as if run one after another.
//!
//! Three ports, because they may live apart later: keys and bindings belong in PostgreSQL, sessions in
//! Redis. Nothing here spans two ports in one transaction; `gateway` orders the calls so that a crash
//! between them fails closed (see `ARCHITECTURE.md`, "Order of writes").

mod embedded;

use async_trait::async_trait;
use thiserror::Error;

pub use embedded::{EmbeddedStore, OpenError};

use crate::binding::{AccountId, AccountState, BindingDigest, BindingId, Chain};
use crate::carrier::CarrierName;
use crate::clock::{Day, Timestamp};
use crate::session::{SessionId, TokenHash};

/// The store itself failed; the answer to a client is `store-unavailable`.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The medium refused: full, read-only, I/O error. The text is for the operator's log.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// What was read back breaks an invariant of this program. The text names the record, never its content.
    #[error("the store holds a record that cannot be right: {0}")]
    Corrupt(String),
    /// The store was shut down while the call waited.
    #[error("the store is closed")]
    Closed,
}

/// An account as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// The operator's opaque id.
    pub account: AccountId,
    /// Whether its handsets may sign in.
    pub state: AccountState,
    /// When it came to exist.
    pub created_at: Timestamp,
    /// Live bindings.
    pub bindings: u32,
    /// Pairwise subjects handed out so far, as (upstream name, subject), sorted by upstream.
    pub subjects: Vec<(String, String)>,
}

/// A binding as stored, without its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingRecord {
    /// Random id of the binding.
    pub id: BindingId,
    /// Whose it is.
    pub account: AccountId,
    /// The carrier profile (the namespace of the digest).
    pub carrier: CarrierName,
    /// The keys that made the digest, innermost first.
    pub chain: Chain,
    /// The day it was made.
    pub bound_on: Day,
    /// The day of the last sign-in.
    pub last_used_on: Day,
}

/// One digest to look for, with the chain that made it.
pub struct Probe {
    /// The keys that made the digest.
    pub chain: Chain,
    /// The digest.
    pub digest: BindingDigest,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The binding.
    pub binding: BindingRecord,
    /// The state of its account.
    pub account_state: AccountState,
}

/// A one-time enrolment code to be kept, as a keyed hash.
pub struct NewCode {
    /// Who may enrol with it. The account is created if there is none.
    pub account: AccountId,
    /// The first four digits, in clear: they select the code.
    pub selector: String,
    /// Keyed hash of the whole code.
    pub mac: [u8; 32],
    /// Id of the key that made `mac`.
    pub key: String,
    /// The last instant it may be used.
    pub expires_at: Timestamp,
    /// When it was issued.
    pub issued_at: Timestamp,
}

/// What became of a code to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueOutcome {
    /// Kept; older unused codes of the same account are gone.
    Issued,
    /// Another live code has that selector: draw again.
    SelectorTaken,
}

/// A binding to be made, with the proof that it may.
pub struct Enrolment {
    /// Why this handset may be bound.
    pub authority: EnrolmentAuthority,
    /// Keyed, code-scoped tag of the handset; counts its wrong tries against that code only.
    pub handset_tag: [u8; 16],
    /// The carrier profile.
    pub carrier: CarrierName,
    /// Every digest under which this handset may be bound already, in migration order.
    pub probes: Vec<Probe>,
    /// The digest to store: made by the active key alone. It is among `probes`.
    pub digest: BindingDigest,
    /// The chain of `digest`.
    pub chain: Chain,
    /// Generation of the key ring that made the digests.
    pub generation: u64,
    /// Id for the new binding.
    pub id: BindingId,
    /// Most bindings an account may have.
    pub per_account: u32,
}

/// Why a handset may be bound to an account.
pub enum EnrolmentAuthority {
    /// The person typed a one-time code.
    Code {
        /// The first four digits typed.
        selector: String,
        /// Keyed hashes of what was typed under each key that may have made the stored one: (key id, mac).
        macs: Vec<(String, [u8; 32])>,
    },
}

/// What became of an enrolment. Only the first two changed a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolOutcome {
    /// Bound; the code is spent.
    Bound(BindingRecord),
    /// It was bound to that very account before; the code is spent.
    AlreadyBound(BindingRecord),
    /// No live code matches, or its tries are used up. The try was counted.
    CodeInvalid,
    /// The code is right, but the account has its fill or the handset belongs to another account. The code stays.
    BindingLimit,
    /// The code is right, but its account is suspended. The code stays.
    Suspended,
    /// The key ring moved on meanwhile: compute the digests again.
    Stale,
}

/// Wrong tries that end a code, per handset and in all (`interface.md` §3).
#[derive(Clone, Copy, Debug)]
pub struct CodeLimits;

impl CodeLimits {
    /// Wrong tries of one handset against one code; afterwards even the right code is refused to that handset.
    pub const PER_HANDSET: u32 = 5;
    /// Wrong tries of all handsets against one code; afterwards it is dead.
    pub const IN_ALL: u32 = 20;
}

/// Accounts, enrolment codes and bindings: one consistency domain.
///
/// 5. **One account per handset.** No two bindings ever share (carrier, digest); an enrolment whose
///    probes hit any binding never makes a second one.
/// 6. **Single use.** Of any number of concurrent enrolments with one code, at most one binds.
/// 7. **Counted.** A wrong try is counted durably before the refusal is returned.
/// 8. **Snapshot.** `resolve` judges all probes against one state of the store.
#[async_trait]
pub trait BindingStore: Send + Sync + 'static {
    /// Generation of the key ring, as last moved by a rotation; 0 in a new store.
    async fn generation(&self) -> Result<u64, StoreError>;

    /// Looks all `probes` up, in their order, never stopping at the first hit; the first hit counts.
    ///
    /// 9. The work does not depend on whether there is a hit.
    async fn resolve(&self, carrier: &CarrierName, probes: &[Probe]) -> Result<Option<Hit>, StoreError>;

    /// Notes that the binding was used on `day`, and flattens it: the record's chain and digest become `flat`.
    ///
    /// 10. Changes nothing if the binding is gone; `last_used_on` never moves back.
    async fn used(&self, id: BindingId, day: Day, flat: Probe) -> Result<(), StoreError>;

    /// Whether the binding exists and its account is active. Called after a session was opened, so that a
    /// revocation that ran meanwhile is not outlived by it.
    async fn stands(&self, id: BindingId) -> Result<bool, StoreError>;

    /// Binds a handset, if the authority holds. See [`EnrolOutcome`].
    async fn enrol(&self, enrolment: Enrolment, now: Timestamp) -> Result<EnrolOutcome, StoreError>;

    /// Keeps a new code and creates the account if there is none.
    ///
    /// 11. A live code with the same selector refuses; dead ones are erased.
    async fn issue_code(&self, code: NewCode) -> Result<IssueOutcome, StoreError>;

    /// Bindings of one account, or of all, oldest first.
    async fn bindings(&self, account: Option<&AccountId>) -> Result<Vec<BindingRecord>, StoreError>;

    /// Erases a binding. `None` if there is none.
    async fn revoke(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError>;

    /// One account. `None` if there is none.
    async fn account(&self, account: &AccountId) -> Result<Option<AccountRecord>, StoreError>;

    /// All accounts, by id.
    async fn accounts(&self) -> Result<Vec<AccountRecord>, StoreError>;

    /// Suspends or resumes. `false` if there is no such account.
    async fn set_account_state(&self, account: &AccountId, state: AccountState) -> Result<bool, StoreError>;

    /// The pairwise subject of the account at the upstream; `fresh` becomes it if there is none yet.
    ///
    /// 12. All callers get one and the same subject. `None` if there is no such account.
    async fn subject(&self, account: &AccountId, upstream: &str, fresh: String) -> Result<Option<String>, StoreError>;

    /// Erases codes that ended before `now` and bindings last used before `unused_since`.
    /// Returns the ids of the bindings erased.
    async fn purge(&self, now: Timestamp, unused_since: Day) -> Result<Vec<BindingId>, StoreError>;
}

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
    /// Random; from it the per-audience `sid` is derived.
    pub sid_seed: [u8; 16],
    /// How the token travels.
    pub transport: TokenTransport,
    /// When it was opened; also `auth_time`.
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
/// 13. **Bounded.** After `open`, an account has at most `per_account` sessions; the oldest ended first.
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

    /// All sessions that have not reached `expires_at`; read once at start-up.
    async fn load(&self, now: Timestamp) -> Result<Vec<SessionRecord>, StoreError>;

    /// Notes uses. 15. `last_seen_at` never moves back; a session that is gone stays gone.
    async fn touch(&self, seen: Vec<(TokenHash, Timestamp)>) -> Result<(), StoreError>;

    /// Ends sessions; returns the hashes of those that were there.
    async fn end(&self, scope: SessionScope) -> Result<Vec<TokenHash>, StoreError>;

    /// Ends one session by its token's hash. `false` if there was none.
    async fn end_one(&self, token: TokenHash) -> Result<bool, StoreError>;

    /// Erases sessions that expired before `now` or were last seen before `idle_since`.
    async fn purge(&self, now: Timestamp, idle_since: Timestamp) -> Result<u64, StoreError>;
}

/// What a stored key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Keyed hashes of handset identifiers.
    Binding,
    /// Signatures of assertions (ES256).
    Assertion,
    /// Keyed hashes of enrolment codes, handset tags and `sid`.
    Session,
}

/// Where a key is in its life (`ARCHITECTURE.md`, "Key states").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Made, not yet used.
    Pending,
    /// The one in use.
    Active,
    /// Still outermost on some records.
    Retiring,
    /// Only below another layer.
    Inner,
    /// Proven unused.
    Drained,
    /// Wiped; a tombstone remains.
    Destroyed,
}

/// A key as stored: its material wrapped under the KEK.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// `k1`, `a1`, `s1`: the purpose's letter and a number that only grows, so their order is their age.
    pub id: String,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Where it is in its life.
    pub state: KeyState,
    /// No sign-in may use it for now.
    pub suspended: bool,
    /// Known to have leaked.
    pub compromised: bool,
    /// AES-256-GCM under the KEK: nonce, ciphertext, tag.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The stretch parameters, fixed when the store was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeRecord {
    /// Names the scheme in every binding record; `v1` in a new store.
    pub id: String,
    /// Whether identifiers of small spaces are stretched at all.
    pub stretch: Option<StretchParameters>,
    /// The deployment's salt, 16 random bytes.
    pub salt: [u8; 16],
}

/// Cost of the memory-hard stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StretchParameters {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

/// The wrapped keys and the scheme.
///
/// 16. **First writer wins.** `initialise` on a store that has keys changes nothing and returns what is there.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// A random id of this store, part of what binds a wrapped key to it.
    async fn store_id(&self) -> Result<[u8; 16], StoreError>;

    /// All keys, and the scheme if the store was initialised.
    async fn keys(&self) -> Result<(Vec<KeyRecord>, Option<SchemeRecord>), StoreError>;

    /// Puts the first keys and the scheme in, all or nothing.
    async fn initialise(&self, keys: Vec<KeyRecord>, scheme: SchemeRecord) -> Result<(), StoreError>;

    /// How many binding records carry `scheme`: what a changed stretch setting would orphan.
    async fn bound_under(&self, scheme: &str) -> Result<u64, StoreError>;
}
