//! Which fields a head has; pure.

use http::HeaderMap;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, ALT_SVC, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE,
    EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, REFERER, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};

/// Which fields a head has of those that the gateway looks at or edits: an ordinary head has few of them, and one look at
/// all its names costs less than asking it for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present(u32);

impl Present {
    /// `Connection`.
    pub(crate) const CONNECTION: Self = Self(1);
    /// Of one connection, beside `Connection` itself.
    pub(crate) const HOP_BY_HOP: Self = Self(1 << 1);
    /// `Expect` and `Content-Length`.
    pub(crate) const SAID_ANEW: Self = Self(1 << 2);
    /// `Trailer`.
    pub(crate) const TRAILER: Self = Self(1 << 3);
    /// `Cookie`.
    pub(crate) const COOKIE: Self = Self(1 << 4);
    /// `Set-Cookie`.
    pub(crate) const SET_COOKIE: Self = Self(1 << 5);
    /// `Referer`.
    pub(crate) const REFERER: Self = Self(1 << 6);
    /// `User-Agent`.
    pub(crate) const USER_AGENT: Self = Self(1 << 7);
    /// `traceparent` and `tracestate`.
    pub(crate) const TRACE: Self = Self(1 << 8);
    /// `Alt-Svc`.
    pub(crate) const ALT_SVC: Self = Self(1 << 9);
    /// That only this gateway may write.
    pub(crate) const OWN: Self = Self(1 << 10);
    /// `Host`.
    pub(crate) const HOST: Self = Self(1 << 11);
    /// `Accept` and `Accept-Language`.
    pub(crate) const ACCEPT: Self = Self(1 << 12);
    /// `Content-Type`.
    pub(crate) const CONTENT_TYPE: Self = Self(1 << 13);
    /// `Strict-Transport-Security`.
    pub(crate) const STRICT_TRANSPORT: Self = Self(1 << 14);
    /// `Accept-Encoding` and `Cache-Control`.
    pub(crate) const CODING: Self = Self(1 << 15);
    /// Any other.
    pub(crate) const OTHER: Self = Self(1 << 16);

    /// What these fields are.
    pub(crate) fn of(fields: &HeaderMap) -> Self {
        fields.keys().fold(Self::default(), |found, name| found.and(Self::kind(name)))
    }

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has one of `kinds`.
    pub(crate) const fn any(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    /// Whether it has another one than these `kinds`.
    pub(crate) const fn beyond(self, kinds: Self) -> bool {
        self.0 & !kinds.0 != 0
    }

    /// Of which kind a field is.
    pub(crate) fn kind(name: &HeaderName) -> Self {
        match *name {
            CONNECTION => Self::CONNECTION,
            EXPECT | CONTENT_LENGTH => Self::SAID_ANEW,
            TRAILER => Self::TRAILER,
            COOKIE => Self::COOKIE,
            SET_COOKIE => Self::SET_COOKIE,
            REFERER => Self::REFERER,
            USER_AGENT => Self::USER_AGENT,
            ALT_SVC => Self::ALT_SVC,
            HOST => Self::HOST,
            ACCEPT | ACCEPT_LANGUAGE => Self::ACCEPT,
            CONTENT_TYPE => Self::CONTENT_TYPE,
            STRICT_TRANSPORT_SECURITY => Self::STRICT_TRANSPORT,
            ACCEPT_ENCODING | CACHE_CONTROL => Self::CODING,
            _ if is_hop_by_hop(name) => Self::HOP_BY_HOP,
            _ => match name.as_str() {
                "traceparent" | "tracestate" => Self::TRACE,
                other if is_gateways_own(other) => Self::OWN,
                _ => Self::OTHER,
            },
        }
    }
}

/// Whether it is a field of one connection, beside what `Connection` names (RFC 9110 §7.6.1, §11.7).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION | TE | TRANSFER_ENCODING | UPGRADE)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Whether only this gateway may write the field, in either direction and whatever separates its words.
pub(crate) fn is_gateways_own(name: &str) -> bool {
    name.strip_prefix("sekisho").is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}
