//! Every reason for which a stranger is refused: its word, its status. No other file names a failure status.
//!
//! The words and their order are the contract's (`interface.md` §3).

use http::StatusCode;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $status:ident;)+) => {
        /// Why a request was refused, in the order in which reasons are judged.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The contract's word, e.g. `untrusted-network`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The status it is answered with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }
        }
    };
}

reasons! {
    /// Host missing, repeated or not ours.
    HostNotAllowed = "host-not-allowed", MISDIRECTED_REQUEST;
    /// A trusted proxy did not say where the request came from.
    UnknownSourceAddress = "unknown-source-address", FORBIDDEN;
    /// A field equals an identifier field only after folding.
    AmbiguousHeaderName = "ambiguous-header-name", BAD_REQUEST;
    /// No identifier field of any profile.
    MissingIdentifier = "missing-identifier", FORBIDDEN;
    /// Identifier fields of two or more profiles.
    ConflictingIdentifiers = "conflicting-identifiers", BAD_REQUEST;
    /// The identifier field is repeated or joined.
    DuplicateIdentifier = "duplicate-identifier", BAD_REQUEST;
    /// The source address lies in no network of any profile.
    UntrustedNetwork = "untrusted-network", FORBIDDEN;
    /// The source address belongs to another profile than the field.
    CarrierMismatch = "carrier-mismatch", FORBIDDEN;
    /// A robot, relay, transcoder or simulator.
    CrawlerUserAgent = "crawler-user-agent", FORBIDDEN;
    /// Not the carrier's own browser.
    UserAgentMismatch = "user-agent-mismatch", FORBIDDEN;
    /// The identifier came over TLS, where the carrier's gateway cannot have written it.
    IdentifierOverTls = "identifier-over-tls", FORBIDDEN;
    /// The identifier came without having been asked for.
    UnsolicitedIdentifier = "unsolicited-identifier", FORBIDDEN;
    /// The value does not match the profile's grammar.
    MalformedIdentifier = "malformed-identifier", BAD_REQUEST;
    /// The value is new at every attachment.
    TransientIdentifier = "transient-identifier", FORBIDDEN;
    /// No session.
    SignInRequired = "sign-in-required", UNAUTHORIZED;
    /// Identified, but bound to no account that may sign in.
    NotBound = "not-bound", FORBIDDEN;
    /// The handset's browser loses the query of a URL, so that nobody can sign in with it.
    HandsetUnsupported = "handset-unsupported", FORBIDDEN;
    /// The handset's browser cannot speak TLS 1.2, and sessions live over TLS.
    TlsUnsupported = "tls-unsupported", FORBIDDEN;
    /// The session ended.
    SessionExpired = "session-expired", UNAUTHORIZED;
    /// Another handset, carrier or network than the one that signed in.
    SessionDeviceMismatch = "session-device-mismatch", FORBIDDEN;
    /// The route asks for the PIN, and it was not typed in this session, or too long ago.
    PinRequired = "pin-required", FORBIDDEN;
    /// Not the account's PIN.
    PinWrong = "pin-wrong", FORBIDDEN;
    /// No PIN that may be set: no four to eight digits, two that differ, or too easy to guess.
    PinInvalid = "pin-invalid", BAD_REQUEST;
    /// Too many tries.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS;
    /// Wrong, used, expired or worn-out enrolment code.
    CodeInvalid = "code-invalid", FORBIDDEN;
    /// The account has its fill of handsets, or the handset is another account's.
    BindingLimit = "binding-limit", FORBIDDEN;
    /// Sessions live in a cookie where it asks, and this browser keeps none.
    CookiesRequired = "cookies-required", FORBIDDEN;
    /// A link to another site that we did not sign, or too long ago.
    LinkExpired = "link-expired", FORBIDDEN;
    /// The name of a handset is too long, unseen, or could be somebody's number or address.
    LabelInvalid = "label-invalid", BAD_REQUEST;
    /// The account is under legal hold: nothing of it is erased.
    SubjectHeld = "subject-held", FORBIDDEN;
    /// The hand-over ticket is spent, expired, or another carrier's.
    TicketInvalid = "ticket-invalid", FORBIDDEN;
    /// The form token is missing, used, expired or another handset's.
    FormTokenInvalid = "form-token-invalid", FORBIDDEN;
    /// A form or a WebSocket handshake from another origin.
    ForeignOrigin = "foreign-origin", FORBIDDEN;
    /// Readers of the path would differ on its route.
    PathAmbiguous = "path-ambiguous", BAD_REQUEST;
    /// No route holds the path.
    NoRoute = "no-route", NOT_FOUND;
    /// The method is never served here.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED;
    /// The head breaks the grammar or contradicts itself.
    MalformedRequest = "malformed-request", BAD_REQUEST;
    /// The head is too large.
    HeadTooLarge = "request-head-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The target is too long.
    UrlTooLong = "url-too-long", URI_TOO_LONG;
    /// The body is too large.
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE;
    /// The client's body stood still for too long.
    RequestTimeout = "request-timeout", REQUEST_TIMEOUT;
    /// The upstream cannot be reached, or does not speak HTTP.
    UpstreamUnreachable = "upstream-unreachable", BAD_GATEWAY;
    /// Every server of the upstream fails its probes.
    NoHealthyUpstream = "no-healthy-upstream", SERVICE_UNAVAILABLE;
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream-timeout", GATEWAY_TIMEOUT;
    /// The gateway has not proved yet that no forged field passes it.
    NotReady = "not-ready", SERVICE_UNAVAILABLE;
    /// The store failed; nothing was acknowledged.
    StoreUnavailable = "store-unavailable", SERVICE_UNAVAILABLE;
    /// A key that the answer needs is suspended.
    KeySuspended = "key-suspended", SERVICE_UNAVAILABLE;
    /// The gateway itself failed.
    Internal = "internal-error", INTERNAL_SERVER_ERROR;
}

impl Reason {
    /// Whether it says something about an attempt, rather than about where somebody wanted to go.
    #[must_use]
    pub const fn is_an_attempt(self) -> bool {
        !matches!(
            self,
            Self::SignInRequired | Self::SessionExpired | Self::PinRequired | Self::PinInvalid | Self::NoRoute
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_and_a_failure_status() {
        let words: HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|r| r.status().is_client_error() || r.status().is_server_error()));
    }
}
