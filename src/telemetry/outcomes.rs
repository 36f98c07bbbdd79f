//! What things came to, as metrics and logs call it.

/// What came of an upstream's `Sekisho-Bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindOutcome {
    /// The handset was bound and signed in.
    Bound,
    /// It was bound to that account before, and signed in.
    AlreadyBound,
    /// The handset is asked in the clear, where its identifier is: a bind ticket was issued.
    HandedOver,
    /// The upstream may not bind, or not on that route.
    NotAllowed,
    /// Repeated, misspelt, no account id, somebody's number, or beside a failed login.
    Malformed,
    /// The request was no form sent from a page of ours.
    NotAsked,
    /// The handset could not be identified.
    NotIdentified,
    /// The handset is another account's, the account has its fill, or it is suspended.
    Refused,
    /// Too often, or too many at once.
    RateLimited,
    /// The store or a key failed.
    Failed,
}

impl BindOutcome {
    /// In their order.
    pub(super) const WORDS: [&'static str; 10] = [
        "bound",
        "already-bound",
        "handed-over",
        "not-allowed",
        "malformed",
        "not-asked",
        "not-identified",
        "refused",
        "rate-limited",
        "failed",
    ];

    /// The word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS.get(self as usize).copied().unwrap_or_default()
    }
}

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector took it.
    Sent,
    /// More waited than may.
    QueueFull,
    /// The collector was away, slow, refused it, or was replaced before it took it.
    NotTaken,
}

impl SpanOutcome {
    /// In their order.
    pub(super) const WORDS: [&'static str; 3] = ["sent", "queue-full", "not-taken"];
}

/// What a typed PIN came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinOutcome {
    /// It is the account's.
    Right,
    /// It is not.
    Wrong,
    /// The handset has to wait, or too many were typed at once.
    RateLimited,
    /// The account has none.
    NotSet,
    /// The store failed.
    Failed,
}

impl PinOutcome {
    /// In their order.
    pub(super) const WORDS: [&'static str; 5] = ["right", "wrong", "rate-limited", "not-set", "failed"];
}

/// What came of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The configuration in the file is in force.
    Done,
    /// It was not sound; the former one is in force.
    Refused,
    /// The audit trail could not be written.
    Failed,
}

impl ReloadOutcome {
    /// In their order.
    pub(super) const WORDS: [&'static str; Self::COUNT] = ["done", "refused", "failed"];
    /// How many there are.
    pub const COUNT: usize = 3;
}
